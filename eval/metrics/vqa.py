"""VQA accuracy: soft agreement of a prediction with the answers of several humans.

Two rules that share their text functions and differ in what they apply them to:

    published  what stands behind Qwen-VL's figures: the prediction is always cleaned and
               normalised, the answers lose punctuation only, and only where they differ
    official   what the VQA challenge computes: all texts are cleaned, and either all are
               normalised or, where the cleaned answers are identical, none
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, get_args

from eval.errors import DataError, EvalError, PredictionError, UsageError
from eval.metrics.vqa_tables import ARTICLES, CONTRACTIONS, NUMBER_WORDS, PUNCTUATION

Variant = Literal["published", "official"]
Answer = str | Mapping[str, Any]
VARIANTS = get_args(Variant)

ENOUGH = 3  # humans who must agree for the full score
MOST_PERIODS = 32  # the source passes a regex flag, of this value, where a count is expected
PERIOD = re.compile(r"\.(?!\d)")
THOUSANDS = re.compile(r"\d,\d")
MARK = re.compile(f"[{re.escape(PUNCTUATION)}]")
KEPT = 16384  # texts whose clean form is remembered: most answers of a benchmark are few words


def vqa_accuracy(
    prediction: str, answers: Sequence[Answer], variant: Variant = "published"
) -> float:
    """Soft agreement with the human answers, in [0, 1].

    prediction  the decoded text, without the prompt
    answers     the human answers, ten in the VQA family: texts, or records with `answer` and
                whatever else the file says of them, such as answer_id and answer_confidence; a
                bare text stands for a record with its position as answer_id

    The mean, over leaving out each human in turn, of min(1, matches among the rest / 3).

    Source   https://visualqa.org/evaluation.html and Qwen-VL's altered copy of it; equal to both
             on every case of tests/golden/metrics/vqa_cases.jsonl
    Quirks   kept as in the source: records that agree in every field are left out together, so
             bare records without ids score less; a single answer always scores 0. Published: a
             human's `two`, `Red`, `the dog` or `isnt` can never be matched
    """
    if variant not in VARIANTS:
        raise UsageError(f"variant: one of {VARIANTS} expected, {variant!r} found")
    if not isinstance(prediction, str):
        raise PredictionError(f"prediction: a text expected, {prediction!r} found")
    if isinstance(answers, list) and {*map(type, answers)} == {str}:
        return _of_texts(prediction, answers, variant)
    return _of_records(prediction, _records(answers), variant)


VQA_METRICS: dict[str, Callable[[str, Any], float]] = {
    "vqa_accuracy": vqa_accuracy,
    "vqa_accuracy_official": partial(vqa_accuracy, variant="official"),
}


def _of_texts(prediction: str, texts: list[str], variant: Variant) -> float:
    """As _of_records, where each text is one human's: only the places of the matches count."""
    if variant == "published":
        prediction = _full(prediction)
        if texts.count(texts[0]) < len(texts):
            texts = [*map(_punct, texts)]
    else:
        normal = [*map(_full, texts)]
        # Texts that differ when they are normalised differ when they are cleaned, too.
        if normal.count(normal[0]) < len(normal) or len({*map(_clean, texts)}) > 1:
            prediction, texts = _full(prediction), normal
        else:
            prediction, texts = _clean(prediction), [*map(_clean, texts)]
    matches = texts.count(prediction)
    if not matches:
        return 0.0
    if matches > ENOUGH:  # enough agree without any one human
        return 1.0
    return _mean(tuple([text == prediction for text in texts]))


@lru_cache(KEPT)
def _mean(matches: tuple[bool, ...]) -> float:
    """The mean over leaving out each human; the order matters, for rounding alone."""
    among = sum(matches)
    return _sum(min(1.0, (among - match) / ENOUGH) for match in matches) / len(matches)


def _of_records(prediction: str, humans: list[dict[str, Any]], variant: Variant) -> float:
    """VQA accuracy by its definition."""
    texts = [human["answer"] for human in humans]
    if variant == "published":
        prediction = full(prediction)
        if len(set(texts)) > 1:
            texts = [punct(text) for text in texts]
    else:
        prediction = clean(prediction)
        texts = [clean(text) for text in texts]
        if len(set(texts)) > 1:
            prediction = digit_article(punct(prediction))
            texts = [digit_article(punct(text)) for text in texts]
    if prediction not in texts:
        return 0.0
    humans = [{**human, "answer": text} for human, text in zip(humans, texts, strict=True)]
    return _sum(_agreement(prediction, human, humans) for human in humans) / len(humans)


