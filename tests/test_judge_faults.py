"""A judge that refuses, fails or talks nonsense; tables and ledgers that are damaged; secrets."""

import contextlib
import json
import socket
import time
from collections import Counter
from email.utils import formatdate

import pytest
from judge_server import Answering, FaultyJudge
from judging import (
    KEY,
    MODEL,
    PRICED,
    TASK,
    Replies,
    beside,
    dialogue,
    digests,
    judge,
    judge_few,
    lines,
    number_in,
    results,
    rows,
    spending,
    summary,
    table,
    undisturbed,
)

from eval.client.client import Client
from eval.client.ledger import Ledger
from eval.client.sending import Sender
from eval.client.server import Server
from eval.demo.judge import Response, error, user_text
from eval.errors import JudgeError
from eval.judging.asking import Asking
from eval.judging.occasion import Occasion
from touchstone import judging as touchstone
from touchstone.prompt import OWN

CHAT = "POST /v1/chat/completions"
ONE = ("--concurrency", 1)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def target(tmp_path):
    return table(tmp_path / "answers.tsv", 3)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "answers.judged"


class Trickling(FaultyJudge):
    """A judge that keeps a connection alive by a space now and then, the first time."""

    def send(self, wire, answer):
        if len(self.requests) > 1:
            super().send(wire, answer)
            return
        wire.close_connection = True
        with contextlib.suppress(OSError):
            wire.send_response(200)
            wire.end_headers()
            for _ in range(100):
                wire.wfile.write(b" ")
                wire.wfile.flush()
                time.sleep(0.1)


# It refuses all there is


@pytest.mark.parametrize("wrong", [None, "", "  \n", "sk-two\nlines", "sk-clé"])
def test_no_key(target, monkeypatch, wrong):
    if wrong is None:
        monkeypatch.delenv("OPENAI_API_KEY")
    else:
        monkeypatch.setenv("OPENAI_API_KEY", wrong)
    with FaultyJudge() as server:
        done = judge_few(target, server)
        assert (2, 0) == (done.returncode, len(server.requests))
    assert "OPENAI_API_KEY" in done.stderr
    assert "two" not in done.stderr


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"key": "sk-another"}, "answers 401: Incorrect API key provided.. The key in OPENAI_API_"),
        ({"forbidden": 1.0}, "answers 403: Country not supported.. The key may not use 'demo-rul"),
        (
            {"not_found": 1.0},
            "404: The model was withdrawn.. Is the model 'demo-rules' (--judge) o",
        ),
        ({"model": "other"}, "404: The model `demo-rules` does not exist; this server has `other`"),
        ({"quota": 1.0}, "answers 429: You exceeded your current quota, please check"),
        ({"rate_limited": 1.0, "retry_after": 86400}, "It asks to wait 86,400 s: try again then"),
        ({"rate_limited": 1.0, "retry_after": "inf"}, "It asks to wait inf s: try again then"),
    ],
)
def test_what_concerns_every_request_costs_one(target, how, said):
    """It says what the server says and what to do; nothing is asked again."""
    with FaultyJudge(**how) as server:
        done = judge(target, server, "--allow-partial")
        assert (2, 1) == (done.returncode, server.record.paths[CHAT]), done.stderr
    assert "error: 127.0.0.1 answers 4" in done.stderr
    assert said in done.stderr


def test_an_empty_account(target):
    """As gateways say it, which have no word of OpenAI's for it."""
    with Answering(error(402, "Insufficient Balance", "unknown_error")) as server:
        done = judge_few(target, server)
        assert (2, 1) == (done.returncode, server.record.paths[CHAT])
    assert "402: Insufficient Balance. The account has nothing left" in done.stderr
    assert [0.0] == [line["usd"] for line in lines(beside(target)) if "unanswered" in line]


def test_a_wrong_address(target):
    with FaultyJudge() as server:
        done = judge_few(target, f"{server.url}/nothing")
        assert (2, 1) == (done.returncode, server.record.paths.total())
    assert "does the address (--base-url) end as the server's does" in done.stderr


def test_a_key_that_is_withdrawn_meanwhile(target, run):
    """What was judged is kept, and with a key that is right the same command goes on."""
    with FaultyJudge(forbidden=[3]) as server:
        assert judge_few(target, server, *ONE).returncode == 2
        assert 4 == len(server.requests)
        assert judge_few(target, server, *ONE).returncode == 0
        assert (7, 6) == (len(server.requests), server.billed.total())
        assert results(run) == undisturbed(target, server)


