"""What eval.judging needs of TouchStone; see eval.judging.task.JudgedTask."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eval.errors import DataError
from eval.storage.digests import sha256_file
from eval.storage.writing import write_rows
from touchstone import table
from touchstone.anchors import ANCHORS
from touchstone.prompt import OWN, JudgePrompt
from touchstone.prompt import read_prompt as read_file
from touchstone.reply import REPLY_FORM, fault_of, parse_reply, scale_fault, usable
from touchstone.result import judged_result as result
from touchstone.result import remarks
from touchstone.table import TEXTS, Dialogue, as_read_back
from touchstone.tasks import SCRIPT, TABLES, dialogues

__all__ = [
    "ANCHORS",
    "REPLY_FORM",
    "ROUNDS",
    "answered",
    "assessed",
    "fault_of",
    "messages",
    "parse_reply",
    "read_answers",
    "read_prompt",
    "remarks",
    "result",
    "scale_fault",
    "usable",
    "write_data",
]

ROUNDS = (1, 2)  # the reference first, then the assessed answer
SHOWN = 3  # ids that a message about many names


def messages(dialogue: Dialogue, number: int, prompt: JudgePrompt) -> list[dict[str, str]]:
    """A request's messages; the reference stands first in round 1, the assessed answer in 2."""
    answers = (dialogue.reference, str(dialogue.response))
    first, second = answers if number == 1 else answers[::-1]
    return prompt.messages(dialogue.annotation, dialogue.question, first, second)


def assessed(scores: Sequence[float], number: int) -> float:
    """The assessed answer's score; it stands second in round 1."""
    return scores[1] if number == 1 else scores[0]


def read_prompt(file: Path | None, data: Path) -> tuple[JudgePrompt, str]:
    """The judge's words: given by hand, or the authors' if their script lies with the data."""
    script = data / SCRIPT.path
    if file is None and not script.is_file():
        return OWN, (
            "the benchmark's judge prompt is not here, so ours serves, and no figure compares with "
            "the card's: 'qwen-vl-eval data prepare touchstone' fetches it, --judge-prompt gives it"
        )
    found = read_file(script if file is None else file)
    if found.published:
        return found, ""
    return found, "the judge's prompt is not the benchmark's: no figure compares with the card's"


def answered(task: str, data: Path, answers: Mapping[str, str]) -> list[Dialogue]:
    """The dialogues that have an answer, as the published scripts would show them to the judge."""
    known = [
        replace(each, response=answers[each.id])
        for each in dialogues(data, task)
        if each.id in answers
    ]
    pictures = {each.id: each.images for each in known}
    return [replace(each, images=pictures[each.id]) for each in as_read_back(known)]


def read_answers(file: Path, task: str, data: Path | None) -> list[Dialogue]:
    """The dialogues of a table. Raises DataError where it has other rows or texts than the data."""
    given = table.read_answers(file)
    if data is not None:
        _agree(file, given, list(dialogues(data, task)))
    return given


def write_data(items: Sequence[Dialogue], file: Path, task: str, root: Path) -> None:
    """Write an index of a table's rows below a folder, without pictures."""
    index = root / f"{TABLES[task]}.jsonl"
    index.parent.mkdir(parents=True, exist_ok=True)
    head = {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)}
    rows = (
        {
            "id": each.id,
            "question": each.question,
            "human_annotation": each.annotation,
            "gpt4_ha_answer": each.reference,
            "category": each.category,
            "task_name": each.task_name,
            "images": [],
        }
        for each in items
    )
    write_rows(index, [{"table": head}, *rows])


def _agree(file: Path, given: Sequence[Dialogue], known: Sequence[Dialogue]) -> None:
    """Raise DataError where a file has other rows or texts than the data."""
    by_id = {each.id: each for each in as_read_back(known)}
    if unknown := [each.id for each in given if each.id not in by_id]:
        raise DataError(
            f"{file}: {len(unknown):,} rows are not of these data ({', '.join(unknown[:SHOWN])}): "
            f"their index is none of the {len(by_id):,} that were expected"
        )
    names = dict(
        zip(TEXTS, ("question", "annotation", "reference", "category", "task_name"), strict=True)
    )
    for each in given:
        for column, name in names.items():
            expected, found = getattr(by_id[each.id], name), getattr(each, name)
            if expected != found:
                raise DataError(
                    f"{file}: row with index {each.id}, column {column!r}: {expected!r:.80} "
                    f"expected, as in the data, {found!r:.80} found"
                )
