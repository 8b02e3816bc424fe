"""The model card's tables with runs' rows in place, and how far each figure can be compared.

Everything is text here, rounded and cleaned, so that a renderer only has to lay it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import chain

from eval.errors import RunError, UsageError
from eval.report.card import (
    BASE,
    CHAT,
    MISSING,
    Card,
    CardGroup,
    CardRow,
    CardTable,
    Column,
    Header,
    HeaderRows,
    header_paths,
)
from eval.report.figures import RunFigures, TaskFigures
from eval.run import PROTOCOL, SUMMARY

CHATML = "chatml"  # the chat format of a Chat checkpoint
KINDS = {BASE: "base", CHAT: "Chat"}
SCALE, DECIMALS = 100, 2  # of a figure that belongs to no column
SERVER = "to be scored by its server"
LONGEST = 80  # characters of a name that comes from a run


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
class Row:
    """A model's or a run's figures, in the order of the columns."""

    model: str
    cells: tuple[Cell, ...]
    bold: bool = False
    run: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one label, "" where the table has no groups."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column of a run beside the card. Texts are "-" where there is nothing to show.

    difference  of the two figures as printed
    samples     per task, joined by " + "; images: the distinct ones, likewise
    comparable  whether the run measured what the card did
    remark      "complete", or why the figure is missing or not comparable
    signatures  of the summaries behind the figure
    """

    column: str
    figure: str
    card: str
    difference: str
    samples: str
    images: str
    comparable: bool
    remark: str
    signatures: tuple[str, ...]

    @property
    def missing(self) -> bool:
        """Whether there is no figure."""
        return self.figure == MISSING

    @property
    def cell(self) -> Cell:
        """The figure as it stands in the run's row."""
        return Cell(self.figure, marked=not self.missing and not self.comparable)


@dataclass(frozen=True, slots=True)
class Compared:
    """A run beside a row of the card, column by column.

    model   of the card's row; "" where there is none
    remark  "" or why it is not the row that one would expect
    """

    run: str
    model: str
    remark: str
    columns: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the card with the runs' rows, and their comparison below it.

    header   with the card's spans; empty, like groups, in the last table, which lists what fits
             into no column
    grouped  whether the first column holds the groups' labels
    """

    id: str
    title: str
    header: HeaderRows
    grouped: bool
    groups: tuple[Group, ...]
    compared: tuple[Compared, ...]

    @property
    def paths(self) -> tuple[tuple[Header, ...], ...]:
        """For each column the header cells above it, from the top down."""
        rows = self.groups[0].rows if self.groups else ()
        return header_paths(self.header, self.grouped + 1 + len(rows[0].cells)) if rows else ()


def build_tables(
    runs: Sequence[RunFigures], card: Card, row: str | None = None, all_tables: bool = False
) -> list[Table]:
    """The card's tables in which the runs have figures, and one of what fits into no column.

    row         the card's model that the runs are compared with and printed below; default: the
                card's own Chat or base row, as the run's checkpoint is
    all_tables  also those without a figure of a run

    Raises UsageError for a model that the card lacks or a run given twice, RunError for a summary
    that lacks the card's metric or has it in another range.
    """
    named = _named(runs)
    kinds = {r.model: r.checkpoint for t in card.tables for r in t.rows if r.model != MISSING}
    if row is not None and row not in kinds:
        raise UsageError(f"no row of the card is called {row!r}; it has: {', '.join(kinds)}")
    kind = kinds[row] if row else ""
    tables, shown = [], {name: set[str]() for name in named}
    for table in card.tables:
        placed = []
        for name, run in named.items():
            wanted = kind or (CHAT if run.chat_format == CHATML else BASE)
            anchor = _anchor(table, row, wanted)
            columns = tuple(_compare(run, column, anchor) for column in table.columns)
            if not all_tables and all(column.missing for column in columns):
                continue
            kept = row == anchor.model or anchor.checkpoint == wanted
            remark = "" if kept else f"the card has no {KINDS[wanted]} row here"
            placed.append((anchor, Compared(name, anchor.model, remark, columns)))
            shown[name] |= {task for c in table.columns for task in _covered(run, c)}
        if placed or all_tables:
            tables.append(_table(table, placed))
    others = [_others(name, run, card, shown[name]) for name, run in named.items()]
    if any(compared.columns for compared in others):
        kept_others = tuple(compared for compared in others if compared.columns)
        tables.append(Table("others", "In no column of the card", (), False, (), kept_others))
    return tables


def _clean(text: str) -> str:
    """One line that can be printed: what is not printable is replaced, what is long cut off."""
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    line = line.strip() or "(no name)"
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def _named(runs: Sequence[RunFigures]) -> dict[str, RunFigures]:
    """Runs by the name they are printed under; two of one name are told apart by their folders."""
    folders = [run.folder.resolve() for run in runs]
    names = [_clean(run.name) for run in runs]
    named: dict[str, RunFigures] = {}
    for run, folder, name in zip(runs, folders, names, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"{run.folder}: given twice")
        label = name if names.count(name) == 1 else _clean(f"{name} ({run.folder})")
        while label in named:
            label += "'"
        named[label] = run
    return named


def _anchor(table: CardTable, row: str | None, wanted: str) -> CardRow:
    """The row that is named, or the card's own for the checkpoint, or any of its own."""
    own = [each for each in table.rows if each.checkpoint and not each.hidden]
    own.sort(key=lambda each: each.checkpoint != wanted)
    return next((each for each in table.rows if each.model == row), own[0])


