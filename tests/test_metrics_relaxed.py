"""Relaxed accuracy: the published script's, with its exchanged roles, and ChartQA's own beside."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import Generate, Task
from eval.errors import DataError, PredictionError, UsageError
from eval.metrics.relaxed import relaxed_accuracy
from eval.scoring.score import score

GOLDEN = Path(__file__).parent / "golden" / "metrics"
VARIANTS = {"published": "expected", "official": "expected_gold_denominator"}  # -> name in records
SPLITS = ("human", "augmented")


def records(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


CASES = records("chartqa_cases.jsonl")
EXPECTED = json.loads((GOLDEN / "chartqa_expected.json").read_text(encoding="utf-8"))

both = pytest.mark.parametrize("variant", VARIANTS)


def mean(values):
    return sum(values) / len(values)


@both
@pytest.mark.parametrize("group", sorted({case["group"] for case in CASES}))
def test_every_recorded_answer(group, variant):
    of_group = [case for case in CASES if case["group"] == group]
    expected = {case["id"]: case[VARIANTS[variant]] for case in of_group}
    actual = {
        case["id"]: relaxed_accuracy(case["answer"], case["annotation"], variant)
        for case in of_group
    }
    assert expected == actual


def test_published_is_what_is_meant_without_a_word():
    for case in CASES:
        expected = relaxed_accuracy(case["answer"], case["annotation"], "published")
        assert expected == relaxed_accuracy(case["answer"], case["annotation"])


def test_totals_are_as_recorded():
    """A figure is the plain mean of both parts, although they differ in size."""
    values = {split: [] for split in SPLITS}
    official = {split: [] for split in SPLITS}
    for case in CASES:
        answer = case["answer"], case["annotation"]
        values[case["split"]].append(relaxed_accuracy(*answer))
        official[case["split"]].append(relaxed_accuracy(*answer, variant="official"))
    assert EXPECTED["counts"] == {split: len(values[split]) for split in SPLITS}
    actual = {split: mean(values[split]) for split in SPLITS}
    assert EXPECTED["relaxed_accuracy"] == pytest.approx(actual, abs=1e-12)
    assert EXPECTED["average"] == pytest.approx(mean(actual.values()), abs=1e-12)
    pooled = values["human"] + values["augmented"]
    assert EXPECTED["pooled"] == pytest.approx(mean(pooled), abs=1e-12)
    actual = mean([mean(official[split]) for split in SPLITS])
    assert EXPECTED["average_gold_denominator"] == pytest.approx(actual, abs=1e-12)


def test_no_answers_are_refused():
    """The published script divides by zero."""
    assert "raises" in EXPECTED["empty"]
    task = Task("chart_test", None, (), "", Generate(1), {"relaxed_accuracy": relaxed_accuracy})
    with pytest.raises(PredictionError, match="no samples to score"):
        score(task, [], {})


@pytest.mark.parametrize(
    ("prediction", "target", "published", "official"),
    [
        ("95.24", "100", 1, 1),
        ("95.23", "100", 0, 1),
        ("105.26", "100", 1, 0),
        ("0", "0.0", 0, 0),
        ("0", "1", 0, 0),
        ("1", "0", 0, 0),
        ("0.05", "5%", 1, 1),
        ("nan", "nan", 0, 0),
        ("%", "%", 1, 1),
        ("$5", "$5", 1, 1),
        ("1,000", "1000", 0, 0),
        (" Blue\n", "blue", 1, 1),
        ("blue", "blue ", 0, 0),
    ],
)
def test_which_number_measures_the_tolerance(prediction, target, published, official):
    """The model's in the published script, the true one in ChartQA's; texts must be the same."""
    assert published == relaxed_accuracy(prediction, target)
    assert official == relaxed_accuracy(prediction, target, "official")


def test_what_is_no_answer_is_refused():
    with pytest.raises(PredictionError, match="prediction: a text expected, None found"):
        relaxed_accuracy(None, "1")
    for wrong in ([], None, [1], 1.5):
        with pytest.raises(DataError, match="target: a text or a list of at least one expected"):
            relaxed_accuracy("1", wrong)
    with pytest.raises(UsageError, match=r"variant: one of .*'swapped' found"):
        relaxed_accuracy("1", "1", "swapped")


texts = st.text("0123456789.%-+e_ naif", max_size=8)


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_any_of_several_answers_will_do(prediction, targets):
    for variant in VARIANTS:
        each = [relaxed_accuracy(prediction, target, variant) for target in targets]
        assert max(each) == relaxed_accuracy(prediction, targets, variant)


@given(texts, texts)
def test_the_variants_are_each_other_with_roles_exchanged(a, b):
    a, b = a.strip(), b.strip()
    assert relaxed_accuracy(a, b, "published") == relaxed_accuracy(b, a, "official")


@given(st.floats(0.01, 1e9), st.floats(0.01, 1e9))
def test_the_tolerance_is_a_twentieth(answer, truth):
    expected = abs(answer - truth) / answer <= 0.05
    assert expected == relaxed_accuracy(repr(answer), repr(truth))
