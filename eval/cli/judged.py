"""How TouchStone's figures are shown in a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from eval.cli.console import err, out
from eval.data.declare import Task
from touchstone.anchors import drift
from touchstone.judging import Occasion
from touchstone.ledger import Ledger
from touchstone.result import failure

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
    if mean is None and told["as_published"]:  # beyond what the card's tables hold
        mean = told["published"]
    span = _span(told["interval"], told["no_interval"])
    table.add_row("all", f"{summary['samples']:,}", _x100(mean), span)
    for group in ("category", "task_name"):
        table.add_row()
        for value, part in summary["by"].get(group, {}).items():
            reason = told["no_intervals"][group].get(value, "")
            span = _span(told["intervals"][group].get(value), reason)
            label = escape(value.strip() or "(none)")
            table.add_row(label, f"{part['samples']:,}", _x100(part[metric]), span)
    out.print(table)
    lines = []
    if told["failed"]:
        low, high = told["bounds"] or (None, None)
        lines.append(
            f"{told['failed']:,} judgements failed and are left out; had they been the worst and "
            f"the best, the score would be {_x100(low)} and {_x100(high)}"
        )
    if told["off_scale"]:
        published = _x100(told["published"])
        lines.append(
            f"{told['off_scale']:,} judgements have scores outside 1 to 10, which "
            + (
                f"count here, as published: {published}"
                if told["as_published"]
                else f"failed; as published they count, and the score is {published}"
            )
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
    failures = _failures(occasion, ledger, told["as_published"])
    for number, (sample, fault) in enumerate(failures):
        if number == SHOWN:
            err.print("... and more, in judgements.jsonl", highlight=False)
            break
        line = f"failed: {task.name}/{sample}: {fault}"
        err.print(escape(line), highlight=False, soft_wrap=True)
    out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)


def _failures(occasion: Occasion, ledger: Ledger, as_published: bool) -> Iterator[tuple[str, str]]:
    for wanted in occasion.wanted:
        line = ledger.line(wanted.ask.key)
        if line and (fault := failure(line, as_published)):
            yield f"{wanted.dialogue.id} round {wanted.round}", fault


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


def _span(ends: Sequence[float] | None, reason: str) -> str:
    return reason or "-" if ends is None else f"{_x100(ends[0])} to {_x100(ends[1])}"
