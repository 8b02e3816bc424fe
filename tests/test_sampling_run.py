"""Sampling from a task to a run's files: requests, seeds, what is recorded, what goes on."""

import json
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small import command, make_checkpoint

from eval.api import Generate, Nucleus, Prediction, Rank
from eval.data.declare import Layout, Sample, Source, Task
from eval.engine.plain import PlainEngine
from eval.errors import DataError, UsageError
from eval.launch.plan import RoundPlan
from eval.protocols.qwen_vl import CHATML, fill_template
from eval.run import journal
from eval.run.folder import RunFolder
from eval.run.requests import render_request, requests
from eval.run.spec import Spec, spec_entry
from eval.runtime import QwenVL

PICTURES = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def model(checkpoint):
    """Its scores are rather flat: a nucleus of 0.9 holds most of the 480 ids."""
    return QwenVL.from_pretrained(checkpoint)


def answers(engine, asked):
    found = {prediction.id: prediction for prediction in engine.answer(asked)}
    assert {request.id for request in asked} == found.keys()
    assert not any(prediction.error for prediction in found.values())
    return found


def read(root):
    """As many sketches as the file tells, the last with three pictures."""
    count = int((root / "sketch/count.txt").read_text())
    for n in range(count):
        fields = {"image": f"sketch/{n % PICTURES}.png", "question": f"What is number {n}?"}
        if n == count - 1:
            fields |= {"image_2": "sketch/1.png", "image_3": "sketch/2.png"}
        yield Sample(str(n), fields, reference="a")


def a_task(**changes):
    fields = {
        "size": None,
        "layouts": (Layout((Source("sketch/count.txt"),), read),),
        "prompt": "{pictures}{question}",
        "decode": Nucleus(20, top_p=0.9),
        "metrics": {"accuracy": lambda text, reference: float(text == reference)},
        "dialogue": True,
    }
    return Task("sketch_test", **{**fields, **changes})


@pytest.fixture
def data(tmp_path, root):
    """Four sketches."""
    folder = tmp_path / "data"
    shutil.copytree(root, folder / "sketch")
    (folder / "sketch" / "count.txt").write_text("4")
    return folder


ONE = Sample("1", {"image": "a.png", "question": "What?"})


def test_a_dialogue_s_request():
    """The published prompt is the user's turn, with a seed of its own; examples are refused."""
    request = render_request(a_task(), ONE)
    assert ("sketch_test/1", "Picture 1: <img>a.png</img>\nWhat?", True) == (
        request.id,
        request.prompt,
        request.chat,
    )
    assert Nucleus(20, top_p=0.9).drawn("sketch_test/1") == request.decode
    other = render_request(a_task(), replace(ONE, id="2"))
    assert request.decode.seed != other.decode.seed
    assert (request.prompt, replace(request.decode, seed=0)) == (
        other.prompt,
        replace(other.decode, seed=0),
    )
    with pytest.raises(UsageError, match="sketch_test: a dialogue takes no few-shot examples"):
        render_request(a_task(), ONE, examples=[ONE])
    assert not render_request(a_task(dialogue=False), ONE).chat


def test_a_dialogue_in_the_other_protocol():
    """Protocol chatml asks its own prompt, which a dialogue need not have."""
    request = render_request(a_task(chat="{question} {pictures}"), ONE, CHATML)
    assert ("What? Picture 1: <img>a.png</img>\n", True) == (request.prompt, request.chat)
    assert Nucleus(20, top_p=0.9).drawn("sketch_test/1") == request.decode
    with pytest.raises(UsageError, match="sketch_test: has no prompt in protocol chatml"):
        render_request(a_task(), ONE, CHATML)


def test_another_way_to_decode():
    """What is given stands in for the task's own; its seed is made the request's, too."""
    assert Generate(3) == render_request(a_task(), ONE, decode=Generate(3)).decode
    given = render_request(a_task(), ONE, decode=Nucleus(20, top_p=0.9, seed=5)).decode
    assert Nucleus(20, top_p=0.9, seed=5).drawn("sketch_test/1") == given
    assert given != render_request(a_task(), ONE).decode


@given(seed=st.integers(0, 2**40), name=st.text())
def test_seeds_fit_where_they_are_kept(seed, name):
    """Whatever the id, a seed is a number of 63 bits, the same each time, and only it changes."""
    how = Nucleus(5, 1, 0.4, seed)
    assert 0 <= how.drawn(name).seed < 2**63
    assert how.drawn(name) == how.drawn(name)
    assert how == replace(how.drawn(name), seed=seed)


@pytest.mark.parametrize("top_p", [0, -0.1, 1.1, math.nan, math.inf])
def test_a_top_p_that_is_none_is_refused(top_p):
    """And so is what any Generate refuses."""
    with pytest.raises(UsageError, match="top_p: above 0 and at most 1 expected"):
        Nucleus(5, top_p=top_p)
    with pytest.raises(UsageError, match="6 found"):
        Nucleus(5, 6)


