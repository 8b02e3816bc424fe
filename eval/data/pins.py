"""qwen-vl-eval.lock.json in the data root: digests that later fetches of a file must match.

Hardly any benchmark publishes digests. So the digest of a file is pinned when it was first received
whole and could be read.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import orjson

from eval.data.paths import safe_path
from eval.errors import DataError
from eval.storage.lock import locked
from eval.storage.reading import SHOWN, Schema
from eval.storage.writing import write_file

NAME = "qwen-vl-eval.lock.json"
GUARD = ".qwen-vl-eval.pin"  # locked while the lock file, which is replaced, changes
FORMAT = 1
SHA256 = "[0-9a-f]{64}"
COMMIT = "[0-9a-f]{40}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A file.

    url  its origin, or that of its archive; empty for a file that a person brought
    """

    sha256: str
    bytes: int
    url: str = ""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Members kept of an archive, below the folder `into`."""

    into: str
    keep: str
    members: int


@dataclass(frozen=True, slots=True)
class Archived:
    """An archive, which may be deleted since, and what was unpacked of it."""

    sha256: str
    bytes: int
    unpacked: tuple[Unpacked, ...]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A dataset of the model hub, at a commit."""

    repo: str
    revision: str


@dataclass(slots=True)
class Pins:
    """The pins of a data root.

    files     path below the root -> file
    archives  URL -> archive
    mirrors   folder below the root -> dataset
    """

    root: Path
    files: dict[str, Pinned] = field(default_factory=dict)
    archives: dict[str, Archived] = field(default_factory=dict)
    mirrors: dict[str, Mirrored] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> "Pins":
        """The pins, empty without a lock file. Raises DataError for a malformed one.

        Unknown fields are errors too: a misread pin would not be enforced.
        """
        path = root / NAME
        if not os.path.lexists(path):
            return cls(root)
        try:
            content = SCHEMA.read(path, DataError)
            content.check(str(path))
            return cls(root, content.files, content.archives, content.mirrors)
        except DataError as error:
            raise DataError(
                f"{error}. The lock file was edited or damaged: restore it from a copy, or delete "
                "it, and the next 'qwen-vl-eval data prepare' pins anew"
            ) from None

    def digest(self, path: str) -> str | None:
        """Hexadecimal SHA-256 that the file at a path below the root must have, or None."""
        return self.files[path].sha256 if path in self.files else None

    def pin(self, files: Mapping[str, Pinned]) -> None:
        """Add files. Raises DataError, changing nothing, if one has another pinned digest."""

        def change(pins: Pins) -> None:
            for path, file in files.items():
                _check_same(path, pins.files.get(path), file)
                pins.files.setdefault(path, file)

        self._change(change)

    def pin_archive(self, url: str, archive: Archived) -> None:
        """Add an archive, or more that was unpacked of it. Raises DataError as `pin` does."""

        def change(pins: Pins) -> None:
            known = pins.archives.get(url)
            _check_same(url, known, archive)
            fresh = {(one.into, one.keep): one for one in (known or archive).unpacked}
            fresh |= {(one.into, one.keep): one for one in archive.unpacked}
            pins.archives[url] = replace(archive, unpacked=tuple(fresh.values()))

        self._change(change)

    def pin_mirror(self, into: str, mirror: Mirrored) -> None:
        """Add a dataset. Raises DataError as `pin` does."""

        def change(pins: Pins) -> None:
            known = pins.mirrors.setdefault(into, mirror)
            if known != mirror:
                raise DataError(
                    f"{pins.root / into}: commit {known.revision} of {known.repo} is pinned in "
                    f"{NAME}, {mirror.revision} of {mirror.repo} found"
                )

        self._change(change)

    def _change(self, change: Callable[["Pins"], None]) -> None:
        """Apply a change to the current file: another process may have written it."""
        with locked(self.root / GUARD, error=DataError, wait=True):
            latest = Pins.read(self.root)
            change(latest)
            latest._write()
        self.files, self.archives, self.mirrors = latest.files, latest.archives, latest.mirrors

    def _write(self) -> None:
        values = {
            "format": FORMAT,
            "files": {path: asdict(file) for path, file in sorted(self.files.items())},
            "archives": {url: asdict(archive) for url, archive in sorted(self.archives.items())},
            "mirrors": {into: asdict(mirror) for into, mirror in sorted(self.mirrors.items())},
        }
        content = orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        write_file(self.root / NAME, content, error=DataError)


def _check_same(name: str, known: Pinned | Archived | None, file: Pinned | Archived) -> None:
    if known and known.sha256 != file.sha256:
        raise DataError(
            f"{name}: sha256 {known.sha256} is pinned in {NAME}, {file.sha256} found. If the "
            "file has changed for a reason, delete its entry there"
        )


@dataclass(frozen=True, slots=True)
class _Content:
    """What the lock file holds."""

    format: Literal[1]
    files: dict[str, Pinned]
    archives: dict[str, Archived]
    mirrors: dict[str, Mirrored]

    def check(self, where: str) -> None:
        """Raise DataError for a path that leaves the data root, or an invalid digest."""
        for path in (*self.files, *self.mirrors):
            safe_path(path, where)
        digests: Mapping[str, Pinned | Archived] = {**self.files, **self.archives}
        for name, pinned in digests.items():
            if not re.fullmatch(SHA256, pinned.sha256) or pinned.bytes < 0:
                raise DataError(f"{where}: {name[:SHOWN]!r} has no SHA-256 or no size")
        if any(part.members < 1 for each in self.archives.values() for part in each.unpacked):
            raise DataError(f"{where}: an archive of which nothing was unpacked")
        for name, mirror in self.mirrors.items():
            if not re.fullmatch(COMMIT, mirror.revision):
                raise DataError(f"{where}: {name[:SHOWN]!r} has no commit")


SCHEMA: Schema[_Content] = Schema(_Content, closed=True)
