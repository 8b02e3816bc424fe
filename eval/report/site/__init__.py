"""Runs and the card as a static site: a leaderboard that opens from a file, without a network.

folders -> find_runs -> build_board, which ranks -> build_pages -> files
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import orjson

from eval.errors import RunError, UsageError
from eval.report.card import Card
from eval.report.site.board import build_board
from eval.report.site.pages import build_pages
from eval.report.site.runs import find_runs

LISTING = "site.json"  # names every file of a site, so that nothing else is ever removed
MAKER = "qwen-vl-eval leaderboard"
Skipped = Callable[[str, str], None]

__all__ = ["build_site"]


def build_site(
    folders: Sequence[Path], out: Path, card: Card, skipped: Skipped | None = None
) -> Path:
    """Write the site of these runs, or of the runs in these folders; its first page's path.

    The same runs give the same bytes. A site that is there already is replaced as a whole.

    skipped  is told what lies in the folders and is no run, and why

    Raises UsageError where `out` holds anything but an earlier site, and RunError, naming the file,
    for a damaged manifest or summary, and where no run is found or nothing can be written.
    """
    place = out.resolve()
    _check_out(place, out)
    found = find_runs(folders)
    for path, why in found.skipped:
        if skipped:
            skipped(path, why)
    pages = build_pages(build_board(found.runs, card), found)
    try:
        _write(place, pages)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from None
    return out / "index.html"


def _check_out(place: Path, out: Path) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise UsageError(f"--out {out}: a folder expected, a file found")
    there = {file.relative_to(place).as_posix() for file in place.rglob("*") if not file.is_dir()}
    if foreign := sorted(there - _listed(place)):
        raise UsageError(
            f"--out {out}: an empty folder or an earlier leaderboard expected, {foreign[0]!r:.80} "
            "found, which is not of one. Choose another folder"
        )


def _listed(place: Path) -> set[str]:
    """The files of the site that lies there; none if it is none of ours."""
    try:
        listing = orjson.loads((place / LISTING).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return set()
    if not isinstance(listing, dict) or listing.get("maker") != MAKER:
        return set()
    files = listing.get("files")
    return {LISTING, *map(str, files)} if isinstance(files, list) else set()


def _write(place: Path, pages: Iterable[tuple[str, bytes]]) -> None:
    """Write beside the place, then move there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside, earlier = (place.with_name(f".{place.name}.{os.getpid()}.{n}") for n in ("new", "old"))
    try:
        files = []
        for path, content in pages:
            file = beside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            files.append(path)
        listing = {"maker": MAKER, "files": sorted(files)}
        content = orjson.dumps(listing, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (beside / LISTING).write_bytes(content)
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
