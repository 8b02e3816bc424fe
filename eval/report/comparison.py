"""A run's score beside the card's, and whether the two are comparable. All texts are rounded and
cleaned.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from eval.errors import RunError
from eval.protocols.qwen_vl import PUBLISHED
from eval.report.card import JUDGE, MISSING, CardRow, Column
from eval.report.scores import RunScores, describe_protocol
from eval.run.files import SUMMARY, Summary, SummaryInterval
from eval.storage.text import clean, printable

SCALE, DECIMALS = 100, 2  # of a score that belongs to no column
SCORED_BY_SERVER, SCORED_BY_JUDGE = "to be scored by its server", "to be scored by the judge"
REPRODUCED, OUTSIDE = "reproduced", "outside"  # the card's score lies in our interval, or not
INCOMPLETE, OTHER = "incomplete", "not comparable"
UNVERIFIED = "unverified"  # the summary cannot be compared with the files that it was made from
NOT_RUN, UNKNOWN = "not run", "no interval"
WRONG_COUNT = re.compile(r": [\d,]+ expected, [\d,]+ found$")  # a data issue
ADDRESS = re.compile(r"[\s,;(<]*https?://\S*")  # in the name of a server


@dataclass(frozen=True, slots=True)
class TableCell:
    """A score as it is printed.

    note    the line under it
    bold    the best of its group
    marked  not comparable with the card: partial, or another protocol
    """

    text: str
    note: str = ""
    bold: bool = False
    marked: bool = False


@dataclass(frozen=True, slots=True)
class ColumnComparison:
    """One column of a run beside the card. Texts are "-" where there is nothing to show.

    difference  of the two scores as printed
    interval    the 95% interval of the run's score, such as "57.9 to 59.2"
    verdict     reproduced, outside, incomplete, not comparable, not run; "-" where the card has no
                score; "no interval" where none can be computed, such as for a server's score
    samples     per task, joined by " + "; images: the distinct ones, likewise
    protocol    such as "published, 4-shot"
    comparable  whether the run measured what the card did
    remark      "complete", or why the score is missing or not comparable
    signatures  of the summaries behind the score
    no_interval why the score has no interval, where a summary says so; the remark repeats it
    """

    column: str
    score: str
    card: str
    difference: str
    interval: str
    verdict: str
    samples: str
    images: str
    protocol: str
    comparable: bool
    remark: str
    signatures: tuple[str, ...]
    no_interval: str = ""

    @property
    def missing(self) -> bool:
        """Whether the run has no score."""
        return self.score == MISSING

    @property
    def empty(self) -> bool:
        """Whether neither the run nor the card has a score."""
        return self.missing and self.card == self.samples == MISSING

    @property
    def ends(self) -> tuple[Decimal, Decimal] | None:
        """Both ends of the interval as printed, or None without one."""
        return None if self.interval == MISSING else _ends(self.interval)

    @property
    def cell(self) -> TableCell:
        """The score as printed in the run's row."""
        return TableCell(self.score, marked=not self.missing and not self.comparable)


def compare_with_card(run: RunScores, column: Column, row: CardRow) -> ColumnComparison:
    """A run's score of a column beside a row of the card.

    Raises RunError for a summary that lacks the card's metric or has it in another range.
    """
    tasks = [run.tasks[name] for name in column.tasks if name in run.tasks]
    missing = [name for name in column.tasks if name not in run.tasks]
    unscored = [task for task in tasks if not task.metrics]
    card = row.cells[column.key].text
    score, caveats = MISSING, ["no figure"]
    reasons: list[str] = []
    interval: SummaryInterval | None = None
    if missing:
        scorer = f" ({_scorer(column)})" if column.scored_by else ""
        remarks, tasks = [f"missing: {', '.join(missing)}{scorer}"], []
    elif unscored:
        remarks = [f"{task.task} {_unscored(task, column)}" for task in unscored]
    else:
        values = [_value(run, task, column) for task in tasks]
        score = f"{sum(values) / len(values) * column.scale:.{column.decimals}f}"
        interval = _mean_interval(tasks, column.metric, column.scale)
        caveats = _caveats(tasks)
        reasons = _no_interval(tasks, column.metric)
        remarks = _remarks(run, tasks, caveats) + reasons
        if number(card) is None:
            remarks.append("the card has no figure")
    comparison = _comparison(
        column.label, score, card, tasks, caveats, remarks, interval, column.decimals
    )
    verdict = NOT_RUN if missing else comparison.verdict
    return replace(comparison, verdict=verdict, no_interval="; ".join(reasons))


