"""A run is a folder. This module alone knows its file names.

    RUN/manifest.json               what was run: model, settings, versions, data and their digests
    RUN/<task>/examples.jsonl       few-shot: the training samples before each question
    RUN/<task>/journal-0.jsonl      one line a prediction, appended and flushed as it comes
    RUN/<task>/predictions.jsonl    the same in dataset order; that it exists proves it complete
    RUN/<task>/scores.jsonl         one line a sample: each metric's value
    RUN/<task>/summary.json         the figures
    RUN/<task>/submission/<file>    what the benchmark's server takes
    RUN/<task>/server.json          the figures that it gave

A journal grows by whole lines; a torn last line, left by a crash, is dropped when it is read, and
of two lines on one sample the later counts. A line may say why there is no answer instead. Every
other file is written beside its place and moved there.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import orjson

from eval.api import Backend, Prediction, Request, Task
from eval.asked import Asked, describe_task, read_samples, requests
from eval.data import Examples
from eval.errors import RunError

MANIFEST = "manifest.json"
EXAMPLES = "examples.jsonl"
JOURNAL = "journal-0.jsonl"
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"
SUMMARY = "summary.json"
SUBMISSION = "submission"
SERVER = "server.json"
PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run. Raises RunError where the folder holds none."""
        file = path / MANIFEST
        try:
            manifest = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path}: not a run: it has no {MANIFEST}") from None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(f"{file}: cannot be read: {error}") from None
        model, tasks = (
            (manifest.get("model"), manifest.get("tasks"))
            if isinstance(manifest, dict)
            else (None, None)
        )
        if not isinstance(model, dict) or not isinstance(tasks, dict):
            raise RunError(f"{file}: 'model' and 'tasks' expected; this is no run's manifest")
        return cls(path, manifest)

    @classmethod
    def start(cls, path: Path, manifest: Mapping[str, Any]) -> "RunFolder":
        """A new run, or the one in that folder if model and tasks agree, which then goes on.

        Raises RunError, naming what differs, where the folder holds another run.
        """
        if not (path / MANIFEST).exists():
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunError(f"{path}: not empty and not a run; give another folder with --out")
            tasks = manifest["tasks"]
        else:
            earlier = cls.open(path).manifest
            _refuse(path, _differing(earlier, manifest))
            tasks = earlier["tasks"] | manifest["tasks"]
        merged = {**manifest, "tasks": tasks}
        write_file(path / MANIFEST, orjson.dumps(merged, option=PRETTY))
        return cls(path, merged)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order they were asked for."""
        return tuple(self.manifest["tasks"])

    def recorded(self, task: str) -> dict[str, Prediction]:
        """Predictions so far, by sample id: of the sealed file if there is one, or the journal."""
        folder = self.path / task
        for name in (PREDICTIONS, JOURNAL):
            if (folder / name).is_file():
                return {p.id: p for p in _read_predictions(folder / name, torn=name == JOURNAL)}
        return {}

    def answers(self, task: str) -> Iterator[Prediction]:
        """All predictions of a finished task, one at a time, in dataset order."""
        file = self.path / task / PREDICTIONS
        if not file.is_file():
            raise RunError(
                f"{self.path}: {task} is not finished ({len(self.recorded(task))} predictions in "
                "its journal). Run the same command again to go on"
            )
        return _read_predictions(file, torn=False)

    def predictions(self, task: str) -> dict[str, Prediction]:
        """All predictions of a finished task, by sample id, in dataset order."""
        return {prediction.id: prediction for prediction in self.answers(task)}

    def answer(
        self, tasks: Sequence[Task], data: Path, asked: Mapping[str, Asked], backend: Backend
    ) -> Iterator[tuple[str, Prediction]]:
        """Ask what the journals lack; yield task and prediction once it is in its journal.

        The tasks are one stream of requests, so that a back end may take together what concerns
        one image. asked  by name of the task
        """
        open_tasks = [task for task in tasks if not self.sealed(task.name)]
        with contextlib.ExitStack() as files:
            journals: dict[str, IO[bytes]] = {}
            for task in open_tasks:
                folder = self.path / task.name
                folder.mkdir(exist_ok=True)
                if asked[task.name].few_shot and not (folder / EXAMPLES).is_file():
                    self._write_examples(task, data, asked[task.name])
                if (folder / JOURNAL).is_file():
                    _drop_torn_line(folder / JOURNAL)
                journals[task.name] = files.enter_context((folder / JOURNAL).open("ab"))
            for answer in backend.answer(self._lacking(open_tasks, data, asked)):
                name, _, sample_id = answer.id.partition("/")
                prediction = replace(answer, id=sample_id)
                journals[name].write(_line(prediction))
                journals[name].flush()
                yield name, prediction

    def _lacking(
        self, tasks: Sequence[Task], data: Path, asked: Mapping[str, Asked]
    ) -> Iterator[Request]:
        """What is not in the journals yet."""
        for task in tasks:
            done = self.recorded(task.name).keys()
            for sample, request in requests(task, data, asked[task.name]):
                if sample.id not in done:
                    yield request

    def failed(self, task: str) -> dict[str, str]:
        """Samples without an answer, and why, by id."""
        return {p.id: p.error for p in self.recorded(task).values() if p.error}

    def reopen(self, task: str) -> None:
        """Drop a task's failed predictions, so that their samples are asked again."""
        kept = [p for p in self.recorded(task).values() if not p.error]
        folder = self.path / task
        write_file(folder / JOURNAL, b"".join(map(_line, kept)))
        for name in (PREDICTIONS, SCORES, SUMMARY):
            (folder / name).unlink(missing_ok=True)

    def _write_examples(self, task: Task, data: Path, asked: Asked) -> None:
        """Which training samples stand before which question."""
        examples = Examples(task, data, leaking=asked.leaking)
        rows = (
            {
                "id": sample.id,
                "examples": [e.id for e in examples.draw(sample.id, asked.few_shot, asked.seed)],
            }
            for sample in read_samples(task, data, asked)
        )
        write_rows(self.path / task.name / EXAMPLES, rows)

    def seal(self, task: Task, data: Path, asked: Asked) -> None:
        """Write predictions.jsonl in dataset order. Raises RunError where one is missing."""
        if self.sealed(task.name):
            return
        recorded = self.recorded(task.name)
        lines = []
        for sample in read_samples(task, data, asked):
            if sample.id not in recorded:
                raise RunError(f"{self.path}: {task.name}: no prediction for sample {sample.id}")
            lines.append(_line(recorded[sample.id]))
        write_file(self.path / task.name / PREDICTIONS, b"".join(lines))

    def sealed(self, task: str) -> bool:
        """Whether all of a task's predictions are there."""
        return (self.path / task / PREDICTIONS).is_file()

    def scored(self, task: str) -> bool:
        """Whether a task has its summary."""
        return (self.path / task / SUMMARY).is_file()

    def summary(self, task: str) -> dict[str, Any]:
        """A scored task's summary."""
        file = self.path / task / SUMMARY
        try:
            summary: dict[str, Any] = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(f"{file}: cannot be read: {error}") from None
        return summary

    def check_tasks(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise RunError, naming what differs, where tasks are described otherwise than here."""
        _refuse(self.path, _differing_tasks(self.manifest["tasks"], entries))

    def check_asked(self, task: str) -> None:
        """Raise RunError for a task that the run was not asked."""
        if task not in self.tasks:
            raise RunError(f"{self.path}: a run of {', '.join(self.tasks)}; {task} was not asked")

    def check_sources(self, task: Task, data: Path) -> dict[str, str]:
        """Digests of the task's files below `data`, by path.

        Raises RunError where they are not those that the run was asked from.
        """
        entry = self.manifest["tasks"][task.name]
        now: dict[str, str] = describe_task(task, data, Asked.of(entry))["sources"]
        for path, digest in entry["sources"].items():
            found = now.get(path)
            if found != digest:
                raise RunError(
                    f"{data / path}: not the file that the run was asked from (sha256 "
                    f"{found[:12] if found else 'not read'}, the run's {digest[:12]}); give the "
                    "right folder with --data"
                )
        return now

    def write_scores(
        self,
        task: str,
        rows: Iterable[Mapping[str, Any]],
        summary: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Write scores.jsonl row by row, then summary.json, which says that both are complete.

        summary  called when the last row was taken; what it gives is returned
        """
        folder = self.path / task
        (folder / SUMMARY).unlink(missing_ok=True)
        write_rows(folder / SCORES, rows)
        told = summary()
        write_file(folder / SUMMARY, orjson.dumps(told, option=PRETTY))
        return told

    def submission_file(self, task: str, name: str) -> Path:
        """Where a task's submission file lies; its folder exists."""
        folder = self.path / task / SUBMISSION
        folder.mkdir(exist_ok=True)
        return folder / name

    def write_server_scores(self, task: str, scores: Mapping[str, Any]) -> None:
        """Put down what a server gave: {"server", "metrics": name -> figure in [0, 1], ...}."""
        write_file(self.path / task / SERVER, orjson.dumps(scores, option=PRETTY))

    def server_scores(self, task: str) -> dict[str, Any] | None:
        """What was put down of a server, or None."""
        file = self.path / task / SERVER
        try:
            scores = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(f"{file}: cannot be read: {error}") from None
        if not isinstance(scores, dict) or not {"server", "metrics"} <= scores.keys():
            raise RunError(f"{file}: 'server' and 'metrics' expected; write it with 'submit'")
        return scores


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write beside the place, then move there: a reader sees the old file or the whole new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole."""
    with writing(path) as file:
        file.write(content)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON line a row, as rows come."""
    with writing(path) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _line(prediction: Prediction) -> bytes:
    record: dict[str, Any] = {"id": prediction.id, "text": prediction.text}
    if prediction.tokens:
        record["tokens"] = prediction.tokens
    if prediction.losses:
        record["losses"] = prediction.losses
    if prediction.error:
        record["error"] = prediction.error
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _read_predictions(file: Path, *, torn: bool) -> Iterator[Prediction]:
    """Predictions of a file; with `torn` a last line without its line feed is left out."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if torn and not line.endswith(b"\n"):
                return
            try:
                record = orjson.loads(line)
                tokens, losses = record.get("tokens", ()), record.get("losses", ())
                yield Prediction(
                    record["id"],
                    record["text"],
                    tuple(tokens),
                    tuple(losses),
                    record.get("error", ""),
                )
            except (ValueError, KeyError, TypeError, AttributeError):
                raise RunError(f"{file}, line {number}: not a prediction: {line[:80]!r}") from None


def _drop_torn_line(journal: Path) -> None:
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)


def _differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps two manifests from being one run: model settings, or a task asked otherwise."""
    names = [
        f"model {key}"
        for key in sorted({*earlier["model"], *now["model"]} - {"checkpoint"})
        if earlier["model"].get(key) != now["model"].get(key)
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
