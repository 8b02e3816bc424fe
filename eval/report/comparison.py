"""A run's figure beside the card's, and how far the two can be compared.

All is text here, rounded and cleaned.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from eval.errors import RunError
from eval.protocols.qwen_vl import PUBLISHED
from eval.report.card import JUDGE, MISSING, CardRow, Column
from eval.report.scores import RunFigures, TaskFigures
from eval.run.files import SUMMARY

SCALE, DECIMALS = 100, 2  # of a figure that belongs to no column
SCORED_BY_SERVER, SCORED_BY_JUDGE = "to be scored by its server", "to be scored by the judge"
LONGEST = 80  # characters of a name that comes from a run
REPRODUCED, OUTSIDE = "reproduced", "outside"  # the card's figure lies in our interval, or not
INCOMPLETE, OTHER = "incomplete", "not comparable"
UNVERIFIED = "unverified"  # the summary cannot be compared with the files that it was made from
NOT_RUN, UNKNOWN = "not run", "no interval"
COUNTED = re.compile(r": [\d,]+ expected, [\d,]+ found$")  # a fault that is a wrong count
ADDRESS = re.compile(r"[\s,;(<]*https?://\S*")  # in the name of a server


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is printed.

    note    the line under it
    bold    the best of its group
    marked  not comparable with the card as it stands: partial, or asked in another way
    """

    text: str
    note: str = ""
    bold: bool = False
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column of a run beside the card. Texts are "-" where there is nothing to show.

    difference  of the two figures as printed
    interval    where the run's figure may lie, 95%, such as "57.9 to 59.2"
    verdict     reproduced, outside, incomplete, not comparable, not run; or "-" where the card has
                no figure, and "no interval" where none can be made, of a server's figure say
    samples     per task, joined by " + "; images: the distinct ones, likewise
    protocol    how it was asked, such as "published, 4-shot"
    comparable  whether the run measured what the card did
    remark      "complete", or why the figure is missing or not comparable
    signatures  of the summaries behind the figure
    no_interval why the figure has no interval, where a summary says so; the remark says it too
    """

    column: str
    figure: str
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
        """Whether there is no figure."""
        return self.figure == MISSING

    @property
    def empty(self) -> bool:
        """Whether there is nothing on either side."""
        return self.missing and self.card == self.samples == MISSING

    @property
    def cell(self) -> Cell:
        """The figure as it stands in the run's row."""
        return Cell(self.figure, marked=not self.missing and not self.comparable)


def compare(run: RunFigures, column: Column, row: CardRow) -> Comparison:
    """A run's figure of a column beside a row of the card.

    Raises RunError for a summary that lacks the card's metric or has it in another range.
    """
    tasks = [run.tasks[name] for name in column.tasks if name in run.tasks]
    lacking = [name for name in column.tasks if name not in run.tasks]
    unscored = [task for task in tasks if not task.metrics]
    card = row.cells[column.key].text
    figure, doubts = MISSING, ["no figure"]
    reasons: list[str] = []
    ends: tuple[float, float] | None = None
    if lacking:
        scorer = f" ({_scorer(column)})" if column.scored_by else ""
        remarks, tasks = [f"missing: {', '.join(lacking)}{scorer}"], []
    elif unscored:
        remarks = [f"{task.task} {_unscored(task, column)}" for task in unscored]
    else:
        values = [_value(run, task, column) for task in tasks]
        figure = f"{sum(values) / len(values) * column.scale:.{column.decimals}f}"
        ends = _ends(tasks, column.metric, column.scale)
        doubts = _doubts(tasks)
        reasons = _no_interval(tasks, column.metric)
        remarks = _worth(tasks, doubts) + reasons
        if number(card) is None:
            remarks.append("the card has no figure")
    found = _comparison(
        column.label, figure, card, tasks, doubts, remarks, ends, column.decimals, bool(lacking)
    )
    return replace(found, no_interval="; ".join(reasons))


def beside_nothing(task: TaskFigures, column: Column | None) -> Comparison:
    """The main figure of a task that no printed row of the card can stand beside.

    column  the one that the task is a part of, if any
    """
    figure, label, doubts = MISSING, task.task, _doubts([task])
    ends: tuple[float, float] | None = None
    if task.metrics:
        metric, value = next(iter(task.metrics.items()))
        ends = _ends([task], metric, SCALE)
        figure, label = f"{value * SCALE:.{DECIMALS}f}", f"{label} {metric}"
        if column is None:
            reason = "no column of the card"
        elif task.few_shot:
            reason = f"the card has no {task.few_shot}-shot row here"
        else:
            reason = f"part of {column.label}"
        remarks = [reason, *_worth([task], doubts), *_no_interval([task], metric)]
    else:
        doubts, remarks = ["no figure"], [_unscored(task, column)]
    return _comparison(label, figure, MISSING, [task], doubts, remarks, ends, DECIMALS, False)