def vqa_totals(
    annotations: Sequence[Mapping[str, Any]],
    results: Iterable[Mapping[str, Any]],
    *,
    variant: Variant = "published",
) -> dict[str, Any]:
    """The challenge's own figures, in percent and rounded to two decimals as it rounds them.

    annotations  records with question_id, question_type, answer_type and answers
    results      records with question_id and answer: the file a challenge server takes

    Returns `overall`, `perQuestionType`, `perAnswerType` and `evalQA` (by question id).

    Source   as vqa_accuracy; equal on tests/golden/metrics/vqa_expected.json
    Quirks   kept as in the source: the last of several results for a question counts, and a
             question annotated twice counts twice, each time with its last annotation; exact ties
             round to even, so 3.125 prints as 3.12

    Raises DataError without questions and PredictionError where results and questions differ.
    """
    if not annotations:
        raise DataError("annotations: at least one question expected, none found")
    questions = {_field(row, "question_id", DataError): row for row in annotations}
    predictions = {
        _field(row, "question_id", PredictionError): _field(row, "answer", PredictionError)
        for row in results
    }
    for kind, ids in (
        ("without a result", questions.keys() - predictions.keys()),
        ("unknown", predictions.keys() - questions.keys()),
    ):
        if ids:
            some = ", ".join(sorted(map(repr, ids))[:3])
            raise PredictionError(
                f"{len(ids)} questions {kind} ({some}); {len(questions)} questions and "
                f"{len(predictions)} results found. Every question needs one, under the same id"
            )
    scores = {
        number: vqa_accuracy(
            predictions[number], _field(row, "answers", DataError), variant=variant
        )
        for number, row in questions.items()
    }
    numbers = [row["question_id"] for row in annotations]

    def means(field: str) -> dict[str, float]:
        groups: dict[str, list[float]] = {}
        for number in numbers:
            groups.setdefault(_field(questions[number], field, DataError), []).append(
                scores[number]
            )
        return {name: _percent(values) for name, values in groups.items()}

    return {
        "overall": _percent([scores[number] for number in numbers]),
        "perQuestionType": means("question_type"),
        "perAnswerType": means("answer_type"),
        "evalQA": {number: _percent([score]) for number, score in scores.items()},
    }


def clean(text: str) -> str:
    """Line feeds and tabs become spaces, the ends are stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def punct(text: str) -> str:
    """Delete punctuation, or put a space in its place.

    A mark is deleted where the text has it beside a space; every mark is, where the text has a
    comma between two digits; else it becomes a space. Then periods go that no digit follows.

    Quirks   kept as in the source: the tests look at the unmodified text, what stands before a
             period does not matter, and only the first 32 such periods go
    """
    delete_all = THOUSANDS.search(text) is not None
    result = text
    if MARK.search(text):
        for mark in [mark for mark in PUNCTUATION if mark in text]:
            delete = delete_all or f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if delete else " ")
    return PERIOD.sub("", result, count=MOST_PERIODS) if "." in result else result


def digit_article(text: str) -> str:
    """Lower-case words joined by single spaces: digits for number words, no articles, apostrophes.

    The order decides: a number word is looked up before an article is dropped, an apostrophe put
    last.
    """
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def full(text: str) -> str:
    """All three steps, in the order in which a prediction goes through them."""
    return digit_article(punct(clean(text)))


_clean, _punct, _full = lru_cache(KEPT)(clean), lru_cache(KEPT)(punct), lru_cache(KEPT)(full)


def _records(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every answer as a record of its own, numbered from 1 where it is a bare text."""
    if isinstance(answers, str) or not answers:
        raise DataError(f"answers: a list of at least one human answer expected, {answers!r} found")
    records = []
    for number, answer in enumerate(answers, 1):
        if isinstance(answer, str):
            record = {"answer": answer, "answer_id": number, "answer_confidence": "yes"}
        elif isinstance(answer, Mapping) and isinstance(answer.get("answer"), str):
            record = dict(answer)
        else:
            raise DataError(
                f"answers, number {number}: a text, or a record with a text `answer` expected, "
                f"{answer!r} found"
            )
        records.append(record)
    return records


def _field(record: Mapping[str, Any], name: str, error: type[EvalError]) -> Any:
    try:
        return record[name]
    except KeyError:
        raise error(f"field {name!r} expected in every record, missing in {record!r}") from None


def _agreement(prediction: str, left_out: dict[str, Any], humans: list[dict[str, Any]]) -> float:
    matches = [human for human in humans if human != left_out and human["answer"] == prediction]
    return min(1.0, len(matches) / ENOUGH)


def _percent(scores: Sequence[float]) -> float:
    return round(100 * _sum(scores) / len(scores), 2)


def _sum(values: Iterable[float]) -> float:
    """Plain addition from left to right: sum() compensates from Python 3.12 on and moves ties."""
    total = 0.0
    for value in values:
        total += value
    return total
