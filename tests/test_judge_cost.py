"""What judging costs: said before, agreed to, never above the budget. And how it is told."""

import io
import json
import os
import random

import pytest
from judge_server import FaultyJudge
from judging import (
    KEY,
    MODEL,
    PARTIAL,
    PRICED,
    TASK,
    beside,
    dialogue,
    digests,
    judge,
    judge_few,
    lines,
    results,
    spending,
    summary,
    table,
)
from small import command

from eval.client.sending import PAID_TRIES
from eval.demo.stand_ins import draw_demo

TOKENS = ("prompt_tokens", "completion_tokens")
ONE = ("--concurrency", 1)
DEAR = ("--price", "30000/60000")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def server():
    with FaultyJudge() as started:
        yield started


def test_a_dry_run_asks_nothing_and_leaves_nothing(server, tmp_path, monkeypatch):
    """One line of JSON a request, as it would be sent, and an estimate; no key is needed."""
    target = table(tmp_path / "answers.tsv", 3)
    monkeypatch.delenv("OPENAI_API_KEY")
    done = judge(target, server, "--allow-partial", "--dry-run", *PRICED)
    assert (0, 0) == (done.returncode, len(server.requests)), done.stderr
    assert [target] == list(tmp_path.iterdir())
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert 6 + 16 == len(told)
    assert "22 requests to demo-rules at 127.0.0.1, about " in done.stderr
    assert "nothing was asked" in done.stderr
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert judge_few(target, server).returncode == 0
    names = ("model", "messages", "temperature", "stop", "max_tokens")
    bodies = [{name: line[name] for name in names} for line in told[:6]]
    sent = [asked.request for asked in server.requests]
    assert sorted(map(json.dumps, map(sort, bodies))) == sorted(map(json.dumps, map(sort, sent)))
    left = judge(target, server, "--allow-partial", "--dry-run", "--no-anchors")
    assert ("", 6) == (left.stdout, len(server.requests))
    assert "0 requests to " in left.stderr


def sort(body):
    return dict(sorted(body.items()))


def estimated(target, server):
    """USD as the command says them: about, and at most."""
    done = judge_few(target, server, "--dry-run", *DEAR)
    told = done.stderr.split("about $")[1]
    about, most = (float(part.strip("$,;").replace(",", "")) for part in told.split()[0:4:3])
    return about, most


def test_an_estimate_above_the_budget(server, tmp_path):
    target = table(tmp_path / "answers.tsv", 3)
    about, most = estimated(target, server)
    assert 1 < about < most
    done = judge_few(target, server, *DEAR, "--budget", about - 0.01)
    assert (2, 0) == (done.returncode, len(server.requests))
    assert f"about ${about:,.2f} expected, more than --budget" in done.stderr
    assert judge_few(target, server, *DEAR, "--budget", most).returncode == 0
    assert 6 == len(server.requests)


def usages(server, how):
    """Have a judge report other numbers of tokens than it counts."""
    said = server.said
    server.said = lambda *given, **more: said(*given, **more) | {"usage": how(given[0])}


def most_tokens(request):
    """As many as there can be: a token is at least a byte, and a reply is bounded."""
    asked = sum(len(m["content"].encode()) for m in request["messages"])
    return {"prompt_tokens": asked, "completion_tokens": request["max_tokens"]}


@pytest.mark.parametrize("seed", range(4))
def test_no_budget_is_ever_exceeded(tmp_path, seed):
    """Whatever befalls and whatever tokens are reported, at each line of the ledger.

    With a larger budget the same command goes on, and pays for nothing twice.
    """
    draw = random.Random(seed)
    target = table(tmp_path / "answers.tsv", 12)
    shares = {name: draw.choice((0, 0.1)) for name in ("server_error", "truncated", "nonsense")}
    with FaultyJudge(seed=seed, attempts=3, latency_s=0.002, **shares) as server:
        usages(server, draw.choice((most_tokens, lambda _: None, lambda _: {"prompt_tokens": "x"})))
        about, _ = estimated(target, server)
        budget = about
        concurrency = draw.choice((1, 3, 12))
        for _ in range(40):
            asked = (*DEAR, "--budget", f"{budget:.4f}")
            done = judge_few(target, server, *asked, "--concurrency", concurrency)
            paid = list(spending(lines(beside(target))))
            assert max(paid, default=0.0) <= float(f"{budget:.4f}") + 1e-9, done.stderr
            if done.returncode == 0:
                break
            assert done.returncode in (2, 3), done.stderr
            budget *= 1.4
        assert done.returncode == 0, done.stderr
        assert budget > about, "it has stopped in between"
        told = [line for line in lines(beside(target)) if "judged" in line]
        scored = [line["judged"] for line in told if line["scores"]]
        assert 24 == len(scored) == len(set(scored))
        cut = sum(one.fault == "truncated" for one in server.requests)
        assert server.billed.total() == len(told) + cut
    assert f"${paid[-1]:,.2f} spent" in done.stdout


