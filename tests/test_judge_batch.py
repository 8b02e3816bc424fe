"""Batches: handed in and collected by the same command, at half the price and never twice."""

import json
import re
from collections import Counter

import pytest
from judge_server import Broken, FaultyJudge
from small import command

from eval.client.account import MOST_CALLS
from eval.client.ledger import Ledger
from eval.client.server import BATCH_SHARE, Price
from eval.demo.judge import Response
from touchstone import reply
from touchstone.table import Dialogue, write_answers

TASK = "touchstone_en"
KEY = "sk-secret-of-a-test"
PRICE = Price(30.0, 60.0)
DIALOGUES = 4
JUDGEMENTS = 2 * DIALOGUES
FILES = ("summary.json", "scores.jsonl", "judgements.jsonl")


class Judging:
    """A table of answers, the command that has them judged, and what it leaves behind."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server

    def table(self, name="answers", *, word="bus", dialogues=DIALOGUES):
        file = self.folder / f"{name}.tsv"
        rows = []
        for number in range(dialogues):
            texts = (f"What is it, {number}?", f"{number} red buses.", f"Red buses: {number}.")
            category = ("a", "b", "a,b")[number % 3]
            response = f"a {word} and {number} others"
            rows.append(Dialogue(str(number), *texts, category, f"t{number % 2}", (), response))
        file.write_bytes(write_answers(rows))
        return file

    def judge(self, *options, table=None, anchors=False, ledger="ledger.jsonl"):
        arguments = ["judge", table or self.table(), "--judge", self.server.model, "--base-url"]
        arguments += [self.server.url, "--allow-partial", "--ledger", self.folder / ledger]
        arguments += ["--price", f"{PRICE.asked}/{PRICE.replied}", *options]
        return command(*arguments, *([] if anchors else ["--no-anchors"]))

    def batch(self, *options, **more):
        return self.judge("--batch", *options, **more)

    def results(self, name="answers"):
        place = self.folder / f"{name}.judged" / TASK
        return {file: (place / file).read_bytes() for file in FILES}

    def summary(self, name="answers"):
        return json.loads(self.results(name)["summary.json"])

    def lines(self, kind=None, ledger="ledger.jsonl"):
        content = (self.folder / ledger).read_text("utf-8")
        lines = [json.loads(line) for line in content.splitlines()]
        return [line for line in lines if kind is None or kind in line]

    def states(self):
        return [line["state"] for line in self.lines("batch")]

    def spent(self, ledger="ledger.jsonl"):
        """As a ledger that is opened anew tells it, over all occasions."""
        with Ledger.held(self.folder / ledger, reply) as opened:
            assert not opened.account.open
            return sum(map(opened.account.spent, opened.account.paid))

    def spent_at_most(self, ledger="ledger.jsonl"):
        """With what is under way."""
        with Ledger.held(self.folder / ledger, reply) as opened:
            return sum(map(opened.account.spent, opened.account.paid))

    def cut_to(self, *, state):
        """The ledger up to the last line of a batch's state: what was on disk when we died."""
        lines = self.lines()
        last = max(n for n, line in enumerate(lines) if line.get("state") == state)
        kept = "".join(json.dumps(line) + "\n" for line in lines[: last + 1])
        (self.folder / "ledger.jsonl").write_text(kept, "utf-8")


@pytest.fixture
def judging(tmp_path, monkeypatch):
    """With a server whose faults a test sets as it goes."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultyJudge() as server:
        yield Judging(tmp_path, server)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """With a server whose files and batches are rewritten on their way out."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Hostile() as server:
        yield Judging(tmp_path, server)


class Hostile(FaultyJudge):
    """A judge that changes its answers at some paths.

    spoil  {pattern of "METHOD path": function of an answer}; `rewrite` is one for results
    """

    def __init__(self):
        self.spoil = {}
        super().__init__()

    def respond(self, method, target, headers, body):
        answer = super().respond(method, target, headers, body)
        for pattern, change in self.spoil.items():
            if re.fullmatch(pattern, f"{method} {target.partition('?')[0]}"):
                answer = change(answer)
        return answer

    def rewrite(self, change):
        """Have each result's lines changed: a list of objects in, of objects or bytes out."""

        def changed(answer):
            lines = change([json.loads(line) for line in answer.content.splitlines()])
            raw = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
            return Response(b"".join(line + b"\n" for line in raw), headers=answer.headers)

        self.spoil["GET /v1/files/[^/]+/content"] = changed


