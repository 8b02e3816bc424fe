"""GRIT's hits and aggregates are those of its own evaluation, to the last decimal it prints."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import DataError, EvalError, PredictionError
from eval.metrics.box import box_accuracy
from eval.metrics.grit import box_accuracy_strict, grit_hit, grit_iou, grit_summary

GOLDEN = Path(__file__).parent / "golden" / "metrics"
RECORDED = json.loads((GOLDEN / "grit_refexp.json").read_text(encoding="utf-8"))
LEMMAS = RECORDED["lemma2groups"]
CASES = [*RECORDED["sets"], *RECORDED["behaviours"]]
MAIN = RECORDED["sets"][0]
PRINTED = 1.5e-4  # percent


def summary(case):
    size = case["expected"].get("params")
    return grit_summary(case["samples"], case["predictions"], LEMMAS, params_in_millions=size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_recorded_submission_scores_or_is_refused_as_recorded(case):
    if "raises" in case["expected"]:
        with pytest.raises(EvalError, match=r"expected|without a prediction"):
            summary(case)
    else:
        found = summary(case)
        assert case["expected"].keys() == found.keys()
        assert case["expected"] == pytest.approx(found, rel=0, abs=PRINTED)


@pytest.mark.parametrize("case", RECORDED["sets"], ids=lambda case: case["name"])
def test_every_recorded_hit(case):
    given = {prediction["example_id"]: prediction for prediction in case["predictions"]}
    expected = {sample["example_id"]: sample["expected_hit"] for sample in case["samples"]}
    actual = {
        sample["example_id"]: grit_hit(given[sample["example_id"]]["bboxes"], sample["bboxes"])
        for sample in case["samples"]
    }
    assert expected == actual


def test_every_recorded_pair():
    lines = (GOLDEN / "iou_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    for pair in map(json.loads, lines):
        expected = math.nan if pair["grit_iou"] is None else pair["grit_iou"]
        iou = grit_iou(pair["pred"], pair["gt"])
        assert expected == pytest.approx(iou, rel=0, abs=1e-9, nan_ok=True), pair
        assert pair["grit_hit"] == grit_hit([pair["pred"]], [pair["gt"]]), pair


def test_groups_of_concepts_are_left_out_where_none_are_told():
    expected = {key for key in MAIN["expected"] if ".any." in key or key.startswith("overall")}
    assert expected == grit_summary(MAIN["samples"], MAIN["predictions"]).keys()


def test_the_figure_is_the_plain_mean_of_both_sources():
    """And a seventh of it over all of GRIT's tasks, of which only this one is answered."""
    found = grit_summary(MAIN["samples"], MAIN["predictions"])
    hits = {True: [], False: []}
    for sample in MAIN["samples"]:
        if not sample["is_distorted"]:
            hits[sample["is_new_source"]].append(sample["expected_hit"])
    expected = 100 * sum(sum(values) / len(values) for values in hits.values()) / 2
    assert expected == pytest.approx(found["acc.any.agg.ref.mean"], abs=PRINTED)
    assert expected / 7 == pytest.approx(found["overall.mean"], abs=PRINTED)


def test_the_last_of_several_predictions_counts():
    """A hit that is sent again as a miss is one; in the recorded case both are hits."""
    again = {"example_id": MAIN["samples"][0]["example_id"], "confidence": 1.0, "bboxes": []}
    expected = [p for p in MAIN["predictions"] if p["example_id"] != again["example_id"]] + [again]
    found = grit_summary(MAIN["samples"], [*MAIN["predictions"], again])
    assert grit_summary(MAIN["samples"], expected) == found
    assert found != grit_summary(MAIN["samples"], [again, *MAIN["predictions"]])


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"confidence": "high"}, PredictionError, "a number as confidence expected, 'high' found"),
        ({"confidence": math.nan}, PredictionError, "a number as confidence expected, nan found"),
        ({"bboxes": [[1, 2, 3]]}, PredictionError, "bboxes .* expected"),
        ({"bboxes": None}, PredictionError, "bboxes .* expected"),
    ],
)
def test_a_malformed_prediction_is_refused(change, error, said):
    first, *rest = MAIN["predictions"]
    with pytest.raises(error, match=said):
        grit_summary(MAIN["samples"], [{**first, **change}, *rest])


def test_malformed_samples_are_refused():
    first, *rest = MAIN["samples"]
    with pytest.raises(DataError, match="at least one true box expected, none found"):
        grit_summary([{**first, "bboxes": []}, *rest], MAIN["predictions"])
    with pytest.raises(DataError, match="321 found, but 320 ids; each needs its own"):
        grit_summary([first, first, *rest], MAIN["predictions"])
    for field in ("example_id", "bboxes", "is_distorted", "is_new_source", "lemmas"):
        broken = {name: value for name, value in first.items() if name != field}
        with pytest.raises(DataError, match=f"field '{field}' expected in every record"):
            grit_summary([broken, *rest], MAIN["predictions"], LEMMAS)
    with pytest.raises(DataError, match="at least two of each of sameSrc, newSrc"):
        grit_summary([], [])


def test_exactly_half_is_not_enough():
    """In the other grounding benchmarks it is."""
    half = {"box": [0, 0, 999, 499.5], "width": 999, "height": 999}
    assert box_accuracy_strict("(0,0),(999,999)", half) == 0
    assert box_accuracy("(0,0),(999,999)", half) == 1
    assert box_accuracy_strict("<box>(0,0),(999,999)", {**half, "box": [0, 0, 999, 500]}) == 1


@pytest.mark.parametrize("text", ["", "a dog", "(9,9),(3,3)", "(nan,0),(9,9)", "(0,0),(inf,9)"])
def test_a_text_without_a_box_of_any_area_is_no_hit(text):
    assert box_accuracy_strict(text, {"box": [0, 0, 9, 9], "width": 9, "height": 9}) == 0


def test_a_malformed_reference_is_refused():
    with pytest.raises(DataError, match=r"reference: .* expected, .* found"):
        box_accuracy_strict("(0,0),(9,9)", {"box": [0, 0, 9, 9], "width": 9})


sides = st.integers(1, 2000)


@st.composite
def boxes(draw):
    """Boxes of positive area, in pixels."""
    x, y = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    return [x, y, x + draw(sides), y + draw(sides)]


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_below_one(a, b):
    assert 0 <= grit_iou(a, b) < 1
    assert grit_iou(a, b) == grit_iou(b, a)
    assert grit_hit([a], [a]) == 1
    assert grit_hit([], [a]) == 0


@given(st.randoms())
def test_order_of_predictions_changes_nothing(random):
    case = RECORDED["sets"][1]
    shuffled = random.sample(case["predictions"], len(case["predictions"]))
    expected = grit_summary(case["samples"], case["predictions"])
    assert expected == grit_summary(case["samples"], shuffled)
