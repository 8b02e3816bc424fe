"""Did a checkpoint get worse? Two runs, paired by sample, clustered by image.

Of each benchmark both runs answered, the mean difference of its main metric decides:

    pass          shown to be no more than the margin below
    regressed     shown to be below at all, and not to be within the margin
    inconclusive  neither: so many samples cannot tell

What is shown holds at a level of 5%. Regressions are looked for in every benchmark at once, so
their p-values are Holm's; the whole passes only where each benchmark does, which needs no
correction. Runs that were not asked the same, or lack answers, are invalid, and named. What only a
server scores has no values to pair, and is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from eval.errors import RunError
from eval.report.card import Card, Column
from eval.report.compare import SCALE, clean
from eval.report.figures import RunFigures, is_number
from eval.run import SCORES, SUMMARY, RunFolder
from eval.stats import Difference, Tally, holm, t_quantile

PASS, REGRESSED, INCONCLUSIVE, INVALID = "pass", "regressed", "inconclusive", "invalid"
LEFT_OUT = "left out"
EXIT_CODES = {PASS: 0, REGRESSED: 10, INCONCLUSIVE: 11, INVALID: 12}
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

    difference  candidate less base; low, high: its 95% interval
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
    p_worse: float | None = None
    p_within: float | None = None
    smallest: float | None = None
    samples: int = 0
    images: int = 0
    better: int = 0
    worse: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, the worst benchmark first.

    faults  what makes the whole comparison invalid
    """

    base: str
    candidate: str
    margin: float
    verdict: str
    benchmarks: tuple[Benchmark, ...]
    flips: tuple[Flip, ...]
    faults: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of a gate."""
        return EXIT_CODES[self.verdict]


def compare_runs(
    base: RunFigures,
    candidate: RunFigures,
    card: Card,
    margin: float = MARGIN,
) -> Comparison:
    """Compare a candidate with a base, sample by sample.

    margin  points of a table that a benchmark may lose

    Raises RunError for a folder that is no whole run.
    """
    columns = {name: c for table in card.tables for c in table.columns for name in c.tasks}
    folders = (RunFolder.open(base.folder), RunFolder.open(candidate.folder))
    names = list(dict.fromkeys([*base.tasks, *candidate.tasks]))
    measured: list[tuple[Benchmark, Difference]] = []
    invalid: list[Benchmark] = []
    flips: dict[str, list[Flip]] = {}
    for name in names:
        metric = _metric(base, candidate, name)
        try:
            if server := _server(name, base, candidate, folders):
                why = f"scored by {server}, which tells no value of a sample"
                invalid.append(Benchmark(name, metric, LEFT_OUT, why))
                continue
            if reason := _differing(name, base, candidate, folders):
                raise RunError(reason)
            found, tally, flips[name] = _paired(name, base, candidate, folders, columns.get(name))
        except RunError as error:
            why = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(error))
            invalid.append(Benchmark(name, metric, INVALID, why))
            continue
        measured.append((found, tally.difference()))
    judged = _judge(measured, margin)
    order = sorted([*invalid, *judged], key=_badness)
    verdicts = {each.verdict for each in order} - {LEFT_OUT}
    faults = () if verdicts else ("no benchmark has values of samples in both runs",)
    verdicts |= {INVALID} if faults else set()
    verdict = next(v for v in (INVALID, REGRESSED, INCONCLUSIVE, PASS) if v in verdicts)
    listed = tuple(flip for each in order for flip in flips.get(each.task, ()))
    return Comparison(
        clean(base.name), clean(candidate.name), margin, verdict, tuple(order), listed, faults
    )


def _judge(measured: Sequence[tuple[Benchmark, Difference]], margin: float) -> Iterator[Benchmark]:
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
        low, high = difference.interval() or (None, None)
        yield replace(
            benchmark,
            verdict=verdict,
            difference=difference.mean,
            low=low,
            high=high,
            p_worse=p_worse,
            p_within=p_within,
            smallest=_smallest(difference, len(measured)),
            samples=difference.values,
            images=difference.clusters,
        )


def _smallest(difference: Difference, tests: int) -> float | None:
    """The drop that so many samples show nine times of ten, were it looked for in so many tests.

    None where so few images show none, however large.
    """
    if difference.error is None or tests * difference.least_p >= LEVEL:
        return None
    degrees = difference.degrees
    reach = t_quantile(1 - LEVEL / tests, degrees) + t_quantile(POWER, degrees)
    return reach * difference.error


def _badness(benchmark: Benchmark) -> tuple[int, float, str]:
    """Invalid ones first, then the largest drops, then what is left out."""
    if benchmark.difference is None:
        return 2 if benchmark.verdict == LEFT_OUT else 0, 0.0, benchmark.task
    return 1, benchmark.difference, benchmark.task


def _metric(base: RunFigures, candidate: RunFigures, name: str) -> str:
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
    return _judges([folder.summary(name).get("judge") for folder in folders])


def _judges(found: Sequence[Any]) -> str:
    """How two judges of one name differ."""
    told = [judge if isinstance(judge, Mapping) else {} for judge in found]
    for key in ("model", "prompt", "parameters"):
        if told[0].get(key) != told[1].get(key):
            return f"other judge, by its {key}: {_shown(told[0].get(key), told[1].get(key))}"
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
        if any(row.keys() - {"id", "image"} for row in folder.scores(name)):
            return ""
        servers = servers or task.scored_by
    return clean(servers or "its server")


def _paired(
    name: str,
    base: RunFigures,
    candidate: RunFigures,
    folders: tuple[RunFolder, RunFolder],
    column: Column | None,
) -> tuple[Benchmark, Tally, list[Flip]]:
    """Values of both runs side by side, in points; raises RunError where they do not pair up."""
    metric = column.metric if column else _metric(base, candidate, name)
    scale = column.scale if column else SCALE
    tally = Tally()
    flips: list[Flip] = []
    totals = [0.0, 0.0]
    count = 0
    for rows in zip_longest(folders[0].scores(name), folders[1].scores(name)):
        first, second = rows
        if first is None or second is None:
            raise RunError(f"other samples: one run has {count:,}, and the other has more")
        for run, row in zip((base, candidate), rows, strict=True):
            if not all(isinstance(row.get(key), str) for key in ("id", "image")):
                raise RunError(
                    f"{clean(run.name)}, sample {count + 1:,} of {SCORES}: the texts 'id' and "
                    f"'image' expected, {row!r:.80} found. Score it again: qwen-vl-eval score"
                )
            if metric not in row:
                raise RunError(f"{clean(run.name)}: sample {row['id']!r:.80} has no {metric}")
            if not is_number(row[metric]):
                raise RunError(
                    f"{clean(run.name)}: sample {row['id']!r:.80}: {metric}: a number expected, "
                    f"{row[metric]!r:.80} found"
                )
        if first["id"] != second["id"]:
            raise RunError(f"other samples: {first['id']!r:.80} and {second['id']!r:.80}")
        count += 1
        values = first[metric], second[metric]
        tally.add(scale * (values[1] - values[0]), first["image"] or first["id"])
        totals = [totals[0] + values[0], totals[1] + values[1]]
        if values[0] != values[1]:
            flips.append(Flip(name, first["id"], first["image"], *values))
    for run in (base, candidate):
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
    return found, tally, flips
