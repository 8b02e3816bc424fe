r"""Tables for a paper: booktabs, included with \input.

No text of a run can be a command, end a line or a cell, or start a comment: every sign with a
meaning in TeX is escaped, and source lines are folded.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from eval.report.card import Header, HeaderRows
from eval.report.comparison import TableCell
from eval.report.tables import Compared, GroupScore, Table, TableGroup, TableRow
from eval.storage.text import printable

ESCAPES = {
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",  # with these three the default fonts print other signs
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # some languages of babel make it a command
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row it would open an argument
    "]": "{]}",
    "*": "{*}",  # after the end of a row it would be read as \\*
    "…": r"\textellipsis{}",
    "†": r"\textdagger{}",
    "\N{REPLACEMENT CHARACTER}": r"\textquestiondown{}",
}
SIGNS = re.compile(
    f"[{re.escape(''.join(ESCAPES))}]"
    "|-(?=-)|,(?=,)|'(?=')"  # pairs that a font would join into one sign
)
WIDTH = 100  # of a line of the source
PACKAGES = ("booktabs", "multirow", "adjustbox")
HEAD = f"""\
% The model card's tables with the runs' rows. In the preamble:
%   \\usepackage{{{",".join(PACKAGES)}}}
% A name in other letters than Latin ones needs XeLaTeX or LuaLaTeX, and a font that has them."""
BEST_FIT = r"\begin{adjustbox}{max totalsize={\textwidth}{0.9\textheight}}"
RUN = r"$\triangleright$~"
COMPARED = ("Column", "Run", "95% interval", "Card", "Difference", "Verdict")
CONTEXT = ("Samples", "Images", "Protocol", "Comparable")
PARTS = ("Task", "Group", "Value", "Samples", "Run", "Protocol")
BREAK = r"\\("
WIDE = r"p{16em}"  # a column of prose


def render_latex(tables: Sequence[Table]) -> str:
    """The tables, with the card's spans, and below each the comparison; signatures in comments."""
    blocks = ["\n".join(_table(table)) for table in tables]
    return "\n\n".join([HEAD, *(blocks or ["No figure to show."])]) + "\n"


def escape(text: str) -> str:
    """Printable text without meaning to TeX."""
    return SIGNS.sub(lambda sign: ESCAPES.get(sign[0], f"{sign[0]}{{}}"), printable(text))


def _table(table: Table) -> Iterator[str]:
    name = table.id.replace("_", "-")
    if table.groups:
        yield from _float(escape(table.title), name, _card_table(table), _marked(table.groups))
    for number, compared in enumerate(table.compared, 1):
        body = _comparison(compared)
        marked = any(column.cell.marked for column in compared.columns)
        yield from _float(_title(table, compared), f"{name}-{number}", body, marked)
        for column in compared.columns:
            for signature in column.signatures:
                yield from _comment(signature)
    for number, (run, parts) in enumerate(table.parts.items(), 1):
        caption = f"{escape(table.title)}: {RUN}{escape(run)}"
        yield from _float(caption, f"{name}-{number}", _group_scores(parts), marked=False)


def _float(caption: str, name: str, body: Iterable[str], marked: bool) -> Iterator[str]:
    yield r"\begin{table}"
    yield r"\centering"
    yield from _folded(rf"\caption{{{caption}}}")
    yield rf"\label{{tab:{name}}}"
    yield BEST_FIT
    yield from body
    yield r"\end{adjustbox}"
    if marked:
        yield r"\par\smallskip{\footnotesize \textdagger{} not comparable with the card.}"
    yield r"\end{table}"


