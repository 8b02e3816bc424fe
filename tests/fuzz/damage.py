"""What is done to files: to their bytes, to the JSON in them, to the place where they lie.

Each function says whether the content still means the same (SAME), is no longer of its format
(BROKEN), or is of its format and may mean something else (OTHER). This follows from the formats'
definitions: of a JSON document in brackets no beginning is a document; a byte order mark, blanks
between tokens and escapes do not change what it says.
"""

import copy
import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

SAME, BROKEN, OTHER = "same", "broken", "other"
Damaged = tuple[str, bytes, str]  # what was done, what came of it, one of the words above
DEEP = 100_000


def truncated(content: bytes, rng: Random) -> Damaged:
    """A beginning without the last character that counts."""
    end = rng.randrange(1, len(content.rstrip()))
    return f"cut after {end} bytes", content[:end], BROKEN


def empty(_: bytes, __: Random) -> Damaged:
    return "empty", b"", BROKEN


def utf16(content: bytes, rng: Random) -> Damaged:
    kind = rng.choice(["utf-16", "utf-16-be", "utf-16-le"])
    return f"saved as {kind}", content.decode().encode(kind), BROKEN


def compressed(content: bytes, _: Random) -> Damaged:
    return "compressed with gzip", gzip.compress(content, mtime=0), BROKEN