def compare_without_card(run: RunScores, task: Summary, column: Column | None) -> ColumnComparison:
    """The main score of a task that no printed row of the card can be compared with.

    column  the one that the task is a part of, if any
    """
    score, label, caveats = MISSING, task.task, _caveats([task])
    interval: SummaryInterval | None = None
    if task.metrics:
        metric, value = next(iter(task.metrics.items()))
        interval = _mean_interval([task], metric, SCALE)
        score, label = f"{value * SCALE:.{DECIMALS}f}", f"{label} {metric}"
        if column is None:
            reason = "no column of the card"
        elif task.few_shot:
            reason = f"the card has no {task.few_shot}-shot row here"
        else:
            reason = f"part of {column.label}"
        remarks = [reason, *_remarks(run, [task], caveats), *_no_interval([task], metric)]
    else:
        caveats, remarks = ["no figure"], [_unscored(task, column)]
    return _comparison(label, score, MISSING, [task], caveats, remarks, interval, DECIMALS)


def number(text: str) -> Decimal | None:
    """A score as printed, or None where there is none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _comparison(
    label: str,
    score: str,
    card: str,
    tasks: Sequence[Summary],
    caveats: Sequence[str],
    remarks: list[str],
    interval: SummaryInterval | None,
    decimals: int,
) -> ColumnComparison:
    printed = MISSING
    if interval:
        printed = f"{interval.low:.{decimals}f} to {interval.high:.{decimals}f}"
    return ColumnComparison(
        label,
        score,
        card or MISSING,
        _difference(score, card),
        printed,
        _verdict(score, card, printed, tasks, caveats),
        " + ".join(f"{task.samples:,}" for task in tasks) or MISSING,
        " + ".join(f"{task.images:,}" for task in tasks) or MISSING,
        " + ".join(dict.fromkeys(map(describe_protocol, tasks))) or MISSING,
        not caveats,
        "; ".join(remarks + _unparseable(tasks)),
        tuple(printable(task.signature, " ") for task in tasks if task.signature),
    )


def _verdict(
    score: str, card: str, interval: str, tasks: Sequence[Summary], caveats: Sequence[str]
) -> str:
    """Whether the run reproduces the card's score, from printed texts that a reader can check."""
    if number(score) is None or any(map(_is_partial, tasks)):
        return INCOMPLETE
    published = number(card)
    if published is None:
        return MISSING
    if caveats:
        return OTHER
    if interval == MISSING:
        return UNKNOWN
    low, high = _ends(interval)
    return REPRODUCED if low <= published <= high else OUTSIDE


def _ends(interval: str) -> tuple[Decimal, Decimal]:
    low, high = interval.split(" to ")
    return Decimal(low), Decimal(high)


def _is_partial(task: Summary) -> bool:
    return bool(task.failed or (task.size is not None and task.samples < task.size))


def _mean_interval(tasks: Sequence[Summary], metric: str, scale: int) -> SummaryInterval | None:
    """The interval of the tasks' plain mean: their errors are independent, so squares add up.

    The root of a sum of squares is at most the sum, so the ends stay in the metric's range.
    """
    if not all(metric in task.intervals for task in tasks):
        return None
    mean = sum(task.metrics[metric] for task in tasks) / len(tasks)
    pairs = [(task.metrics[metric], task.intervals[metric]) for task in tasks]
    below = math.sqrt(sum((score - each.low) ** 2 for score, each in pairs)) / len(tasks)
    above = math.sqrt(sum((score - each.high) ** 2 for score, each in pairs)) / len(tasks)
    return SummaryInterval(scale * (mean - below), scale * (mean + above))


