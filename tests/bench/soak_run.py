"""What `soak.py` disturbs: a run as real processes, and what it leaves on disk."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

from eval.run.journal import HEADER

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
WAYS: dict[str, tuple[Sequence[str], Sequence[str]]] = {  # what starts it, and arguments
    "one process": ((sys.executable,), ()),
    "--gpus 1": ((sys.executable,), ("--gpus", "1")),
    "--gpus 2": ((sys.executable,), ("--gpus", "2")),
    "--gpus 3": ((sys.executable,), ("--gpus", "3")),
    "torchrun": (TORCHRUN, ()),
    "ray": ((sys.executable,), ("--launcher", "ray", "--gpus", "2")),
}
MARK = "QWEN_VL_EVAL_SOAK"  # in the environment of all that is started, and of what that starts
COMPARED = ("predictions.jsonl", "scores.jsonl", "summary.json")
ENV = {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "RAY_USAGE_STATS_ENABLED": "0"}
Answer = tuple[str, str, str]  # task, sample, and identity of what was asked


class Violation(Exception):
    """Something that must not happen has happened."""


class Running:
    """A run at work.

    way    how it was started, see WAYS
    lease  a short one, for a worker that is to be stopped
    """

    def __init__(self, way: str, command: Sequence[str], lease: bool, number: int) -> None:
        self.way = way
        self.mark = f"{os.getpid()}-{number}"
        launcher, arguments = WAYS[way]
        self.command = [*launcher, "-m", "eval.cli", *command, *arguments]
        self.command += ["--lease", "5"] if lease else []
        self.log = Path(command[command.index("--out") + 1]).with_suffix(f".{number}.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | ENV | {MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's signals are for the soak alone
            )

    @property
    def code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.poll()

    def all(self) -> dict[int, tuple[list[str], str]]:
        """Command line and rank of every process that it has started, however indirectly."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):  # of somebody else, or ended in between
                told = (folder / "environ").read_bytes().split(b"\0")
                if f"{MARK}={self.mark}".encode() not in told or state(int(folder.name)) == "Z":
                    continue
                line = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                ranks = [each[5:].decode() for each in told if each.startswith(b"RANK=")]
                found[int(folder.name)] = (line, ranks[0] if ranks else "")
        return found

    def coordinator(self) -> int | None:
        """The process that looks after the others, or does all."""
        if self.way != "torchrun":
            return self.process.pid if self.code is None else None
        ranks = (n for n, (line, rank) in self.all().items() if rank == "0" and "eval.cli" in line)
        return next(ranks, None)

    def workers(self) -> list[int]:
        """Its workers, without those that are the coordinator."""

        def works(line: list[str], rank: str) -> bool:
            if self.way == "torchrun":  # rank 0 has a worker of its own
                return ("eval.cli" in line and rank == "1") or "eval.launch.process" in " ".join(
                    line
                )
            return "eval.launch.process" in " ".join(line) or line[0].startswith("ray::Actor")

        return sorted(number for number, told in self.all().items() if works(*told))

    def launched(self, worker: int) -> bool:
        """Whether a worker is one of torchrun's own processes."""
        line, rank = self.all().get(worker, ([], ""))
        return rank == "1" and "eval.cli" in line

    def kill_all(self) -> None:
        """SIGKILL to every process, again until there is none."""
        while there := self.all():
            for number in there:
                send(number, signal.SIGKILL)
            self.process.poll()
            sleep(0.05)
        self.process.wait()

    def ended(self, within_s: float) -> int:
        """Wait for its end; its exit code. Raises Violation where it takes longer."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Violation(f"still at work after {within_s:.0f} s") from None

    def tail(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def state(number: int) -> str:
    """Of a process, as in ps; empty where there is none."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def send(number: int, what: signal.Signals) -> bool:
    """Send a signal; whether there was such a process."""
    try:
        os.kill(number, what)
    except ProcessLookupError:
        return False
    return True


def wait(until: Callable[[], object], within_s: float, poll_s: float = 0.05) -> bool:
    """Whether something came true in time."""
    end = monotonic() + within_s
    while monotonic() < end:
        if until():
            return True
        sleep(poll_s)
    return bool(until())


def journals(run: Path) -> list[Path]:
    """All files with answers that grow."""
    return sorted(run.glob("*/journal-*.jsonl"))


def size(run: Path) -> int:
    """Bytes in all journals."""
    return sum(file.stat().st_size for file in journals(run))


def unlocked(run: Path) -> bool:
    """Whether nobody holds a run's folder."""
    file = run / ".work" / "lock"
    if not file.exists():
        return True
    with file.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def answered(run: Path) -> Counter[Answer]:
    """Every answer on disk, and how many lines say it.

    Raises Violation for a line that is none, unless it is torn and the last, and for a sample that
    is put down as failed.
    """
    found: Counter[Answer] = Counter()
    for file in journals(run):
        for row in rows(file, torn=True):
            found[file.parent.name, row["id"], row["of"]] += 1
    for file in sorted(run.glob("*/predictions.jsonl")):  # of these, journals hold all but
        for row in rows(file, torn=False):  # what was torn from them behind this file's back
            found[file.parent.name, row["id"], row["of"]] += 0
    return found


def rows(file: Path, torn: bool) -> Iterator[dict[str, Any]]:
    """A file's answers: its lines, but for the one that names a journal's model."""
    *lines, last = file.read_bytes().split(b"\n")
    if last and not torn:
        raise Violation(f"{file}: the last line is torn: {last[:80]!r}")
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(HEADER):
            continue
        try:
            row = json.loads(line)
            _ = row["text"], row["id"], row["of"]
        except (ValueError, KeyError, TypeError):
            raise Violation(f"{file}, line {number}: not an answer: {line[:80]!r}") from None
        if row.get("error"):
            raise Violation(f"{file}, line {number}: failed: {row['error']}")
        yield row


def tear(run: Path, draw: Random) -> Answer | None:
    """Cut the last line of a journal, as a crash of the machine may; the answer that it held.

    None where it held none: no journal has a whole line, or only the first, which names the model.
    """
    whole = [file for file in journals(run) if file.read_bytes()[-1:] == b"\n"]
    if not whole:
        return None
    file = draw.choice(whole)
    content = file.read_bytes()
    begin = content[:-1].rfind(b"\n") + 1
    os.truncate(file, draw.randrange(begin + 1, len(content)))
    if content.startswith(HEADER, begin):
        return None
    row = json.loads(content[begin:])
    return file.parent.name, row["id"], row["of"]


def differing(run: Path, expected: Path, tasks: Sequence[str]) -> list[str]:
    """Files whose bytes are not those of the undisturbed run."""
    return [
        f"{task}/{name}"
        for task in tasks
        for name in COMPARED
        if not (run / task / name).is_file()
        or (run / task / name).read_bytes() != (expected / task / name).read_bytes()
    ]


def finished(run: Path, tasks: Sequence[str]) -> bool:
    """Whether all is there."""
    return all((run / task / name).is_file() for task in tasks for name in COMPARED)
