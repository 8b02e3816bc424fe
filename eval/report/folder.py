"""A folder of pages that is replaced as a whole, and never takes away what is not its own."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class PagesFolder:
    """Folders of one command.

    maker    the command, which the listing names
    listing  file that names all others, so that nothing else is ever removed
    what     how an error calls an earlier one
    """

    maker: str
    listing: str
    what: str

    def check(self, out: Path) -> Path:
        """The folder's resolved path. Raises UsageError where it holds anything else."""
        place = out.resolve()
        if not place.exists():
            return place
        if not place.is_dir():
            raise UsageError(f"--out {out}: a folder expected, a file found")
        found = (file for file in place.rglob("*") if not file.is_dir())
        there = {file.relative_to(place).as_posix() for file in found}
        if foreign := sorted(there - self._listed(place)):
            raise UsageError(
                f"--out {out}: an empty folder or {self.what} expected, {foreign[0]!r:.80} found, "
                "which is not of one. Choose another folder"
            )
        return place

    @contextlib.contextmanager
    def replacing(self, place: Path) -> Iterator[Path]:
        """A folder beside the place, which takes it when all is written. Raises OSError."""
        place.parent.mkdir(parents=True, exist_ok=True)
        beside, earlier = (
            place.with_name(f".{place.name}.{os.getpid()}.{name}") for name in ("new", "old")
        )
        try:
            beside.mkdir()
            yield beside
            found = (file for file in beside.rglob("*") if file.is_file())
            files = sorted(file.relative_to(beside).as_posix() for file in found)
            listing = orjson.dumps(
                {"maker": self.maker, "files": files},
                option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE,
            )
            (beside / self.listing).write_bytes(listing)
            if place.exists():
                place.rename(earlier)
            try:
                beside.rename(place)
            except OSError:
                with contextlib.suppress(OSError):
                    earlier.rename(place)
                raise
            shutil.rmtree(earlier, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _listed(self, place: Path) -> set[str]:
        """The files that an earlier call wrote there; none if it is none of ours."""
        try:
            listing = orjson.loads((place / self.listing).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return set()
        if not isinstance(listing, dict) or listing.get("maker") != self.maker:
            return set()
        files = listing.get("files")
        return {self.listing, *map(str, files)} if isinstance(files, list) else set()
