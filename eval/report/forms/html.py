"""Tables as one HTML page without scripts, fonts, pictures or network.

Every text of a run is escaped, isolated in its own writing direction, and may break anywhere.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from eval.report.comparison import OUTSIDE, REPRODUCED
from eval.report.tables import Table

TITLE = "Qwen-VL: the model card's tables"
COMPARED = (
    *("Column", "Run", "95% interval", "Card", "Difference", "Verdict"),
    *("Samples", "Images", "Protocol", "Comparable"),
)
PARTS = ("Task", "Group", "Value", "Samples", "Run", "Protocol")


def render_html(tables: Sequence[Table]) -> str:
    """The tables, with the card's spans, and below each the comparison and the signatures."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["stacked"] = _stacked
    return environment.get_template("report.html").render(
        tables=tables,
        title=TITLE,
        compared_columns=COMPARED,
        part_columns=PARTS,
        colored=(REPRODUCED, OUTSIDE),
        remarks_by_run=_remarks_by_run,
    )


def escape(value: object) -> Markup:
    """Text without markup, for use between tags and in quoted attributes."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def _stacked(text: str) -> Markup:
    """Text with its brackets on a line of their own, as on the card."""
    return Markup(html.escape(text).replace(" (", "<br>("))


def _remarks_by_run(table: Table) -> Mapping[str, Sequence[str]]:
    return {each.run: [column.remark for column in each.columns] for each in table.compared}
