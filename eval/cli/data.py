"""The data commands: what the data are, getting them, looking whether they are right."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
)
from rich.progress import (
    Task as Bar,
)
from rich.table import Table
from rich.text import Text

from eval import plugins
from eval.cli.console import PLAIN_LINE_S, err, out
from eval.cli.options import folder_option
from eval.data.declare import Archive, Build, ByHand, Download, Mirror, Pictures, Task
from eval.data.prepare import PendingStep, Watch, plan_steps, prepare
from eval.data.verify import Findings, pin_sources, verify
from eval.errors import DataError, UsageError
from eval.storage.reading import exists, is_folder

INCOMPLETE = 3  # exit code
SMALL_GB = 0.1
KINDS: dict[type, str] = {Download: "files", Archive: "archives", Pictures: "pictures"}


class Amount(ProgressColumn):
    """Bytes as such, other things as a count."""

    def render(self, task: Bar) -> Text:
        """Such as 1.2/6.6 GB or 17/4500."""
        column = DownloadColumn() if task.fields["as_bytes"] else MofNCompleteColumn()
        return column.render(task)


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Names = Annotated[
    list[str],
    typer.Argument(metavar="TASK...", help="Task (okvqa_val), benchmark (refcoco) or 'all'."),
]
Data = Annotated[Path, typer.Option(help="Folder of the benchmarks' files.")]


@app.callback()
def options() -> None:
    """Get the benchmarks' data, and verify that they are the official ones."""


@app.command("list")
def list_data(
    data: Annotated[
        Path | None, typer.Option(help="Also tell which data lie complete in this folder.")
    ] = None,
) -> None:
    """Show what the data of each task are, and how they are got."""
    root = folder_option(data, "--data") if data else None
    offered = plugins.catalogue()
    names = ("samples", *(("found",) if root else ()), "fetched", "GB", "by hand", "mirror")
    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for column in names:
        table.add_column(column)
    for name, registered in offered.tasks.items():
        task = registered.task
        size = f"{task.size:,}" if task.size else "?"
        layouts = [layout.name for layout in task.layouts if root and layout.complete(root)]
        there = [", ".join(layouts) or "-"] if root else []
        kinds = dict.fromkeys(KINDS[type(step)] for step in task.steps if type(step) in KINDS)
        gb = sum(step.gb for step in task.steps if isinstance(step, Archive))
        has = ["yes" if _any(task, kind) else "-" for kind in (ByHand, Mirror)]
        size_gb = _gb(gb) if _any(task, Archive) else "-"
        table.add_row(*map(escape, (name, size, *there, ", ".join(kinds) or "-", size_gb, *has)))
    out.print(table)
    for broken in (*offered.clashes.values(), *offered.broken):
        print(f"warning: {broken}", file=sys.stderr)


@app.command("prepare")
def prepare_data(
    tasks: Names,
    data: Data,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Take datasets of the model hub where there are any.")
    ] = False,
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="Also the pictures of few-shot examples.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is there to be done.")
    ] = False,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Leave archives in DATA/archives.")
    ] = False,
) -> None:
    """Fetch what is missing of the tasks' data, and say what must be brought by hand."""
    chosen = plugins.find_tasks(tasks)
    if exists(data) and not is_folder(data):
        raise UsageError(f"--data {data}: this is a file; give a folder")
    needed = plan_steps(chosen, data, mirror=mirror, few_shot=few_shot)
    _print_plan(needed, data)
    if dry_run:
        raise typer.Exit(INCOMPLETE if needed else 0)
    with _watching() as watch:
        failed = prepare(
            chosen,
            data,
            mirror=mirror,
            few_shot=few_shot,
            keep_archives=keep_archives,
            watch=watch,
        )
    complete = _print_findings(chosen, data, quick=True)
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    remaining = plan_steps(chosen, data, mirror=mirror, few_shot=few_shot)
    left = [each for each in remaining if isinstance(each.step, ByHand)]
    for wanted in left:
        print(f"by hand: {_sentence(wanted)}", file=sys.stderr)
    if failed or left or not complete:
        print("incomplete; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(INCOMPLETE)


@app.command("verify")
def verify_data(
    tasks: Names,
    data: Data,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not open the pictures; look whether they exist.")
    ] = False,
    pin: Annotated[
        bool,
        typer.Option(
            "--pin", help="Pin the digests of files brought by hand, where a task has no fault."
        ),
    ] = False,
) -> None:
    """Tell whether the data are those that the card was measured on."""
    chosen = plugins.find_tasks(tasks)
    if not _print_findings(chosen, folder_option(data, "--data"), quick=quick, pin=pin):
        raise typer.Exit(INCOMPLETE)


