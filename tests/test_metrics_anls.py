"""ANLS is that of DocVQA's own script, question by question and for whole files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import DataError, EvalError, PredictionError
from eval.metrics.anls import anls, anls_totals

GOLDEN = Path(__file__).parent / "golden" / "metrics"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def records(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


CASES = records("anls_cases.jsonl")
EXPECTED = json.loads((GOLDEN / "anls_expected.json").read_text(encoding="utf-8"))
EXACT = {"rel": 0, "abs": 1e-9}
FILE = {"dataset_name": "docvqa", "data": CASES}
RESULTS = [{"questionId": case["questionId"], "answer": case["prediction"]} for case in CASES]


@pytest.mark.parametrize("group", EXPECTED["mean_by_group"])
def test_every_recorded_question(group):
    cases = [case for case in CASES if case["group"] == group]
    values = [anls(case["prediction"], case["answers"]) for case in cases]
    assert [case["expected"] for case in cases] == pytest.approx(values, **EXACT)
    expected = EXPECTED["mean_by_group"][group]
    assert expected == pytest.approx(sum(values) / len(values), **EXACT)


def test_totals_are_as_recorded():
    found = anls_totals(FILE, RESULTS)
    assert EXPECTED["score"] == pytest.approx(found["score"], **EXACT)
    assert EXPECTED["printed"] == f"Overall ANLS: {found['score']:.4f}"
    assert EXPECTED["count"] == len(found["per_sample"])
    expected = {case["questionId"]: case["expected"] for case in CASES}
    assert expected == pytest.approx(found["per_sample"], **EXACT)


@pytest.mark.parametrize("threshold", EXPECTED["score_by_threshold"])
def test_totals_at_other_thresholds_are_as_recorded(threshold):
    found = anls_totals(FILE, RESULTS, threshold=float(threshold))
    assert EXPECTED["score_by_threshold"][threshold] == pytest.approx(found["score"], **EXACT)


@pytest.mark.parametrize("case", EXPECTED["protocol"], ids=lambda case: case["name"])
def test_complete_inputs_score_or_are_refused_as_recorded(case):
    if "raises" in case["expected"]:
        with pytest.raises(EvalError, match=r"expected, .* found"):
            anls_totals(case["gt"], case["submission"])
    else:
        found = anls_totals(case["gt"], case["submission"])
        per_sample = {str(number): score for number, score in found["per_sample"].items()}
        assert case["expected"]["score"] == pytest.approx(found["score"], **EXACT)
        assert case["expected"]["per_sample"] == pytest.approx(per_sample, **EXACT)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("ab", "abcd", 0.5),
        ("a", "abc", 0),
        ("  Two   WORDS\n", "two words", 1),
        ("", "", 1),
        ("", "a", 0),
        ("abcd        ", "efgh", 1 - 4 / 12),
        ("ßa", "ßb", 1 - 1 / 3),
    ],
)
def test_a_similarity_of_half_stays_and_raw_texts_tell_the_length(prediction, answer, expected):
    """Padding and letters that grow in upper case make a score better."""
    assert expected == pytest.approx(anls(prediction, [answer]), abs=1e-12)


def test_what_is_no_answer_is_refused():
    with pytest.raises(PredictionError, match="prediction: a text expected, None found"):
        anls(None, ["a"])
    for wrong in ("a", [], None, [None], 5):
        with pytest.raises(DataError, match="answers: a list of at least one text expected"):
            anls("a", wrong)


texts = st.text("abß C", max_size=12)


@given(texts, st.lists(texts, min_size=1, max_size=4), st.randoms())
def test_the_nearest_answer_counts(prediction, answers, random):
    """In [0, 1], whatever the order of the answers, and never worse for one more."""
    value = anls(prediction, answers)
    assert 0 <= value <= 1
    assert value == max(anls(prediction, [answer]) for answer in answers)
    assert value == anls(prediction, random.sample(answers, len(answers)))


@given(texts, texts)
def test_a_threshold_only_takes_away(prediction, answer):
    free = anls(prediction, [answer], threshold=0)
    for threshold in (0.25, 0.5, 1):
        expected = free if free >= threshold else 0
        assert expected == anls(prediction, [answer], threshold=threshold)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside this checkout")
@pytest.mark.parametrize("model", ["qwen2_vl_7b_instruct", "llama_maverick"])
def test_real_answers_score_as_computed_by_others(model):
    folder = SHARED / "samples" / "docvqa"
    truth = json.loads((folder / "val_v1.0_subset.json").read_text(encoding="utf-8"))
    results = json.loads((folder / f"predictions_{model}.json").read_text(encoding="utf-8"))
    expected = json.loads((folder / "expected.json").read_text())["computed"][model]
    found = anls_totals(truth, results)
    assert expected["n"] == len(found["per_sample"])
    assert expected["ANLS_x100"] == round(100 * found["score"], 4)