def clean(text: str) -> str:
    """One line that can be printed: what is not printable is replaced, what is long cut off."""
    line = printable(text).strip() or "(no name)"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def printable(text: str) -> str:
    """The text with a replacement character for each that cannot be printed, line feeds too."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def number(text: str) -> Decimal | None:
    """A figure as printed, or None where there is none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _comparison(
    label: str,
    figure: str,
    card: str,
    tasks: Sequence[TaskFigures],
    doubts: Sequence[str],
    remarks: list[str],
    ends: tuple[float, float] | None,
    decimals: int,
    lacking: bool,
) -> Comparison:
    interval = MISSING
    if ends:
        interval = f"{ends[0]:.{decimals}f} to {ends[1]:.{decimals}f}"
    return Comparison(
        label,
        figure,
        card or MISSING,
        _difference(figure, card),
        interval,
        NOT_RUN if lacking else _verdict(figure, card, interval, tasks, doubts),
        " + ".join(f"{task.samples:,}" for task in tasks) or MISSING,
        " + ".join(f"{task.images:,}" for task in tasks) or MISSING,
        " + ".join(dict.fromkeys(task.asked for task in tasks)) or MISSING,
        not doubts,
        "; ".join(remarks + _unreadable(tasks)),
        tuple(_signature(task) for task in tasks if task.signature),
    )


def _verdict(
    figure: str, card: str, interval: str, tasks: Sequence[TaskFigures], doubts: Sequence[str]
) -> str:
    """What the run says of the card's figure; all texts, so that a reader can check it."""
    if number(figure) is None or any(map(_is_partial, tasks)):
        return INCOMPLETE
    theirs = number(card)
    if theirs is None:
        return MISSING
    if doubts:
        return OTHER
    if interval == MISSING:
        return UNKNOWN
    low, high = (Decimal(end) for end in interval.split(" to "))
    return REPRODUCED if low <= theirs <= high else OUTSIDE


def _is_partial(task: TaskFigures) -> bool:
    return bool(task.failed or (task.size is not None and task.samples < task.size))


def _ends(tasks: Sequence[TaskFigures], metric: str, scale: int) -> tuple[float, float] | None:
    """The interval of the tasks' plain mean: their errors are independent, so squares add up.

    The root of a sum of squares is at most the sum, so the ends stay in the metric's range.
    """
    if not all(metric in task.intervals for task in tasks):
        return None
    mean = sum(task.metrics[metric] for task in tasks) / len(tasks)
    reaches = (
        math.sqrt(sum((task.metrics[metric] - task.intervals[metric][end]) ** 2 for task in tasks))
        for end in (0, 1)
    )
    below, above = (reach / len(tasks) for reach in reaches)
    return scale * (mean - below), scale * (mean + above)


def _no_interval(tasks: Sequence[TaskFigures], metric: str) -> list[str]:
    """Why a figure has no interval, where a summary says so."""
    reasons = (task.no_interval.get(metric, "") for task in tasks)
    return [printable(reason) for reason in dict.fromkeys(reasons) if reason]


def _unscored(task: TaskFigures, column: Column | None) -> str:
    """Why there is no figure."""
    if not task.samples:
        return f"not answered: all {task.failed:,} samples failed"
    return f"answered, {_scorer(column)}"


def _scorer(column: Column | None) -> str:
    return SCORED_BY_JUDGE if column and column.scored_by == JUDGE else SCORED_BY_SERVER


def _value(run: RunFigures, task: TaskFigures, column: Column) -> float:
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


def _doubts(tasks: Sequence[TaskFigures]) -> list[str]:
    """Why the figure is not what the card measured; empty where it is."""
    return [
        f"{task.task} {doubt}" if len(tasks) > 1 else doubt
        for task in tasks
        for doubt in _doubts_of(task)
    ]


def _doubts_of(task: TaskFigures) -> list[str]:
    doubts = []
    faults = task.faults
    if task.failed:
        doubts.append(f"incomplete: {task.failed:,} samples failed")
    if task.size is None:
        if not task.scored_by:  # a server knows how many there are
            doubts.append(f"{task.samples:,} samples, official number unknown")
    elif task.samples < task.size:
        doubts.append(f"partial: {task.samples:,} of {task.size:,} samples")
        faults = tuple(fault for fault in faults if not COUNTED.search(fault))  # follow from it
    if faults:
        more = f" ({len(faults)} faults in all)" if len(faults) > 1 else ""
        doubts.append(f"other data: {clean(faults[0])}{more}")
    doubts += [clean(doubt) for doubt in task.doubts]
    if task.as_published:
        processes, batch_size = task.as_published
        doubts.append(f"scored as published, {processes} processes, batches of {batch_size}")
    if task.protocol != PUBLISHED:
        doubts.append(f"asked by protocol {task.protocol}, not the card's")
    return doubts


def _worth(tasks: Sequence[TaskFigures], doubts: list[str]) -> list[str]:
    """What a score is worth: its doubts, or that it is complete; the server that gave it; and
    whether it could be compared with the answers."""
    servers = dict.fromkeys(task.scored_by for task in tasks if task.scored_by)
    told = [f"scored by {clean(ADDRESS.sub('', server) or server)}" for server in servers]
    told += [UNVERIFIED] if any(task.unverified for task in tasks) else []
    return [*(doubts or ["complete"]), *told]


def _unreadable(tasks: Sequence[TaskFigures]) -> list[str]:
    count = sum(task.unreadable for task in tasks)
    return [f"{count:,} unreadable, scored 0"] if count else []


def _signature(task: TaskFigures) -> str:
    """The signature as one printable line, in full."""
    return "".join(char if char.isprintable() else " " for char in task.signature)


def _difference(figure: str, card: str) -> str:
    """Of the figures as printed, so that a reader can check it."""
    ours, theirs = number(figure), number(card)
    if ours is None or theirs is None:
        return MISSING
    difference = ours - theirs
    return f"{difference:+}" if difference else f"{abs(difference)}"
