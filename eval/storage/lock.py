"""One process at a time: a lock that the system releases when its holder ends."""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

from eval.errors import EvalError, RunError
from eval.storage.reading import reason

ORPHANS_S = 10.0  # for the workers of a killed holder to end


class Locked(Exception):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(
    file: Path,
    *,
    error: type[EvalError] = RunError,
    wait: bool = False,
    waiting: Callable[[], None] | None = None,
) -> Iterator[int]:
    """Hold a lock file; its descriptor, with which processes that inherit it hold the lock too.

    wait     wait for the lock instead of raising Locked
    waiting  called once if another process holds the lock

    Raises Locked where another process holds it, `error` where the file cannot be written.
    """
    try:  # O_NONBLOCK: a pipe in its place must not wait for a reader
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(file, flags, 0o666)
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            os.close(lock)
            raise OSError(errno.EINVAL, "not a regular file")
    except OSError as refused:
        raise error(f"{file}: cannot be written: {reason(refused)}") from None
    try:
        try:
            _take(lock)
        except Locked:
            if not wait:
                raise
            if waiting:
                waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # it only tells others who we are
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int) -> None:
    """Take the lock. If its holder was killed, wait for its workers to notice."""
    until = monotonic() + ORPHANS_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode("utf-8", "replace").strip()
            if not _has_ended(holder) or monotonic() > until:
                raise Locked(holder) from None
            sleep(0.1)
        except OSError:
            return  # some cluster file systems have no locks: users must take turns


def _has_ended(holder: str) -> bool:
    """Whether the process that a lock names ran on this machine and has ended."""
    match = re.fullmatch(r"process ([0-9]+) on (.+)", holder)
    if not match or match[2] != socket.gethostname():
        return False
    try:
        os.kill(int(match[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False
