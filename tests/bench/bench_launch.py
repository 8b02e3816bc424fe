"""What it costs and gains to spread a run: workers, their queue, and how they start.

    python tests/bench/bench_launch.py

Measures, on a CPU and with one thread a worker: two workers beside one; how long workers idle where
one image has many questions, under the queue and under static splits; what the queue itself costs,
and the memory it takes; seconds to the first answer of each way to start. Prints tables. --only 1,3
measures these parts alone, --quick shows in about a minute that all of it works.
"""

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

from launch_data import skewed, write_okvqa
from launch_queue import (
    ONE_THREAD,
    check_journals,
    new_run,
    wait_for,
    worker_settings,
    worker_times,
)
from launch_queue import workers as processes
from launch_worker import own_queue

from eval.launch.plan import RoundPlan
from eval.launch.queue import Order, Queue
from eval.launch.store import open_store
from eval.run.requests import Identified

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "eval" / "demo" / "checkpoint"
COMMAND = (sys.executable, "-m", "eval.cli")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PAIRS = 5
QUESTIONS = 4000  # of the comparison of two workers with one, on half as many images
CROWDED, SINGLE = 200, 400  # questions on one image, and images with one question
GROUPS = (10_000, 100_000)
STARTS = 5
ANSWERS = re.compile(
    r"([\d,]+) answers(?: by \d+ workers)?(?:, [\d,]+ images encoded)?, ([\d.]+) s\b"
)
MIB = 1 << 20


def main() -> int:
    """Measure and print; see the module's docstring."""
    options = arguments()
    print("# Spreading a run\n")
    print(f"    {shlex.join(['python', 'tests/bench/bench_launch.py', *sys.argv[1:]])}\n")
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}, Python "
        f"{platform.python_version()}; one thread a worker; the demo's checkpoint in float32.\n"
    )
    parts: dict[str, Callable[[Path, bool], None]] = {
        "1": two_beside_one,
        "2": skew,
        "3": queue_alone,
        "4": start_up,
    }
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder), options.quick)
    return 0


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, once")
    parser.add_argument("--only", default="1,2,3,4", metavar="PARTS", help="such as 1,3")
    return parser.parse_args()


# 1


