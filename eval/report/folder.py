"""A folder of pages that is replaced as a whole; files of others are never removed."""

import contextlib
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from eval.errors import UsageError
from eval.storage.reading import exists, is_folder, parse_json, read_bytes
from eval.storage.writing import PRETTY, is_alive, remove_leftovers


@dataclass(frozen=True, slots=True)
class PagesFolder:
    """Folders of one command.

    maker    the command, which the listing names
    listing  file that names all others; only these are ever removed
    what     how an error calls an earlier one
    """

    maker: str
    listing: str
    what: str

    def check(self, out: Path) -> Path:
        """The folder's resolved path. Raises UsageError where it holds anything else."""
        place = Path(os.path.realpath(out))
        if not exists(place):
            return place
        if not is_folder(place):
            raise UsageError(f"--out {out}: this is a file; give a folder")
        if listed := self._listed(place):
            remove_leftovers(place, re.compile("|".join(re.escape(Path(f).name) for f in listed)))
        files = (file for file in place.rglob("*") if file.is_symlink() or not file.is_dir())
        names = {file.relative_to(place).as_posix() for file in files}
        if foreign := sorted(names - listed):
            raise UsageError(
                f"--out {out}: {foreign[0]!r:.80} in it is not of {self.what}. Give an empty or a "
                "new folder"
            )
        return place

    def claim(self, place: Path, names: Iterable[str]) -> None:
        """List files as ours beside earlier ones, before they are written. Raises OSError."""
        place.mkdir(parents=True, exist_ok=True)
        earlier = {name for name in self._listed(place) if (place / name).is_file()}
        (place / self.listing).write_bytes(self._listing({*earlier, *names} - {self.listing}))

    @contextlib.contextmanager
    def replacing(self, place: Path) -> Iterator[Path]:
        """A folder beside the place that replaces it when all is written. Raises OSError."""
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place)
        beside, earlier = (
            place.with_name(f".{place.name}.{os.getpid()}.{name}") for name in ("new", "old")
        )
        try:
            beside.mkdir()
            yield beside
            files = (file for file in beside.rglob("*") if file.is_file())
            names = {file.relative_to(beside).as_posix() for file in files}
            (beside / self.listing).write_bytes(self._listing(names))
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

    def _listing(self, files: set[str]) -> bytes:
        return orjson.dumps({"maker": self.maker, "files": sorted(files)}, option=PRETTY)

    def _listed(self, place: Path) -> set[str]:
        """The files that earlier calls wrote there; none if the listing is not ours."""
        try:
            listing = parse_json(read_bytes(place / self.listing, UsageError), "", UsageError)
        except UsageError:
            return set()
        if not isinstance(listing, dict) or listing.get("maker") != self.maker:
            return set()
        files = listing.get("files")
        return {self.listing, *map(str, files)} if isinstance(files, list) else set()


def _remove_leftovers(place: Path) -> None:
    """Remove the folders that ended processes left beside it."""
    for folder in place.parent.glob(f".{glob.escape(place.name)}.*"):
        match = re.fullmatch(
            r"([0-9]{1,9})\.(new|old)", folder.name.removeprefix(f".{place.name}.")
        )
        if match and not folder.is_symlink() and not is_alive(int(match[1])):
            shutil.rmtree(folder, ignore_errors=True)