def _compare(run: RunFigures, column: Column, anchor: CardRow) -> Comparison:
    tasks = [run.tasks[name] for name in column.tasks if name in run.tasks]
    lacking = [name for name in column.tasks if name not in run.tasks]
    unscored = [task.task for task in tasks if not task.metrics]
    card = anchor.cells[column.key].text
    figure, comparable = MISSING, False
    if lacking:
        remarks = [f"missing: {', '.join(lacking)}{' (' + SERVER + ')' if column.server else ''}"]
        tasks = []
    elif unscored:
        remarks = [f"{', '.join(unscored)} answered, {SERVER}"]
    else:
        values = [_value(run, task, column) for task in tasks]
        figure = f"{sum(values) / len(values) * column.scale:.{column.decimals}f}"
        remarks = _doubts(tasks)
        comparable = not remarks
        remarks = remarks or ["complete"]
        if _number(card) is None:
            remarks.append("the card has no figure")
    return Comparison(
        column.label,
        figure,
        card or MISSING,
        _difference(figure, card),
        " + ".join(f"{task.samples:,}" for task in tasks) or MISSING,
        " + ".join(f"{task.images:,}" for task in tasks) or MISSING,
        comparable,
        "; ".join(remarks + _unreadable(tasks)),
        tuple(_signature(task) for task in tasks if task.signature),
    )


def _signature(task: TaskFigures) -> str:
    """The signature as one printable line, in full."""
    return "".join(char if char.isprintable() else " " for char in task.signature)


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
    doubts = []
    for task in tasks:
        prefix = f"{task.task} " if len(tasks) > 1 else ""
        if task.size is None:
            doubts.append(f"{prefix}{task.samples:,} samples, official number unknown")
        elif not task.complete:
            doubts.append(f"{prefix}partial: {task.samples:,} of {task.size:,} samples")
        if task.protocol != PROTOCOL:
            doubts.append(f"{prefix}asked by protocol {task.protocol}, not the card's")
    return doubts


def _unreadable(tasks: Sequence[TaskFigures]) -> list[str]:
    count = sum(task.unreadable for task in tasks)
    return [f"{count:,} unreadable, scored 0"] if count else []


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _difference(figure: str, card: str) -> str:
    """Of the figures as printed, so that a reader can check it."""
    ours, theirs = _number(figure), _number(card)
    if ours is None or theirs is None:
        return MISSING
    difference = ours - theirs
    return f"{difference:+}" if difference else f"{abs(difference)}"


def _covered(run: RunFigures, column: Column) -> set[str]:
    """Tasks that the column accounts for: all of its tasks, once none is lacking."""
    return set(column.tasks) if run.tasks.keys() >= set(column.tasks) else set()


def _table(table: CardTable, placed: list[tuple[CardRow, Compared]]) -> Table:
    groups = tuple(_group(table, group, placed) for group in table.groups)
    compared = tuple(compared for _, compared in placed)
    return Table(table.id, table.title, table.header, table.grouped, groups, compared)


def _group(table: CardTable, group: CardGroup, placed: list[tuple[CardRow, Compared]]) -> Group:
    """The group's printed rows, each with the runs below it, and the best of them in bold."""
    rows: list[Row] = []
    competing: list[Row] = []
    for card_row in group.rows:
        here = [compared for anchor, compared in placed if anchor is card_row]
        if card_row.hidden and not here:
            continue
        cells = [card_row.cells[column.key] for column in table.columns]
        printed = tuple(Cell(cell.text, cell.note) for cell in cells)
        own = Row(card_row.model, printed, card_row.bold)
        ran = [Row(c.run, tuple(each.cell for each in c.columns), run=True) for c in here]
        rows += [own, *ran]
        competing += ran if card_row.hidden else [own, *ran]
    if group.marks_best:
        best = [_best(cells) for cells in zip(*(row.cells for row in competing), strict=True)]
        rows = [_embolden(row, best) if row in competing else row for row in rows]
    return Group(group.title, tuple(rows))


def _best(cells: Sequence[Cell]) -> Decimal | None:
    numbers = [_number(cell.text) for cell in cells if not cell.marked]
    return max((number for number in numbers if number is not None), default=None)


def _embolden(row: Row, best: Sequence[Decimal | None]) -> Row:
    cells = (
        replace(cell, bold=not cell.marked and value is not None and _number(cell.text) == value)
        for cell, value in zip(row.cells, best, strict=True)
    )
    return replace(row, cells=tuple(cells))


def _others(name: str, run: RunFigures, card: Card, shown: set[str]) -> Compared:
    """The run's tasks that no printed column accounts for, with their main figures."""
    columns: Mapping[str, Column] = {
        task: column
        for column in chain.from_iterable(table.columns for table in card.tables)
        for task in column.tasks
    }
    return Compared(
        name,
        "",
        "",
        tuple(
            _other(task, columns.get(task.task))
            for task in run.tasks.values()
            if task.task not in shown
        ),
    )


def _other(task: TaskFigures, column: Column | None) -> Comparison:
    figure, label = MISSING, task.task
    remarks = [f"part of {column.label}" if column else "no column of the card"]
    if task.metrics:
        metric, value = next(iter(task.metrics.items()))
        figure, label = f"{value * SCALE:.{DECIMALS}f}", f"{label} {metric}"
        remarks += _doubts([task]) or ["complete"]
    else:
        remarks = [f"answered, {SERVER}"]
    return Comparison(
        label,
        figure,
        MISSING,
        MISSING,
        f"{task.samples:,}",
        f"{task.images:,}",
        bool(task.metrics) and not _doubts([task]),
        "; ".join(remarks + _unreadable([task])),
        (_signature(task),) if task.signature else (),
    )
