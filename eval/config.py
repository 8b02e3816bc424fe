"""Configurations: a TOML file for each row of a table. They name, they hold no logic."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import plugins
from eval.errors import EvalError, UsageError
from eval.protocols.qwen_vl import PROTOCOLS, PUBLISHED
from eval.storage.reading import MAX_INTEGER, exists, is_folder, read_text, read_toml, shown_path
from eval.storage.text import nearest

TOML = ".toml"
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Config:
    """What decides a row's figures; where data and run lie is said on the command line.

    model     checkpoint folder, hub id, or demo
    revision  of a hub id: a commit
    weights   the file that stands for the set of weights, where a checkpoint has several
    tasks     names of tasks or benchmarks
    few_shot  examples before each question
    seed      of all that is drawn: examples, and tokens where a task samples
    greedy    take the best token where a task samples
    partial   whether data that are not the official split's are taken, and marked
    """

    model: str
    tasks: tuple[str, ...]
    revision: str | None = None
    weights: str | None = None
    dtype: str = "auto"
    protocol: str = PUBLISHED
    few_shot: int = 0
    seed: int = 0
    batch_size: int = 1
    greedy: bool = False
    partial: bool = False


EXPECTED: dict[
    str, tuple[type, str, tuple[str, ...] | None]
] = {  # key -> type, what it is called, what it may be
    "model": (str, "a text", None),
    "tasks": (list, "a list of task names", None),
    "revision": (str, "a text", None),
    "weights": (str, "a file's name", None),
    "dtype": (str, "a dtype", DTYPES),
    "protocol": (str, "a protocol", PROTOCOLS),
    "few_shot": (int, "a number of examples, 0 or more,", None),
    "seed": (int, "a number, 0 or more,", None),
    "batch_size": (int, "a number, 1 or more,", None),
    "greedy": (bool, "true or false", None),
    "partial": (bool, "true or false", None),
}


def find_config(path: Path, folder: str = "") -> Path:
    """A configuration by its path, or by the name of one that comes with this package.

    folder  of these, such as "judge"

    Raises UsageError, naming those that there are, for what is neither.
    """
    shipped = _shipped() / folder
    name = path.name.removesuffix(TOML)
    there = exists(path) and not is_folder(path)
    if there or len(path.parts) != 1 or path.name != name:
        return path
    file = shipped / f"{name}{TOML}"
    if not file.is_file():
        known = sorted(each.name.removesuffix(TOML) for each in shipped.glob(f"*{TOML}"))
        raise UsageError(f"{shown_path(path)}: no such file{nearest(name, known)}")
    return file


def _shipped() -> Path:
    """Where configurations lie: in an installed package, or beside it in a source folder."""
    package = Path(__file__).resolve().parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def read_config(path: Path) -> Config:
    """Read and check a configuration. Raises UsageError, naming file, line and key."""
    values = read_toml(path, UsageError)
    text = read_text(path, UsageError)
    for fault, key, item in _faults(values):
        raise UsageError(f"{path}, line {_line(text, key, item)}: {fault}")
    for key in ("model", "tasks"):
        if key not in values:
            raise UsageError(f"{path}: key {key!r} is missing: {EXPECTED[key][1]} expected")
    return Config(**{**values, "tasks": tuple(values["tasks"])})


def _faults(values: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what is wrong, key, item of its list or nothing)."""
    for key, value in values.items():
        if key not in EXPECTED:
            yield f"key {key!r} is not known{nearest(key, EXPECTED)}", key, ""
            continue
        kind, what, allowed = EXPECTED[key]
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not right:
            yield f"key {key!r}: {what} expected, {value!r:.80} found", key, ""
        elif allowed and value not in allowed:
            yield (
                f"key {key!r}: {what} expected, {value!r:.80} found{nearest(str(value), allowed)}",
                key,
                "",
            )
        elif kind is int and not (key == "batch_size") <= value <= MAX_INTEGER:
            yield f"key {key!r}: {what} expected, {value!r:.80} found", key, ""
        elif key == "tasks":
            if not value:
                yield f"key {key!r}: {what} expected, an empty one found", key, ""
            for name in value:
                if not isinstance(name, str):
                    yield f"key 'tasks': {what} expected, {name!r:.80} found", key, str(name)
                try:
                    plugins.find_tasks([name])
                except EvalError as error:
                    yield f"key 'tasks': {error}", key, name


def _line(text: str, key: str, item: str) -> int:
    """Where the key stands, or below it the item of its list; counted from 1."""
    found = re.search(rf"""^\s*["']?{re.escape(key)}["']?\s*=""", text, re.MULTILINE)
    begin = found.start() + len(found[0]) - len(found[0].lstrip()) if found else 0
    if item and (at := text.find(item, begin)) >= 0:
        begin = at
    return text.count("\n", 0, begin) + 1