def two_beside_one(folder: Path, quick: bool) -> None:
    """Rates and times of whole commands, in turn."""
    questions, pairs = (24, 1) if quick else (QUESTIONS, PAIRS)
    write_okvqa(folder / "data", [2] * (questions // 2))
    if not quick:  # so that the first pair does not read files from the disk
        one_run(folder, "warming", 2, limit=100)
    rows: list[dict[str, float]] = []
    for pair in range(pairs):
        found = {}
        for workers in (1, 2) if pair % 2 == 0 else (2, 1):
            found[workers] = one_run(folder, f"run-{pair}-{workers}", workers)
            say(f"pair {pair + 1}/{pairs}, {workers} workers: {found[workers]}")
        one, two = found[1], found[2]
        rows.append(
            {
                "rate of one": one["rate"],
                "rate of two": two["rate"],
                "rates, two / one": two["rate"] / one["rate"],
                "seconds of one": one["wall_s"],
                "seconds of two": two["wall_s"],
                "seconds, one / two": one["wall_s"] / two["wall_s"],
            }
        )
    print("## Two workers beside one\n")
    print(
        f"`qwen-vl-eval run okvqa_val --gpus 1` and `--gpus 2` in turn, {questions:,} questions on "
        f"{questions // 2:,} images, {pairs} pairs, OMP_THREAD_LIMIT=1; pictures are opened by a "
        "thread beside. The rate is answers a second of the time in which the longer of the "
        "workers had work, the seconds are the whole command's: loading, scoring and tables too.\n"
    )
    print_table(
        ("", "median", "smallest", "largest"),
        (
            (name, *(f"{how([row[name] for row in rows]):.2f}" for how in (median, min, max)))
            for name in rows[0]
        ),
    )


def one_run(folder: Path, name: str, workers: int, limit: int | None = None) -> dict[str, float]:
    """Answers a second, and seconds of the whole command."""
    command = run_command(folder, name, "--gpus", workers, limit=limit)
    begun = monotonic()
    done = subprocess.run(
        command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=False
    )
    wall_s = monotonic() - begun
    told = ANSWERS.search(done.stderr)
    if done.returncode or not told:
        sys.exit(f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stderr}")
    answers = int(told[1].replace(",", ""))
    return {"rate": answers / max(float(told[2]), 0.1), "wall_s": wall_s}


def run_command(
    folder: Path,
    name: str,
    *arguments: object,
    launcher: Sequence[str] = COMMAND,
    limit: int | None = None,
) -> list[str]:
    """Of a run of OK-VQA with the demo's checkpoint."""
    command = [*launcher, "run", "okvqa_val", "--model", "demo", "--data", folder / "data"]
    command += ["--out", folder / name, "--allow-partial", *arguments]
    return [str(each) for each in (*command, *(("--limit", limit) if limit else ()))]


# 2


def skew(folder: Path, quick: bool) -> None:
    """Idle time of the worker that idles most, by how the questions are given out."""
    crowded, single, pairs = (20, 10, 1) if quick else (CROWDED, SINGLE, 3)
    wanted = skewed(folder / "data", crowded, single)
    half = (len(wanted) + 1) // 2
    ways = {
        "the queue": None,
        "static, contiguous blocks": (wanted[:half], wanted[half:]),
        "static, every second": (wanted[::2], wanted[1::2]),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(pairs):
        for number, (name, parts) in enumerate(ways.items()):
            found[name].append(idle(folder, f"{turn}-{number}", wanted, parts))
            say(f"{name}: {found[name][-1][0]:.1%} idle, {found[name][-1][1]:.2f} s")
    print("## Where one image has many questions\n")
    print(
        f"{crowded:,} questions on one image, then {single:,} images with one; two workers, the "
        "same engine, warm; models are loaded before. Idle is the share of a worker's time, from "
        "its first claim to the end of all work, behind its last answer; here that of the worker "
        f"which idles most. Medians of {pairs}, with smallest and largest.\n"
    )
    print_table(
        ("given out by", "idle", "from", "to", "seconds"),
        (
            (
                name,
                f"{median(share for share, _ in times):.1%}",
                f"{min(times)[0]:.1%}",
                f"{max(times)[0]:.1%}",
                f"{median(seconds for _, seconds in times):.2f}",
            )
            for name, times in found.items()
        ),
    )


def idle(
    folder: Path,
    name: str,
    wanted: Sequence[Identified],
    parts: tuple[Sequence[Identified], Sequence[Identified]] | None,
) -> tuple[float, float]:
    """Largest idle share of two workers, and seconds from the first claim to the last answer.

    parts  what each is given; None for one queue of both
    """
    run = new_run(folder / name, "skewed")
    store, address = open_store()
    queues = [own_queue(store, n) if parts else Queue(store) for n in range(2)]
    settings = worker_settings(run, address, str(CHECKPOINT), prefixed=bool(parts))
    started = processes(run, {**settings, "images": str(folder / "data")}, 2)
    started.start()
    try:
        wait_for(started, queues, "ready")
        orders = []
        for number, part in enumerate(parts or (wanted,)):
            plan = RoundPlan.write(run.work_file(f"plan-{number}.sqlite"), part)
            orders.append(Order(1, plan.path, plan.groups, 1 if parts else 2))
            plan.close()
        for queue, order in zip(queues, orders, strict=False):
            queue.publish(order)
        wait_for(started, queues, "idle")
        for queue in queues:
            queue.stop()
    finally:
        started.stop(10.0)
    check_journals(run, len(wanted))
    times = worker_times(run, 2)
    end = max(ended for _, ended in times)
    shares = [(end - ended) / (end - began) for began, ended in times]
    return max(shares), end - min(began for began, _ in times)


# 3


def queue_alone(folder: Path, quick: bool) -> None:
    """What claims, reports, plan and journals cost where answers cost nothing."""
    rows = []
    for groups in (500,) if quick else GROUPS:
        for workers in (0, 1, 2):
            told = {"folder": str(folder / f"{groups}-{workers}"), "groups": groups}
            found = json.loads(in_new_process({**told, "workers": workers}))
            say(f"{groups} groups, {workers} workers: {found}")
            rows.append(
                (
                    f"{groups:,}",
                    f"{workers} by the server" if workers else "this process alone",
                    f"{found['plan_s']:.2f}",
                    f"{groups / found['work_s']:,.0f}",
                    f"{found['peak'] / MIB:.0f}",
                    f"{found['worker_peak'] / MIB:.0f}" if workers else "",
                    f"{found['looked_s']:.2f}",
                    f"{found['looked_peak'] / MIB:.0f}",
                )
            )
    print("## The queue alone\n")
    print(
        "Groups of one question to a back end that answers at once; journals on disk. Peaks of "
        "resident memory in MiB, of the coordinator before it looks into the journals again, and "
        "behind. Each row is of new processes.\n"
    )
    print_table(
        (
            "groups",
            "workers",
            "plan written, s",
            "groups a second",
            "coordinator",
            "a worker",
            "journals read, s",
            "coordinator then",
        ),
        rows,
    )


def in_new_process(settings: Mapping[str, Any]) -> str:
    """What launch_queue.py prints: peaks are to be of what it measures alone."""
    command = [sys.executable, str(Path(__file__).with_name("launch_queue.py"))]
    command.append(json.dumps(settings))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\nended with {done.returncode}:\n{done.stderr}")
    return done.stdout


# 4


def start_up(folder: Path, quick: bool) -> None:
    """Seconds from a command to its first answer."""
    write_okvqa(folder / "data", [1] * 8)
    ways: dict[str, tuple[Sequence[str], tuple[object, ...]]] = {
        "one process": (COMMAND, ()),
        "--gpus 1": (COMMAND, ("--gpus", 1)),
        "--gpus 2": (COMMAND, ("--gpus", 2)),
        "torchrun, 2": ((*TORCHRUN, "-m", "eval.cli"), ()),
    }
    if find_spec("ray"):
        ways["Ray, 2"] = (COMMAND, ("--launcher", "ray", "--gpus", 2))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(1 if quick else STARTS + 1):
        for number, (name, (launcher, arguments)) in enumerate(ways.items()):
            command = run_command(folder, f"{turn}-{number}", *arguments, launcher=launcher)
            found = first_answer(command, folder / f"{turn}-{number}")
            say(f"{name}: first answer after {found[0]:.1f} s, all in {found[1]:.1f} s")
            if turn or quick:  # the first turn reads files from the disk
                times[name].append(found)
    print("## Starting\n")
    print(
        "Seconds from the command to its first answer, smallest and largest of "
        f"{len(times['one process'])}, and to its end with 8 questions; files are in memory.\n"
    )
    print_table(
        ("started as", "first answer", "from", "to", "whole command"),
        (
            (
                name,
                f"{median(first for first, _ in found):.1f}",
                f"{min(found)[0]:.1f}",
                f"{max(found)[0]:.1f}",
                f"{median(whole for _, whole in found):.1f}",
            )
            for name, found in times.items()
        ),
    )


def first_answer(command: Sequence[str], out: Path) -> tuple[float, float]:
    """Seconds until a journal has an answer, and until the command ends."""
    first = None
    with tempfile.TemporaryFile() as told:
        begun = monotonic()
        env = os.environ | ONE_THREAD
        process = subprocess.Popen(command, env=env, stdout=told, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if first is None and any(answers(file) for file in out.glob("*/journal-*.jsonl")):
                first = monotonic() - begun
            sleep(0.02)
        ended = monotonic() - begun
        if process.returncode or first is None:
            told.seek(0)
            said = told.read().decode(errors="replace")
            sys.exit(f"{shlex.join(command)}\nended with {process.returncode}:\n{said}")
    return first, ended


def answers(journal: Path) -> int:
    """Whole lines of a journal after its first, which names the model."""
    return max(0, journal.read_bytes().count(b"\n") - 1)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n", flush=True)


def say(text: str) -> None:
    """Progress, beside the tables."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
