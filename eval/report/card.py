"""The model card's tables as checked data, from results/model_card.yaml. Knows nothing of runs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eval.errors import DataError

NAME = "model_card.yaml"
# libyaml reads the card ten times as fast as Python, where PyYAML was built with it
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MISSING = "-"  # how the card prints a score that it does not have
BASE, CHAT = "base", "chat"
SERVER, JUDGE = "server", "judge"  # what scores a column that is not scored here
FEW_SHOT = re.compile(r"\(([0-9]+)-shot\)$")
LABELS = ("group", "model")  # the columns that hold no scores


@dataclass(frozen=True, slots=True)
class Header:
    """A header cell, the superscript apart from the text."""

    text: str
    superscript: str = ""
    colspan: int = 1
    rowspan: int = 1

    @property
    def plain(self) -> str:
        """Such as "VQAv2 dev"."""
        return f"{self.text} {self.superscript}".strip()


HeaderRows = tuple[tuple[Header, ...], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of scores, and what fills it.

    label      the header in one line, with its parent's where it would not be unique without
    tasks      whose summaries are read; of several the mean is shown
    metric     its name in a summary, where it lies in [0, maximum]; shown times scale
    decimals   of a run's score
    scored_by  "server" for the benchmark's own, "judge", or "" where it is scored here
    """

    key: str
    label: str
    tasks: tuple[str, ...]
    metric: str
    maximum: float
    scale: int
    decimals: int
    scored_by: str = ""


@dataclass(frozen=True, slots=True)
class CardCell:
    """A score as printed, "-" or "" where the card has none."""

    text: str
    note: str = ""
    bold: bool = False


@dataclass(frozen=True, slots=True)
class CardRow:
    """A model's scores, by column.

    checkpoint  "base" or "chat" for the card's own models, else ""
    """

    model: str
    cells: Mapping[str, CardCell]
    checkpoint: str = ""
    bold: bool = False
    hidden: bool = False

    @property
    def few_shot(self) -> int:
        """Examples before each question, from the row's name, or 0."""
        match = FEW_SHOT.search(self.model)
        return int(match[1]) if match else 0


@dataclass(frozen=True, slots=True)
class CardGroup:
    """Rows under one label, which is "" where the table has no groups."""

    title: str
    rows: tuple[CardRow, ...]

    @property
    def marks_best(self) -> bool:
        """Whether the card sets the best of these rows in bold."""
        return any(cell.bold for row in self.rows for cell in row.cells.values())


@dataclass(frozen=True, slots=True)
class CardTable:
    """One table of the card."""

    id: str
    title: str
    header: HeaderRows
    grouped: bool
    columns: tuple[Column, ...]
    groups: tuple[CardGroup, ...]

    @property
    def rows(self) -> tuple[CardRow, ...]:
        """All rows, the hidden ones too."""
        return tuple(row for group in self.groups for row in group.rows)


@dataclass(frozen=True, slots=True)
class Card:
    """The tables, in the card's order."""

    tables: tuple[CardTable, ...]


class CardColumn(NamedTuple):
    """What fills a column of the card: its tasks' summaries, and who scores them."""

    table: str
    column: str
    tasks: tuple[str, ...]
    metric: str
    scored_by: str


def card_columns(card: Card) -> list[CardColumn]:
    """Every column of scores, in the card's order, whether or not its tasks are installed."""
    return [
        CardColumn(table.title, column.label, column.tasks, column.metric, column.scored_by)
        for table in card.tables
        for column in table.columns
    ]


def load_card(path: Path | None = None) -> Card:
    """Read and check the card. Raises DataError, naming the place in the file.

    path  default: beside this module, as in an installed package, or results/ of a source folder
    """
    if path is None:
        here = Path(__file__).resolve()
        installed = here.with_name(NAME)
        path = installed if installed.is_file() else here.parents[2] / "results" / NAME
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the model card's tables cannot be read: {error}") from None
    root = _Node(content, f"{path}: ")
    tables = tuple(_table(node, root["column_notes"]) for node in root["tables"].each())
    _check_unique([table.id for table in tables], root["tables"], "table")
    owners = [
        task for table in tables for column in table.columns for task in dict.fromkeys(column.tasks)
    ]
    _check_unique(owners, root["column_notes"], "task")
    return Card(tables)


