"""Answers to be judged: of a run, or of a file that any model's answers were put into."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.api import Prediction
from eval.data.declare import Task
from eval.data.verify import verify
from eval.errors import DataError, PredictionError
from eval.judging.task import Item, JudgedTask
from eval.run.folder import RunFolder, held_run
from eval.run.spec import Spec, read_samples, spec_entry
from eval.storage.digests import sha256_file

DATA = "data"  # folder of a run that has only the texts of a file of answers


@dataclass(frozen=True, slots=True)
class Answers:
    """Items with the answers that the judge is shown, and how many have none.

    without  samples that were asked and not answered
    """

    items: tuple[Item, ...]
    without: int


def answers_in_run(folder: RunFolder, task: Task, judged: JudgedTask, data: Path) -> Answers:
    """A run's answers, as the published scripts would show them to the judge.

    Raises RunError where the run is not finished or was asked from other data.
    """
    folder.check_task(task.name)
    folder.check_sources(task, data)
    predictions = folder.answers(task.name).by_id()
    texts = {name: p.text for name, p in predictions.items() if not p.error}
    spec = Spec.of(folder.manifest["tasks"][task.name])
    ids = [sample.id for sample in read_samples(task, data, spec)]
    given = {name: texts[name] for name in ids if name in texts}
    if not given:
        raise PredictionError(f"{folder.path}: {task.name}: no sample has an answer to be judged")
    if "answers" not in folder.manifest["model"]:  # a file's are judged as they stand in it
        given = {name: text.strip() for name, text in given.items()}
    items = tuple(judged.answered(task.name, data, given))
    return Answers(items, len(ids) - len(given))


def import_answer_table(
    file: Path,
    out: Path,
    task: Task,
    judged: JudgedTask,
    data: Path | None,
    *,
    allow_partial: bool,
    about: Mapping[str, Any],
) -> tuple[RunFolder, Path]:
    """A run that holds a file's answers, as if a model here had given them; and its data root.

    data   the benchmark's data, with which the file must agree, and which tell the pictures;
           without them the file's own texts are what is judged
    about  what the manifest says beside: command, versions

    Raises DataError for a file that is no table of answers, lacks rows or has other texts.
    """
    given = judged.read_answers(file, task.name, data)
    root = data or out / DATA
    faults = []
    if data is None:
        faults += _count(task, given)
    else:
        faults += verify(task, data).issues
        known = sum(1 for _ in read_samples(task, data))
        if known != len(given) and not any("samples:" in fault for fault in faults):
            faults.append(f"samples: {known:,} expected, {len(given):,} found")
    if faults and not allow_partial:
        lines = "\n  ".join(faults)
        raise DataError(
            f"{file}: not the answers to the whole of {task.name}:\n  {lines}\nNothing was asked. "
            "Complete the file; --allow-partial judges what there is and marks the figure"
        )
    with held_run(out), tempfile.TemporaryDirectory() as beside:
        described = data or Path(beside)
        if data is None:
            judged.write_data(given, file, task.name, described)
        ids = {each.id for each in given}
        every = (sample.id for sample in read_samples(task, described))
        spec = Spec(left_out=tuple(name for name in every if name not in ids), faults=tuple(faults))
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
            "tasks": {task.name: spec_entry(task, described, spec)},
            "data": str(root.resolve()),
            **about,
        }
        folder = RunFolder.start(out, manifest)
        if not folder.answers(task.name).complete:
            if data is None:
                judged.write_data(given, file, task.name, root)
            _put_down(folder, task, root, spec, given)
    return folder, root


def _put_down(folder: RunFolder, task: Task, root: Path, spec: Spec, given: Sequence[Item]) -> None:
    """Write the answers as a worker would have, and close the task."""
    texts = {each.id: str(each.response) for each in given}
    digests = folder.digests()
    folder.answers(task.name).open(task, root, spec)
    journals = folder.journals(0)
    for pending in list(folder.answers(task.name).pending(task, root, spec, digests)):
        sample = pending.request.id.partition("/")[2]
        journals.write(Prediction(pending.request.id, texts[sample]), pending.of)
    journals.close()
    missing = folder.answers(task.name).finalize(task, root, spec, digests)
    assert not missing, "every sample that is asked has its answer in the file"


def _count(task: Task, given: Sequence[Item]) -> list[str]:
    if task.size is None or len(given) == task.size:
        return []
    return [f"samples: {task.size:,} expected, {len(given):,} found"]
