"""One model's checkpoints over time: its runs by the day on which they were started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from eval.report.comparison import clean
from eval.report.site.board import Board, Cell, Row


@dataclass(frozen=True, slots=True)
class Point:
    """A run. digest: of the checkpoint, the first digits."""

    row: Row
    started: datetime
    digest: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The runs of a model's checkpoints, asked in one way, the first one first."""

    model: str
    points: tuple[Point, ...]


def timelines(board: Board) -> tuple[Timeline, ...]:
    """By model. A run without a figure or a date, or whose model is not told, is in none."""
    found: dict[str, list[Point]] = {}
    for row in board.rows:
        if row.run is None or row.run.started is None or not row.run.model:
            continue
        if not any(has(row.cells, benchmark) for benchmark in row.cells):
            continue
        digest = row.run.manifest["model"].get("digest")
        shown = clean(digest)[:12] if isinstance(digest, str) else ""
        point = Point(row, row.run.started, shown)
        shots = f", {row.shots}-shot" if row.shots else ""
        found.setdefault(f"{clean(row.run.model)}{shots}", []).append(point)
    return tuple(
        Timeline(model, tuple(sorted(points, key=lambda point: (point.started, point.row.name))))
        for model, points in sorted(found.items())
    )


def measures(board: Board, line: Timeline) -> tuple[tuple[str, str], ...]:
    """Ids and labels of what a timeline has figures of."""
    rows = [point.row for point in line.points]
    found = [
        (f.id, f"{f.title}, score") for f in board.families if any(f.id in r.scores for r in rows)
    ]
    for family in board.families:
        found += [
            (b.id, b.label) for b in family.benchmarks if any(has(r.cells, b.id) for r in rows)
        ]
    return tuple(found)


def has(cells: Mapping[str, Cell], benchmark: str) -> bool:
    """Whether there is a figure, comparable or not."""
    return any(char.isdigit() for char in cells[benchmark].text)


def values(board: Board, rows: Sequence[Row]) -> list[dict[str, list[object]]]:
    """Of each row: measure -> its figure, both ends of its interval, and whether it is marked."""
    told = []
    for row in rows:
        found: dict[str, list[object]] = {
            id_: [*(round(end, 4) for end in (score.value, score.low, score.high)), False]
            for id_, score in row.scores.items()
        }
        for id_, cell in row.cells.items():
            if has(row.cells, id_):
                ends = [float(end) for end in cell.interval.split(" to ") if end]
                found[id_] = [float(cell.text), *(ends or [float(cell.text)] * 2), cell.marked]
        told.append(found)
    return told
