"""How a judge's scores are shown in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from eval.cli.console import err, out
from eval.judging.session import Scored

SHOWN = 5  # failed judgements that are named


def print_scores(scored: Scored) -> None:
    """Print a task's figures, overall and by each of its groups, and what they are worth."""
    task, summary = scored.task, scored.summary
    judge = summary["judge"]
    table = Table(box=None, pad_edge=False)
    for name in (task.name, "dialogues", "score", "95% interval"):
        table.add_column(name, justify="left" if name == task.name else "right", overflow="fold")
    metric = next(iter(task.metrics))  # parts may have one where there is none of all
    mean = summary["metrics"].get(metric)
    if mean is None and judge["as_published"]:  # beyond what the card's tables hold
        mean = judge["published"]
    span = _span(judge["interval"], judge["no_interval"])
    table.add_row("all", f"{summary['samples']:,}", _x100(mean), span)
    for group in judge["intervals"]:
        table.add_row()
        for value, part in summary["by"].get(group, {}).items():
            reason = judge["no_intervals"][group].get(value, "")
            span = _span(judge["intervals"][group].get(value), reason)
            label = escape(value.strip() or "(none)")
            table.add_row(label, f"{part['samples']:,}", _x100(part[metric]), span)
    out.print(table)
    spent = "" if scored.usd is None else f"; ${scored.usd:,.2f} spent"
    lines = [
        *scored.remarks,
        _drift(scored.drift),
        f"judged by {summary['scored_by']}{spent}; ledger {scored.ledger}",
    ]
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
    for number, (sample, fault) in enumerate(scored.failures):
        if number == SHOWN:
            err.print("... and more, in judgements.jsonl", highlight=False)
            break
        line = f"failed: {task.name}/{sample}: {fault}"
        err.print(escape(line), highlight=False, soft_wrap=True)
    out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)


def _drift(anchors: Mapping[str, Any] | None) -> str:
    if anchors is None:
        return "no anchors were judged: whether the judge has drifted is not known"
    text = f"anchors: {_x100(anchors['mean'])} over {anchors['judgements']} judgements"
    if anchors["first"]:
        return f"{text}, recorded now: later runs are compared with them"
    return (
        f"{text}, {_x100(anchors['recorded'])} when recorded on {anchors['recorded_on']}"
        f" ({anchors['reported']}): drift {100 * (anchors['mean'] - anchors['recorded']):+.1f}, "
        f"{anchors['changed']} differ"
    )


def _x100(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _span(ends: Sequence[float] | None, reason: str) -> str:
    return reason or "-" if ends is None else f"{_x100(ends[0])} to {_x100(ends[1])}"
