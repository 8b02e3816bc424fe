"""Files of JSON and of JSON lines, opened and parsed within bounds.

Parsed with orjson, which refuses what the standard library's json lets pass and a benchmark must
not hold: NaN and Infinity, bytes that are not UTF-8, lone surrogates (no tokenizer could encode
them), a byte order mark; and it ends a nesting bomb with an error instead of a RecursionError. Of a
key that stands twice in one object both keep the last; that is the one laxity left.
"""

import hashlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import Any

import orjson

from eval.data.records import Record, describe
from eval.errors import DataError

MAX_FILE_BYTES = 4_000_000_000  # far more than any benchmark's file
MAX_LINE_BYTES = 64_000_000


def read_json(path: Path) -> Record:
    """The object that a JSON file holds."""
    return Record(_parse_file(path), str(path))


def read_list(path: Path) -> Iterator[Record]:
    """The objects of a JSON file that is one list, in order."""
    rows = _parse_file(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list expected, {describe(rows)} found")
    for number, row in enumerate(rows):
        yield Record(row, f"[{number}] of {path}")


def read_jsonl(path: Path) -> Iterator[Record]:
    """The objects of a file of JSON lines, one at a time; empty lines are passed over."""
    with _open(path) as file:
        for number, line in enumerate(_lines(file, path), 1):
            if line.strip():
                where = f"line {number} of {path}"
                yield Record(_parse(line, where), where)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read piece by piece."""
    with _open(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def is_list(path: Path) -> bool:
    """Whether a file's first character opens a JSON list; a file of JSON lines begins otherwise."""
    with _open(path) as file:
        for line in _lines(file, path):
            if line.strip():
                return line.lstrip().startswith(b"[")
    return False


def _open(path: Path) -> BufferedReader:
    """A regular file that is not absurdly large. Raises DataError for anything else."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise DataError(f"{path}: a file expected, a folder or a device found")
        if status.st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{path}: at most {MAX_FILE_BYTES:,} bytes expected, {status.st_size:,} found"
            )
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: a file expected, none found") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error


def _lines(file: BufferedReader, path: Path) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"line {number} of {path}: at most {MAX_LINE_BYTES:,} bytes expected")
        if not line:
            return
        yield line


def _parse_file(path: Path) -> Any:
    with _open(path) as file:
        try:
            content = file.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return _parse(content, str(path))


def _parse(content: bytes, where: str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        found = repr(content[max(0, error.pos - 20) : error.pos + 20])[1:]
        place = f"{where}, character {error.pos}"
        raise DataError(f"{place}: JSON expected, {found} found ({error.msg})") from None
