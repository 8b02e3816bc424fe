"""One JSON object of a file, with typed access to its fields."""

import math
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from eval.data.paths import path_tail, safe_path
from eval.errors import DataError
from eval.storage.reading import MAX_INTEGER

SHOWN = 60  # characters of a wrong value that a message shows
MAX_ID_CHARACTERS = 1000
NOTHING = object()  # value of a missing field
FOREIGN_ROOT = re.compile(r"\A(?:[A-Za-z][A-Za-z0-9+.-]*:)?/+")  # "/", "C:/", "https://"


class Record:
    """A JSON object and its place in a file.

    values  its fields, as parsed
    where   such as "questions[17] of okvqa/questions.json", counted from 0, or "line 18 of FILE"

    A field that is missing or of another type raises DataError, naming the place, the expected type
    and the value.
    """

    __slots__ = ("values", "where")

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, dict):
            raise DataError(f"{where}: an object expected, {describe(values)} found")
        self.values: dict[str, Any] = values
        self.where = where

    def error(self, message: str) -> DataError:
        """An error of this record, to be raised."""
        return DataError(f"{self.where}: {message}")

    def has(self, name: str) -> bool:
        """Whether the field is present and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, pattern: str | None = None) -> str:
        """A string; a pattern must match all of it."""
        value = self._value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        if pattern is not None and not re.fullmatch(pattern, value, re.ASCII):
            raise self._wrong(name, f"a string like {pattern}", value)
        return value

    def texts(self, name: str, pattern: str | None = None) -> list[str]:
        """A list of strings; a pattern must match all of each."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, str):
                raise self._wrong(name, "a list of strings", value)
            if pattern is not None and not re.fullmatch(pattern, value, re.ASCII):
                raise self._wrong(name, f"a list of strings like {pattern}", value)
        return values

    def integer(self, name: str, low: int = 0) -> int:
        """An integer of at least `low`."""
        value = self._value(name)
        if not _is_integer(value, low):
            raise self._wrong(name, f"an integer from {low}", value)
        return value

    def integers(self, name: str, count: int, low: int = 0) -> list[int]:
        """A list of `count` integers, each at least `low`."""
        values = self._list(name)
        if len(values) != count or not all(_is_integer(value, low) for value in values):
            raise self._wrong(name, f"{count} integers from {low}", values)
        return values

    def numbers(self, name: str, count: int) -> list[float]:
        """A list of `count` numbers."""
        values = self._list(name)
        if len(values) != count or not all(_is_number(value) for value in values):
            raise self._wrong(name, f"{count} numbers", values)
        return [float(value) for value in values]

    def id(self, name: str) -> str:
        """An identifier, a string or an integer in the file, as a string."""
        value = self._value(name)
        if not _is_integer(value, 0) and not (isinstance(value, str) and is_id(value)):
            raise self._wrong(name, "an identifier", value)
        return str(value)

    def path(self, name: str) -> str:
        """A path below the data root, without the leading `data/` of converted files."""
        path = safe_path(self.text(name), f"{self.where}: field {name!r}")
        return path.removeprefix("data/")

    def tail(self, name: str, pattern: str) -> str:
        """The end of a path or URL, whole components, that the pattern matches.

        Any folders may precede it, except "..": they are of another machine.
        """
        tail = self.tail_or_none(name, pattern)
        if tail is None:
            raise self._wrong(name, f"a path that ends like {pattern}", self.text(name))
        return tail

    def tail_or_none(self, name: str, pattern: str) -> str | None:
        """As `tail`; None where the path ends otherwise."""
        path = FOREIGN_ROOT.sub("", self.text(name), count=1)
        return path_tail(safe_path(path, f"{self.where}: field {name!r}"), pattern)

    def record(self, name: str) -> "Record":
        """An object."""
        shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
        return Record(self._value(name), f"{shown} in {self.where}")

    def records(self, name: str) -> Iterator["Record"]:
        """The objects of a list, in order."""
        for number, value in enumerate(self._list(name)):
            yield Record(value, f"{name}[{number}] of {self.where}")

    def _value(self, name: str) -> Any:
        return self.values.get(name, NOTHING)

    def _list(self, name: str) -> list[Any]:
        value = self._value(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def _wrong(self, name: str, expected: str, value: Any) -> DataError:
        return self.error(f"field {name!r}: {expected} expected, {describe(value)} found")


def is_id(text: str) -> bool:
    """Whether a text can be the id of a sample: neither empty nor too long for a message."""
    return 0 < len(text) <= MAX_ID_CHARACTERS


def _is_integer(value: Any, low: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= MAX_INTEGER


def _is_number(value: Any) -> bool:
    kind = isinstance(value, int | float) and not isinstance(value, bool)
    return kind and math.isfinite(value)  # parquet may hold NaN, and infinity


def describe(value: Any) -> str:
    """A value as a message shows it: short, without nested content."""
    if value is NOTHING:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | bytes) and len(value) > SHOWN:
        return f"{value[:SHOWN]!r}..."
    return repr(value)
