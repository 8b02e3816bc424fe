"""Texts of runs made safe to show: nothing hidden, endless or executable."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

LONGEST = 2000  # characters of a value
MOST = 200  # values of one list or mapping
DEEPEST = 6  # levels
FOLDED = 12  # more values than these are shown on demand
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
OPENING = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in "<>&'\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}"}
)


@dataclass(frozen=True, slots=True)
class ManifestField:
    """A field of a manifest: a text, or nested fields."""

    key: str
    text: str = ""
    entries: tuple["ManifestField", ...] = ()
    more: int = 0

    @property
    def folded(self) -> bool:
        """Whether its values are shown on demand."""
        return len(self.entries) > FOLDED


def visible_text(text: str) -> str:
    """A text with codes in place of what is not printable, such as direction marks.

    Line feeds stay; a long text is cut off, and its length follows.
    """
    shown = "".join(
        char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}"
        for char in text[:LONGEST]
    )
    return shown if len(text) <= LONGEST else f"{shown} … ({len(text):,} characters in all)"


def manifest_entries(fields: Mapping[str, Any], depth: int = 1) -> tuple[ManifestField, ...]:
    """A manifest's fields, in its own order."""
    return tuple(_entry(key, value, depth) for key, value in list(fields.items())[:MOST])


def page_data_script(name: str, value: Any) -> bytes:
    """A script that gives a value a global name: a page opened as a file cannot fetch data."""
    text = orjson.dumps(value).decode().translate(OPENING)
    return f"window.{name} = {text};\n".encode()


def file_names(names: Sequence[str]) -> list[str]:
    """A safe file name for each of these; no two are alike, whatever their case."""
    taken: set[str] = set()
    unique_names = []
    for name in names:
        stem = "-".join(SAFE.findall(name))[:80].strip(".-") or "run"
        unique, count = stem, 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}-{count}"
        taken.add(unique.casefold())
        unique_names.append(unique)
    return unique_names


def _entry(key: str, value: Any, depth: int) -> ManifestField:
    name = visible_text(key)
    if isinstance(value, list):
        if not any(isinstance(each, dict | list) for each in value):
            more = f" … ({len(value):,} in all)" if len(value) > MOST else ""
            return ManifestField(
                name, visible_text(", ".join(map(_text, value[:MOST])) or "(none)") + more
            )
        value = {str(place): each for place, each in enumerate(value, 1)}
    if not isinstance(value, dict):
        return ManifestField(name, visible_text(_text(value)))
    if not value:
        return ManifestField(name, "(none)")
    if depth == DEEPEST:
        return ManifestField(name, f"({len(value):,} values, in the manifest itself)")
    return ManifestField(name, "", manifest_entries(value, depth + 1), max(len(value) - MOST, 0))


def _text(value: Any) -> str:
    """A text, number, true, false or null."""
    if isinstance(value, str):
        return value or "(empty)"
    return orjson.dumps(value).decode()
