"""One task of two runs, paired by sample: whether it can be compared, and its values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from eval.errors import RunError
from eval.report.card import Column
from eval.report.comparison import SCALE
from eval.report.scores import RunScores, assumed_range
from eval.run.files import SCORES, SUMMARY, Judge, MetricRange, Summary
from eval.run.folder import RunFolder
from eval.scoring.stats import SLACK, MeanEstimate, Tally
from eval.storage.text import clean

OF_CORPUS = "bootstrap over images"  # an earlier version's method, of a Corpus only
SPEC = (  # of a manifest's entry of a task: must be equal in two runs
    ("prompt", "prompts"),
    ("protocol", "protocols"),
    ("decode", "decoding"),
    ("few_shot", "few-shot examples"),
    ("seed", "seeds"),
    ("leaking", "few-shot examples"),
    ("limit", "limits"),
    ("size", "official sizes"),
    ("sources", "data"),
    ("left_out", "samples left out"),
)


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample whose value differs; values as scores.jsonl has them."""

    task: str
    sample: str
    image: str
    base: float
    candidate: float


@dataclass(frozen=True, slots=True)
class PairedValues:
    """A metric of a task in both runs, in points.

    difference  candidate less base, and its error
    flips       samples whose value differs, the largest drop first
    """

    base: float
    candidate: float
    difference: MeanEstimate
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class TaskPair:
    """A task of a base and a candidate.

    column  of the card that the task is a part of, if any
    """

    task: str
    runs: tuple[RunScores, RunScores]
    folders: tuple[RunFolder, RunFolder]
    column: Column | None

    @property
    def metric(self) -> str:
        """The metric that is compared: the card's, or the task's main one."""
        if self.column:
            return self.column.metric
        for run in self.runs:
            if self.task in run.tasks and run.tasks[self.task].metrics:
                return next(iter(run.tasks[self.task].metrics))
        return ""

    def scored_by(self) -> str:
        """Who scored a task without values per sample in either run; "" where one has them."""
        servers = ""
        for run, folder in zip(self.runs, self.folders, strict=True):
            summary = run.tasks.get(self.task)
            if summary is None:
                continue
            if not summary.samples or (summary.metrics and not summary.scored_by):
                return ""
            if any(row.keys() - {"id", "image"} for row in folder.scores(self.task).rows()):
                return ""
            servers = servers or summary.scored_by
        return clean(servers or "its server")

    def obstacle(self) -> str:
        """Why the scores of the two runs cannot be compared; "" where they can."""
        for run in self.runs:
            if self.task not in run.tasks:
                return f"{clean(run.name)} has no figure of it"
        summaries = [run.tasks[self.task] for run in self.runs]
        for run, summary in zip(self.runs, summaries, strict=True):
            if summary.failed:
                return f"{clean(run.name)}: {summary.failed:,} samples have no answer"
        if summaries[0].as_published != summaries[1].as_published:
            return "one is scored as published, or for another number of processes"
        entries = [folder.manifest["tasks"].get(self.task) for folder in self.folders]
        for run, entry in zip(self.runs, entries, strict=True):
            if not isinstance(entry, Mapping):
                return f"{clean(run.name)}: its manifest does not tell how it was asked"
        for key, what in SPEC:
            values = [entry.get(key) for entry in entries]
            if values[0] != values[1]:
                return f"other {what}: {_shown(values[0], values[1])}"
        if summaries[0].scored_by != summaries[1].scored_by:
            nobody = "no server or judge"
            by = [clean(each.scored_by) if each.scored_by else nobody for each in summaries]
            return f"scored by {by[0]} and by {by[1]}"
        return _judges([folder.scores(self.task).summary().judge for folder in self.folders])

    def values(self) -> PairedValues:
        """The values of both runs side by side. Raises RunError where they do not pair up."""
        metric = self.metric
        low, high = self._range()
        scale = self.column.scale if self.column else SCALE
        tally = Tally()
        flips: list[Flip] = []
        totals = [0.0, 0.0]
        count = 0
        for first, second in self._rows():
            if first is None or second is None:
                raise RunError(f"other samples: one run has {count:,}, and the other has more")
            for run, row in zip(self.runs, (first, second), strict=True):
                if metric not in row:
                    raise RunError(f"{clean(run.name)}: sample {row['id']!r:.80} has no {metric}")
                if not low - SLACK <= row[metric] <= high + SLACK:
                    raise RunError(
                        f"{clean(run.name)}: sample {row['id']!r:.80}: {metric} is "
                        f"{row[metric]:g}, outside its range of {low:g} to {high:g}"
                    )
            if first["id"] != second["id"]:
                raise RunError(f"other samples: {first['id']!r:.80} and {second['id']!r:.80}")
            count += 1
            values = first[metric], second[metric]
            tally.add(scale * (values[1] - values[0]), first["image"] or first["id"])
            totals = [totals[0] + values[0], totals[1] + values[1]]
            if values[0] != values[1]:
                flips.append(Flip(self.task, first["id"], first["image"], *values))
        for run in self.runs:
            if count != (samples := run.tasks[self.task].samples):
                raise RunError(
                    f"{clean(run.name)}: {samples:,} samples in {SUMMARY}, {count:,} in {SCORES}"
                )
        flips.sort(key=lambda flip: flip.candidate - flip.base)
        span = scale * (high - low)
        difference = tally.estimate(-span, span, difference=True)
        base, candidate = (scale * total / count for total in totals)
        return PairedValues(base, candidate, difference, tuple(flips))

    def _rows(self) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
        base, candidate = (folder.scores(self.task).rows() for folder in self.folders)
        return zip_longest(base, candidate)

    def _range(self) -> tuple[float, float]:
        """The range of the metric. Raises RunError where its scores cannot be compared.

        Summaries of an earlier version lack it; there the card's metrics are known to be means.
        """
        metric = self.metric
        ranges: list[MetricRange] = []
        for run, folder in zip(self.runs, self.folders, strict=True):
            summary = run.tasks[self.task]
            if metric in summary.metric_types:
                ranges.append(summary.metric_types[metric])
            elif self.column:
                ranges.append(MetricRange((0.0, self.column.maximum), mean=True))
            elif _method(folder.scores(self.task).summary(), metric) == OF_CORPUS:
                raise RunError(
                    f"{clean(run.name)} does not say whether {metric} is a mean of per-sample "
                    "values. Score it again: qwen-vl-eval score"
                )
            else:
                ranges.append(assumed_range(summary.metrics.get(metric, 0.0)))
        if not all(each.mean for each in ranges):
            raise RunError(f"{metric} is not a mean of per-sample values: it cannot be compared")
        lows, highs = zip(*(each.range for each in ranges), strict=True)
        return min(lows), max(highs)


def _judges(judges: Sequence[Judge | None]) -> str:
    """How two judges of one name differ."""
    for key in ("model", "prompt", "parameters"):
        values = [getattr(judge, key, None) for judge in judges]
        if values[0] != values[1]:
            return f"other judge, by its {key}: {_shown(*values)}"
    if sum(judge is not None and judge.as_published for judge in judges) == 1:
        return "scores outside 1 to 10 count in only one of the runs (judge --as-published)"
    return ""


def _shown(base: Any, candidate: Any) -> str:
    if isinstance(base, Mapping) and isinstance(candidate, Mapping):
        keys = [key for key in {**base, **candidate} if base.get(key) != candidate.get(key)]
        return ", ".join(clean(str(key)) for key in sorted(keys)[:3])
    return " and ".join(
        "none" if value is None else clean(str(value)) for value in (base, candidate)
    )


def _method(summary: Summary, metric: str) -> str:
    """How a metric's interval was computed."""
    return summary.intervals[metric].method if metric in summary.intervals else ""
