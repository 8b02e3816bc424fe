"""The commands: arguments in, exit codes out; process.py says what the codes mean."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from eval import __version__, plugins, report
from eval.api import Nucleus
from eval.certify import certify
from eval.cli import card
from eval.cli import data as data_commands
from eval.cli.browse import browse_command
from eval.cli.certify import print_certificate
from eval.cli.compare import compare_command
from eval.cli.console import REPORTING, err, out, print_evaluation, print_summary
from eval.cli.judge import judge_command
from eval.cli.leaderboard import leaderboard_command
from eval.cli.options import (
    AsPublishedOption,
    FeaturesOption,
    GpusOption,
    LauncherOption,
    LeaseOption,
    MemoryOption,
    RayAddressOption,
    RetryOption,
    Tasks,
    VerifyOption,
    WeightsOption,
    check_values,
    engine_settings,
    folder_option,
    launch_options,
    new_folder,
    parse_as_published,
)
from eval.cli.plot import plot_command
from eval.cli.process import run_process
from eval.cli.report import FORMS, print_report, say_where
from eval.config import DTYPES, Config, find_config, read_config
from eval.data.declare import Task
from eval.demo import DEMO
from eval.errors import UsageError
from eval.launch.coordinator import LEASE_S
from eval.pipeline import Place, evaluate
from eval.protocols.qwen_vl import PUBLISHED
from eval.run.folder import RunFolder, held
from eval.scoring import submission
from eval.scoring.score import score_file, score_run
from eval.storage.digests import sha256_file
from eval.storage.writing import write_rows

app = typer.Typer(
    name="qwen-vl-eval",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Every command takes --debug, which shows the traceback of an error.",
)
app.add_typer(data_commands.app, name="data")
app.command("judge")(judge_command)
app.command("compare")(compare_command)
app.command("browse")(browse_command)
app.command("leaderboard")(leaderboard_command)
app.command("plot")(plot_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwen-vl-eval {__version__}")
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
    """Show the tasks that can be run, and which column of the card each fills."""
    offered = plugins.catalogue()
    columns = {
        t: column for column in report.card_columns(report.load_card()) for t in column.tasks
    }
    table = Table(box=None, pad_edge=False)
    for name in ("task", "samples", "card", "metric", "decoding"):
        table.add_column(name, no_wrap=name in ("task", "metric"), overflow="fold")
    for registered in offered.tasks.values():
        task = registered.task
        size = f"{task.size:,}" if task.size else "?"
        column = columns.get(task.name)
        server = " (server)" if task.submission and task.submission.alone else ""
        server = " (judge)" if task.judged else server
        decode = "likeliest option"
        if not isinstance(task.decode, type):
            how = f"top_p {task.decode.top_p:g}" if isinstance(task.decode, Nucleus) else "greedy"
            decode = f"{how}, {task.decode.min_new_tokens} to {task.decode.max_new_tokens}"
        label = column.column if column else "-"
        table.add_row(task.name, size, label, next(iter(task.metrics)) + server, decode)
    for name, column in columns.items():  # every column of the card, also one nobody serves
        if name not in offered.tasks:
            label = f"{column.table}: {column.column}"
            table.add_row(name, "", label, column.metric, "not offered by this version")
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
    protocol: Annotated[
        str | None, typer.Option(help="published (the default, as the card) or chatml.")
    ] = None,
    few_shot: Annotated[
        int | None, typer.Option(min=0, help="Training examples before each question.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of what is drawn: examples, sampled tokens; 0."),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the best token where a task samples.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16 or auto (the default).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Prompts in a batch; 1. The authors used 8.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Revision of a hub id: a commit, to pin it.")
    ] = None,
    weights: WeightsOption = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Back end that answers: shared (the default), plain, replay."),
    ] = None,
    memory: MemoryOption = None,
    features: FeaturesOption = None,
    retry_failed: RetryOption = False,
    gpus: GpusOption = None,
    launcher: LauncherOption = None,
    ray_address: RayAddressOption = None,
    lease: LeaseOption = LEASE_S,
    verify: VerifyOption = False,
    allow_partial: Annotated[
        bool,
        typer.Option(help="Take data that are not the official split's, and mark the figures."),
    ] = False,
    as_published: AsPublishedOption = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file, or the name of a file in configs/; options override it."),
    ] = None,
) -> None:
    """Ask a checkpoint the questions of some tasks, score the answers, print the tables."""
    base = read_config(find_config(config)) if config else Config(model or "", tuple(tasks or ()))
    if model:  # revision and weights of a configuration belong to its own model
        base = replace(base, revision=None, weights=None)
    given: dict[str, Any] = {
        "model": model,
        "tasks": tuple(tasks) if tasks else None,
        "revision": revision,
        "weights": weights,
        "dtype": dtype,
        "protocol": protocol,
        "few_shot": few_shot,
        "seed": seed,
        "batch_size": batch_size,
        "greedy": greedy or None,
        "partial": allow_partial or None,
    }
    settings = replace(base, **{key: value for key, value in given.items() if value is not None})
    for value, option in ((settings.tasks, "TASK"), (settings.model, "--model"), (data, "--data")):
        if not value:
            raise UsageError(f"{option}: missing; see 'qwen-vl-eval run --help'")
    if data is None or out_folder is None:
        raise UsageError("--out: missing; give a new folder for the run")
    place = Place(
        folder_option(data, "--data"),
        new_folder(out_folder),
        limit,
        device,
        backend,
        engine_settings(memory, features),
        launch_options(gpus, launcher, ray_address, lease),
        retry_failed,
        verify,
        parse_as_published(as_published),
        reporting=REPORTING,
    )
    evaluation = evaluate(settings, plugins.find_tasks(settings.tasks), place)
    print_evaluation(evaluation)
    print_report([out_folder])
    say_where(out_folder)
    if not evaluation.complete:
        raise typer.Exit(card.INCOMPLETE)


@app.command("certify")
def certify_tasks(
    tasks: Tasks = None,
    model: Annotated[
        str, typer.Option(help="Checkpoint folder, hub id, or 'demo' for the bundled one.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the benchmarks' files; the demo draws its own."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the runs and certificate.json.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N samples of each task.")] = 100,
    protocol: Annotated[str, typer.Option(help="published or chatml.")] = PUBLISHED,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    weights: WeightsOption = None,
) -> None:
    """Show that answers depend on no batch size, order, number of workers, or crash."""
    if not tasks or not model or out_folder is None:
        raise UsageError("TASK, --model and --out are needed; see 'qwen-vl-eval certify --help'")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    config = Config(
        model,
        tuple(tasks),
        revision=revision,
        weights=weights,
        dtype=dtype,
        protocol=protocol,
        partial=True,
    )
    place = Place(
        folder_option(card.data_folder(config, data), "--data"),
        new_folder(out_folder),
        limit,
        device,
        reporting=REPORTING,
    )
    certificate = certify(config, plugins.find_tasks(tasks), place)
    print_certificate(certificate)
    if not certificate.holds:
        raise typer.Exit(card.INCOMPLETE)


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
    as_published: AsPublishedOption = None,
) -> None:
    """Score a run again, or a result file of the published scripts. Needs no model."""
    if (run_folder is None) == (predictions is None):
        raise UsageError("score: either a RUN folder or --predictions FILE expected")
    if predictions is not None:
        if not task or not data:
            raise UsageError("score --predictions: --task and --data are needed too")
        (chosen, *others) = plugins.find_tasks([task])
        if others:
            raise UsageError(f"--task {task}: one task expected, such as {chosen.name}")
        result = score_file(
            predictions,
            chosen,
            folder_option(data, "--data"),
            as_published=parse_as_published(as_published),
        )
        if per_sample is not None:
            write_rows(per_sample, result.rows)
        print_summary(result.summary)
        return
    folder = RunFolder.open(run_folder)  # type: ignore[arg-type]  # checked above
    root = folder_option(data or Path(str(folder.manifest.get("data", ""))), "--data")
    how = parse_as_published(as_published)
    with held(folder.path):
        for chosen in plugins.find_tasks(list(folder.tasks)):
            print_summary(score_run(folder, chosen, root, as_published=how))


@app.command("submit")
def submit_task(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task that a server scores.")],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files; default: the run's.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="What to write; default: in the run's folder.")
    ] = None,
    scored: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="The server's score as in the card's tables (78.81; write 0.65% below 1).",
        ),
    ] = None,
    on: Annotated[str, typer.Option(help="With --scored: the day, such as 2026-01-31.")] = "",
) -> None:
    """Write the file that a benchmark's server takes, or with --scored put down what it gave."""
    (chosen, *others) = plugins.find_tasks([task])
    if others:
        raise UsageError(f"{task}: one task expected, such as {chosen.name}")
    folder = RunFolder.open(run_folder)
    root = folder_option(data or Path(str(folder.manifest.get("data", ""))), "--data")
    if scored is not None:
        record_figure(chosen, folder, root, submission.percentage(scored, chosen), on)
        return
    written = submission.submit(chosen, folder, root, file)
    assert chosen.submission is not None  # submit() refuses a task without
    if written.is_file():
        out.print(f"{written}  sha256 {sha256_file(written)}", highlight=False, soft_wrap=True)
    err.print(f"for {escape(chosen.submission.server)}", highlight=False)
    if faults := folder.manifest["tasks"][chosen.name].get("faults"):
        print(
            f"warning: the run's data are not the official split's ({'; '.join(faults)}): the "
            "server will refuse the file, or score it as something else",
            file=sys.stderr,
        )


