"""From a ledger to what a run keeps of its judgements."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.stats import T
from touchstone.anchors import drift
from touchstone.judge import parse_reply
from touchstone.judging import Occasion
from touchstone.ledger import Ledger
from touchstone.score import METRIC, Judged, Round, figures
from touchstone.table import Dialogue

OWN_WORDS = "judged with a prompt that is not the benchmark's"
PUBLISHED_JUDGES = ("gpt-4", "gpt-4-0314", "gpt-4-0613")  # as the card's judge was called in 2023


def result(
    occasion: Occasion, dialogues: Sequence[Dialogue], ledger: Ledger
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows for RunFolder.write_judgements, and scores for its write_server_scores.

    Every judgement is settled. Equal judgements give equal results: no day, no price is in them.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for wanted in occasion.wanted:
        line = ledger.line(wanted.ask.key)
        assert line is not None, "a settled request has a line"
        lines.setdefault(wanted.dialogue.id, []).append(line)
    rows = [
        {"id": each.id, "rounds": [_audit(line) for line in lines[each.id]]} for each in dialogues
    ]
    told = figures([_judged(each, lines[each.id]) for each in dialogues])
    judge, prompt = occasion.judge, occasion.prompt
    doubts = told.pop("faults")
    if not prompt.published:
        doubts.append(OWN_WORDS)
    if judge.model not in PUBLISHED_JUDGES:
        doubts.append(f"judged by {judge.model}, not by {PUBLISHED_JUDGES[0]}")
    anchored = drift(occasion, ledger)
    about = {
        "model": judge.model,
        "reported": _told(lines, "reported"),
        "fingerprints": _told(lines, "fingerprint"),
        "server": judge.host,
        "parameters": dict(judge.parameters),
        "prompt": {"digest": prompt.digest, "published": prompt.published},
        **told["judge"],
        "anchors": anchored and {k: v for k, v in anchored.items() if k != "recorded_on"},
    }
    name = f"{', '.join(about['reported']) or judge.model} at {judge.host}"
    if ends := about["interval"]:
        interval = {"low": ends[0], "high": ends[1], "method": T}
        told["intervals"] = {METRIC: interval} if told["metrics"] else {}
    return rows, {**told, "server": name, "judge": about, "doubts": doubts}


def _judged(dialogue: Dialogue, lines: Sequence[Mapping[str, Any]]) -> Judged:
    first, second = (_round(line, number) for number, line in enumerate(lines, 1))
    image = dialogue.images[0] if dialogue.images else ""
    rounds = (first, second)
    return Judged(dialogue.category, rounds, dialogue.id, dialogue.task_name, image)


def _round(line: Mapping[str, Any], number: int) -> Round:
    """The first score is the first answer's: the reference's in round 1."""
    scores = parse_reply(line["reply"]) if line["reply"] is not None else None
    if scores is None:
        return Round(0.0, 0.0, failed=True)
    return Round(*scores) if number == 1 else Round(scores[1], scores[0])


def _audit(line: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever doubts a figure looks at; the key leads to the ledger."""
    names = ("reported", "fingerprint", "reply", "scores", "fault")
    return {"key": line["judged"], **{name: line.get(name) for name in names}}


def _told(lines: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> list[str]:
    return sorted(
        {str(told) for each in lines.values() for line in each if (told := line.get(name))}
    )
