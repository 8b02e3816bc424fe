"""What judging costs and what it survives: latency, rate limits, SIGKILL, little money.

    python tests/bench/bench_judge.py

Has invented answers judged by the real command, before the tests' judge server as a process of its
own: many requests at a time beside one; killed again and again, and gone on; with hardly enough
money; its memory; its processor time. In every run the server's bills are compared with the ledger,
and the exit status is 1 where a judgement is lost, recorded or billed again, where more than the
budget is spent, or where a file differs in a byte. --only 1,3 measures these parts alone, --quick
shows in about a minute that all of it works.
"""

import argparse
import json
import os
import platform
import re
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import orjson

from eval.client import server as client
from eval.judging.asking import CONCURRENCY
from touchstone.judging import ROUNDS, messages
from touchstone.prompt import OWN
from touchstone.table import Dialogue, write_answers

ROOT = Path(__file__).resolve().parents[2]
MODEL, TASK = "demo-rules", "touchstone_en"
PRICE = "30/60"  # USD for a million tokens in and out: gpt-4's
ENOUGH_USD = (1.0, 0.03)  # for a run, and each of its requests: about twice what it costs
FILES = ("judgements.jsonl", "scores.jsonl", "summary.json")
WORDS = (
    "a the and with of on in behind beside near two three four many small large old red blue wood "
    "man child dog bike road table door house sign text holds wears stands shows may be picture "
    "left right light sky tree reads green"
)
CATEGORIES = ("Description", "Recognition", "Comprehension", "Storytelling", "Several pictures")
KINDS_OF_TASK = 27
STARTING, ASKING, ENDING = "before the first request", "while asking", "behind the last reply"
KILLS_A_RUN = 6  # at most
TIGHT = 1.01  # of what all costs: a budget that hardly suffices
LOOK_S = 0.02  # between two looks at a process
SAMPLE_S = 0.5  # between two samples of its memory
BEYOND = 10  # times as many rows, for memory
QUIET_S = 0.1  # in which a server is asked nothing more, once its client was killed


class Violation(Exception):
    """What must never happen has."""


# Answers and server


@dataclass(frozen=True)
class Table:
    """Answers to be judged.

    digests  the ledger's key of each request -> by which the server knows it
    """

    path: Path
    digests: Mapping[str, str]

    @classmethod
    def write(cls, path: Path, rows: int, url: str, seed: int) -> "Table":
        """Invent answers."""
        draw = Random(seed)
        dialogues = [dialogue(draw, number) for number in range(1, rows + 1)]
        path.write_bytes(write_answers(dialogues))
        judge = client.Server(MODEL, url)
        shown = [messages(each, number, OWN) for each in dialogues for number in ROUNDS]
        return cls(path, {judge.key(told): digest_of(judge.request(told)) for told in shown})


def dialogue(draw: Random, number: int) -> Dialogue:
    """A dialogue with its answer: an annotation of about 60 words, answers of 20 to 120."""

    def text(shortest: int, longest: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(shortest, longest)))

    return Dialogue(
        id=str(number),
        question=text(6, 20),
        annotation=text(50, 70),
        reference=text(20, 120),
        category=draw.choice(CATEGORIES),
        task_name=f"Task {draw.randint(1, KINDS_OF_TASK)}",
        response=text(20, 120),
    )


