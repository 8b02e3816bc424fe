"""Boxes that Qwen-VL writes, `(x1,y1),(x2,y2)`, and their overlap with a true box.

A model's box lies on a grid of 0 to 999 over the image; a reference is in pixels. Every operation
is one of float32, in the order of the source, so that a value beside the threshold of 0.5 falls on
the source's side of it. The functions import numpy late: listing tasks needs none.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]

GRID = 999.0
THRESHOLD = 0.5
NO_BOX = (0.0, 0.0, 0.0, 0.0)
CORNERS = re.compile(r"\((.*?)\),\((.*?)\)")


def box_accuracy(prediction: str, reference: Mapping[str, Any]) -> float:
    """1.0 where the first box in the text overlaps the true box by at least half, else 0.0.

    prediction  the decoded text
    reference   {"box": (4,) x1 y1 x2 y2 in pixels, "width": of the image in pixels, "height": too}

    Source   Qwen-VL, eval_mm/evaluate_grounding.py; equal to it on every case of
             tests/golden/metrics/refcoco_cases.jsonl
    Quirks   as parse_box and box_iou; an overlap that is not a number counts as none
    """
    box, width, height = true_box(reference)
    return float(box_iou(parse_box(prediction, width=width, height=height), box) >= THRESHOLD)


def parse_box(text: str, width: float, height: float) -> Box:
    """The first box in a text, as x1 y1 x2 y2 in pixels, rounded to float32.

    width, height  of the image, in pixels

    Source   as box_accuracy
    Quirks   kept as in the source: a text without a readable box gives (0, 0, 0, 0); "first" starts
             at the first bracket, so words in brackets before a box spoil it; no space may stand
             between the corners; reversed corners stay reversed, and values beyond the grid,
             infinite or not a number are kept
    """
    import numpy as np

    grid = _corners(text)
    if grid is None:
        return NO_BOX
    with np.errstate(all="ignore"):
        box_px = np.array(grid, dtype=np.float32) / GRID
        box_px *= np.array([width, height, width, height], dtype=np.float32)
    return _as_box(box_px)


def has_box(text: str) -> bool:
    """Whether parse_box can read the text; what it cannot read scores as the box (0, 0, 0, 0)."""
    return _corners(text) is not None


def box_iou(predicted: Sequence[float], reference: Sequence[float]) -> float:
    """Intersection over union of two boxes, each (4,) x1 y1 x2 y2 in one unit.

    In [0, 1] for boxes whose corners are in order, nan for two boxes without area.

    Source   as box_accuracy; equal on every pair of tests/golden/metrics/iou_pairs.jsonl
    Quirks   kept as in the source: areas are signed, so a reversed box gives values of no meaning,
             and nan propagates
    """
    import numpy as np

    with np.errstate(all="ignore"):
        a, b = np.array(predicted, dtype=np.float32), np.array(reference, dtype=np.float32)
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        width, height = np.maximum(sides, np.float32(0))
        intersection = width * height
        union = _area(a) + _area(b) - intersection
        return float(intersection / union)


def _corners(text: str) -> list[float] | None:
    """Four grid values, or None where the first pair of brackets holds something else."""
    match = CORNERS.search(text)
    if match is None:
        return None
    values = []
    for corner in match.groups():
        parts = corner.split(",")
        if len(parts) != 2:
            return None
        try:
            values += [float(part) for part in parts]
        except ValueError:
            return None
    return values


def _area(box: "NDArray[np.float32]") -> "np.float32":
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)  # type: ignore[no-any-return]  # float32 as its factors are


def _as_box(values: "NDArray[np.float32]") -> Box:
    x1, y1, x2, y2 = (float(value) for value in values)
    return x1, y1, x2, y2


def true_box(reference: Mapping[str, Any]) -> tuple[Sequence[float], float, float]:
    """Box, width and height of a reference as box_accuracy takes it; DataError for another."""
    try:
        box, width, height = reference["box"], reference["width"], reference["height"]
        finite = all(map(math.isfinite, (*box, width, height)))
        good = len(box) == 4 and finite and width > 0 and height > 0
    except (KeyError, TypeError, OverflowError):
        good = False
    if not good:
        raise DataError(
            "reference: {'box': [x1, y1, x2, y2], 'width': w, 'height': h} in pixels, of finite "
            f"numbers, expected, {reference!r} found"
        )
    return box, width, height
