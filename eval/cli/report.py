"""The report's command: runs in, the model card's tables out."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from eval.cli.console import err, out
from eval.errors import UsageError
from eval.report.card import load_card
from eval.report.forms.html import render_html
from eval.report.forms.latex import render_latex
from eval.report.forms.markdown import render_markdown
from eval.report.forms.records import render_csv, render_json
from eval.report.forms.terminal import render_terminal
from eval.report.scores import load_run
from eval.report.tables import Table, build_tables
from eval.storage.writing import write_file

FORMS = ("text", "md", "html", "latex", "csv", "json")


def print_report(
    runs: list[Path],
    row: str | None = None,
    all_tables: bool = False,
    by: bool = False,
    form: str = "text",
    output: Path | None = None,
) -> None:
    """The card's tables with the runs' rows in place, on standard output or in a file."""
    if form not in FORMS:
        raise UsageError(f"--format {form!r}: {', '.join(FORMS[:-1])} or {FORMS[-1]} expected")
    scores, model_card = [load_run(run) for run in runs], load_card()
    tables = build_tables(scores, model_card, row=row, all_tables=all_tables, by=by)
    if form == "text" and output is None:
        render_terminal(tables, out)
        return
    forms: dict[str, Callable[[], str]] = {
        "text": lambda: _plain(tables),
        "md": lambda: render_markdown(tables),
        "html": lambda: render_html(tables),
        "latex": lambda: render_latex(tables),
        "csv": lambda: render_csv(tables, model_card),
        "json": lambda: render_json(tables, model_card, scores),
    }
    content = forms[form]()
    if output is not None:
        write_file(output, content.encode())
        err.print(f"written: {output}", highlight=False, soft_wrap=True, markup=False)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):  # the same bytes as in a file, whatever the locale
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    print(content, end="")


def _plain(tables: Sequence[Table]) -> str:
    """The tables as a terminal shows them, without colours."""
    file = io.StringIO()
    console = Console(file=file, width=out.width, force_terminal=False, color_system=None)
    render_terminal(tables, console)
    return file.getvalue()


def say_where(out_folder: Path) -> None:
    """Where a run's files lie, on standard error."""
    err.print(
        f"run folder: {escape(str(out_folder))} (manifest.json; predictions.jsonl, scores.jsonl, "
        "summary.json for each task)",
        highlight=False,
        soft_wrap=True,
    )


def report_runs(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")],
    row: Annotated[
        str | None, typer.Option(help="Model of the card to compare with, by its name there.")
    ] = None,
    all_tables: Annotated[
        bool, typer.Option("--all", help="Also the tables in which the runs have no figure.")
    ] = False,
    by: Annotated[
        bool, typer.Option("--by", help="Also figures by kind of question, domain and so on.")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", help=f"{', '.join(FORMS[:-1])} or {FORMS[-1]}.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it there, not to standard output.")
    ] = None,
) -> None:
    """Print the model card's tables with the runs' rows in place."""
    print_report(runs, row=row, all_tables=all_tables, by=by, form=form, output=output)
