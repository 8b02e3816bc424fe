"""The judge's command as a process of its own: killed, stopped, on a full disk.

Whatever happens, the same command goes on, pays for no reply twice, and ends in the same bytes.
"""

import os
import random
import re
import signal
import time
from collections import Counter

import pytest
from judge_server import FaultyJudge
from judging import (
    KEY,
    MODEL,
    PARTIAL,
    arguments,
    beside,
    digests,
    judge_few,
    lines,
    results,
    spending,
    table,
    undisturbed,
)
from launched import PYTHON, Launched

from eval.client.server import Server

DEAR = ("--price", "30000/60000", "--yes")
ENVIRONMENT = {"OPENAI_API_KEY": KEY}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def launched(target, server, *more, **how):
    asked = arguments(target, server, *PARTIAL, *DEAR, *more)
    return Launched(*PYTHON, *asked, more=ENVIRONMENT, **how)


def judged(ledger):
    """Keys with a reply, of whole lines."""
    content = ledger.read_bytes() if ledger.exists() else b""
    return [m.decode() for m in re.findall(rb'^\{"judged":"(\w+)".*\n', content, re.MULTILINE)]


def quiet(server):
    """Wait until nothing is under way; how many requests have come."""
    end = time.monotonic() + 10
    while server.record.in_flight and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)
    return len(server.requests)


def test_killed_again_and_again(tmp_path):
    """At any moment: each recorded reply stays; only what was under way is asked a second time.

    The key is in no command line, and in nothing that is left behind.
    """
    draw = random.Random(5)
    target = table(tmp_path / "answers.tsv", 50)
    ledger = beside(target)
    faults = {"nonsense": 0.1, "server_error": 0.1, "attempts": 2}
    with FaultyJudge(latency_s=0.03, echo_key=True, **faults) as server:
        who = Server(MODEL, server.url)

        def answered():
            """Keys of the requests that got a reply of the server, which then was paid."""
            return Counter(
                who.key(asked.request["messages"])
                for asked in server.requests
                if asked.status == 200
            )

        lost = Counter()
        for _ in range(3):
            count = len(server.requests) + draw.randrange(2, 25)
            with launched(target, server, "--concurrency", 6, "--debug") as one:
                one.until(lambda count=count: len(server.requests) > count, "asked")
                time.sleep(draw.random() * 0.05)
                shown = " ".join(one.processes().values())
                one.process.kill()
                assert (-9, True) == (one.ended()[0], "--concurrency" in shown)
                assert KEY not in shown + one.said
            quiet(server)
            kept = Counter(judged(ledger))
            assert kept <= answered()
            lost = answered() - kept
        assert 10 <= kept.total() < 100, "it was killed in the middle"
        assert lost.total() <= 3 * 6
        done = judge_few(target, server, *DEAR)
        assert done.returncode == 0, done.stderr
        told = lines(ledger)
        replies = Counter(line["judged"] for line in told if "judged" in line)
        scored = Counter(line["judged"] for line in told if line.get("scores"))
        assert (100, {1}) == (len(scored), set(scored.values()))
        assert kept <= replies
        assert lost == answered() - replies
        paid = list(spending(told))[-1]
        judgements = sum(line["usd"] for line in told if "judged" in line)
        assert paid == pytest.approx(judgements + still_open(told))
        assert f"${paid:,.2f} spent" in done.stdout
        files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
        assert any(b"[key]" in content for content in files)
        assert not any(KEY.encode() in content for content in files)
        assert undisturbed(target, server) == results(tmp_path / "answers.judged")


def still_open(told):
    """USD at most of what was asked and has no answer, because we were killed."""
    asked = Counter()
    for line in told:
        kind = next(iter(line))
        asked[line[kind]] += 1 if kind == "asked" else -1
    most = {line["asked"]: line["usd"] for line in told if "asked" in line}
    assert asked.total() > 0
    return sum(most[key] * count for key, count in asked.items())


def test_stopped(tmp_path):
    """What is under way is waited for: each reply is kept, and nothing is paid twice."""
    target = table(tmp_path / "answers.tsv", 40)
    with FaultyJudge(latency_s=0.4) as server:
        with launched(target, server, "--concurrency", 6) as one:
            one.until(lambda: len(server.requests) > 12, "asked")
            os.kill(one.process.pid, signal.SIGTERM)
            code, said = one.ended(10)
        assert (143, True) == (code, "to go on:" in said), said
        came = quiet(server)
        assert came == server.billed.total() == len(judged(beside(target)))
        assert 12 < came < 80
        server.latency_s = 0
        assert judge_few(target, server, *DEAR).returncode == 0
        assert 80 == len(server.requests) == len(set(digests(server)))


@pytest.mark.slow
def test_stopped_while_the_server_hangs(tmp_path):
    """It is not waited for longer than a few seconds; all other replies are kept."""
    target = table(tmp_path / "answers.tsv", 40)
    with FaultyJudge(latency_s=0.1, slow=[5], slow_s=60) as server:
        with launched(target, server, "--concurrency", 4) as one:
            one.until(lambda: len(server.requests) > 12, "asked")
            os.kill(one.process.pid, signal.SIGTERM)
            code, said = one.ended(10)
        assert (143, True) == (code, "to go on:" in said), said
        assert len(judged(beside(target))) == len(server.requests) - 1
        hung = server.requests[5].digest
        server.faults = {}
        assert judge_few(target, server, *DEAR).returncode == 0
        assert [hung] == list(Counter(digests(server)) - Counter(set(digests(server))))
        assert 81 == len(server.requests)


def test_a_full_disk(tmp_path):
    """It ends, naming the file; each line is whole, and with room nothing is asked again."""
    target = table(tmp_path / "answers.tsv", 60)
    with FaultyJudge() as server:
        with launched(target, server, "--concurrency", 4, limit=40_000) as one:
            code, said = one.ended()
        assert code == 2, said
        said_so = rf"error: {re.escape(str(beside(target)))}: cannot be written: File too large"
        assert re.search(said_so, said), said
        content = beside(target).read_bytes()
        assert content.endswith(b"}\n")
        assert 30_000 < len(content) <= 40_000
        recorded = len(judged(beside(target)))
        lost = quiet(server) - recorded
        assert 0 <= lost <= 4
        assert judge_few(target, server, *DEAR).returncode == 0
        assert 120 + lost == len(server.requests)
        assert undisturbed(target, server) == results(tmp_path / "answers.judged")
