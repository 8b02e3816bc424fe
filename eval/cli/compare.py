"""The regression gate's command: two runs in, a verdict out."""

import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer

from eval.cli.console import err, out
from eval.errors import RunError, UsageError
from eval.report import gate as regression_gate
from eval.report.card import load_card
from eval.report.forms.verdict import (
    comparison_json,
    comparison_junit,
    comparison_markdown,
    render_comparison,
)
from eval.report.gate import MARGIN, cannot_compare, compare_runs
from eval.report.scores import load_run
from eval.storage.reading import is_folder
from eval.storage.writing import PRETTY, write_file


class Inconclusive(StrEnum):
    """How an inconclusive gate ends."""

    ERROR = regression_gate.ERROR
    FAIL = regression_gate.FAIL
    SKIP = regression_gate.SKIP


def compare_command(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Folder of the baseline run.")],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="Folder of the candidate run.")
    ],
    margin: Annotated[
        float, typer.Option(min=0, help="Points of a table that a benchmark may lose.")
    ] = MARGIN,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate",
            help="End with 0 for pass, 10 for regressed, 11 for inconclusive, 12 for invalid.",
        ),
    ] = False,
    inconclusive: Annotated[
        Inconclusive,
        typer.Option(
            help="How an inconclusive benchmark counts, in the gate's exit code and in JUnit XML: "
            "error (11), fail (10, a failure) or skip (0, a skipped test)."
        ),
    ] = Inconclusive.ERROR,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it for a pull request's comment.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as JUnit XML.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it, every flip too.")
    ] = None,
) -> None:
    """Tell whether a checkpoint got worse: two runs, paired by sample, clustered by image."""
    if not math.isfinite(margin):
        raise UsageError(f"--margin: a number of points expected, {margin} found")
    if base.resolve() == candidate.resolve():
        raise UsageError(f"{candidate}: BASE and CANDIDATE are the same run")
    for path in (base, candidate):
        if not is_folder(path):
            raise UsageError(f"{path}: no such folder")
    how = inconclusive.value
    try:
        first, second = (load_run(path, check=not gate) for path in (base, candidate))
        found = compare_runs(first, second, load_card(), margin, how)
    except RunError as error:
        if not gate:
            raise
        found = cannot_compare(base, candidate, margin, how, str(error))
    render_comparison(found, out)
    forms: dict[Path | None, Callable[[], bytes]] = {
        markdown: lambda: comparison_markdown(found).encode(),
        junit: lambda: comparison_junit(found),
        json: lambda: orjson.dumps(comparison_json(found), option=PRETTY),
    }
    for file, content in forms.items():
        if file is not None:
            write_file(file, content())
            err.print(f"written: {file}", highlight=False, soft_wrap=True, markup=False)
    if gate:
        raise typer.Exit(found.exit_code)
