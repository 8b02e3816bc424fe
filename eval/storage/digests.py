"""sha256 of files, remembered while a file's size, times and inode stay the same.

The memory is a file of JSON lines that grows. Copying, overwriting or touching a file changes its
change time, which no program can set, so a replaced file is read again even if its name, size and
modification time are those of the old one.
"""

import contextlib
import hashlib
import os
import re
import stat
import threading
import time
from pathlib import Path

import orjson

from eval.errors import DataError, EvalError
from eval.storage.reading import MAX_FILE_BYTES, open_file, read_bytes, reason

MAX_MEMORY_BYTES = 1 << 30
SHA256 = re.compile("[0-9a-f]{64}")
SETTLED_NS = 2_000_000_000  # a younger change may be followed by another of the same time stamp


def sha256_file(
    path: Path, most: int = MAX_FILE_BYTES, *, error: type[EvalError] = DataError
) -> str:
    """Hexadecimal SHA-256 of a file of at most `most` bytes, read in pieces."""
    with open_file(path, error, most) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as refused:
            raise error(f"{path}: cannot be read: {reason(refused)}") from None


class Digests:
    """Digests of the files below one folder.

    memory  the file that remembers them; a memory that cannot be written is ignored
    verify  read every file again, and remember that
    """

    def __init__(self, memory: Path | None, *, verify: bool = False) -> None:
        self.memory = memory
        self.known: dict[str, tuple[list[int], str]] = {}
        self.fresh: list[bytes] = []
        self.lock = threading.Lock()
        if memory is not None and not verify:
            with contextlib.suppress(EvalError):
                for line in read_bytes(memory, EvalError, MAX_MEMORY_BYTES).splitlines():
                    with contextlib.suppress(ValueError, TypeError):  # torn by a crash
                        name, state, digest = orjson.loads(line)
                        if SHA256.fullmatch(digest):
                            self.known[str(name)] = (list(state), digest)

    def of(self, name: str, file: Path) -> str:
        """Hexadecimal sha256 of a file. Raises OSError if it cannot be read.

        name  its key in the memory
        """
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{file}: not a regular file")
        state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        remembered = self.known.get(name)
        if remembered and remembered[0] == state:
            return remembered[1]
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
            with self.lock:
                self.known[name] = (state, digest)
                self.fresh.append(orjson.dumps([name, state, digest]) + b"\n")
        return digest

    def keep(self) -> None:
        """Write new digests to the memory; on failure the files are read again next time."""
        with self.lock:
            lines, self.fresh = b"".join(self.fresh), []
        if not lines or self.memory is None:
            return
        with contextlib.suppress(OSError):
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            with open(self.memory, "ab", buffering=0, opener=_own) as file:
                if file.tell() and not _ends_whole(self.memory):
                    lines = b"\n" + lines
                file.write(lines)


def _own(path: str, flags: int) -> int:
    """Open a file of ours to append: not a link, nor a pipe, which would block."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path}: not a regular file")


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, os.SEEK_END)
        return content.read() == b"\n"
