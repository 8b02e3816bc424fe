"""Files that are written whole: a reader sees the old one or the new one, never a part."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from eval.errors import RunError

PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write beside the place, then move there: a reader sees the old file or the whole new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file as a whole."""
    with writing(path) as file:
        file.write(content)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON line a row, as rows come."""
    with writing(path) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
