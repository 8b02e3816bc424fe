"""One model's checkpoints over time: its runs by the time of their start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from eval.report.site.board import Board, BoardCell, BoardRow
from eval.storage.text import clean


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """A run. digest: of the checkpoint, the first digits."""

    row: BoardRow
    started: datetime
    digest: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The runs of a model's checkpoints with one number of examples, the earliest first."""

    model: str
    points: tuple[TimelinePoint, ...]


def timelines(board: Board) -> tuple[Timeline, ...]:
    """By model. A run without a score, a date or a known model is in none."""
    by_model: dict[str, list[TimelinePoint]] = {}
    for row in board.rows:
        if row.run is None or row.run.started is None or not row.run.model:
            continue
        if not any(has_score(row.cells, benchmark) for benchmark in row.cells):
            continue
        digest = row.run.manifest["model"].get("digest")
        shown = clean(digest)[:12] if isinstance(digest, str) else ""
        point = TimelinePoint(row, row.run.started, shown)
        shots = f", {row.shots}-shot" if row.shots else ""
        by_model.setdefault(f"{clean(row.run.model)}{shots}", []).append(point)
    return tuple(
        Timeline(model, tuple(sorted(points, key=lambda point: (point.started, point.row.name))))
        for model, points in sorted(by_model.items())
    )


def timeline_measures(board: Board, line: Timeline) -> tuple[tuple[str, str], ...]:
    """Ids and labels of the families and benchmarks that a timeline has scores of."""
    rows = [point.row for point in line.points]
    measured = [
        (f.id, f"{f.title}, score") for f in board.families if any(f.id in r.scores for r in rows)
    ]
    for family in board.families:
        measured += [
            (b.id, b.label)
            for b in family.benchmarks
            if any(has_score(r.cells, b.id) for r in rows)
        ]
    return tuple(measured)


def has_score(cells: Mapping[str, BoardCell], benchmark: str) -> bool:
    """Whether there is a score, comparable or not."""
    return any(char.isdigit() for char in cells[benchmark].text)


def timeline_values(board: Board, rows: Sequence[BoardRow]) -> list[dict[str, list[object]]]:
    """Of each row: measure -> its score, both ends of its interval, and whether it is marked."""
    measured = []
    for row in rows:
        by_measure: dict[str, list[object]] = {
            id_: [*(round(end, 4) for end in (score.value, score.low, score.high)), False]
            for id_, score in row.scores.items()
        }
        for id_, cell in row.cells.items():
            if has_score(row.cells, id_):
                ends = [float(end) for end in cell.interval.split(" to ") if end]
                by_measure[id_] = [float(cell.text), *(ends or [float(cell.text)] * 2), cell.marked]
        measured.append(by_measure)
    return measured
