"""From a ledger to what a run keeps of its judgements."""

from collections.abc import Sequence
from typing import Any

from eval.scoring.stats import METHOD
from touchstone.anchors import drift
from touchstone.entries import JudgedLine
from touchstone.judge import scale_fault
from touchstone.judging import Occasion
from touchstone.ledger import Ledger
from touchstone.score import BEST, METRIC, WORST, Judged, Means, Round, figures, published
from touchstone.table import Dialogue

OWN_WORDS = "judged with a prompt that is not the benchmark's"
FARTHEST = 1e6  # the largest score that is shown
PUBLISHED_JUDGES = ("gpt-4", "gpt-4-0314", "gpt-4-0613")  # as the card's judge was called in 2023


def result(
    occasion: Occasion,
    dialogues: Sequence[Dialogue],
    ledger: Ledger,
    *,
    as_published: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows for RunFolder.write_judgements, and scores for its write_server_scores.

    as_published  scores outside the scale count, as in the published script; else these rounds have
                  failed. The figure of the script is told in either case

    Every judgement is settled. Equal judgements give equal results: no day, no price is in them.
    """
    lines: dict[str, list[JudgedLine]] = {}
    for wanted in occasion.wanted:
        line = ledger.line(wanted.ask.key)
        assert line is not None, "a settled request has a line"
        lines.setdefault(wanted.dialogue.id, []).append(line)
    rows = [
        {"id": each.id, "rounds": [_audit(line, as_published) for line in lines[each.id]]}
        for each in dialogues
    ]
    every = [line for pair in lines.values() for line in pair]
    off_scale = sum(bool(_scale_fault(line)) for line in every)
    script = [_judged(each, lines[each.id], as_published=True) for each in dialogues]
    means, _ = published(script)
    counted = [_judged(each, lines[each.id], as_published) for each in dialogues]
    told = figures(counted)
    judge, prompt = occasion.judge, occasion.prompt
    doubts = told.pop("faults")
    if off_scale and not as_published:
        doubts.append(
            f"{off_scale:,} of them for scores outside {WORST:g} to {BEST:g}, which the published "
            "script counts (--as-published)"
        )
    if not prompt.published:
        doubts.append(OWN_WORDS)
    if judge.model not in PUBLISHED_JUDGES:
        doubts.append(f"judged by {judge.model}, not by {PUBLISHED_JUDGES[0]}")
    anchored = drift(occasion, ledger)
    about = {
        "model": judge.model,
        "reported": sorted({line.reported for line in every if line.reported}),
        "fingerprints": sorted({line.fingerprint for line in every if line.fingerprint}),
        "server": judge.host,
        "parameters": dict(judge.parameters),
        "prompt": {"digest": prompt.digest, "published": prompt.published},
        **told["judge"],
        "off_scale": off_scale,
        "as_published": as_published,
        "published": _figure(means),
        "anchors": anchored and {k: v for k, v in anchored.items() if k != "recorded_on"},
    }
    name = f"{', '.join(about['reported']) or judge.model} at {judge.host}"
    if told["metrics"]:
        told["metric_types"] = {METRIC: {"range": [WORST, BEST], "mean": True}}
        if ends := about["interval"]:
            told["intervals"] = {METRIC: {"low": ends[0], "high": ends[1], "method": METHOD}}
        elif reason := about["no_interval"]:
            told["no_interval"] = {METRIC: reason}
    return rows, {**told, "server": name, "judge": about, "doubts": doubts}


def _figure(means: Means) -> float | None:
    """A mean of assessed answers that can be shown."""
    mean = means.assessed
    return mean / 100 if mean is not None and 0 <= mean <= 100 * FARTHEST else None


def _judged(dialogue: Dialogue, lines: Sequence[JudgedLine], as_published: bool) -> Judged:
    first, second = (_round(line, number, as_published) for number, line in enumerate(lines, 1))
    image = dialogue.images[0] if dialogue.images else ""
    rounds = (first, second)
    return Judged(dialogue.category, rounds, dialogue.id, dialogue.task_name, image)


def _round(line: JudgedLine, number: int, as_published: bool) -> Round:
    """The first score is the first answer's: the reference's in round 1."""
    scores = line.scores if line.usable(as_published=as_published) else None
    if scores is None:
        return Round(0.0, 0.0, failed=True)
    return Round(*scores) if number == 1 else Round(scores[1], scores[0])


def failure(line: JudgedLine, as_published: bool) -> str:
    """Why a reply does not count, empty where it does."""
    return line.fault or ("" if as_published else _scale_fault(line))


def _scale_fault(line: JudgedLine) -> str:
    return "" if line.reply is None else scale_fault(line.reply)


def _audit(line: JudgedLine, as_published: bool) -> dict[str, Any]:
    """What whoever doubts a figure looks at; the key leads to the ledger."""
    return {
        "key": line.judged,
        "reported": line.reported,
        "fingerprint": line.fingerprint,
        "reply": line.reply,
        "scores": line.scores,
        "fault": failure(line, as_published),
    }
