"""Files that are written whole or grow by whole lines, so readers never see a part."""

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

import orjson

from eval.errors import EvalError, RunError
from eval.storage.reading import reason, shown_path

PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
SYNC_S = 1.0
READER_S = 10.0  # wait for a pipe's reader
BESIDE = re.compile(r"\.(.+)\.([0-9]{1,9})")  # name and process of a temporary file
NAMES = re.compile(r"[^.].*\.(jsonl?|csv|tsv)")  # of files in a run's folder
LONGEST = 240  # bytes of a name that a temporary one repeats


@contextlib.contextmanager
def writing(
    path: Path, *, error: type[EvalError] = RunError, durable: bool = True
) -> Iterator[IO[bytes]]:
    """Write a temporary file, then rename it: a reader sees the old file or the whole new one.

    durable  wait for the disk, so that the file survives a power cut

    A link is followed. A pipe, a terminal, or another device that takes a stream is written in
    place, as is what this process's standard output leads to.
    """
    try:
        if (stream := _stream(path)) is not None:
            with os.fdopen(stream, "wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        with _beside(target, durable) as file:
            yield file
    except OSError as refused:
        raise error(f"{shown_path(path)}: cannot be written: {reason(refused)}") from None


@contextlib.contextmanager
def _beside(target: Path, durable: bool) -> Iterator[IO[bytes]]:
    name = os.fsencode(target.name)[:LONGEST].decode("utf-8", "ignore")
    beside = target.with_name(f".{name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            with contextlib.suppress(OSError):  # it tells others that its writer lives
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            beside.replace(target)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _stream(path: Path) -> int | None:
    """A descriptor for writing to a pipe, terminal or other stream, or None for a regular file.

    Raises OSError for a folder or a disk."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is not None and os.path.samestat(status, os.fstat(number)):
            stream.flush()
            return os.dup(number)
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if stat.S_ISBLK(status.st_mode):
        raise OSError(errno.EINVAL, "it is a disk")
    until = monotonic() + READER_S
    while True:
        try:
            stream = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if monotonic() > until:
                raise OSError(errno.ENXIO, "no process reads this pipe") from None
            sleep(0.05)  # its reader may be about to come
        else:
            os.set_blocking(stream, True)
            return stream


def remove_leftovers(folder: Path, names: re.Pattern[str] = NAMES) -> None:
    """Remove temporary files of ended processes in a folder and below.

    names  pattern of the files that they were writing; other files stay
    """
    for file in folder.glob("**/.*"):
        match = BESIDE.fullmatch(file.name)
        if not match or not names.fullmatch(match[1]) or file.is_symlink() or not file.is_file():
            continue
        if not is_alive(int(match[2])):
            with contextlib.suppress(OSError), file.open("rb") as content:
                fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while it is written
                file.unlink()


def is_alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def write_file(
    path: Path, content: bytes, *, error: type[EvalError] = RunError, durable: bool = True
) -> None:
    """Write a file as a whole; see `writing`."""
    with writing(path, error=error, durable=durable) as file:
        file.write(content)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON line a row, as rows come."""
    with writing(path) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


class Lines:
    """A file that is appended to, a line at a time.

    A line reaches the operating system when it is written; the disk is synced at most once a
    second. A torn last line, left by a crash or a full disk, is dropped when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.synced = monotonic()
        try:
            self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
            if not stat.S_ISREG(os.fstat(self.file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            self._drop_torn_line()
        except OSError as error:
            raise self._unwritable(error) from None

    def append(self, content: bytes) -> None:
        """Append a line. Raises RunError if the disk is full; the file stays readable."""
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
        """Sync to the disk, as another machine may read the file next, and close."""
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
            newline = os.pread(self.file, end - begin, begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        if end < size:
            os.ftruncate(self.file, end)

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path}: cannot be written: {error.strerror}. Every answer before is in it; make "
            "room, and the same command goes on"
        )