def header_paths(rows: HeaderRows, width: int) -> tuple[tuple[Header, ...], ...]:
    """For each of `width` columns the header cells above it, from the top down.

    Raises ValueError where the cells' spans leave a gap, overlap or stick out.
    """
    grid: list[list[Header | None]] = [[None] * width for _ in rows]
    for y, row in enumerate(rows):
        for cell in row:
            x = next((x for x in range(width) if grid[y][x] is None), width)
            for below in range(y, y + cell.rowspan):
                for beside in range(x, x + cell.colspan):
                    if below >= len(rows) or beside >= width or grid[below][beside]:
                        raise ValueError(f"{cell.text!r} sticks out or overlaps another")
                    grid[below][beside] = cell
    paths = []
    for x in range(width):
        path: list[Header] = []
        for line in grid:
            cell_above = line[x]
            if cell_above is None:
                raise ValueError(f"nothing stands above column {x + 1}")
            if not path or path[-1] is not cell_above:
                path.append(cell_above)
        paths.append(tuple(path))
    return tuple(paths)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value of the file, and where it stands."""

    value: Any
    place: str

    def wrong(self, expected: str) -> DataError:
        return DataError(
            f"{self.place.rstrip(': ')}: {expected} expected, {self.value!r:.80} found"
        )

    def __getitem__(self, key: str) -> "_Node":
        if not isinstance(self.value, dict):
            raise self.wrong("a mapping")
        return _Node(self.value.get(key), f"{self.place}.{key}".replace(": .", ": "))

    def each(self) -> Iterator["_Node"]:
        if not isinstance(self.value, list) or not self.value:
            raise self.wrong("a list that is not empty")
        for number, value in enumerate(self.value):
            yield _Node(value, f"{self.place}[{number}]")

    def text(self, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def count(self, default: int | None = None) -> int:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < 1:
            raise self.wrong("a positive integer")
        return self.value

    def one_of(self, *allowed: Any) -> Any:
        if self.value not in allowed:
            raise self.wrong(" or ".join(repr(each) for each in allowed if each is not None))
        return self.value


def _table(node: _Node, notes: _Node) -> CardTable:
    header = tuple(
        tuple(_header(cell) for cell in row.each()) for row in node["header_rows"].each()
    )
    keys = [key.text() for key in node["columns"].each()]
    _check_unique(keys, node["columns"], "column")
    grouped = keys[0] == "group"
    labels = LABELS if grouped else LABELS[1:]
    if tuple(keys[: len(labels)]) != labels or len(keys) == len(labels):
        raise node["columns"].wrong("'group' if there are groups, 'model', and columns of figures")
    try:
        paths = header_paths(header, len(keys))[len(labels) :]
    except ValueError as error:
        raise DataError(f"{node['header_rows'].place}: {error}") from None
    columns_of_scores = keys[len(labels) :]
    table_id = node["id"].text()
    columns = tuple(
        _column(key, label, notes[key], table_id)
        for key, label in zip(columns_of_scores, _labels(paths), strict=True)
    )
    heading = node["heading"]
    title = heading["en"].text()
    if parent := heading["parent_en"].text(""):
        title = f"{parent}: {title}"
    table = CardTable(
        table_id, title, header, grouped, columns, _groups(node["rows"], columns_of_scores, grouped)
    )
    _check_unique([row.model for row in table.rows], node["rows"], "model")
    if not any(row.checkpoint and not row.hidden for row in table.rows):
        raise DataError(f"{node['rows'].place}: a printed row with a 'checkpoint' expected")
    return table


def _header(node: _Node) -> Header:
    return Header(
        node["text"].text(),
        node["superscript"].text(""),
        node["colspan"].count(1),
        node["rowspan"].count(1),
    )


def _labels(paths: Sequence[tuple[Header, ...]]) -> list[str]:
    leaves = [path[-1].plain for path in paths]
    if len(set(leaves)) == len(leaves):
        return leaves
    return [" ".join(header.plain for header in path) for path in paths]


def _column(key: str, label: str, node: _Node, table: str) -> Column:
    task = node["task"]
    if isinstance(task.value, dict):
        task = task[table]
    tasks = [each.text() for each in task.each()] if isinstance(task.value, list) else [task.text()]
    return Column(
        key,
        label,
        tuple(tasks),
        metric=node["metric"].text(),
        maximum=node["maximum"].count(),
        scale=node["scale"].count(),
        decimals=node["decimals"].count(),
        scored_by=node["scored_by"].one_of(None, SERVER, JUDGE) or "",
    )


def _groups(node: _Node, keys: list[str], grouped: bool) -> tuple[CardGroup, ...]:
    """Rows under the labels that open them; a label's rowspan must be the rows printed."""
    opened: list[tuple[str, list[CardRow]]] = []
    spans: list[tuple[_Node, int]] = []
    for row in node.each():
        label = row["group"]
        if label.value is not None:
            opened.append((label["text"].text(), []))
            spans.append((label["rowspan"], label["rowspan"].count()))
        elif not opened:
            if grouped:
                raise label.wrong("the label of a group, in the first row,")
            opened.append(("", []))
        opened[-1][1].append(_row(row, keys))
    groups = tuple(CardGroup(title, tuple(rows)) for title, rows in opened)
    for (span, rowspan), group in zip(spans, groups, strict=False):
        printed = sum(not row.hidden for row in group.rows)
        if rowspan != printed:
            raise span.wrong(f"{printed}, the printed rows of {group.title!r},")
    return groups


def _row(node: _Node, keys: list[str]) -> CardRow:
    cells = node["cells"]
    if not isinstance(cells.value, dict) or cells.value.keys() != set(keys):
        raise cells.wrong(f"one cell for each of {', '.join(keys)}")
    return CardRow(
        node["model"].text(),
        {key: _cell(cells[key]) for key in keys},
        checkpoint=node["checkpoint"].one_of(None, BASE, CHAT) or "",
        bold=node["model_bold"].one_of(None, "b", "strong") is not None,
        hidden=node["hidden"].one_of(None, True) is True,
    )


def _cell(node: _Node) -> CardCell:
    text, value = node["text"].text(), node["value"].value
    try:
        printed = None if text in (MISSING, "") else float(text)
    except ValueError:
        raise node["text"].wrong("a number, '-' or ''") from None
    if value != printed or isinstance(value, bool):
        raise node["value"].wrong(f"{printed}, as in 'text',")
    bold = node["bold"].one_of(None, "b", "strong") is not None
    return CardCell(text, node["note"].text(""), bold)


def _check_unique(names: list[str], node: _Node, kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{node.place}: {kind} {name!r} expected once, found again")
