"""A judge that does not fit: stopped after a handful of replies, and never above "at most"."""

import random
import re
from collections import Counter
from contextlib import suppress

import pytest
from judge_server import Answering, FaultyJudge, digest_of
from judging import (
    KEY,
    MODEL,
    PRICED,
    TASK,
    Replies,
    beside,
    dialogue,
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
from eval.client.sending import PAID_TRIES, Sender
from eval.client.server import Price, Server
from eval.demo.judge import Response
from eval.errors import JudgeError
from eval.judging.asking import Asking
from eval.judging.cost import estimate
from eval.judging.occasion import Occasion
from touchstone import judging as touchstone
from touchstone.prompt import OWN
from touchstone.reply import on_scale, parse_reply, usable

ONE = ("--concurrency", 1)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def target(tmp_path):
    return table(tmp_path / "answers.tsv", 10)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "answers.judged"


def saying(text, finish="stop", **message):
    choice = {"message": {"content": text, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 300, "completion_tokens": 3}
    return Answering(Response({"choices": [choice], "usage": usage}))


# Replies that cannot be read


@pytest.mark.case("environment/05")
@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("**8** **7**", "'**8** **7**': '**8**' is not a number"),
        ("8, 7", "'8, 7': '8,' is not a number"),
        ("<think>\nOkay.\n</think>\n\n8 7", "'<think> Okay. </think>  8 7': the first line is"),
        (None, "'': an empty reply"),
        ("\x1b[31m" + "x" * 9000, "' [31mxxx"),
        (f"key {KEY}", "'key [key]': 'key' is not a number"),
    ],
    ids=range(6),
)
def test_replies_that_cannot_be_read(target, reply, shown):
    """After five and not one that can, all stops; one is shown, and what was spent is said."""
    with saying(reply) as server:
        done = judge_few(target, server, *PRICED)
        assert (3, 5) == (done.returncode, len(server.requests)), done.stderr
        assert 5 == len({one.digest for one in server.requests}), "each of another dialogue"
    assert "20 of 20 judgements are missing (none of the first 5 replies can be used" in done.stderr
    assert f"The last was {shown}" in done.stderr
    spent = list(spending(lines(beside(target))))[-1]
    assert spent > 0
    assert f"${spent:,.2f} spent on these answers" in done.stderr
    assert KEY not in done.stderr
    assert len(done.stderr) < 2000


def test_a_judge_that_is_put_right(target, run):
    """The same command goes on, and pays for no reply twice."""
    with FaultyJudge(nonsense=1.0) as server:
        assert judge_few(target, server).returncode == 3
        server.faults = {}
        assert judge_few(target, server).returncode == 0
        assert 5 + 20 == len(server.requests)
        assert results(run) == undisturbed(target, server)


def test_one_reply_that_can_be_read_is_enough(target):
    """Then each of the others is asked five times, as published."""
    with FaultyJudge(nonsense=[f"What is number {n}?" for n in (0, 1, 3)]) as server:
        done = judge_few(target, server)
        assert (3, 14 + 6 * 5) == (done.returncode, len(server.requests)), done.stderr
    assert "6 judgements failed and are left out" in done.stdout


def test_what_is_known_from_before_is_enough(target, run):
    """Of the last few judgements none may be readable; they fail at last, and are not stuck."""
    few = [f"What is number {n}?" for n in (7, 8, 9)]
    with FaultyJudge(nonsense=few) as server:
        assert judge_few(target, server).returncode == 3
        server.requests.clear()
        done = judge_few(target, server, "--retry-failed")
        assert (3, 6 * 5) == (done.returncode, len(server.requests)), done.stderr
        assert 6 == summary(run)["judge"]["failed"]


def test_the_first_few_go_out_alone(tmp_path):
    """Three, where they can be used; then as many together as was asked for."""
    target = table(tmp_path / "answers.tsv", 30)
    with FaultyJudge(latency_s=0.05) as server:
        alone = []
        reply = server.reply

        def counting(request, headers):
            alone.append(server.record.in_flight)
            return reply(request, headers)

        server.reply = counting
        assert judge_few(target, server, "--concurrency", 20).returncode == 0
        assert [0, 0, 0] == alone[:3]
        assert 15 < server.record.in_flight_max <= 20
        assert 60 == len(server.requests)


