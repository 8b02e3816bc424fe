"""Boxes are read and compared as in the published grounding script, to the last bit."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.errors import DataError
from eval.metrics.box import box_accuracy, box_iou, has_box, parse_box

GOLDEN = Path(__file__).parent / "golden" / "metrics"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def records(name):
    lines = (GOLDEN / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def same(expected, actual):
    """Equal floats; a recorded null is nan, and "inf" is that float."""
    expected = math.nan if expected is None else float(expected)
    return expected == actual or (math.isnan(expected) and math.isnan(actual))


CASES = records("refcoco_cases.jsonl")


def reference(case):
    return {"box": case["gt_bbox"], "width": case["width"], "height": case["height"]}


@pytest.mark.parametrize("group", sorted({case["group"] for case in CASES}))
def test_every_recorded_answer(group):
    """Box, overlap and verdict, bit for bit."""
    for case in CASES:
        if case["group"] == group:
            box = parse_box(case["answer"], case["width"], case["height"])
            assert all(map(same, case["pred_box"], box)), case
            assert same(case["iou"], box_iou(box, case["gt_bbox"])), case
            assert case["correct"] == box_accuracy(case["answer"], reference(case)), case


def test_totals_are_as_recorded():
    expected = json.loads((GOLDEN / "refcoco_expected.json").read_text(encoding="utf-8"))
    scores = [box_accuracy(case["answer"], reference(case)) for case in CASES]
    assert expected["precision_at_1"] == pytest.approx(sum(scores) / len(scores), abs=1e-12)
    for group, (correct, count) in expected["by_group"].items():
        of_group = [s for s, case in zip(scores, CASES, strict=True) if case["group"] == group]
        assert (correct, count) == (sum(of_group), len(of_group))


def test_every_recorded_pair():
    for pair in records("iou_pairs.jsonl"):
        iou = box_iou(pair["pred"], pair["gt"])
        assert same(pair["qwen_iou"], iou), pair
        assert pair["qwen_hit"] == (iou >= 0.5), pair


def test_exactly_half_is_enough():
    half = {"box": [0, 0, 999, 499.5], "width": 999, "height": 999}
    assert box_accuracy("(0,0),(999,999)", half) == 1
    assert box_accuracy("(0,0),(999,999)", {**half, "box": [0, 0, 999, 499]}) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1,2),(3,4)", True),
        ("</ref><box> (1,2),(3,4)</box>", True),
        ("(0,0),(0,0)", True),
        ("(nan,0),(0,inf)", True),
        ("", False),
        ("a dog", False),
        ("(1,2), (3,4)", False),
        ("the man (in red) (1,2),(3,4)", False),
        ("(1,2,3),(4,5)", False),
    ],
)
def test_whether_a_box_can_be_read(text, expected):
    """A box of zeros is readable; a text without one is not, and scores as a box of zeros."""
    assert expected == has_box(text)
    assert expected or parse_box(text, 640, 480) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"box": [0, 0, 1, 1], "width": 640},
        {"box": [0, 0, 1], "width": 640, "height": 480},
        {"box": [0, 0, 1, math.nan], "width": 640, "height": 480},
        {"box": [0, 0, 1, "1"], "width": 640, "height": 480},
        {"box": [0, 0, 1, 10**400], "width": 640, "height": 480},
        {"box": [0, 0, 1, 1], "width": 0, "height": 480},
        {"box": None, "width": 640, "height": 480},
    ],
)
def test_a_malformed_reference_is_refused(wrong):
    """It is never taken for a box that nothing overlaps."""
    with pytest.raises(DataError, match=r"reference: .* expected, .* found"):
        box_accuracy("(0,0),(1,1)", wrong)


sizes = st.integers(1, 2000)
grid_values = st.integers(0, 999)


@st.composite
def boxes(draw):
    """Boxes of positive area, in pixels."""
    x, y = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    return [x, y, x + draw(sizes), y + draw(sizes)]


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_a_share(a, b):
    assert 0 <= box_iou(a, b) <= 1
    assert box_iou(a, b) == box_iou(b, a)
    assert box_iou(a, a) == 1


@given(st.tuples(*[grid_values] * 4), sizes, sizes)
def test_a_box_read_back_lies_on_the_image(grid, width, height):
    x1, y1, x2, y2 = grid
    box = parse_box(f"({x1},{y1}),({x2},{y2})", width, height)
    expected = [x1 / 999 * width, y1 / 999 * height, x2 / 999 * width, y2 / 999 * height]
    assert expected == pytest.approx(list(box), rel=1e-6)
    assert all(0 <= value <= side for value, side in zip(box, (width, height) * 2, strict=True))


@given(st.text("()0,9. -\n\u00b2e_naif", max_size=40), boxes())
def test_any_text_scores_0_or_1(text, box):
    assert box_accuracy(text, {"box": box, "width": 640, "height": 480}) in (0, 1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside this checkout")
def test_real_references_are_met_by_their_own_box_on_the_grid():
    """Rounding to the grid costs little: each true box, written as a model would, is a hit."""
    files = sorted((SHARED / "samples" / "refcoco" / "qwen_format").glob("*.jsonl"))
    assert files
    for file in files:
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            height, width = row["hw"]
            sides = (width, height, width, height)
            x1, y1, x2, y2 = (
                round(value / side * 999) for value, side in zip(row["bbox"], sides, strict=True)
            )
            true_box = {"box": row["bbox"], "width": width, "height": height}
            assert box_accuracy(f"({x1},{y1}),({x2},{y2})", true_box) == 1, row
