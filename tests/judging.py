"""Answers to be judged, the command that has them judged, and what it leaves behind."""

import json
import re

from judge_server import FaultyJudge, digest_of
from small import command

from eval.demo.judge import user_text
from touchstone.table import Dialogue, write_answers

KEY = "sk-secret-of-a-test-0123456789"
MODEL = "demo-rules"
PARTIAL = ("--allow-partial", "--no-anchors")  # a few rows, and nothing asked beside them
PRICED = ("--price", "30/60")
TASK = "touchstone_en"
FILES = ("summary.json", "scores.jsonl", "judgements.jsonl")


def dialogue(number, response=None, **more):
    """A row of a table; each has other words, so that the demo's judge scores it otherwise."""
    told = {
        "id": str(number),
        "question": f"What is number {number}?",
        "annotation": f"A photo of {number} red buses on street {number * 7}.",
        "reference": f"{number} red buses on a street.",
        "category": ("recognition", "comprehension", "recognition,storytelling")[number % 3],
        "task_name": f"task {number % 4}",
        "response": f"red buses {number} {'on a street ' * (number % 5)}",
    }
    return Dialogue(**{**told, **({} if response is None else {"response": response}), **more})


def table(path, rows=4):
    """A table of answers: so many rows, or these."""
    rows = [dialogue(number) for number in range(rows)] if isinstance(rows, int) else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_answers(rows))
    return path


def arguments(target, server, *more):
    """Of the command, with a server or the URL of one."""
    url = server if isinstance(server, str) else server.url
    return [str(each) for each in ("judge", target, "--judge", MODEL, "--base-url", url, *more)]


def judge(target, server, *more):
    """Have a table or a run judged, in this process."""
    return command(*arguments(target, server, *more))


def judge_few(target, server, *more):
    """The same without anchors, and with fewer rows than the benchmark has."""
    return judge(target, server, *PARTIAL, *more)


def summary(run, task=TASK):
    return json.loads((run / task / "summary.json").read_text(encoding="utf-8"))


def rows(run, task=TASK):
    return lines(run / task / "judgements.jsonl")


def results(run, task=TASK):
    """The bytes that must be the same however judging went."""
    return {name: (run / task / name).read_bytes() for name in FILES}


def undisturbed(target, server):
    """What comes out of a table with a ledger that has seen nothing, where nothing befalls."""
    server.faults = {}
    place = target.parent / "undisturbed"
    done = judge_few(target, server, "--out", place, "--ledger", place.with_suffix(".jsonl"))
    assert done.returncode == 0, done.stderr
    return results(place)


def lines(file):
    with file.open("rb") as content:  # whose texts may hold what str.splitlines takes for an end
        return [json.loads(line) for line in content]


def beside(target):
    """The ledger beside a table or a run."""
    return target.parent / "judge-ledger.jsonl"


def spending(told):
    """USD that a ledger's lines add up to, after each: what is open counts at its most."""
    paid, open_now = 0.0, {}
    for line in told:
        kind = next(iter(line))
        if kind == "asked":
            open_now[line["asked"]] = line["usd"] or 0.0
            paid += line["usd"] or 0.0
        elif kind in ("judged", "unanswered"):
            paid += (line["usd"] or 0.0) - open_now.pop(line[kind], 0.0)
        yield paid


class Replies(FaultyJudge):
    """A judge that says what `tell` makes of a user's text and of how often it was asked."""

    def __init__(self, tell, **options):
        super().__init__(**options)
        self.tell = tell

    def completion(self, request, fault=""):
        told = super().completion(request, fault)
        attempt = self.attempted[digest_of(request)] - 1
        told["choices"][0]["message"]["content"] = self.tell(user_text(request), attempt)
        return told


def number_in(text):
    """Of the row that a judge is asked about."""
    return int(re.search(r"What is number (\d+)\?", text)[1])


def digests(server):
    """Of the requests that came, in order."""
    return [asked.digest for asked in server.requests]
