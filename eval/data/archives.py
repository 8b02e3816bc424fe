"""Unpacks the members of an archive that a benchmark needs. The archive is not trusted.

A file appears in its place after all of it was read and its check sum matched. Only the requested
end of a member's path is used. Links and devices are never created.
"""

import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from eval.data.paths import path_tail, safe_path
from eval.errors import DataError

PIECE = 1 << 20  # bytes read at once
HEADER_BYTES = 1 << 20  # of a long name in a tar: more than any file system allows
HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that no benchmark's archive comes near.

    ratio       unpacked bytes per packed byte
    ratio_from  the ratio is checked above this many unpacked bytes
    """

    members: int = 2_000_000
    member_bytes: int = 4_000_000_000
    total_bytes: int = 400_000_000_000
    ratio: int = 200
    ratio_from: int = 50_000_000


LIMITS = Limits()


def unpack(
    archive: Path,
    into: Path,
    keep: str,
    *,
    limits: Limits = LIMITS,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[str]:
    """Unpack the members whose path ends like the pattern `keep`. Returns their paths below `into`.

    progress  called with (members kept, how many there are or None)

    Existing files are replaced. Raises DataError, naming archive and member, for one that is
    truncated, damaged, encrypted, too large, or leads out of `into`.
    """
    if archive.name.endswith(".zip"):
        members = _zip_members
    elif archive.name.endswith((".tar.gz", ".tgz")):
        members = _tar_members
    else:
        raise DataError(f"{archive}: an archive .zip or .tar.gz expected")
    kept: dict[str, None] = {}
    total = 0
    with _reading(archive):
        for member in members(archive, keep, limits):
            if member.path in kept:
                raise DataError(f"{archive}: two members that end in {member.path!r}")
            kept[member.path] = None
            total += member.size
            if member.size > limits.member_bytes or total > limits.total_bytes:
                raise DataError(
                    f"{archive}: member {member.path!r}: at most {limits.member_bytes:,} bytes, "
                    f"and {limits.total_bytes:,} in all, expected; {member.size:,} found"
                )
            _check_ratio(total, archive, limits)
            _write(member, into / member.path, archive)
            if progress:
                progress(len(kept), member.count)
    if not kept:
        raise DataError(f"{archive}: members that end like {keep} expected, none found")
    return list(kept)


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive that is kept.

    path   the end of its path, which is its place below `into`
    size   unpacked bytes, as the archive states them
    count  number of members to keep, if the archive lists them up front
    """

    path: str
    size: int
    open: Callable[[], IO[bytes] | None]
    count: int | None = None


def _zip_members(archive: Path, keep: str, limits: Limits) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        _check_count(len(members), archive, limits)
        kept = []
        for member in members:
            path = _kept_path(member.filename, keep, archive)
            if path is None or member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise DataError(f"{archive}: member {member.filename!r}: a link or a device")
            if member.flag_bits & 1:
                raise DataError(f"{archive}: member {member.filename!r} is encrypted")
            kept.append((path, member))
        for path, member in kept:

            def opened(member: zipfile.ZipInfo = member) -> IO[bytes]:
                return packed.open(member)

            yield Member(path, member.file_size, opened, len(kept))


class _TarHeader(tarfile.TarInfo):
    """A header with bounded data: tarfile reads a long name as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_TarHeader":
        header = super().frombuf(buf, encoding, errors)
        if header.type in HEADERS and header.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header


def _tar_members(archive: Path, keep: str, limits: Limits) -> Iterator[Member]:
    _check_gzip(archive, limits)
    with tarfile.open(archive, mode="r|gz", tarinfo=_TarHeader) as packed:
        for number, member in enumerate(packed, 1):
            _check_count(number, archive, limits)
            path = _kept_path(member.name, keep, archive)
            if path is None or member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise DataError(f"{archive}: member {member.name!r}: a link or a device")

            def opened(member: tarfile.TarInfo = member) -> IO[bytes] | None:
                return packed.extractfile(member)

            yield Member(path, member.size, opened)


def _check_gzip(archive: Path, limits: Limits) -> None:
    """Read the file to its end, where the check sum is."""
    total = 0
    with gzip.open(archive) as packed:
        while piece := packed.read(PIECE):
            total += len(piece)
            _check_ratio(total, archive, limits)


def _kept_path(name: str, keep: str, archive: Path) -> str | None:
    """The end of a member's path, or None if it is not kept.

    Hidden files are not kept: macOS packs a `._x` beside `x`. Raises DataError for a path that
    leads out of the archive.
    """
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        raise DataError(f"{archive}: member {name!r}: a path that leads out of the archive")
    tail = path_tail(name, keep)
    if not tail or any(part.startswith(".") for part in tail.split("/")):
        return None
    return safe_path(tail, f"{archive}, member")


def _check_count(count: int, archive: Path, limits: Limits) -> None:
    if count > limits.members:
        raise DataError(f"{archive}: at most {limits.members:,} members expected")


def _check_ratio(size: int, archive: Path, limits: Limits) -> None:
    """Check the total, not each member: members of a zip may share their packed bytes."""
    packed = archive.stat().st_size
    if size > limits.ratio_from and size > limits.ratio * packed:
        raise DataError(
            f"{archive}: {packed:,} bytes unpack to {size:,} and more, at most {limits.ratio} "
            "times as many expected: a decompression bomb?"
        )


def _write(member: Member, path: Path, archive: Path) -> None:
    source = member.open()
    if source is None:
        raise DataError(f"{archive}: member {member.path!r}: a file expected")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.unpacking")
    try:
        with source, beside.open("wb") as file:
            shutil.copyfileobj(source, file, PIECE)  # zipfile compares the check sum at the end
            written = file.tell()
        if written != member.size:
            raise DataError(
                f"{archive}: member {member.path!r}: {member.size:,} bytes expected, {written:,} "
                "found"
            )
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,  # zipfile, for an unknown compression
        RuntimeError,  # zipfile, for a password
        OSError,
        ValueError,  # an offset beyond the file, a name that no system takes
    ) as error:
        # damage has no error number, or that of a negative offset; a full disk has another
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(
            f"{archive}: a whole archive expected, a truncated or damaged one found ({error})"
        ) from error
