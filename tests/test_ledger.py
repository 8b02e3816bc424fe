"""The ledger: nothing paid is lost or counted short, whatever happens and wherever it is cut."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eval.client.account import MOST_CALLS, Batch
from eval.client.entries import KINDS
from eval.client.ledger import Ledger, Request
from eval.client.server import Reply, Server
from eval.errors import JudgeError
from touchstone import reply as rules
from touchstone.prompt import OWN

KEYS = [f"key {number}" for number in range(5)]
OCCASIONS = ["one", "two"]
SCORED, UNSCORED = ["8 7", "nan 1", "1 2\nmore"], ["", "no", "8", "8, 7"]
OFF_SCALE = ["nan 1"]  # scored as published, and failed all the same
USD = st.none() | st.integers(0, 64).map(lambda parts: parts / 64)  # adds up without rounding
JUDGE = {"model": "m"}


def reply(text):
    return Reply(text, "m-1", "fp", "stop", (10, 2))


# What follows from a sequence of events, made out another way than the ledger does


@dataclass
class Paid:
    """One that was paid or may be: `usd` at most, until it is known."""

    key: str
    occasion: str
    usd: float
    open: bool = True


@dataclass
class Expected:
    requests: list = field(default_factory=list)
    replies: dict = field(default_factory=dict)  # key -> texts since it was last to be asked anew
    batches: dict = field(default_factory=dict)
    judged: Counter = field(default_factory=Counter)  # occasion -> USD of replies

    @classmethod
    def of(cls, events):
        found = cls()
        for name, *about in events:
            getattr(found, name)(*about)
        return found

    def asked(self, key, occasion, usd):
        for each in self.requests:
            if each.key == key and each.open:
                each.open = False  # nobody waits for it any more: paid at its most
        self.requests.append(Paid(key, occasion, usd or 0.0))

    def answered(self, key, occasion, usd):
        (request,) = [each for each in self.requests if each.key == key and each.open]
        assert occasion == request.occasion
        request.usd, request.open = usd or 0.0, False

    def judged_as(self, key, occasion, usd, text):
        self.answered(key, occasion, usd)
        self.judged[occasion] += usd or 0.0
        self.replies.setdefault(key, []).append(text)

    def again(self, key):
        self.replies[key] = []

    def batch(self, batch):
        self.batches[batch.name] = batch
        for key in batch.keys:
            self.asked(key, batch.occasion, batch.usd[key])

    def named(self, name, server_id):
        self.batches[name] = replace(self.batches[name], id=server_id)

    def ended(self, name):
        for key in self.batches.pop(name).keys:
            if key in self.waiting:
                self.answered(key, self.waiting[key], 0.0)

    @property
    def waiting(self):
        return {each.key: each.occasion for each in self.requests if each.open}

    def spent(self, occasion):
        return sum(each.usd for each in self.requests if each.occasion == occasion)

    def settled(self, key):
        texts = self.replies.get(key, [])
        last = texts[-1] if texts else ""
        return len(texts) >= MOST_CALLS or last is None or last in SCORED


class Lives(RuleBasedStateMachine):
    """A ledger through requests, replies, batches and crashes."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.jsonl"
        self.events, self.expected, self.batches = [], Expected(), 0

    @initialize()
    def open(self):
        self.ledger = Ledger(self.path, rules)

    def teardown(self):
        self.ledger.file.close()
        self.folder.cleanup()

    def happened(self, *event):
        self.events.append(event)
        self.expected = Expected.of(self.events)

    def ask_of(self, key):
        return Request(key, self.expected.waiting[key], {"sample": key})

    def in_batches(self):
        return {key for batch in self.expected.batches.values() for key in batch.keys}

    @rule(
        key=st.sampled_from(KEYS),
        occasion=st.sampled_from(OCCASIONS),
        usd=USD,
        budget=st.none() | st.integers(0, 256).map(lambda parts: parts / 64),
    )
    def ask(self, key, occasion, usd, budget):
        if key in self.in_batches():  # the command refuses to
            return
        sum_then = self.ledger.account.spent(occasion) + (usd or 0.0)
        may = self.ledger.asked(Request(key, occasion), usd, budget)
        assert may == (budget is None or sum_then <= budget)
        if may:
            self.happened("asked", key, occasion, usd)
            assert budget is None or self.ledger.account.spent(occasion) <= budget

    @precondition(lambda self: self.expected.waiting)
    @rule(data=st.data(), usd=USD, text=st.sampled_from([*SCORED, *UNSCORED]))
    def judge(self, data, usd, text):
        key = data.draw(st.sampled_from(sorted(self.expected.waiting)))
        ask = self.ask_of(key)
        scores = self.ledger.judged(ask, reply(text), usd, JUDGE, took_s=0.5)
        assert (scores is not None) == (text in SCORED)
        self.happened("judged_as", key, ask.occasion, usd, text)

    @precondition(lambda self: self.expected.waiting)
    @rule(data=st.data(), usd=USD, refuses=st.booleans())
    def get_no_judgement(self, data, usd, refuses):
        key = data.draw(st.sampled_from(sorted(self.expected.waiting)))
        ask = self.ask_of(key)
        if refuses:
            self.ledger.refused(ask, "HTTP 400", JUDGE)
            self.happened("judged_as", key, ask.occasion, 0.0, None)
        else:
            self.ledger.unanswered(ask, "HTTP 500", usd)
            self.happened("answered", key, ask.occasion, usd)

    @rule(keys=st.lists(st.sampled_from(KEYS)), as_published=st.booleans())
    def let_again(self, keys, as_published):
        counts = [text for text in SCORED if as_published or text not in OFF_SCALE]
        failed = [
            key
            for key in dict.fromkeys(keys)
            if self.expected.settled(key) and self.expected.replies[key][-1] not in counts
        ]
        assert len(failed) == self.ledger.again(keys, as_published=as_published)
        for key in failed:
            self.happened("again", key)

    @rule(
        usd=st.dictionaries(st.sampled_from(KEYS), USD, min_size=1),
        occasion=st.sampled_from(OCCASIONS),
    )
    def hand_in(self, usd, occasion):
        usd = {key: most for key, most in usd.items() if key not in self.in_batches()}
        if usd:
            self.batches += 1
            batch = Batch(f"batch {self.batches}", occasion, tuple(usd), usd)
            self.ledger.handed_in(batch)
            self.happened("batch", batch)

    @precondition(lambda self: self.expected.batches)
    @rule(data=st.data(), ends=st.booleans())
    def look_after_a_batch(self, data, ends):
        name = data.draw(st.sampled_from(sorted(self.expected.batches)))
        batch = self.expected.batches[name]
        if ends:
            self.ledger.ended(batch, "completed")
            self.happened("ended", name)
        else:
            self.ledger.named(batch, "of the server")
            self.happened("named", name, "of the server")

    @rule(left=st.none() | st.floats(0, 1, exclude_max=True))
    def die(self, left):
        """And come back, with only a part of the last line on the disk, or with all of it."""
        self.ledger.file.close()
        content = self.path.read_bytes()
        if left is not None and self.events:
            begin = content.rfind(b"\n", 0, -1) + 1
            with self.path.open("r+b") as file:
                file.truncate(begin + int(left * (len(content) - begin)))
            self.events.pop()
            self.expected = Expected.of(self.events)
        self.ledger = Ledger(self.path, rules)

    @invariant()
    def all_is_known(self):
        if not hasattr(self, "ledger"):
            return
        expected, found = self.expected, self.ledger.account
        assert {name: expected.spent(name) for name in OCCASIONS} == {
            name: found.spent(name) for name in OCCASIONS
        }
        assert expected.waiting == {key: occasion for key, (occasion, _) in found.open.items()}
        assert expected.batches == found.batches
        for name in OCCASIONS:
            open_now = sum(r.usd for r in expected.requests if r.open and r.occasion == name)
            assert found.spent(name) >= expected.judged[name] + open_now
        for key in KEYS:
            texts = expected.replies.get(key, [])
            assert (len(texts), expected.settled(key)) == (
                found.calls(key),
                found.settled(key),
            )
            line = self.ledger.line(key)
            assert (texts[-1:] == [line.reply]) if line else not texts


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=120, stateful_step_count=40)


