"""Did a checkpoint get worse? Two runs, paired by sample, clustered by image.

For each benchmark that both runs answered, the mean difference of its main metric decides:

    pass          shown to be no more than the margin below
    regressed     shown to be below at all, and not to be within the margin
    inconclusive  neither: there are too few samples to tell

"Shown" means at a level of 5%; two runs whose values are all equal pass without it. Regressions
are looked for in every benchmark at once, so their p-values are Holm's; the whole passes only where
each benchmark does, which needs no correction. Runs that were not asked the same, or lack answers,
are invalid, and named. What only a server scores has no values to pair, and is left out. A metric
that is not a mean of per-sample values has none either: it cannot be compared, and is invalid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eval.errors import RunError
from eval.report.card import Card, Column
from eval.report.comparison import SCALE, clean, printable
from eval.report.scores import MetricType, RunFigures, assumed_type
from eval.run.files import SCORES, SUMMARY, Judge, Summary
from eval.run.folder import RunFolder
from eval.scoring.stats import SLACK, Estimate, Tally, holm, t_quantile

PASS, REGRESSED, INCONCLUSIVE, INVALID = "pass", "regressed", "inconclusive", "invalid"
LEFT_OUT = "left out"
EXIT_CODES = {PASS: 0, REGRESSED: 10, INCONCLUSIVE: 11, INVALID: 12}
ERROR, FAIL, SKIP = "error", "fail", "skip"
INCONCLUSIVE_CODES = {ERROR: 11, FAIL: 10, SKIP: 0}  # as a user wants an inconclusive gate to end
OF_CORPUS = "bootstrap over images"  # an earlier version's method, for a Corpus alone
LEVEL = 0.05  # of what is called shown
POWER = 0.9  # with which the smallest drop would have been shown
MARGIN = 0.5  # points of a table
ASKED = (  # of a manifest's entry of a task: equal, or two runs were not asked the same
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
class Benchmark:
    """A task in both runs. All figures are points of a table, such as 58.6.

    difference  candidate less base; low, high: its 95% interval; no_interval: why it has none
    p_worse     that so low a difference, or lower, comes about by chance: Holm's
    p_within    that so high a one comes about though the drop is the margin or more
    smallest    drop that would have been shown in nine of ten such comparisons
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
    """What identifies a run. Texts are printable; "" is unknown.

    folder      as an absolute path
    weights     sha256 of the checkpoint
    generation  of the back end's code; engine: which of its engines
    """

    name: str
    folder: str
    weights: str
    engine: str
    generation: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, the worst benchmark first.

    faults        what makes the whole comparison invalid
    inconclusive  how an inconclusive benchmark counts: ERROR, FAIL or SKIP
    warnings      benchmarks whose scores cannot be compared with the files behind them, and why
    """

    base: RunId
    candidate: RunId
    margin: float
    verdict: str
    benchmarks: tuple[Benchmark, ...]
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
    base: RunFigures,
    candidate: RunFigures,
    card: Card,
    margin: float = MARGIN,
    inconclusive: str = ERROR,
) -> Comparison:
    """Compare a candidate with a base, sample by sample.

    margin        points of a table that a benchmark may lose
    inconclusive  how an inconclusive benchmark counts: ERROR, FAIL or SKIP

    Raises RunError for a folder that is no whole run.
    """
    columns = {name: c for table in card.tables for c in table.columns for name in c.tasks}
    folders = (RunFolder.open(base.folder), RunFolder.open(candidate.folder))
    names = list(dict.fromkeys([*base.tasks, *candidate.tasks]))
    measured: list[tuple[Benchmark, Estimate]] = []
    invalid: list[Benchmark] = []
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
                invalid.append(Benchmark(name, metric, LEFT_OUT, why))
                continue
            if reason := _differing(name, base, candidate, folders):
                raise RunError(reason)
            runs, column = (base, candidate), columns.get(name)
            kind = _type(name, metric, runs, folders, column)
            scale = column.scale if column else SCALE
            found, estimate, flips[name] = _paired(name, metric, kind, scale, runs, folders)
        except RunError as error:
            invalid.append(Benchmark(name, metric, INVALID, printable(str(error))))
            continue
        measured.append((found, estimate))
    judged = _judge(measured, margin)
    order = sorted([*invalid, *judged], key=_badness)
    verdicts = {each.verdict for each in order} - {LEFT_OUT}
    faults = () if verdicts else ("no benchmark has values of samples in both runs",)
    verdicts |= {INVALID} if faults else set()
    verdict = next(v for v in (INVALID, REGRESSED, INCONCLUSIVE, PASS) if v in verdicts)
    listed = tuple(flip for each in order for flip in flips.get(each.task, ()))
    return Comparison(
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
) -> Comparison:
    """A comparison of runs that cannot be read."""
    first, second = (
        RunId(clean(path.name), printable(str(path.resolve())), "", "", "")
        for path in (base, candidate)
    )
    faults = (printable(why),)
    return Comparison(first, second, margin, INVALID, (), (), faults, inconclusive)


def _identify(run: RunFigures, folder: RunFolder) -> RunId:
    model = folder.manifest["model"]
    told = (model.get(key) for key in ("digest", "engine", "generation"))
    known = ("" if each is None else printable(str(each)) for each in told)
    return RunId(clean(run.name), printable(str(run.folder.resolve())), *known)


def _judge(measured: Sequence[tuple[Benchmark, Estimate]], margin: float) -> Iterator[Benchmark]:
    """Each benchmark with its verdict; differences are in points."""
    adjusted = holm(difference.p_below(0.0) for _, difference in measured)
    for (benchmark, difference), p_worse in zip(measured, adjusted, strict=True):
        same = not (benchmark.better or benchmark.worse)  # then nothing has to be shown
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
            smallest=_smallest(difference, len(measured)),
            samples=difference.values,
            images=difference.clusters,
        )


def _smallest(difference: Estimate, tests: int) -> float | None:
    """The drop that so many samples show nine times of ten, were it looked for in so many tests.

    None where so few images show none, however large.
    """
    if tests * difference.least_p >= LEVEL:
        return None
    degrees, size = difference.degrees, difference.size
    reach = t_quantile(1 - LEVEL / tests, degrees) + t_quantile(POWER, degrees)
    drop = difference.high * (reach / size**0.5 + 1 / size)
    return drop if drop < difference.high else None


def _badness(benchmark: Benchmark) -> tuple[int, float, str]:
    """Invalid ones first, then the largest drops, then what is left out."""
    if benchmark.difference is None:
        return 2 if benchmark.verdict == LEFT_OUT else 0, 0.0, benchmark.task
    return 1, benchmark.difference, benchmark.task


def _metric(base: RunFigures, candidate: RunFigures, name: str, column: Column | None) -> str:
    """The metric that is compared: the card's, or the task's main one."""
    if column:
        return column.metric
    for run in (base, candidate):
        if name in run.tasks and run.tasks[name].metrics:
            return next(iter(run.tasks[name].metrics))
    return ""


def _differing(
    name: str,
    base: RunFigures,
    candidate: RunFigures,
    folders: tuple[RunFolder, RunFolder],
) -> str:
    """Why two runs' figures of a task cannot be compared; "" where they can."""
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
    for key, what in ASKED:
        values = [entry.get(key) for entry in entries]
        if values[0] != values[1]:
            return f"other {what}: {_shown(values[0], values[1])}"
    if first.scored_by != second.scored_by:
        nobody = "no server or judge"
        by = [clean(task.scored_by) if task.scored_by else nobody for task in (first, second)]
        return f"scored by {by[0]} and by {by[1]}"
    return _judges([folder.scores(name).summary().judge for folder in folders])


