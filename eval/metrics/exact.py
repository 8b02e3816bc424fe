"""Exact match: the same text but for case and white space at the ends, for GQA after a clean-up."""

from collections.abc import Sequence

from eval.errors import DataError, PredictionError

STOPS = (".", ",", "!")
OPENINGS = ("is ", "are ", "a ", "an ", "the ")


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1.0 where the prediction is one of the answers, else 0.0.

    prediction  the decoded text
    answers     the true answer, or a list of them of which any will do

    Source   Qwen-VL, eval_mm/evaluate_vqa.py (OCR-VQA, AI2D); equal to it on every case of
             tests/golden/metrics/exact_match_cases.jsonl
    """
    if not isinstance(prediction, str):
        raise PredictionError(f"prediction: a text expected, {prediction!r} found")
    known = [answers] if isinstance(answers, str) else answers
    good = isinstance(known, Sequence) and all(isinstance(answer, str) for answer in known)
    if not good or not known:
        raise DataError(f"answers: a text or a list of at least one expected, {answers!r} found")
    given = prediction.strip().lower()
    return float(any(given == answer.strip().lower() for answer in known))


def gqa_match(prediction: str, answer: str | Sequence[str]) -> float:
    """1.0 where the prediction, cleaned by gqa_answer, is the answer, else 0.0.

    Arguments as for exact_match. The true answers are not cleaned.

    Source   as gqa_answer
    """
    if not isinstance(prediction, str):
        raise PredictionError(f"prediction: a text expected, {prediction!r} found")
    return exact_match(gqa_answer(prediction), answer)


def gqa_answer(text: str) -> str:
    """The short answer in a sentence, lower-case.

    What stands before the first full stop, comma and exclamation mark; then, for "is ", "are ",
    "a ", "an " and "the " in turn, what follows it up to where it stands again; then what stands
    before " of".

    Source   Qwen-VL, eval_mm/evaluate_vqa.py; equal to it on every case of
             tests/golden/metrics/gqa_cases.jsonl
    Quirks   kept as in the source: parts of words count too, so `pizza box` becomes `box`, and
             `red office` becomes `red`
    """
    text = text.strip()
    for stop in STOPS:
        text = text.partition(stop)[0]
    text = text.lower()
    for opening in OPENINGS:
        before, opens, rest = text.partition(opening)
        text = rest.partition(opening)[0] if opens else before
    return text.partition(" of")[0].strip()
