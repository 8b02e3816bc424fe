"""Did a checkpoint get worse? Two runs, paired by sample, clustered by image.

For each benchmark that both runs answered, the mean difference of its main metric decides:

    pass          significantly above the base less the margin
    regressed     significantly below the base, and not a pass
    inconclusive  neither: there are too few samples to tell

The level is 5%; two runs whose values are all equal pass without a test. Every benchmark is tested
for a regression, so those p-values are Holm's; a comparison passes only if each benchmark does,
which needs no correction. Runs with different requests or missing answers are invalid, and the
reason is named. A task that only a server scores has no values to pair, and is left out. A metric
that is not a mean of per-sample values cannot be compared, and is invalid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eval.errors import RunError
from eval.report.card import Card, Column
from eval.report.comparison import SCALE
from eval.report.scores import RunScores, assumed_range
from eval.run.files import SCORES, SUMMARY, Judge, MetricRange, Summary
from eval.run.folder import RunFolder
from eval.scoring.stats import SLACK, MeanEstimate, Tally, holm, t_quantile
from eval.storage.text import clean, printable

PASS, REGRESSED, INCONCLUSIVE, INVALID = "pass", "regressed", "inconclusive", "invalid"
LEFT_OUT = "left out"
EXIT_CODES = {PASS: 0, REGRESSED: 10, INCONCLUSIVE: 11, INVALID: 12}
ERROR, FAIL, SKIP = "error", "fail", "skip"
INCONCLUSIVE_CODES = {ERROR: 11, FAIL: 10, SKIP: 0}  # a user's choice
OF_CORPUS = "bootstrap over images"  # an earlier version's method, of a Corpus only
LEVEL = 0.05  # of significance
POWER = 0.9  # to detect the smallest detectable drop
MARGIN = 0.5  # points of a table
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
class TaskComparison:
    """A task in both runs. All scores are points of a table, such as 58.6.

    difference  candidate less base; low, high: its 95% interval; no_interval: why it has none
    p_worse     of no drop, against a drop: Holm's
    p_within    of a drop of the margin or more, against a smaller one or none
    smallest    detectable drop, with a power of 90%
    better      samples whose value rose; worse: fell
    verdict     of the task; reason: why it is invalid
    """

    task: str
    metric: str
    verdict: str
    reason: str = ""
    base: float | None = None
    candidate: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    no_interval: str = ""
    p_worse: float | None = None
    p_within: float | None = None
    smallest: float | None = None
    samples: int = 0
    images: int = 0
    better: int = 0
    worse: int = 0


@dataclass(frozen=True, slots=True)
class RunId:
    """Identifies a run. Texts are printable; "" is unknown.

    folder      as an absolute path
    weights     sha256 of the checkpoint
    generation  of the back end's code; engine: one of its engines
    """

    name: str
    folder: str
    weights: str
    engine: str
    generation: str


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two runs, the worst benchmark first.

    faults        why the whole comparison is invalid
    inconclusive  how an inconclusive benchmark counts: ERROR, FAIL or SKIP
    warnings      benchmarks whose scores cannot be compared with the files behind them, and why
    """

    base: RunId
    candidate: RunId
    margin: float
    verdict: str
    benchmarks: tuple[TaskComparison, ...]
    flips: tuple[Flip, ...]
    faults: tuple[str, ...] = ()
    inconclusive: str = ERROR
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """The gate's."""
        if self.verdict == INCONCLUSIVE:
            return INCONCLUSIVE_CODES[self.inconclusive]
        return EXIT_CODES[self.verdict]


def compare_runs(
    base: RunScores,
    candidate: RunScores,
    card: Card,
    margin: float = MARGIN,
    inconclusive: str = ERROR,
) -> RunComparison:
    """Compare a candidate with a base, sample by sample.

    margin        points of a table that a benchmark may lose
    inconclusive  how an inconclusive benchmark counts: ERROR, FAIL or SKIP

    Raises RunError for a folder that is not a complete run.
    """
    columns = {name: c for table in card.tables for c in table.columns for name in c.tasks}
    folders = (RunFolder.open(base.folder), RunFolder.open(candidate.folder))
    names = list(dict.fromkeys([*base.tasks, *candidate.tasks]))
    measured: list[tuple[TaskComparison, MeanEstimate]] = []
    invalid: list[TaskComparison] = []
    flips: dict[str, list[Flip]] = {}
    unverified: dict[tuple[Path, str], list[str]] = {}
    for name in names:
        metric = _metric(base, candidate, name, columns.get(name))
        try:
            for folder in folders:  # raises where a summary is wrong
                if why := folder.scores(name).verify():
                    unverified.setdefault((folder.path, why), []).append(name)
            if server := _server(name, base, candidate, folders):
                why = f"scored by {server}, which tells no value of a sample"
                invalid.append(TaskComparison(name, metric, LEFT_OUT, why))
                continue
            if reason := _differing(name, base, candidate, folders):
                raise RunError(reason)
            runs, column = (base, candidate), columns.get(name)
            bounds = _range(name, metric, runs, folders, column)
            scale = column.scale if column else SCALE
            pair, estimate, flips[name] = _paired(name, metric, bounds, scale, runs, folders)
        except RunError as error:
            invalid.append(TaskComparison(name, metric, INVALID, printable(str(error))))
            continue
        measured.append((pair, estimate))
    judged = give_verdicts(measured, margin)
    order = sorted([*invalid, *judged], key=_badness)
    verdicts = {each.verdict for each in order} - {LEFT_OUT}
    faults = () if verdicts else ("no benchmark has values of samples in both runs",)
    verdicts |= {INVALID} if faults else set()
    verdict = next(v for v in (INVALID, REGRESSED, INCONCLUSIVE, PASS) if v in verdicts)
    listed = tuple(flip for each in order for flip in flips.get(each.task, ()))
    return RunComparison(
        _identify(base, folders[0]),
        _identify(candidate, folders[1]),
        margin,
        verdict,
        tuple(order),
        listed,
        faults,
        inconclusive,
        tuple(
            printable(f"{path}: {', '.join(names)}: unverified, since {why}")
            for (path, why), names in unverified.items()
        ),
    )


