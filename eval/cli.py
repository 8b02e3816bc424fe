"""The command line: arguments, progress, messages and exit codes. All else is elsewhere.

Exit codes: 0 complete; 1 a defect of ours (run with --debug for the traceback); 2 the user's input
is wrong; 130 and 143 interrupted, with everything obtained on disk.
"""

import logging
import platform
import shlex
import signal
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Task as Bar,
)
from rich.table import Table
from rich.text import Text

from eval import registry, report
from eval.api import Prediction
from eval.errors import EvalError, UsageError
from eval.run import RunFolder, check_data, describe_task, read_samples, write_rows
from eval.score import Scores, score_file, score_run

DEMO = "demo"  # the name of the bundled checkpoint, where a checkpoint is asked for
LIBRARIES = ("torch", "transformers", "tiktoken", "pillow", "numpy", "pycocoevalcap")
PLAIN_LINE_S = 10.0  # seconds between progress lines where the output is no terminal

app = typer.Typer(
    name="qwen-vl-eval",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Every command takes --debug, which shows the traceback of an error.",
)
out = Console()
err = Console(stderr=True)

Tasks = Annotated[
    list[str] | None,
    typer.Argument(help="Task (okvqa_val), benchmark (refcoco) or 'all'; see 'list'."),
]
Data = Annotated[Path, typer.Option("--data", help="Folder that holds the benchmarks' files.")]


