"""What the plots show: the report's own numbers, without matplotlib."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report.card import BASE, CHAT, MISSING, Card
from eval.report.comparison import ColumnComparison, number
from eval.report.gate import compare_runs
from eval.report.scores import RunScores
from eval.report.site.board import OWN, BoardRow, build_board
from eval.report.site.runs import Run
from eval.report.tables import CHATML, build_tables, named_runs
from eval.storage.text import clean


@dataclass(frozen=True, slots=True)
class Line:
    """A model's scores by family, in percent of the card's own model; None where there is none.

    own    whether it is a model of the card
    place  among the card's models, or among the runs, the same in every picture
    """

    name: str
    own: bool
    place: int
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Radar:
    """The leaderboard's chart of these runs, with the models of the card first."""

    families: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A run's score less the card's, in points of the table; low, high: its 95% interval.

    place    of the run among all, the same in every picture
    maximum  that such a score can have
    """

    run: str
    place: int
    benchmark: str
    card: str
    difference: float
    low: float | None
    high: float | None
    comparable: bool
    maximum: float


@dataclass(frozen=True, slots=True)
class Flipped:
    """A benchmark's samples, and how many of them got better and worse."""

    task: str
    samples: int
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class Flips:
    """Worst first; left_out: benchmarks that could not be compared."""

    base: str
    candidate: str
    benchmarks: tuple[Flipped, ...]
    left_out: int


def radar_data(runs: Sequence[RunScores], card: Card, row: str | None = None) -> Radar | None:
    """The families' scores, as on the leaderboard; None where no run has one."""
    whole = [Run(run, {}) for run in runs]
    board = build_board(whole, card)
    by_shots = {(id(each.run), each.shots): each for each in board.rows if each.run}
    rows = [by_shots[id(run), few_shot] for run in whole for few_shot in run.scores.by_shots()]
    placed = enumerate(zip(named_runs(runs), rows, strict=True))
    drawn = [(place, name, each) for place, (name, each) in placed if each.scores]
    if not drawn:
        return None
    names = _card_names(runs, card, row)
    beside = [
        each for each in board.rows if each.run is None and each.scores and each.name in names
    ]
    if row is None:
        beside = [each for each in beside if each.kind == OWN]

    def line(place: int, name: str, row: BoardRow) -> Line:
        values = (row.scores.get(family.id) for family in board.families)
        return Line(name, row.run is None, place, tuple(v.value if v else None for v in values))

    titles = tuple(family.title for family in board.families)
    lines = [line(place, each.name, each) for place, each in enumerate(beside)]
    return Radar(titles, (*lines, *(line(*each) for each in drawn)))


def _card_names(runs: Sequence[RunScores], card: Card, row: str | None) -> set[str]:
    """The board's names of the models; its own have several names, of which it shows the first."""
    first: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for table in card.tables:
        for group in table.groups:
            for each in group.rows:
                name = clean(each.model if each.model != MISSING else group.title)
                kinds.setdefault(each.model, "" if each.few_shot else each.checkpoint)
                if each.checkpoint and not each.few_shot:
                    first.setdefault(each.checkpoint, name)
    if row is not None:
        own = kinds.get(row)
        return {first[own]} if own else {clean(row)}
    checkpoints = {CHAT if run.chat_format == CHATML else BASE for run in runs}
    return {first[kind] for kind in checkpoints if kind in first}


def interval_data(
    runs: Sequence[RunScores], card: Card, row: str | None = None
) -> tuple[Point, ...]:
    """The runs' scores where the card's row has one too, in the card's order."""
    return tuple(_points(runs, card, row))


def _points(runs: Sequence[RunScores], card: Card, row: str | None) -> Iterator[Point]:
    tables = {table.id: table for table in card.tables}
    places = {name: place for place, name in enumerate(named_runs(runs))}
    for printed in build_tables(runs, card, row):
        if printed.id not in tables:
            continue
        table = tables[printed.id]
        part = table.title.partition(": ")[2]
        for place, column in enumerate(table.columns):
            label = f"{part} {column.label}".strip()
            for compared in printed.compared:
                comparison = compared.columns[place]
                if ends := _ends(comparison):
                    highest = column.maximum * column.scale
                    name, model = compared.run, compared.model
                    yield Point(
                        name, places[name], label, model, *ends, comparison.comparable, highest
                    )


def _ends(comparison: ColumnComparison) -> tuple[float, float | None, float | None] | None:
    """The difference and the interval's ends less the card's score, from the printed scores."""
    ours, published = number(comparison.score), number(comparison.card)
    if ours is None or published is None:
        return None
    if comparison.ends is None:
        return float(ours - published), None, None
    low, high = comparison.ends
    return float(ours - published), float(low - published), float(high - published)


def flip_data(base: RunScores, candidate: RunScores, card: Card) -> Flips:
    """The flips of the benchmarks that can be compared, as `compare` counts them.

    Raises RunError for a folder that is not a complete run.
    """
    comparison = compare_runs(base, candidate, card)
    measured = [each for each in comparison.benchmarks if each.difference is not None]
    flipped = tuple(Flipped(e.task, e.samples, e.better, e.worse) for e in measured)
    left_out = len(comparison.benchmarks) - len(measured)
    return Flips(comparison.base.name, comparison.candidate.name, flipped, left_out)
