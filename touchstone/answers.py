"""Answers to be judged: of a run, or of a file that any model's answers were put into."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval import Task
from eval.api import Prediction
from eval.data import verify
from eval.errors import DataError, PredictionError
from eval.run.folder import RunFolder, held
from eval.run.spec import Spec, describe_task, read_samples
from eval.storage.digests import sha256_file
from eval.storage.writing import write_rows
from touchstone.table import TEXTS, Dialogue, as_read_back, read_answers
from touchstone.tasks import TABLES, dialogues

SHOWN = 3  # ids that a message about many names
DATA = "data"  # folder of a run that has only the texts of a file of answers


@dataclass(frozen=True, slots=True)
class Answers:
    """Dialogues with the answers that the judge is shown, and how many have none.

    without  samples that were asked and not answered
    """

    dialogues: tuple[Dialogue, ...]
    without: int


def answers_of(folder: RunFolder, task: Task, data: Path) -> Answers:
    """A run's answers, as the published scripts would show them to the judge.

    Raises RunError where the run is not finished or was asked from other data.
    """
    folder.check_task(task.name)
    folder.check_sources(task, data)
    predictions = folder.answers(task.name).by_id()
    texts = {name: p.text for name, p in predictions.items() if not p.error}
    asked = Spec.of(folder.manifest["tasks"][task.name])
    wanted = [sample.id for sample in read_samples(task, data, asked)]
    given = {name: texts[name] for name in wanted if name in texts}
    if not given:
        raise PredictionError(f"{folder.path}: {task.name}: no sample has an answer to be judged")
    if "answers" not in folder.manifest["model"]:  # a file's are judged as they stand in it
        given = {name: text.strip() for name, text in given.items()}
    known = [
        replace(each, response=given[each.id])
        for each in dialogues(data, task.name)
        if each.id in given
    ]
    shown = as_read_back(known)
    pictures = {each.id: each.images for each in known}
    found = tuple(replace(each, images=pictures[each.id]) for each in shown)
    return Answers(found, len(wanted) - len(given))


def take_in(
    file: Path,
    out: Path,
    task: Task,
    data: Path | None,
    *,
    allow_partial: bool,
    about: dict[str, str],
) -> tuple[RunFolder, Path]:
    """A run that holds a file's answers, as if a model here had given them; and its data root.

    data   the benchmark's data, with which the file must agree, and which tell the pictures;
           without them the file's own texts are what is judged
    about  what the manifest says beside: command, versions

    Raises DataError for a file that is no table of answers, lacks rows or has other texts.
    """
    given = read_answers(file)
    root = data or out / DATA
    faults = []
    if data is None:
        faults += _count(task, given)
    else:
        known = list(dialogues(data, task.name))
        _agree(file, given, known)
        faults += verify(task, data).issues
        lacking = len(known) - len(given)
        if lacking and not any("samples:" in fault for fault in faults):
            faults.append(f"samples: {len(known):,} expected, {len(given):,} found")
    if faults and not allow_partial:
        lines = "\n  ".join(faults)
        raise DataError(
            f"{file}: not the answers to the whole of {task.name}:\n  {lines}\nNothing was asked. "
            "Complete the file; --allow-partial judges what there is and marks the figure"
        )
    index = f"{TABLES[task.name]}.jsonl"
    with held(out), tempfile.TemporaryDirectory() as beside:
        described = data or Path(beside)
        if data is None:
            _write_texts(given, file, described / index)
        ids = {each.id for each in given}
        every = (sample.id for sample in read_samples(task, described))
        asked = Spec(
            left_out=tuple(name for name in every if name not in ids), faults=tuple(faults)
        )
        digest = sha256_file(file)
        manifest = {
            "name": out.resolve().name,
            "model": {
                "checkpoint": file.name,
                "answers": digest,
                "digest": digest,
                "chat_format": "chatml",
                "dtype": "?",
                "batch_size": "?",
            },
            "settings": {},
            "tasks": {task.name: describe_task(task, described, asked)},
            "data": str(root.resolve()),
            **about,
        }
        folder = RunFolder.start(out, manifest)
        if not folder.answers(task.name).complete:
            if data is None:
                _write_texts(given, file, root / index)
            _put_down(folder, task, root, asked, given)
    return folder, root


def _put_down(
    folder: RunFolder, task: Task, root: Path, asked: Spec, given: Sequence[Dialogue]
) -> None:
    """Write the answers as a worker would have, and close the task."""
    texts = {each.id: str(each.response) for each in given}
    digests = folder.digests()
    folder.answers(task.name).open(task, root, asked)
    journals = folder.journals(0)
    for wanted in list(folder.answers(task.name).pending(task, root, asked, digests)):
        sample = wanted.request.id.partition("/")[2]
        journals.write(Prediction(wanted.request.id, texts[sample]), wanted.of)
    journals.close()
    missing = folder.answers(task.name).finalize(task, root, asked, digests)
    assert not missing, "every sample that is asked has its answer in the file"


def _count(task: Task, given: Sequence[Dialogue]) -> list[str]:
    if task.size is None or len(given) == task.size:
        return []
    return [f"samples: {task.size:,} expected, {len(given):,} found"]


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


def _write_texts(given: Sequence[Dialogue], file: Path, index: Path) -> None:
    """An index of a file's rows, without pictures."""
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
        for each in given
    )
    write_rows(index, [{"table": head}, *rows])
