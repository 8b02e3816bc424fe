"""Where the commands print: standard output and standard error."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

PLAIN_LINE_S = 10.0  # seconds between progress lines where the output is no terminal


class Printer(Console):
    """Leaves it to the process to end where nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: raise it again."""
        raise


out = Printer()
err = Printer(stderr=True)


def say(line: str) -> None:
    """Print a line on standard error, as it is."""
    err.print(escape(line), highlight=False, soft_wrap=True)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print a summary's signature, and on standard error what a reader must know of its scores."""
    out.print(summary["signature"], highlight=False, soft_wrap=True, markup=False)
    for caveat in summary.get("caveats", ()):
        print(f"note: {summary['task']}: {caveat}", file=sys.stderr)
