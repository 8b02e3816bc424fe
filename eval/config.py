"""Configurations: a TOML file for each row of a table. They name, they hold no logic."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails, PydanticCustomError

from eval import plugins
from eval.errors import EvalError, UsageError
from eval.protocols.qwen_vl import PROTOCOLS, PUBLISHED
from eval.storage.reading import MAX_INTEGER, exists, is_folder, read_text, read_toml, shown_path
from eval.storage.text import nearest

TOML = ".toml"
DTYPES = ("auto", "bfloat16", "float16", "float32")


def _one_of(known: Iterable[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise PydanticCustomError("choice", "{nearest}", {"nearest": nearest(value, known)})
        return value

    return AfterValidator(check)


def _known_task(name: str) -> str:
    try:
        plugins.find_tasks([name])
    except EvalError as error:
        raise PydanticCustomError("task", "{reason}", {"reason": str(error)}) from None
    return name


Text = Annotated[str, Field(strict=True, description="a text")]
Number = Annotated[
    int, Field(strict=True, ge=0, le=MAX_INTEGER, description="a number, 0 or more,")
]
Flag = Annotated[bool, Field(strict=True, description="true or false")]


@with_config(extra="forbid")
@dataclass(frozen=True, slots=True)
class Config:
    """What decides a row's scores; where data and run lie is said on the command line.

    model     checkpoint folder, hub id, or demo
    revision  of a hub id: a commit
    weights   the file that stands for the set of weights, where a checkpoint has several
    tasks     names of tasks or benchmarks
    few_shot  examples before each question
    seed      of all that is drawn: examples, and tokens where a task samples
    greedy    take the best token where a task samples
    partial   whether data that are not the official split's are taken, and marked

    A description is what an error about the field calls it.
    """

    model: Text
    tasks: Annotated[
        tuple[Annotated[Text, AfterValidator(_known_task)], ...],
        Field(min_length=1, description="a list of task names"),
    ]
    revision: Annotated[Text | None, Field(description="a text")] = None
    weights: Annotated[Text | None, Field(description="a file's name")] = None
    dtype: Annotated[Text, _one_of(DTYPES), Field(description="a dtype")] = "auto"
    protocol: Annotated[Text, _one_of(PROTOCOLS), Field(description="a protocol")] = PUBLISHED
    few_shot: Annotated[Number, Field(description="a number of examples, 0 or more,")] = 0
    seed: Number = 0
    batch_size: Annotated[Number, Field(ge=1, description="a number, 1 or more,")] = 1
    greedy: Flag = False
    partial: Flag = False


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
    schema = TypeAdapter(Config)
    try:
        return schema.validate_python(values)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    line, first = min(((_line(text, each), each) for each in errors), key=lambda each: each[0])
    where = path if first["type"] == "missing" else f"{path}, line {line}"
    message = _message(first, schema.json_schema()["properties"])
    raise UsageError(f"{where}: key {first['loc'][0]!r}{message}")


def _message(error: ErrorDetails, known: dict[Any, dict[str, Any]]) -> str:
    """What is wrong with a key, in the words of its description."""
    key, kind = error["loc"][0], error["type"]
    if key not in known:
        return f" is not known{nearest(str(key), known)}"
    if kind == "task":
        return f": {error['msg']}"
    expected = f": {known[key]['description']} expected"
    if kind == "missing":
        return f" is missing{expected}"
    if kind == "too_short":
        return f"{expected}, an empty one found"
    rest = error["msg"] if kind == "choice" else ""
    return f"{expected}, {error['input']!r:.80} found{rest}"


def _line(text: str, error: ErrorDetails) -> float:
    """Where the key stands, or below it the item of its list; counted from 1."""
    key, *item = map(str, error["loc"])
    if error["type"] == "missing":
        return math.inf
    match = re.search(rf"""^\s*["']?{re.escape(key)}["']?\s*=""", text, re.MULTILINE)
    begin = match.start() + len(match[0]) - len(match[0].lstrip()) if match else 0
    if item and (at := text.find(str(error["input"]), begin)) >= 0:
        begin = at
    return text.count("\n", 0, begin) + 1
