"""Texts of strangers, made fit to be shown: nothing hidden, nothing endless, nothing that runs."""

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
class Entry:
    """A field of a manifest: a text, or fields of its own."""

    key: str
    text: str = ""
    entries: tuple["Entry", ...] = ()
    more: int = 0

    @property
    def folded(self) -> bool:
        """Whether there is too much to show it at once."""
        return len(self.entries) > FOLDED


def visible(text: str) -> str:
    """A text with codes in place of what is not printable, such as marks that turn its direction.

    Line ends stay; what is long is cut off, and it is said how long it was.
    """
    shown = "".join(
        char if char.isprintable() or char == "\n" else f"\\u{ord(char):04x}"
        for char in text[:LONGEST]
    )
    return shown if len(text) <= LONGEST else f"{shown} … ({len(text):,} characters in all)"


def entries(fields: Mapping[str, Any], depth: int = 1) -> tuple[Entry, ...]:
    """What a manifest says, in its own order."""
    return tuple(_entry(key, value, depth) for key, value in list(fields.items())[:MOST])


def script(name: str, value: Any) -> bytes:
    """A script that gives a value a global name: pages that are files may not fetch any data."""
    text = orjson.dumps(value).decode().translate(OPENING)
    return f"window.{name} = {text};\n".encode()


def file_names(names: Sequence[str]) -> list[str]:
    """A file's name for each of these: safe ones, and no two alike on any disk."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem = "-".join(SAFE.findall(name))[:80].strip(".-") or "run"
        unique, count = stem, 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}-{count}"
        taken.add(unique.casefold())
        found.append(unique)
    return found


def _entry(key: str, value: Any, depth: int) -> Entry:
    name = visible(key)
    if isinstance(value, list):
        if not any(isinstance(each, dict | list) for each in value):
            more = f" … ({len(value):,} in all)" if len(value) > MOST else ""
            return Entry(name, visible(", ".join(map(_text, value[:MOST])) or "(none)") + more)
        value = {str(place): each for place, each in enumerate(value, 1)}
    if not isinstance(value, dict):
        return Entry(name, visible(_text(value)))
    if not value:
        return Entry(name, "(none)")
    if depth == DEEPEST:
        return Entry(name, f"({len(value):,} values, in the manifest itself)")
    return Entry(name, "", entries(value, depth + 1), max(len(value) - MOST, 0))


def _text(value: Any) -> str:
    """A text, number, true, false or null."""
    if isinstance(value, str):
        return value or "(empty)"
    return orjson.dumps(value).decode()
