"""A run is a folder: its manifest, and a folder with the answers and scores of each task.

The files' names and types are in eval.run.files. A journal grows by whole lines. Every other file
is written beside its place and moved there.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eval.data.declare import Task
from eval.errors import RunError
from eval.run import journal
from eval.run.answers import Journals, TaskAnswers, refusals
from eval.run.files import FORMAT, MANIFEST, WORK, read_manifest
from eval.run.scores import TaskScores
from eval.run.spec import Spec, spec_entry
from eval.storage.digests import Digests
from eval.storage.lock import Locked, locked
from eval.storage.reading import is_there
from eval.storage.writing import PRETTY, remove_leftovers, write_file


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run. Raises RunError where the folder holds none."""
        if not is_there(path / MANIFEST, RunError):
            raise RunError(f"{path}: not a run: it has no {MANIFEST}")
        checked, manifest = read_manifest(path)
        if checked.tasks is None:
            raise RunError(f"{path / MANIFEST}: 'tasks': missing; this is no run's manifest")
        return cls(path, manifest)

    @classmethod
    def start(cls, path: Path, manifest: Mapping[str, Any]) -> "RunFolder":
        """A new run, or the one in that folder if model and tasks agree, which then goes on.

        Raises RunError, naming what differs, where the folder holds another run.
        """
        form, tasks = FORMAT, manifest["tasks"]
        if not is_there(path / MANIFEST, RunError):
            _make(path)
        else:
            earlier = cls.open(path).manifest
            _refuse(path, _differing(earlier, manifest))
            form, tasks = earlier.get("format", 1), earlier["tasks"] | tasks
        merged = {**manifest, "format": form, "tasks": tasks}
        write_file(path / MANIFEST, orjson.dumps(merged, option=PRETTY))
        return cls(path, merged)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order in which they were started."""
        return tuple(self.manifest["tasks"])

    def answers(self, task: str) -> TaskAnswers:
        """The answers to a task."""
        named = self.manifest.get("format", 1) >= FORMAT
        return TaskAnswers(self.path / task, self._model(), named)

    def scores(self, task: str) -> TaskScores:
        """The scores of a task."""
        return TaskScores(self.path / task, self.answers(task))

    def journals(self, worker: int | str) -> Journals:
        """Where a worker records its answers."""
        return Journals(self.path, str(worker), self._model())

    def work_file(self, name: str) -> Path:
        """Where a file lies that is of use only while the run is at work; its folder exists."""
        folder = self.path / WORK
        with refusals(folder):
            folder.mkdir(exist_ok=True)
        return folder / name

    def digests(self, *, verify: bool = False) -> Digests:
        """Digests of the images, remembered in this run; with `verify` read again."""
        return Digests(self.path / WORK / "images.jsonl", verify=verify)

    def check_tasks(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise RunError, naming what differs, where tasks are described otherwise than here."""
        _refuse(self.path, _differing_tasks(self.manifest["tasks"], entries))

    def refuse(self, differing: Iterable[str]) -> None:
        """Raise RunError where anything of the run differs from what is requested now."""
        _refuse(self.path, list(differing))

    def check_task(self, task: str) -> None:
        """Raise RunError for a task that is not of this run."""
        if task not in self.tasks:
            raise RunError(f"{self.path}: a run of {', '.join(self.tasks)}; {task} was not asked")

    def check_sources(self, task: Task, data: Path) -> dict[str, str]:
        """Digests of the task's files below `data`, by path.

        Raises RunError where they are not those that the run was made from.
        """
        entry = self.manifest["tasks"][task.name]
        now: dict[str, str] = spec_entry(task, data, Spec.of(entry))["sources"]
        for path, digest in entry["sources"].items():
            current = now.get(path)
            if current != digest:
                raise RunError(
                    f"{data / path}: not the file that the run was asked from (sha256 "
                    f"{current[:12] if current else 'not read'}, the run's {digest[:12]}); give "
                    "the right folder with --data"
                )
        return now

    def _model(self) -> journal.Identity:
        """What journals are to name as their model."""
        return journal.model_identity(self.manifest.get("model", {}))


@contextlib.contextmanager
def held_run(path: Path) -> Iterator[int]:
    """Hold a run's folder, which is made where there is none; the lock's file descriptor.

    Raises RunError where another process holds it, or the folder is of something else.
    """
    if not is_there(path / MANIFEST, RunError):
        _make(path)
    with refusals(path):
        (path / WORK).mkdir(exist_ok=True)
    try:
        with locked(path / WORK / "lock") as lock:
            remove_leftovers(path)
            yield lock
    except Locked as held_by:
        raise RunError(
            f"{path}: another run is at work in this folder ({held_by}). Wait for it, stop it, or "
            "give another folder with --out"
        ) from None


def _make(path: Path) -> None:
    """Make a run's folder. Raises RunError where there is something else in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = [entry for entry in path.iterdir() if entry.name != WORK]
    except OSError as error:
        raise RunError(f"{path}: a folder for the run expected: {error.strerror}") from None
    if others:
        raise RunError(f"{path}: not empty and not a run; give another folder with --out")


def _differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps two manifests from being one run: model settings, or a task's specification."""
    models = [
        {**manifest["model"], "device": journal.model_identity(manifest["model"])["device"]}
        for manifest in (earlier, now)
    ]
    names = [
        f"model {key}"
        for key in {**models[0], **models[1]}
        if key != "checkpoint" and models[0].get(key) != models[1].get(key)
    ]
    return sorted(names) + _differing_tasks(earlier["tasks"], now["tasks"])


def _differing_tasks(
    earlier: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    return sorted(
        f"{task} {key}"
        for task in earlier.keys() & now.keys()
        for key in {*earlier[task], *now[task]}
        if earlier[task].get(key) != now[task].get(key)
    )


def _refuse(path: Path, differing: list[str]) -> None:
    if differing:
        raise RunError(
            f"{path}: holds a run that differs in {', '.join(differing)}. Its predictions are "
            "kept; give another folder with --out"
        )
