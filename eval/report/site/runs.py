"""Folders in, the runs that lie there out, and what lies there beside them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from eval.errors import RunError, UsageError
from eval.report.comparison import clean
from eval.report.scores import RunFigures, load_run, scored_tasks
from eval.run.files import MANIFEST, SUMMARY
from eval.storage.reading import is_folder, is_there, parse_json, read_bytes

# What ends the name of one checkpoint of many, such as checkpoint-1000 or .step_20.
NUMBERED = re.compile(r"(?:^|[-_./])(?:checkpoint|ckpt|step|global_step|epoch|iter)[-_=]?[0-9]+$")


@dataclass(frozen=True, slots=True)
class Run:
    """A run's figures, and its manifest: {} where it has none, as a file and as fields."""

    figures: RunFigures
    manifest: dict[str, Any]
    file: bytes = b""

    @property
    def folder(self) -> str:
        """Its folder's own name."""
        return self.figures.folder.resolve().name

    @property
    def started(self) -> datetime | None:
        """When, or None where the manifest does not tell."""
        told = self.manifest.get("started")
        try:
            when = datetime.fromisoformat(told) if isinstance(told, str) else None
            if when is None:
                return None
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None

    @property
    def checkpoint(self) -> str:
        """As it was given: a folder or a hub id; "" where the manifest does not tell."""
        for part, key in (("settings", "model"), ("model", "checkpoint")):
            told = self.manifest.get(part)
            if isinstance(told, dict) and isinstance(told.get(key), str):
                return str(told[key])
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
class Found:
    """Runs, by name and folder, and what is none: its path, and why."""

    runs: tuple[Run, ...]
    skipped: tuple[tuple[str, str], ...]


def find_runs(folders: Sequence[Path]) -> Found:
    """The runs among these folders and directly in them.

    Raises UsageError for a folder given twice, RunError where there is none, where no run is found,
    and, naming the file, for a damaged manifest or summary.
    """
    found: dict[Path, Run] = {}
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
            elif path.resolve() in found:
                raise UsageError(f"{path}: given twice")
            else:
                found[path.resolve()] = _read(path)
    if not found:
        raise RunError(
            f"{', '.join(map(str, folders))}: no run with a figure found: {MANIFEST} or <task>/"
            f"{SUMMARY} expected in the folder, or in a folder in it"
        )
    runs = sorted(found.values(), key=lambda run: (run.figures.name, run.folder))
    return Found(tuple(runs), tuple(sorted(set(skipped))))


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
    figures, file = load_run(path), path / MANIFEST
    if not is_there(file, RunError):
        return Run(figures, {})
    content = read_bytes(file, RunError)
    return Run(figures, parse_json(content, str(file), RunError), content)
