"""The leaderboard's command: runs in, a site of files out."""

from pathlib import Path
from typing import Annotated

import typer

from eval.cli.console import err, out
from eval.report.card import load_card
from eval.report.site import build_site


def leaderboard_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders of runs, such as results, or runs."),
    ],
    out_folder: Annotated[
        Path,
        typer.Option("--out", help="Folder of the site; an earlier site in it is replaced."),
    ] = Path("leaderboard"),
) -> None:
    """Build a site of runs beside the card: ranks, charts, history, a page per run.

    Open its index.html: it needs no server and no network.
    """

    def skipped(path: str, why: str) -> None:
        err.print(f"skipped: {path}: {why}", highlight=False, soft_wrap=True, markup=False)

    page = build_site(folders, out_folder, load_card(), skipped)
    out.print(str(page), highlight=False, soft_wrap=True, markup=False)
