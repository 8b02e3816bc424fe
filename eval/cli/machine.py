"""What a process needs of the machine and may not find: open streams, a home, a user's name."""

import contextlib
import io
import os
import pwd
import sys
import tempfile
from pathlib import Path

from eval.storage.reading import is_folder

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # where Python's getpass looks, then in passwd


def open_streams() -> None:
    """Have standard streams that take any text, also where they were closed or are not UTF-8."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file to be opened would be our standard output
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = (
        stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # for good
        for stream in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def settle_home() -> None:
    """Have a home and a user's name, as libraries want them for their caches.

    A container may run as a user who has neither, or whose home cannot be written. A folder for
    temporary files stands in for a home that does not exist; one that exists and is read only
    stays, since it may hold models and tokens.
    """
    if not any(os.environ.get(name) for name in NAMES):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ["USER"] = f"uid-{os.getuid()}"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # Path's raises where there is none
    if home.is_absolute() and is_folder(home) and os.access(home, os.W_OK | os.X_OK):
        return
    with contextlib.suppress(OSError):  # without a place for temporary files there is no remedy
        spare = _spare_home()
        if not (home.is_absolute() and is_folder(home)):
            os.environ["HOME"] = str(spare)
        os.environ.setdefault("MPLCONFIGDIR", str(spare / "matplotlib"))


def _spare_home() -> Path:
    """A folder that is this user's alone, the same each time where that is possible."""
    spare = Path(tempfile.gettempdir()) / f"qwen-vl-eval-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        spare.mkdir(mode=0o700)
    status = spare.lstat()
    if spare.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="qwen-vl-eval-"))  # somebody else's
    return spare