# The file


def few(path):
    """A ledger with a line of each kind; its last is a long one."""
    one, two, three = (Request(key, "one", {"sample": f"é {key}"}) for key in KEYS[:3])
    batch = Batch("b", "one", ("key 3", "key 4"), {"key 3": 0.25, "key 4": None})
    ledger = Ledger(path, rules)
    for ask in (one, two, three):
        ledger.asked(ask, 0.5)
    ledger.judged(one, reply("8 7"), 0.125, JUDGE)
    ledger.refused(two, "HTTP 400", JUDGE)
    ledger.again(["key 1"])
    ledger.unanswered(three, "HTTP 500", 0.5)
    ledger.handed_in(batch)
    ledger.named(batch, "batch_1")
    ledger.judged(
        Request("key 3", "one", {"sample": "ü"}), reply("no\n" * 9), 0.0625, JUDGE, batch="b"
    )
    ledger.file.close()
    return path.read_bytes()


def known(path):
    ledger = Ledger(path, rules)
    ledger.file.close()
    return (
        {
            key: (ledger.account.settled(key), ledger.account.calls(key), ledger.line(key))
            for key in KEYS
        },
        {name: ledger.account.spent(name) for name in OCCASIONS},
        ledger.account.open,
        ledger.account.batches,
    )