def once(server):
    """Each request was billed once."""
    assert set(server.billed.values()) <= {1}
    return len(server.billed)


# The way of a batch


def test_a_batch_gives_what_judging_at_once_gives(judging):
    """Handed in, looked after, collected; half the price, and not a byte of the result differs."""
    judging.server.polls = 1
    first = judging.batch(anchors=True)
    assert 3 == first.returncode, first.stderr
    wanted = JUDGEMENTS + 16
    assert f"{wanted} requests handed in" in first.stderr
    assert f"{wanted} are in a batch; collect them later" in first.stderr
    second = judging.batch(anchors=True)
    assert 3 == second.returncode, second.stderr
    assert f"in_progress, 0 of {wanted} done" in second.stderr
    assert ["open", "named"] == judging.states()
    third = judging.batch(anchors=True)
    assert 0 == third.returncode, third.stderr
    assert f"completed, {wanted} of {wanted} judged" in third.stderr
    assert ["open", "named", "ended"] == judging.states()
    assert (wanted, 1) == (once(judging.server), judging.server.record.batches)
    batched = judging.results()
    requests = len(judging.server.requests)
    assert 0 == requests

    judging.server.record.billed.clear()
    live = judging.judge(anchors=True, ledger="live.jsonl")
    assert 0 == live.returncode, live.stderr
    assert batched == judging.results()
    assert pytest.approx(BATCH_SHARE) == judging.spent() / judging.spent("live.jsonl")
    for line in judging.lines("judged"):
        assert pytest.approx(PRICE.usd(*line["tokens"], 0.5)) == line["usd"]
        assert line["of_batch"] == judging.lines("batch")[0]["batch"]
    assert pytest.approx(sum(line["usd"] for line in judging.lines("judged"))) == judging.spent()


def test_what_is_collected_is_never_asked_again(judging):
    """Neither in a batch nor at once, nor looked for at the server; the figures stay."""
    judging.batch()
    judging.batch()
    results, paths = judging.results(), dict(judging.server.record.paths)
    for again in (judging.batch(), judging.judge()):
        assert 0 == again.returncode, again.stderr
    assert (results, paths) == (judging.results(), judging.server.record.paths)


def test_what_is_under_way_counts_at_its_most(judging):
    """So that no other command spends it; what comes back counts as what it cost."""
    judging.server.polls = 9
    judging.batch()
    most = judging.lines("batch")[0]["usd"]
    with Ledger.held(judging.folder / "ledger.jsonl", reply) as ledger:
        assert pytest.approx(sum(most.values())) == sum(ledger.account.paid.values())
        assert most.keys() == ledger.account.open.keys()
    judging.server.polls = 0
    judging.batch()
    assert 0 < judging.spent() < sum(most.values())


def test_a_batch_goes_on_what_was_judged_at_once(judging):
    """Only what is open is handed in."""
    judging.server.faults["quota"] = [3]
    assert 2 == judging.judge("--concurrency", "1").returncode
    judging.server.faults.clear()
    assert f"{JUDGEMENTS - 3} requests handed in" in judging.batch().stderr
    assert 0 == judging.batch().returncode
    assert JUDGEMENTS == once(judging.server)


def test_judging_at_once_is_refused_while_a_batch_is_open(judging):
    """It would be paid twice; the batch can still be collected."""
    judging.server.polls = 1
    judging.batch()
    told = judging.judge()
    assert 2 == told.returncode
    said = f"{JUDGEMENTS} of these judgements were handed in as a batch, and would be paid twice"
    assert f"{said}: collect them with --batch" in " ".join(told.stderr.split())
    assert [] == judging.server.requests
    judging.batch()
    assert 0 == judging.batch().returncode


def test_nothing_is_handed_in_on_a_dry_run(judging):
    """At half the price it is said."""
    told = judging.batch("--dry-run")
    assert (0, JUDGEMENTS) == (told.returncode, len(told.stdout.splitlines()))
    assert "in batches; nothing was asked" in told.stderr
    assert {} == judging.server.record.paths


# What comes back broken


