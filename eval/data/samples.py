"""What families of benchmarks share: converted files, unique ids, questions beside VQA answers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eval.api import Sample, Source
from eval.data.files import read_json
from eval.data.records import Record
from eval.errors import DataError

CONVERTED_URL = "https://ofasys-wlcb.oss-cn-wulanchabu.aliyuncs.com/Qwen-VL/evaluation/"


def converted_source(path: str) -> Source:
    """A file as the authors of Qwen-VL converted and published it, in their folder's name."""
    return Source(path, origin=f"the Qwen-VL authors' converted files, {CONVERTED_URL}{path}")


def unique(samples: Iterable[Sample], where: str) -> Iterator[Sample]:
    """The samples, unchanged. Raises DataError at an id that was seen before.

    where  what an error begins with, such as the task's name
    """
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        if sample.id in seen:
            raise DataError(
                f"{where}: ids that stand once expected, {sample.id!r} found again at sample "
                f"{number} (counted from 0). Is the file two files joined?"
            )
        seen.add(sample.id)
        yield sample


def vqa_samples(questions: Iterable[tuple[Record, str]], annotations: Path) -> Iterator[Sample]:
    """Questions with their human answers, as in VQA v2 and all that took over its format.

    questions    records with `question_id` and `question`, each with its image below the data root
    annotations  file with `annotations`, each `{"question_id": 1, "answers": [...]}`

    The reference is what vqa_accuracy takes; see _answers. Annotations of other questions are
    passed over; a question without one is an error.
    """
    answers: dict[str, list[Any]] = {}
    for row in read_json(annotations).records("annotations"):
        question = row.id("question_id")
        if question in answers:
            raise row.error(f"question_id {question!r} is annotated twice")
        answers[question] = _answers(row)
    for row, image in questions:
        question = row.id("question_id")
        if question not in answers:
            raise row.error(f"question_id {question!r} has no annotation in {annotations}")
        fields = {"image": image, "question": row.text("question")}
        yield Sample(question, fields, reference=answers[question])


def _answers(row: Record) -> list[Any]:
    """One question's human answers: strings wherever each human counts for one.

    Strings stand for answers numbered 1, 2, ...: right where the file numbers them, and where it
    carries no number at all, else equal answers would be left out of the metric together. Where a
    number stands twice the records stay, because the published scorer then leaves out all that are
    equal in every field.
    """
    humans = list(row.records("answers"))
    if not humans:
        raise row.error("field 'answers': at least one answer expected, none found")
    texts = [human.text("answer") for human in humans]
    numbers = [human.id("answer_id") for human in humans if human.has("answer_id")]
    if not numbers or len(set(numbers)) == len(humans):
        return texts
    return [
        {name: value for name, value in human.values.items() if not isinstance(value, dict | list)}
        for human in humans
    ]
