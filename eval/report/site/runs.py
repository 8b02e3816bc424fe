"""The runs in folders, and what else is there."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from eval.errors import RunError, UsageError
from eval.report.scores import RunScores, load_run, scored_tasks
from eval.run.files import MANIFEST, SUMMARY
from eval.storage.reading import is_folder, is_there, parse_json, read_bytes
from eval.storage.text import clean

# The end of a name of one checkpoint of many, such as checkpoint-1000 or .step_20.
NUMBERED = re.compile(r"(?:^|[-_./])(?:checkpoint|ckpt|step|global_step|epoch|iter)[-_=]?[0-9]+$")


@dataclass(frozen=True, slots=True)
class Run:
    """A run's scores and its manifest, {} where it has none; file: the manifest's bytes."""

    scores: RunScores
    manifest: dict[str, Any]
    file: bytes = b""

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.scores.folder.resolve().name

    @property
    def started(self) -> datetime | None:
        """The time of its start, or None if the manifest does not have it."""
        text = self.manifest.get("started")
        try:
            when = datetime.fromisoformat(text) if isinstance(text, str) else None
            if when is None:
                return None
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None

    @property
    def checkpoint(self) -> str:
        """As given: a folder or a hub id; "" if the manifest does not have it."""
        for part, key in (("settings", "model"), ("model", "checkpoint")):
            fields = self.manifest.get(part)
            if isinstance(fields, dict) and isinstance(fields.get(key), str):
                return str(fields[key])
        return ""

    @property
    def model(self) -> str:
        """The name that checkpoints of one model share: a hub id, or the folder's name."""
        path = PurePosixPath(self.checkpoint)
        parts = path.parts
        if NUMBERED.fullmatch(path.name) and len(parts) > 1:
            parts = parts[:-1]
        elif parts:
            parts = (*parts[:-1], NUMBERED.sub("", path.name))
        return "/".join(parts) if len(parts) == 2 and parts[0] != "/" else "".join(parts[-1:])


@dataclass(frozen=True, slots=True)
class RunListing:
    """Runs, sorted by name and folder; skipped: path of everything else, and why."""

    runs: tuple[Run, ...]
    skipped: tuple[tuple[str, str], ...]


def find_runs(folders: Sequence[Path]) -> RunListing:
    """The runs among these folders and directly in them.

    Raises UsageError for a folder given twice, RunError for a missing folder, if there is no run,
    and, naming the file, for a damaged manifest or summary.
    """
    runs: dict[Path, Run] = {}
    skipped: list[tuple[str, str]] = []
    for folder in folders:
        if not is_folder(folder):
            raise RunError(f"{folder}: a run, or a folder of runs expected, none found")
        for path in [folder] if _is_run(folder) else _inside(folder):
            shown = clean(path.relative_to(folder.parent).as_posix())
            if not is_folder(path):
                skipped.append((shown, "a file"))
            elif not _is_run(path):
                skipped.append((shown, "no run"))
            elif not _is_scored(path) and path is not folder:
                skipped.append((shown, "no task is scored yet"))
            elif path.resolve() in runs:
                raise UsageError(f"{path}: given twice")
            else:
                runs[path.resolve()] = _read(path)
    if not runs:
        raise RunError(
            f"{', '.join(map(str, folders))}: no run with a figure found: {MANIFEST} or <task>/"
            f"{SUMMARY} expected in the folder, or in a folder in it"
        )
    ordered = sorted(runs.values(), key=lambda run: (run.scores.name, run.folder))
    return RunListing(tuple(ordered), tuple(sorted(set(skipped))))


def _inside(folder: Path) -> Iterator[Path]:
    try:
        return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    except OSError as error:
        raise RunError(f"{folder}: cannot be read: {error.strerror}") from None


def _is_run(path: Path) -> bool:
    return is_there(path / MANIFEST, RunError) or _is_scored(path)


def _is_scored(path: Path) -> bool:
    return bool(scored_tasks(path))


def _read(path: Path) -> Run:
    scores, file = load_run(path), path / MANIFEST
    if not is_there(file, RunError):
        return Run(scores, {})
    content = read_bytes(file, RunError)
    return Run(scores, parse_json(content, str(file), RunError), content)