def digest_of(request: Mapping[str, Any]) -> str:
    """As judge_server.py makes it."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


class Server:
    """The judge, a new process at the one port."""

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    @contextmanager
    def serving(cls, port: int, faults: Mapping[str, object]) -> Iterator["Server"]:
        """Start it, and end it."""
        command = [sys.executable, str(ROOT / "tests" / "judge_server.py"), "--port", str(port)]
        for name, value in faults.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                process.stdout.readline()  # it listens
                yield cls(port)
            finally:
                process.kill()

    def stats(self) -> dict[str, Any]:
        """What it was asked and has billed, once nothing more comes in."""
        before, now = None, self._stats()
        while before is None or before["requests"] != now["requests"]:
            sleep(QUIET_S)
            before, now = now, self._stats()
        return now

    def _stats(self) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            found: dict[str, Any] = json.load(answer)
        return found


# The ledger


@dataclass
class Books:
    """A ledger, read by other code than the command's.

    judged      replies to each key, and what the last has cost
    unended     keys -> how often they were asked without an end being put down
    repeated    requests put down behind a reply to the same key
    spent       USD, open requests at their most; most_spent is the largest at any line
    asking_s    from the first request to the last reply
    """

    judged: Counter[str] = field(default_factory=Counter)
    usd: dict[str, float] = field(default_factory=dict)
    unended: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    spent: float = 0.0
    most_spent: float = 0.0
    asking_s: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Books":
        """Read all lines but a torn last one; none where there is no file."""
        books = cls()
        first = last = ""
        reserved: dict[str, float] = {}
        with path.open("rb") if path.exists() else tempfile.TemporaryFile() as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                told = orjson.loads(line)
                first = first or told["time"]
                if key := told.get("asked"):
                    books.repeated += key in books.judged
                    books.unended[key] += 1
                    books.spent += told["usd"]
                    reserved[key] = told["usd"]
                else:
                    key = told.get("judged") or told["unanswered"]
                    books.unended[key] -= 1
                    books.spent += told["usd"] - reserved.pop(key)
                    if "judged" in told:
                        books.judged[key] += 1
                        books.usd[key] = told["usd"]
                        last = told["time"]
                books.most_spent = max(books.most_spent, books.spent)
        if last:
            ended, began = datetime.fromisoformat(last), datetime.fromisoformat(first)
            books.asking_s = (ended - began).total_seconds()
        return books


class Growing:
    """Counts a ledger's judgements while it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = self.judged = 0
        self.torn = b""
        self.look()

    def look(self) -> bool:
        """Read what is new; whether there was anything."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.size)
                content = file.read()
        except FileNotFoundError:
            return False
        self.size += len(content)
        *lines, self.torn = (self.torn + content).split(b"\n")
        self.judged += sum(line.startswith(b'{"judged"') for line in lines)
        return bool(content)


# The command


@dataclass(frozen=True)
class Kill:
    """When to kill: once so many judgements are in the ledger, and a delay."""

    judged: int
    delay_s: float


@dataclass
class Ended:
    """How a command went.

    first_s   until the ledger had a new line; last_s until all was judged
    resident  MiB of each sample between these
    """

    code: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    resident: list[float] = field(default_factory=list)
    told: str = ""


@dataclass(frozen=True)
class Audit:
    """What a run came to.

    unrecorded  completions billed that nobody heard of: under way when the command was killed
    usd         billed
    """

    books: Books
    stats: Mapping[str, Any]
    unrecorded: int
    usd: float


@dataclass(frozen=True)
class Run:
    """A run and its ledger in a folder of their own.

    many  requests at a time
    """

    folder: Path
    table: Table
    url: str
    budget: float
    many: int = CONCURRENCY

    @property
    def ledger(self) -> Path:
        """Where the command keeps it."""
        return self.folder / "judge-ledger.jsonl"

    def files(self) -> list[bytes]:
        """What must be the same, whatever befell."""
        return [(self.folder / "run" / TASK / name).read_bytes() for name in FILES]

    def judge(self, kill: Kill | None = None, *, may_stop: bool = False) -> Ended:
        """Start the command or go on, to its end or until it is killed.

        may_stop  it may end for want of money
        """
        command = [sys.executable, "-m", "eval.cli", "judge", str(self.table.path)]
        command += ["--out", str(self.folder / "run"), "--judge", MODEL, "--base-url", self.url]
        command += ["--price", PRICE, "--budget", str(self.budget), "--no-anchors"]
        command += ["--allow-partial", "--concurrency", str(self.many)]
        ended = self._watch(command, kill)
        if ended.code not in (0, -9) and not may_stop:
            raise Violation(f"{shlex.join(command)}\nended with {ended.code}:\n{ended.told}")
        return ended

    def _watch(self, command: Sequence[str], kill: Kill | None) -> Ended:
        growing, ended, due, sampled = Growing(self.ledger), Ended(), None, 0.0
        with tempfile.TemporaryFile() as told:
            begun = monotonic()
            env = os.environ | {"OPENAI_API_KEY": "bench", "NO_PROXY": "127.0.0.1"}
            process = subprocess.Popen(command, env=env, stdout=told, stderr=subprocess.STDOUT)
            while True:
                pid, status, used = os.wait4(process.pid, os.WNOHANG)
                passed = monotonic() - begun
                if growing.look() and not ended.first_s:
                    ended.first_s = sampled = passed
                if growing.judged == len(self.table.digests) and not ended.last_s:
                    ended.last_s = passed
                if pid:
                    break
                if ended.first_s and not ended.last_s and passed - sampled >= SAMPLE_S:
                    sampled = passed
                    ended.resident += resident_mib(process.pid)
                if kill and due is None and growing.judged >= kill.judged:
                    due = passed + kill.delay_s
                if due is not None and passed >= due:
                    process.kill()
                sleep(LOOK_S)
            process.returncode = ended.code = os.waitstatus_to_exitcode(status)
            ended.seconds, ended.cpu_s = passed, used.ru_utime + used.ru_stime
            ended.peak_mib = used.ru_maxrss / 1024
            told.seek(0)
            ended.told = told.read().decode(errors="replace")
        return ended

    def audit(self, stats: Mapping[str, Any], *, kills: int = 0, whole: bool = True) -> Audit:
        """Compare the server's bills with the ledger. Raises Violation.

        whole  whether every judgement must be there
        """
        books, digests = Books.read(self.ledger), self.table.digests
        bills = {key: stats["billed"].get(digest, 0) for key, digest in digests.items()}
        more = {key: bills[key] - books.judged[key] for key in digests}
        unrecorded = sum(more.values())
        usd = sum(cost * bills[key] for key, cost in books.usd.items())
        wrong = {
            "judgements lost": whole and sum(not books.judged[key] for key in digests),
            "judged more than once": sum(count > 1 for count in books.judged.values()),
            "judged and never wanted": len(books.judged.keys() - digests.keys()),
            "billed and never wanted": len(stats["billed"].keys() - set(digests.values())),
            "asked again behind a reply": books.repeated,
            "judged and never billed": sum(count < 0 for count in more.values()),
            "bills of what the ledger thinks ended": sum(
                count > books.unended[key] for key, count in more.items()
            ),
            "bills unrecorded": unrecorded if unrecorded > kills * self.many else 0,
            "billed twice, never killed": 0 if kills else stats["billed_twice"],
            "without an end, never killed": 0 if kills else books.unended.total(),
            "at a time": stats["in_flight_max"] if stats["in_flight_max"] > self.many else 0,
            f"USD spent of {self.budget:g}": max(0.0, books.most_spent - self.budget),
            "USD billed beyond the ledger": max(0.0, usd - books.spent - 1e-9),
        }
        if any(wrong.values()):
            told = "; ".join(f"{name}: {count}" for name, count in wrong.items() if count)
            raise Violation(f"{self.folder.name}: {told}")
        return Audit(books, stats, unrecorded, usd)


def resident_mib(pid: int) -> list[float]:
    """Of a process; nothing once it has ended."""
    try:
        told = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return [int(line.split()[1]) / 1024 for line in told.splitlines() if line.startswith("VmRSS")]


class Bench:
    """What the measurements share."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        with socket.socket() as free:  # ledgers name the address: it must stay the same
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.runs = 0
        self.table = self.answers(options.rows)
        self.total = len(self.table.digests)
        self.limited = {"latency": options.latency, "rate_limited": options.rate_limited}

    def answers(self, rows: int) -> Table:
        """A table of so many rows."""
        path = self.folder / f"answers-{rows}.tsv"
        return Table.write(path, rows, self.url, self.options.seed)

    def run(
        self, many: int | None = None, table: Table | None = None, budget: float | None = None
    ) -> Run:
        """A new run, with more money than it needs."""
        self.runs += 1
        folder, table = self.folder / f"place-{self.runs}", table or self.table
        folder.mkdir()
        enough = ENOUGH_USD[0] + ENOUGH_USD[1] * len(table.digests)
        many = many or self.options.many
        return Run(folder, table, self.url, enough if budget is None else budget, many)

    def serve(self, faults: Mapping[str, object], more: int = 0) -> Any:
        """A new server; `more` makes its faults others."""
        return Server.serving(self.port, {"seed": self.options.seed + more, **faults})

    def alone(self, faults: Mapping[str, object], run: Run) -> tuple[Ended, Audit]:
        """A run that nothing disturbs, before a new server."""
        with self.serve(faults) as server:
            ended = run.judge()
            return ended, run.audit(server.stats())