# Scores outside the scale


@pytest.mark.parametrize(
    ("reply", "scores", "counts"),
    [
        ("8 7", (8, 7), True),
        ("1 10", (1, 10), True),
        ("8.5 7.", (8.5, 7), True),
        ("08 07\nwhy", (8, 7), True),
        ("0 5", (0, 5), False),
        ("0.99 5", (0.99, 5), False),
        ("10.01 5", (10.01, 5), False),
        ("85 70", (85, 70), False),
        ("-8 7", (-8, 7), False),
        ("inf 5", (float("inf"), 5), False),
        ("1e308 1e308", (1e308, 1e308), False),
        ("1_0 7", (10, 7), False),
        ("8, 7", None, False),
    ],
)
def test_what_is_on_the_scale(reply, scores, counts):
    """parse_reply is the published script's; ours counts numbers from 1 to 10, plainly written."""
    assert scores == parse_reply(reply)
    assert counts == on_scale(reply) == usable(reply)
    assert (scores is not None) == usable(reply, as_published=True)


@pytest.mark.case("environment/13")
@pytest.mark.case("hostile/20")
@pytest.mark.parametrize(
    "reply", ["85 70", "800 7", "-8 7", "nan 5", "inf 5", "1e308 1e308", "1_0 7"]
)
def test_a_judge_with_another_scale(target, reply):
    """All stops after five replies; the reason is the scale, and nothing is scored."""
    with saying(reply) as server:
        done = judge_few(target, server)
        assert (3, 5) == (done.returncode, len(server.requests))
    assert f"The last was {reply!r}: scores outside 1 to 10" in done.stderr
    assert "--as-published counts such scores" in done.stderr
    assert done.stdout == ""


def off_scale(text, _):
    """Of one dialogue of ten the scores are on another scale."""
    return "85 70" if number_in(text) == 4 else "8 7"


def test_a_round_outside_the_scale_has_failed(target, run):
    """It is named and left out of our score, can be retried, and the published score is shown."""
    with Replies(off_scale) as server:
        done = judge_few(target, server)
        assert (3, 20) == (done.returncode, len(server.requests)), done.stderr
        assert f"failed: {TASK}/4 round 1: scores outside 1 to 10: '85 70'" in done.stderr
        told = summary(run)
        assert 7.5 == told["metrics"]["touchstone_score"]
        about = told["judge"]
        assert (18, 2, 2, False) == tuple(
            about[name] for name in ("judgements", "failed", "off_scale", "as_published")
        )
        assert about["published"] == pytest.approx((18 * 7.5 + 85 + 70) / 20)
        assert any("scores outside 1 to 10" in doubt for doubt in told["doubts"])
        assert "as published they count, and the score is 1450.0" in done.stdout
        assert all("outside 1 to 10" in one["fault"] for one in rows(run)[4]["rounds"])
        server.tell = lambda *_: "8 7"
        assert judge_few(target, server, "--retry-failed").returncode == 0
        assert 22 == len(server.requests)


def test_as_published_such_scores_count(target, run):
    """Without asking anything again; the signature says that the score is the script's."""
    with Replies(lambda text, _: "0 0" if number_in(text) == 4 else "8 7") as server:
        assert judge_few(target, server).returncode == 3
        ours = summary(run)
        done = judge_few(target, server, "--as-published")
        assert (0, 20) == (done.returncode, len(server.requests)), done.stderr
        assert "count here, as published: 675.0" in done.stdout
        published = summary(run)
        assert 0.9 * 7.5 == pytest.approx(published["metrics"]["touchstone_score"])
        assert (0, True) == tuple(published["judge"][n] for n in ("failed", "as_published"))
        assert ours["judge"]["published"] == published["judge"]["published"]
        assert ours["signature"] != published["signature"]
        assert "scale=as_published" in published["signature"]
        assert judge_few(target, server).returncode == 3
        assert ours == summary(run)


