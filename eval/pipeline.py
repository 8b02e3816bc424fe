"""From a configuration to a finished run: check, ask what is missing, score, print."""

import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from rich.markup import escape

from eval import __version__, plugins
from eval.api import Nucleus
from eval.cli.console import err, print_summary, progress
from eval.cli.options import check_model
from eval.config import Config
from eval.data.declare import Corpus, Task
from eval.errors import RunError, UsageError
from eval.launch.coordinator import rounds
from eval.launch.plan import AT_ONCE, Plan
from eval.launch.process import meeting
from eval.launch.queue import Order, Report
from eval.launch.workers import Job, Launch, Team, gathered
from eval.run.check import check_data
from eval.run.files import MANIFEST
from eval.run.folder import RunFolder, held
from eval.run.journal import identity
from eval.run.requests import Identified
from eval.run.spec import Spec, describe_task
from eval.scoring.score import AsPublished, score_run
from eval.storage.reading import is_there

ENGINES = ("shared", "plain", "replay")  # each named as its back end
SHOWN = 5  # failed samples of a task that are named
PLACE = ("model", "revision", "weights")  # settings that say where a checkpoint lies
DEMO = "demo"  # the name of the bundled checkpoint, where a checkpoint is asked for
LIBRARIES = ("torch", "transformers", "tiktoken", "pillow", "numpy", "pycocoevalcap")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration is run, and how much of it.

    backend       its name; by default the shared engine, or the plain one where batches are asked
    engine        settings of the back end: what decides how fast it is, never what it answers
    launch        who answers
    retry_failed  ask samples again that have no answer, only the reason why
    verify        read checkpoint and images again, whatever is remembered of them
    as_published  reproduce the published procedure where it is known to be wrong
    order         of the questions, for who wants to know whether it matters
    """

    data: Path
    out: Path
    limit: int | None = None
    device: str = "auto"
    backend: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    launch: Launch = field(default_factory=Launch)
    retry_failed: bool = False
    verify: bool = False
    as_published: AsPublished | None = None
    order: Callable[[Iterable[Identified]], Iterable[Identified]] = iter


def evaluate(config: Config, tasks: Sequence[Task], place: Place) -> int:
    """Ask what the run lacks and score it; how many samples have no answer, which is said.

    Raises EvalError, before a model is loaded if it can.
    """
    folder = obtain(config, tasks, place)
    with held(place.out) if not _all_scored(folder, tasks, place) else nullcontext():
        summaries = [_scored(folder, task, place) for task in tasks]
    for summary in summaries:
        print_summary(summary)
    if waiting := [t.name for t in tasks if t.judged and not folder.scores(t.name).server()]:
        err.print(
            f"{', '.join(waiting)}: answered; a judge scores the answers: qwen-vl-eval judge "
            f"{escape(shlex.quote(str(place.out)))}",
            highlight=False,
            soft_wrap=True,
        )
    return _say_failed(folder, [task.name for task in tasks])


def obtain(config: Config, tasks: Sequence[Task], place: Place) -> RunFolder:
    """A run in which every sample of these tasks has its answer, or the reason why it has none.

    One whose predictions are all there, of this very checkpoint, is left as it is, and no model
    is loaded.
    """
    job = _job(config, place)
    _check_engine(place, job)
    asked: dict[str, Spec] = {}
    sizes: dict[str, int] = {}
    for task in tasks:  # all data are looked at before an hour is spent on the first task
        how = wanted(config, place, task)
        sizes[task.name], asked[task.name] = check_data(
            task, place.data, how, allow_partial=config.partial
        )
    entries = {task.name: describe_task(task, place.data, asked[task.name]) for task in tasks}
    folder = _finished(config, tasks, place, entries, asked, job)
    if folder is None:
        with held(place.out) as lock:
            folder = _answered(config, tasks, place, entries, asked, sizes, job, lock)
    return folder


def _answered(
    config: Config,
    tasks: Sequence[Task],
    place: Place,
    entries: dict[str, dict[str, Any]],
    asked: Mapping[str, Spec],
    sizes: Mapping[str, int],
    job: Job,
    lock: int,
) -> RunFolder:
    """The run, with an answer or the reason of a failure for every sample.

    lock  descriptor that keeps the run's folder
    """
    err.print(f"loading {escape(config.model)}", highlight=False)
    with gathered(job, place.launch, place.out, lock, meeting()) as team:
        folder = RunFolder.start(place.out, _manifest(config, place, job, team, entries))
        if place.device == "auto" and "device" in (model := folder.manifest["model"]):
            err.print(f"device: {escape(str(model['device']))}", highlight=False)
        if place.retry_failed:
            for task in tasks:
                if folder.answers(task.name).failed():
                    folder.answers(task.name).reopen()
        digests = folder.digests(verify=place.verify)
        for task in tasks:
            how = asked[task.name]
            if folder.answers(task.name).complete and not folder.answers(task.name).is_current(
                task, place.data, how, digests
            ):
                folder.answers(task.name).open(task, place.data, how)

        def write(number: int, careful: bool) -> Plan:
            pending = (
                request
                for task in tasks
                for request in folder.answers(task.name).pending(
                    task, place.data, asked[task.name], digests, config.batch_size
                )
            )
            file = folder.work_file(f"plan-{number}.sqlite")
            plan = Plan.write(
                file,
                place.order(pending),
                alone=careful and config.batch_size == 1,  # a batch is answered or fails as a whole
                most=max(AT_ONCE, config.batch_size),
            )
            for task in tasks:
                if task.name in plan.counts():
                    folder.answers(task.name).open(task, place.data, asked[task.name])
            digests.keep()
            return plan

        def work(plan: Plan, order: Order) -> bool:
            done = {name: sizes[name] - count for name, count in plan.counts().items()}
            with progress(done, sizes, team.reports) as show:
                return team.work(folder, plan, order, show)

        rounds(write, work, team.size)
        for task in tasks:
            folder.answers(task.name).finalize(task, place.data, asked[task.name], digests)
        _say_usage(team.reports.values())
    return folder


def _job(config: Config, place: Place) -> Job:
    """What workers open. Raises UsageError for a setting that the back end does not have."""
    name = place.backend or ("shared" if config.batch_size == 1 else "plain")
    known = signature(plugins.backend(name)).parameters.values()
    chosen = {"revision": config.revision, "weights": config.weights}
    given = {name: value for name, value in chosen.items() if value is not None}
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known):
        for setting in (*given, *place.engine):
            if setting not in {parameter.name for parameter in known}:
                raise UsageError(f"--{setting}: the back end {name!r} has no such setting")
    arguments = {
        "image_root": place.data,
        "device": place.device,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        **given,
        **place.engine,
    }
    if config.model != DEMO:
        check_model(config.model)
    checkpoint = str(bundled_checkpoint()) if config.model == DEMO else config.model
    return Job(name, checkpoint, arguments, in_turn=config.batch_size > 1)


def _say_usage(reports: Iterable[Report]) -> None:
    """What workers tell of their work."""
    told = [report for report in reports if report.answers]
    if not told:
        return
    count = sum(report.answered for report in told)
    parts = [f"{count:,} answers" + (f" by {len(told)} workers" if len(told) > 1 else "")]
    encoded = [report.images for report in told if report.images is not None]
    work = max(sum(report.work_s for report in told), 1e-9)
    if encoded:
        parts.append(f"{sum(encoded):,} images encoded")
    parts.append(f"{max(report.work_s for report in told):.1f} s")
    line = ", ".join(parts)
    if encoded:
        waited = sum(report.image_wait_s for report in told)
        line += f"; the model waited for image files in {waited / work:.1%} of the time"
    if len(told) > 1:
        idle = sum(report.queue_wait_s for report in told)
        line += f"; workers waited for each other in {idle / (work + idle):.1%}"
    err.print(line, highlight=False, soft_wrap=True)


def _say_failed(folder: RunFolder, tasks: Sequence[str]) -> int:
    """Name samples without an answer, and why; how many there are."""
    count = 0
    for task in tasks:
        failed = folder.answers(task).failed()
        count += len(failed)
        for number, (sample, reason) in enumerate(failed.items()):
            if number == SHOWN:
                err.print(f"... and {len(failed) - SHOWN:,} more of {task}", highlight=False)
                break
            err.print(f"failed: {escape(task)}/{escape(sample)}: {escape(reason)}", soft_wrap=True)
    return count


def _scored(folder: RunFolder, task: Task, place: Place) -> dict[str, Any]:
    """The task's summary, of this very way to score."""
    if _is_scored(folder, task, place):
        return asdict(folder.scores(task.name).summary())
    return score_run(folder, task, place.data, as_published=place.as_published)