# 1


def speed(bench: Bench) -> None:
    """Many at a time beside one, with and without rate limits."""
    options = bench.options
    few = bench.table if options.whole else bench.answers(min(options.one, options.rows))
    share = f"{options.rate_limited:.0%}"
    limits: dict[str, Mapping[str, object]] = {
        "none": {"latency": options.latency},
        share: bench.limited,
        f"{share}, wait 1 s": {**bench.limited, "retry_after": 1},
    }
    rows: list[Sequence[str]] = []
    count: Counter[str] = Counter()
    for name, faults in limits.items():
        found: dict[int, list[tuple[Ended, Audit]]] = {}
        for turn in range(options.repeats):
            for many in options.several if turn else (1, *options.several):
                run = bench.run(many, few if many == 1 else bench.table)
                ended, audit = bench.alone(faults, run)
                found.setdefault(many, []).append((ended, audit))
                count["runs"] += 1
                count["judged"] += len(run.table.digests)
                count["limited"] += audit.stats["statuses"].get("429", 0)
                say(f"429s {name}, {many} at a time: {audit.books.asking_s:.1f} s")
        rows += speed_rows(name, found, len(few.digests), bench.total)
    print("## Many at a time\n")
    print(
        f"{options.rows:,} rows, {bench.total:,} judgements; one at a time the first "
        f"{len(few.digests) // 2:,} rows, once. The server answers after {options.latency:g} s. "
        "Asking is the time from the first request to the last reply, by the ledger; the whole "
        "command is longer by Python's start and by the figures. What all rows would take one at "
        f"a time is computed. Medians of {options.repeats}, with the smallest and largest ratio.\n"
    )
    head = ("429s", "at a time", "asking, s", "judgements a second", "beside one at a time")
    print_table((*head, "whole command, s", "beside one", "requests a judgement"), rows)
    print(
        f"In these {count['runs']} runs, of {count['judged']:,} judgements none was lost, asked "
        f"again or billed twice; {count['limited']:,} answers were a 429.\n",
        flush=True,
    )


