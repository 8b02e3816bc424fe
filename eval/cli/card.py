"""A row of the card from one configuration: pending requests are answered, then tables printed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from eval import plugins
from eval.cli.console import err, out, say
from eval.cli.judge import Terminal
from eval.cli.options import (
    FeaturesOption,
    GpusOption,
    LauncherOption,
    LeaseOption,
    MemoryOption,
    RayAddressOption,
    RetryOption,
    VerifyOption,
    WeightsOption,
    engine_settings,
    folder_option,
    launch_options,
    new_folder,
)
from eval.cli.progress import REPORTING, print_evaluation
from eval.cli.report import print_report, say_where
from eval.config import Config, find_config, read_config
from eval.demo import DEMO
from eval.errors import UsageError
from eval.launch.coordinator import LEASE_S
from eval.pipeline import Place, evaluate
from eval.readiness import Readiness, readiness

INCOMPLETE = 3  # exit code
DEMO_DATA = Path("demo-data")


def data_folder(config: Config, data: Path | None) -> Path:
    """The data root; the demo's is drawn. Raises UsageError where none is given."""
    if config.model == DEMO:
        from eval.demo.stand_ins import draw_demo

        data = data or DEMO_DATA
        say(f"demo data in {data}")
        draw_demo(data)
    if data is None:
        raise UsageError("--data: missing; the folder of the benchmarks' files is needed")
    return data


def _run_row(config: Config, place: Place, *, dry_run: bool = False) -> None:
    """Run the configuration's tasks whose data are there; exit with 3 where some are missing."""
    place = replace(place, reporting=REPORTING)
    tasks = plugins.find_tasks(config.tasks)
    states = readiness(config, tasks, place)
    ready = [each.task for each in states if not each.problem]
    missing = [each.task.name for each in states if each.problem]
    if dry_run or missing:
        _print_states(states)
    if dry_run:
        raise typer.Exit(INCOMPLETE if missing else 0)
    complete = not missing
    if ready:
        evaluation = evaluate(config, ready, place)
        print_evaluation(evaluation)
        complete = complete and evaluation.complete
        if config.model == DEMO:
            from eval.demo.stand_ins import judge_by_rules, submit_to_stand_ins

            submit_to_stand_ins(evaluation.run, ready, place.data)
            judge_by_rules(evaluation.run, ready, place.data, Terminal())
        print_report([place.out], all_tables=not missing and len(tasks) > 1)
        say_where(place.out)
    if config.model == DEMO:
        err.print(
            f"demo data: {escape(str(place.data))} (drawn scenes: no figure compares with the "
            "card's)",
            highlight=False,
        )
    if missing:
        say(
            f"incomplete: {', '.join(missing)} could not run. See: qwen-vl-eval data prepare, data "
            "verify"
        )
    if not complete:
        raise typer.Exit(INCOMPLETE)


def _print_states(states: Sequence[Readiness]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "samples", "state", "data"):
        table.add_column(
            name, no_wrap=name == "task", justify="right" if name == "samples" else "left"
        )
    for each in states:
        size = f"{each.samples:,}" if each.samples else "?"
        table.add_row(each.task.name, size, each.state, escape(each.problem) or "found")
    out.print(table)


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
        folder_option(data_folder(settings, data), "--data"),
        new_folder(folder),
        device=device,
        engine=engine_settings(memory, features),
        launch=launch_options(gpus, launcher, ray_address, lease),
        retry_failed=retry_failed,
        verify=verify,
    )
    _run_row(settings, place, dry_run=dry_run)


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
        folder_option(data_folder(config, data), "--data"),
        new_folder(out_folder),
        device="cpu",
        launch=launch_options(gpus, launcher, None, LEASE_S),
    )
    _run_row(config, place)
