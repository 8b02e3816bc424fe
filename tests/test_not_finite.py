"""Scores that are NaN or infinite fail their own question, whenever they come, and no other."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from small import answer_all, command, make_checkpoint, make_data

from eval.api import Generate, Nucleus, Prediction, Rank, Request
from eval.demo.data import write_demo_data
from eval.engine.plain import PlainEngine
from eval.engine.shared import SharedEngine
from eval.plugins import find_tasks
from eval.run.folder import RunFolder
from eval.run.spec import Spec, spec_entry
from eval.runtime import QwenVL

REASON = "scores that are no numbers"
DEMO = Path(__file__).resolve().parents[1] / "eval" / "demo" / "checkpoint"
BAD = "%"  # the token whose embedding is no number; the checkpoint's tokens are bytes
LENGTH = 12  # of a prompt without an image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        Image.new("RGB", (9, 9), (100 * number, 50, 7)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same small random model three times: whole, and with NaN or infinity for a token."""
    folder = make_checkpoint(tmp_path_factory.mktemp("models") / "small")
    return [with_embedding(folder, BAD, value) for value in (None, torch.nan, torch.inf)]


def with_embedding(folder, text, value):
    model = QwenVL.from_pretrained(folder)
    if value is not None:
        tokens = model.tokenizer.encode(text) if isinstance(text, str) else [text]
        model.model.transformer.wte.weight.data[tokens] = value
    return model


def engines(model, root):
    """Both engines, with neighbours and without."""
    return [
        PlainEngine(model, root),
        PlainEngine(model, root, batch_size=3),
        SharedEngine(model, root),
        SharedEngine(model, root, sequences=2),
        SharedEngine(model, root, prefill_tokens=1),
    ]


def answers(engine, requests):
    found = {prediction.id: prediction for prediction in engine.answer(requests)}
    assert found.keys() == {request.id for request in requests}
    return found


def assert_only(expected, found, failing):
    """The failing have no answer but the reason; the others are answered as ever."""
    assert {name for name, each in found.items() if each.error} == set(failing)
    for name, each in found.items():
        if name in failing:
            assert each.error.startswith(REASON)
            assert (each.text, each.tokens, each.losses) == ("", (), ())
        else:
            same = replace(expected[name], losses=(), dtype_losses=())
            assert same == replace(each, losses=(), dtype_losses=())
            assert expected[name].losses == pytest.approx(each.losses, abs=1e-3)


def numbered(decode):
    """Different prompts of one length, so that none is padded in a batch."""
    return [Request(f"t/{n}", f"{n**7:0{LENGTH}}"[-LENGTH:], decode) for n in range(24)]


def written_late(whole):
    """The commonest token between the first and the last of answers; prompts have only digits."""
    late = [token for each in whole.values() for token in each.tokens[1:-1]]
    return max(set(late) - set(b"0123456789"), key=late.count)


HOW = {
    "greedy": Generate(6),
    "with a minimum": Generate(6, 6),
    "sampled": Nucleus(6, top_p=0.9, seed=3),
    "ranked": Rank((" A", "BC", "D")),
}


@pytest.mark.parametrize(("broken", "chat"), [(1, False), (2, True)], ids=["nan", "inf, dialogue"])
@pytest.mark.parametrize("decode", HOW.values(), ids=HOW)
def test_a_prompt_without_finite_scores_fails_alone(models, root, decode, chat, broken):
    """Whatever it is asked with, on one image or on another; its neighbours' answers stay.

    The minimum of new tokens gives `<|endoftext|>` a score of -inf, which is no fault.
    """
    texts = ["What?", f"Is it {BAD}?", "Where?", "Why?", f"{BAD}", "Who?", "How?"]
    requests = [
        Request(f"t/{n}", f"<img>{n % 2}.png</img>{text}", decode, chat)
        for n, text in enumerate(texts)
    ]
    expected = answers(SharedEngine(models[0], root), requests)
    for engine in engines(models[broken], root):
        assert_only(expected, answers(engine, requests), {"t/1", "t/4"})


@pytest.mark.parametrize(("value", "top_p"), [(torch.nan, 0.9), (torch.inf, None)])
def test_a_token_without_finite_scores_fails_the_answer_that_goes_on_from_it(
    models, root, tmp_path, value, top_p
):
    """At any step. An answer that ends with that token is whole: nothing is asked after it."""
    decode = Generate(5, 1) if top_p is None else Nucleus(5, 1, top_p)
    requests = numbered(decode)
    whole = answers(SharedEngine(models[0], root), requests)
    bad = written_late(whole)
    failing = {name for name, each in whole.items() if bad in each.tokens[:-1]}
    assert 0 < len(failing) < len(requests)
    assert any(bad not in whole[name].tokens[:1] for name in failing)
    model = with_embedding(make_checkpoint(tmp_path / "model"), bad, value)
    for engine in engines(model, root):
        assert_only(whole, answers(engine, requests), failing)