def speed_rows(
    name: str, found: Mapping[int, list[tuple[Ended, Audit]]], few: int, total: int
) -> Iterator[Sequence[str]]:
    """A line for each number of requests at a time."""
    ((alone, audit),) = found[1]
    one_s = audit.books.asking_s / few  # a judgement
    whole_s = alone.seconds + one_s * (total - few)
    for many, runs in found.items():
        judged = few if many == 1 else total
        asking_s = [each.books.asking_s for _, each in runs]
        command_s = whole_s if many == 1 else median(ended.seconds for ended, _ in runs)
        ratios = [one_s * judged / each for each in asking_s]
        spread = f" ({min(ratios):.1f} to {max(ratios):.1f})" if len(ratios) > 1 else ""
        yield (
            name,
            f"{many}, the default" if many == CONCURRENCY else f"{many}",
            f"{one_s * total if many == 1 else median(asking_s):.1f}",
            f"{judged / median(asking_s):.1f}",
            f"{median(ratios):.1f}{spread}",
            f"{command_s:.1f}",
            f"{whole_s / command_s:.1f}",
            f"{median(each.stats['requests'] for _, each in runs) / judged:.2f}",
        )


# 2


def kills(bench: Bench) -> None:
    """Runs that are killed and go on, beside one that is left alone."""
    options, done = bench.options, Counter[str]()
    alone, whole = bench.alone(bench.limited, run := bench.run())
    expected, budget = run.files(), run.budget
    usd = spent = most_spent = 0.0
    while done["kills"] < options.kills:
        done["runs"] += 1
        draw = Random(f"kills {options.seed} {done['runs']}")
        most = min(options.kills - done["kills"], KILLS_A_RUN)
        planned = plan(draw, most, bench.total, alone, options.latency)
        audit = killed_run(bench, run := bench.run(), planned, done)
        usd, spent = usd + audit.usd, spent + audit.books.spent
        most_spent = max(most_spent, audit.books.most_spent)
        if run.files() != expected:
            raise Violation(f"{run.folder.name}: not the bytes of the run that was left alone")
    print("## Killed and gone on\n")
    print(
        f"Runs of {bench.total:,} judgements, {run.many} at a time, latency {options.latency:g} s, "
        f"{options.rate_limited:.0%} of the answers a 429. Each is killed (SIGKILL) up to "
        f"{KILLS_A_RUN} times at random moments, and the same command goes on until it is "
        "complete. What is under way at a kill is billed, and no client can know it: the ledger "
        "counts it as paid at its most, and it is asked again.\n"
    )
    rows = [
        ("runs", done["runs"]),
        *((f"kills {kind}", done[kind]) for kind in (STARTING, ASKING, ENDING)),
        ("kills in all", done["kills"]),
        ("judgements", done["runs"] * bench.total),
        ("judgements lost", 0),  # or this would not be printed
        ("judgements recorded twice", 0),
        ("recorded judgements asked or billed again", 0),
        ("completions billed", done["billed"]),
        ("of these under way at a kill", done["unrecorded"]),
        ("the most at one kill", done["most"]),
        ("files that differ in a byte", 0),
        ("USD billed", f"{usd:.2f}"),
        ("USD spent by the ledgers", f"{spent:.2f}"),
        ("USD of as many runs without a kill", f"{done['runs'] * whole.books.spent:.2f}"),
        ("USD of one ledger, the most at any of its lines", f"{most_spent:.2f}"),
        ("budget of each run, USD", f"{budget:.2f}"),
    ]
    print_table(("", ""), [(k, f"{v:,}" if isinstance(v, int) else v) for k, v in rows])


