"""Tables for a terminal or a plain text file, folded to the console's width."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from eval.report.card import Header
from eval.report.comparison import OUTSIDE, REPRODUCED, TableCell
from eval.report.forms.grid import NO_BREAK, Field, Grid, GridColumn, Section, draw_grid, fold_text
from eval.report.tables import Compared, GroupScore, Table

VERDICTS = {REPRODUCED: "green", OUTSIDE: "red"}
SUPERSCRIPTS = str.maketrans("abcdeghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
COMPARED = ("Run", "95% interval", "Card", "Difference", "Verdict", "Samples", "Images")
FIXED = COMPARED[:4]  # scores, which are never folded


@dataclass(frozen=True, slots=True)
class _Signs:
    """Marks of a run's row, of a score that is not comparable, and of the best score."""

    run: str
    marked: str
    best: str  # where there is no bold type
    rule: str
    superscripts: bool


def render_terminal(tables: Sequence[Table], console: Console) -> None:
    """Print the tables and, below each, the comparison with the card."""
    best = "*" if console.color_system is None else ""
    if console.options.ascii_only:
        signs = _Signs(">", "~", best, "-", superscripts=False)
    else:
        signs = _Signs("▸", "†", best, "─", superscripts=True)
    lines = [line for table in tables for line in _table(table, signs, console.width)]
    for line in lines or [Text("No figure to show.")]:
        line.plain = line.plain.encode(console.encoding, "replace").decode(console.encoding)
        console.print(line, soft_wrap=True, highlight=False)


def _table(table: Table, signs: _Signs, width: int) -> list[Text]:
    lines = [*_prose(table.title, width, "bold"), Text()]
    if table.groups:
        lines += [*draw_grid(_card_grid(table, signs), width), Text()]
    for compared in table.compared:
        title = f"{signs.run}{NO_BREAK}{compared.run}"
        title += f" beside {compared.model}" if compared.model else ""
        title += f" ({compared.remark})" if compared.remark else ""
        grid = draw_grid(_comparison_grid(compared, signs), width)
        lines += [*_prose(title, width, "cyan"), Text(), *grid, Text()]
    for run, parts in table.parts.items():
        title = f"{signs.run}{NO_BREAK}{run}"
        grid = draw_grid(_group_scores_grid(parts, signs), width)
        lines += [*_prose(title, width, "cyan"), Text(), *grid, Text()]
    if legend := _legend(table, signs):
        lines += [*_prose(legend, width, "dim"), Text()]
    return lines


def _prose(text: str, width: int, style: str) -> list[Text]:
    return [Text(line.replace(NO_BREAK, " "), style) for line in fold_text(text, width)]


def _card_grid(table: Table, signs: _Signs) -> Grid:
    paths = [tuple(_header(header, signs) for header in path) for path in table.paths]
    label = " ".join(paths.pop(0)) if table.grouped else ""
    model, *columns_of_scores = paths
    rows = [row for group in table.groups for row in group.rows]
    texts = [
        _aligned([row.cells[number] for row in rows], signs)
        for number in range(len(columns_of_scores))
    ]
    fields = iter(
        (
            Field(
                f"{signs.run}{NO_BREAK}{row.model}" if row.run else row.model,
                style="cyan" if row.run else "bold" if row.bold else "",
            ),
            *(
                Field(texts[column][number], cell.note, _style(cell, run=row.run))
                for column, cell in enumerate(row.cells)
            ),
        )
        for number, row in enumerate(rows)
    )
    sections = tuple(
        Section(group.title, tuple(next(fields) for _ in group.rows)) for group in table.groups
    )
    columns = (
        GridColumn(model),
        *(GridColumn(path, "center", fixed=True) for path in columns_of_scores),
    )
    return Grid(columns, sections, label, signs.rule)


def _comparison_grid(compared: Compared, signs: _Signs) -> Grid:
    columns = (
        GridColumn(("Column",)),
        *(GridColumn((name,), "right", fixed=name in FIXED) for name in COMPARED),
        GridColumn(("Protocol",)),
        GridColumn(("Comparable",)),
    )
    shown = [column for column in compared.columns if not column.empty]
    scores = _aligned([column.cell for column in shown], signs)
    rows = tuple(
        (
            Field(column.column),
            Field(score, style=_style(column.cell, run=True)),
            Field(column.interval),
            Field(column.card),
            Field(column.difference),
            Field(column.verdict, style=VERDICTS.get(column.verdict, "")),
            Field(column.samples),
            Field(column.images),
            Field(column.protocol),
            Field(column.remark, style="yellow" if column.cell.marked else ""),
        )
        for column, score in zip(shown, scores, strict=True)
    )
    return Grid(columns, (Section("", rows),), rule=signs.rule)


def _group_scores_grid(parts: Sequence[GroupScore], signs: _Signs) -> Grid:
    columns = (
        GridColumn(("Value",)),
        *(GridColumn((name,), "right", fixed=True) for name in ("Samples", "Run")),
        GridColumn(("Protocol",)),
    )
    scores = iter(_aligned([TableCell(part.score) for part in parts], signs))
    sections = tuple(
        Section(
            f"{task} by {group}",
            tuple(
                (Field(p.value), Field(p.samples), Field(next(scores)), Field(p.protocol))
                for p in of_group
            ),
        )
        for (task, group), of_group in groupby(parts, key=lambda part: (part.task, part.group))
    )
    return Grid(columns, sections, "Figure", signs.rule)


def _legend(table: Table, signs: _Signs) -> str:
    cells = [cell for group in table.groups for row in group.rows for cell in row.cells]
    cells += [column.cell for compared in table.compared for column in compared.columns]
    legend = []
    if table.compared or table.parts:
        legend.append(f"{signs.run} a run")
    if any(cell.marked for cell in cells):
        legend.append(f"{signs.marked} not comparable with the card: see the last column")
    if signs.best and any(cell.bold for cell in cells):
        legend.append(f"{signs.best} best of its group")
    return "; ".join(legend)


def _header(header: Header, signs: _Signs) -> str:
    if not header.superscript:
        return header.text
    if signs.superscripts and header.superscript.isalpha():
        return header.text + header.superscript.translate(SUPERSCRIPTS)
    return f"{header.text}^{header.superscript}"


def _style(cell: TableCell, *, run: bool) -> str:
    return " ".join(
        style
        for style, applies in (
            ("bold", cell.bold),
            ("yellow", cell.marked),
            ("cyan", run and not cell.marked),
        )
        if applies
    )


def _aligned(cells: Sequence[TableCell], signs: _Signs) -> list[str]:
    """A column's scores and signs, of equal width, with their decimal points aligned."""
    parts = []
    for cell in cells:
        whole, point, decimals = cell.text.partition(".")
        sign = signs.marked if cell.marked else signs.best if cell.bold else ""
        parts.append((whole, point + decimals + sign))
    left = max((cell_len(whole) for whole, _ in parts), default=0)
    right = max((cell_len(rest) for _, rest in parts), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in parts]