def cannot_compare(
    base: Path, candidate: Path, margin: float, inconclusive: str, why: str
) -> RunComparison:
    """A comparison of runs that cannot be read."""
    first, second = (
        RunId(clean(path.name), printable(str(path.resolve())), "", "", "")
        for path in (base, candidate)
    )
    faults = (printable(why),)
    return RunComparison(first, second, margin, INVALID, (), (), faults, inconclusive)


def _identify(run: RunScores, folder: RunFolder) -> RunId:
    model = folder.manifest["model"]
    values = (model.get(key) for key in ("digest", "engine", "generation"))
    texts = ("" if value is None else printable(str(value)) for value in values)
    return RunId(clean(run.name), printable(str(run.folder.resolve())), *texts)


def give_verdicts(
    measured: Sequence[tuple[TaskComparison, MeanEstimate]], margin: float
) -> Iterator[TaskComparison]:
    """Each benchmark with its verdict; differences are in points."""
    adjusted = holm(difference.p_below(0.0) for _, difference in measured)
    for (benchmark, difference), p_worse in zip(measured, adjusted, strict=True):
        same = not (benchmark.better or benchmark.worse)  # then no test is needed
        p_within = 0.0 if same else difference.p_above(-margin)
        if p_within < LEVEL:
            verdict = PASS
        elif p_worse < LEVEL:
            verdict = REGRESSED
        else:
            verdict = INCONCLUSIVE
        interval = difference.interval()
        yield replace(
            benchmark,
            verdict=verdict,
            difference=difference.mean,
            low=interval.low,
            high=interval.high,
            no_interval=interval.reason,
            p_worse=p_worse,
            p_within=p_within,
            smallest=smallest_drop(difference, len(measured)),
            samples=difference.values,
            images=difference.clusters,
        )


def smallest_drop(difference: MeanEstimate, tests: int) -> float | None:
    """The drop that these samples detect with a power of 90% among so many tests.

    None where there are too few images to detect any.
    """
    if tests * difference.least_p >= LEVEL:
        return None
    degrees, size = difference.degrees, difference.size
    reach = t_quantile(1 - LEVEL / tests, degrees) + t_quantile(POWER, degrees)
    drop = difference.high * (reach / size**0.5 + 1 / size)
    return drop if drop < difference.high else None


def _badness(benchmark: TaskComparison) -> tuple[int, float, str]:
    """Invalid ones first, then the largest drops, then those left out."""
    if benchmark.difference is None:
        return 2 if benchmark.verdict == LEFT_OUT else 0, 0.0, benchmark.task
    return 1, benchmark.difference, benchmark.task


def _metric(base: RunScores, candidate: RunScores, name: str, column: Column | None) -> str:
    """The metric that is compared: the card's, or the task's main one."""
    if column:
        return column.metric
    for run in (base, candidate):
        if name in run.tasks and run.tasks[name].metrics:
            return next(iter(run.tasks[name].metrics))
    return ""


