"""The process around a command: errors become messages and exit codes, signals an orderly end.

Exit codes: 0 complete; 1 a defect of ours (run with --debug for the traceback); 2 the user's input
is wrong, or the machine fails us (a full disk, workers that die); 3 incomplete: samples failed,
data must be fetched by hand or fail verification, or a row has gaps; 130 and 143 interrupted, with
everything obtained on disk. `compare --gate`: 10 regressed, 11 inconclusive, 12 invalid.
"""

import contextlib
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from eval.cli.worker import dismiss, serve_rank
from eval.errors import EvalError
from eval.launch.store import rank_of

GRACE_S = 8.0  # after a signal, for what cannot be interrupted: then the process ends all the same
SHARED = ("run", "card", "demo")  # commands that a launcher may start many times


class Stopped(BaseException):
    """A signal asked us to stop: SIGINT, SIGTERM. No handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_process(command: Callable[[list[str]], object]) -> None:
    """Run a command with this process's arguments; end with its exit code.

    Of the processes that a launcher has started with one command the first runs it, and the others
    are its workers.
    """
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if debug:  # ours alone: others' would bury them
        logging.getLogger("eval").setLevel(logging.DEBUG)
    try:
        with _signals():
            rank = rank_of(os.environ)
            if rank and rank.number:
                sys.exit(serve_rank(rank) if arguments[:1] and arguments[0] in SHARED else 0)
            try:
                command(arguments)
            finally:
                if rank and arguments[:1] and arguments[0] in SHARED:
                    dismiss()
    except EvalError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        print(_to_go_on(), file=sys.stderr)
        sys.exit(128 + stopped.number)
    except Exception as error:
        if debug:
            raise
        print(
            f"internal error: {type(error).__name__}: {error}\nThis is a defect of qwen-vl-eval; "
            "the same command with --debug shows where",
            file=sys.stderr,
        )
        sys.exit(1)


def _to_go_on() -> str:
    again = shlex.join(["qwen-vl-eval", *sys.argv[1:]])
    return f"\ninterrupted. All that was obtained is on disk; to go on:\n  {again}"


class _signals:
    """SIGINT and SIGTERM raise Stopped, the first time; and end the process in any case soon.

    Python runs a handler between two of its own instructions, so a hanging disk or a long kernel
    could hold it up. The system tells the number through a pipe at once; who reads it there waits
    a while and ends the process. All that was obtained is on disk at any time.
    """

    def __enter__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.write, False)
        self.before = signal.set_wakeup_fd(self.write, warn_on_full_buffer=False)
        threading.Thread(target=self._end_soon, daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError, OSError):
            signal.set_wakeup_fd(self.before)
        os.close(self.write)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):  # a second one must not break the clearing up
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    def _end_soon(self) -> None:
        told = os.read(self.read, 1)
        while told and told[0] not in (signal.SIGINT, signal.SIGTERM):
            told = os.read(self.read, 1)
        if told:
            time.sleep(GRACE_S)
            print(_to_go_on(), file=sys.stderr, flush=True)
            os._exit(128 + told[0])
        os.close(self.read)