def _judges(found: Sequence[Judge | None]) -> str:
    """How two judges of one name differ."""
    for key in ("model", "prompt", "parameters"):
        told = [getattr(judge, key, None) for judge in found]
        if told[0] != told[1]:
            return f"other judge, by its {key}: {_shown(*told)}"
    if sum(judge is not None and judge.as_published for judge in found) == 1:
        return "scores outside 1 to 10 count in only one of the runs (judge --as-published)"
    return ""


def _shown(base: Any, candidate: Any) -> str:
    if isinstance(base, Mapping) and isinstance(candidate, Mapping):
        keys = [key for key in {**base, **candidate} if base.get(key) != candidate.get(key)]
        return ", ".join(clean(str(key)) for key in sorted(keys)[:3])
    return " and ".join("none" if told is None else clean(str(told)) for told in (base, candidate))


def _server(
    name: str,
    base: RunFigures,
    candidate: RunFigures,
    folders: tuple[RunFolder, RunFolder],
) -> str:
    """Who scored a task of which neither run knows a sample's value; "" where one does."""
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


def _type(
    name: str,
    metric: str,
    runs: tuple[RunFigures, RunFigures],
    folders: tuple[RunFolder, RunFolder],
    column: Column | None,
) -> MetricType:
    """The type of a task's metric. Raises RunError where its scores cannot be compared.

    Summaries of an earlier version do not tell it; there the card's metrics are known to be means.
    """
    found: list[MetricType] = []
    for run, folder in zip(runs, folders, strict=True):
        task = run.tasks[name]
        if metric in task.metric_types:
            found.append(task.metric_types[metric])
        elif column:
            found.append(MetricType(0.0, column.maximum))
        elif _method(folder.scores(name).summary(), metric) == OF_CORPUS:
            raise RunError(
                f"{clean(run.name)} does not say whether {metric} is a mean of per-sample values. "
                "Score it again: qwen-vl-eval score"
            )
        else:
            found.append(assumed_type(task.metrics.get(metric, 0.0)))
    if not all(kind.mean for kind in found):
        raise RunError(f"{metric} is not a mean of per-sample values: it cannot be compared")
    return MetricType(min(kind.low for kind in found), max(kind.high for kind in found))


def _method(summary: Summary, metric: str) -> str:
    """By which a metric's interval was computed."""
    return summary.intervals[metric].method if metric in summary.intervals else ""


def _paired(
    name: str,
    metric: str,
    kind: MetricType,
    scale: int,
    runs: tuple[RunFigures, RunFigures],
    folders: tuple[RunFolder, RunFolder],
) -> tuple[Benchmark, Estimate, list[Flip]]:
    """Values of both runs side by side, in points; raises RunError where they do not pair up."""
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
            if not kind.low - SLACK <= row[metric] <= kind.high + SLACK:
                raise RunError(
                    f"{clean(run.name)}: sample {row['id']!r:.80}: {metric} is {row[metric]:g}, "
                    f"outside its range of {kind.low:g} to {kind.high:g}"
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
    found = Benchmark(
        name,
        metric,
        "",
        base=means[0],
        candidate=means[1],
        better=sum(flip.candidate > flip.base for flip in flips),
        worse=sum(flip.candidate < flip.base for flip in flips),
    )
    flips.sort(key=lambda flip: flip.candidate - flip.base)
    span = scale * (kind.high - kind.low)
    return found, tally.estimate(-span, span, difference=True), flips
