"""The model card's tables with the scores of finished runs. Never imports torch.

run folders -> load_run -> build_tables, with load_card -> render_terminal, render_markdown,
render_html, render_latex, render_csv, render_json
two of them -> compare_runs -> render_comparison, comparison_markdown, comparison_junit, ..._json
"""

from eval.report.card import Card, CardColumn, card_columns, load_card
from eval.report.forms.html import render_html
from eval.report.forms.latex import render_latex
from eval.report.forms.markdown import render_markdown
from eval.report.forms.records import render_csv, render_json
from eval.report.forms.terminal import render_terminal
from eval.report.forms.verdict import (
    comparison_json,
    comparison_junit,
    comparison_markdown,
    render_comparison,
)
from eval.report.gate import ERROR, FAIL, MARGIN, SKIP, RunComparison, cannot_compare, compare_runs
from eval.report.scores import RunScores, load_run
from eval.report.tables import Table, build_tables

__all__ = [
    "ERROR",
    "FAIL",
    "MARGIN",
    "SKIP",
    "Card",
    "CardColumn",
    "RunComparison",
    "RunScores",
    "Table",
    "build_tables",
    "cannot_compare",
    "card_columns",
    "compare_runs",
    "comparison_json",
    "comparison_junit",
    "comparison_markdown",
    "load_card",
    "load_run",
    "render_comparison",
    "render_csv",
    "render_html",
    "render_json",
    "render_latex",
    "render_markdown",
    "render_terminal",
]
