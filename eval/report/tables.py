"""The model card's tables with runs' rows in place.

All scores are rounded and all texts cleaned here; the forms only lay them out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from eval.errors import UsageError
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
from eval.report.comparison import (
    DECIMALS,
    SCALE,
    ColumnComparison,
    TableCell,
    compare_with_card,
    compare_without_card,
    number,
)
from eval.report.scores import RunScores, describe_protocol
from eval.run.files import Summary
from eval.storage.text import clean

CHATML = "chatml"  # the chat format of a Chat checkpoint
KINDS = {BASE: "base", CHAT: "Chat"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """A model's or a run's scores, in the order of the columns."""

    model: str
    cells: tuple[TableCell, ...]
    bold: bool = False
    run: bool = False


@dataclass(frozen=True, slots=True)
class TableGroup:
    """Rows under one label, "" where the table has no groups."""

    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """A run beside a row of the card, column by column.

    model   of the card's row; "" where there is none
    remark  "" or why it is not the row that one would expect
    """

    run: str
    model: str
    remark: str
    columns: tuple[ColumnComparison, ...]


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The score of the samples that have one value of a group. All are texts.

    task   with its metric
    group  such as answer_type; value: such as yes/no
    """

    task: str
    group: str
    value: str
    samples: str
    score: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the card with the runs' rows, and their comparison below it.

    header   with the card's spans; empty, like groups, in the two tables that are not the card's:
             tasks without a column, and scores by group
    grouped  whether the first column holds the groups' labels
    parts    run -> its scores by group
    """

    id: str
    title: str
    header: HeaderRows
    grouped: bool
    groups: tuple[TableGroup, ...]
    compared: tuple[Compared, ...]
    parts: Mapping[str, tuple[GroupScore, ...]] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[tuple[Header, ...], ...]:
        """For each column the header cells above it, from the top down."""
        rows = self.groups[0].rows if self.groups else ()
        return header_paths(self.header, self.grouped + 1 + len(rows[0].cells)) if rows else ()


def build_tables(
    runs: Sequence[RunScores],
    card: Card,
    row: str | None = None,
    all_tables: bool = False,
    by: bool = False,
) -> list[Table]:
    """The card's tables in which the runs have scores, and one of the tasks without a column.

    row         the card's model that the runs are compared with and printed below; default: the
                card's own Chat or base row, as the run's checkpoint is
    all_tables  also those without a score of a run
    by          also a table of the scores by group, where summaries have them

    Few-shot scores are printed below rows with as many examples, and nowhere else.

    Raises UsageError for a model that the card lacks or a run given twice, RunError for a summary
    that lacks the card's metric or has it in another range.
    """
    named = named_runs(runs)
    kinds = {r.model: r.checkpoint for t in card.tables for r in t.rows if r.model != MISSING}
    if row is not None and row not in kinds:
        raise UsageError(f"no row of the card is called {row!r}; it has: {', '.join(kinds)}")
    kind = kinds[row] if row else ""
    tables, shown = [], {name: set[str]() for name in named}
    for table in card.tables:
        placed = []
        for name, (run, few_shot) in named.items():
            checkpoint = kind or (CHAT if run.chat_format == CHATML else BASE)
            anchor = _anchor(table, row, checkpoint, few_shot)
            if anchor is None:
                continue
            columns = tuple(compare_with_card(run, column, anchor) for column in table.columns)
            if not all_tables and all(column.missing for column in columns):
                continue
            remark = _unexpected(anchor, row, checkpoint, few_shot)
            placed.append((anchor, Compared(name, anchor.model, remark, columns)))
            shown[name] |= {task for c in table.columns for task in _covered(run, c)}
        if placed or all_tables:
            tables.append(_table(table, placed))
    owners = {task: column for t in card.tables for column in t.columns for task in column.tasks}
    others = []
    for name, (run, _) in named.items():
        rest = [task for task in run.tasks.values() if task.task not in shown[name]]
        columns = tuple(compare_without_card(run, task, owners.get(task.task)) for task in rest)
        others += [Compared(name, "", "", columns)] if columns else []
    if others:
        tables.append(Table("others", "In no column of the card", (), False, (), tuple(others)))
    parts = (
        {name: tuple(_group_scores(run, owners)) for name, (run, _) in named.items()} if by else {}
    )
    if any(parts.values()):
        some = {name: scores for name, scores in parts.items() if scores}
        tables.append(Table("by", "Figures by group", (), False, (), (), some))
    return tables


def named_runs(runs: Sequence[RunScores]) -> dict[str, tuple[RunScores, int]]:
    """Runs by the name they are printed under, with their number of few-shot examples.

    The label of a name that two runs share has the folder too. Tasks of one run with different
    numbers of examples are split as if they were of different runs.
    """
    folders = [run.folder.resolve() for run in runs]
    names = [clean(run.name) for run in runs]
    named: dict[str, tuple[RunScores, int]] = {}
    for run, folder, name in zip(runs, folders, names, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"{run.folder}: given twice")
        label = name if names.count(name) == 1 else clean(f"{name} ({run.folder})")
        while label in named:
            label += "'"
        parts = run.by_shots()
        for few_shot, part in parts.items():
            named[f"{label}, {few_shot}-shot" if len(parts) > 1 else label] = (part, few_shot)
    return named


def _anchor(table: CardTable, row: str | None, checkpoint: str, few_shot: int) -> CardRow | None:
    """The row that is named, or the card's own for the checkpoint, or any of its own; of those with
    as many few-shot examples.
    """
    rows = [each for each in table.rows if each.few_shot == few_shot]
    own = sorted(
        (each for each in rows if each.checkpoint), key=lambda each: each.checkpoint != checkpoint
    )
    return next((each for each in rows if each.model == row), own[0] if own else None)


def _unexpected(anchor: CardRow, row: str | None, checkpoint: str, few_shot: int) -> str:
    """Why the row is not the one that was named or the checkpoint's own."""
    if row and row != anchor.model and CardRow(row, {}).few_shot != few_shot:
        return f"asked {few_shot}-shot, so not beside {row}"
    if row == anchor.model or anchor.checkpoint == checkpoint:
        return ""
    return f"the card has no {KINDS[checkpoint]} row here"


