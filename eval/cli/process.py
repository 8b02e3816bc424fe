"""The process around a command: errors become messages and exit codes, signals an orderly end.

Exit codes: 0 complete; 1 a defect of ours (run with --debug for the traceback); 2 the user's input
is wrong, or the machine fails us (a full disk, workers that die); 3 incomplete: samples failed,
data must be fetched by hand or fail verification, or a row has gaps; 130 and 143 interrupted, with
everything obtained on disk; 141 nobody reads the output any more. `compare --gate`: 10 regressed,
11 inconclusive, 12 invalid.
"""

import contextlib
import logging
import os
import re
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from eval.cli.machine import open_streams, settle_home
from eval.errors import EvalError, UsageError
from eval.storage.reading import reason

GRACE_S = 8.0  # after a signal, for what cannot be interrupted: then the process ends all the same
GENERATING = ("run", "card", "demo")  # commands whose work the processes of a launcher share
ALONE = ("--help", "--dry-run")  # options with which they generate nothing
UNREAD = 128 + signal.SIGPIPE


class Stopped(BaseException):
    """A signal asked us to stop: SIGINT, SIGTERM. No handler of errors may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_process(command: Callable[[list[str]], object]) -> None:
    """Run a command with this process's arguments; end with its exit code.

    Where a launcher has started many processes with a command that generates answers, the first
    runs it and the others are its workers. Every other command ignores the launcher: each process
    does the whole of its work.
    """
    open_streams()
    settle_home()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if debug:  # ours alone: others' would bury them
        logging.getLogger("eval").setLevel(logging.DEBUG)
    code = 0
    try:
        with _signals():
            _check_text(arguments)
            if generates_answers(arguments):
                _run_launched(command, arguments)
            else:
                command(arguments)
    except SystemExit as end:
        code = _exit_code(end)
    except Stopped as stopped:
        with contextlib.suppress(OSError, ValueError):
            print(_to_go_on(), file=sys.stderr, flush=True)
            sys.stdout.flush()
        os._exit(128 + stopped.number)  # the interpreter's own end may take long on a busy machine
    except Exception as error:
        if debug:
            raise
        code, message = _told(error)
        _print(message)
    sys.exit(_flushed(code))


def _run_launched(command: Callable[[list[str]], object], arguments: list[str]) -> None:
    """Run the command in the first process of a launcher; serve it in the others."""
    # imported late: launchers take longer to import than other commands take to start
    from eval.launch.process import LAUNCHED, dismiss_ranks, serve_rank
    from eval.launch.store import rank_of

    rank = rank_of(os.environ)
    if rank and rank.number:
        sys.exit(serve_rank(rank))
    LAUNCHED[:] = [rank] if rank else []
    try:
        command(arguments)
    finally:
        if rank:
            dismiss_ranks()
        LAUNCHED.clear()


def generates_answers(arguments: list[str]) -> bool:
    """Whether a command generates answers, which the processes of a launcher share."""
    return arguments[:1] != [] and arguments[0] in GENERATING and not {*ALONE} & {*arguments}


def _told(error: Exception) -> tuple[int, str]:
    """The exit code of an error, and what to print."""
    if isinstance(error, BrokenPipeError):
        return UNREAD, ""
    if isinstance(error, EvalError):
        return 2, f"error: {error}"
    if isinstance(error, MemoryError):
        return 2, "error: this machine's memory is exhausted"
    if isinstance(error, OSError):  # the machine's or the user's, wherever it was met
        if not _has_folder():
            return 2, "error: the working folder does not exist any more; change to another one"
        where = f"{error.filename}: " if error.filename is not None else "this machine says: "
        return 2, f"error: {where}{reason(error)}; the same command with --debug shows where"
    return 1, (
        f"internal error: {type(error).__name__}: {error}\nThis is a defect of qwen-vl-eval; the "
        "same command with --debug shows where"
    )


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _print(message: str) -> None:
    """On standard error, with control characters spelled out."""
    shown = (c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in message)
    with contextlib.suppress(OSError, ValueError):
        print("".join(shown), file=sys.stderr)


def _check_text(arguments: list[str]) -> None:
    """Raise UsageError for an empty argument, or one that is no text: it stands in JSON files."""
    for number, argument in enumerate(arguments):
        if not argument or re.fullmatch("--[a-z-]+=", argument):
            option = (argument or ["", *arguments][number]).rstrip("=")
            raise UsageError(f"{option or 'the first argument'}: an empty value follows it")
        try:
            argument.encode()
        except UnicodeEncodeError:
            told = os.fsencode(argument)
            try:
                told.decode()
            except UnicodeDecodeError:
                raise UsageError(f"argument {told!r:.300}: not UTF-8; rename it") from None
            raise UsageError(
                f"argument {told!r:.300}: the locale has no such letters: export LC_ALL=C.UTF-8"
            ) from None


def _exit_code(end: SystemExit) -> int:
    """Of a command that has ended: typer ends with 1 where it cannot write, or nobody answers."""
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if code == 1:
        return UNREAD if _unread() else 2
    return code


def _unread() -> bool:
    """Whether a standard stream is a pipe that nobody reads any more; it is given up then."""
    gone = False
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if any(told & select.POLLERR for _, told in poll.poll(0)):
            gone = True
            _give_up(number)
    return gone


def _give_up(number: int) -> None:
    """Lead a stream that takes nothing to nowhere, so that the interpreter's end says nothing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _flushed(code: int) -> int:
    """The exit code when all is written, or that of a stream that takes no more."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError as error:
            _give_up(number)
            if isinstance(error, BrokenPipeError):
                return UNREAD
            _print(f"error: standard output: cannot be written: {reason(error)}")
            return 2
    return code


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
            with contextlib.suppress(OSError, ValueError):
                print(_to_go_on(), file=sys.stderr, flush=True)
            os._exit(128 + told[0])
        os.close(self.read)