def _no_interval(tasks: Sequence[Summary], metric: str) -> list[str]:
    """Why a score has no interval, where a summary says so."""
    reasons = (task.no_interval.get(metric, "") for task in tasks)
    return [printable(reason) for reason in dict.fromkeys(reasons) if reason]


def _unscored(task: Summary, column: Column | None) -> str:
    """Why there is no score."""
    if not task.samples:
        return f"not answered: all {task.failed:,} samples failed"
    return f"answered, {_scorer(column)}"


def _scorer(column: Column | None) -> str:
    return SCORED_BY_JUDGE if column and column.scored_by == JUDGE else SCORED_BY_SERVER


def _value(run: RunScores, task: Summary, column: Column) -> float:
    file = run.folder / task.task / SUMMARY
    if column.metric not in task.metrics:
        raise RunError(
            f"{file}: metric {column.metric!r} expected for the card's {column.label}, "
            f"{', '.join(task.metrics)} found. Score the run again: qwen-vl-eval score"
        )
    value = task.metrics[column.metric]
    if value > column.maximum:
        raise RunError(
            f"{file}: {column.metric!r}: a figure from 0 to {column.maximum:g} expected, {value:g} "
            f"found. Tables show it times {column.scale}; a summary holds it as it is"
        )
    return value


def _caveats(tasks: Sequence[Summary]) -> list[str]:
    """Why the score does not measure what the card's does; empty where it does."""
    return [
        f"{task.task} {caveat}" if len(tasks) > 1 else caveat
        for task in tasks
        for caveat in _task_caveats(task)
    ]


def _task_caveats(task: Summary) -> list[str]:
    caveats = []
    issues = task.faults
    if task.failed:
        caveats.append(f"incomplete: {task.failed:,} samples failed")
    if task.size is None:
        if not task.scored_by:  # a server knows how many there are
            caveats.append(f"{task.samples:,} samples, official number unknown")
    elif task.samples < task.size:
        caveats.append(f"partial: {task.samples:,} of {task.size:,} samples")
        issues = tuple(issue for issue in issues if not WRONG_COUNT.search(issue))  # it follows
    if issues:
        more = f" ({len(issues)} data issues in all)" if len(issues) > 1 else ""
        caveats.append(f"other data: {clean(issues[0])}{more}")
    caveats += [clean(caveat) for caveat in task.doubts]
    if published := task.as_published:
        caveats.append(
            f"scored as published, {published.processes} processes, "
            f"batches of {published.batch_size}"
        )
    if task.protocol != PUBLISHED:
        caveats.append(f"asked by protocol {task.protocol}, not the card's")
    return caveats


def _remarks(run: RunScores, tasks: Sequence[Summary], caveats: list[str]) -> list[str]:
    """A score's caveats, or "complete"; the server that gave it; whether it is unverified."""
    servers = dict.fromkeys(task.scored_by for task in tasks if task.scored_by)
    remarks = [*(caveats or ["complete"])]
    remarks += [f"scored by {clean(ADDRESS.sub('', server) or server)}" for server in servers]
    return remarks + ([UNVERIFIED] if any(run.unverified.get(t.task) for t in tasks) else [])


def _unparseable(tasks: Sequence[Summary]) -> list[str]:
    count = sum(task.unreadable for task in tasks)
    return [f"{count:,} unreadable, scored 0"] if count else []


def _difference(score: str, card: str) -> str:
    """Of the scores as printed, so that a reader can check it."""
    ours, published = number(score), number(card)
    if ours is None or published is None:
        return MISSING
    difference = ours - published
    return f"{difference:+}" if difference else f"{abs(difference)}"
