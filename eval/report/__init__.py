"""Finished runs in, the model card's tables out. Needs no model, and never imports torch.

run folders -> load_run -> build_tables, with load_card -> render_terminal, render_markdown
"""

from eval.report.card import Card, CardColumn, card_columns, load_card
from eval.report.figures import RunFigures, load_run
from eval.report.markdown import render_markdown
from eval.report.tables import Table, build_tables
from eval.report.terminal import render_terminal

__all__ = [
    "Card",
    "CardColumn",
    "RunFigures",
    "Table",
    "build_tables",
    "card_columns",
    "load_card",
    "load_run",
    "render_markdown",
    "render_terminal",
]
