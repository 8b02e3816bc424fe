"""The leaderboard as data: the card's models and the runs, benchmark by benchmark.

A family is a table of the card; its two tables of dialogues are one family. A family's score is the
mean of a model's comparable scores in percent of the card's own model: of Qwen-VL, or of
Qwen-VL-Chat where that has none. So scores of 0 to 1,000 weigh no more than others, and a missing
easy benchmark counts no more than a hard one. Means over different benchmarks still differ, so the
board shows how many there are, and ranks compare two models by their common benchmarks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from eval.report.card import BASE, CHAT, MISSING, Card, CardGroup, CardRow, CardTable
from eval.report.comparison import ColumnComparison, number
from eval.report.scores import RunScores
from eval.report.site.rank import Draws, ScoreInterval, Standing
from eval.report.site.runs import Run
from eval.report.tables import build_tables
from eval.storage.text import clean

ALL = "all"  # the scope of all families
RUN, OWN, OTHER, SPECIALIST = "run", "the card's own model", "the card", "the card, specialist"
FAMILIES_NEEDED = 2  # to rank among all


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A column of the card.

    reference  the score of the card's own model, which is 100%, or None without one
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
class BoardCell:
    """A score as printed, "-" where there is none.

    interval  of a run's score, such as "57.9 to 59.2", or ""
    note      the model that holds a record of the card, or the remarks on a run's score
    marked    not comparable, and so not ranked
    score     None where it does not rank
    """

    text: str = MISSING
    interval: str = ""
    note: str = ""
    marked: bool = False
    score: ScoreInterval | None = None
    rank: Standing | None = None


@dataclass(frozen=True, slots=True)
class FamilyScore:
    """Of a family, in percent of the card's own model.

    interval  or "" where all of its scores are points
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
class BoardRow:
    """A model of the card or a run.

    kind      RUN, OWN, OTHER or SPECIALIST
    unranked  "" or why none of its scores ranks
    cells     by benchmark
    scores    by family
    ranks     by family, and ALL
    run       None for a model of the card
    shots     examples before each question
    beside    a run's scores and the card's, family by family, as `report` prints them
    """

    id: str
    name: str
    kind: str
    unranked: str
    cells: Mapping[str, BoardCell]
    scores: Mapping[str, FamilyScore]
    ranks: Mapping[str, Standing]
    run: Run | None = None
    shots: int = 0
    beside: tuple["Beside", ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """A run beside a model of the card, "" where there is none; columns: benchmark -> comparison.

    remark  "" or why it is not the expected model
    """

    title: str
    model: str
    remark: str
    columns: Mapping[str, ColumnComparison]


@dataclass(frozen=True, slots=True)
class Board:
    """Rows by rank: ranked ones, then other runs, then the rest of the card."""

    families: tuple[Family, ...]
    rows: tuple[BoardRow, ...]

    def rows_of(self, run: Run) -> tuple[BoardRow, ...]:
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
    ids = {(table.id, key): id_ for table, key, id_ in _ids(card)}
    titles: dict[str, list[Benchmark]] = {}
    for table in card.tables:
        title, part = _heading(table)
        for column in table.columns:
            label = f"{part} {column.label}".strip()
            reference = _reference(table, column.key)
            benchmark = Benchmark(ids[table.id, column.key], label, reference)
            titles.setdefault(title, []).append(benchmark)
    return tuple(
        Family(f"f{place}", title, tuple(benchmarks))
        for place, (title, benchmarks) in enumerate(titles.items())
    )


def _reference(table: CardTable, key: str) -> float | None:
    """The score of the card's own model, of the base one if it has one."""
    for kind in (BASE, CHAT):
        for row in table.rows:
            if row.checkpoint == kind and not row.few_shot:
                score = number(row.cells[key].text)
                if score:
                    return float(score)
    return None


def _run_rows(runs: Sequence[Run], card: Card, families: Sequence[Family]) -> Iterator[BoardRow]:
    """A row for each run and number of few-shot examples of its tasks."""
    names = [clean(run.scores.name) for run in runs]
    empty = _no_cells(families)
    taken: set[str] = set()
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        label = name if names.count(name) == 1 else clean(f"{name} ({run.folder})")
        while label in taken:
            label += "'"
        taken.add(label)
        parts = run.scores.by_shots()
        for few_shot, part in parts.items():
            beside = tuple(_beside(part, card))
            compared = {id_: column for each in beside for id_, column in each.columns.items()}
            cells = {id_: _cell(compared[id_]) if id_ in compared else BoardCell() for id_ in empty}
            unranked = f"asked {few_shot}-shot" if few_shot else ""
            if not any(cell.score for cell in cells.values()):
                unranked = unranked or "no comparable figure"
            yield BoardRow(
                f"r{place}-{few_shot}",
                f"{label}, {few_shot}-shot" if len(parts) > 1 else label,
                RUN,
                unranked,
                cells,
                scores={},
                ranks={},
                run=run,
                shots=few_shot,
                beside=beside,
            )


def _no_cells(families: Sequence[Family]) -> dict[str, BoardCell]:
    return {benchmark.id: BoardCell() for family in families for benchmark in family.benchmarks}


def _beside(run: RunScores, card: Card) -> Iterator[Beside]:
    """The run's comparison with each table of the card, and its tasks in none."""
    ids: dict[str, list[str]] = {}
    for table, _, id_ in _ids(card):
        ids.setdefault(table.id, []).append(id_)
    for printed in build_tables([run], card, all_tables=True):
        for compared in printed.compared:
            names = ids.get(printed.id) or [f"other-{n}" for n in range(len(compared.columns))]
            columns = dict(zip(names, compared.columns, strict=True))
            if any(not column.empty and column.samples != MISSING for column in compared.columns):
                yield Beside(printed.title, compared.model, compared.remark, columns)


def _cell(compared: ColumnComparison) -> BoardCell:
    if compared.missing:
        return BoardCell(note=compared.remark if compared.samples != MISSING else "")
    value = float(compared.score)
    interval = "" if compared.interval == MISSING else compared.interval
    low, high = map(float, compared.ends or (value, value))
    ranks = compared.comparable and not compared.no_interval  # else it would rank as if certain
    score = ScoreInterval(value, min(low, value), max(high, value)) if ranks else None
    return BoardCell(compared.score, interval, compared.remark, not compared.comparable, score)


def _card_rows(card: Card, families: Sequence[Family]) -> Iterator[BoardRow]:
    """The card's models. Its own have several names and one row; others are as printed."""
    ids = {(table.id, key): id_ for table, key, id_ in _ids(card)}
    empty = _no_cells(families)
    rows: dict[tuple[str, str, int], BoardRow] = {}
    for table in card.tables:
        for group in table.groups:
            for row in group.rows:
                key = (row.checkpoint or row.model, _kind(table, group, row), row.few_shot)
                board_row = rows.get(key)
                if board_row is None:
                    name = clean(row.model if row.model != MISSING else group.title)
                    board_row = BoardRow(
                        f"m{len(rows)}", name, key[1], _why(key), empty, {}, {}, None, key[2]
                    )
                cells = {ids[table.id, name]: _card_cell(row, name) for name in row.cells}
                rows[key] = replace(board_row, cells={**board_row.cells, **cells})
    yield from rows.values()


def _kind(table: CardTable, group: CardGroup, row: CardRow) -> str:
    if row.checkpoint:
        return OWN
    return OTHER if group.marks_best or not table.grouped else SPECIALIST


def _why(key: tuple[str, str, int]) -> str:
    if key[2]:
        return f"asked {key[2]}-shot"
    return "not ranked: a model made for one task" if key[1] == SPECIALIST else ""


def _card_cell(row: CardRow, key: str) -> BoardCell:
    cell = row.cells[key]
    value = number(cell.text)
    if value is None:
        return BoardCell()
    return BoardCell(cell.text, note=cell.note, score=ScoreInterval(*[float(value)] * 3))


def _ranked(rows: Sequence[BoardRow], families: Sequence[Family]) -> list[BoardRow]:
    """The same rows with scores of families, and with ranks unless they are unranked."""
    benchmarks = [b for family in families for b in family.benchmarks]
    places = {b.id: place for place, b in enumerate(benchmarks)}
    usable = [[_relative(row.cells[b.id].score, b.reference) for b in benchmarks] for row in rows]
    columns = {f.id: [places[b.id] for b in f.benchmarks] for f in families}
    shown = [
        replace(row, scores=dict(_scores(relative, columns)))
        for row, relative in zip(rows, usable, strict=True)
    ]
    ranking = [y for y, row in enumerate(rows) if not row.unranked]
    drawn = Draws([usable[y] for y in ranking])
    scopes = {ALL: drawn.ranks(list(columns.values()), FAMILIES_NEEDED)}
    scopes |= {id_: drawn.ranks([column]) for id_, column in columns.items()}
    single = {b.id: drawn.ranks([[places[b.id]]]) for b in benchmarks}
    for n, y in enumerate(ranking):
        row = shown[y]
        cells = {id_: replace(cell, rank=single[id_][n]) for id_, cell in row.cells.items()}
        ranked = {scope: rank for scope, ranks in scopes.items() if (rank := ranks[n])}
        shown[y] = replace(row, cells=cells, ranks=ranked)
    return shown


def _relative(score: ScoreInterval | None, reference: float | None) -> ScoreInterval | None:
    """In percent of the reference."""
    if score is None or not reference:
        return None
    return ScoreInterval(*(100 * end / reference for end in (score.value, score.low, score.high)))


def _scores(
    scores: Sequence[ScoreInterval | None], families: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, FamilyScore]]:
    """Of each family with a score. Errors are independent, so their squares add up."""
    for id_, columns in families.items():
        known = [score for column in columns if (score := scores[column]) is not None]
        if not known:
            continue
        value = sum(score.value for score in known) / len(known)
        low = value - math.hypot(*(s.value - s.low for s in known)) / len(known)
        high = value + math.hypot(*(s.high - s.value for s in known)) / len(known)
        interval = f"{low:.1f} to {high:.1f}" if low < high else ""
        yield id_, FamilyScore(f"{value:.1f}", interval, value, low, high, len(known), len(columns))
