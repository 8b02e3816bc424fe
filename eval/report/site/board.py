"""The leaderboard as data: the card's models and the runs, benchmark by benchmark.

A family is a table of the card, its two tables of dialogues one. A family's score is the mean, over
the benchmarks of it that a model has a comparable figure of, of the figure in percent of the card's
own model: of Qwen-VL, and of Qwen-VL-Chat where that has none. So figures of 0 to 1,000 weigh no
more than others, and easy benchmarks that are missing no more than hard ones. Scores of different
benchmarks still differ, so it is said how many there are, and ranks compare by what two have.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from eval.report.card import BASE, CHAT, MISSING, Card, CardGroup, CardRow, CardTable
from eval.report.comparison import Comparison, clean, number
from eval.report.scores import RunFigures
from eval.report.site.rank import Draws, Figure, Rank
from eval.report.site.runs import Run
from eval.report.tables import build_tables

ALL = "all"  # the scope of all families
RUN, OWN, OTHER, SPECIALIST = "run", "the card's own model", "the card", "the card, specialist"
FAMILIES_NEEDED = 2  # to rank among all


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A column of the card.

    reference  of the card's own model, or None where it has no figure to take others relative to
    """

    id: str
    label: str
    reference: float | None


@dataclass(frozen=True, slots=True)
class Family:
    """A table of the card, or several under one heading."""

    id: str
    title: str
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as printed, "-" where there is none.

    interval  of a run's figure, such as "57.9 to 59.2", or ""
    note      which model a record of the card belongs to, or what a run's figure is worth
    marked    not comparable, and so not ranked
    figure    None where it does not rank
    """

    text: str = MISSING
    interval: str = ""
    note: str = ""
    marked: bool = False
    figure: Figure | None = None
    rank: Rank | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Of a family, in percent of the card's own model.

    interval  or "" where all of its figures are points
    counted   benchmarks that it is the mean of; of: benchmarks of the family
    """

    text: str
    interval: str
    value: float
    low: float
    high: float
    counted: int
    of: int