def plan(draw: Random, most: int, total: int, alone: Ended, latency: float) -> list[Kill]:
    """A run's kills in their order: most while it asks, some before and behind."""
    count = draw.randint(1, max(most - 2, 1))
    asking = sorted(draw.randrange(1, total) for _ in range(count))
    planned = [Kill(judged, draw.uniform(0, latency)) for judged in asking]
    if len(planned) < most and draw.random() < 0.5:
        at = draw.randint(0, len(planned))
        planned.insert(at, Kill(0, draw.uniform(0, alone.first_s)))
    if len(planned) < most and draw.random() < 0.5:
        planned.append(Kill(total, draw.uniform(0, alone.seconds - alone.last_s)))
    return planned


def killed_run(bench: Bench, run: Run, planned: Sequence[Kill], done: Counter[str]) -> Audit:
    """Start, kill, go on; looked into at each kill and at the end."""
    killed = before = requests = unrecorded = 0
    billed: dict[str, int] = {}  # of what is recorded
    with bench.serve(bench.limited, done["runs"]) as server:
        for kill in (*planned, None):
            code = run.judge(kill).code
            killed += code != 0
            audit = run.audit(stats := server.stats(), kills=killed, whole=code == 0)
            if again := [each for each, count in billed.items() if stats["billed"][each] != count]:
                raise Violation(f"{run.folder.name}: {len(again)} recorded ones billed again")
            if code == 0:
                break
            digests = [run.table.digests[key] for key in audit.books.judged]
            billed = {digest: stats["billed"][digest] for digest in digests}
            asked = stats["requests"] > requests
            kind = ENDING if len(billed) == bench.total else ASKING if asked else STARTING
            done[kind] += 1
            done["kills"] += 1
            done["most"] = max(done["most"], audit.unrecorded - unrecorded)
            say(f"  killed {kind}: {before:,} judgements before, {len(billed):,} now")
            before, requests, unrecorded = len(billed), stats["requests"], audit.unrecorded
    done["billed"] += stats["billed_total"]
    done["unrecorded"] += unrecorded
    say(f"run {done['runs']}: complete, {killed} of {len(planned)} kills, {unrecorded} under way")
    return audit


