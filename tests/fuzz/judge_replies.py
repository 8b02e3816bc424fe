"""A judge whose replies are what real ones and broken ones send, and the figures that follow.

A reply has scores where its first line holds exactly two numbers with one space between, as the
published script finds them; they count where both lie from 1 to 10. The answer is second in the
first round and first in the second, so replies "a b" to everything give the mean of a and b.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from fuzz import damage
from fuzz.cases import Area, Box, Came, Case, Expect, Make, Step, refused, step, works
from fuzz.damage import BROKEN, SAME
from fuzz.serving import Asked, Piece, answer, completion

HEADER = ("index", "question", "human_annotation", "gpt4_ha_answer", "category", "task_name",
          "response")  # fmt: skip
ROWS = 3
OPTIONS = ("--judge", "rules", "--no-anchors", "--allow-partial", "--timeout", "3")
WRITES = (
    "nowhere",
    "answers.judged",
    "answers.judged/*",
    "judge-ledger.jsonl",
    ".judge-ledger.jsonl.lock",
)
MOST_ASKED = 6 * ROWS * 2  # first request and five more, for each judgement
SLOW_S = 240.0


def table(rows: int = ROWS) -> str:
    """Answers to be judged, tab-separated."""
    lines = ["\t".join(HEADER)]
    for n in range(rows):
        lines.append(
            f"{n}\tWhat is number {n}?\tA photo of bus {n}.\tbus {n}.\trecognition\ttask\tred {n}"
        )
    return "\n".join(lines) + "\n"


def judged(
    box: Box, respond: Callable[[Asked], list[Piece]], *expect: Expect, what: str,
    options: tuple[str, ...] = (), rows: int = ROWS, check: Callable[[], str] | None = None,
    suffix: str = "/v1",
) -> Case:  # fmt: skip
    """A case in which a table is judged by a server."""
    box.write("answers.tsv", table(rows))
    return Case(what, (_step(box.serve(respond) + suffix, *expect, options=options),), check)


def _step(url: str, *expect: Expect, options: tuple[str, ...] = ()) -> Step:
    argv = ("judge", "answers.tsv", "--base-url", url, *OPTIONS, *options)
    return step(argv, *expect, writes=WRITES, wall_s=SLOW_S)


def scored(value: float, *says: Any) -> Expect:
    """Exit code 0, this mean score, and no request too many."""

    def check(came: Came) -> str:
        path = came.kept / "here/answers.judged/touchstone_en/summary.json"
        found = json.loads(path.read_text())["metrics"].get("touchstone_score")
        if found is None or abs(found - value) > 1e-9:
            return f"the score is {found}, not {value}"
        return "" if came.asked <= MOST_ASKED else f"asked {came.asked} times"

    return works(check, *says)


def _no_score(came: Came) -> str:
    path = came.kept / "here/answers.judged/touchstone_en/summary.json"
    if path.exists() and json.loads(path.read_text())["metrics"]:
        return f"there is a score: {json.loads(path.read_text())['metrics']}"
    return "" if came.asked <= MOST_ASKED else f"asked {came.asked} times"


def stopped(*says: Any) -> Expect:
    """No score; exit code 2 where the judge is of no use, 3 where something may still come."""
    return Expect((2, 3), says, _no_score)


def says(text: Any, **changed: Any) -> Callable[[Asked], list[Piece]]:
    return lambda _: answer(completion(text, **changed))


def number(rng: Random) -> str:
    """A number from 1 to 10 as a judge may write it."""
    return rng.choice(
        [str(rng.randint(1, 10)), f"{rng.randint(1, 9)}.5", f"{rng.randint(1, 9)}.25"]
    )


def good(box: Box, rng: Random) -> Case:
    """Two numbers on the first line, whatever follows on others."""
    a, b = number(rng), number(rng)
    rest = rng.choice(["", "", "\nAssistant 1 is better.", "\n\n9 9", "\n" + "x" * 3000])
    text = f"{a} {b}{rest}"
    value = (float(a) + float(b)) / 2
    return judged(box, says(text), scored(value), what=f"{text[:20]!r}")


def each_other(box: Box, rng: Random) -> Case:
    """Every judgement has scores of its own, so that none may stand in another's place."""

    def tell(asked: Asked) -> list[Piece]:
        return answer(completion("{} {}".format(*_drawn(asked))))

    box_seed = rng.randrange(1000)

    def _drawn(asked: Asked) -> tuple[int, int]:
        text = json.dumps(asked.json["messages"])
        draw = random.Random(f"{box_seed} {text}")
        return draw.randint(1, 10), draw.randint(1, 10)

    def between(came: Came) -> str:
        rows = came.kept / "here/answers.judged/touchstone_en/judgements.jsonl"
        found = [json.loads(line) for line in rows.read_text().splitlines()]
        return "" if len(found) == ROWS else f"{len(found)} rows of judgements"

    return judged(box, tell, works(between), what="scores of its own for each")


