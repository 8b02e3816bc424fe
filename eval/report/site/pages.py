"""The board as pages. Every text is escaped."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from eval.report.card import MISSING
from eval.report.site import history, text
from eval.report.site.board import ALL, OWN, RUN, Board, BoardRow
from eval.report.site.rank import Standing
from eval.report.site.runs import RunListing
from eval.storage.text import clean

HERE = Path(__file__).parent
ASSETS = ("assets/*", "vendor/*/*")
SELECTED = 4  # runs that the chart shows at first


def build_pages(board: Board, listing: RunListing) -> Iterator[tuple[str, bytes]]:
    """Every file of the site: its path there and its content."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(ALL=ALL, MISSING=MISSING, RUN=RUN, OWN=OWN, MOST=text.MOST)
    environment.filters.update(rank=_standing, visible=text.visible_text, clean=clean)
    names = text.file_names([run.folder for run in listing.runs])
    pages = {id(run): f"run/{name}.html" for run, name in zip(listing.runs, names, strict=True)}
    lines = history.timelines(board)

    def page(template: str, path: str, **values: Any) -> tuple[str, bytes]:
        root = "../" * path.count("/")
        rendered = environment.get_template(template).render(
            board=board, pages=pages, root=root, path=path, id=id, **values
        )
        return path, rendered.encode()

    yield page("index.html", "index.html", skipped=listing.skipped, selected=_selected(board.rows))
    yield page("history.html", "history.html", lines=lines, measures=history.timeline_measures)
    for run, name in zip(listing.runs, names, strict=True):
        rows = board.rows_of(run)
        manifest = text.manifest_entries(run.manifest)
        copy = f"run/{name}.json" if run.file else ""
        path = f"run/{name}.html"
        yield page("run.html", path, run=run, rows=rows, manifest=manifest, copy=copy)
        if copy:
            yield copy, run.file
    yield "data/board.js", text.page_data_script("board", _board(board))
    yield "data/history.js", text.page_data_script("timelines", list(_timelines(board, lines)))
    for pattern in ASSETS:
        for file in sorted(HERE.glob(pattern)):
            yield file.relative_to(HERE).as_posix(), file.read_bytes()


def _standing(standing: Standing | None) -> str:
    """Such as 2–4."""
    return f"{standing.low}\N{EN DASH}{standing.high}" if standing else MISSING


def _selected(rows: Sequence[BoardRow]) -> set[str]:
    """Ids of the rows that the chart shows first: the card's own models, and the first runs."""
    own = [row.id for row in rows if row.kind == OWN and not row.shots]
    runs = [row.id for row in rows if row.run and row.scores]
    return {*own, *runs[:SELECTED]}


def _board(board: Board) -> Mapping[str, Any]:
    """Data for sorting, filtering and the chart."""
    rows = []
    for row in board.rows:
        values = {f"rank-{scope}": rank.middle for scope, rank in row.ranks.items()}
        values |= {f"score-{id_}": round(score.value, 4) for id_, score in row.scores.items()}
        values |= {id_: c.score.value for id_, c in row.cells.items() if c.score}
        with_scores = [
            family.id
            for family in board.families
            if any(row.cells[b.id].text != MISSING for b in family.benchmarks)
        ]
        rows.append(
            {"id": row.id, "name": row.name, "kind": row.kind, "values": values, "in": with_scores}
        )
    families = [
        {"id": f.id, "title": f.title, "benchmarks": [b.id for b in f.benchmarks]}
        for f in board.families
    ]
    return {"families": families, "rows": rows}


def _timelines(board: Board, lines: Sequence[history.Timeline]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        rows = [point.row for point in line.points]
        yield {
            "model": line.model,
            "times": [int(point.started.timestamp() * 1000) for point in line.points],
            "names": [row.name for row in rows],
            "values": history.timeline_values(board, rows),
        }
