"""Files of JSON and of JSON lines, read in pieces and within bounds.

eval.storage.reading opens and parses them, and documents what is refused.
"""

import re
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from eval.data.records import Record, describe
from eval.errors import DataError
from eval.storage import reading
from eval.storage.reading import MAX_FILE_BYTES

MAX_LINE_BYTES = 64_000_000
PIECE_BYTES = 200_000  # of a long list, parsed at a time: it fits a CPU cache
MAX_TRIES = 16  # places tried as start or end of a list before more is read
SPACE = rb"[ \t\n\r]*"
LIST = re.compile(SPACE + rb"\[")
FIRST_FIELD = re.compile(SPACE + rb'(\{[ \t\n\r]*"(?:[^"\\]|\\.)*")', re.DOTALL)
COMMA = re.compile(rb"," + SPACE + rb"\Z")


def read_json(path: Path, form: str = "") -> Record:
    """The object that a JSON file holds.

    form  how errors describe it: '{"data": [...]}'
    """
    value = _parse_file(path)
    if isinstance(value, list) and form:
        raise DataError(
            f"{path}: the file holds {describe(value)}; it must be the object {form}. If this is "
            "only the list inside it, put it back into its field"
        )
    return Record(value, str(path))


def read_records(path: Path, name: str) -> Iterator[Record]:
    """The objects of the list in a file's field `name`, as `read_json(path).records(name)` does.

    Read in pieces: memory does not grow with the list. Records before a damaged one are returned
    first. A second field `name` is an error.
    """

    def close(rest: bytes) -> list[Any]:
        free = "_" * len(rest)  # longer than the name of any field in the rest
        whole = b'{"%s":[%s' % (free.encode(), rest)
        tail = orjson.loads(whole)
        _check_keys(whole, path)
        if name in tail:
            raise DataError(f"{path}: field {name!r}: one expected, another found after its list")
        values: list[Any] = tail[free]
        return values

    with _open(path) as file:
        rest = _after_head(file, path, name)
        if rest is not None:
            for number, value in enumerate(_elements(file, path, rest, close)):
                yield Record(value, f"{name}[{number}] of {path}")
            return
    yield from read_json(path, f'{{"{name}": [...]}}').records(name)


def read_list(path: Path) -> Iterator[Record]:
    """The objects of a JSON file that is one list, in order; read in pieces like `read_records`."""

    def close(rest: bytes) -> list[Any]:
        values: list[Any] = orjson.loads(b"[" + rest)
        _check_keys(b"[" + rest, path)
        return values

    with _open(path) as file:
        start = _read(file, path, PIECE_BYTES)
        if head := LIST.match(start):
            for number, value in enumerate(_elements(file, path, start[head.end() :], close)):
                yield Record(value, f"[{number}] of {path}")
            return
    raise DataError(
        f"{path}: the file holds {describe(_parse_file(path))}; it must be one list of records, "
        "[{...}, {...}]"
    )


def read_jsonl(path: Path) -> Iterator[Record]:
    """The objects of a file of JSON lines, one at a time; empty lines are skipped."""
    with _open(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if not line.strip():
                continue
            where = f"line {number} of {path}"
            if line.lstrip().startswith(b"["):
                raise DataError(f"{where}: a list begins here; each line must be one object")
            yield Record(reading.parse_json(line, where, DataError), where)


def is_list(path: Path) -> bool:
    """Whether a file's first character opens a JSON list; a file of JSON lines does not."""
    with _open(path) as file:
        for line in _lines(file, path):
            if line.strip():
                return line.lstrip().startswith(b"[")
    return False


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """All of a file of at most so many bytes."""
    return reading.read_bytes(path, DataError, most)


def _open(path: Path) -> BufferedReader:
    return reading.open_text(path, DataError, MAX_FILE_BYTES)


def _lines(file: BufferedReader, path: Path) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {reading.reason(error)}") from error
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"line {number} of {path}: at most {MAX_LINE_BYTES:,} bytes expected")
        if not line:
            return
        yield line


def _after_head(file: BufferedReader, path: Path, name: str) -> bytes | None:
    """The bytes read after the `[` of a file's field `name`, or None without such a field.

    The file's beginning up to that bracket, closed by `]}`, is JSON only if the list is the value
    of a field of the outermost object.
    """
    opening = re.compile(rb'(?<!\\)"%s"%s:%s\[' % (re.escape(name.encode()), SPACE, SPACE))
    head = b""
    while more := _read(file, path, max(PIECE_BYTES, len(head))):
        head += more
        for match in islice(opening.finditer(head), MAX_TRIES):
            if _parses(head[: match.end()] + b"]}") is not None:
                return head[match.end() :]
    return None


def _elements(
    file: BufferedReader, path: Path, rest: bytes, close: Callable[[bytes], list[Any]]
) -> Iterator[Any]:
    """The elements of a list; `rest` is what was read after its `[`.

    close  the bytes up to the end of the file -> the last elements

    A piece ends at a comma before an object that begins with the same field as the piece. If the
    piece in brackets is JSON, all its strings and nested lists are closed and the list itself is
    not, so the comma separates two elements. Without such a comma the piece grows, at most to the
    whole file.
    """
    size = PIECE_BYTES
    while len(more := _read(file, path, size)) == size:
        rest += more
        size = len(rest)
        for comma in _commas(rest):
            piece = b"[%s]" % rest[:comma]
            values = _parses(piece)
            if values is not None:
                _check_keys(piece, path)
                yield from values
                rest = rest[comma + 1 :]
                size = PIECE_BYTES
                break
    try:
        values = close(rest + more)
    except orjson.JSONDecodeError:
        _parse_file(path)  # raises the error that names the place in the file
        raise DataError(f"{path}: was changed while it was read") from None
    yield from values


def _commas(piece: bytes) -> Iterator[int]:
    """Places where the piece may end, last first."""
    first = FIRST_FIELD.match(piece)
    if first is None:
        return
    place = len(piece)
    for _ in range(MAX_TRIES):
        place = piece.rfind(first[1], first.end(), place)
        if place < 0:
            return
        before = max(0, place - 1000)
        if comma := COMMA.search(piece[before:place]):
            yield before + comma.start()


def _read(file: BufferedReader, path: Path, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reading.reason(error)}") from error


def _parses(content: bytes) -> Any:
    """What the bytes hold, or None where they are not JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _check_keys(piece: bytes, path: Path) -> None:
    """Raise DataError, naming the place in the file, for a key that an object has twice."""
    if place := reading.repeated_key(piece):
        _parse_file(path)
        raise DataError(f"{path}: {place}")


def _parse_file(path: Path) -> Any:
    return reading.parse_json(read_bytes(path), str(path), DataError)
