"""From a configuration to a finished run: check the data, answer pending requests, score."""

import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from errno import ENOENT, ENOTDIR
from importlib.metadata import version
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from eval import __version__, plugins
from eval.api import Nucleus
from eval.config import Config
from eval.data.declare import Corpus, Task
from eval.demo import DEMO, bundled_checkpoint
from eval.errors import RunError, UsageError
from eval.launch.coordinator import run_rounds
from eval.launch.plan import AT_ONCE, RoundPlan
from eval.launch.process import launch_meeting
from eval.launch.queue import Order, Report
from eval.launch.workers import Job, Launch, Workers, started_workers
from eval.run.check import check_data
from eval.run.files import MANIFEST
from eval.run.folder import RunFolder, held_run
from eval.run.journal import model_identity
from eval.run.requests import Identified
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import AsPublished, score_run
from eval.storage.reading import check_path, is_there

ENGINES = ("shared", "plain", "replay")  # each named as its back end
PLACE = ("model", "revision", "weights")  # settings that say where a checkpoint lies
LIBRARIES = ("torch", "transformers", "tiktoken", "pillow", "numpy", "pycocoevalcap")

Show = Callable[[Mapping[int, Report]], None]


@dataclass(frozen=True, slots=True)
class Reporting:
    """How a front end hears of a run's progress; by default it does not.

    say       called with a line for the user
    progress  (answers that are there, of each task; all of each task; the workers' reports so far)
              -> a context that gives a function, which is called with the reports again and again
    """

    say: Callable[[str], None] = lambda _line: None
    progress: Callable[
        [Mapping[str, int], Mapping[str, int], Mapping[int, Report]], AbstractContextManager[Show]
    ] = lambda _done, _totals, _before: nullcontext(lambda _reports: None)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration is run, and how much of it.

    backend       its name; by default the shared engine, or the plain one where batches are asked
    engine        settings of the back end: they decide how fast it is, never what it answers
    launch        which workers answer
    retry_failed  answer failed samples again
    verify        read checkpoint and images again, whatever is remembered of them
    as_published  reproduce the published procedure where it is known to be wrong
    order         of the requests, for who wants to know whether it matters
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
    reporting: Reporting = field(default_factory=Reporting)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished run.

    summaries  of the tasks, in their order
    failed     task -> id of a sample without an answer -> why
    unjudged   tasks whose answers a judge must score, and has not
    """

    run: RunFolder
    summaries: tuple[Mapping[str, Any], ...]
    failed: Mapping[str, Mapping[str, str]]
    unjudged: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every sample has an answer."""
        return not any(self.failed.values())


def evaluate(config: Config, tasks: Sequence[Task], place: Place) -> Evaluation:
    """Answer the pending requests of a run, and score it.

    Raises EvalError, before a model is loaded if it can.
    """
    run = obtain_answers(config, tasks, place)
    with held_run(place.out) if not _all_scored(run, tasks, place) else nullcontext():
        summaries = tuple(_scored(run, task, place) for task in tasks)
    return Evaluation(
        run,
        summaries,
        {task.name: run.answers(task.name).failed() for task in tasks},
        tuple(t.name for t in tasks if t.judged and not run.scores(t.name).server()),
    )


def obtain_answers(config: Config, tasks: Sequence[Task], place: Place) -> RunFolder:
    """A run in which every sample of these tasks has its answer, or the reason why it has none.

    One whose predictions are all there, of this very checkpoint, is left as it is, and no model
    is loaded.
    """
    job = _job(config, place)
    _check_engine(place, job)
    specs: dict[str, Spec] = {}
    sizes: dict[str, int] = {}
    for task in tasks:  # all data are looked at before an hour is spent on the first task
        sizes[task.name], specs[task.name] = check_data(
            task, place.data, specification(config, place, task), allow_partial=config.partial
        )
    entries = {task.name: spec_entry(task, place.data, specs[task.name]) for task in tasks}
    run = _finished(config, tasks, place, entries, specs, job)
    if run is None:
        with held_run(place.out) as lock:
            run = _answered(config, tasks, place, entries, specs, sizes, job, lock)
    return run


