"""A score's signature: whatever decides the score changes it, and nothing else does."""

import json
import random
import re
from dataclasses import replace

import pytest
from PIL import Image

from eval.api import Generate, Nucleus, Prediction, Rank
from eval.data.declare import Layout, Sample, Source, Task
from eval.protocols.qwen_vl import CHATML
from eval.run.folder import RunFolder
from eval.run.requests import requests
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import AsPublished, score_file, score_run

MODEL = {
    "checkpoint": "somewhere",
    "digest": "a" * 64,
    "dtype": "float32",
    "device": "cuda:0",
    "engine": "shared",
    "batch_size": 1,
    "generation": 3,
}
JUDGE = {
    "model": "gpt-4",
    "reported": ["gpt-4-0613"],
    "prompt": {"digest": "1" * 64, "published": True},
    "parameters": {"temperature": 0},
}


def read(root):
    """Six questions on three pictures."""
    told = json.loads((root / "sketch.json").read_text())
    for number in range(told["samples"]):
        fields = {"image": f"{number % 3}.png", "question": f"What is {number}?"}
        yield Sample(str(number), fields, told["reference"], tuple(told["options"]))


TASK = Task(
    "sketch_test",
    6,
    (Layout((Source("sketch.json"),), read),),
    "<img>{image}</img>{question} Answer:",
    Generate(10),
    {"match": lambda text, reference: float(text.strip() == reference)},
    chat="Picture 1: <img>{image}</img>\n{question}",
)
ASKED = Spec()
RANKED = replace(TASK, decode=Rank)
SAMPLED = replace(TASK, decode=Nucleus(10, 0, 0.5))


def scored(
    folder,
    task=TASK,
    asked=ASKED,
    model=MODEL,
    *,
    data=None,
    space="",
    color=(200, 30, 30),
    entry=None,
    about=None,
    failed=(),
    server=None,
    published=None,
    workers=1,
    order=None,
):
    """The signature of a run that answers every question with "a"."""
    root = folder / "data"
    root.mkdir(parents=True)
    told = {"samples": 6, "reference": "a", "options": [" a", " b"], **(data or {})}
    (root / "sketch.json").write_text(json.dumps(told) + space)
    for number in range(3):
        Image.new("RGB", (4, 4), color).save(root / f"{number}.png")
    entries = {task.name: spec_entry(task, root, asked) | (entry or {})}
    run = RunFolder.start(folder / "run", {"model": model, "tasks": entries, **(about or {})})
    run.answers(task.name).open(task, root, asked)
    digests = run.digests()
    wanted = list(run.answers(task.name).pending(task, root, asked, digests))
    random.Random(order).shuffle(wanted)
    for number in range(workers):
        journals = run.journals(number)
        for each in wanted[number::workers]:
            error = "lost" if each.request.id.partition("/")[2] in failed else ""
            answer = Prediction(each.request.id, "" if error else "a", error=error)
            journals.write(answer, each.of)
        journals.close()
    assert not run.answers(task.name).finalize(task, root, asked, digests)
    if server:
        run.scores(task.name).write_server(server)
    return score_run(run, task, root, published)["signature"]


def judged(**changes):
    told = {"server": "judge", "metrics": {"match": 0.5}, "judge": {**JUDGE, **changes}}
    return {"server": told, "data": {"reference": None}}


CHAT = {"asked": Spec(protocol=CHATML)}
DECIDES = {
    "prompt": ({}, {"task": replace(TASK, prompt="<img>{image}</img>{question} Reply:")}),
    "chat prompt": (CHAT, {**CHAT, "task": replace(TASK, chat="<img>{image}</img>{question}")}),
    "protocol": ({}, CHAT),
    "dialogue": ({}, {"task": replace(TASK, dialogue=True)}),
    "system text": (CHAT, {**CHAT, "entry": {"system": "You are a pirate."}}),
    "most tokens": ({}, {"task": replace(TASK, decode=Generate(11))}),
    "least tokens": ({}, {"task": replace(TASK, decode=Generate(10, 1))}),
    "sampling": ({}, {"task": SAMPLED}),
    "top_p": ({"task": SAMPLED}, {"task": replace(TASK, decode=Nucleus(10, 0, 0.6))}),
    "sampling seed": ({"task": SAMPLED}, {"task": SAMPLED, "asked": Spec(seed=1)}),
    "greedy": ({"task": SAMPLED}, {"task": SAMPLED, "asked": Spec(greedy=True)}),
    "ranking": ({}, {"task": RANKED}),
    "how options are appended": ({"task": RANKED}, {"task": replace(RANKED, dialogue=True)}),
    "options": ({"task": RANKED}, {"task": RANKED, "data": {"options": ["a", "b"]}}),
    "bytes of the data": ({}, {"space": " "}),
    "bytes of the pictures": ({}, {"color": (0, 0, 255)}),
    "limit": ({}, {"asked": Spec(limit=5)}),
    "samples left out": ({}, {"asked": Spec(left_out=("3",), faults=("x",))}),
    "faults": ({}, {"asked": Spec(faults=("images: 1 missing",))}),
    "failed samples": ({}, {"failed": ("3",)}),
    "checkpoint": ({}, {"model": {**MODEL, "digest": "b" * 64}}),
    "dtype": ({}, {"model": {**MODEL, "dtype": "bfloat16"}}),
    "kind of device": ({}, {"model": {**MODEL, "device": "cpu"}}),
    "engine": ({}, {"model": {**MODEL, "engine": "plain"}}),
    "generation": ({}, {"model": {**MODEL, "generation": 4}}),
    "batch size": ({}, {"model": {**MODEL, "batch_size": 8}}),
    "as published": ({}, {"published": AsPublished(1, 1)}),
    "judge": (judged(), judged(reported=["gpt-4o"])),
    "judge's prompt": (judged(), judged(prompt={"digest": "2" * 64, "published": True})),
    "judged as published": (judged(), judged(as_published=True)),
    "judge's parameters": (judged(), judged(parameters={"temperature": 1})),
}


