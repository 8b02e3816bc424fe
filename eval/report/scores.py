"""A run's scores, read from its summaries and checked: no unverified number reaches a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from eval.errors import RunError
from eval.run.files import (
    MANIFEST,
    SLACK,
    SUMMARY,
    MetricRange,
    Summary,
    SummaryInterval,
    check_agreement,
    read_manifest,
    read_summary,
)
from eval.storage.reading import is_folder, is_there, reason


@dataclass(frozen=True, slots=True)
class RunScores:
    """A run's name, its checkpoint's chat format ("chatml" for Chat) and its tasks' summaries.

    unverified  task -> why its summary cannot be compared with answers and scores, "" if it agrees
    """

    name: str
    folder: Path
    chat_format: str | None
    tasks: Mapping[str, Summary]
    unverified: Mapping[str, str] = field(default_factory=dict)

    def by_shots(self) -> dict[int, "RunScores"]:
        """Number of few-shot examples -> the tasks with so many, in ascending order."""
        shots = sorted({task.few_shot for task in self.tasks.values()})
        return {
            number: replace(
                self, tasks={name: t for name, t in self.tasks.items() if t.few_shot == number}
            )
            for number in shots
        }


def load_run(path: Path, *, check: bool = True) -> RunScores:
    """Read a run folder, or a folder of results/, whose manifest may be missing.

    check  whether summaries are compared with the files that they were made from

    Raises RunError, naming the file and what was expected, for a folder that is no run or has no
    scores yet, and for a manifest or summary that is damaged, contradicts itself, or does not
    agree with the answers and scores beside it.
    """
    if not is_folder(path):
        raise RunError(f"{path}: the folder of a run expected, none found")
    name, chat_format = path.resolve().name, None
    has_manifest = is_there(path / MANIFEST, RunError)
    if has_manifest:
        manifest, _ = read_manifest(path)
        name = name if manifest.name is None else manifest.name
        chat_format = manifest.model.chat_format
    folders = scored_tasks(path)
    if not folders:
        raise RunError(
            f"{path}: no task is scored yet: <task>/{SUMMARY} expected, none found. Run the same "
            "command again to go on, or score the run: qwen-vl-eval score"
            if has_manifest
            else f"{path}: not a run: {MANIFEST} and <task>/{SUMMARY} expected, neither found"
        )
    tasks: dict[str, Summary] = {}
    unverified: dict[str, str] = {}
    for folder in folders:
        summary = read_summary(folder)
        tasks[folder.name] = _with_intervals_in_range(folder / SUMMARY, summary)
        unverified[folder.name] = check_agreement(folder, summary) if check else ""
    return RunScores(name, path, chat_format, tasks, unverified)


def describe_protocol(task: Summary) -> str:
    """The protocol, and the number of few-shot examples if there were any."""
    return f"{task.protocol}, {task.few_shot}-shot" if task.few_shot else task.protocol


def scored_tasks(path: Path) -> list[Path]:
    """Folders of tasks that have a summary. Raises RunError where that cannot be found out."""
    try:
        folders = sorted(each for each in path.iterdir() if each.is_dir())
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {reason(error)}") from None
    return [folder for folder in folders if is_there(folder / SUMMARY, RunError)]


def assumed_range(value: float, *, judged: bool = False) -> MetricRange:
    """Of a metric in the summary of an earlier version, where CIDEr and judges alone exceeded 1."""
    if judged:
        return MetricRange((1.0, 10.0), mean=True)
    return MetricRange((0.0, 1.0 if value <= 1 else 10.0), mean=True)


def _with_intervals_in_range(file: Path, summary: Summary) -> Summary:
    """The summary without an earlier version's intervals that leave their metric's range."""
    judged = summary.judge is not None
    missing = dict(summary.no_interval)
    intervals: dict[str, SummaryInterval] = {}
    for name, interval in summary.intervals.items():
        known = summary.metric_types.get(name)
        low, high = (known or assumed_range(summary.metrics[name], judged=judged)).range
        if low - SLACK <= interval.low and interval.high <= high + SLACK:
            intervals[name] = interval
        elif known:
            raise RunError(
                f"{file}: 'intervals': {name!r:.80}: {interval.low:g} to {interval.high:g} lies "
                f"outside the metric's range, {low:g} to {high:g}"
            )
        else:
            missing[name] = (
                f"the interval of an earlier version, beyond {low:g} to {high:g}, is "
                f"left out. Make another: qwen-vl-eval {'judge' if judged else 'score'}"
            )
    return replace(summary, intervals=intervals, no_interval=missing)