def test_a_last_line_that_is_torn_anywhere_is_none(tmp_path):
    """As if it had not begun; the next one stands in its place."""
    path = tmp_path / "ledger.jsonl"
    content = few(path)
    begin = content.rfind(b"\n", 0, -1) + 1
    path.write_bytes(content[:begin])
    expected = known(path)
    for end in range(begin, len(content)):
        path.write_bytes(content[:end])
        assert expected == known(path)
        assert content[:begin] == path.read_bytes()
    path.write_bytes(content)
    assert expected != known(path)


@given(st.data())
def test_a_damaged_line_is_named(tmp_path_factory, data):
    """Judgements may be in it: nothing goes on before a person has looked."""
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.unlink(missing_ok=True)
    lines = few(path).splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number].rstrip(b"\n")
    damaged = data.draw(
        st.sampled_from([b"", b" ", line[:-1], line[1:], line + b"}", line + line, b"\0" * 9])
        | st.integers(0, len(line) - 1).map(lambda at: line[:at] + b"\xff" + line[at + 1 :])
        | st.binary(max_size=40).map(lambda more: more.replace(b"\n", b""))
    )
    lines[number] = damaged + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(
        JudgeError, match=rf"damaged\.jsonl, line {number + 1}: not a line of a ledger"
    ):
        Ledger(path, rules)


ASKED = {"asked": "k", "occasion": "o", "usd": 0.5}
JUDGED = {"judged": "k", "occasion": "o", "usd": 0.5, "reply": "8 7"}
ANCHOR = {**JUDGED, "anchor": "a", "round": 1, "judging": "j"}
UNANSWERED = {"unanswered": "k", "occasion": "o", "usd": 0.5}
OPEN = {"batch": "b", "state": "open", "occasion": "o", "keys": ["k"], "usd": {"k": 0.5}}
NAMED = {"batch": "b", "state": "named", "id": "i"}
ENDED = {"batch": "b", "state": "ended"}
RIGHT = [ASKED, JUDGED, ANCHOR, UNANSWERED, {"again": "k"}, OPEN, NAMED, ENDED]
ODD = (None, True, 3, 0.5, "x", [], ["k"], {}, {"k": 1})
FIELDS = {  # of which kinds, the field, and what it may be among ODD
    "occasion": ([ASKED, JUDGED, UNANSWERED, OPEN], ("x",)),
    "usd": ([ASKED, JUDGED, UNANSWERED], (None, 3, 0.5)),
    "reply": ([JUDGED], (None, "x")),
    "judging": ([ANCHOR], ("x",)),
    "keys": ([OPEN], ([], ["k"])),
    "state": ([OPEN, NAMED, ENDED], ()),
    "id": ([NAMED], ("x",)),
    **{kind: ([line for line in RIGHT if kind in line], ("x",)) for kind in KINDS},
}