def test_what_comes_after_the_end_of_an_answer_is_no_fault_of_it(root, tmp_path):
    """A batch goes on with `<|endoftext|>` for those that ended, whose scores nobody reads."""
    folder = make_checkpoint(tmp_path / "model")
    model = QwenVL.from_pretrained(folder)
    requests = numbered(Generate(6))
    ends = [model.tokenizer.eod_id, written_late(answers(SharedEngine(model, root), requests))]
    weights = model.model.lm_head.weight.data
    weights[ends] = weights[ends[::-1]]  # where that token was written, the answer ends
    whole = answers(SharedEngine(model, root), requests)
    assert {3, 6} <= {len(each.tokens) for each in whole.values()}
    model.model.transformer.wte.weight.data[ends[0]] = torch.nan
    for batch in (1, 4, 24):
        engine = PlainEngine(model, root, batch_size=batch)
        assert_only(whole, answers(engine, requests), ())
    assert_only(whole, answers(SharedEngine(model, root), requests), ())


def test_one_infinite_score_of_any_token_is_a_fault(models, root):
    """Also where another option or token is meant, and where infinity has the other sign."""
    requests = [Request("t/0", "Which?", Generate(3)), Request("t/1", "Which?", Rank((" A", " B")))]
    head = models[0].model.lm_head.weight
    kept = head.data.clone()
    try:
        for value in (torch.nan, torch.inf, -torch.inf):
            head.data[7] = value
            for engine in (PlainEngine(models[0], root), SharedEngine(models[0], root)):
                assert_only({}, answers(engine, requests), {"t/0", "t/1"})
    finally:
        head.data.copy_(kept)


WORDS = st.lists(st.sampled_from(["a", "b", f"{BAD}", "?", "c d"]), min_size=1, max_size=6)


@st.composite
def request_lists(draw):
    decodes = st.sampled_from([*HOW.values(), Generate(1), Generate(9, 2)])
    images = st.sampled_from(["", "<img>0.png</img>", "<img>1.png</img>"])
    made = draw(st.lists(st.tuples(images, WORDS, decodes), min_size=1, max_size=14))
    return [
        Request(f"t/{n}", image + "".join(text), how) for n, (image, text, how) in enumerate(made)
    ]


@settings(max_examples=8)
@given(
    requests=request_lists(),
    broken=st.integers(1, 2),
    sequences=st.integers(1, 12),
    prefill_tokens=st.integers(1, 2000),
    memory=st.integers(1, 1 << 24),
)
def test_both_engines_fail_the_same_questions(
    models, root, requests, broken, sequences, prefill_tokens, memory
):
    """For any pool, memory and mix; a sequence in a failed one's entry is answered as ever."""
    expected = answers(PlainEngine(models[broken], root), requests)
    engine = SharedEngine(
        models[broken], root, sequences=sequences, prefill_tokens=prefill_tokens, memory=memory
    )
    found = answers(engine, requests)
    failing = {name for name, each in expected.items() if each.error}
    assert {request.id for request in requests if BAD in request.prompt} <= failing
    assert_only(expected, found, failing)


class Stranger:
    """A back end of another package whose losses are no numbers for every second question."""

    def answer(self, requests):
        for number, request in enumerate(requests):
            losses = (0.5, math.inf if number % 2 else 1.0)
            yield Prediction(request.id, "red", losses=losses)

    def describe(self):
        return {"digest": "of nothing"}


def test_losses_of_any_back_end_are_numbers_or_a_failure(tmp_path):
    """JSON has no infinity: a journal with one could not be read back."""
    data = make_data(tmp_path / "data")
    (task,) = find_tasks(["okvqa_val"])
    entries = {task.name: spec_entry(task, data, Spec())}
    manifest = {"model": Stranger().describe(), "tasks": entries}
    folder = RunFolder.start(tmp_path / "run", manifest)
    answer_all(folder, [task], data, {task.name: Spec()}, Stranger())
    recorded = list(folder.answers(task.name).recorded().values())
    assert [(0.5, 1.0), ()] * 3 + [(0.5, 1.0)] == [each.losses for each in recorded]
    assert ["", "the back end's losses are NaN or infinite"] == sorted({e.error for e in recorded})


@pytest.mark.case("hostile/01")
def test_a_run_with_failed_samples_is_incomplete(tmp_path):
    """A sample whose answer holds a token without numbers fails; the command exits with 3."""
    tensors = {}
    for shard in sorted(DEMO.glob("*.safetensors")):
        tensors |= load_file(shard)
    model = tmp_path / "model"
    shutil.copytree(DEMO, model, ignore=shutil.ignore_patterns("*safetensors*", ".*"))
    tokenizer = QwenVL.from_pretrained(DEMO).tokenizer
    for word in (" black", " yes"):
        tensors["transformer.wte.weight"][tokenizer.encode(word)[0]] = torch.nan
    save_file(tensors, model / "model.safetensors")
    write_demo_data(tmp_path / "data")
    for backend in ("shared", "plain"):
        out = tmp_path / backend
        done = command(
            *("run", "okvqa_val", "--model", model, "--data", tmp_path / "data", "--out", out),
            *("--backend", backend, "--limit", 4, "--allow-partial", "--device", "cpu"),
        )
        assert done.returncode == 3
        lines = (out / "okvqa_val" / "predictions.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert {True, False} == {"error" in row for row in rows}
        for row in rows:
            assert row.get("error", REASON).startswith(REASON)
            assert "\0" not in row["text"]