def test_as_published_a_score_beyond_the_tables_is_still_told(target, run):
    """Of 85 and 70 on a scale of 100 the script makes 7750."""
    with saying("85 70") as server:
        done = judge_few(target, server, "--as-published")
        assert (0, 20) == (done.returncode, len(server.requests)), done.stderr
    assert re.search(r"^all +10 +7750\.0 ", done.stdout, re.MULTILINE)
    assert ({}, 77.5) == (summary(run)["metrics"], summary(run)["judge"]["published"])


# "At most"


@pytest.mark.parametrize("seed", range(4))
def test_at_most_is_never_exceeded(tmp_path, seed):
    """Whatever a request costs and however often it fails: at most five tries may cost."""
    draw = random.Random(seed)
    names = ("nonsense", "truncated", "invalid_json", "server_error")
    shares = {name: draw.choice((0.0, 0.1, 0.4)) for name in names}
    price = Price(draw.uniform(0, 1e5), draw.uniform(0, 1e5))
    with FaultyJudge(seed=seed, **shares) as server:
        said = server.said
        part = draw.choice((0.0, 0.5, 1.0))

        def bills(request, *given, **more):
            asked = sum(len(m["content"].encode()) for m in request["messages"])
            usage = {"prompt_tokens": int(asked * part), "completion_tokens": int(64 * part)}
            return said(request, *given, **more) | {"usage": usage}

        server.said = bills
        who = Server(MODEL, server.url, price=price)
        occasion = Occasion.of(touchstone, TASK, [dialogue(n) for n in range(8)], who, OWN)
        client = Client(who, KEY, 5.0)
        with Ledger.held(tmp_path / "ledger.jsonl", touchstone) as ledger:
            most = estimate(who, occasion.pending(ledger)).most_usd
            concurrency = draw.choice((1, 4, 16))
            asking = Asking(Sender(client, ledger, tries=3), touchstone, concurrency)
            with suppress(JudgeError):  # it may not answer
                asking.ask(occasion.pending(ledger))
            assert ledger.account.spent(occasion.name) <= most * (1 + 1e-9)
            assert not ledger.account.open
        client.close()
        assert max(server.billed.values(), default=0) <= PAID_TRIES


def test_at_most_counts_every_try(target):
    """As the estimate says; in batches each request is handed in once."""
    with FaultyJudge() as server:
        done, batch = (
            judge_few(target, server, *PRICED, "--dry-run", *more) for more in ((), ("--batch",))
        )
    most, once = (
        float(re.search(r"at most \$([\d.,]+)", each.stderr)[1].rstrip(".,").replace(",", ""))
        for each in (done, batch)
    )
    assert most == pytest.approx(2 * PAID_TRIES * once, rel=0.2)
    assert f"if each is asked {PAID_TRIES} times" in done.stderr


def test_a_server_that_bills_more_than_a_request_has(target):
    """It is asked nothing more: no bound would hold."""
    usage = {"prompt_tokens": 2**39, "completion_tokens": 5}
    answer = Response({"choices": [{"message": {"content": "8 7"}}], "usage": usage})
    with Answering(answer) as server:
        done = judge_few(target, server, *PRICED, "--yes")
        assert (3, 1) == (done.returncode, len(server.requests))
    assert "the server bills 549,755,813,888 + 5 tokens for a request that has at" in done.stderr


def test_replies_that_are_lost_are_paid_five_times_at_most(tmp_path):
    """Then the request is left, and the others go on."""
    target = table(tmp_path / "answers.tsv", 3)
    with FaultyJudge(nonsense=["What is number 2?"], truncated=0.1, seed=2) as server:
        done = judge_few(target, server, *PRICED, *ONE)
        assert done.returncode in (2, 3)
        calls = Counter(one.digest for one in server.requests)
        assert PAID_TRIES == max(calls.values())


# Batches


def test_a_batch_without_one_usable_reply_is_not_handed_in_again(target):
    """It stops with what it costs, and goes on where that is asked for."""
    with FaultyJudge(nonsense=1.0) as server:
        assert "20 requests handed in" in judge_few(target, server, "--batch", *PRICED).stderr
        done = judge_few(target, server, "--batch", *PRICED)
        assert (3, 1) == (done.returncode, server.record.batches)
        said = "none of 20 replies can be used, such as 'I cannot judge these answers.'"
        assert said in done.stderr
        assert "spent on these answers" in done.stderr
        again = judge_few(target, server, "--batch", "--retry-failed", *PRICED)
        assert (3, 2) == (again.returncode, server.record.batches)


