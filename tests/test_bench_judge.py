"""The benchmark of judging works, and what it has found does not come back."""

import subprocess
import sys
from pathlib import Path

from judge_server import FaultyJudge
from judging import KEY, beside, judge_few, lines, spending, table

BENCH = Path(__file__).parent / "bench" / "bench_judge.py"
DEAR = ("--price", "30000/60000")


def test_nothing_is_lost_or_paid_twice_by_kills():
    """Killed twice and gone on: by the server's bills as by the ledger, and to the byte."""
    command = [sys.executable, "-W", "error", str(BENCH), "--quick", "--only", "2", "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "kills in all | 2",
        "judgements lost | 0",
        "judgements recorded twice | 0",
        "recorded judgements asked or billed again | 0",
        "files that differ in a byte | 0",
    ):
        assert f"| {line} |" in done.stdout


def test_money_held_back_for_requests_under_way_is_used_again(tmp_path, monkeypatch):
    """Where it had run out, a command stopped whose budget was enough, and had to be repeated."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    target = table(tmp_path / "answers.tsv", 12)
    with FaultyJudge(latency_s=0.02) as server:
        other = ("--out", tmp_path / "other", "--ledger", tmp_path / "other.jsonl")
        assert judge_few(target, server, *DEAR, "--yes", *other).returncode == 0
        told = lines(tmp_path / "other.jsonl")
        cost = list(spending(told))[-1]
        held_back = [line["usd"] for line in told if "asked" in line]
        assert sum(held_back) > 1.5 * cost
        budget = cost + max(held_back)
        done = judge_few(target, server, *DEAR, "--budget", budget, "--concurrency", 12)
        assert (0, 48) == (done.returncode, len(server.requests)), done.stderr
    assert max(spending(lines(beside(target)))) <= budget