def read(path, *lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    Ledger(path, rules).file.close()


def plain(told):
    return json.dumps(told).encode()


def test_right_lines_are_read(tmp_path):
    """Also with fields of the future, and where prices are not known."""
    read(tmp_path / "l", *map(plain, RIGHT))
    read(tmp_path / "l", *(plain({**line, "more": [1]}) for line in RIGHT))
    read(tmp_path / "l", plain(ASKED | {"usd": None}), plain(OPEN | {"usd": {"k": None}}))


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_type_is_refused(tmp_path, name):
    """Each kind of line, with each field of another type or without it."""
    lines, may = FIELDS[name]
    assert lines
    for line in lines:
        without = {key: value for key, value in line.items() if key != name}
        odd = [value for value in ODD if (type(value), value) not in [(type(x), x) for x in may]]
        for wrong in (without, *(line | {name: value} for value in odd)):
            with pytest.raises(JudgeError, match="line 1: not a line of a ledger"):
                read(tmp_path / "l", plain(wrong))


@pytest.mark.parametrize(
    "line",
    [
        *(plain(ASKED).replace(b"0.5", usd) for usd in (b"-0.5", b"-1", b"NaN", b"Infinity")),
        *(plain(JUDGED).replace(b"0.5", usd) for usd in (b"1e999", b"-1e-9", b"-Infinity")),
        *(plain(OPEN).replace(b"0.5", usd) for usd in (b"-0.5", b"NaN", b'"1"', b"true", b"[]")),
        plain(OPEN | {"usd": {}}),
        plain(OPEN | {"usd": [["k", 1]]}),
        plain(ASKED | UNANSWERED),  # of two kinds
        plain({"paid": "k", "occasion": "o", "usd": 1}),
        plain(["asked"]),
        plain("asked"),
        plain({}),
        b"null",
        b"7",
        b"",
        b"\xff\xfe",
        plain(ASKED).replace(b'"k"', b'"\xc3"'),
        plain(ASKED).replace(b'"k"', b'"\\ud800"'),
        b"[" * 100_000,
        b'{"asked":' * 5000 + b"1" + b"}" * 5000,
        plain(JUDGED).replace(b'"8 7"', b"[" * 5000 + b"]" * 5000),
        plain(ASKED) + plain(ASKED),
    ],
)
def test_a_malformed_line_is_refused(tmp_path, line):
    """With the file, the line and what is to be done, in few words, and no other error."""
    with pytest.raises(JudgeError, match=r"line 2: not a line of a ledger.*--ledger") as caught:
        read(tmp_path / "l", plain(ASKED), line, plain(ASKED))
    assert len(str(caught.value)) < 600


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*KINDS, "open", "k"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*KINDS, "occasion", "usd", "reply", "state", "keys", "id", "anchor"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=10,
)


@given(JSON.map(plain) | st.binary().map(lambda line: line.replace(b"\n", b"")))
@example(plain({"batch": "b", "state": "open", "occasion": "o", "keys": "kk", "usd": {"k": 1}}))
@example(plain({"judged": "k", "occasion": {}, "usd": None, "reply": {}}))
def test_whatever_stands_in_a_line(tmp_path_factory, line):
    """It is a line of a ledger, or refused."""
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    with contextlib.suppress(JudgeError):
        read(path, line)


