"""A run is a folder. This module alone knows its file names.

    RUN/manifest.json               what was run: model, settings, versions, data and their digests
    RUN/<task>/journal-0.jsonl      one line a prediction, appended and flushed as it comes
    RUN/<task>/predictions.jsonl    the same in dataset order; that it exists proves it complete
    RUN/<task>/scores.jsonl         one line a sample: each metric's value
    RUN/<task>/summary.json         the figures

A journal grows by whole lines; a torn last line, left by a crash, is dropped when it is read. Every
other file is written beside its place and moved there.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eval.api import Backend, Prediction, Sample, Task
from eval.data import sha256_file, unique
from eval.errors import DataError, RunError

MANIFEST = "manifest.json"
JOURNAL = "journal-0.jsonl"
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.jsonl"
SUMMARY = "summary.json"
PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
PROTOCOL = "published"  # prompts as the model's authors published them, for both models


def read_samples(task: Task, data: Path, limit: int | None = None) -> Iterator[Sample]:
    """The task's samples in the official order, ids checked to be unique, at most `limit`."""
    layout = task.layout(data)
    for number, sample in enumerate(unique(layout.read(data), task.name)):
        if number == limit:
            return
        yield sample


def check_data(task: Task, data: Path, limit: int | None = None) -> int:
    """Read all of a task's records, look for its images, and return the number of samples.

    Raises DataError for what would stop a run hours later: a malformed record, a missing image.
    """
    count = 0
    images: set[str] = set()
    for sample in read_samples(task, data, limit):
        count += 1
        images.update(sample.images)
    missing = sorted(path for path in images if not (data / path).is_file())
    if missing:
        origin = f" qwen-vl-eval data prepare {task.name} says how to get them."
        raise DataError(
            f"{task.name}: {len(missing)} of {len(images)} images are missing, the first is "
            f"{data / missing[0]}.{origin}"
        )
    if not count:
        raise DataError(f"{task.name}: its files below {data} hold no sample of this split")
    return count


def describe_task(task: Task, data: Path, limit: int | None) -> dict[str, Any]:
    """What a manifest says about a task: enough to tell whether two runs asked the same.

    Raises DataError where a file is not the pinned one.
    """
    layout = task.layout(data)
    decode = task.decode
    sources = {source.path: sha256_file(data / source.path) for source in layout.sources}
    for source in layout.sources:
        if source.sha256 not in (None, sources[source.path]):
            raise DataError(
                f"{task.name}: {data / source.path}: sha256 {source.sha256} expected, "
                f"{sources[source.path]} found. Fetch it again from {source.origin or 'its source'}"
            )
    return {
        "prompt": task.prompt,
        "protocol": PROTOCOL,
        "decode": {"rank": True}
        if isinstance(decode, type)
        else {
            "greedy": True,
            "max_new_tokens": decode.max_new_tokens,
            "min_new_tokens": decode.min_new_tokens,
        },
        "size": task.size,
        "limit": limit,
        "sources": sources,
    }


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
            differing = _differing(earlier, manifest)
            if differing:
                raise RunError(
                    f"{path}: holds a run that differs in {', '.join(differing)}. Its predictions "
                    "are kept; give another folder with --out"
                )
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

    def predictions(self, task: str) -> dict[str, Prediction]:
        """All predictions of a finished task, by sample id, in dataset order."""
        file = self.path / task / PREDICTIONS
        if not file.is_file():
            raise RunError(
                f"{self.path}: {task} is not finished ({len(self.recorded(task))} predictions in "
                "its journal). Run the same command again to go on"
            )
        return {p.id: p for p in _read_predictions(file, torn=False)}

    def answer(
        self, task: Task, samples: Iterable[Sample], backend: Backend
    ) -> Iterator[Prediction]:
        """Ask what the journal lacks; yield each prediction once it is in the journal."""
        folder = self.path / task.name
        folder.mkdir(exist_ok=True)
        if (folder / PREDICTIONS).is_file():
            return
        done = self.recorded(task.name)
        journal = folder / JOURNAL
        if journal.is_file():
            _drop_torn_line(journal)
        open_requests = (task.request(s) for s in samples if s.id not in done)
        with journal.open("ab") as file:
            for answer in backend.answer(open_requests):
                sample_id = answer.id.removeprefix(f"{task.name}/")
                prediction = Prediction(sample_id, answer.text, answer.tokens, answer.losses)
                file.write(_line(prediction))
                file.flush()
                yield prediction

    def seal(self, task: Task, samples: Iterable[Sample]) -> None:
        """Write predictions.jsonl in dataset order. Raises RunError where one is missing."""
        folder = self.path / task.name
        if (folder / PREDICTIONS).is_file():
            return
        recorded = self.recorded(task.name)
        lines = []
        for sample in samples:
            if sample.id not in recorded:
                raise RunError(f"{self.path}: {task.name}: no prediction for sample {sample.id}")
            lines.append(_line(recorded[sample.id]))
        write_file(folder / PREDICTIONS, b"".join(lines))

    def write_scores(
        self, task: str, scores: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]
    ) -> None:
        """Write scores.jsonl, then summary.json, whose presence says that both are complete."""
        folder = self.path / task
        write_rows(folder / SCORES, scores)
        write_file(folder / SUMMARY, orjson.dumps(summary, option=PRETTY))


def write_file(path: Path, content: bytes) -> None:
    """Write beside the place, then move there: a reader sees the old file or the whole new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def _line(prediction: Prediction) -> bytes:
    record: dict[str, Any] = {"id": prediction.id, "text": prediction.text}
    if prediction.tokens:
        record["tokens"] = prediction.tokens
    if prediction.losses:
        record["losses"] = prediction.losses
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
                yield Prediction(record["id"], record["text"], tuple(tokens), tuple(losses))
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
    for task in earlier["tasks"].keys() & now["tasks"].keys():
        before, after = earlier["tasks"][task], now["tasks"][task]
        names += [f"{task} {key}" for key in after if before.get(key) != after[key]]
    return sorted(names)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON line a row."""
    lines = (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    write_file(path, b"".join(lines))