def _is_scored(folder: RunFolder, task: Task, place: Place) -> bool:
    if not folder.scores(task.name).complete:
        return False
    found = folder.scores(task.name).summary().as_published
    how = place.as_published
    return (found and asdict(found)) == (how and asdict(how))


def _all_scored(folder: RunFolder, tasks: Sequence[Task], place: Place) -> bool:
    return all(_is_scored(folder, task, place) for task in tasks)


def wanted(config: Config, place: Place, task: Task) -> Spec:
    """How the configuration wants a task asked."""
    leaks = isinstance(next(iter(task.metrics.values())), Corpus)  # as published, captions alone
    samples = isinstance(task.decode, Nucleus) and not config.greedy
    return Spec(
        limit=place.limit,
        protocol=config.protocol,
        few_shot=config.few_shot,
        seed=config.seed if config.few_shot or samples else 0,
        greedy=config.greedy,
        leaking=bool(config.few_shot and place.as_published and leaks),
    )


def settings(config: Config, job: Job) -> dict[str, Any]:
    """What a manifest says of the configuration beyond its tasks."""
    return {
        "model": config.model,
        "revision": config.revision,
        "weights": config.weights,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "backend": job.backend,
    }


def _finished(
    config: Config,
    tasks: Sequence[Task],
    place: Place,
    entries: dict[str, dict[str, Any]],
    asked: Mapping[str, Spec],
    job: Job,
) -> RunFolder | None:
    """The run, if it answers all of these tasks, asked this way, by this very checkpoint."""
    try:
        folder = RunFolder.open(place.out)
    except RunError:
        return None  # none yet; what else lies there is found out when the run is started
    if not all(folder.answers(name).complete for name in entries):
        return None
    if place.retry_failed and any(folder.answers(name).failed() for name in entries):
        return None
    if _but_place(folder.manifest.get("settings", {})) != _but_place(settings(config, job)):
        return None
    folder.check_tasks(entries)
    opener, model = plugins.backend(job.backend), folder.manifest["model"]
    digest = plugins.identify(
        opener, job.checkpoint, config.revision, weights=config.weights, verify=place.verify
    )
    if not digest or digest != model.get("digest"):
        return None
    if plugins.generation(opener) != model.get("generation"):
        return None
    digests = folder.digests(verify=place.verify)
    current = (
        folder.answers(task.name).is_current(task, place.data, asked[task.name], digests)
        for task in tasks
    )
    return folder if all(current) else None