SCALE = ("0 0", "11 5", "5 11", "-8 7", "800 7", "85 70", "0.5 7", "1e308 1e308", "inf 5", "nan 5",
         "10.01 5", "0.99 5")  # fmt: skip


def off_the_scale(box: Box, rng: Random) -> Case:
    """Numbers outside 1 to 10 are no scores: said, no figure, exit code 3 or a stop."""
    text = rng.choice(SCALE)
    return judged(box, says(text), stopped(), what=f"off the scale: {text!r}")


NO_SCORES = ("", " ", "8", "8/7", "8, 7", "Assistant 1: 8, Assistant 2: 7", "8 7 6",
             "8  7",
             "8\t7", "I cannot judge these answers.", "eight seven", "**8 7**", "Score: 8 7",
             "[8 7]",
             "{\"a\": 8}", "<think>hm</think>\n8 7", "8 seven", "\u0000", "None", "null",
             "8\u00a07", "\ufeff8 7x")  # fmt: skip


def unreadable(box: Box, rng: Random) -> Case:
    """Text without two numbers: after a few replies it stops and shows one."""
    text = rng.choice(NO_SCORES)
    shown = [text.strip()[:12]] if len(text.strip()) > 3 and text.isascii() else []
    expect = stopped(*[s for s in shown if s.isprintable() and '"' not in s])
    return judged(box, says(text), expect, what=f"no scores: {text[:30]!r}")


CONTENTS: Mapping[str, tuple[Any, bool]] = {
    # what the message holds, and whether the scores can be read from it
    "parts": ([{"type": "text", "text": "8 7"}], True),
    "parts of one text": ([{"type": "text", "text": "8 "}, {"type": "text", "text": "7"}], True),
    "null": (None, False),
    "a number": (5, False),
    "an object": ({"text": "8 7"}, False),
    "an empty list": ([], False),
    "a picture": ([{"type": "image_url", "image_url": {"url": "x"}}], False),
    "parts without text": ([{"type": "text"}], False),
    "true": (True, False),
}


def contents(box: Box, rng: Random) -> Case:
    what = rng.choice(list(CONTENTS))
    content, readable = CONTENTS[what]
    expect = scored(7.5) if readable else stopped()
    return judged(box, says(content), expect, what=f"content: {what}")


