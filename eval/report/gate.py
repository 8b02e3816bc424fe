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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.errors import RunError
from eval.report.card import Card
from eval.report.pairing import Flip, TaskPair
from eval.report.scores import RunScores
from eval.run.folder import RunFolder
from eval.scoring.stats import MeanEstimate, holm, t_quantile
from eval.storage.text import clean, printable

PASS, REGRESSED, INCONCLUSIVE, INVALID = "pass", "regressed", "inconclusive", "invalid"
LEFT_OUT = "left out"
EXIT_CODES = {PASS: 0, REGRESSED: 10, INCONCLUSIVE: 11, INVALID: 12}
ERROR, FAIL, SKIP = "error", "fail", "skip"
INCONCLUSIVE_CODES = {ERROR: 11, FAIL: 10, SKIP: 0}  # a user's choice
LEVEL = 0.05  # of significance
POWER = 0.9  # to detect the smallest detectable drop
MARGIN = 0.5  # points of a table


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
    measured: list[tuple[TaskComparison, MeanEstimate]] = []
    others: list[TaskComparison] = []
    flips: dict[str, tuple[Flip, ...]] = {}
    unverified: dict[tuple[Path, str], list[str]] = {}
    for name in dict.fromkeys([*base.tasks, *candidate.tasks]):
        pair = TaskPair(name, (base, candidate), folders, columns.get(name))
        try:
            for folder in folders:  # raises where a summary is wrong
                if why := folder.scores(name).verify():
                    unverified.setdefault((folder.path, why), []).append(name)
            if server := pair.scored_by():
                why = f"scored by {server}, which tells no value of a sample"
                others.append(TaskComparison(name, pair.metric, LEFT_OUT, why))
                continue
            if obstacle := pair.obstacle():
                raise RunError(obstacle)
            values = pair.values()
        except RunError as error:
            others.append(TaskComparison(name, pair.metric, INVALID, printable(str(error))))
            continue
        flips[name] = values.flips
        benchmark = TaskComparison(
            name,
            pair.metric,
            "",
            base=values.base,
            candidate=values.candidate,
            better=sum(flip.candidate > flip.base for flip in values.flips),
            worse=sum(flip.candidate < flip.base for flip in values.flips),
        )
        measured.append((benchmark, values.difference))
    judged = give_verdicts(measured, margin)
    order = sorted([*others, *judged], key=_badness)
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