@pytest.mark.parametrize("name", DECIDES)
def test_whatever_decides_a_score_changes_its_signature(name, tmp_path):
    """One thing at a time; runs that differ in nothing else."""
    before, after = DECIDES[name]
    assert scored(tmp_path / "a", **before) != scored(tmp_path / "b", **after)


def test_the_version_of_the_package_changes_the_signature(tmp_path, monkeypatch):
    """It is that of the source, which the wheel's metadata take over."""
    import eval

    assert f" eval={eval.__version__}" in scored(tmp_path / "a")
    monkeypatch.setattr("eval.scoring.signature.__version__", "99.0")
    assert " eval=99.0" in scored(tmp_path / "b")


@pytest.mark.parametrize(
    "same",
    [
        {"workers": 3},
        {"order": 1},
        {"workers": 2, "order": 2},
        {"model": {**MODEL, "device": "cuda:1"}},
        {"model": {**MODEL, "checkpoint": "elsewhere"}},
        {"about": {"name": "another", "workers": 8, "command": "other", "data": "moved"}},
    ],
    ids=str,
)
def test_nothing_else_changes_it(same, tmp_path):
    """Folders, workers, the order of answers, and where a checkpoint lies."""
    assert scored(tmp_path / "a") == scored(tmp_path / "b" / "deeper", **same)


def test_the_way_to_ask_is_told_whatever_the_samples(tmp_path):
    """`asked` does not depend on --limit or the data, so that runs can be compared by it."""
    found = [
        re.search(r" asked=([0-9a-f]{12}) ", scored(tmp_path / name, **more))[1]
        for name, more in (
            ("whole", {}),
            ("limited", {"asked": Spec(limit=2)}),
            ("other data", {"space": " ", "data": {"samples": 4}}),
            ("left out", {"asked": Spec(left_out=("3",), faults=("x",))}),
        )
    ]
    assert 1 == len(set(found))


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"few_shot": 4, "seed": 0, "leaking": False},
        {"few_shot": 4, "seed": 1, "leaking": False},
        {"few_shot": 4, "seed": 0, "leaking": True},
        {"few_shot": 2, "seed": 0, "leaking": False},
    ],
    ids=str,
)
def test_each_rule_of_few_shot_examples_has_a_digest_of_its_own(entry, tmp_path):
    """Their number, seed, and the split that they are drawn from."""
    from eval.run.spec import spec_digest

    base = {"prompt": "x", "protocol": "published", "decode": {"greedy": True}}
    others = [
        {**base, "few_shot": 3, "seed": 0, "leaking": False},
        {**base, "few_shot": 4, "seed": 2, "leaking": False},
    ]
    found = spec_digest(TASK, base | entry)
    assert found not in [spec_digest(TASK, other) for other in others]
    if entry:
        assert found != spec_digest(TASK, base)


def test_an_earlier_manifest_has_the_digest_of_its_system_text(tmp_path):
    """It was not recorded then, and was the one that there is today."""
    from eval.run.spec import spec_digest

    scored(tmp_path / "a", **CHAT)
    entry = RunFolder.open(tmp_path / "a/run").manifest["tasks"][TASK.name]
    earlier = {name: value for name, value in entry.items() if name != "system"}
    assert spec_digest(TASK, entry) == spec_digest(TASK, earlier)
    assert "system" in entry


def test_a_file_of_answers_does_not_claim_what_is_not_known(tmp_path):
    """Who answered, and how it was asked, is a question mark or left out."""
    scored(tmp_path / "a")
    root = tmp_path / "a" / "data"
    rows = [
        {"question_id": r.id.partition("/")[2], "answer": "a"}
        for _, r in requests(TASK, root, Spec())
    ]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(rows))
    told = score_file(file, TASK, root).summary["signature"]
    assert " protocol=? decode=? asked=? answers=" in told
    assert not re.search(r" (ckpt|dtype|device|engine|gen|batch)=", told)
