"""A row of the card from one configuration: what is missing is run, then the tables are printed."""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval import plugins, report
from eval.cli.console import err, out
from eval.cli.options import folder_option, new_folder
from eval.config import Config
from eval.data.declare import Build, Task
from eval.errors import DataError, RunError, UsageError
from eval.launch.workers import Launch
from eval.pipeline import DEMO, Place, evaluate, wanted
from eval.run.check import check_data
from eval.run.folder import RunFolder
from eval.scoring import submission
from eval.scoring.score import score_run
from eval.storage.reading import reason
from eval.storage.writing import write_file

DEMO_REQUESTS = 8  # to the demo's judge at a time
INCOMPLETE = 3  # exit code
DEMO_DATA = Path("demo-data")
FORMS = ("text", "md", "html", "latex", "csv", "json")  # of a report


def run_card(
    config: Config,
    data: Path | None,
    out_folder: Path,
    device: str,
    *,
    engine: Mapping[str, Any] | None = None,
    launch: Launch | None = None,
    retry_failed: bool = False,
    verify: bool = False,
    dry_run: bool = False,
) -> None:
    """Run the configuration's tasks whose data are there; exit with 3 where some are missing.

    engine, launch, retry_failed, verify  see Place
    """
    if config.model == DEMO:
        data = data or DEMO_DATA
        draw_demo(data)
    if data is None:
        raise UsageError("--data: missing; the folder of the benchmarks' files is needed")
    place = Place(
        folder_option(data, "--data"),
        new_folder(out_folder),
        device=device,
        engine=engine or {},
        launch=launch or Launch(),
        retry_failed=retry_failed,
        verify=verify,
    )
    tasks = plugins.find_tasks(config.tasks)
    table = Table(box=None, pad_edge=False)
    for name in ("task", "samples", "state", "data"):
        table.add_column(
            name, no_wrap=name == "task", justify="right" if name == "samples" else "left"
        )
    ready, lacking = [], []
    for task in tasks:
        try:
            count, _ = check_data(
                task, data, wanted(config, place, task), allow_partial=config.partial
            )
        except DataError as error:
            lacking.append(task)
            size = f"{task.size:,}" if task.size else "?"
            table.add_row(task.name, size, "cannot run", escape(_lacking(task, data, error)))
            continue
        ready.append(task)
        table.add_row(task.name, f"{count:,}", _state(out_folder, task, count), "found")
    if dry_run or lacking:
        out.print(table)
    if dry_run:
        raise typer.Exit(INCOMPLETE if lacking else 0)
    failed = 0
    if ready:
        failed = evaluate(config, ready, place)
        if config.model == DEMO:
            ask_demo_servers(ready, place)
            ask_demo_judge(ready, place)
        print_report([out_folder], all_tables=not lacking and len(tasks) > 1)
        say_where(out_folder)
    if config.model == DEMO:
        err.print(
            f"demo data: {escape(str(data))} (drawn scenes: no figure compares with the card's)",
            highlight=False,
        )
    if lacking:
        names = ", ".join(task.name for task in lacking)
        err.print(
            f"incomplete: {names} could not run. See: qwen-vl-eval data prepare, data verify",
            highlight=False,
            soft_wrap=True,
        )
    if lacking or failed:
        raise typer.Exit(INCOMPLETE)


def _lacking(task: Task, data: Path, error: DataError) -> str:
    """What is wrong with a task's data: the files of its first layout, or the first fault."""
    if task.has_data(data):
        lines = str(error).splitlines()
        return lines[min(1, len(lines) - 1)].strip()
    missing = [s.path for s in task.layouts[0].sources if not s.files(data)]
    return f"missing: {', '.join(missing)}"


def _state(out_folder: Path, task: Task, count: int) -> str:
    try:
        folder = RunFolder.open(out_folder)
    except RunError:
        return "to run"
    if folder.scores(task.name).complete:
        return "done"
    if folder.answers(task.name).complete:
        return "answered, to be scored"
    answered = len(folder.answers(task.name).recorded())
    return f"answered {answered:,} of {count:,}" if answered else "to run"


def draw_demo(data: Path) -> None:
    """Draw the demo's data where they are not there yet."""
    from eval.demo.data import write_demo_data

    err.print(f"demo data in {escape(str(data))}", highlight=False)
    try:
        write_demo_data(data)
        for one in plugins.tasks().values():
            for step in one.task.steps if not one.task.has_data(data) else ():
                if isinstance(step, Build):
                    step.make(data)
    except OSError as error:
        raise UsageError(f"--data {data}: cannot be written: {reason(error)}") from None


def ask_demo_servers(tasks: Sequence[Task], place: Place) -> None:
    """Submit what only a server scores to the demo's stand-ins, which know the drawn answers."""
    from eval.demo.server import score_submission

    folder = RunFolder.open(place.out)
    for task in tasks:
        if not (task.submission and task.submission.alone) or folder.scores(task.name).server():
            continue
        written = submission.submit(task, folder, place.data, None)
        metrics = score_submission(place.data, task.name, written)
        submission.record(task, folder, metrics, "the demo's stand-in", "", written)
        score_run(folder, task, place.data)


def ask_demo_judge(tasks: Sequence[Task], place: Place) -> None:
    """Have a judge of rules score what a judge scores: a server on loopback, while it is needed."""
    from eval.cli.judge import judge_run
    from eval.cli.judges import How
    from eval.demo.judge import MODEL, JudgeServer
    from touchstone.judge import Judge

    folder = RunFolder.open(place.out)
    judged = [task for task in tasks if task.judged and not folder.scores(task.name).server()]
    if not judged:
        return
    with JudgeServer() as server:
        how = How(
            Judge(MODEL, server.url),
            key="none",
            ledger=folder.work_file("judge-ledger.jsonl"),
            concurrency=DEMO_REQUESTS,
        )
        judge_run(folder, judged, place.data, how)


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
    figures, model_card = [report.load_run(run) for run in runs], report.load_card()
    tables = report.build_tables(figures, model_card, row=row, all_tables=all_tables, by=by)
    if form == "text" and output is None:
        report.render_terminal(tables, out)
        return
    forms: dict[str, Callable[[], str]] = {
        "text": lambda: _plain(tables),
        "md": lambda: report.render_markdown(tables),
        "html": lambda: report.render_html(tables),
        "latex": lambda: report.render_latex(tables),
        "csv": lambda: report.render_csv(tables, model_card),
        "json": lambda: report.render_json(tables, model_card, figures),
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