# 3


def little_money(bench: Bench) -> None:
    """With hardly enough, killed or not: it stops below the budget, whatever it lacks."""
    ended, audit = bench.alone(bench.limited, bench.run())
    about, most = (
        float(re.search(rf"{word} \$([\d,.]+\d)", ended.told)[1].replace(",", "")) + 0.005
        for word in ("about", "at most")
    )
    tight = TIGHT * max(about, audit.usd)
    more = bench.options.many * most / bench.total
    half = Kill(bench.total // 2, 0.0)
    rows = []
    for kill, budget in ((None, 0.9 * about), (None, tight), (half, tight), (half, tight + more)):
        run, starts, judged, last = bench.run(budget=budget), 0, 0, -1
        with bench.serve(bench.limited) as server:
            while last < judged < bench.total:
                last, starts = judged, starts + 1
                ended = run.judge(kill if starts == 1 else None, may_stop=True)
                judged = len(Books.read(run.ledger).judged)
            audit = run.audit(server.stats(), kills=int(kill is not None), whole=not ended.code)
        say(f"budget {budget:.2f}: {starts} starts, {judged:,} judgements, status {ended.code}")
        rows.append(
            (
                f"{budget:.2f}",
                "once" if kill else "never",
                f"{starts}",
                f"{judged:,} of {bench.total:,}",
                f"{ended.code}",
                f"{audit.usd:.2f}",
                f"{audit.books.most_spent:.2f}",
            )
        )
    print("## Hardly enough money\n")
    print(
        f"As above, with a budget below what is expected, ${about:.2f}; with {TIGHT - 1:.0%} more "
        "than is expected, or than all costs if that is more; and with about what a kill may lose "
        "beside, killed half-way or never. The command is started until it is complete or gets "
        "nothing more: with status 3 where the next request might exceed the budget, 2 where it "
        "expects to exceed it and asks nothing.\n"
    )
    head = ("budget", "killed", "starts", "judgements", "last status", "USD billed")
    print_table((*head, "the ledger's most"), rows)


# 4


def memory(bench: Bench) -> None:
    """Peaks by the number of rows, and over time."""
    options, peaks, rows = bench.options, [], []
    for table in (bench.table, bench.answers(options.rows * BEYOND)):
        for latency in (0.0, options.latency):
            ended, _ = bench.alone({"latency": latency}, bench.run(table=table))
            own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if own_mib > ended.peak_mib - 1:  # a new process begins with its parent's peak
                raise Violation(f"the bench itself takes {own_mib:.0f} MiB: peaks are not known")
            peaks += [] if latency else [ended.peak_mib]
            quarter = max(len(ended.resident) // 4, 1)
            say(f"{table.path.name}, latency {latency:g} s: {ended.peak_mib:.1f} MiB")
            rows.append(
                (
                    f"{len(table.digests) // 2:,}",
                    f"{latency:g}",
                    f"{ended.last_s - ended.first_s:.1f}",
                    f"{max(ended.resident[:quarter], default=0.0):.1f}",
                    f"{max(ended.resident[-quarter:], default=0.0):.1f}",
                    f"{ended.peak_mib:.1f}",
                )
            )
    print("## Memory\n")
    print(
        f"Of the command, in MiB: what is resident while it asks (VmRSS each {SAMPLE_S:g} s), the "
        "largest of the first and of the last quarter of the samples; and the peak of all of it "
        "(ru_maxrss), figures included.\n"
    )
    print_table(("rows", "latency, s", "asking, s", "first quarter", "last quarter", "peak"), rows)
    kib = 1024 * (peaks[1] - peaks[0]) / (options.rows * (BEYOND - 1))
    print(f"The peak grows by {kib:.1f} KiB a row beyond {options.rows:,}.\n", flush=True)


# 5


def overhead(bench: Bench) -> None:
    """Processor time of the command for a judgement, where the server answers at once."""
    rows = []
    for many in (1, CONCURRENCY, *bench.options.several[-1:]):
        cpu_ms, rates, again_s = [], [], []
        for _ in range(bench.options.repeats):
            ended, audit = bench.alone({}, run := bench.run(many))
            again = run.judge()
            cpu_ms.append(1000 * (ended.cpu_s - again.cpu_s) / bench.total)
            rates.append(bench.total / audit.books.asking_s)
            again_s.append(again.seconds)
            say(f"{many} at a time: {cpu_ms[-1]:.2f} ms a judgement, {rates[-1]:.0f} a second")
        spread = f"{median(cpu_ms):.2f} ({min(cpu_ms):.2f} to {max(cpu_ms):.2f})"
        rows.append((f"{many}", spread, f"{median(rates):.0f}", f"{median(again_s):.1f}"))
    print("## Without latency\n")
    print(
        "Milliseconds of processor time that the command takes for a judgement: that of a run "
        "less that of the same command again, which finds all in the ledger, by "
        f"{bench.total:,}. Medians of {bench.options.repeats}, with smallest and largest.\n"
    )
    print_table(("at a time", "ms a judgement", "judgements a second", "again, s"), rows)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines), end="\n\n", flush=True)