def nul_bytes(content: bytes, rng: Random) -> Damaged:
    """As a file of a crashed machine: right length, no content."""
    begin = rng.choice([0, len(content) // 2])
    return f"zero bytes from {begin} on", content[:begin] + bytes(len(content) - begin), BROKEN


def not_utf8(content: bytes, rng: Random) -> Damaged:
    """A byte that UTF-8 has not, within a text."""
    at = _in_text(content, rng)
    bad = rng.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
    return f"bytes {bad!r} at {at}", content[:at] + bad + content[at:], BROKEN


def lone_surrogate(content: bytes, rng: Random) -> Damaged:
    """An escape that stands for half a character."""
    at = _in_text(content, rng)
    half = rng.choice([b"\\ud800", b"\\udfff", b"\\ud800x"])
    return f"half a surrogate pair at {at}", content[:at] + half + content[at:], BROKEN


def control_character(content: bytes, rng: Random) -> Damaged:
    at = _in_text(content, rng)
    return f"a raw control character at {at}", content[:at] + b"\x01" + content[at:], BROKEN


def no_number(content: bytes, rng: Random) -> Damaged:
    """What Python's own writer makes of a number that is none, and JSON does not have."""
    word = rng.choice([b"NaN", b"Infinity", b"-Infinity"])
    places = list(re.finditer(rb"(?<=[:\[,])\s*-?\d+(\.\d+)?(?=\s*[,\]}])", content))
    if not places:
        return "a last comma", content.rstrip()[:-1] + b",}", BROKEN
    place = rng.choice(places)
    changed = content[: place.start()] + word + content[place.end() :]
    return f"{word.decode()} at {place.start()}", changed, BROKEN


def nested(_: bytes, rng: Random) -> Damaged:
    begin = rng.choice([b"[", b'{"a":', b"[{}, ", b'{"a":['])
    end = rng.choice([b"", b"1"])
    return f"{DEEP} times {begin!r}", begin * DEEP + end, BROKEN


def nested_within(content: bytes, rng: Random) -> Damaged:
    """A document whose first value nests, and which would be whole."""
    deep = b"[" * DEEP + b"]" * DEEP
    at = content.index(b":") + 1
    return f"{DEEP} brackets within", content[:at] + deep + b", " + content[at:], BROKEN


def garbage(_: bytes, rng: Random) -> Damaged:
    size = rng.choice([1, 7, 300, 5000])
    return f"{size} random bytes", b"\xfe\x00" + rng.randbytes(size), BROKEN


def twice(content: bytes, _: Random) -> Damaged:
    return "the document twice", content + content, BROKEN


def python_literal(content: bytes, _: Random) -> Damaged:
    return "Python's repr", repr(json.loads(content)).encode() + b"'", BROKEN


def trailing_comma(content: bytes, _: Random) -> Damaged:
    stripped = content.rstrip()
    return "a comma before the end", stripped[:-1] + b"," + stripped[-1:], BROKEN


def comment(content: bytes, _: Random) -> Damaged:
    return "a comment before it", b"// as downloaded\n" + content, BROKEN


def bare(_: bytes, rng: Random) -> Damaged:
    """A document of another type."""
    value = rng.choice([b"null", b"true", b"5", b'"text"', b"1e999", b"9" * 400, b"-0"])
    return f"only {value[:20]!r}", value, BROKEN


def bom(content: bytes, _: Random) -> Damaged:
    return "a byte order mark before it", b"\xef\xbb\xbf" + content, SAME


def escaped(content: bytes, _: Random) -> Damaged:
    return "written with escapes", json.dumps(json.loads(content)).encode(), SAME


def indented(content: bytes, _: Random) -> Damaged:
    text = json.dumps(json.loads(content), indent=3, ensure_ascii=False)
    return "indented, lines that end as on Windows", text.replace("\n", "\r\n").encode(), SAME


def shuffled(content: bytes, rng: Random) -> Damaged:
    """The keys of all objects in another order, which JSON does not know."""

    def mix(value: Any) -> Any:
        if isinstance(value, dict):
            keys = list(value)
            rng.shuffle(keys)
            return {key: mix(value[key]) for key in keys}
        return [mix(each) for each in value] if isinstance(value, list) else value

    changed = json.dumps(mix(json.loads(content)), ensure_ascii=False)
    return "keys in another order", changed.encode(), SAME


def flipped(content: bytes, rng: Random) -> Damaged:
    """Some bits are others, as on a bad disk."""
    changed = bytearray(content)
    places = [rng.randrange(len(changed)) for _ in range(rng.choice([1, 1, 2, 8]))]
    for place in places:
        changed[place] ^= 1 << rng.randrange(8)
    return f"bits flipped at {places}", bytes(changed), OTHER


def spliced(content: bytes, rng: Random) -> Damaged:
    """A piece is missing, or stands twice."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    if rng.random() < 0.5:
        return f"without bytes {a} to {b}", content[:a] + content[b:], OTHER
    return f"bytes {a} to {b} twice", content[:b] + content[a:], OTHER


TO_JSON = (
    truncated, truncated, truncated, empty, utf16, compressed, nul_bytes, not_utf8, lone_surrogate,
    control_character, no_number, nested, nested_within, garbage, twice, trailing_comma, comment,
    bare, bom, bom, escaped, indented, shuffled, flipped, flipped, flipped, spliced,
)  # fmt: skip
TO_BYTES = (truncated, empty, nul_bytes, garbage, flipped, flipped, spliced, compressed)
SWAPS: tuple[Any, ...] = (
    None, True, 5, -1, 0, 1.5, 10**30, 1e308, "", "text", "\u0000", "٣", [], ["a"], [None], [[]],
    {}, {"a": 1}, [1, 2, 3], "x" * 5000, "../../etc/passwd",
)  # fmt: skip


def swapped(value: Any, rng: Random) -> Any:
    """A value of another type."""
    kinds = {type(value)} | ({int, float} if isinstance(value, int | float) else set())
    return copy.deepcopy(rng.choice([each for each in SWAPS if type(each) not in kinds]))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in a document."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, (*path, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a document with another value in one place."""
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = new
    return changed


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy of a document that lacks one value."""
    changed = copy.deepcopy(value)
    del at(changed, path[:-1])[path[-1]]
    return changed


# What lies in a file's place and is no file that can be read


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return "a named pipe"


def folder(path: Path) -> str:
    path.mkdir()
    return "a folder"


def device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "a link to /dev/zero"


def null_device(path: Path) -> str:
    path.symlink_to("/dev/null")
    return "a link to /dev/null"


def loop(path: Path) -> str:
    path.symlink_to(path.name)
    return "a link to itself"


def dangling(path: Path) -> str:
    path.symlink_to("nowhere")
    return "a link to nowhere"


def missing(_: Path) -> str:
    return "nothing"


def process_memory(path: Path) -> str:
    path.symlink_to("/proc/self/mem")
    return "a link to /proc/self/mem"


def sparse(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(10 << 30)
    return "10 GiB of nothing"


NO_FILES: tuple[Callable[[Path], str], ...] = (
    fifo, fifo, folder, device, null_device, loop, dangling, missing, process_memory, sparse,
)  # fmt: skip


def replace(path: Path, rng: Random, kinds: Any = NO_FILES) -> str:
    """Put something in a file's place that cannot be read as one; what it is."""
    path.unlink()
    made: str = rng.choice(kinds)(path)
    return f"{path.name}: {made}"


def _in_text(content: bytes, rng: Random) -> int:
    """A place just within a JSON text."""
    found = [m.start() + 1 for m in re.finditer(rb'"[A-Za-z]', content)]
    return rng.choice(found)