def fields(box: Box, rng: Random) -> Case:
    """Fields of a completion of other types: only its text decides."""
    field, value = rng.choice(
        [("usage", None), ("usage", {}), ("usage", []), ("usage", {"prompt_tokens": -5}),
         ("usage", {"prompt_tokens": 1e30, "completion_tokens": 1}),
         ("usage", {"prompt_tokens": True, "completion_tokens": "3"}),
         ("usage", {"prompt_tokens": 2**70, "completion_tokens": 2**70}),
         ("model", 5), ("model", None), ("model", "\x1b[31mgpt\n4 </script>"), ("model",
         "x" * 9999),
         ("system_fingerprint", 5), ("system_fingerprint", ["x"]), ("created", "today"), ("id",
         None),
         ("object", 5), ("choices", None), ("choices", []), ("choices", [None]), ("choices", {}),
         ("choices", [{"message": None}]), ("choices", [{"message": {}}]), ("choices", ["8 7"]),
         ("choices", [{"text": "8 7"}]), ("choices", [{"message": "8 7"}]), ("error",
         {"message": "x"}),
         ("service_tier", 1)]
    )  # fmt: skip
    expect = [stopped()] if field in ("choices", "error") else [scored(7.5), stopped()]
    if field in ("created", "id", "object", "service_tier") or value in (None, {}):
        expect.append(scored(7.5))
    if field == "error":
        expect.append(scored(7.5))
    return judged(box, says("8 7", **{field: value}), *expect, what=f"{field}: {str(value)[:40]}")


def body(box: Box, rng: Random) -> Case:
    """The bytes of the answer: damaged JSON is never a score."""
    what, content, kind = rng.choice(damage.TO_JSON)(completion("8 7"), rng)
    expect = {SAME: [scored(7.5)], BROKEN: [stopped()]}.get(kind, [scored(7.5), stopped()])
    if kind == damage.OTHER:
        expect.append(Expect((0,)))  # a flipped digit of a score is another score
    if "byte order" in what:
        expect.append(stopped())
    return judged(box, lambda _: answer(content), *expect, what=f"body: {what[:80]}")


def _sse(asked: Asked) -> list[Piece]:
    told = {"choices": [{"delta": {"content": "8 7"}}]}
    return answer(
        f"data: {json.dumps(told)}\n\ndata: [DONE]\n\n".encode(), 200, "text/event-stream"
    )


STATUS: Mapping[str, Callable[[Asked], list[Piece]]] = {
    "401": lambda _: answer(b'{"error": {"message": "wrong key", "code": "invalid_api_key"}}', 401),
    "403": lambda _: answer(b"", 403),
    "404": lambda _: answer(b'{"error": {"message": "no such model"}}', 404),
    "400": lambda _: answer(b'{"error": {"message": "max_tokens is not supported"}}', 400),
    "402": lambda _: answer(b"", 402),
    "405": lambda _: answer(b"", 405),
    "418": lambda _: answer(b"teapot", 418, "text/plain"),
    "quota": lambda _: answer(
        b'{"error": {"message": "out of money", "code": "insufficient_quota"}}', 429
    ),
    "wait for years": lambda _: answer(b"", 429, Retry_After="99999999999"),
    "a page": lambda _: answer(b"<!DOCTYPE html><html>sign in</html>", 200, "text/html"),
    "nothing": lambda _: answer(b""),
    "204": lambda _: answer(b"", 204),
    "301": lambda _: answer(b"", 301, Location="/other"),
    "302": lambda _: answer(b"", 302, Location="/other"),
    "303": lambda _: answer(b"", 303, Location="/other"),
    "307": lambda _: answer(b"", 307, Location="/other"),
    "308": lambda _: answer(b"", 308, Location="http://localhost:9/other"),
    "to a file": lambda _: answer(b"", 302, Location="file:///etc/passwd"),
    "a stream": _sse,
    "10 MB": lambda _: answer(completion("x" * 10_000_000)),
}


def status(box: Box, rng: Random) -> Case:
    """Statuses that no waiting helps, redirects that must not be followed, pages, streams."""
    what = rng.choice(list(STATUS))
    hurt = STATUS[what]

    def respond(asked: Asked) -> list[Piece]:
        return answer(completion("8 7")) if asked.path == "/other" else hurt(asked)

    return judged(box, respond, stopped(), what=f"status: {what}")