def specification(config: Config, place: Place, task: Task) -> Spec:
    """How the configuration has a task evaluated."""
    captions = isinstance(next(iter(task.metrics.values())), Corpus)
    samples = isinstance(task.decode, Nucleus) and not config.greedy
    return Spec(
        limit=place.limit,
        protocol=config.protocol,
        few_shot=config.few_shot,
        seed=config.seed if config.few_shot or samples else 0,
        greedy=config.greedy,
        # as published, captions alone
        leaking=bool(config.few_shot and place.as_published and captions),
    )


def _answered(
    config: Config,
    tasks: Sequence[Task],
    place: Place,
    entries: dict[str, dict[str, Any]],
    specs: Mapping[str, Spec],
    sizes: Mapping[str, int],
    job: Job,
    lock: int,
) -> RunFolder:
    """The run, with an answer or the reason of a failure for every sample.

    lock  descriptor that keeps the run's folder
    """
    say, progress = place.reporting.say, place.reporting.progress
    say(f"loading {config.model}")
    with started_workers(job, place.launch, place.out, lock, launch_meeting(), say) as workers:
        run = RunFolder.start(place.out, _manifest(config, place, job, workers, entries))
        if place.device == "auto" and "device" in (model := run.manifest["model"]):
            say(f"device: {model['device']}")
        if place.retry_failed:
            for task in tasks:
                if run.answers(task.name).failed():
                    run.answers(task.name).reopen()
        digests = run.digests(verify=place.verify)
        for task in tasks:
            answers, spec = run.answers(task.name), specs[task.name]
            if answers.complete and not answers.is_current(task, place.data, spec, digests):
                answers.open(task, place.data, spec)

        def write(number: int, isolated: bool) -> RoundPlan:
            pending = (
                request
                for task in tasks
                for request in run.answers(task.name).pending(
                    task, place.data, specs[task.name], digests, config.batch_size
                )
            )
            plan = RoundPlan.write(
                run.work_file(f"plan-{number}.sqlite"),
                place.order(pending),
                alone=isolated and config.batch_size == 1,  # a batch fails as a whole
                most=max(AT_ONCE, config.batch_size),
            )
            for task in tasks:
                if task.name in plan.counts():
                    run.answers(task.name).open(task, place.data, specs[task.name])
            digests.keep()
            return plan

        def work(plan: RoundPlan, order: Order) -> bool:
            done = {name: sizes[name] - count for name, count in plan.counts().items()}
            with progress(done, sizes, workers.reports) as show:
                return workers.work(run, plan, order, show)

        run_rounds(write, work, workers.size)
        for task in tasks:
            run.answers(task.name).finalize(task, place.data, specs[task.name], digests)
        if usage := _usage(workers.reports.values()):
            say(usage)
    return run


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
        folder = Path(os.path.expanduser(config.model))  # noqa: PTH111  # Path's needs a home
        check_path("--model", folder, passed=(ENOENT, ENOTDIR))  # it may be a hub id
    checkpoint = str(bundled_checkpoint()) if config.model == DEMO else config.model
    return Job(name, checkpoint, arguments, in_turn=config.batch_size > 1)


def _usage(reports: Iterable[Report]) -> str:
    """What workers tell of their work, or nothing where they did none."""
    worked = [report for report in reports if report.answers]
    if not worked:
        return ""
    count = sum(report.answered for report in worked)
    parts = [f"{count:,} answers" + (f" by {len(worked)} workers" if len(worked) > 1 else "")]
    encoded = [report.images for report in worked if report.images is not None]
    work = max(sum(report.work_s for report in worked), 1e-9)
    if encoded:
        parts.append(f"{sum(encoded):,} images encoded")
    parts.append(f"{max(report.work_s for report in worked):.1f} s")
    line = ", ".join(parts)
    if encoded:
        waited = sum(report.image_wait_s for report in worked)
        line += f"; the model waited for image files in {waited / work:.1%} of the time"
    if len(worked) > 1:
        idle = sum(report.queue_wait_s for report in worked)
        line += f"; workers waited for each other in {idle / (work + idle):.1%}"
    return line


