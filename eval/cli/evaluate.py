"""From a configuration to a finished run: check, ask what is missing, score, print."""

import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from rich.markup import escape

from eval import registry
from eval.api import Backend, Corpus, Task
from eval.asked import Asked, check_data, describe_task
from eval.cli.config import Config
from eval.cli.console import err, out, progress
from eval.errors import RunError, UsageError
from eval.run import RunFolder
from eval.score import AsPublished, score_run

SHOWN = 5  # failed samples of a task that are named
DEMO = "demo"  # the name of the bundled checkpoint, where a checkpoint is asked for
LIBRARIES = ("torch", "transformers", "tiktoken", "pillow", "numpy", "pycocoevalcap")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration is run, and how much of it.

    backend       its name; by default the shared engine, or the plain one where batches are asked
    engine        settings of the back end: what decides how fast it is, never what it answers
    retry_failed  ask samples again that have no answer, only the reason why
    as_published  reproduce the published procedure where it is known to be wrong
    """

    data: Path
    out: Path
    limit: int | None = None
    device: str = "auto"
    backend: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    as_published: AsPublished | None = None


def evaluate(config: Config, tasks: Sequence[Task], place: Place) -> int:
    """Ask what the run lacks and score it; how many samples have no answer, which is said.

    A run whose predictions are all there, of this very checkpoint, loads no model. Raises
    EvalError, before a model is loaded if it can.
    """
    asked: dict[str, Asked] = {}
    sizes: dict[str, int] = {}
    for task in tasks:  # all data are looked at before an hour is spent on the first task
        how = wanted(config, place, task)
        sizes[task.name], asked[task.name] = check_data(
            task, place.data, how, allow_partial=config.partial
        )
    entries = {task.name: describe_task(task, place.data, asked[task.name]) for task in tasks}
    open_backend = _backend(config, place)
    checkpoint = str(bundled_checkpoint()) if config.model == DEMO else config.model
    folder = _finished(config, place, entries, open_backend, checkpoint)
    if folder is None:
        err.print(f"loading {escape(config.model)}", highlight=False)
        answerer = open_backend(
            checkpoint,
            image_root=place.data,
            device=place.device,
            dtype=config.dtype,
            batch_size=config.batch_size,
            **({"revision": config.revision} if config.revision else {}),
            **place.engine,
        )
        folder = RunFolder.start(place.out, _manifest(config, place, answerer, entries))
        if place.retry_failed:
            for task in tasks:
                if folder.failed(task.name):
                    folder.reopen(task.name)
        counts = {name: (len(folder.recorded(name)), sizes[name]) for name in sizes}
        with progress(counts) as count:
            for name, _ in folder.answer(tasks, place.data, asked, answerer):
                count(name)
        for task in tasks:
            folder.seal(task, place.data, asked[task.name])
        _say_usage(answerer)
    for task in tasks:
        summary = _scored(folder, task, place)
        out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)
    return _say_failed(folder, [task.name for task in tasks])


def _backend(config: Config, place: Place) -> Callable[..., Backend]:
    """What opens the back end. Raises UsageError for a setting that it does not have."""
    name = place.backend or ("shared" if config.batch_size == 1 else "plain")
    open_backend = registry.backend(name)
    known = signature(open_backend).parameters.values()
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known):
        for setting in place.engine:
            if setting not in {parameter.name for parameter in known}:
                raise UsageError(f"--{setting}: the back end {name!r} has no such setting")
    return open_backend


def _say_usage(answerer: Backend) -> None:
    """What an engine tells of its work, if it does: see eval.api.Backend."""
    usage = getattr(answerer, "usage", None)
    if usage and usage.answers:
        waited = usage.waited_s / max(usage.elapsed_s, 1e-9)
        err.print(
            f"{usage.answers:,} answers, {usage.images:,} images encoded, {usage.elapsed_s:.1f} s; "
            f"the model waited for image files in {waited:.1%} of the time",
            highlight=False,
            soft_wrap=True,
        )


def _say_failed(folder: RunFolder, tasks: Sequence[str]) -> int:
    """Name samples without an answer, and why; how many there are."""
    count = 0
    for task in tasks:
        failed = folder.failed(task)
        count += len(failed)
        for number, (sample, reason) in enumerate(failed.items()):
            if number == SHOWN:
                err.print(f"... and {len(failed) - SHOWN:,} more of {task}", highlight=False)
                break
            err.print(f"failed: {escape(task)}/{escape(sample)}: {escape(reason)}", soft_wrap=True)
    return count


def _scored(folder: RunFolder, task: Task, place: Place) -> dict[str, Any]:
    """The task's summary, of this very way to score."""
    if folder.scored(task.name):
        summary = folder.summary(task.name)
        how = asdict(place.as_published) if place.as_published else None
        if summary.get("as_published") == how:
            return summary
    return score_run(folder, task, place.data, as_published=place.as_published)


def wanted(config: Config, place: Place, task: Task) -> Asked:
    """How the configuration wants a task asked."""
    leaks = isinstance(next(iter(task.metrics.values())), Corpus)  # as published, captions alone
    return Asked(
        limit=place.limit,
        protocol=config.protocol,
        few_shot=config.few_shot,
        seed=config.seed if config.few_shot else 0,
        leaking=bool(config.few_shot and place.as_published and leaks),
    )


def settings(config: Config) -> dict[str, Any]:
    """What a manifest says of the configuration beyond its tasks."""
    return {
        "model": config.model,
        "revision": config.revision,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
    }


def _finished(
    config: Config,
    place: Place,
    entries: dict[str, dict[str, Any]],
    open_backend: Callable[..., Backend],
    checkpoint: str,
) -> RunFolder | None:
    """The run, if it answers all of these tasks, asked this way, by this very checkpoint."""
    try:
        folder = RunFolder.open(place.out)
    except RunError:
        return None  # none yet; what else lies there is found out when the run is started
    if not all(folder.sealed(name) for name in entries):
        return None
    if place.retry_failed and any(folder.failed(name) for name in entries):
        return None
    if folder.manifest.get("settings") != settings(config):
        return None
    folder.check_tasks(entries)
    digest = registry.identify(open_backend, checkpoint, config.revision)
    return folder if digest and digest == folder.manifest["model"].get("digest") else None


def _manifest(
    config: Config, place: Place, answerer: Backend, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    bundled = {"checkpoint": DEMO} if config.model == DEMO else {}
    names = ("qwen-vl-eval", *LIBRARIES)
    return {
        "name": place.out.resolve().name,
        "model": {**answerer.describe(), **bundled},
        "settings": settings(config),
        "tasks": entries,
        "data": str(place.data.resolve()),
        "command": shlex.join(["qwen-vl-eval", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
    }


def bundled_checkpoint() -> Path:
    """The demo's checkpoint, where this package is installed."""
    import eval.demo

    return Path(eval.demo.__file__).parent / "checkpoint"