# Parameters


def test_parameters(target, run):
    """JSON or else texts; one bound of tokens replaces the other; null leaves one out."""
    given = ("max_completion_tokens=77", "temperature=1", "stop=null", "effort=low", 'x={"a": [1]}')
    options = [option for each in given for option in ("--parameter", each)]
    with FaultyJudge() as server:
        assert judge_few(target, server, *options).returncode == 0
        sent = dict(server.requests[0].request)
        assert (MODEL, True) == (sent.pop("model"), bool(sent.pop("messages")))
        expected = {"max_completion_tokens": 77, "temperature": 1, "effort": "low", "x": {"a": [1]}}
        assert expected == sent == summary(run)["judge"]["parameters"]
        other = ("--out", target.parent / "other", "--parameter", "max_tokens=64")
        assert judge_few(target, server, *other).returncode == 0
        assert (
            40 == len(server.requests) == len({digest_of(one.request) for one in server.requests})
        )
    signatures = {summary(folder)["signature"] for folder in (run, target.parent / "other")}
    assert 2 == len(signatures)


def test_parameters_change_those_of_a_configuration(target, run):
    """An option comes before the file."""
    file = target.parent / "judge.toml"
    file.write_text("[parameters]\nmax_tokens = 9\nseed = 1\n", encoding="utf-8")
    with FaultyJudge() as server:
        more = ("--config", file, "--parameter", "max_completion_tokens=8")
        assert judge_few(target, server, *more).returncode == 0
    assert {"seed": 1, "max_completion_tokens": 8} == summary(run)["judge"]["parameters"]


def test_a_judge_that_takes_no_other_parameters(target):
    """As newer models are: the error names the one, and the option gives the other."""

    def strict(answer):
        request = server.requests[-1].request
        wrong = [name for name in ("max_tokens", "stop", "temperature") if name in request]
        said = {"error": {"message": f"Unsupported parameter: {wrong}", "code": "unsupported"}}
        return Response(said, 400) if wrong else answer

    with Answering(strict) as server:
        done = judge_few(target, server, *ONE)
        assert (2, 8) == (done.returncode, len(server.requests))
        assert "Unsupported parameter" in done.stderr
        assert "(--parameter)" in done.stderr
        given = ("max_completion_tokens=64", "stop=null", "temperature=null")
        options = [option for each in given for option in ("--parameter", each)]
        assert judge_few(target, server, *ONE, *options).returncode == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model=x", "model cannot be set there"),
        ("messages=null", "messages cannot be set there"),
        ("stream=true", "stream cannot be set there"),
        ("n=2", "n cannot be set there"),
        ("max_tokens=0", "max_tokens is 0; it must be a positive integer"),
        ("max_tokens=true", "max_tokens is True; it must be a positive integer"),
        ("max_tokens=1e3", "max_tokens is 1000.0; it must be a positive integer"),
        ("max_completion_tokens=many", "max_completion_tokens is 'many'; it must be"),
        ("temperature", "--parameter 'temperature': write NAME=VALUE"),
        ("=5", "--parameter '=5': write NAME=VALUE"),
        ("x=\udcff", "not UTF-8"),
        ("x=" + "[" * 300 + "]" * 300, "JSON cannot hold them"),
    ],
    ids=range(12),
)
def test_a_parameter_that_cannot_be(target, given, message):
    """What we set ourselves, and what is no parameter: named, and nothing asked."""
    with FaultyJudge() as server:
        done = judge_few(target, server, "--parameter", given)
        assert (2, 0) == (done.returncode, len(server.requests))
    assert message in done.stderr


def test_how_it_is_asked_is_shown_by_a_dry_run(target):
    """The body of each request, as it would be sent."""
    done = judge_few(target, "http://127.0.0.1:9/v1", "--dry-run", "--parameter", "seed=5")
    assert (0, 20) == (done.returncode, done.stdout.count('"seed":5')), done.stderr
