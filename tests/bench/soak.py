"""Kill a run at random, again and again, and see whether it gives the bytes of one left alone.

    python tests/bench/soak.py --kills 24 --seed 0

Draws the demo's data, answers some tasks in one process, undisturbed, and then in runs that are
started in all ways (one process, processes, torchrun, Ray) and disturbed: a worker is killed or
stopped, the coordinator killed or terminated, everything killed at once, the last line of a journal
torn. The same command then goes on. Prints each event, and at the end a table; exit status 1 where
an answer on disk is lost, a line does not parse, a process or a lock is left behind, a signal is
not answered in time, or a complete run differs in a byte.
"""

import argparse
import os
import platform
import shlex
import signal
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from random import Random
from time import monotonic, sleep

from soak_run import (
    WAYS,
    Answer,
    Running,
    Violation,
    answered,
    differing,
    finished,
    send,
    size,
    state,
    tear,
    unlocked,
    wait,
)

from eval.demo.data import write_demo_data

TASKS = "flickr30k_test,okvqa_val,scienceqa_test_img,refcoco_val,textvqa_val,gqa_testdev"
STILL_S = 10.0  # in which all processes of a killed run must be gone, and its lock free
AGENT_S = 40.0  # the same for torchrun, which gives its processes 30 s, and Ray's own servers
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # Ray's own, not ours
EXITING_S = 5.0  # for the system to close the files of a process that is no more in its list
TERMINATED = 143
FIRST_S = 180.0  # to a run's first new answer, on a busy machine
WHOLE_S = 900.0  # for a run that is left alone
LEASE_S = 5.0
LOST = 2  # workers of one start: a question that two were lost on counts as failed, by design

WORKER_KILLED = "worker, SIGKILL"
WORKER_STOPPED = "worker, SIGSTOP"
KILLED = "coordinator, SIGKILL"
TERMED = "coordinator, SIGTERM"
ALL_KILLED = "all at once, SIGKILL"
TORN = "all at once, SIGKILL, then a torn line"
KINDS = (WORKER_KILLED, WORKER_STOPPED, KILLED, TERMED, ALL_KILLED, TORN)


