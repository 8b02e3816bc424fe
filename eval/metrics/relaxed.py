"""Relaxed accuracy: numbers may be off by a twentieth, everything else must be the same text."""

from collections.abc import Sequence
from typing import Literal, get_args

from eval.errors import DataError, PredictionError, UsageError

Variant = Literal["published", "official"]

TOLERANCE = 0.05


def relaxed_accuracy(
    prediction: str, target: str | Sequence[str], variant: Variant = "published"
) -> float:
    """1.0 where the answer is near enough to one of the true ones, else 0.0.

    prediction  the decoded text
    target      the true answer, or a list of them of which any will do
    variant     published: what stands behind Qwen-VL's figures, a tolerance of 5 % of the *model's*
                number; official: ChartQA's rule, 5 % of the true one

    A figure of ChartQA is the plain mean of its two parts, human and augmented questions.

    Source   Methani et al. 2020, https://arxiv.org/abs/1909.00997, and Qwen-VL,
             eval_mm/evaluate_vqa.py; equal to it on every case of
             tests/golden/metrics/chartqa_cases.jsonl
    Quirks   kept as in the source: Qwen-VL hands over answer and truth in each other's place, so a
             true 100 takes 95.24 to 105.26, and an answer of 0 needs the same text; `5%` is 0.05,
             a year is a number; numbers with commas, `$` or units are texts; only the prediction is
             stripped
    """
    if variant not in get_args(Variant):
        raise UsageError(f"variant: one of {get_args(Variant)} expected, {variant!r} found")
    if not isinstance(prediction, str):
        raise PredictionError(f"prediction: a text expected, {prediction!r} found")
    targets = [target] if isinstance(target, str) else target
    good = isinstance(targets, Sequence) and all(isinstance(text, str) for text in targets)
    if not good or not targets:
        raise DataError(f"target: a text or a list of at least one expected, {target!r} found")
    given = prediction.strip()
    pairs = ((given, true) if variant == "published" else (true, given) for true in targets)
    return float(any(_near(measure, other) for measure, other in pairs))


def _near(measure: str, other: str) -> bool:
    """Whether two texts agree; the tolerance is a share of the first's number."""
    a, b = _number(measure), _number(other)
    if b is not None and a:  # not None and not zero; nan passes, and then compares false
        return abs(b - a) / abs(a) <= TOLERANCE
    return measure.lower() == other.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
