"""What the commands print on, and progress: bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
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

PLAIN_LINE_S = 10.0  # seconds between progress lines where the output is no terminal

out = Console()
err = Console(stderr=True)


class Rate(ProgressColumn):
    """Predictions a second."""

    def render(self, task: Bar) -> Text:
        """Such as 3.1/s."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="cyan")


@contextmanager
def progress(counts: Mapping[str, tuple[int, int]]) -> Iterator[Callable[[str], None]]:
    """Yield a function that counts one prediction of a task.

    counts  task -> predictions that are there already, and in all
    """
    if not err.is_terminal:
        yield _PlainLines(counts).count
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as drawn:
        bars = {
            name: drawn.add_task(name, completed=done, total=total)
            for name, (done, total) in counts.items()
        }
        yield lambda name: drawn.advance(bars[name])


class _PlainLines:
    """A line each few seconds, and one for each task that is done."""

    def __init__(self, counts: Mapping[str, tuple[int, int]]) -> None:
        self.left = {name: total - done for name, (done, total) in counts.items()}
        self.totals = {name: total for name, (_, total) in counts.items()}
        self.fresh = 0
        self.started = self.said = monotonic()

    def count(self, name: str) -> None:
        self.fresh += 1
        self.left[name] -= 1
        if not self.left[name]:
            print(f"{name} {self.totals[name]}/{self.totals[name]}", file=sys.stderr, flush=True)
        now = monotonic()
        if now - self.said < PLAIN_LINE_S:
            return
        self.said = now
        rate = self.fresh / max(now - self.started, 1e-9)
        left, total = sum(self.left.values()), sum(self.totals.values())
        print(
            f"{total - left}/{total} {rate:.1f}/s, {left / rate:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