def _differing(
    name: str,
    base: RunScores,
    candidate: RunScores,
    folders: tuple[RunFolder, RunFolder],
) -> str:
    """Why two runs' scores of a task cannot be compared; "" where they can."""
    for run in (base, candidate):
        if name not in run.tasks:
            return f"{clean(run.name)} has no figure of it"
    first, second = base.tasks[name], candidate.tasks[name]
    for run, task in ((base, first), (candidate, second)):
        if task.failed:
            return f"{clean(run.name)}: {task.failed:,} samples have no answer"
    if first.as_published != second.as_published:
        return "one is scored as published, or for another number of processes"
    entries = [folder.manifest["tasks"].get(name) for folder in folders]
    for run, entry in ((base, entries[0]), (candidate, entries[1])):
        if not isinstance(entry, Mapping):
            return f"{clean(run.name)}: its manifest does not tell how it was asked"
    for key, what in SPEC:
        values = [entry.get(key) for entry in entries]
        if values[0] != values[1]:
            return f"other {what}: {_shown(values[0], values[1])}"
    if first.scored_by != second.scored_by:
        nobody = "no server or judge"
        by = [clean(task.scored_by) if task.scored_by else nobody for task in (first, second)]
        return f"scored by {by[0]} and by {by[1]}"
    return _judges([folder.scores(name).summary().judge for folder in folders])


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


def _server(
    name: str,
    base: RunScores,
    candidate: RunScores,
    folders: tuple[RunFolder, RunFolder],
) -> str:
    """Who scored a task without values per sample in either run; "" where one has them."""
    servers = ""
    for run, folder in zip((base, candidate), folders, strict=True):
        task = run.tasks.get(name)
        if task is None:
            continue
        if not task.samples or (task.metrics and not task.scored_by):
            return ""
        if any(row.keys() - {"id", "image"} for row in folder.scores(name).rows()):
            return ""
        servers = servers or task.scored_by
    return clean(servers or "its server")


def _range(
    name: str,
    metric: str,
    runs: tuple[RunScores, RunScores],
    folders: tuple[RunFolder, RunFolder],
    column: Column | None,
) -> tuple[float, float]:
    """The range of a task's metric. Raises RunError where its scores cannot be compared.

    Summaries of an earlier version lack it; there the card's metrics are known to be means.
    """
    ranges: list[MetricRange] = []
    for run, folder in zip(runs, folders, strict=True):
        task = run.tasks[name]
        if metric in task.metric_types:
            ranges.append(task.metric_types[metric])
        elif column:
            ranges.append(MetricRange((0.0, column.maximum), mean=True))
        elif _method(folder.scores(name).summary(), metric) == OF_CORPUS:
            raise RunError(
                f"{clean(run.name)} does not say whether {metric} is a mean of per-sample values. "
                "Score it again: qwen-vl-eval score"
            )
        else:
            ranges.append(assumed_range(task.metrics.get(metric, 0.0)))
    if not all(each.mean for each in ranges):
        raise RunError(f"{metric} is not a mean of per-sample values: it cannot be compared")
    lows, highs = zip(*(each.range for each in ranges), strict=True)
    return min(lows), max(highs)


def _method(summary: Summary, metric: str) -> str:
    """How a metric's interval was computed."""
    return summary.intervals[metric].method if metric in summary.intervals else ""


def _paired(
    name: str,
    metric: str,
    bounds: tuple[float, float],
    scale: int,
    runs: tuple[RunScores, RunScores],
    folders: tuple[RunFolder, RunFolder],
) -> tuple[TaskComparison, MeanEstimate, list[Flip]]:
    """Values of both runs side by side, in points; raises RunError where they do not pair up."""
    low, high = bounds
    tally = Tally()
    flips: list[Flip] = []
    totals = [0.0, 0.0]
    count = 0
    for rows in zip_longest(folders[0].scores(name).rows(), folders[1].scores(name).rows()):
        first, second = rows
        if first is None or second is None:
            raise RunError(f"other samples: one run has {count:,}, and the other has more")
        for run, row in zip(runs, rows, strict=True):
            if metric not in row:
                raise RunError(f"{clean(run.name)}: sample {row['id']!r:.80} has no {metric}")
            if not low - SLACK <= row[metric] <= high + SLACK:
                raise RunError(
                    f"{clean(run.name)}: sample {row['id']!r:.80}: {metric} is {row[metric]:g}, "
                    f"outside its range of {low:g} to {high:g}"
                )
        if first["id"] != second["id"]:
            raise RunError(f"other samples: {first['id']!r:.80} and {second['id']!r:.80}")
        count += 1
        values = first[metric], second[metric]
        tally.add(scale * (values[1] - values[0]), first["image"] or first["id"])
        totals = [totals[0] + values[0], totals[1] + values[1]]
        if values[0] != values[1]:
            flips.append(Flip(name, first["id"], first["image"], *values))
    for run in runs:
        if count != (samples := run.tasks[name].samples):
            raise RunError(
                f"{clean(run.name)}: {samples:,} samples in {SUMMARY}, {count:,} in {SCORES}"
            )
    means = [scale * total / count for total in totals]
    pair = TaskComparison(
        name,
        metric,
        "",
        base=means[0],
        candidate=means[1],
        better=sum(flip.candidate > flip.base for flip in flips),
        worse=sum(flip.candidate < flip.base for flip in flips),
    )
    flips.sort(key=lambda flip: flip.candidate - flip.base)
    span = scale * (high - low)
    return pair, tally.estimate(-span, span, difference=True), flips
