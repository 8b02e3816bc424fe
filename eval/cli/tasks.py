"""The tasks' command: what can be run."""

import sys

from rich.table import Table

from eval import plugins
from eval.api import Nucleus
from eval.cli.console import out
from eval.report.card import card_columns, load_card


def list_tasks() -> None:
    """Show the tasks that can be run, and which column of the card each fills."""
    offered = plugins.catalogue()
    columns = {t: column for column in card_columns(load_card()) for t in column.tasks}
    table = Table(box=None, pad_edge=False)
    for name in ("task", "samples", "card", "metric", "decoding"):
        table.add_column(name, no_wrap=name in ("task", "metric"), overflow="fold")
    for registered in offered.tasks.values():
        task = registered.task
        size = f"{task.size:,}" if task.size else "?"
        column = columns.get(task.name)
        server = " (server)" if task.submission and task.submission.alone else ""
        server = " (judge)" if task.judged else server
        decode = "likeliest option"
        if not isinstance(task.decode, type):
            how = f"top_p {task.decode.top_p:g}" if isinstance(task.decode, Nucleus) else "greedy"
            decode = f"{how}, {task.decode.min_new_tokens} to {task.decode.max_new_tokens}"
        label = column.column if column else "-"
        table.add_row(task.name, size, label, next(iter(task.metrics)) + server, decode)
    for name, column in columns.items():  # every column of the card, also one nobody serves
        if name not in offered.tasks:
            label = f"{column.table}: {column.column}"
            table.add_row(name, "", label, column.metric, "not offered by this version")
    out.print(table)
    for broken in (*offered.clashes.values(), *offered.broken):
        print(f"warning: {broken}", file=sys.stderr)
