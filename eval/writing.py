"""Files that are written whole, or grow by whole lines: a reader never sees a part."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import IO, Any

import orjson

from eval.errors import RunError

PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
SYNC_S = 1.0


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


class Lines:
    """A file that is appended to, a line at a time.

    A line is with the operating system once it is written, and on the disk a second later. A torn
    last line, left by a crash or a full disk, is no line, and is dropped when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.synced = monotonic()
        try:
            self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            self._drop_torn_line()
        except OSError as error:
            raise self._unwritable(error) from None

    def append(self, content: bytes) -> None:
        """Append a line. Raises RunError where the disk takes no more; the file stays readable."""
        begin = os.fstat(self.file).st_size
        try:
            written = os.write(self.file, content)
            if written < len(content):
                os.write(self.file, content[written:])  # says why not, or goes on
            if monotonic() - self.synced > SYNC_S:
                os.fsync(self.file)
                self.synced = monotonic()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file, begin)
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Bring all to the disk: another machine may read it next."""
        try:
            os.fsync(self.file)
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            os.close(self.file)

    def _drop_torn_line(self) -> None:
        size = end = os.fstat(self.file).st_size
        while end:
            begin = max(end - (1 << 16), 0)
            found = os.pread(self.file, end - begin, begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end < size:
            os.ftruncate(self.file, end)

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path}: cannot be written: {error.strerror}. Every answer before is in it; make "
            "room, and the same command goes on"
        )