def test_a_place_that_takes_no_ledger_is_refused(tmp_path):
    """Before anything is asked."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(JudgeError, match="cannot be written"),
        Ledger.held(tmp_path / "file" / "ledger.jsonl", rules),
    ):
        pass


# What counts as done


def test_settled_after_scores_or_a_refusal_or_five_replies_without_scores(tmp_path):
    """Failures can be asked again, and then have all their calls anew; scores stay."""
    ledger = Ledger(tmp_path / "l", rules)
    good, refused, bad = (Request(key, "one") for key in KEYS[:3])
    for ask in (good, refused, bad):
        assert not ledger.account.settled(ask.key)
        ledger.asked(ask, 0.0)
        ledger.unanswered(ask, "HTTP 500", 0.0)
        assert (False, 0) == (ledger.account.settled(ask.key), ledger.account.calls(ask.key))
    ledger.judged(good, reply("8 7"), None, JUDGE)
    ledger.refused(refused, "HTTP 400", JUDGE)
    for call in range(1, 1 + MOST_CALLS):
        assert not ledger.account.settled(bad.key)
        assert ledger.judged(bad, reply("no"), None, JUDGE) is None
        assert call == ledger.account.calls(bad.key)
    assert [True] * 3 == [ledger.account.settled(key) for key in KEYS[:3]]
    assert "refused: HTTP 400" == ledger.line(refused.key).fault
    assert 2 == ledger.again([*KEYS, *KEYS])
    assert [True, False, False] == [ledger.account.settled(key) for key in KEYS[:3]]
    assert (0, None) == (ledger.account.calls(bad.key), ledger.line(bad.key))
    ledger.file.close()


def test_a_reply_says_why_it_has_no_scores(tmp_path):
    """And how it ended, where it did not end by itself."""
    ledger = Ledger(tmp_path / "l", rules)
    ledger.judged(Request("k", "o"), Reply("8", finish="length"), None, JUDGE)
    line = ledger.line("k")
    assert (None, "8") == (rules.parse_reply(line.reply), line.reply)
    assert line.fault.endswith("'8' (finish reason 'length')")
    ledger.file.close()


URLS = ("http://a/v1", "http://b/v1")
PARAMETERS = ({}, {"temperature": 0}, {"temperature": 1}, {"temperature": 0, "stop": ["\n"]})
WHO = st.builds(Server, st.sampled_from("mn"), st.sampled_from(URLS), st.sampled_from(PARAMETERS))
TEXTS = st.tuples(*[st.sampled_from(["", "a", "b", "a b", "nan"])] * 4)
PROMPTS = st.sampled_from([OWN, replace(OWN, system="Grade."), replace(OWN, instruction="8 7")])


@given(WHO, WHO, TEXTS, TEXTS, PROMPTS, PROMPTS, st.booleans())
def test_equal_requests_have_one_key(one, two, texts, others, first, second, same):
    """And others another: who is asked, how, each text, and which answer stands first."""
    if same:
        two, others, second = one, texts, first
    keys = one.key(first.messages(*texts)), two.key(second.messages(*others))
    assert ((one, texts, first) == (two, others, second)) == (keys[0] == keys[1])


@given(WHO, TEXTS, PROMPTS)
def test_a_key_does_not_depend_on_the_order_of_parameters(judge, texts, prompt):
    """Nor on the price; what is to be asked anew has another."""
    shown = prompt.messages(*texts)
    backwards = dict(reversed(judge.parameters.items()))
    assert judge.key(shown) == Server(judge.model, judge.base_url, backwards).key(shown)
    assert 3 == len({judge.key(shown), judge.key(shown, "a"), judge.key(shown, "b")})


# Threads and processes

THREADS, EACH = 16, 20


def test_threads_lose_nothing(tmp_path):
    """Lines of many are whole, and what they cost adds up; also after it is read again."""
    path = tmp_path / "l"
    ledger = Ledger(path, rules)
    begin = threading.Barrier(THREADS)

    def work(thread):
        begin.wait()
        for number in range(EACH):
            ask = Request(f"{thread} {number}", OCCASIONS[number % 2], {"sample": "é" * number})
            assert ledger.asked(ask, 1.0, budget=THREADS * EACH)
            if number % 5 == 0:
                ledger.unanswered(ask, "HTTP 500", 0.5)
            elif number % 5 != 1:
                ledger.judged(ask, reply("8 7" if number % 3 else "no"), 0.25, JUDGE)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    keys = [f"{thread} {number}" for thread in range(THREADS) for number in range(EACH)]

    def seen(of):
        lines = {key: of.line(key) and of.line(key).judged for key in keys}
        return (
            [of.account.spent(name) for name in OCCASIONS],
            list(map(of.account.settled, keys)),
            of.account.open,
            lines,
        )

    before = seen(ledger)
    ledger.file.close()
    ledger = Ledger(path, rules)
    assert before == seen(ledger)
    ledger.file.close()
    cost = [(0.5, 1.0, 0.25, 0.25, 0.25)[number % 5] for number in range(EACH)]
    assert [THREADS * sum(cost[0::2]), THREADS * sum(cost[1::2])] == before[0]
    assert all(name in (None, key) for key, name in before[3].items())
    kinds = Counter(next(iter(json.loads(line))) for line in path.read_bytes().splitlines())
    assert {"asked": 320, "judged": 192, "unanswered": 64} == kinds


def test_threads_together_keep_the_budget(tmp_path):
    """Of many that ask at once only so many may as it allows."""
    ledger = Ledger(tmp_path / "l", rules)
    begin = threading.Barrier(THREADS)

    def work(thread):
        begin.wait()
        asks = [Request(f"{thread} {number}", "one") for number in range(EACH)]
        return sum(ledger.asked(ask, 0.25, budget=20.0) for ask in asks)

    with ThreadPoolExecutor(THREADS) as pool:
        assert 80 == sum(pool.map(work, range(THREADS)))
    assert 20.0 == ledger.account.spent("one")
    assert ledger.asked(Request("k", "two"), 20.0, budget=20.0)
    assert ledger.asked(Request("k", "one"), None, budget=20.0)
    ledger.file.close()


HOLD = """
import sys
from pathlib import Path
from eval.client.ledger import Ledger, Request
from touchstone import reply
with Ledger.held(Path(sys.argv[1]), reply) as ledger:
    ledger.asked(Request("k", "one"), 0.5)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_second_process_cannot_hold_it(tmp_path, how):
    """Until the first ends, however it ends; both would pay for one request."""
    path = tmp_path / "new folder" / "ledger.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert b"held\n" == other.stdout.readline()
        said = rf"another process judges with this ledger \(process {other.pid} on .*--ledger"
        with pytest.raises(JudgeError, match=said), Ledger.held(path, rules):
            pass
        if how == "is killed":
            other.kill()
        else:
            other.stdin.close()
        other.wait(20)
    with Ledger.held(path, rules) as ledger:
        assert (0.5, ["k"]) == (ledger.account.spent("one"), list(ledger.account.open))
