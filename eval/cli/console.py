"""What the commands print on, and progress: bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

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

T = TypeVar("T")
PLAIN_LINE_S = 10.0  # seconds between progress lines where the output is no terminal

out = Console()
err = Console(stderr=True)


class Rate(ProgressColumn):
    """Predictions a second."""

    def render(self, task: Bar) -> Text:
        """Such as 3.1/s."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "-/s", style="cyan")


@contextmanager
def progress() -> Iterator[Any]:
    """Yield `bars(values, name, done, total)`, which passes values on and counts them."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    if err.is_terminal:
        with Progress(*columns, console=err) as drawn:

            def bars(values: Iterator[T], name: str, done: int, total: int) -> Iterator[T]:
                bar = drawn.add_task(name, completed=done, total=total)
                for value in values:
                    drawn.advance(bar)
                    yield value

            yield bars
    else:
        yield _plain_lines


def _plain_lines(values: Iterator[T], name: str, done: int, total: int) -> Iterator[T]:
    started = said = monotonic()
    for fresh, value in enumerate(values, 1):
        now = monotonic()
        if now - said >= PLAIN_LINE_S or done + fresh == total:
            said = now
            rate = fresh / max(now - started, 1e-9)
            left = (total - done - fresh) / rate
            print(
                f"{name} {done + fresh}/{total} {rate:.1f}/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
        yield value
