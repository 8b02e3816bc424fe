"""How TouchStone's figures are shown in a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from eval.api import Task
from eval.cli.console import err, out
from touchstone.anchors import drift
from touchstone.judging import Occasion
from touchstone.ledger import Ledger

SHOWN = 5  # failed judgements that are named


def print_figures(
    task: Task, summary: Mapping[str, Any], occasion: Occasion, ledger: Ledger
) -> None:
    """Print a task's figures, overall, by category and by task, and what they are worth."""
    told = summary["judge"]
    table = Table(box=None, pad_edge=False)
    for name in (task.name, "dialogues", "score", "95% interval"):
        table.add_column(name, justify="left" if name == task.name else "right", overflow="fold")
    metric = next(iter(task.metrics))  # parts may have one where there is none of all
    mean = summary["metrics"].get(metric)
    table.add_row("all", f"{summary['samples']:,}", _x100(mean), _span(told["interval"]))
    for group in ("category", "task_name"):
        table.add_row()
        for value, part in summary["by"].get(group, {}).items():
            span = _span(told["intervals"][group].get(value))
            label = escape(value.strip() or "(none)")
            table.add_row(label, f"{part['samples']:,}", _x100(part[metric]), span)
    out.print(table)
    lines = []
    if told["failed"]:
        low, high = told["bounds"] or (None, None)
        lines.append(
            f"{told['failed']:,} judgements failed and are left out, as published; had they been "
            f"the worst and the best, the score were {_x100(low)} and {_x100(high)}"
        )
    wins, rounds = told["against_reference"], told["rounds"]
    lines.append(
        f"beside the reference answers ({_x100(told['reference'])}): {wins['win']:,} better, "
        f"{wins['tie']:,} alike, {wins['loss']:,} worse"
    )
    if rounds["dialogues"]:
        lines.append(
            f"both rounds prefer the same answer in {rounds['same_winner']:,} of "
            f"{rounds['dialogues']:,} dialogues; what stands first is scored "
            f"{rounds['first_preferred']:+.2f} beside the other"
        )
    lines.append(_drift(drift(occasion, ledger)))
    spent = ledger.spent(occasion.name)
    lines.append(
        f"judged by {summary['scored_by']}"
        + (f"; ${spent:,.2f} spent" if occasion.judge.price else "")
        + f"; ledger {ledger.path}"
    )
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
    for number, (sample, fault) in enumerate(_failures(occasion, ledger)):
        if number == SHOWN:
            err.print("... and more, in judgements.jsonl", highlight=False)
            break
        line = f"failed: {task.name}/{sample}: {fault}"
        err.print(escape(line), highlight=False, soft_wrap=True)
    out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)


def _failures(occasion: Occasion, ledger: Ledger) -> Iterator[tuple[str, str]]:
    for wanted in occasion.wanted:
        line = ledger.line(wanted.ask.key)
        if line and line["fault"]:
            yield f"{wanted.dialogue.id} round {wanted.round}", str(line["fault"])


def _drift(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "no anchors were judged: whether the judge has drifted is not known"
    text = f"anchors: {_x100(told['mean'])} over {told['judgements']} judgements"
    if told["first"]:
        return f"{text}, recorded now: later runs are compared with them"
    return (
        f"{text}, {_x100(told['recorded'])} when recorded on {told['recorded_on']}"
        f" ({told['reported']}): drift {100 * (told['mean'] - told['recorded']):+.1f}, "
        f"{told['changed']} differ"
    )


def _x100(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _span(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{_x100(ends[0])} to {_x100(ends[1])}"