class Soak:
    """One soak."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.tasks = options.tasks.split(",")
        self.draw = Random(options.seed)
        self.begun = monotonic()
        self.kills: Counter[str] = Counter()
        self.agents = 0  # processes of Ray's own that were left behind
        self.counts: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()
        self.starts = 0
        self.run = folder / "run-0"
        self.known: set[Answer] = set()  # on disk, and never to be lost
        self.running: Running | None = None
        self.whole_s = 0.0
        self.total = 0

    def soak(self) -> None:
        """Until there were enough kills and the last run is complete. Raises Violation."""
        write_demo_data(self.folder / "data")
        self.alone()
        complete = True
        while sum(self.kills.values()) < self.options.kills or not complete:
            complete = self.one_start()

    def alone(self) -> None:
        """The run that all others are compared with."""
        begun = monotonic()
        running = self.start("one process", False, "undisturbed")
        if running.ended(WHOLE_S):
            raise Violation(f"the undisturbed run ended with {running.code}")
        self.whole_s = monotonic() - begun
        self.total = len(answered(self.folder / "undisturbed"))
        self.say(f"undisturbed: {self.total} answers in {self.whole_s:.1f} s")

    def start(self, way: str, lease: bool, name: str) -> Running:
        """Start the command, in a new folder or to go on."""
        command = ["run", *self.tasks, "--model", "demo", "--data", str(self.folder / "data")]
        command += ["--out", str(self.folder / name), "--allow-partial", "--memory", "1KiB"]
        command += ["--limit", str(self.options.limit)] if self.options.limit else []
        self.starts += 1
        self.running = Running(way, command, lease, self.starts)
        return self.running

    def one_start(self) -> bool:
        """Start or go on, disturb it until it ends; whether it is complete."""
        way = self.one_of(self.options.ways.split(","), self.ways)
        kinds = self.kinds(way)
        resumed = bool(self.known)
        before = size(self.run)
        lease = WORKER_STOPPED in kinds and self.draw.random() < 0.5
        running = self.start(way, lease, self.run.name)
        self.ways[way] += 1
        self.counts["resumes"] += resumed
        self.say(f"{self.run.name}: {way}{' again' if resumed else ''}, {len(self.known)} answers")
        lost = 0
        while sum(self.kills.values()) < self.options.kills:
            self.grown(running, before)
            delay = self.draw.uniform(0, self.options.delay)
            wait(lambda: running.code is not None, delay)
            left = [k for k in kinds if lost < LOST or k not in (WORKER_KILLED, WORKER_STOPPED)]
            left = [kind for kind in left if lease or kind != WORKER_STOPPED]
            kind = WORKER_STOPPED if lease and not lost else self.one_of(left, self.kills)
            before = size(self.run)
            if running.code is not None or not self.disturb(running, kind, delay):
                break
            self.look(running)
            lost += kind in (WORKER_KILLED, WORKER_STOPPED)
            if running.code is not None:
                return False  # the same command goes on with it
        code = running.ended(WHOLE_S)
        if code and not (code in (-signal.SIGTERM, TERMINATED) and finished(self.run, self.tasks)):
            raise Violation(f"{way} ended with {code}")
        self.complete(running)
        return True

    def one_of(self, names: list[str], used: Counter[str]) -> str:
        """Any, but rather what was used less."""
        return self.draw.choices(names, [1 / (1 + used[name]) ** 2 for name in names])[0]

    def grown(self, running: Running, before: int) -> None:
        """Wait for journals to be larger than they were, or the run's end."""
        if not wait(lambda: size(self.run) > before or running.code is not None, FIRST_S):
            raise Violation(f"no answer for {FIRST_S:.0f} s")

    def kinds(self, way: str) -> list[str]:
        """What can be done to a run that was started so."""
        return [k for k in KINDS if way != "one process" or not k.startswith("worker")]

    def disturb(self, running: Running, kind: str, delay: float) -> bool:
        """Do it, and see that it has the effect it must have; False where the run just ended."""
        coordinator, workers = running.coordinator(), running.workers()
        torchrun = running.way == "torchrun"
        within_s = AGENT_S if running.way in ("torchrun", "ray") else STILL_S
        told = f"{delay:.1f} s after an answer"
        if kind in (WORKER_KILLED, WORKER_STOPPED):
            if not workers:
                return False
            worker = self.draw.choice(workers)
            stopped, launched = kind == WORKER_STOPPED, running.launched(worker)
            if not send(worker, signal.SIGSTOP if stopped else signal.SIGKILL):
                return False
            self.count(kind, f"{told}, process {worker}")
            if stopped:
                self.replaced(running, worker, launched)
            elif launched:  # by torchrun, which ends all where one is killed
                self.gone(running, within_s)
            return True
        if kind == KILLED:
            if coordinator is None or not send(coordinator, signal.SIGKILL):
                return False
        elif kind == TERMED:
            if not send(running.process.pid, signal.SIGTERM):  # of torchrun, its agent
                return False
        else:
            running.kill_all()
        begun = monotonic()
        if running.code == 0:
            return False
        self.count(kind, told)
        code = running.ended(AGENT_S if torchrun else STILL_S)
        took = monotonic() - begun
        if not code or (kind == TERMED and not torchrun and code != TERMINATED):
            if finished(self.run, self.tasks):
                self.say("  which came when all was done, and does not count")
                self.kills[kind] -= 1
                return False
            raise Violation(f"after {kind} it ended with {code}")
        self.gone(running, within_s)
        gone = monotonic() - begun
        self.say(f"  ended with {code} after {took:.1f} s, all processes after {gone:.1f} s")
        if kind == TORN and (torn := tear(self.run, self.draw)):
            self.say(f"  torn: the line of {torn[0]}/{torn[1]}")
            self.known.discard(torn)
        return True

    def count(self, kind: str, told: str) -> None:
        """Count a kill and say it."""
        self.kills[kind] += 1
        self.say(f"  {sum(self.kills.values())}: {kind}, {told}")

    def replaced(self, running: Running, worker: int, launched: bool) -> None:
        """A stopped worker must not keep the run: it is ended, or left behind by the others."""
        if launched:
            sleep(LEASE_S + 3)  # nobody may end it but torchrun; others go on, then it wakes up
            send(worker, signal.SIGCONT)
        elif not wait(
            lambda: state(worker) in ("", "Z") or running.code is not None, LEASE_S + STILL_S
        ):
            raise Violation(f"process {worker} is stopped, and was not ended")

    def gone(self, running: Running, within_s: float) -> None:
        """No process and no lock is left behind."""
        if not wait(lambda: not running.all(), within_s):
            if all(line[0].startswith(AGENTS) for line, _ in running.all().values()):
                self.agents += len(running.all())  # they outlive a cluster of Ray now and then
                running.kill_all()
                return
            left = [f"{n}: {' '.join(line)[:120]}" for n, (line, _) in running.all().items()]
            raise Violation(f"processes left after {within_s:.0f} s:\n" + "\n".join(left))
        running.process.wait()
        if not wait(lambda: unlocked(self.run), EXITING_S):
            raise Violation("nobody is at work, and the folder is locked")

    def look(self, running: Running) -> None:
        """What was on disk must be there still."""
        now = set(answered(self.run))
        if lost := self.known - now:
            raise Violation(f"{len(lost)} answers are lost, such as {min(lost)}")
        self.known = now

    def complete(self, running: Running) -> None:
        """A run that is complete is the undisturbed one; the next is new."""
        self.gone(running, AGENT_S if running.way in ("torchrun", "ray") else STILL_S)
        self.look(running)
        if files := differing(self.run, self.folder / "undisturbed", self.tasks):
            raise Violation(f"not the bytes of the undisturbed run: {', '.join(files)}")
        lines = answered(self.run)
        twice = sum(count - 1 for count in lines.values() if count > 1)
        self.counts["complete"] += 1
        self.counts["answers"] += self.total
        self.counts["twice"] += twice
        self.say(f"{self.run.name}: complete, the same bytes; {twice} answers asked twice")
        self.run = self.folder / f"run-{self.counts['complete']}"
        self.known = set()

    def say(self, text: str) -> None:
        """An event, with the time since the beginning."""
        print(f"{monotonic() - self.begun:7.1f}  {text}", file=sys.stderr, flush=True)

    def table(self) -> str:
        """What was done and what came of it."""
        answers, twice = self.counts["answers"], self.counts["twice"]
        lines: list[tuple[str, object]] = [
            *((f"kills: {kind}", self.kills[kind]) for kind in KINDS),
            ("kills in all", sum(self.kills.values())),
            *((f"starts: {way}", count) for way, count in sorted(self.ways.items())),
            ("resumes", self.counts["resumes"]),
            ("complete runs", self.counts["complete"]),
            ("their answers", f"{answers:,}"),
            ("answers lost", 0),  # or this would not be printed
            ("answers asked twice", f"{twice:,} ({twice / max(answers, 1):.2%})"),
            ("files that differ in a byte", 0),
            ("agents of Ray left behind, which its own end should have ended", self.agents),
            ("seconds of the undisturbed run", f"{self.whole_s:.0f}"),
            ("seconds", f"{monotonic() - self.begun:.0f}"),
        ]
        return "\n".join(["| | |", "| --- | ---: |", *(f"| {a} | {b} |" for a, b in lines)])


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    known = [way for way in WAYS if way != "ray" or find_spec("ray")]
    parser.add_argument("--kills", type=int, default=24, help="at least so many; 24")
    parser.add_argument("--seed", type=int, default=0, help="of what is done when; 0")
    parser.add_argument("--tasks", default=TASKS, help="of the demo, with commas")
    parser.add_argument("--limit", type=int, help="only the first N samples of each task")
    parser.add_argument("--delay", type=float, default=8.0, help="longest, to a kill, in seconds")
    parser.add_argument("--ways", default=",".join(known), help="to start, with commas")
    options = parser.parse_args()
    if unknown := set(options.ways.split(",")) - set(known):
        parser.error(f"--ways: {', '.join(sorted(unknown))}: one of {', '.join(known)} expected")
    return options


def main() -> int:
    """Soak and print; see the module's docstring."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options)
        try:
            soak.soak()
        except Violation as violation:
            soak.say(f"VIOLATION in {soak.run.name}: {violation}")
            if soak.running:
                print(shlex.join(soak.running.command), soak.running.tail(), sep="\n")
            return 1
        finally:
            if soak.running:
                soak.running.kill_all()
    print(f"    {shlex.join(['python', 'tests/bench/soak.py', *sys.argv[1:]])}\n")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.\n")
    print(soak.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
