"""ANLS: how near a predicted answer is to one of the true ones, in edits of its letters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from eval.errors import DataError, PredictionError

THRESHOLD = 0.5


def anls(prediction: str, answers: Sequence[str], *, threshold: float = THRESHOLD) -> float:
    """Average normalised Levenshtein similarity of one question, in [0, 1].

    prediction  the decoded text; an empty one is valid
    answers     the true answers, at least one; the nearest counts
    threshold   a similarity below it counts as 0, one at it stays

    1 - edits / length, where both texts are lower-case, stripped and their runs of white space one
    space, and an edit inserts, deletes or replaces one code point.

    Source   Biten et al. 2019, https://arxiv.org/abs/1905.13648, and the evaluation script of
             DocVQA, https://rrc.cvc.uab.es/?ch=17; equal to it on every case of
             tests/golden/metrics/anls_cases.jsonl
    Quirks   kept as in the source: the length is that of the longer raw text in upper case, so
             padding makes a score better and `ß` counts as two letters
    """
    from rapidfuzz.distance import Levenshtein

    if not isinstance(prediction, str):
        raise PredictionError(f"prediction: a text expected, {prediction!r} found")
    good = isinstance(answers, Sequence) and all(isinstance(answer, str) for answer in answers)
    if not good or not answers or isinstance(answers, str):
        raise DataError(f"answers: a list of at least one text expected, {answers!r} found")
    given = _plain(prediction)
    nearest = 1.0
    for answer in answers:
        length = max(len(answer.upper()), len(prediction.upper()))
        edits = Levenshtein.distance(_plain(answer), given)
        nearest = min(nearest, edits / length if length else 0.0)
    similarity = 1 - nearest
    return similarity if similarity >= threshold else 0.0


def anls_totals(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, threshold: float = THRESHOLD
) -> dict[str, Any]:
    """The figures of DocVQA's own script for the file that its server takes.

    truth    {"dataset_name": ..., "data": records with questionId and answers}
    results  records with questionId and answer

    Returns `score`, the mean over the records of `truth` (0 without any), and `per_sample`, by
    questionId.

    Source   as anls; equal to it on tests/golden/metrics/anls_expected.json
    Quirks   kept as in the source: where an id stands in both files twice, the last result answers
             each of its records

    Raises DataError where `truth` is no such file, PredictionError where the ids of both differ.
    """
    data = truth.get("data") if "dataset_name" in truth else None
    if not isinstance(data, list):
        raise DataError(
            "truth: {'dataset_name': ..., 'data': [...]} expected, as DocVQA's files hold it, the "
            f"fields {sorted(truth)} found"
        )
    if not isinstance(results, list):
        raise PredictionError(f"results: a list expected, a {type(results).__name__} found")
    for record, name, error in (
        *((record, "answers", DataError) for record in data),
        *((record, "answer", PredictionError) for record in results),
    ):
        if "questionId" not in record or name not in record:
            raise error(f"fields 'questionId' and {name!r} expected, {record!r} found")
    questions = Counter(record["questionId"] for record in data)
    answered = Counter(record["questionId"] for record in results)
    if questions != answered:
        missing, unknown = list(questions - answered), list(answered - questions)
        raise PredictionError(
            f"one result for each of {questions.total()} questions expected, {answered.total()} "
            f"found; missing: {missing[:3]}, too many: {unknown[:3]}. An id must have "
            "the same type in both files"
        )
    texts = {record["questionId"]: record["answer"] for record in results}
    numbers = [record["questionId"] for record in data]
    scores = [
        anls(texts[number], record["answers"], threshold=threshold)
        for number, record in zip(numbers, data, strict=True)
    ]
    return {
        "score": sum(scores) / len(scores) if scores else 0.0,
        "per_sample": dict(zip(numbers, scores, strict=True)),
    }


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
