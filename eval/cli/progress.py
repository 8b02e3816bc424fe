"""What a run prints: progress, a bar on a terminal and plain lines elsewhere, and its outcome."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Task as Bar,
)
from rich.text import Text

from eval.cli.console import PLAIN_LINE_S, err, print_summary, say
from eval.launch.queue import Report
from eval.pipeline import Evaluation, Reporting

WORKERS_SHOWN = 16
SHOWN = 5  # failed samples of a task that are named
Show = Callable[[Mapping[int, Report]], None]


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the signatures of a run's scores, and on standard error what it lacks."""
    for summary in evaluation.summaries:
        print_summary(summary)
    if names := evaluation.unjudged:
        path = shlex.quote(str(evaluation.run.path))
        say(f"{', '.join(names)}: answered; a judge scores the answers: qwen-vl-eval judge {path}")
    for task, failed in evaluation.failed.items():
        for number, (sample, reason) in enumerate(failed.items()):
            if number == SHOWN:
                say(f"... and {len(failed) - SHOWN:,} more of {task}")
                break
            say(f"failed: {task}/{sample}: {reason}")


class Rate(ProgressColumn):
    """Predictions a second."""

    def render(self, task: Bar) -> Text:
        """Such as 3.1/s."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="cyan")


@contextmanager
def progress(
    done: Mapping[str, int], totals: Mapping[str, int], before: Mapping[int, Report]
) -> Iterator[Show]:
    """Yield a function that shows the reports of all workers, in one display.

    done    predictions of each open task that are there already
    totals  of each task
    before  reports of the workers when it began
    """
    counted: dict[str, int] = {}
    for report in before.values():
        for name, count in report.answers.items():
            counted[name] = counted.get(name, 0) + count
    start = {name: count - counted.get(name, 0) for name, count in done.items()}
    if not err.is_terminal:
        yield _PlainLines(start, totals).show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    drawn = Progress(*columns, console=err)
    bars = {name: drawn.add_task(name, completed=done[name], total=totals[name]) for name in done}
    with Live(drawn, console=err) as live:

        def show(reports: Mapping[int, Report]) -> None:
            for name, bar in bars.items():
                drawn.update(bar, completed=min(_answers(start, reports, name), totals[name]))
            if len(reports) > 1:
                live.update(Group(drawn, Text(_workers(reports), style="dim")))

        yield show


def _answers(start: Mapping[str, int], reports: Mapping[int, Report], task: str) -> int:
    """Predictions of a task that are there."""
    return start[task] + sum(report.answers.get(task, 0) for report in reports.values())


def _workers(reports: Mapping[int, Report]) -> str:
    """Predictions of each worker, and the share of their time in which they waited."""
    told = [f"{number}: {report.answered}" for number, report in reports.items()]
    shown = told if len(told) <= WORKERS_SHOWN else [*told[:WORKERS_SHOWN], "..."]
    waited = sum(report.image_wait_s + report.queue_wait_s for report in reports.values())
    spent = sum(report.work_s + report.queue_wait_s for report in reports.values())
    return f"answers by worker {', '.join(shown)}; waited {waited / max(spent, 1e-9):.0%}"


class _PlainLines:
    """A line each few seconds, and one for each task that is done."""

    def __init__(self, start: Mapping[str, int], totals: Mapping[str, int]) -> None:
        self.start = start
        self.totals = totals
        self.first: int | None = None
        self.complete: set[str] = set()
        self.began = self.said = monotonic()

    def show(self, reports: Mapping[int, Report]) -> None:
        """Say what there is to say."""
        counts = {name: _answers(self.start, reports, name) for name in self.start}
        for name, count in counts.items():
            if count >= self.totals[name] and name not in self.complete:
                self.complete.add(name)
                print(
                    f"{name} {self.totals[name]}/{self.totals[name]}", file=sys.stderr, flush=True
                )
        now, there = monotonic(), sum(counts.values())
        if self.first is None:
            self.first, self.began = there, now
        if now - self.said < PLAIN_LINE_S:
            return
        self.said = now
        total = sum(self.totals[name] for name in self.start)
        rate = (there - self.first) / max(now - self.began, 1e-9)
        left = f"{(total - there) / rate:.0f} s left" if rate else "time left unknown"
        workers = f"; {_workers(reports)}" if len(reports) > 1 else ""
        print(f"{there}/{total} {rate:.1f}/s, {left}{workers}", file=sys.stderr, flush=True)


REPORTING = Reporting(say, progress)