def record_figure(task: Task, folder: RunFolder, data: Path, figure: float, day: str) -> None:
    """Put down a server's figure, given as tables show it, and score the task with it."""
    metric = next(iter(task.metrics))
    server = task.submission.server if task.submission else ""
    submission.record(task, folder, {metric: figure / 100}, server, day, None)
    print_summary(score_run(folder, task, data))


@app.command("report")
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


@app.command("card")
def run_card(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="TOML file, or the name of a file in configs/, such as qwen-vl."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the benchmarks' files; the demo draws its own."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of the run; runs/<config's name>.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another place of the checkpoint, such as a folder.")
    ] = None,
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    memory: MemoryOption = None,
    features: FeaturesOption = None,
    retry_failed: RetryOption = False,
    gpus: GpusOption = None,
    launcher: LauncherOption = None,
    ray_address: RayAddressOption = None,
    lease: LeaseOption = LEASE_S,
    verify: VerifyOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and which data are missing.")
    ] = False,
) -> None:
    """Run what is still missing of a row of the card, and print the card's tables."""
    config = find_config(config)
    settings = read_config(config)
    if model:  # revision and weights of a configuration belong to its own model
        settings = replace(settings, model=model, revision=None, weights=None)
    if weights:
        settings = replace(settings, weights=weights)
    folder = out_folder or Path("runs") / config.stem
    place = Place(
        folder_option(card.data_folder(settings, data), "--data"),
        new_folder(folder),
        device=device,
        engine=engine_settings(memory, features),
        launch=launch_options(gpus, launcher, ray_address, lease),
        retry_failed=retry_failed,
        verify=verify,
    )
    card.run_card(settings, place, dry_run=dry_run)


@app.command("demo")
def run_demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path(
        "demo-run"
    ),
    data: Annotated[Path, typer.Option(help="Where the demo data are drawn.")] = Path("demo-data"),
    gpus: GpusOption = None,
    launcher: LauncherOption = None,
) -> None:
    """Draw the demo data, run every benchmark on the bundled checkpoint, print the tables."""
    config = Config(DEMO, ("all", "touchstone_cn"), dtype="float32", partial=True)
    place = Place(
        folder_option(card.data_folder(config, data), "--data"),
        new_folder(out_folder),
        device="cpu",
        launch=launch_options(gpus, launcher, None, LEASE_S),
    )
    card.run_card(config, place)


def main() -> None:
    """Console script."""
    command = typer.main.get_command(app)
    check_values(command)
    run_process(lambda arguments: command(arguments, prog_name="qwen-vl-eval"))