def wire(box: Box, rng: Random) -> Case:
    """What is no HTTP, stops in the middle, or never ends: bounded, and no score."""
    turns: Mapping[str, list[Piece]] = {
        "garbage": [b"\x00\x01SSH-2.0\r\n"],
        "closed": [],
        "short": [b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"],
        "chunks that are none": [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nxx\r\n"
        ],
        "a cut chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\nxx"],
        "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n12345"],
        "a huge header": [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5_000_000 + b"\r\n\r\n"],
        "slow headers": [b"HTTP/1.1 200 OK\r\n", *[b"X: a\r\n", 1.0] * 60],
        "slow body": [b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", *[b" ", 1.0] * 60],
        "silence": [60.0],
        "no end": [b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 65536] * 4000],
        "another answer": [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"
        ],
        "HTTP/9": [b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
        "status 999": [b"HTTP/1.1 999 ?\r\nContent-Length: 2\r\n\r\n{}"],
        "a line that is no header": [b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n{}"],
    }
    turn = rng.choice(list(turns))
    return judged(box, lambda _: turns[turn], stopped(), what=f"wire: {turn}")


def at_first(box: Box, rng: Random) -> Case:
    """A fault that passes: the figures are those of a judge without it."""
    turns: Mapping[str, list[Piece]] = {
        "429": answer(b"", 429, Retry_After="0"),
        "429 in milliseconds": answer(b"", 429, retry_after_ms="10"),
        "a date": answer(b"", 429, Retry_After="Wed, 99 Foo 2099"),
        "nan": answer(b"", 429, Retry_After="nan"),
        "negative": answer(b"", 429, Retry_After="-5"),
        "500": answer(b"oops", 500, "text/html"),
        "503": answer(b"", 503),
        "closed": [],
    }
    turn = rng.choice(list(turns))
    count = rng.randint(1, 3)

    def respond(asked: Asked) -> list[Piece]:
        return turns[turn] if asked.number < count else answer(completion("8 6"))

    expect = [scored(7.0)]
    return judged(box, respond, *expect, what=f"{count} times {turn}, then right")


def money(box: Box, rng: Random) -> Case:
    """A budget and prices: never more is asked than they allow."""
    turn = rng.choice(["too little", "enough", "free", "unknown price"])
    options = {
        "too little": ("--price", "30/60", "--budget", "0.000001"),
        "enough": ("--price", "30/60", "--budget", "50"),
        "free": ("--price", "0/0", "--budget", "0"),
        "unknown price": ("--budget", "5"),
    }[turn]

    def unasked(came: Came) -> str:
        return "" if came.asked == 0 else f"{came.asked} requests were sent"

    expect = {"enough": [scored(7.5)], "free": [scored(7.5)]}.get(
        turn, [Expect((2, 3), (), unasked)]
    )
    return judged(box, says("8 7"), *expect, what=f"money: {turn}", options=options)


def secrets(box: Box, rng: Random) -> Case:
    """A server that sends the key back: it is in no file and no message."""
    where = rng.choice(["reply", "error", "model", "header"])

    def respond(asked: Asked) -> list[Piece]:
        key = asked.headers.get("Authorization") or asked.headers.get("authorization", "")
        if where == "reply":
            return answer(completion(f"8 7\n{key}"))
        if where == "model":
            return answer(completion("8 7", model=key, system_fingerprint=key))
        if where == "header":
            return answer(completion("8 7"), x_request_id=key)
        return answer(json.dumps({"error": {"message": f"bad key {key}"}}).encode(), 401)

    key = "sk-0123456789abcdefSECRET"

    def hidden(came: Came) -> str:
        if "SECRET" in came.text:
            return "the key is in a message"
        for path in (came.kept / "here").rglob("*"):
            if path.is_file() and b"SECRET" in path.read_bytes():
                return f"the key is in {path.name}"
        return ""

    box.write("answers.tsv", table())
    argv = ("judge", "answers.tsv", "--base-url", box.serve(respond) + "/v1", *OPTIONS)
    expect = Expect((0, 2, 3), (), hidden)
    one = step(argv, expect, writes=WRITES, wall_s=SLOW_S, env={"OPENAI_API_KEY": key})
    return Case(f"the key comes back in a {where}", (one,))


def tables(box: Box, rng: Random) -> Case:
    """The table of answers is damaged, lacks columns or rows, or is none."""
    whole = table()
    turns: Mapping[str, tuple[bytes, bool]] = {
        "no rows": (whole.splitlines()[0].encode() + b"\n", True),
        "no header": ("\n".join(whole.splitlines()[1:]).encode(), True),
        "no responses": (re.sub(r"\t[^\t\n]*(?=\n)", "", whole).encode(), True),
        "commas": (whole.replace("\t", ",").encode(), True),
        "UTF-16": (whole.encode("utf-16"), True),
        "a byte order mark": (b"\xef\xbb\xbf" + whole.encode(), False),
        "no text": (b"\xff\xfe\xfd\x00" * 30, True),
        "zero bytes": (whole.encode()[:90] + bytes(90), True),
        "an id twice": (whole.replace("\n2\t", "\n1\t").encode(), True),
        "an open quote": (whole.replace("red 1", '"red 1').encode(), True),
        "a row too long": (whole.replace("red 1", "red 1\tx\ty").encode(), True),
        "lines of Windows": (whole.replace("\n", "\r\n").encode(), False),
        "empty": (b"", True),
        "JSON": (json.dumps([{"index": 1}]).encode(), True),
        "a huge cell": (whole.replace("red 1", "red " * 2_000_000).encode(), False),
    }
    turn = rng.choice(list(turns))
    content, fails = turns[turn]
    box.write("answers.tsv", content)
    url = box.serve(says("8 7")) + "/v1"
    expect = [refused("answers.tsv")] if fails else [scored(7.5), refused("answers.tsv")]
    if turn == "a huge cell":
        expect = [Expect((0, 2, 3))]
    if turn in ("no responses", "an open quote", "zero bytes"):
        expect = [refused(), scored(7.5), Expect((3,))]
    if rng.random() < 0.25:
        what = damage.replace(box.here / "answers.tsv", rng)
        return Case(f"table: {what}", (_step(url, refused("answers.tsv")),))
    return Case(f"table: {turn}", (_step(url, *expect),))


def ledgers(box: Box, rng: Random) -> Case:
    """A ledger of paid replies: a torn last line is none, other damage is named."""
    box.write("answers.tsv", table())
    ledger = box.control("clean") / "here/judge-ledger.jsonl"
    content = ledger.read_bytes()
    turn = rng.choice(["torn", "bytes", "none", "other"])
    if turn == "torn":
        content = content[: -rng.randrange(2, 40)]
        expect, what = [scored(7.5), refused("judge-ledger.jsonl")], "a torn last line"
    elif turn == "bytes":
        rows = content.splitlines()
        place = rng.randrange(len(rows) - 1)
        what, rows[place], kind = rng.choice(damage.TO_JSON[:18])(rows[place], rng)
        content = b"\n".join(rows) + b"\n"
        expect = [refused("judge-ledger.jsonl")]
        if kind != BROKEN or what == "empty":
            expect += [scored(7.5)]
    elif turn == "none":
        what, expect = "", [refused("judge-ledger.jsonl")]
    else:
        content = b'{"judged": 5}\n[1]\n' + content
        what, expect = "other lines", [refused("judge-ledger.jsonl")]
    path = box.write("judge-ledger.jsonl", content)
    if turn == "none":
        what = damage.replace(path, rng)
        if what.endswith(("nothing", "nowhere")):
            expect = [scored(7.5), *expect]
    return Case(f"ledger: {what}", (_step(box.serve(says("8 7")) + "/v1", *expect),))


def _clean(box: Box, _: Random) -> Case:
    return judged(box, says("8 7"), scored(7.5), what="a good judge")


MAKERS: tuple[Make, ...] = (
    good, unreadable, body, off_the_scale, status, fields, contents, wire, at_first, tables, good,
    ledgers, money, each_other, secrets, body, unreadable, fields, status, tables,
)  # fmt: skip
AREA = Area("judge_replies", MAKERS, count=320, waits=True, controls={"clean": _clean})