@pytest.mark.parametrize("fault", ["batch_left_out", "batch_errors"])
def test_what_a_batch_leaves_unanswered_is_handed_in_again(judging, fault):
    """By the command that collects the rest; nothing else is paid again."""
    setattr(judging.server, fault, [1, 4, 6])
    judging.batch()
    setattr(judging.server, fault, 0.0)
    told = judging.batch()
    assert 3 == told.returncode, told.stderr
    assert "5 of 8 judged" in told.stderr
    reasons = [line["fault"] for line in judging.lines("unanswered")]
    assert (["HTTP 500: The server had an error."] * 3 if "errors" in fault else []) == reasons
    assert "3 requests handed in" in told.stderr
    keys = [line["keys"] for line in judging.lines("batch") if line["state"] == "open"]
    judged = {line["judged"] for line in judging.lines("judged")}
    assert (5, set(keys[0])) == (len(judged), judged | set(keys[1]))
    assert 0 == judging.batch().returncode
    assert (JUDGEMENTS, 2) == (once(judging.server), judging.server.record.batches)
    assert pytest.approx(sum(line["usd"] for line in judging.lines("judged"))) == judging.spent()


def test_replies_without_scores_are_asked_for_five_times_and_then_failed(judging):
    """A batch for each; all are paid, and the other judgements once."""
    texts = ["What is it, 2?"]
    judging.server.faults["nonsense"] = texts
    for call in range(1, 1 + MOST_CALLS):
        told = judging.batch()
        assert 3 == told.returncode, told.stderr
        assert call == judging.server.record.batches
    last = judging.batch()
    assert 3 == last.returncode
    assert 2 == judging.summary()["judge"]["failed"]
    assert "2 judgements failed and are left out" in last.stdout
    assert "failed: touchstone_en/2 round 1: the first line is not two numbers" in last.stderr
    calls = Counter(line["judged"] for line in judging.lines("judged"))
    assert Counter({1: JUDGEMENTS - 2, MOST_CALLS: 2}) == Counter(calls.values())
    assert Counter(calls.values()) == Counter(judging.server.billed.values())
    assert pytest.approx(sum(line["usd"] for line in judging.lines("judged"))) == judging.spent()
    assert MOST_CALLS == judging.server.record.batches
    assert 3 == judging.batch().returncode
    assert MOST_CALLS == judging.server.record.batches

    judging.server.faults.clear()
    judging.batch("--retry-failed")
    assert 0 == judging.batch().returncode
    assert 0 == judging.summary()["judge"]["failed"]


def test_a_failed_batch_is_said_and_handed_in_again(judging):
    """With what the server says of it; it has cost nothing."""
    judging.server.batch_ends = "failed"
    judging.batch()
    told = judging.batch()
    assert 2 == told.returncode
    assert "failed: The batch failed." in told.stderr
    assert "Nothing was judged; the same command hands it in again" in told.stderr
    assert 0.0 == judging.spent()
    judging.server.batch_ends = "completed"
    assert 3 == judging.batch().returncode
    assert 0 == judging.batch().returncode
    assert JUDGEMENTS == once(judging.server)


@pytest.mark.parametrize("ends", ["expired", "cancelled"])
def test_the_half_of_a_batch_that_was_done_is_kept(judging, ends):
    """The other half is handed in again at once."""
    judging.server.batch_ends = ends
    judging.batch()
    judging.server.batch_ends = "completed"
    told = judging.batch()
    assert 3 == told.returncode, told.stderr
    assert f"{ends}, 4 of 8 judged" in told.stderr
    assert "4 requests handed in" in told.stderr
    assert 0 == judging.batch().returncode
    assert (JUDGEMENTS, 2) == (once(judging.server), judging.server.record.batches)


def test_only_what_fits_into_the_budget_is_handed_in(judging):
    """At its most; what it then cost less lets more in, and no command spends beyond it."""
    judging.server.polls = 1
    judging.batch("--dry-run")
    judging.batch()
    most = judging.lines("batch")[0]["usd"]
    (judging.folder / "ledger.jsonl").unlink()
    judging.server.batches.clear()
    judging.server.record.billed.clear()
    budget = sum(sorted(most.values())[:4]) * 1.01
    handed_in = []
    for _ in range(9):
        told = judging.batch("--budget", budget)
        assert told.returncode in (0, 3), told.stderr
        with Ledger.held(judging.folder / "ledger.jsonl", reply) as ledger:
            assert sum(ledger.account.paid.values()) <= budget
        handed_in = [len(line["keys"]) for line in judging.lines("batch") if "keys" in line]
        if told.returncode == 0:
            break
    assert handed_in[0] in (3, 4)
    assert (JUDGEMENTS, JUDGEMENTS) == (sum(handed_in), once(judging.server))
    assert len(handed_in) > 1


