"""The comparison with the card as data for other programs: CSV, a row a figure, and JSON."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import orjson

from eval.report.card import MISSING, Card
from eval.report.comparison import Comparison, number
from eval.report.scores import RunFigures, TaskFigures
from eval.report.tables import Compared, Part, Table
from eval.report.tables import named_runs as named_runs

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a spreadsheet takes for code, not for text
ESCAPE = "'"
JOINED = " + "  # as in the tables, the numbers of a figure that is the mean of several tasks
OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class Record:
    """A figure of a run beside the card's. What is missing is None, and never a number.

    tasks       whose mean the figure is, by their metric, "" where they are not scored
    figure      as printed, like card, difference and the interval's ends, low and high
    model       of the card's row, "" where there is none
    comparable  whether the run measured what the card did
    samples     of each task, like images
    verdict     None where the card has no figure
    remark      "complete", or why the figure is missing or not comparable
    """

    run: str
    table: str
    column: str
    tasks: tuple[str, ...]
    metric: str
    figure: Decimal | None
    low: Decimal | None
    high: Decimal | None
    model: str
    card: Decimal | None
    difference: Decimal | None
    verdict: str | None
    comparable: bool
    samples: tuple[int, ...]
    images: tuple[int, ...]
    protocol: str | None
    remark: str
    signatures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A figure of the samples that have one value of a group."""

    run: str
    task: str
    metric: str
    group: str
    value: str
    samples: int
    figure: Decimal | None
    protocol: str


COLUMNS = (
    *("run", "table", "column", "tasks", "metric", "group", "value"),
    *("figure", "low", "high", "card_model", "card_figure", "difference", "verdict", "comparable"),
    *("samples", "images", "protocol", "remark", "signatures"),
)


def records(tables: Sequence[Table], card: Card) -> Iterator[Record]:
    """Every figure that is compared, in the order of the tables."""
    known = {(table.id, column.label): column for table in card.tables for column in table.columns}
    for table in tables:
        for compared in table.compared:
            for column in (each for each in compared.columns if not each.empty):
                if found := known.get((table.id, column.column)):
                    tasks, metric = found.tasks, found.metric
                else:  # it is named after them
                    task, _, metric = column.column.partition(" ")
                    tasks = (task,)
                yield _record(table, compared, column, tasks, metric)


def part_records(tables: Sequence[Table]) -> Iterator[PartRecord]:
    """Every figure by group."""
    for table in tables:
        for run, parts in table.parts.items():
            yield from (_part(run, part) for part in parts)


def render_csv(tables: Sequence[Table], card: Card) -> str:
    """RFC 4180, a header and a row a figure; figures by group have a group and a value.

    Nothing is a formula: a text that could be taken for one has an apostrophe before it, and so has
    one with an apostrophe of its own, which makes the original certain.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for each in records(tables, card):
        writer.writerow(
            {
                "run": guarded(each.run),
                "table": guarded(each.table),
                "column": guarded(each.column),
                "tasks": guarded(JOINED.join(each.tasks)),
                "metric": guarded(each.metric),
                "figure": each.figure,
                "low": each.low,
                "high": each.high,
                "card_model": guarded(each.model),
                "card_figure": each.card,
                "difference": each.difference,
                "verdict": guarded(each.verdict or ""),
                "comparable": str(each.comparable).lower(),
                "samples": JOINED.join(map(str, each.samples)),
                "images": JOINED.join(map(str, each.images)),
                "protocol": guarded(each.protocol or ""),
                "remark": guarded(each.remark),
                "signatures": guarded("; ".join(each.signatures)),
            }
        )
    for part in part_records(tables):
        writer.writerow(
            {
                "run": guarded(part.run),
                "table": "by",
                "column": guarded(f"{part.task} {part.metric}"),
                "tasks": guarded(part.task),
                "metric": guarded(part.metric),
                "group": guarded(part.group),
                "value": guarded(part.value),
                "figure": part.figure,
                "samples": part.samples,
                "protocol": guarded(part.protocol),
            }
        )
    return file.getvalue()


def render_json(tables: Sequence[Table], card: Card, runs: Sequence[RunFigures]) -> str:
    """The tables as they are printed; the cells that are compared, each with its summaries' own
    figures, unrounded and unscaled; and the figures by group.

    runs  of which the tables were built
    """
    named = {name: run for name, (run, _) in named_runs(runs).items()}
    content = {
        "tables": [_table(table) for table in tables],
        "cells": [
            asdict(each) | {"summaries": _summaries(each, named[each.run])}
            for each in records(tables, card)
        ],
        "parts": [asdict(part) for part in part_records(tables)],
    }
    return orjson.dumps(content, option=OPTIONS, default=float).decode()


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula; an apostrophe at its start is always ours."""
    return ESCAPE + text if text.startswith((*FORMULA, ESCAPE)) else text


def _record(
    table: Table, compared: Compared, column: Comparison, tasks: tuple[str, ...], metric: str
) -> Record:
    low, high = None, None
    if column.interval != MISSING:
        low, high = (number(end) for end in column.interval.split(" to "))
    return Record(
        compared.run,
        table.id,
        column.column,
        tasks,
        metric,
        number(column.figure),
        low,
        high,
        compared.model,
        number(column.card),
        number(column.difference),
        None if column.verdict == MISSING else column.verdict,
        column.comparable,
        _counts(column.samples),
        _counts(column.images),
        None if column.protocol == MISSING else column.protocol,
        column.remark,
        column.signatures,
    )


def _part(run: str, part: Part) -> PartRecord:
    task, _, metric = part.task.partition(" ")
    (samples,) = _counts(part.samples)
    figure = number(part.figure)
    return PartRecord(run, task, metric, part.group, part.value, samples, figure, part.protocol)


def _counts(text: str) -> tuple[int, ...]:
    """Numbers of samples or images, one a task, from how they are printed."""
    if text == MISSING:
        return ()
    return tuple(int(count.replace(",", "")) for count in text.split(JOINED))


def _summaries(record: Record, run: RunFigures) -> list[dict[str, Any]]:
    """What a figure was made of; nothing where there is none."""
    if record.figure is None:
        return []
    return [_summary(run.tasks[task]) for task in record.tasks]


def _summary(task: TaskFigures) -> dict[str, Any]:
    return {
        "task": task.task,
        "size": task.size,
        "samples": task.samples,
        "images": task.images,
        "failed": task.failed,
        "unreadable": task.unreadable,
        "complete": task.complete,
        "metrics": dict(task.metrics),
        "intervals": {
            metric: {"low": low, "high": high} for metric, (low, high) in task.intervals.items()
        },
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "id": table.id,
        "title": table.title,
        "header": [[asdict(header) for header in row] for row in table.header],
        "grouped": table.grouped,
        "groups": [asdict(group) for group in table.groups],
        "compared": [
            {"run": each.run, "model": each.model, "remark": each.remark} for each in table.compared
        ],
    }