def test_a_budget_stops_in_the_middle(server, tmp_path):
    """Exit code 3; what was paid is kept, and the figure is that of an undisturbed run."""
    target = table(tmp_path / "answers.tsv", 10)
    usages(server, most_tokens)
    _, most = estimated(target, server)
    asked = (*DEAR, "--concurrency", 2, "--budget")
    done = judge_few(target, server, *asked, most / (2 * PAID_TRIES))
    assert done.returncode == 3
    assert 5 <= len(server.requests) <= 10
    assert f"{20 - len(server.requests)} of 20 judgements are missing (the budget of" in done.stderr
    assert not (tmp_path / "answers.judged" / TASK / "summary.json").exists()
    done = judge_few(target, server, *asked, most)
    assert (0, 20) == (done.returncode, len(set(digests(server)))), done.stderr
    assert 20 == len(server.requests)
    other = ("--ledger", tmp_path / "other.jsonl", "--out", tmp_path / "other")
    assert judge_few(target, server, *other).returncode == 0
    assert results(tmp_path / "answers.judged") == results(tmp_path / "other")


def test_a_budget_that_suffices_is_enough(tmp_path):
    """However many requests are under way, each held at several times what it then costs."""
    target = table(tmp_path / "answers.tsv", 30)
    with FaultyJudge(latency_s=0.01) as server:
        usages(server, lambda request: {n: most_tokens(request)[n] // 3 for n in TOKENS})
        other = ("--ledger", tmp_path / "other.jsonl", "--out", tmp_path / "other")
        assert judge_few(target, server, *DEAR, "--yes", *other).returncode == 0
        told = lines(tmp_path / "other.jsonl")
        costs = list(spending(told))[-1]
        budget = costs + max(line["usd"] for line in told if "asked" in line)
        done = judge_few(target, server, *DEAR, "--budget", budget, "--concurrency", 48)
        assert done.returncode == 0, done.stderr
        assert 2 * 60 == len(server.requests)
        assert max(spending(lines(beside(target)))) <= budget


def test_a_budget_is_of_all_tasks_of_a_run(server, tmp_path):
    """What one task has cost is gone for the other, whichever is judged first."""
    draw_demo(tmp_path / "data")
    asked = ("--data", tmp_path / "data", "--out", tmp_path / "run", "--limit", 5, "--device")
    tasks = ("touchstone_en", "touchstone_cn")
    assert command("run", *tasks, "--model", "demo", *asked, "cpu", "--allow-partial").stderr
    run, budget = tmp_path / "run", 120
    last = judge_few(run, server, *DEAR, "--budget", budget, "--task", tasks[1], *ONE)
    assert last.returncode == 0, last.stderr
    before = list(spending(lines(beside(run))))[-1]
    assert before > budget / 2
    done = judge_few(run, server, *DEAR, "--budget", budget)
    told = f"beside ${before:,.2f} spent before" in done.stderr
    assert (2, True) == (done.returncode, told), done.stderr
    assert 2 * 5 == len(server.requests)
    budget = 2 * before
    done = judge_few(run, server, *DEAR, "--budget", budget)
    assert done.returncode == 3, done.stderr
    assert before < max(spending(lines(beside(run)))) <= budget
    assert judge_few(run, server, *DEAR, "--yes").returncode == 0
    assert 4 * 5 == len(server.requests)


def test_what_is_reserved_bounds_every_usage_there_can_be(server, tmp_path):
    """Also of texts whose characters are several bytes."""
    target = table(tmp_path / "answers.tsv", [dialogue(1, "红色的圆形。🚌"), dialogue(2, "é" * 99)])
    usages(server, most_tokens)
    assert judge_few(target, server, *PRICED).returncode == 0
    told = lines(beside(target))
    reserved = {line["asked"]: line["usd"] for line in told if "asked" in line}
    paid = {line["judged"]: line["usd"] for line in told if "judged" in line}
    assert reserved.keys() == paid.keys()
    assert all(0 < paid[name] <= reserved[name] < 2 * paid[name] for name in paid)


def test_a_server_that_reports_more_than_there_can_be(server, tmp_path):
    """That excess is the server's; nothing more is asked."""
    target = table(tmp_path / "answers.tsv", 5)
    usages(server, lambda request: {"prompt_tokens": 10**6, "completion_tokens": 0})
    done = judge_few(target, server, *PRICED, "--budget", 1, "--concurrency", 1)
    assert (3, 1) == (done.returncode, len(server.requests)), done.stderr


def test_prices(server, tmp_path, monkeypatch):
    """Without one no budget can be kept; OpenAI's own are known."""
    target = table(tmp_path / "answers.tsv", 2)
    done = judge_few(target, server, "--budget", 5)
    assert (2, True) == (done.returncode, "the price of 'demo-rules' at 127.0.0.1" in done.stderr)
    for wrong in ("30", "30/x", "-1/2", "nan/1", "1/inf", "1/2/3"):
        done = judge_few(target, server, "--price", wrong)
        assert (2, True) == (done.returncode, f"--price '{wrong}': write IN/OUT" in done.stderr)
    assert 2 == judge_few(target, server, "--price", "1/2", "--budget", "nan").returncode
    assert 0 == len(server.requests)
    done = command("judge", target, "--dry-run", *PARTIAL)
    assert "requests to gpt-4 at api.openai.com, about " in done.stderr
    assert "tokens: about $0.0" in done.stderr


def test_nobody_to_ask_and_much_to_pay(server, tmp_path, monkeypatch):
    """Above a dollar nothing is asked without --budget or --yes where there is no terminal."""
    target = table(tmp_path / "answers.tsv", 3)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    done = judge_few(target, server, *DEAR)
    assert (2, 0) == (done.returncode, len(server.requests))
    assert "give --budget USD or --yes" in done.stderr
    assert judge_few(target, server, *PRICED).returncode == 0, "cents"
    other = ("--ledger", tmp_path / "other.jsonl", *DEAR, "--yes")
    assert judge_few(target, server, *other).returncode == 0
    assert 12 == len(server.requests)


@pytest.mark.parametrize(
    ("answer", "code", "asked"),
    [(b"n\n", 2, 0), (b"\n", 2, 0), (b"\x04", 2, 0), (b"y\n", 0, 6)],
)
def test_a_terminal_is_asked(server, tmp_path, monkeypatch, answer, code, asked):
    """Before anything is spent; no answer is no, and so is the end of the input."""
    target = table(tmp_path / "answers.tsv", 3)
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(ours, answer)
        done = judge_few(target, server, *DEAR)
        monkeypatch.undo()
    os.close(ours)
    assert (code, asked) == (done.returncode, len(server.requests)), done.stderr
    assert "Spend about $" in done.stderr


# How it is told what to do


def config(folder, text):
    path = folder / "judge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_configuration(server, tmp_path, monkeypatch):
    """Model, address, parameters, price and budget; an option comes before it."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    told = config(
        tmp_path,
        f'model = "{MODEL}"\nbase_url = "{server.url}/"\nprice = [30, 60.5]\nbudget = 2\n'
        'concurrency = 1\ntimeout_s = 5.5\n[parameters]\ntop_k = 3\nseed = 7\ntimeout = "x"\n',
    )
    target = table(tmp_path / "answers.tsv", 4)
    done = command("judge", target, *PARTIAL, "--config", told)
    assert done.returncode == 0, done.stderr
    assert 1 == server.record.in_flight_max
    for asked in server.requests:
        assert {"model", "messages", "top_k", "seed", "timeout"} == asked.request.keys()
        assert (MODEL, 3, 7) == tuple(asked.request[name] for name in ("model", "top_k", "seed"))
    assert "$0.0" in done.stdout
    kept = summary(tmp_path / "answers.judged")["judge"]
    assert {"top_k": 3, "seed": 7, "timeout": "x"} == kept["parameters"]
    refused = command("judge", target, *PARTIAL, "--config", told, "--judge", "another")
    assert (2, True) == (refused.returncode, "'another'" in refused.stderr)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    asked = len(server.requests)
    assert command("judge", target, *PARTIAL, "--judge", MODEL).returncode == 0
    assert asked + 8 == len(server.requests), "other parameters, another judge"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 'x'", "key 'modle': "),
        ("price = [1, 2, 3]", "key 'price': "),
        ("price = [-1, 2]", "key 'price.0': "),
        ("price = [1, nan]", "key 'price.1': "),
        ("budget = -1", "key 'budget': "),
        ("budget = nan", "key 'budget': "),
        ("concurrency = '3'", "key 'concurrency': "),
        ("concurrency = 0", "key 'concurrency': "),
        ("timeout_s = 0", "key 'timeout_s': "),
        ("model = ", "not TOML"),
        ("[parameters]\nmodel = 'x'", "parameters: model cannot be set there"),
        ("[parameters]\nn = 2\nstream = true", "parameters: n, stream cannot be set there"),
        ("[parameters]\ntemperature = nan", "parameters: JSON cannot hold them"),
        ("[parameters]\nday = 2026-01-31", "parameters: JSON cannot hold them"),
        ("base_url = 'judge'", "'judge' is not an address"),
    ],
)
def test_a_configuration_that_is_wrong(tmp_path, text, said):
    """The key is named, and nothing asked."""
    target = table(tmp_path / "answers.tsv", 1)
    done = command("judge", target, *PARTIAL, "--config", config(tmp_path, text))
    assert (2, True) == (done.returncode, said in done.stderr), done.stderr


def test_an_unknown_price_elsewhere_is_agreed_to(tmp_path, monkeypatch):
    """A paid server whose prices we do not know asks for --yes; nothing is asked before."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    address = ("--judge", "new", "--base-url", "http://judge.test/v1")
    done = command("judge", table(tmp_path / "answers.tsv"), *address, *PARTIAL)
    assert done.returncode == 2
    assert "at a price that is not known? Nobody can be asked here" in done.stderr
