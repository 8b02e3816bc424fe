"""The comparison with the card as data for other programs: JSON, and CSV with a row a score."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import orjson

from eval.report.card import MISSING, Card
from eval.report.comparison import ColumnComparison, number
from eval.report.scores import RunScores
from eval.report.tables import Compared, GroupScore, Table, named_runs
from eval.run.files import Summary

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet takes such a cell for a formula
ESCAPE = "'"
JOINED = " + "  # between the counts of several tasks, as in the tables
OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """A run's score beside the card's. What is missing is None, and never a number.

    tasks       whose mean the score is, by their metric, "" where they are not scored
    figure      the score as printed, like card, difference and the interval's ends, low and high
    model       of the card's row, "" where there is none
    comparable  whether the run measured what the card did
    samples     of each task, like images
    verdict     None where the card has no score
    remark      "complete", or why the score is missing or not comparable
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
class GroupRecord:
    """The score of the samples that have one value of a group."""

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


def records(tables: Sequence[Table], card: Card) -> Iterator[ScoreRecord]:
    """Every score that is compared, in the order of the tables."""
    known = {(table.id, column.label): column for table in card.tables for column in table.columns}
    for table in tables:
        for compared in table.compared:
            for column in (each for each in compared.columns if not each.empty):
                if source := known.get((table.id, column.column)):
                    tasks, metric = source.tasks, source.metric
                else:  # it is named after them
                    task, _, metric = column.column.partition(" ")
                    tasks = (task,)
                yield _record(table, compared, column, tasks, metric)


def group_records(tables: Sequence[Table]) -> Iterator[GroupRecord]:
    """Every score by group."""
    for table in tables:
        for run, parts in table.parts.items():
            yield from (_part(run, part) for part in parts)


def render_csv(tables: Sequence[Table], card: Card) -> str:
    """RFC 4180, a header and a row a score; scores by group have a group and a value.

    No cell is a formula: a text that looks like one gets an apostrophe in front. So does a text
    that starts with an apostrophe, so that the original can be restored.
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
    for part in group_records(tables):
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


def render_json(tables: Sequence[Table], card: Card, runs: Sequence[RunScores]) -> str:
    """The tables as printed; the cells that are compared, each with its summaries' own scores,
    unrounded and unscaled; and the scores by group.

    runs  that the tables were built from
    """
    named = {name: run for name, (run, _) in named_runs(runs).items()}
    content = {
        "tables": [_table(table) for table in tables],
        "cells": [
            asdict(each) | {"summaries": _summaries(each, named[each.run])}
            for each in records(tables, card)
        ],
        "parts": [asdict(part) for part in group_records(tables)],
    }
    return orjson.dumps(content, option=OPTIONS, default=float).decode()


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula; an apostrophe at its start is always ours."""
    return ESCAPE + text if text.startswith((*FORMULA, ESCAPE)) else text


def _record(
    table: Table, compared: Compared, column: ColumnComparison, tasks: tuple[str, ...], metric: str
) -> ScoreRecord:
    low, high = column.ends or (None, None)
    return ScoreRecord(
        compared.run,
        table.id,
        column.column,
        tasks,
        metric,
        number(column.score),
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


def _part(run: str, part: GroupScore) -> GroupRecord:
    task, _, metric = part.task.partition(" ")
    (samples,) = _counts(part.samples)
    figure = number(part.score)
    return GroupRecord(run, task, metric, part.group, part.value, samples, figure, part.protocol)


def _counts(text: str) -> tuple[int, ...]:
    """Numbers of samples or images, one a task, from how they are printed."""
    if text == MISSING:
        return ()
    return tuple(int(count.replace(",", "")) for count in text.split(JOINED))


def _summaries(record: ScoreRecord, run: RunScores) -> list[dict[str, Any]]:
    """The summaries behind a score; none where there is no score."""
    if record.figure is None:
        return []
    return [_summary(run.tasks[task]) for task in record.tasks]


def _summary(task: Summary) -> dict[str, Any]:
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
            metric: {"low": each.low, "high": each.high} for metric, each in task.intervals.items()
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