def _scored(run: RunFolder, task: Task, place: Place) -> dict[str, Any]:
    """The task's summary, of this very way to score."""
    if _is_scored(run, task, place):
        return asdict(run.scores(task.name).summary())
    return score_run(run, task, place.data, as_published=place.as_published)


def _is_scored(run: RunFolder, task: Task, place: Place) -> bool:
    if not run.scores(task.name).complete:
        return False
    before = run.scores(task.name).summary().as_published
    now = place.as_published
    return (before and asdict(before)) == (now and asdict(now))


def _all_scored(run: RunFolder, tasks: Sequence[Task], place: Place) -> bool:
    return all(_is_scored(run, task, place) for task in tasks)


def _settings(config: Config, job: Job) -> dict[str, Any]:
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
    specs: Mapping[str, Spec],
    job: Job,
) -> RunFolder | None:
    """The run, if it answers all of these tasks by these specifications and this checkpoint."""
    try:
        run = RunFolder.open(place.out)
    except RunError:
        return None  # none yet; what else lies there is found out when the run is started
    answers = {name: run.answers(name) for name in entries}
    if not all(each.complete for each in answers.values()):
        return None
    if place.retry_failed and any(each.failed() for each in answers.values()):
        return None
    if _but_place(run.manifest.get("settings", {})) != _but_place(_settings(config, job)):
        return None
    run.check_tasks(entries)
    opener, model = plugins.backend(job.backend), run.manifest["model"]
    digest = plugins.identify(
        opener, job.checkpoint, config.revision, weights=config.weights, verify=place.verify
    )
    if not digest or digest != model.get("digest"):
        return None
    if plugins.generation(opener) != model.get("generation"):
        return None
    digests = run.digests(verify=place.verify)
    current = (
        answers[task.name].is_current(task, place.data, specs[task.name], digests) for task in tasks
    )
    return run if all(current) else None


def _check_engine(place: Place, job: Job) -> None:
    """Raise RunError where a run in the folder was answered by another back end, in another version
    of it, or on another kind of device: all of that is known without loading a model.
    """
    if not is_there(place.out / MANIFEST, RunError):
        return
    run = RunFolder.open(place.out)
    settings, model = run.manifest.get("settings", {}), run.manifest["model"]
    opener = plugins.backend(job.backend)
    engine = model.get("engine")
    before = settings.get("backend", engine if engine in ENGINES else None)
    compared = {
        "model engine": (before, job.backend),
        "model device": (
            model_identity(model)["device"],
            plugins.device_kind(opener, place.device),
        ),
        "model generation": (model.get("generation"), plugins.generation(opener)),
    }
    run.refuse(
        f"{name} ({was}, not {now})"
        for name, (was, now) in compared.items()
        if None not in (was, now) and was != now
    )


def _but_place(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that two runs may not differ in, but for the back end, which is checked before.

    Where the checkpoint lies does not count: its content is compared.
    """
    return {name: value for name, value in settings.items() if name not in (*PLACE, "backend")}


def _manifest(
    config: Config, place: Place, job: Job, workers: Workers, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    bundled = {"checkpoint": DEMO} if config.model == DEMO else {}
    return {
        "name": place.out.resolve().name,
        "model": {**workers.about(), **bundled},
        "settings": _settings(config, job),
        "tasks": entries,
        "workers": workers.size,
        "data": str(place.data.resolve()),
        "command": shlex.join(["qwen-vl-eval", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "qwen-vl-eval": __version__,
            **{name: version(name) for name in LIBRARIES},
        },
    }