def _print_findings(tasks: Sequence[Task], root: Path, *, quick: bool, pin: bool = False) -> bool:
    """Print a table, below it faults and notes; whether there were no faults."""
    table = Table(
        "task", "layout", "samples", "images", "answers", "state", box=None, pad_edge=False
    )
    faults: list[str] = []
    notes: list[str] = []
    with _watching() as watch:
        for task in tasks:

            def opened(done: int, total: int, name: str = f"{task.name}: pictures") -> None:
                watch.progress(name, done, total, False)

            ready = task.has_data(root)
            try:
                found = verify(task, root, open_pictures=not quick, digests=True, opened=opened)
            except DataError as error:
                table.add_row(task.name, "-", "-", "-", "-", "malformed" if ready else "missing")
                faults.append(f"{task.name}: {str(error).removeprefix(f'{task.name}: ')}")
                continue
            if pin and not found.issues and (count := pin_sources(task, root)):
                watch.say(f"{task.name}: {count:,} files pinned")
            table.add_row(*_row(task, found))
            faults += [f"{task.name}: {fault}" for fault in found.issues]
            notes += [f"note: {task.name}: {note}" for note in found.notes]
    out.print(table)
    for line in (*faults, *notes):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    return not faults


def _row(task: Task, found: Findings) -> tuple[str, ...]:
    count = len(found.issues)
    state = f"{count} fault{'s' if count > 1 else ''}" if count else "ok"
    counts = (f"{n:,}" for n in (found.samples, found.images, found.answers))
    return (task.name, found.layout, *counts, state)


def _print_plan(needed: Sequence[PendingStep], root: Path) -> None:
    if not needed:
        out.print(f"all is there below {root}", markup=False, highlight=False, soft_wrap=True)
        return
    for wanted in needed:
        verb = "by hand" if isinstance(wanted.step, ByHand) else "to fetch"
        if isinstance(wanted.step, Build):
            verb = "to make"
        line = f"{verb}: {_sentence(wanted)}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    sizes = {each.step.url: each.step.gb for each in needed if isinstance(each.step, Archive)}
    if sizes:
        total = f"archives in all: {_gb(sum(sizes.values()))} GB; below {root}"
        out.print(total, markup=False, highlight=False, soft_wrap=True)


def _sentence(wanted: PendingStep) -> str:
    """What a step gets, in one line, and for which tasks."""
    step, names = wanted.step, ", ".join(task.name for task in wanted.tasks)
    if isinstance(step, Download):
        text = f"{step.path} from {step.url}"
    elif isinstance(step, Archive):
        size = f" ({_gb(step.gb)} GB)" if step.gb else ""
        text = f"{step.url}{size}, unpacked in {step.into}"
    elif isinstance(step, Pictures):
        text = "pictures one by one"
    elif isinstance(step, Mirror):
        text = f"{step.into} from the hub dataset {' or '.join(step.repos)}"
    elif isinstance(step, ByHand):
        text = f"{step.what}; from {step.where}"
    else:
        text = step.what
    return f"{text}  [{names}]"


def _any(task: Task, kind: type) -> bool:
    return any(isinstance(step, kind) for step in task.steps)


def _gb(gb: float) -> str:
    return f"{gb:.1f}" if gb >= SMALL_GB else f"< {SMALL_GB}"


@contextmanager
def _watching() -> Iterator[Watch]:
    """Bars on a terminal, elsewhere a line every few seconds."""
    if not err.is_terminal:
        said: dict[str, float] = {}

        def line(name: str, done: int, total: int | None, as_bytes: bool) -> None:
            now = monotonic()
            if now - said.setdefault(name, now) >= PLAIN_LINE_S:
                said[name] = now
                unit, by = (" MB", 1_000_000) if as_bytes else ("", 1)
                whole = f"/{total // by:,}" if total is not None else ""
                print(f"{name} {done // by:,}{whole}{unit}", file=sys.stderr, flush=True)

        yield Watch(lambda text: print(text, file=sys.stderr, flush=True), line)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), Amount(), console=err) as drawn:
        bars: dict[str, TaskID] = {}

        def bar(name: str, done: int, total: int | None, as_bytes: bool) -> None:
            if name not in bars:
                bars[name] = drawn.add_task(escape(name), as_bytes=as_bytes)
            drawn.update(bars[name], completed=done, total=total)

        yield Watch(lambda text: drawn.print(text, markup=False, highlight=False), bar)
