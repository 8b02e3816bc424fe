"""The report's command: runs in, the model card's tables out."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from eval import report
from eval.cli.console import err, out
from eval.errors import UsageError
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
    scores, model_card = [report.load_run(run) for run in runs], report.load_card()
    tables = report.build_tables(scores, model_card, row=row, all_tables=all_tables, by=by)
    if form == "text" and output is None:
        report.render_terminal(tables, out)
        return
    forms: dict[str, Callable[[], str]] = {
        "text": lambda: _plain(tables),
        "md": lambda: report.render_markdown(tables),
        "html": lambda: report.render_html(tables),
        "latex": lambda: report.render_latex(tables),
        "csv": lambda: report.render_csv(tables, model_card),
        "json": lambda: report.render_json(tables, model_card, scores),
    }
    content = forms[form]()
    if output is not None:
        write_file(output, content.encode())
        err.print(f"written: {output}", highlight=False, soft_wrap=True, markup=False)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):  # the same bytes as in a file, whatever the locale
        sys.stdout.reconfigure(encoding="utf-8", newline="")
    print(content, end="")


def _plain(tables: Sequence[report.Table]) -> str:
    """The tables as a terminal shows them, without colours."""
    file = io.StringIO()
    console = Console(file=file, width=out.width, force_terminal=False, color_system=None)
    report.render_terminal(tables, console)
    return file.getvalue()


def say_where(out_folder: Path) -> None:
    """Where a run's files lie, on standard error."""
    err.print(
        f"run folder: {escape(str(out_folder))} (manifest.json; predictions.jsonl, scores.jsonl, "
        "summary.json for each task)",
        highlight=False,
        soft_wrap=True,
    )
