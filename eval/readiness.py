"""Which tasks of a configuration can run, and how far its run has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.config import Config
from eval.data.declare import Task
from eval.errors import DataError, RunError
from eval.pipeline import Place, specification
from eval.run.check import check_data
from eval.run.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a task.

    samples  that will be answered; the official number, or None, where the task cannot run
    state    how far the run has come, in words
    problem  what is wrong with the task's data, "" where it can run
    """

    task: Task
    samples: int | None
    state: str
    problem: str = ""


def readiness(config: Config, tasks: Sequence[Task], place: Place) -> list[Readiness]:
    """The state of each task, in their order."""
    return [_of(config, task, place) for task in tasks]


def _of(config: Config, task: Task, place: Place) -> Readiness:
    spec = specification(config, place, task)
    try:
        count, _ = check_data(task, place.data, spec, allow_partial=config.partial)
    except DataError as error:
        return Readiness(task, task.size, "cannot run", _problem(task, place.data, error))
    return Readiness(task, count, _state(place.out, task, count))


def _problem(task: Task, data: Path, error: DataError) -> str:
    """What is wrong with a task's data: the files of its first layout, or the first data issue."""
    if task.has_data(data):
        lines = str(error).splitlines()
        return lines[min(1, len(lines) - 1)].strip()
    missing = [s.path for s in task.layouts[0].sources if not s.files(data)]
    return f"missing: {', '.join(missing)}"


def _state(out: Path, task: Task, count: int) -> str:
    try:
        run = RunFolder.open(out)
    except RunError:
        return "to run"
    if run.scores(task.name).complete:
        return "done"
    if run.answers(task.name).complete:
        return "answered, to be scored"
    answered = len(run.answers(task.name).recorded())
    return f"answered {answered:,} of {count:,}" if answered else "to run"
