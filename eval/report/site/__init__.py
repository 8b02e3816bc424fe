"""Runs and the card as a static site: a leaderboard that can be opened as a file, offline.

folders -> find_runs -> build_board, which ranks -> build_pages -> files
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from eval.errors import RunError
from eval.report.card import Card
from eval.report.folder import PagesFolder
from eval.report.site.board import build_board
from eval.report.site.pages import build_pages
from eval.report.site.runs import find_runs

FOLDER = PagesFolder("qwen-vl-eval leaderboard", "site.json", "an earlier leaderboard")
Skipped = Callable[[str, str], None]

__all__ = ["build_site"]


def build_site(
    folders: Sequence[Path], out: Path, card: Card, skipped: Skipped | None = None
) -> Path:
    """Write the site of these runs, or of the runs in these folders; its first page's path.

    The same runs give the same bytes. An earlier site is replaced as a whole.

    skipped  called with the path of everything in the folders that is not a run, and why

    Raises UsageError where `out` holds anything but an earlier site, and RunError, naming the file,
    for a damaged manifest or summary, and if there is no run or nothing can be written.
    """
    place = FOLDER.check(out)
    listing = find_runs(folders)
    for path, why in listing.skipped:
        if skipped:
            skipped(path, why)
    pages = build_pages(build_board(listing.runs, card), listing)
    try:
        with FOLDER.replacing(place) as beside:
            for path, content in pages:
                file = beside / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror}") from None
    return out / "index.html"
