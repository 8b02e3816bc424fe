"""The run's command: requests to a checkpoint, scores and tables out."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from eval import plugins
from eval.cli.card import INCOMPLETE
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
    as_published_option,
    engine_settings,
    folder_option,
    launch_options,
    new_folder,
)
from eval.cli.progress import REPORTING, print_evaluation
from eval.cli.report import print_report, say_where
from eval.config import Config, find_config, read_config
from eval.errors import UsageError
from eval.launch.coordinator import LEASE_S
from eval.pipeline import Place, evaluate


def run_tasks(
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
        as_published_option(as_published),
        reporting=REPORTING,
    )
    evaluation = evaluate(settings, plugins.find_tasks(settings.tasks), place)
    print_evaluation(evaluation)
    print_report([out_folder])
    say_where(out_folder)
    if not evaluation.complete:
        raise typer.Exit(INCOMPLETE)
