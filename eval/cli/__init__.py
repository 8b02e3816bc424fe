"""The command line: arguments, progress, messages and exit codes. All else is elsewhere."""

from eval.cli.main import main

__all__ = ["main"]
