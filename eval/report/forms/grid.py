"""Text tables for a terminal: header cells span columns, labels span rows, texts are folded.

Rich's own tables have no spans. A table that is too wide gets smaller gaps, then labels on lines of
their own, then several panels of columns. A score is never folded or cut.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len, chop_cells
from rich.text import Text

# A word that is wider than its column is folded after these signs.
CHUNK = re.compile(r"[^+/_-]*[+/_-]+|[^+/_-]+")
WIDEST_CHUNK = 16  # cells; a longer stretch is folded anywhere
NO_BREAK = "\N{NO-BREAK SPACE}"  # printed as a space
GAPS = (2, 1)  # cells between columns, preferred and narrowest


@dataclass(frozen=True, slots=True)
class Field:
    """A table's cell: its text, and a note on the lines below."""

    text: str
    note: str = ""
    style: str = ""


@dataclass(frozen=True, slots=True)
class GridColumn:
    """A column under its header cells, from the top down.

    align  left, center or right
    fixed  its texts are numbers: never folded, and the column as narrow as they allow
    """

    path: tuple[str, ...]
    align: str = "left"
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """Rows, and the label that spans them."""

    label: str
    rows: tuple[tuple[Field, ...], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. Its first column is repeated in every panel.

    label_header  above the labels; "" without labels
    rule          the sign that lines are drawn with
    """

    columns: tuple[GridColumn, ...]
    sections: tuple[Section, ...]
    label_header: str = ""
    rule: str = "─"


Block = list[Text]  # lines of equal width


def draw_grid(grid: Grid, width: int) -> Block:
    """The table's lines, at most `width` cells wide if its first column fits with any other."""
    least = [_least(grid, number) for number in range(len(grid.columns))]
    labels = [grid.label_header, *(section.label for section in grid.sections)]
    widest_label = max(_widest_chunk(text) for text in labels) if grid.label_header else 0
    for label in (widest_label, 0):
        for gap in GAPS:
            room = width - sum(least) - gap * (len(least) - 1) - (label + gap if label else 0)
            if room >= 0:
                widths, label_width = _grown(grid, least, label, room)
                return _panel(grid, range(len(least)), widths, label_width, gap)
    lines: Block = []
    rest = list(range(1, len(least)))
    while rest:
        shown = [0, rest.pop(0)]
        while rest and sum(least[n] + gap for n in [*shown, rest[0]]) - gap <= width:
            shown.append(rest.pop(0))
        lines += _panel(grid, shown, [least[n] for n in shown], 0, gap)
        lines += [Text()] if rest else []
    return lines


def fold_text(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells: broken at spaces, within a long word after a hyphen or so."""
    lines = [""]
    for word in text.split(" "):
        space = " " if lines[-1] else ""
        if cell_len(lines[-1] + space + word) <= width:
            lines[-1] += space + word
            continue
        if lines[-1]:
            lines.append("")
        chunks = CHUNK.findall(word) if cell_len(word) > width else [word]
        for chunk in chunks:
            if lines[-1] and cell_len(lines[-1] + chunk) > width:
                lines.append("")
            pieces = [chunk] if cell_len(chunk) <= width else chop_cells(chunk, width)
            lines[-1] += pieces[0]
            lines += pieces[1:]
    return lines


def _least(grid: Grid, number: int) -> int:
    """The least width of a column."""
    column = grid.columns[number]
    fields = [row[number] for section in grid.sections for row in section.rows]
    widths = [cell_len(word) for word in column.path[-1].split()]
    for field in fields:
        widths.append(cell_len(field.text) if column.fixed else _widest_chunk(field.text))
        widths.append(_widest_chunk(field.note))
    return max(widths, default=1)


def _widest_chunk(text: str) -> int:
    widths = [cell_len(chunk) for word in text.split(" ") for chunk in CHUNK.findall(word)]
    return min(max(widths, default=0), WIDEST_CHUNK)


def _grown(grid: Grid, least: Sequence[int], label: int, room: int) -> tuple[list[int], int]:
    """Widths of the columns and the labels after texts took the room that is left."""
    widths = list(least)
    for number, column in enumerate(grid.columns):
        if not column.fixed:
            texts = [row[number].text for section in grid.sections for row in section.rows]
            natural = max(map(cell_len, [column.path[-1], *texts]))
            more = max(0, min(room, natural - widths[number]))
            widths[number] += more
            room -= more
    if label:
        natural = max(cell_len(section.label) for section in grid.sections)
        label += max(0, min(room, natural - label))
    return widths, label


def _panel(grid: Grid, shown: Sequence[int], widths: Sequence[int], label: int, gap: int) -> Block:
    """Some of the columns, with the labels beside them, or above their rows where `label` is 0."""
    columns = [grid.columns[number] for number in shown]
    total = sum(widths) + gap * (len(widths) - 1)
    lines = _header(grid, columns, widths, gap)
    if label:
        lines = _beside([_block(grid.label_header, label), lines], (label, total), gap, foot=True)
    for section in grid.sections:
        lines.append(Text(grid.rule * (total + (label + gap if label else 0)), style="dim"))
        rows: Block = []
        for row in section.rows:
            blocks = [
                _cell(row[number], column, width)
                for number, column, width in zip(shown, columns, widths, strict=True)
            ]
            rows += _beside(blocks, widths, gap)
        if label:
            rows = _beside([_block(section.label, label), rows], (label, total), gap)
        elif section.label:
            lines += _block(section.label, total, style="italic")
        lines += rows
    for line in lines:
        line.rstrip()
    return lines


def _header(grid: Grid, columns: Sequence[GridColumn], widths: Sequence[int], gap: int) -> Block:
    """Header cells; one above others is underlined across its span."""
    lines: Block = []
    depth = max(len(column.path) for column in columns)
    for level in range(depth - 1):
        parents = [
            column.path[: level + 1 - depth + len(column.path)]
            if level + 1 - depth + len(column.path) > 0
            else ()
            for column in columns
        ]
        blocks, spans = [], []
        for parent, numbers in groupby(range(len(columns)), key=parents.__getitem__):
            covered = [widths[number] for number in numbers]
            span = sum(covered) + gap * (len(covered) - 1)
            block = _block(parent[-1], span, "center", "bold") if parent else []
            blocks.append([*block, Text(grid.rule * span, style="dim")] if parent else [])
            spans.append(span)
        lines += _beside(blocks, spans, gap, foot=True)
    leaves = [
        _block(column.path[-1], width, column.align, "bold")
        for column, width in zip(columns, widths, strict=True)
    ]
    return lines + _beside(leaves, widths, gap, foot=True)


def _cell(field: Field, column: GridColumn, width: int) -> Block:
    texts = [field.text] if column.fixed else fold_text(field.text, width)
    block = [_padded(text, width, column.align, field.style) for text in texts]
    return block + (_block(field.note, width, column.align, "dim") if field.note else [])


def _block(text: str, width: int, align: str = "left", style: str = "") -> Block:
    return [_padded(line, width, align, style) for line in fold_text(text, width)]


def _padded(text: str, width: int, align: str, style: str) -> Text:
    room = max(0, width - cell_len(text))
    left = {"left": 0, "center": room // 2, "right": room}[align]
    return Text(" " * left).append(text.replace(NO_BREAK, " "), style).append(" " * (room - left))


def _beside(
    blocks: Iterable[Block], widths: Sequence[int], gap: int, *, foot: bool = False
) -> Block:
    """Blocks side by side, their first lines level, or with `foot` their last ones."""
    blocks = list(blocks)
    height = max(len(block) for block in blocks)
    filled = []
    for block, width in zip(blocks, widths, strict=True):
        blank = [Text(" " * width) for _ in range(height - len(block))]
        filled.append([*blank, *block] if foot else [*block, *blank])
    return [Text(" " * gap).join(parts) for parts in zip(*filled, strict=True)]
