"""From a configuration to a finished run: check, ask what is missing, score, print."""

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.markup import escape

from eval import registry
from eval.api import Backend, Corpus, Task
from eval.asked import Asked, check_data, describe_task
from eval.cli.config import Config
from eval.cli.console import err, out, progress
from eval.errors import RunError
from eval.run import RunFolder
from eval.score import AsPublished, score_run

DEMO = "demo"  # the name of the bundled checkpoint, where a checkpoint is asked for
LIBRARIES = ("torch", "transformers", "tiktoken", "pillow", "numpy", "pycocoevalcap")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration is run, and how much of it.

    as_published  reproduce the published procedure where it is known to be wrong
    """

    data: Path
    out: Path
    limit: int | None = None
    device: str = "auto"
    backend: str = "plain"
    as_published: AsPublished | None = None


def evaluate(config: Config, tasks: Sequence[Task], place: Place) -> None:
    """Ask what the run lacks and score it. Raises EvalError before a model is loaded if it can.

    A run whose predictions are all there, of this very checkpoint, loads no model.
    """
    asked: dict[str, Asked] = {}
    sizes: dict[str, int] = {}
    for task in tasks:  # all data are looked at before an hour is spent on the first task
        how = wanted(config, place, task)
        sizes[task.name], asked[task.name] = check_data(
            task, place.data, how, allow_partial=config.partial
        )
    entries = {task.name: describe_task(task, place.data, asked[task.name]) for task in tasks}
    open_backend = registry.backend(place.backend)
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
        )
        folder = RunFolder.start(place.out, _manifest(config, place, answerer, entries))
        with progress() as bars:
            for task in tasks:
                done = len(folder.recorded(task.name))
                answers = folder.answer(task, place.data, asked[task.name], answerer)
                for _ in bars(answers, task.name, done, sizes[task.name]):
                    pass
                folder.seal(task, place.data, asked[task.name])
    for task in tasks:
        summary = _scored(folder, task, place)
        out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)


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