def _check_engine(place: Place, job: Job) -> None:
    """Raise RunError where a run in the folder was answered by another back end, in another version
    of it, or on another kind of device: all of that is known without loading a model.
    """
    if not is_there(place.out / MANIFEST, RunError):
        return
    folder = RunFolder.open(place.out)
    told, model = folder.manifest.get("settings", {}), folder.manifest["model"]
    opener = plugins.backend(job.backend)
    engine = model.get("engine")
    before = told.get("backend", engine if engine in ENGINES else None)
    found = {
        "model engine": (before, job.backend),
        "model device": (
            identity(model)["device"],
            plugins.device_kind(opener, place.device),
        ),
        "model generation": (model.get("generation"), plugins.generation(opener)),
    }
    folder.refuse(
        f"{name} ({was}, not {now})"
        for name, (was, now) in found.items()
        if None not in (was, now) and was != now
    )


def _but_place(told: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that two runs may not differ in, but for the back end, which is checked before.

    Where the checkpoint lies does not count: its content is compared.
    """
    return {name: value for name, value in told.items() if name not in (*PLACE, "backend")}


def _manifest(
    config: Config, place: Place, job: Job, team: Team, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    bundled = {"checkpoint": DEMO} if config.model == DEMO else {}
    return {
        "name": place.out.resolve().name,
        "model": {**team.about(), **bundled},
        "settings": settings(config, job),
        "tasks": entries,
        "workers": team.size,
        "data": str(place.data.resolve()),
        "command": shlex.join(["qwen-vl-eval", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "qwen-vl-eval": __version__,
            **{name: version(name) for name in LIBRARIES},
        },
    }


def bundled_checkpoint() -> Path:
    """The demo's checkpoint, where this package is installed."""
    import eval.demo

    return Path(eval.demo.__file__).parent / "checkpoint"
