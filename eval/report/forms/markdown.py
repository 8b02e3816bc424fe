"""Tables for a pull request in plain Markdown; cells cannot span, so headers are joined."""

import re
from collections.abc import Iterable, Sequence

from eval.report.card import Header
from eval.report.comparison import TableCell
from eval.report.tables import Compared, GroupScore, Table, TableRow

# Signs that could be taken for Markdown, HTML, a link, a mention or a formula: all but those that
# are harmless inside a line, such as underscores inside a word.
ACTIVE = re.compile(
    r"(?![:&]\s)[^\w\s.,;()+/%'={}†▸…-]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.", re.IGNORECASE
)
COMPARED = ("Column", "Run", "95% interval", "Card", "Difference", "Samples", "Images")
CONTEXT = ("Protocol", "Verdict", "Comparable")
PARTS = ("Task", "Group", "Value", "Samples", "Run", "Protocol")


def render_markdown(tables: Sequence[Table]) -> str:
    """The tables, and below each the comparison with the card and the signatures of the scores."""
    blocks = [block for table in tables for block in _table(table)]
    return "\n\n".join(blocks or ["No figure to show."]) + "\n"


def _table(table: Table) -> list[str]:
    blocks = [f"### {escape(table.title)}"]
    if table.groups:
        blocks.append(_card_table(table))
    for compared in table.compared:
        blocks += [_title(compared), _comparison(compared)]
        signatures = [s for column in compared.columns for s in column.signatures]
        if signatures:
            lines = "\n".join(f"- {_code(signature)}" for signature in signatures)
            blocks.append(f"<details><summary>Signatures</summary>\n\n{lines}\n\n</details>")
    for run, parts in table.parts.items():
        blocks += [f"▸ {_code(run)}", _group_scores(parts)]
    if any(column.cell.marked for each in table.compared for column in each.columns):
        blocks.append("† not comparable with the card: see the last column.")
    return blocks


def _card_table(table: Table) -> str:
    header = [" ".join(map(_header, path)) for path in table.paths]
    labels = len(header) - len(table.groups[0].rows[0].cells)
    lines = [_line(header), _line([":---"] * labels + [":---:"] * (len(header) - labels))]
    for group in table.groups:
        for number, row in enumerate(group.rows):
            label = [escape(group.title) if number == 0 else ""] if table.grouped else []
            lines.append(_line([*label, _model(row), *map(_score, row.cells)]))
    return "\n".join(lines)


def _comparison(compared: Compared) -> str:
    right = ["---:"] * (len(COMPARED) - 1)
    lines = [_line([*COMPARED, *CONTEXT]), _line([":---", *right, *[":---"] * len(CONTEXT)])]
    for column in (each for each in compared.columns if not each.empty):
        texts = [column.interval, column.card, column.difference, column.samples, column.images]
        texts += [column.protocol, column.verdict, column.remark]
        lines.append(_line([escape(column.column), _score(column.cell), *map(escape, texts)]))
    return "\n".join(lines)


def _group_scores(parts: Sequence[GroupScore]) -> str:
    lines = [_line(PARTS), _line([*[":---"] * 3, "---:", "---:", ":---"])]
    for part in parts:
        texts = (part.task, part.group, part.value, part.samples, part.score, part.protocol)
        lines.append(_line(map(escape, texts)))
    return "\n".join(lines)


def _title(compared: Compared) -> str:
    beside = f" beside {escape(compared.model)}" if compared.model else ""
    remark = f" ({escape(compared.remark)})" if compared.remark else ""
    return f"▸ {_code(compared.run)}{beside}{remark}"


def _model(row: TableRow) -> str:
    if row.run:
        return f"▸ {_code(row.model)}"
    return f"**{escape(row.model)}**" if row.bold else escape(row.model)


def _score(cell: TableCell) -> str:
    text = f"**{cell.text}**" if cell.bold else cell.text
    note = f"<br>{escape(cell.note)}" if cell.note else ""
    return f"{text}{'†' if cell.marked else ''}{note}"


def _header(header: Header) -> str:
    superscript = f"<sup>{escape(header.superscript)}</sup>" if header.superscript else ""
    return escape(header.text) + superscript


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Text of a run as code, so that it notifies nobody."""
    return f"<code>{escape(text)}</code>"


def escape(text: str) -> str:
    """Text without meaning to Markdown or HTML; its active signs become character references."""
    return ACTIVE.sub(lambda sign: f"&#{ord(sign[0])};", text)