def test_a_budget_that_is_used_up_stops_with_words(judging):
    """What is there stays, and more money goes on."""
    judging.server.batch_left_out = [0]
    judging.batch()
    judging.server.batch_left_out = 0.0
    told = judging.batch("--budget", "0.0000001")
    assert 3 == told.returncode
    assert "1 would exceed the budget of $0.00" in told.stderr
    assert 1 == judging.server.record.batches
    judging.batch()
    assert 0 == judging.batch().returncode
    assert JUDGEMENTS == once(judging.server)


def test_a_wrong_key_costs_nothing(judging):
    """It is said, not shown, and the right one goes on, also where a batch is under way."""
    judging.server.key, judging.server.echo_key = "another", True
    told = judging.batch()
    assert 2 == told.returncode
    assert "The key in OPENAI_API_KEY is not accepted" in told.stderr
    judging.server.key = KEY
    assert 3 == judging.batch().returncode
    judging.server.key = "another"
    again = judging.batch()
    assert 2 == again.returncode
    judging.server.key = KEY
    assert 0 == judging.batch().returncode
    ledger = (judging.folder / "ledger.jsonl").read_text("utf-8")
    assert all(KEY not in text for text in (told.stderr, again.stderr, ledger))
    assert JUDGEMENTS == once(judging.server)


# We die in between


@pytest.mark.parametrize("others", [0, 150])
def test_a_batch_whose_name_was_not_put_down_is_found(judging, others):
    """We were killed after it was handed in: the server has it, with our metadata."""
    judging.server.polls = 1
    judging.batch()
    judging.cut_to(state="open")
    (mine,) = judging.server.batches.values()
    for number in range(others):  # that came later, of other programs
        metadata = None if number % 2 else {"qwen_vl_eval": f"{number}", "for": "another"}
        state = mine.state | {"id": f"batch_{number}", "metadata": metadata}
        judging.server.batches[f"batch_{number}"] = type(mine)(state)
    assert [3, 3, 0] == [judging.batch().returncode for _ in range(3)]
    assert (JUDGEMENTS, 1) == (once(judging.server), judging.server.record.batches)
    assert ["open", "named", "ended"] == judging.states()


def test_a_batch_that_the_server_never_got_is_handed_in_again(judging):
    """We were killed before: nothing has been paid, and nothing stays reserved."""
    judging.batch()
    judging.cut_to(state="open")
    judging.server.batches.clear()
    judging.server.record.billed.clear()
    told = judging.batch()
    assert 3 == told.returncode, told.stderr
    assert ["open", "ended", "open", "named"] == judging.states()
    assert "never handed in" == judging.lines("batch")[1]["fault"]
    assert 0 == judging.batch().returncode
    assert JUDGEMENTS == once(judging.server)
    assert pytest.approx(sum(line["usd"] for line in judging.lines("judged"))) == judging.spent()


def test_a_batch_that_is_handed_in_again_is_not_taken_for_the_one_before(judging):
    """Also where nothing but a batch came in between: its replies would be paid twice, on paper."""
    judging.server.faults["nonsense"] = 1.0
    table = judging.table(dialogues=1)
    for _ in range(1 + MOST_CALLS):
        judging.batch(table=table)
    for _ in range(1 + MOST_CALLS):
        judging.batch("--retry-failed", table=table)
    judging.batch("--retry-failed", table=table)
    names = [line["batch"] for line in judging.lines("batch") if line["state"] == "open"]
    assert len(names) == len(set(names))