class Stopped(BaseException):
    """A signal asked us to stop: SIGINT, SIGTERM. No handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwen-vl-eval {version('qwen-vl-eval')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print it and stop."
        ),
    ] = False,
) -> None:
    """Evaluate Qwen-VL and Qwen-VL-Chat checkpoints on the benchmarks of their model card."""


@app.command("list")
def list_tasks() -> None:
    """Show the tasks that can be run."""
    table = Table("task", "samples", "metric", "decoding", box=None, pad_edge=False)
    offered = registry.catalogue()
    for registered in offered.tasks.values():
        task = registered.task
        size = f"{task.size:,}" if task.size else "?"
        decode = (
            "likeliest option"
            if isinstance(task.decode, type)
            else f"greedy, {task.decode.min_new_tokens} to {task.decode.max_new_tokens} tokens"
        )
        table.add_row(task.name, size, ", ".join(task.metrics), decode)
    out.print(table)
    for broken in (*offered.clashes.values(), *offered.broken):
        print(f"warning: {broken}", file=sys.stderr)


@app.command()
def run(
    tasks: Tasks = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint folder, hub id, or 'demo' for the bundled one."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the benchmarks' files.")
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; a stopped run goes on.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N samples of each task.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or auto (the default).")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Prompts in a batch; the published commands used 8.")
    ] = 1,
    revision: Annotated[
        str | None, typer.Option(help="Revision of a hub id: a commit, to pin it.")
    ] = None,
    backend: Annotated[str, typer.Option(help="Back end that answers.")] = "plain",
    config: Annotated[
        Path | None, typer.Option(help="TOML file with model, revision, dtype, tasks.")
    ] = None,
) -> None:
    """Ask a checkpoint the questions of some tasks, score the answers, print the tables."""
    settings = _read_config(config) if config else {}
    model = model or settings.get("model")
    revision = revision or settings.get("revision")
    dtype = dtype or settings.get("dtype", "auto")
    names = list(tasks or settings.get("tasks", ()))
    for value, option in ((names, "TASK"), (model, "--model"), (data, "--data")):
        if not value:
            raise UsageError(f"{option}: missing; see 'qwen-vl-eval run --help'")
    if out_folder is None:
        raise UsageError("--out: missing; give a new folder for the run")
    chosen = registry.find_tasks(names)
    open_backend = registry.backend(backend)
    data = _folder(data, "--data")  # type: ignore[arg-type]  # checked above
    # all of the data are read and looked for before an hour is spent on the first task
    sizes = {task.name: check_data(task, data, limit) for task in chosen}
    asked = {task.name: describe_task(task, data, limit) for task in chosen}
    err.print(f"loading {escape(str(model))}", highlight=False)
    answerer = open_backend(
        str(_bundled_checkpoint()) if model == DEMO else model,
        image_root=data,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        **({"revision": revision} if revision else {}),
    )
    manifest = {
        "name": out_folder.resolve().name,
        "model": {**answerer.describe(), **({"checkpoint": DEMO} if model == DEMO else {})},
        "tasks": asked,
        "data": str(data.resolve()),
        "command": shlex.join(["qwen-vl-eval", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }
    folder = RunFolder.start(out_folder, manifest)
    with _progress() as bars:
        for task in chosen:
            total = sizes[task.name]
            done = len(folder.recorded(task.name))
            answers = folder.answer(task, read_samples(task, data, limit), answerer)
            for _ in bars(answers, task.name, done, total):
                pass
            folder.seal(task, read_samples(task, data, limit))
    for task in chosen:
        _print_signature(score_run(folder, task, data))
    _print_report([out_folder])
    err.print(
        f"run folder: {escape(str(out_folder))} (manifest.json; predictions.jsonl, scores.jsonl, "
        "summary.json for each task)",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def score(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a finished run.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="With --predictions: the task they answer.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="A result file of the published scripts (JSON or JSON lines)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files; default: the run's.")
    ] = None,
    per_sample: Annotated[
        Path | None, typer.Option(help="With --predictions: write each sample's value here.")
    ] = None,
) -> None:
    """Score a run again, or a result file of the published scripts. Needs no model."""
    if (run_folder is None) == (predictions is None):
        raise UsageError("score: either a RUN folder or --predictions FILE expected")
    if predictions is not None:
        if not task or not data:
            raise UsageError("score --predictions: --task and --data are needed too")
        (chosen, *others) = registry.find_tasks([task])
        if others:
            raise UsageError(f"--task {task}: one task expected, such as {chosen.name}")
        result = score_file(predictions, chosen, _folder(data, "--data"))
        if per_sample is not None:
            write_rows(per_sample, result.rows)
        _print_signature(result)
        return
    folder = RunFolder.open(run_folder)  # type: ignore[arg-type]  # checked above
    root = _folder(data or Path(str(folder.manifest.get("data", ""))), "--data")
    for chosen in registry.find_tasks(list(folder.tasks)):
        _print_signature(score_run(folder, chosen, root))


@app.command("report")
def print_report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs.")],
    row: Annotated[
        str | None, typer.Option(help="Model of the card to compare with, by its name there.")
    ] = None,
    all_tables: Annotated[
        bool, typer.Option("--all", help="Also the tables in which the runs have no figure.")
    ] = False,
    form: Annotated[str, typer.Option("--format", help="text or md.")] = "text",
) -> None:
    """Print the model card's tables with the runs' rows in place."""
    _print_report(runs, row=row, all_tables=all_tables, form=form)


@app.command("demo")
def run_demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path(
        "demo-run"
    ),
    data: Annotated[Path, typer.Option(help="Where the demo data are drawn.")] = Path("demo-data"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N samples of each task.")
    ] = None,
) -> None:
    """Draw the demo data, run every family on the bundled checkpoint, print the tables."""
    from eval.demo.data import write_demo_data

    err.print(f"drawing the demo data in {escape(str(data))}", highlight=False)
    write_demo_data(data)
    run(
        tasks=[task.name for task in registry.find_tasks(["all"]) if task.has_data(data)],
        model=DEMO,
        data=data,
        out_folder=out_folder,
        limit=limit,
        device="cpu",
        dtype="float32",
        batch_size=1,
        revision=None,
        backend="plain",
        config=None,
    )
    err.print(
        f"demo data: {escape(str(data))} (drawn scenes: no figure compares with the card's)",
        highlight=False,
    )


def _print_signature(scores: Scores) -> None:
    out.print(scores.summary["signature"], highlight=False, soft_wrap=True, markup=False)


def _print_report(
    runs: list[Path], row: str | None = None, all_tables: bool = False, form: str = "text"
) -> None:
    tables = report.build_tables(
        [report.load_run(run) for run in runs], report.load_card(), row=row, all_tables=all_tables
    )
    if form == "md":
        print(report.render_markdown(tables))
    elif form == "text":
        report.render_terminal(tables, out)
    else:
        raise UsageError(f"--format {form!r}: text or md expected")


def _demo_folder() -> Path:
    import eval.demo

    return Path(eval.demo.__file__).parent


def _bundled_checkpoint() -> Path:
    return _demo_folder() / "checkpoint"


def _folder(path: Path, option: str) -> Path:
    if not path.is_dir():
        raise UsageError(f"{option} {path}: no such folder")
    return path


def _read_config(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: {error}") from None
    kinds = {"model": str, "revision": str, "dtype": str, "tasks": list}
    for name, value in settings.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise UsageError(
                f"--config {path}: {name!r}: one of {', '.join(kinds)} expected, strings but for "
                "tasks, a list"
            )
    return settings


def _versions() -> dict[str, str]:
    names = ("qwen-vl-eval", *LIBRARIES)
    return {"python": platform.python_version()} | {name: version(name) for name in names}


class Rate(ProgressColumn):
    """Predictions a second."""

    def render(self, task: Bar) -> Text:
        """Such as 3.1/s."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="cyan")


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar a task on a terminal, and a plain line now and then elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    if err.is_terminal:
        with Progress(*columns, console=err) as progress:

            def bars(
                answers: Iterator[Prediction], name: str, done: int, total: int
            ) -> Iterator[Prediction]:
                bar = progress.add_task(name, completed=done, total=total)
                for answer in answers:
                    progress.advance(bar)
                    yield answer

            yield bars
    else:
        yield _plain_lines


def _plain_lines(
    answers: Iterator[Prediction], name: str, done: int, total: int
) -> Iterator[Prediction]:
    started = said = monotonic()
    for fresh, answer in enumerate(answers, 1):
        now = monotonic()
        if now - said >= PLAIN_LINE_S or done + fresh == total:
            said = now
            rate = fresh / max(now - started, 1e-9)
            left = (total - done - fresh) / rate
            print(
                f"{name} {done + fresh}/{total} {rate:.1f}/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
        yield answer


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def main() -> None:
    """Console script: run a command, turn errors into messages and exit codes."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app(arguments, prog_name="qwen-vl-eval")
    except EvalError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        again = shlex.join(["qwen-vl-eval", *sys.argv[1:]])
        print(
            f"\ninterrupted. All predictions obtained are on disk; to go on:\n  {again}",
            file=sys.stderr,
        )
        sys.exit(128 + stopped.number)
    except Exception as error:
        if debug:
            raise
        print(
            f"internal error: {type(error).__name__}: {error}\nThis is a defect of qwen-vl-eval; "
            "the same command with --debug shows where",
            file=sys.stderr,
        )
        sys.exit(1)