def say(text: str) -> None:
    """Progress, beside the tables."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """The command line's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, once")
    parser.add_argument("--only", default="1,2,3,4,5", metavar="PARTS", help="such as 1,3")
    parser.add_argument("--rows", type=int, help="dialogues, judged twice each; 908")
    parser.add_argument("--latency", type=float, help="of the server, in seconds; 0.2")
    parser.add_argument("--rate-limited", type=float, default=0.1, help="share of 429s; 0.1")
    parser.add_argument("--kills", type=int, help="in all; 24")
    parser.add_argument("--repeats", type=int, help="of each measurement; 3")
    parser.add_argument("--one", type=int, default=200, help="rows asked one at a time; 200")
    parser.add_argument("--whole", action="store_true", help="ask all rows one at a time")
    parser.add_argument("--seed", type=int, default=0, help="of answers, faults and kills; 0")
    options = parser.parse_args()
    usual = (12, 0.1, 2, 1) if options.quick else (908, 0.2, 24, 3)
    for name, value in zip(("rows", "latency", "kills", "repeats"), usual, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.several = (CONCURRENCY,) if options.quick else (16, 32, CONCURRENCY, 64, 128)
    options.many = 4 if options.quick else CONCURRENCY
    return options


def main() -> int:
    """Measure and print; see the module's docstring."""
    options = arguments()
    print("# Judging\n")
    print(f"    {shlex.join(['python', 'tests/bench/bench_judge.py', *sys.argv[1:]])}\n")
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), Linux {platform.release()}, Python "
        f"{platform.python_version()}; the command and the server share them.\n",
        flush=True,
    )
    every = (speed, kills, little_money, memory, overhead)
    parts: dict[str, Callable[[Bench], None]] = {str(n): each for n, each in enumerate(every, 1)}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        try:
            for name in options.only.split(","):
                parts[name](bench)
        except Violation as violation:
            say(f"VIOLATION: {violation}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