def _card_table(table: Table) -> Iterator[str]:
    labels = table.grouped + 1
    width = len(table.paths)
    yield rf"\begin{{tabular}}{{{'l' * labels}{'c' * (width - labels)}}}"
    yield r"\toprule"
    yield from _header(table.header, width, labels)
    for group in table.groups:
        yield r"\midrule"
        yield from _group(group, grouped=table.grouped)
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _header(header: HeaderRows, width: int, labels: int) -> Iterator[str]:
    """The card's header rows; a cell that reaches down leaves empty ones below it."""
    left = [0] * width  # rows that the cell above each column still covers
    for row in header:
        cells, rules, remaining = [], [], iter(row)
        column = 0
        while column < width:
            if left[column]:
                left[column] -= 1
                cells.append("")
                column += 1
                continue
            cell = next(remaining)
            cells.append(_spanning(cell, "l" if column < labels else "c"))
            if cell.colspan > 1:
                rules.append(rf"\cmidrule(lr){{{column + 1}-{column + cell.colspan}}}")
            for covered in range(column, column + cell.colspan):
                left[covered] = cell.rowspan - 1
            column += cell.colspan
        yield from _row(cells)
        yield from rules


def _spanning(cell: Header, align: str) -> str:
    text = escape(cell.text)
    if cell.superscript:
        text += rf"\textsuperscript{{{escape(cell.superscript)}}}"
    text = _stacked(text, align)
    if cell.rowspan > 1:
        text = rf"\multirow{{{cell.rowspan}}}{{*}}{{{text}}}"
    return rf"\multicolumn{{{cell.colspan}}}{{c}}{{{text}}}" if cell.colspan > 1 else text


def _group(group: TableGroup, *, grouped: bool) -> Iterator[str]:
    label = _stacked(escape(group.title), "l")
    if len(group.rows) > 1:
        label = rf"\multirow{{{len(group.rows)}}}{{*}}{{{label}}}"
    for number, row in enumerate(group.rows):
        first = [label if number == 0 else ""] if grouped else []
        yield from _row([*first, _model(row), *map(_score, row.cells)])


def _comparison(compared: Compared) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{l{'r' * (len(COMPARED) - 2)}l{'r' * 2}l{WIDE}}}"
    yield r"\toprule"
    yield from _row(map(escape, (*COMPARED, *CONTEXT)))
    yield r"\midrule"
    for column in (each for each in compared.columns if not each.empty):
        texts = [column.interval, column.card, column.difference, column.verdict]
        texts += [column.samples, column.images, column.protocol, column.remark]
        yield from _row([escape(column.column), _score(column.cell), *map(escape, texts)])
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _group_scores(parts: Sequence[GroupScore]) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{l{WIDE}{WIDE}rrl}}"
    yield r"\toprule"
    yield from _row(map(escape, PARTS))
    yield r"\midrule"
    for part in parts:
        texts = (part.task, part.group, part.value, part.samples, part.score, part.protocol)
        yield from _row(map(escape, texts))
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _title(table: Table, compared: Compared) -> str:
    beside = f" beside {escape(compared.model)}" if compared.model else ""
    remark = f" ({escape(compared.remark)})" if compared.remark else ""
    return f"{escape(table.title)}: {RUN}{escape(compared.run)}{beside}{remark}"


def _model(row: TableRow) -> str:
    if row.run:
        return RUN + escape(row.model)
    return rf"\textbf{{{escape(row.model)}}}" if row.bold else escape(row.model)


def _score(cell: TableCell) -> str:
    text = rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text)
    if cell.marked:
        text += r"\textsuperscript{\textdagger{}}"
    if cell.note:
        return rf"\shortstack{{{text}\\{{\footnotesize {escape(cell.note)}}}}}"
    return text


def _stacked(text: str, align: str) -> str:
    """Text with its brackets on a line of their own, as on the card."""
    return rf"\shortstack[{align}]{{{text.replace(' (', BREAK)}}}" if " (" in text else text


def _marked(groups: Sequence[TableGroup]) -> bool:
    return any(cell.marked for group in groups for row in group.rows for cell in row.cells)


def _row(cells: Iterable[str]) -> list[str]:
    return _folded(rf"{' & '.join(cells)} \\")


def _folded(line: str) -> list[str]:
    """Lines that TeX reads as one, since a line's end is a space; words stay whole."""
    return textwrap.wrap(
        line, WIDTH, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def _comment(text: str) -> Iterator[str]:
    """Text of a run in comments, marked so that no program takes it for an instruction."""
    for begin in range(0, len(text), WIDTH):
        yield f"%> {text[begin : begin + WIDTH]}"