def test_killed_while_results_are_taken_over(judging):
    """At any line: the rest is taken over from the same result, and counts once."""
    judging.batch()
    judging.batch()
    results, spent = judging.results(), judging.spent()
    whole = (judging.folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    for count in range(2, len(whole), 3):
        torn = whole[count][: len(whole[count]) // 2]
        (judging.folder / "ledger.jsonl").write_bytes(b"".join(whole[:count]) + torn)
        told = judging.batch()
        assert 0 == told.returncode, told.stderr
        assert (results, pytest.approx(spent)) == (judging.results(), judging.spent())
    assert 1 == judging.server.record.batches


# Two tables, one ledger


def test_answers_that_two_tables_share_are_handed_in_once(judging):
    """Whoever has them under way is said; then both have their figures."""
    one, two = judging.table("one"), judging.table("two", dialogues=DIALOGUES + 1)
    judging.server.polls = 1
    judging.batch(table=one)
    told = judging.batch(table=two)
    assert "2 requests handed in" in told.stderr
    judging.batch(table=two)
    told = judging.batch(table=two)
    assert 3 == told.returncode
    assert f"{JUDGEMENTS} are in a batch" in told.stderr
    assert "of other answers" in told.stderr
    judging.batch(table=one)
    for table in (one, two):
        done = judging.batch(table=table)
        assert 0 == done.returncode, done.stderr
    assert JUDGEMENTS + 2 == once(judging.server)


def test_a_result_with_keys_of_another_batch_judges_nothing_of_it(hostile):
    """A server may mix up two batches: of two tables, or of one whose budget grew meanwhile."""
    one, two = hostile.table("one"), hostile.table("two", word="tram")
    hostile.server.polls = 2
    hostile.batch("--budget", "0.06", table=one)
    hostile.batch(table=one)
    hostile.batch(table=two)
    handed_in = {b["batch"]: b["keys"] for b in hostile.lines("batch") if b["state"] == "open"}
    assert 3 == len(handed_in)
    every = [line for b in hostile.server.batches.values() for line in b.outcome.output]
    hostile.server.polls = 0
    hostile.server.rewrite(lambda lines: every + lines)
    assert [0, 0] == [hostile.batch(table=table).returncode for table in (one, two)]
    judged = hostile.lines("judged")
    assert all(line["judged"] in handed_in[line["of_batch"]] for line in judged)
    assert 2 * JUDGEMENTS == len(judged) == len({line["judged"] for line in judged})


# Hostile results


def spoilt(lines):
    """Of eight lines the second to fourth are as they should be, between such as no server sends;
    the fifth is a reply without scores, more than once.
    """
    first, *right, five, six, seven, eight = lines
    five["response"]["body"]["choices"][0]["message"]["content"] = "no"
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    body = json.dumps(six["response"]["body"])[:-1].encode() + b', "deep": ' + deep + b"}"
    deeper = b'{"custom_id": "%s", "error": null, "response": {"status_code": 200, "body": %s}}'
    return [
        first | {"custom_id": "none of ours"},
        first | {"custom_id": None},
        first | {"custom_id": ["a"]},
        first | {"custom_id": {"a": 1}},
        first | {"response": "text"},
        first | {"response": {"status_code": 200, "body": "text"}},
        b"{",
        b"",
        b"null",
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        *right,
        *right[::-1],
        *[five] * 6,
        deeper % (six["custom_id"].encode(), body),
        seven | {"response": {"status_code": None, "body": {}}},
        eight | {"response": eight["response"] | {"status_code": "200"}},
    ]


def test_a_hostile_result_is_taken_line_by_line(hostile):
    """What is right counts once, whatever stands beside it; the others are handed in again."""
    hostile.batch()
    hostile.server.rewrite(spoilt)
    told = hostile.batch()
    assert 3 == told.returncode, told.stderr
    assert "completed, 4 of 8 judged" in told.stderr
    assert "5 requests handed in" in told.stderr
    assert 4 == len({line["judged"] for line in hostile.lines("judged")})
    hostile.server.spoil.clear()
    assert 0 == hostile.batch().returncode
    assert JUDGEMENTS + 1 == len(hostile.lines("judged"))


def test_replies_that_are_no_chat_completions_are_counted_and_asked_for_again(hostile):
    """They may have been billed: at their most. A broken error costs nothing."""

    def broken(lines):
        for number, body in enumerate(({}, {"choices": []}, {"choices": [{"message": 1}]})):
            lines[number]["response"]["body"] = body
        lines[3]["error"] = "an error"
        lines[4]["response"]["body"]["error"] = {"message": ["odd"]}
        lines[5]["response"]["status_code"] = 500.5
        return lines

    hostile.batch()
    most = hostile.lines("batch")[0]["usd"]
    hostile.server.rewrite(broken)
    assert "2 of 8 judged" in hostile.batch().stderr
    lost = hostile.lines("unanswered")
    assert [*[most[line["unanswered"]] for line in lost[:3]], 0, 0, 0] == [x["usd"] for x in lost]
    hostile.server.spoil.clear()
    assert 0 == hostile.batch().returncode
    judged = sum(line["usd"] for line in hostile.lines("judged"))
    assert pytest.approx(judged + sum(line["usd"] for line in lost)) == hostile.spent()


def test_a_request_that_the_server_refuses_fails_for_good(hostile):
    """As one that is refused at once: it is not handed in again, and --retry-failed does."""

    def refused(lines):
        body = {"error": {"message": "Invalid prompt.\x1b[2J", "code": "invalid_prompt"}}
        lines[2]["response"] |= {"status_code": 400, "body": body}
        lines[3]["response"] |= {"status_code": 429, "body": body}
        return lines

    hostile.batch()
    hostile.server.rewrite(refused)
    assert "1 requests handed in" in hostile.batch().stderr
    hostile.server.spoil.clear()
    told = hostile.batch()
    assert 3 == told.returncode
    assert "failed: touchstone_en/1 round 1: refused: HTTP 400: Invalid prompt. [2J" in told.stderr
    assert 1 == hostile.summary()["judge"]["failed"]
    hostile.batch("--retry-failed")
    assert 0 == hostile.batch().returncode


PAGE = Response(
    f"<html>{'Sign in. ' * 7}{KEY}</html>".encode(), headers={"Content-Type": "text/html"}
)
FOREIGN = [PAGE, Response(b'{"id": "ba'), Response({}), Response(b"null")]


@pytest.mark.parametrize("answer", FOREIGN, ids=["page", "half", "empty", "null"])
@pytest.mark.parametrize(
    "path", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/.+", "GET /v1/batches"]
)
def test_a_server_that_speaks_another_protocol_is_an_error(hostile, path, answer):
    """No traceback, and nothing lost: the batch is found again, or handed in again."""
    if path.startswith("GET"):
        hostile.batch()
    if path == "GET /v1/batches":
        hostile.cut_to(state="open")
    hostile.server.spoil[path] = lambda _answer: answer
    told = hostile.batch()
    assert 2 == told.returncode, told.stderr
    assert "batches at 127.0.0.1: " in told.stderr
    assert KEY[:6] not in told.stderr
    hostile.server.spoil.clear()
    assert 0 in [hostile.batch().returncode for _ in range(2)]
    assert (JUDGEMENTS, 1) == (once(hostile.server), hostile.server.record.batches)


@pytest.mark.parametrize(
    "change",
    [lambda _answer: PAGE, lambda answer: Broken(answer.content, sent=len(answer.content) // 2)],
    ids=["another page", "cut off"],
)
def test_a_result_that_does_not_come_is_fetched_again(hostile, change):
    """The batch is not over before: what is in its result has been paid."""
    hostile.batch()
    hostile.server.spoil["GET /v1/files/[^/]+/content"] = change
    told = hostile.batch()
    assert 2 == told.returncode, told.stderr
    assert "batches at 127.0.0.1: " in told.stderr
    assert KEY[:6] not in told.stderr
    assert ["open", "named"] == hostile.states()
    hostile.server.spoil.clear()
    assert 0 == hostile.batch().returncode
    assert (JUDGEMENTS, 1) == (once(hostile.server), hostile.server.record.batches)


@pytest.mark.parametrize("status", ["paused", None, ""])
def test_a_batch_in_a_state_of_the_future_is_waited_for(hostile, status):
    """Only the four ends of a batch end it."""
    hostile.batch()
    hostile.server.spoil["GET /v1/batches/.+"] = lambda answer: Response(
        answer.content | {"status": status, "output_file_id": None}
    )
    assert 3 == hostile.batch().returncode
    hostile.server.spoil.clear()
    assert 0 == hostile.batch().returncode
    assert (JUDGEMENTS, 1) == (once(hostile.server), hostile.server.record.batches)


def test_a_batch_that_the_server_forgot_is_given_up_on_request(judging):
    """Another account's key, or a deleted result: said, and --retry-failed pays again, and says so.

    What the lost one may have cost stays counted.
    """
    judging.server.polls = 99
    assert judging.batch().returncode == 3
    held_back = judging.spent_at_most()
    judging.server.batches.clear()
    stuck = judging.batch()
    assert stuck.returncode == 2
    assert "does not know it" in stuck.stderr
    judging.server.polls = 0
    assert judging.batch("--retry-failed").returncode == 3
    assert judging.batch().returncode == 0
    assert judging.spent() > held_back


def test_what_is_in_a_batch_of_other_answers_is_not_asked_live(judging):
    """Two tables that share answers share judgements: one that is under way would be paid twice."""
    judging.server.polls = 99
    assert judging.batch().returncode == 3
    other = judging.table("other", dialogues=DIALOGUES - 1)  # the same answers, fewer of them
    refused = judging.judge(table=other)
    assert refused.returncode == 2
    assert "handed in as a batch" in refused.stderr
