"""The plots' command: runs in, pictures for papers and pull requests out."""

from pathlib import Path
from typing import Annotated

import typer

from eval.cli.console import err, out
from eval.errors import RunError
from eval.report.card import load_card
from eval.report.plots import FOLDER, FORMATS, build_plots
from eval.report.scores import load_run
from eval.storage.writing import write_file


def plot_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")],
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder of the pictures; earlier ones in it are replaced.")
    ] = Path("plots"),
    form: Annotated[str, typer.Option("--format", help="svg, png or pdf.")] = FORMATS[0],
    row: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The card's row to stand beside; default: its own."),
    ] = None,
) -> None:
    """Draw runs beside the card: a radar of families, intervals, and of two runs the flips."""
    place = FOLDER.check(out_folder)
    scores, card = [load_run(run) for run in runs], load_card()
    plots = build_plots(scores, card, row, form)
    try:
        FOLDER.claim(place, [f"{name}.{form}" for name in plots.pictures])
    except OSError as error:
        raise RunError(f"--out {out_folder}: cannot be written: {error.strerror}") from None
    for name, content in plots.pictures.items():
        file = out_folder / f"{name}.{form}"
        write_file(file, content)
        out.print(str(file), highlight=False, soft_wrap=True, markup=False)
    for name, why in plots.absent.items():
        err.print(f"not drawn: {name}: {why}", highlight=False, soft_wrap=True, markup=False)
