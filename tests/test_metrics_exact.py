"""Exact match, and GQA's clean-up before it, equal the published script on every case."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import Generate, Task
from eval.errors import DataError, PredictionError
from eval.metrics.exact import exact_match, gqa_answer, gqa_match
from eval.scoring.score import score

GOLDEN = Path(__file__).parent / "golden" / "metrics"


def records(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


GQA = records("gqa_cases.jsonl")
CASES = records("exact_match_cases.jsonl")
EXPECTED = json.loads((GOLDEN / "exact_match_expected.json").read_text(encoding="utf-8"))


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("dataset", ["ocrvqa", "ai2d"])
def test_every_recorded_answer(dataset):
    cases = [case for case in CASES if case["dataset"] == dataset]
    values = {case["id"]: exact_match(case["answer"], case["annotation"]) for case in cases}
    assert {case["id"]: case["expected"] for case in cases} == values
    assert EXPECTED[dataset]["count"] == len(values)
    assert EXPECTED[dataset]["accuracy"] == pytest.approx(mean(values.values()), abs=1e-12)


def test_every_recorded_answer_is_cleaned_for_gqa():
    expected = {case["id"]: case["processed"] for case in GQA}
    assert expected == {case["id"]: gqa_answer(case["answer"]) for case in GQA}


def test_every_recorded_answer_of_gqa():
    values = {case["id"]: gqa_match(case["answer"], case["annotation"]) for case in GQA}
    assert {case["id"]: case["expected"] for case in GQA} == values
    assert EXPECTED["gqa"]["count"] == len(GQA)
    assert EXPECTED["gqa"]["accuracy"] == pytest.approx(mean(values.values()), abs=1e-12)
    raw = mean([exact_match(case["answer"], case["annotation"]) for case in GQA])
    assert EXPECTED["gqa"]["accuracy_without_postprocessing"] == pytest.approx(raw, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is a red bus. It stops!", "red bus"),
        ("Yes, he is", "yes"),
        ("No! Never", "no"),
        ("pizza box", "box"),
        ("a cat a dog", "cat"),
        ("the top of the hill", "top"),
        ("", ""),
        (".", ""),
    ],
)
def test_gqa_keeps_what_the_published_script_keeps(text, expected):
    """Parts of words count, and an article that stands again ends the answer."""
    assert expected == gqa_answer(text)


def test_true_answers_of_gqa_are_not_cleaned():
    assert gqa_match("the umbrella", "The umbrella") == 0
    assert gqa_match("the umbrella", [" UMBRELLA\n"]) == 1


@pytest.mark.parametrize("metric", [exact_match, gqa_match])
def test_what_is_no_answer_is_refused(metric):
    with pytest.raises(PredictionError, match="prediction: a text expected, None found"):
        metric(None, "dog")
    for wrong in ([], None, [None], 5):
        with pytest.raises(DataError, match="answers: a text or a list of at least one expected"):
            metric("dog", wrong)
    task = Task("words_test", None, (), "", Generate(1), {"exact": metric})
    with pytest.raises(PredictionError, match="no samples to score"):
        score(task, [], {})


words = st.sampled_from(["dog", "Dog", "the", "a", "is", "of", "pizza", ".", ",", "!", "  "])
texts = st.lists(words, max_size=8).map(" ".join)


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_any_of_several_answers_will_do(prediction, answers):
    for metric in (exact_match, gqa_match):
        expected = max(metric(prediction, answer) for answer in answers)
        assert expected == metric(prediction, answers)
        assert expected == metric(f" {prediction}\n", answers)


@given(texts)
def test_a_cleaned_answer_holds_no_stop_and_no_space_at_its_ends(text):
    cleaned = gqa_answer(text)
    assert cleaned == cleaned.strip().lower()
    assert not set(cleaned) & set(".,!")
    assert " of" not in cleaned