def test_nobody_listens(target):
    """It ends soon, and costs nothing; once there is a judge the same command goes on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = judge_few(target, f"http://127.0.0.1:{port}/v1", *PRICED, "--budget", 1)
    assert done.returncode == 2
    assert "the judge at 127.0.0.1 does not answer: no connection to 127.0.0.1: " in done.stderr
    told = lines(beside(target))
    assert 3 == sum("unanswered" in line for line in told)
    assert 0 == list(spending(told))[-1]
    with FaultyJudge(port=port) as server:
        assert judge_few(target, server, *PRICED, "--budget", 1).returncode == 0


# It refuses one request


def test_a_request_that_is_refused(target, run):
    """It is asked once, has failed, and is shown; --retry-failed asks it anew and no other."""
    with FaultyJudge(bad_request=["What is number 1?"]) as server:
        done = judge_few(target, server, *PRICED)
        assert (3, 6) == (done.returncode, len(server.requests))
        failed = f"failed: {TASK}/1 round 2: refused: HTTP 400: Invalid prompt."
        assert failed in done.stderr
        assert "2 judgements failed and are left out" in done.stdout
        assert (4, 2) == tuple(summary(run)["judge"][n] for n in ("judgements", "failed"))
        assert judge_few(target, server).returncode == 3
        assert 6 == len(server.requests)
        server.faults = {}
        assert judge_few(target, server, "--retry-failed").returncode == 0
        assert [1, 1] == [number_in(user_text(one.request)) for one in server.requests[6:]]
        assert results(run) == undisturbed(target, server)


def test_every_request_is_refused(tmp_path):
    """A few are asked, then it stops and says so. Nothing is lost: they can be asked anew."""
    target = table(tmp_path / "answers.tsv", 40)
    with FaultyJudge(bad_request=1.0) as server:
        done = judge_few(target, server, "--concurrency", 4)
        assert done.returncode == 2
        assert 8 <= len(server.requests) <= 8 + 4
        assert "127.0.0.1 refuses every request, the last with HTTP 400" in done.stderr
        server.faults = {}
        assert judge_few(target, server, "--retry-failed").returncode == 0
        assert server.billed.total() == 80


# It does not answer, for a while


class Soon:
    def __str__(self):
        return formatdate(time.time() + 2.2, usegmt=True)  # in whole seconds


@pytest.mark.parametrize(
    ("header", "value", "least"),
    [("retry_after", "1", 1.0), ("retry_after_ms", "300", 0.3), ("retry_after", None, 1.0)],
)
def test_a_server_that_asks_to_wait(target, header, value, least):
    """Seconds, or a date: it is asked again no sooner than it wants, and soon after."""
    with FaultyJudge(rate_limited=[0], **{header: value or Soon()}) as server:
        assert judge_few(target, server).returncode == 0
        first, second = server.requests[:2]
        assert first.digest == second.digest
        assert least <= second.time_s - first.time_s < least + 2
        assert 7 == len(server.requests)


def test_faults_that_pass(tmp_path, run):
    """Asked again, and the same comes out; what may have been billed counts as paid at its most."""
    unpaid = ("server_error", "unavailable", "rate_limited")
    paid = ("closed", "truncated", "invalid_json", "html", "no_choices", "slow")
    target = table(tmp_path / "answers.tsv", 6)
    faults = {name: [2 * number + 1] for number, name in enumerate((*unpaid, *paid))}
    with FaultyJudge(**faults, attempts=1, slow_s=5) as server:
        done = judge_few(target, server, *PRICED, *ONE, "--timeout", 0.5)
        assert done.returncode == 0, done.stderr
        assert [*unpaid, *paid] == [one.fault for one in server.requests if one.fault]
        assert 12 + 9 == len(server.requests)
        told = lines(beside(target))
        most = {line["asked"]: line["usd"] for line in told if "asked" in line}
        lost = [line for line in told if "unanswered" in line]
        expected = [0.0 if n < 3 else most[line["unanswered"]] for n, line in enumerate(lost)]
        assert expected == [line["usd"] for line in lost]
        assert results(run) == undisturbed(target, server)


def test_a_reply_that_comes_too_slowly(target):
    """The time is that of the whole reply, not that of each byte."""
    with Trickling() as server:
        done = judge_few(target, server, *PRICED, "--timeout", 0.5)
        assert (0, 7) == (done.returncode, len(server.requests)), done.stderr
    (lost,) = [line for line in lines(beside(target)) if "unanswered" in line]
    assert "no whole answer in 0.5 s" == lost["fault"]
    assert lost["usd"] > 0


@pytest.mark.parametrize("fault", ["server_error", "closed"])
def test_a_server_that_never_answers_again(tmp_path, fault):
    """Its requests are tried a few times, three in a row; then all stops, and what came is kept."""
    dialogues = [dialogue(number) for number in range(20)]
    with FaultyJudge(**{fault: list(range(5, 500))}) as server:
        who = Server(MODEL, server.url)
        occasion = Occasion.of(touchstone, TASK, dialogues, who, OWN)
        client = Client(who, KEY, 5.0)
        with Ledger.held(tmp_path / "ledger.jsonl", touchstone) as ledger:
            asking = Asking(Sender(client, ledger, tries=2), touchstone, concurrency=2)
            with pytest.raises(JudgeError, match=r"does not answer: .*; the same command goes on"):
                asking.ask(occasion.pending(ledger))
            assert 35 == len(occasion.pending(ledger))
            assert 5 + 3 * 2 <= len(server.requests) <= 5 + 4 * 2
            server.faults = {}
            asking = Asking(Sender(client, ledger), touchstone)
            assert 35 == asking.ask(occasion.pending(ledger)).replies
            assert [] == occasion.pending(ledger)
        client.close()
        assert 40 == server.billed.total()


# It answers, and judges nothing


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("nonsense", "the first line is not two numbers with one space between: 'I cannot"),
        ("empty", "an empty reply"),
        ("null", "an empty reply"),
        ("refusal", "an empty reply"),
        ("filtered", "an empty reply (finish reason 'content_filter')"),
        ("length", " (finish reason 'length')"),
    ],
)
def test_a_reply_without_scores(target, run, fault, said):
    """After five calls it has failed: left out of the mean as published, shown, and bounded."""
    with FaultyJudge(**{fault: ["What is number 1?"]}) as server:
        done = judge_few(target, server)
        assert (3, 4 + 2 * 5) == (done.returncode, len(server.requests))
        assert 2 == done.stderr.count("failed: ")
        assert said in done.stderr
        faults = [one["fault"] for one in rows(run)[1]["rounds"]]
        assert all(said in each for each in faults)
        told = summary(run)
        about, (mean,) = told["judge"], told["metrics"].values()
        assert (4, 2) == (about["judgements"], about["failed"])
        assert any("2 of 6 judgements failed" in doubt for doubt in told["doubts"])
        assert about["bounds"] == pytest.approx([(4 * mean + 2) / 6, (4 * mean + 20) / 6])
        low, high = (f"{100 * bound:.1f}" for bound in about["bounds"])
        assert f"had they been the worst and the best, the score would be {low} and {high}" in (
            done.stdout
        )


def test_nonsense_twice(target, run):
    """The third reply counts."""
    with FaultyJudge(nonsense=["What is number 1?"], attempts=2) as server:
        assert judge_few(target, server).returncode == 0
        calls = map(digests(server).count, digests(server))
        assert {1: 4, 3: 6} == Counter(calls)
        assert results(run) == undisturbed(target, server)


# The key


def everywhere(folder, done):
    """All that a command has written: files, names of files, and what it printed."""
    yield done.stdout.encode()
    yield done.stderr.encode()
    for file in folder.rglob("*"):
        yield str(file).encode()
        if file.is_file():
            yield file.read_bytes()


@pytest.mark.parametrize(
    ("how", "more"),
    [
        ({"key": "sk-another"}, ()),
        ({"key": "sk-another"}, ("--debug",)),
        ({"bad_request": 1.0}, ("--debug",)),
        ({"bad_request": ["What is number 1?"], "server_error": [0]}, ()),
        (
            {"html": [0], "invalid_json": [2], "truncated": [4], "nonsense": ["What is number 1?"]},
            ("--debug",),
        ),
    ],
)
def test_the_key_is_nowhere(target, how, more):
    """Not in a file below the run, the ledger, or anything printed: whatever the server repeats."""
    with FaultyJudge(echo_key=True, **how) as server:
        done = judge(target, server, "--allow-partial", *more)
    assert any(b"[key]" in each for each in everywhere(target.parent, done))
    assert not any(KEY.encode() in each for each in everywhere(target.parent, done))


@pytest.mark.parametrize("key", ['sk-"quoted"-\\-0123456789', KEY])
def test_the_key_is_known_however_json_spells_it(target, run, key, monkeypatch):
    """JSON may write each character as an escape."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    spelt = "".join(f"\\u{ord(character):04x}" for character in key)
    content = json.dumps(
        {
            "choices": [{"message": {"content": "8 7\nSPELT"}, "finish_reason": "stop SPELT"}],
            "model": "m SPELT",
            "system_fingerprint": "fp SPELT",
        }
    )
    with Answering(Response(content.replace("SPELT", spelt).encode())) as server:
        done = judge_few(target, server)
    assert done.returncode == 0, done.stderr
    found = [each.decode() for each in everywhere(target.parent, done)]
    assert not any(key in each or json.dumps(key)[1:-1] in each for each in found)
    assert "8 7\n[key]" == rows(run)[0]["rounds"][0]["reply"]


def test_a_reply_is_kept_as_it_came(target, run):
    """The words around the key, and all there is where it is not named."""
    with Replies(lambda text, _: f"8 7\nI was asked\x1b[31m {text[:9]!r} é 红") as server:
        done = judge_few(target, server)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "8 7\nI was asked\x1b[31m 'What the ' é 红" == rows(run)[0]["rounds"][0]["reply"]