@dataclass(frozen=True, slots=True)
class Row:
    """A model of the card or a run.

    kind      RUN, OWN, OTHER or SPECIALIST
    unranked  "" or why no figure of it ranks
    cells     by benchmark
    scores    by family
    ranks     by family, and ALL
    run       None for a model of the card
    shots     examples before each question
    beside    a run's figures and the card's, family by family, as `report` prints them
    """

    id: str
    name: str
    kind: str
    unranked: str
    cells: Mapping[str, Cell]
    scores: Mapping[str, Score]
    ranks: Mapping[str, Rank]
    run: Run | None = None
    shots: int = 0
    beside: tuple["Beside", ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """A run beside a model of the card, "" where there is none; columns: benchmark -> comparison.

    remark  "" or why it is not the model one would expect
    """

    title: str
    model: str
    remark: str
    columns: Mapping[str, Comparison]


@dataclass(frozen=True, slots=True)
class Board:
    """Rows by rank: those that rank, then the runs, then the rest of the card."""

    families: tuple[Family, ...]
    rows: tuple[Row, ...]

    def rows_of(self, run: Run) -> tuple[Row, ...]:
        """A run's rows, one for each number of few-shot examples."""
        return tuple(row for row in self.rows if row.run is run)


def build_board(runs: Sequence[Run], card: Card) -> Board:
    """Put the runs beside the card's models, and rank all.

    Raises RunError for a summary that lacks the card's metric or has it in another range.
    """
    families = _families(card)
    rows = [*_run_rows(runs, card, families)]
    shots = {row.shots for row in rows}
    rows += [row for row in _card_rows(card, families) if not row.shots or row.shots in shots]
    rows = _ranked(rows, families)
    last = len(rows) + 1.0
    rows.sort(key=lambda row: row.ranks[ALL].middle if ALL in row.ranks else last)
    return Board(families, tuple(rows))


def _heading(table: CardTable) -> tuple[str, str]:
    """A table's title and, where several stand under one heading, its own part of it."""
    title, _, part = table.title.partition(": ")
    return title, part


def _ids(card: Card) -> Iterator[tuple[CardTable, str, str]]:
    """Each column's table, key and id."""
    for number_of_table, table in enumerate(card.tables):
        for number_of_column, column in enumerate(table.columns):
            yield table, column.key, f"b{number_of_table}-{number_of_column}"


def _families(card: Card) -> tuple[Family, ...]:
    ids = {(table.id, key): found for table, key, found in _ids(card)}
    titles: dict[str, list[Benchmark]] = {}
    for table in card.tables:
        title, part = _heading(table)
        for column in table.columns:
            label = f"{part} {column.label}".strip()
            reference = _reference(table, column.key)
            benchmark = Benchmark(ids[table.id, column.key], label, reference)
            titles.setdefault(title, []).append(benchmark)
    return tuple(
        Family(f"f{place}", title, tuple(found))
        for place, (title, found) in enumerate(titles.items())
    )


def _reference(table: CardTable, key: str) -> float | None:
    """The figure of the card's own model, the base one if it has one."""
    for kind in (BASE, CHAT):
        for row in table.rows:
            if row.checkpoint == kind and not row.few_shot:
                figure = number(row.cells[key].text)
                if figure:
                    return float(figure)
    return None


def _run_rows(runs: Sequence[Run], card: Card, families: Sequence[Family]) -> Iterator[Row]:
    """A row for a run, or one for each number of examples that its tasks were asked with."""
    names = [clean(run.figures.name) for run in runs]
    empty = _no_cells(families)
    taken: set[str] = set()
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        label = name if names.count(name) == 1 else clean(f"{name} ({run.folder})")
        while label in taken:
            label += "'"
        taken.add(label)
        shots = sorted({task.few_shot for task in run.figures.tasks.values()})
        for few_shot in shots:
            tasks = {n: t for n, t in run.figures.tasks.items() if t.few_shot == few_shot}
            beside = tuple(_beside(replace(run.figures, tasks=tasks), card))
            compared = {id_: found for each in beside for id_, found in each.columns.items()}
            cells = {id_: _cell(compared[id_]) if id_ in compared else Cell() for id_ in empty}
            unranked = f"asked {few_shot}-shot" if few_shot else ""
            if not any(cell.figure for cell in cells.values()):
                unranked = unranked or "no comparable figure"
            yield Row(
                f"r{place}-{few_shot}",
                f"{label}, {few_shot}-shot" if len(shots) > 1 else label,
                RUN,
                unranked,
                cells,
                scores={},
                ranks={},
                run=run,
                shots=few_shot,
                beside=beside,
            )


def _no_cells(families: Sequence[Family]) -> dict[str, Cell]:
    return {benchmark.id: Cell() for family in families for benchmark in family.benchmarks}


def _beside(run: RunFigures, card: Card) -> Iterator[Beside]:
    """The run's comparison with each table of the card, and what is in none."""
    ids: dict[str, list[str]] = {}
    for table, _, found in _ids(card):
        ids.setdefault(table.id, []).append(found)
    for printed in build_tables([run], card, all_tables=True):
        for compared in printed.compared:
            names = ids.get(printed.id) or [f"other-{n}" for n in range(len(compared.columns))]
            columns = dict(zip(names, compared.columns, strict=True))
            if any(not column.empty and column.samples != MISSING for column in compared.columns):
                yield Beside(printed.title, compared.model, compared.remark, columns)


def _cell(compared: Comparison) -> Cell:
    if compared.missing:
        return Cell(note=compared.remark if compared.samples != MISSING else "")
    value = float(compared.figure)
    interval = "" if compared.interval == MISSING else compared.interval
    low, high = (float(end) for end in interval.split(" to ")) if interval else (value, value)
    ranks = compared.comparable and not compared.no_interval  # else it would rank as if certain
    figure = Figure(value, min(low, value), max(high, value)) if ranks else None
    return Cell(compared.figure, interval, compared.remark, not compared.comparable, figure)


def _card_rows(card: Card, families: Sequence[Family]) -> Iterator[Row]:
    """The card's models. Its own go by several names, and are one row; others are as printed."""
    ids = {(table.id, key): found for table, key, found in _ids(card)}
    empty = _no_cells(families)
    rows: dict[tuple[str, str, int], Row] = {}
    for table in card.tables:
        for group in table.groups:
            for row in group.rows:
                key = (row.checkpoint or row.model, _kind(table, group, row), row.few_shot)
                found = rows.get(key)
                if found is None:
                    name = clean(row.model if row.model != MISSING else group.title)
                    found = Row(
                        f"m{len(rows)}", name, key[1], _why(key), empty, {}, {}, None, key[2]
                    )
                cells = {ids[table.id, name]: _card_cell(row, name) for name in row.cells}
                rows[key] = replace(found, cells={**found.cells, **cells})
    yield from rows.values()


def _kind(table: CardTable, group: CardGroup, row: CardRow) -> str:
    if row.checkpoint:
        return OWN
    return OTHER if group.marks_best or not table.grouped else SPECIALIST


def _why(key: tuple[str, str, int]) -> str:
    if key[2]:
        return f"asked {key[2]}-shot"
    return "not ranked: a model made for one task" if key[1] == SPECIALIST else ""


def _card_cell(row: CardRow, key: str) -> Cell:
    cell = row.cells[key]
    value = number(cell.text)
    if value is None:
        return Cell()
    return Cell(cell.text, note=cell.note, figure=Figure(*[float(value)] * 3))


def _ranked(rows: Sequence[Row], families: Sequence[Family]) -> list[Row]:
    """The same rows, with scores of families, and with ranks where they may have one."""
    benchmarks = [b for family in families for b in family.benchmarks]
    places = {b.id: place for place, b in enumerate(benchmarks)}
    usable = [[_relative(row.cells[b.id].figure, b.reference) for b in benchmarks] for row in rows]
    columns = {f.id: [places[b.id] for b in f.benchmarks] for f in families}
    shown = [
        replace(row, scores=dict(_scores(figures, columns)))
        for row, figures in zip(rows, usable, strict=True)
    ]
    ranking = [y for y, row in enumerate(rows) if not row.unranked]
    drawn = Draws([usable[y] for y in ranking])
    scopes = {ALL: drawn.ranks(list(columns.values()), FAMILIES_NEEDED)}
    scopes |= {id_: drawn.ranks([column]) for id_, column in columns.items()}
    single = {b.id: drawn.ranks([[places[b.id]]]) for b in benchmarks}
    for n, y in enumerate(ranking):
        row = shown[y]
        cells = {id_: replace(cell, rank=single[id_][n]) for id_, cell in row.cells.items()}
        told = {scope: found for scope, ranks in scopes.items() if (found := ranks[n])}
        shown[y] = replace(row, cells=cells, ranks=told)
    return shown


def _relative(figure: Figure | None, reference: float | None) -> Figure | None:
    """In percent of the reference."""
    if figure is None or not reference:
        return None
    return Figure(*(100 * end / reference for end in (figure.value, figure.low, figure.high)))


def _scores(
    figures: Sequence[Figure | None], families: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Score]]:
    """Of each family with a figure. Errors are independent, so their squares add up."""
    for id_, columns in families.items():
        found = [figure for column in columns if (figure := figures[column]) is not None]
        if not found:
            continue
        value = sum(figure.value for figure in found) / len(found)
        low = value - math.hypot(*(f.value - f.low for f in found)) / len(found)
        high = value + math.hypot(*(f.high - f.value for f in found)) / len(found)
        interval = f"{low:.1f} to {high:.1f}" if low < high else ""
        yield id_, Score(f"{value:.1f}", interval, value, low, high, len(found), len(columns))
