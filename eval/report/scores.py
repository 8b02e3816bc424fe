"""A run's figures, read from its summaries and checked: nothing doubtful reaches a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eval.errors import RunError
from eval.run.files import (
    MANIFEST,
    SLACK,
    SUMMARY,
    Summary,
    check_agreement,
    read_manifest,
    read_summary,
)
from eval.storage.reading import is_folder, is_there, reason


@dataclass(frozen=True, slots=True)
class MetricType:
    """What a summary says of a metric: its range, and whether the score is a mean of per-sample
    values.
    """

    low: float
    high: float
    mean: bool = True


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What a summary says.

    size          samples in the official split, or None where it is not known
    images        distinct ones among the samples
    complete      samples == size, none failed, and the data have no faults
    protocol      "published", or the name of another way to ask
    metrics       name -> mean over samples, the main one first; empty where only a server can score
    signature     one line that the figures can be quoted with
    few_shot      examples before each question
    faults        what keeps the data from being the official split's
    failed        samples without an answer, which are not among `samples`
    scored_by     the server or judge that gave the figures, "" where they were computed here
    doubts        why those are not what the card has
    as_published  processes and batch size, where the published procedure was reproduced
    by            group -> value -> {"samples": count, metric: mean over them}
    intervals     metric -> both ends of its 95% interval
    no_interval   metric -> why it has none, where that is known
    metric_types  of the metrics, by name; empty in the summary of an earlier version
    unverified    why they cannot be compared with answers and scores, "" where they agree
    """

    task: str
    size: int | None
    samples: int
    images: int
    complete: bool
    protocol: str
    metrics: Mapping[str, float]
    unreadable: int = 0
    signature: str = ""
    few_shot: int = 0
    faults: tuple[str, ...] = ()
    failed: int = 0
    scored_by: str = ""
    doubts: tuple[str, ...] = ()
    as_published: tuple[int, int] | None = None
    by: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    no_interval: Mapping[str, str] = field(default_factory=dict)
    metric_types: Mapping[str, MetricType] = field(default_factory=dict)
    unverified: str = ""

    @property
    def asked(self) -> str:
        """How: the protocol, and the number of examples if there were any."""
        return f"{self.protocol}, {self.few_shot}-shot" if self.few_shot else self.protocol


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run's name, its checkpoint's chat format ("chatml" for Chat) and its tasks' figures."""

    name: str
    folder: Path
    chat_format: str | None
    tasks: Mapping[str, TaskFigures]


def load_run(path: Path, *, check: bool = True) -> RunFigures:
    """Read a run folder, or a folder of results/, whose manifest may be missing.

    check  whether summaries are compared with the files that they were made from

    Raises RunError, naming the file and what was expected, for a folder that is no run or has no
    figures yet, and for a manifest or summary that is damaged, contradicts itself, or does not
    agree with the answers and scores beside it.
    """
    if not is_folder(path):
        raise RunError(f"{path}: the folder of a run expected, none found")
    name, chat_format = path.resolve().name, None
    found = is_there(path / MANIFEST, RunError)
    if found:
        manifest, _ = read_manifest(path)
        name = name if manifest.name is None else manifest.name
        chat_format = manifest.model.chat_format
    folders = scored_tasks(path)
    if not folders:
        raise RunError(
            f"{path}: no task is scored yet: <task>/{SUMMARY} expected, none found. Run the same "
            "command again to go on, or score the run: qwen-vl-eval score"
            if found
            else f"{path}: not a run: {MANIFEST} and <task>/{SUMMARY} expected, neither found"
        )
    tasks = {folder.name: _figures(folder, check=check) for folder in folders}
    return RunFigures(name, path, chat_format, tasks)


def scored_tasks(path: Path) -> list[Path]:
    """Folders of tasks that have a summary. Raises RunError where that cannot be found out."""
    try:
        folders = sorted(each for each in path.iterdir() if each.is_dir())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {reason(error)}") from None
    return [folder for folder in folders if is_there(folder / SUMMARY, RunError)]


def _figures(folder: Path, *, check: bool) -> TaskFigures:
    told = read_summary(folder)
    published = told.as_published
    types = {name: MetricType(*each.range, each.mean) for name, each in told.metric_types.items()}
    intervals, no_interval = _intervals(folder / SUMMARY, told, types)
    return TaskFigures(
        told.task,
        told.size,
        told.samples,
        told.images,
        told.complete,
        told.protocol,
        told.metrics,
        told.unreadable,
        told.signature,
        told.few_shot,
        told.faults,
        told.failed,
        told.scored_by,
        told.doubts,
        (published.processes, published.batch_size) if published else None,
        told.by,
        intervals,
        no_interval,
        types,
        check_agreement(folder, told) if check else "",
    )


def assumed_type(value: float, *, judged: bool = False) -> MetricType:
    """Of a metric in the summary of an earlier version, where CIDEr and judges alone exceeded 1."""
    if judged:
        return MetricType(1.0, 10.0)
    return MetricType(0.0, 1.0 if value <= 1 else 10.0)


def _intervals(
    file: Path, told: Summary, types: Mapping[str, MetricType]
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Both ends of each metric's interval, and why others have none.

    An earlier version's interval that leaves the metric's range is not shown.
    """
    missing = dict(told.no_interval)
    found = {}
    for name, ends in told.intervals.items():
        judged = told.judge is not None
        kind = types.get(name) or assumed_type(told.metrics[name], judged=judged)
        if kind.low - SLACK <= ends.low and ends.high <= kind.high + SLACK:
            found[name] = ends.low, ends.high
        elif name in types:
            raise RunError(
                f"{file}: 'intervals': {name!r:.80}: {ends.low:g} to {ends.high:g} lies outside "
                f"the metric's range, {kind.low:g} to {kind.high:g}"
            )
        else:
            missing[name] = (
                f"the interval of an earlier version, beyond {kind.low:g} to {kind.high:g}, is "
                f"left out. Make another: qwen-vl-eval {'judge' if judged else 'score'}"
            )
    return found, missing