def _covered(run: RunScores, column: Column) -> set[str]:
    """Tasks that the column accounts for: all of its tasks, once the run has all."""
    return set(column.tasks) if run.tasks.keys() >= set(column.tasks) else set()


def _table(table: CardTable, placed: list[tuple[CardRow, Compared]]) -> Table:
    groups = tuple(_group(table, group, placed) for group in table.groups)
    compared = tuple(compared for _, compared in placed)
    return Table(table.id, table.title, table.header, table.grouped, groups, compared)


def _group(
    table: CardTable, group: CardGroup, placed: list[tuple[CardRow, Compared]]
) -> TableGroup:
    """The group's printed rows, each with the runs below it; the best scores are bold."""
    rows: list[TableRow] = []
    competing: list[TableRow] = []
    for card_row in group.rows:
        here = [compared for anchor, compared in placed if anchor is card_row]
        if card_row.hidden and not here:
            continue
        cells = [card_row.cells[column.key] for column in table.columns]
        printed = tuple(TableCell(cell.text, cell.note) for cell in cells)
        own = TableRow(card_row.model, printed, card_row.bold)
        ran = [TableRow(c.run, tuple(each.cell for each in c.columns), run=True) for c in here]
        rows += [own, *ran]
        competing += [] if card_row.hidden else [own, *ran]
    if group.marks_best:
        best = [_best(cells) for cells in zip(*(row.cells for row in competing), strict=True)]
        rows = [_embolden(row, best) if row in competing else row for row in rows]
    return TableGroup(group.title, tuple(rows))


def _best(cells: Sequence[TableCell]) -> Decimal | None:
    numbers = [number(cell.text) for cell in cells if not cell.marked]
    return max((number for number in numbers if number is not None), default=None)


def _embolden(row: TableRow, best: Sequence[Decimal | None]) -> TableRow:
    cells = (
        replace(cell, bold=not cell.marked and value is not None and number(cell.text) == value)
        for cell, value in zip(row.cells, best, strict=True)
    )
    return replace(row, cells=tuple(cells))


def _group_scores(run: RunScores, owners: Mapping[str, Column]) -> Iterator[GroupScore]:
    """A task's main score by group, scaled like its column."""
    for task in run.tasks.values():
        if task.metrics:
            yield from _task_group_scores(task, owners.get(task.task))


def _task_group_scores(task: Summary, column: Column | None) -> Iterator[GroupScore]:
    metric = column.metric if column else next(iter(task.metrics))
    scale, decimals = (column.scale, column.decimals) if column else (SCALE, DECIMALS)
    for group, values in task.by.items():
        for value, scores in values.items():
            score = scores.get(metric)
            yield GroupScore(
                f"{task.task} {metric}",
                clean(group),
                clean(value),
                f"{scores['samples']:,}",
                MISSING if score is None else f"{score * scale:.{decimals}f}",
                describe_protocol(task),
            )
