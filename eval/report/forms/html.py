"""Tables as one HTML page without scripts, fonts, pictures or network.

Every text of a run is escaped, isolated in its own writing direction, and may break anywhere.
"""

import html
from collections.abc import Iterable, Iterator, Sequence

from eval.report.card import Header
from eval.report.comparison import OUTSIDE, REPRODUCED, ColumnComparison, TableCell
from eval.report.tables import Compared, GroupScore, Table, TableGroup, TableRow

TITLE = "Qwen-VL: the model card's tables"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
COMPARED = ("Run", "95% interval", "Card", "Difference", "Verdict", "Samples", "Images", "Protocol")
RUN = ' class="run"'
PARTS = ("Task", "Group", "Value", "Samples", "Run", "Protocol")
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { font-weight: 600; padding: .3rem 0; text-align: start; }
th, td { border: 1px solid #8886; padding: .2rem .6rem; text-align: center; }
td { font-variant-numeric: tabular-nums; }
th { font-weight: normal; }
thead th { font-weight: 600; }
caption, tbody th, td.text { overflow-wrap: anywhere; text-align: start; }
tbody th[scope="row"], td.text { min-width: 11rem; }
b, strong { font-weight: 700; }
tr.run { background: #4a90d922; }
.reproduced { color: light-dark(#14743a, #6fcf97); }
.outside { color: light-dark(#b3261e, #f2877f); }
abbr { color: light-dark(#8a5300, #f0b45a); text-decoration: none; }
details li { font-family: ui-monospace, monospace; font-size: .8rem; overflow-wrap: anywhere; }
"""


def render_html(tables: Sequence[Table]) -> str:
    """The tables, with the card's spans, and below each the comparison and the signatures."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(TITLE)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(TITLE)}</h1>",
        *(line for table in tables for line in _table(table)),
        *(["<p>No figure to show.</p>"] if not tables else []),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text without markup, for use between tags and in quoted attributes."""
    return html.escape(text, quote=True)


def _table(table: Table) -> Iterator[str]:
    yield f'<section id="{escape(table.id)}">'
    yield f"<h2>{escape(table.title)}</h2>"
    if table.groups:
        yield from _card_table(table)
    for compared in table.compared:
        yield from _comparison(compared)
        yield from _signatures(compared)
    for run, parts in table.parts.items():
        yield from _group_scores(run, parts)
    if any(column.cell.marked for each in table.compared for column in each.columns):
        yield "<p>† not comparable with the card: see the last column.</p>"
    yield "</section>"


def _card_table(table: Table) -> Iterator[str]:
    beside = "; the runs' rows are marked ▸" if table.compared else ""
    yield from _open(f"The model card's table{beside}")
    yield "<thead>"
    for header in table.header:
        yield _row(map(_header, header))
    yield "</thead>"
    remarks = {
        compared.run: [column.remark for column in compared.columns] for compared in table.compared
    }
    for group in table.groups:
        yield "<tbody>"
        yield from _group(group, remarks, grouped=table.grouped)
        yield "</tbody>"
    yield from _close()


def _group(group: TableGroup, remarks: dict[str, list[str]], *, grouped: bool) -> Iterator[str]:
    for number, row in enumerate(group.rows):
        label = []
        if grouped and number == 0:
            span = _spans(1, len(group.rows))
            label = [f'<th scope="rowgroup"{span}>{_stacked(group.title)}</th>']
        notes = remarks[row.model] if row.run else [""] * len(row.cells)
        cells = [
            f"<td>{_score(cell, remark)}</td>"
            for cell, remark in zip(row.cells, notes, strict=True)
        ]
        yield _row([*label, _model(row), *cells], RUN if row.run else "")


def _comparison(compared: Compared) -> Iterator[str]:
    beside = f" beside {escape(compared.model)}" if compared.model else ""
    remark = f" ({escape(compared.remark)})" if compared.remark else ""
    yield from _open(f"{_run(compared.run)}{beside}{remark}")
    yield "<thead>"
    yield _row(_heading(name) for name in ("Column", *COMPARED, "Comparable"))
    yield "</thead>"
    yield "<tbody>"
    for column in (each for each in compared.columns if not each.empty):
        yield _row(_compared(column))
    yield "</tbody>"
    yield from _close()


def _compared(column: ColumnComparison) -> Iterator[str]:
    yield f'<th scope="row">{escape(column.column)}</th>'
    yield f"<td>{_score(column.cell, column.remark)}</td>"
    yield from (_cell(text) for text in (column.interval, column.card, column.difference))
    kind = f' class="{column.verdict}"' if column.verdict in (REPRODUCED, OUTSIDE) else ""
    yield f"<td{kind}>{escape(column.verdict)}</td>"
    yield from (_cell(text) for text in (column.samples, column.images, column.protocol))
    yield _text(column.remark)


def _signatures(compared: Compared) -> Iterator[str]:
    signatures = [each for column in compared.columns for each in column.signatures]
    if signatures:
        yield "<details><summary>Signatures</summary><ul>"
        yield from (f"<li>{_isolated(signature)}</li>" for signature in signatures)
        yield "</ul></details>"


def _group_scores(run: str, parts: Sequence[GroupScore]) -> Iterator[str]:
    yield from _open(_run(run))
    yield "<thead>"
    yield _row(map(_heading, PARTS))
    yield "</thead>"
    yield "<tbody>"
    for part in parts:
        texts = map(_text, (part.group, part.value))
        numbers = map(_cell, (part.samples, part.score, part.protocol))
        yield _row([f'<th scope="row">{escape(part.task)}</th>', *texts, *numbers])
    yield "</tbody>"
    yield from _close()


def _open(caption: str) -> Iterator[str]:
    yield "<div>"  # scrolls where the window is narrower than the table
    yield "<table>"
    yield f"<caption>{caption}</caption>"


def _close() -> Iterator[str]:
    yield "</table>"
    yield "</div>"


def _row(cells: Iterable[str], kind: str = "") -> str:
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _heading(text: str) -> str:
    return f'<th scope="col">{escape(text)}</th>'


def _header(header: Header) -> str:
    scope = "colgroup" if header.colspan > 1 else "col"
    superscript = f"<sup>{escape(header.superscript)}</sup>" if header.superscript else ""
    spans = _spans(header.colspan, header.rowspan)
    return f'<th scope="{scope}"{spans}>{_stacked(header.text)}{superscript}</th>'


def _stacked(text: str) -> str:
    """Text with its brackets on a line of their own, as on the card."""
    return escape(text).replace(" (", "<br>(")


def _spans(colspan: int, rowspan: int) -> str:
    spans = {"colspan": colspan, "rowspan": rowspan}
    return "".join(f' {name}="{span}"' for name, span in spans.items() if span > 1)


def _model(row: TableRow) -> str:
    if row.run:
        return f'<th scope="row">{_run(row.model)}</th>'
    name = escape(row.model)
    return f'<th scope="row">{f"<strong>{name}</strong>" if row.bold else name}</th>'


def _score(cell: TableCell, remark: str) -> str:
    """A score, its mark, and the line under it."""
    text = f"<b>{escape(cell.text)}</b>" if cell.bold else escape(cell.text)
    if cell.marked:
        text += f'<abbr title="{escape(f"not comparable with the card: {remark}")}">†</abbr>'
    return f"{text}<br><small>{escape(cell.note)}</small>" if cell.note else text


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _text(text: str) -> str:
    return f'<td class="text">{_isolated(text)}</td>'


def _run(name: str) -> str:
    return f"▸ {_isolated(name)}"


def _isolated(text: str) -> str:
    """Text of a run; its writing direction does not affect what is around it."""
    return f"<bdi>{escape(text)}</bdi>"