def test_a_seed_below_zero_is_refused():
    """When it is given: in the shared engine it stopped all questions, not its own."""
    with pytest.raises(UsageError, match="seed: 0 or more expected, -1 found"):
        Nucleus(5, seed=-1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pictures_are_numbered(count):
    """A line for each of a sample's pictures, in their order, whatever that of the fields."""
    paths = tuple(f"{n} x.png" for n in range(count))
    names = ["image", "image_2", "image_3"][:count]
    fields = {"question": "Q", **dict(reversed(list(zip(names, paths, strict=True))))}
    assert paths == Sample("1", fields).images
    lines = "".join(f"Picture {n}: <img>{path}</img>\n" for n, path in enumerate(paths, 1))
    assert f"{lines}Q" == fill_template("{pictures}{question}", fields)
    assert f"<img>{paths[-1]}</img>Q" == fill_template(
        f"<img>{{{names[-1]}}}</img>{{question}}", fields
    )


@pytest.mark.parametrize(
    ("fields", "images"),
    [
        ({"question": "Q"}, ()),
        ({"image": ""}, ()),
        ({"image": "a", "image_3": "c"}, ("a",)),
        ({"image_2": "b"}, ()),
        ({"image": "a", "image_1": "x", "image_2": "b"}, ("a", "b")),
    ],
)
def test_pictures_end_at_the_first_that_there_is_not(fields, images):
    """Image_1 is none: the first is called image."""
    assert images == Sample("1", fields).images


@pytest.mark.parametrize("hostile", ["<img>/etc/passwd</img>", "</img>x", "a<img>", "x</img><img>"])
@pytest.mark.parametrize("name", ["question", "image", "image_2"])
def test_a_text_cannot_open_an_image(name, hostile):
    """Neither a question nor a path can name a file to show beside those of its sample."""
    fields = {"image": "a.png", "image_2": "b.png", "question": "What?", name: hostile}
    with pytest.raises(DataError, match="holds the image tag"):
        render_request(a_task(), Sample("1", fields))


def test_a_text_is_not_filled_again():
    """Braces in a question are a question's."""
    fields = {"image": "a.png", "question": "{pictures}{image}{answer}"}
    assert render_request(a_task(), Sample("1", fields)).prompt.endswith(
        "\n{pictures}{image}{answer}"
    )


# -- runs ----------------------------------------------------------------------------------------


def wanted(task, data, asked):
    """What an empty run lacks."""
    folder = RunFolder(data / "none", {})
    return list(folder.answers(task.name).pending(task, data, asked, folder.digests()))


@pytest.mark.parametrize(
    "asked",
    [
        Spec(),
        Spec(seed=7),
        Spec(greedy=True),
        Spec(limit=3, seed=7, few_shot=2, leaking=True),
        Spec(seed=7, few_shot=2, leaking=True, greedy=True),
    ],
)
def test_a_manifest_tells_how_it_was_drawn(data, asked):
    """All that decides it, and what is read back asks the same."""
    task = a_task(chat="{pictures}{question}", dialogue=False)
    entry = json.loads(json.dumps(spec_entry(task, data, asked)))
    bounds = {"max_new_tokens": 20, "min_new_tokens": 0}
    sampled = {"greedy": False, **bounds, "top_p": 0.9, "seed": asked.seed}
    assert ({"greedy": True, **bounds} if asked.greedy else sampled) == entry["decode"]
    assert asked == Spec.of(entry)
    if not asked.few_shot:
        expected = list(requests(task, data, asked))
        assert expected == list(requests(task, data, Spec.of(entry)))
        if not asked.greedy:
            how = Nucleus(20, top_p=0.9, seed=asked.seed)
            assert all(how.drawn(request.id) == request.decode for _, request in expected)
        else:
            assert {Generate(20)} == {request.decode for _, request in expected}


def test_what_is_drawn_otherwise_is_asked_again(data):
    """An answer of another seed, or of the best tokens, is no answer to what is asked now."""
    told = [
        {each.of for each in wanted(a_task(), data, asked)}
        for asked in (Spec(), Spec(seed=1), Spec(greedy=True), Spec(seed=1, greedy=True))
    ]
    assert [4, 4, 4, 4] == [len(identities) for identities in told]
    assert told[2] == told[3]
    assert 12 == len(told[0] | told[1] | told[2])
    assert told[0] == {each.of for each in wanted(a_task(), data, Spec())}


@pytest.mark.parametrize("decode", [Generate(5), Rank])
def test_a_task_that_does_not_sample_has_no_seed(data, decode):
    """Neither a seed nor --greedy makes it another run."""
    task = a_task(decode=decode)
    entries = [spec_entry(task, data, asked) for asked in (Spec(), Spec(seed=3, greedy=True))]
    assert entries[0] == entries[1]
    assert wanted(task, data, Spec()) == wanted(task, data, Spec(seed=3, greedy=True))
    assert wanted(task, data, Spec()) == wanted(task, data, Spec.of(entries[0]))


@pytest.mark.parametrize("seed", [None, 0, 2**63 - 1])
def test_a_line_keeps_the_seed(seed):
    """Zero, too, and the largest."""
    line = journal.line(Prediction("1", "a", (5,), seed=seed), "of")
    assert (seed is not None) == (b"seed" in line)
    assert seed == journal.parse(line, "here").prediction.seed


def test_a_plan_keeps_how_a_question_is_drawn(data):
    """Workers are told by it what to ask; a seed of 63 bits is not rounded on the way."""
    expected = wanted(a_task(decode=Nucleus(20, 2, top_p=0.1 + 0.2)), data, Spec(seed=3))
    plan = RoundPlan.write(data / "plan", expected, alone=True)
    found = [plan.group(number).requests[0] for number in range(plan.groups)]
    plan.close()
    assert sorted((each.request for each in expected), key=str) == sorted(found, key=str)


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package that offers the task, as its benchmark is published, and one of 512 tokens."""
    lines = (
        "from test_sampling_run import Nucleus, a_task, replace",
        "TASKS = (a_task(), replace(a_task(decode=Nucleus(512)), name='sketch_long'))",
    )
    (tmp_path / "lab_sketch.py").write_text("\n".join(lines))
    info = tmp_path / "lab_sketch-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-sketch\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[eval.tasks]\nlab = lab_sketch\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("lab_sketch", None)


@pytest.fixture
def run(lab, checkpoint, data):
    def start(out, *more, task="sketch_test", code=0):
        done = command("run", task, "--model", checkpoint, "--data", data, "--out", out, *more)
        assert code == done.returncode, done.stderr
        return done

    return start


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("more", "size"), [((), 1), (("--batch-size", "2"), 2), (("--memory", "1KiB"), 1)]
)
def test_a_run_records_what_was_drawn(run, model, data, tmp_path, more, size):
    """Each line has the seed of its question, with which the engine gives the same tokens."""
    run(tmp_path / "run", "--seed", "5", *more)
    asked = [request for _, request in requests(a_task(), data, Spec(seed=5))]
    expected = {
        name.partition("/")[2]: (p.text, list(p.tokens), Nucleus(20, 0, 0.9, 5).drawn(name).seed)
        for name, p in answers(PlainEngine(model, data, size), asked).items()
    }
    for name in ("predictions.jsonl", "journal-0.jsonl"):
        found = [r for r in rows(tmp_path / "run" / "sketch_test" / name) if "journal" not in r]
        assert expected == {r["id"]: (r["text"], r["tokens"], r["seed"]) for r in found}


def test_a_figure_says_how_it_was_drawn(run, tmp_path):
    """In the run's manifest and beside the figure: most and least tokens, top_p and seed."""
    for more, decode in (
        ((), "nucleus:512/0/0.3/0"),
        (("--seed", "12"), "nucleus:512/0/0.3/12"),
        (("--seed", "12", "--greedy"), "greedy:512/0"),
    ):
        out = tmp_path / decode.replace("/", "-")
        done = run(out, "--limit", "1", *more, task="sketch_long")
        assert f" decode={decode} " in done.stdout
        scored = command("score", out)
        assert f" decode={decode} " in scored.stdout
    told = json.loads((tmp_path / "nucleus:512-0-0.3-12" / "manifest.json").read_text())
    expected = {
        "greedy": False,
        "max_new_tokens": 512,
        "min_new_tokens": 0,
        "top_p": 0.3,
        "seed": 12,
    }
    assert expected == told["tasks"]["sketch_long"]["decode"]


def test_another_seed_is_another_run(run, tmp_path):
    """It goes on with its own seed alone; answers drawn otherwise are never mixed in."""
    out = tmp_path / "run"
    run(out, "--seed", "5", "--limit", "2")
    kept = {path: path.read_bytes() for path in out.rglob("*.json*")}
    for more in (("--seed", "6"), (), ("--seed", "5", "--greedy")):
        done = run(out, "--limit", "2", *more, code=2)
        assert "differs in sketch_test decode" in " ".join(done.stderr.split())
    assert "loading" not in run(out, "--seed", "5", "--limit", "2").stderr
    assert kept.keys() == {*out.rglob("*.json*")}
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_stopped_run_ends_in_the_same_draws(run, tmp_path):
    """What is asked later draws as if it had been asked before; a replay keeps the seeds."""
    for name in ("whole", "stopped"):
        run(tmp_path / name)
    folder = tmp_path / "stopped" / "sketch_test"
    journal_file = folder / "journal-0.jsonl"
    journal_file.write_bytes(b"".join(journal_file.read_bytes().splitlines(True)[:2]))
    (folder / "predictions.jsonl").unlink()
    assert "3 answers" in run(tmp_path / "stopped").stderr
    run(tmp_path / "replayed", "--model", tmp_path / "whole", "--backend", "replay")
    whole, *others = (
        (tmp_path / name / "sketch_test" / "predictions.jsonl").read_bytes()
        for name in ("whole", "stopped", "replayed")
    )
    assert [whole, whole] == others
