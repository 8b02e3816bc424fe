"""What benchmarks share: sources, checks of ids and counts, questions with human answers."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from eval.data.declare import Sample, Source
from eval.data.files import read_records
from eval.data.records import MAX_ID_CHARACTERS, Record, describe, is_id
from eval.errors import DataError

CONVERTED_URL = "https://ofasys-wlcb.oss-cn-wulanchabu.aliyuncs.com/Qwen-VL/evaluation/"
NO_ANSWER = "field 'answers': at least one answer expected, none found"
GROUPS = ("answer_type", "question_type")  # what scores on VQA v2 are broken down by


def converted_source(path: str) -> Source:
    """A file that the authors of Qwen-VL converted and published, under their name."""
    return Source(path, origin=f"the Qwen-VL authors' converted files, {CONVERTED_URL}{path}")


def hub_source(path: str, hub: str) -> Source:
    """Tables of a dataset on the model hub."""
    return Source(path, origin=f"the hub dataset {hub}, https://huggingface.co/datasets/{hub}")


def unique(samples: Iterable[Sample], where: str) -> Iterator[Sample]:
    """The samples, unchanged. Raises DataError for a repeated or invalid id.

    where  beginning of an error's message, such as the task's name
    """
    seen: set[str] = set()
    for number, sample in enumerate(samples):
        if not is_id(sample.id):
            raise DataError(
                f"{where}: sample {number} (counted from 0) has the id {describe(sample.id)}; 1 to "
                f"{MAX_ID_CHARACTERS:,} characters are allowed"
            )
        if sample.id in seen:
            raise DataError(
                f"{where}: ids that stand once expected, {sample.id!r} found again at sample "
                f"{number} (counted from 0). Is the file two files joined?"
            )
        seen.add(sample.id)
        yield sample


class Folders:
    """Refuses files with pictures of one name in two folders, for readers that drop the folder."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def check(self, row: Record, image: str) -> str:
        """The path `image`, if the record's folder for it is the one seen before.

        Raises DataError where the record's field `image` names a second one.
        """
        folder = PurePosixPath(row.text("image")).parent.name
        if (first := self.known.setdefault(image, folder)) != folder:
            raise row.error(
                f"field 'image': {image} stands for a picture in {first!r} and for one in "
                f"{folder!r}, which need not be the same"
            )
        return image


def vqa_samples(questions: Iterable[tuple[Record, str]], annotations: Path) -> Iterator[Sample]:
    """Questions with their human answers, in the format of VQA v2.

    questions    records with `question_id` and `question`, each with its image below the data root
    annotations  file with `annotations`, each `{"question_id": 1, "answers": [...]}`

    The reference is what vqa_accuracy takes; see human_answers. Annotations of other questions are
    ignored; a question without one is an error. Both files are read side by side, so memory does
    not grow with them if they have the same order.
    """
    rows = read_records(annotations, "annotations")
    annotated: set[str] = set()
    waiting: dict[str, tuple[str, list[Any], dict[str, str]]] = {}

    def read_next() -> bool:
        row = next(rows, None)
        if row is None:
            return False
        question = row.id("question_id")
        if question in annotated:
            raise row.error(f"question_id {question!r} is annotated twice")
        annotated.add(question)
        groups = {
            name: value
            for name in GROUPS
            if isinstance(value := row.values.get(name), str) and value
        }
        waiting[question] = question, human_answers(row), groups
        return True

    for row, image in questions:
        question = row.id("question_id")
        while question not in waiting:
            if not read_next():
                if question in annotated:
                    raise row.error(f"question_id {question!r} stands for a second question")
                raise row.error(f"question_id {question!r} has no annotation in {annotations}")
        # the string that `annotated` holds already, not a copy
        question, answers, groups = waiting.pop(question)
        fields = {"image": image, "question": row.text("question")}
        yield Sample(question, fields, reference=answers, groups=groups)
    while read_next():  # check the rest too
        waiting.clear()


def human_answers(row: Record) -> list[Any]:
    """One question's human answers: strings if each human counts as one, else records.

    The metric numbers strings 1, 2, ..., which is right if the file numbers its answers or has no
    numbers. If a number repeats, the records are kept: the published scorer then leaves out all
    records that are equal in every field.
    """
    texts = _numbered(row.values.get("answers"))
    if texts:
        return texts
    humans = list(row.records("answers"))
    if not humans:
        raise row.error(NO_ANSWER)
    texts = [human.text("answer") for human in humans]
    numbers = [human.id("answer_id") for human in humans if human.has("answer_id")]
    if not numbers or len(set(numbers)) == len(humans):
        return texts
    return [
        {name: value for name, value in human.values.items() if not isinstance(value, dict | list)}
        for human in humans
    ]


def bare_answers(row: Record) -> list[str]:
    """One question's human answers, where the file gives their texts alone."""
    answers = row.texts("answers")
    if not answers:
        raise row.error(NO_ANSWER)
    return answers


def answer_texts(sample: Sample) -> list[str]:
    """The texts of a sample's human answers."""
    return [each if isinstance(each, str) else each["answer"] for each in sample.reference]


def with_answers(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Few-shot examples of questions: each shows the first of its most frequent human answers."""
    for sample in samples:
        texts = answer_texts(sample)
        yield Sample(sample.id, {**sample.fields, "answer": max(texts, key=texts.count)})


def wrong_count(count: int, what: str, sample: Sample) -> str | None:
    """What is wrong with a sample, if its reference does not hold `count` answers or captions."""
    actual = len(sample.reference)
    return None if actual == count else f"{count} {what} expected, {actual} found"


def _numbered(humans: Any) -> list[Any] | None:
    """The texts of plain records with different integers as `answer_id`; None for other forms.

    A fast path: nearly every question of the large benchmarks has this form.
    """
    try:
        texts = [human["answer"] for human in humans]
        numbers = {human["answer_id"] for human in humans}
    except (KeyError, TypeError):
        return None
    plain = {*map(type, texts)} == {str} and {*map(type, numbers)} == {int}
    return texts if plain and len(numbers) == len(texts) and min(numbers) >= 0 else None
