"""From a judge's replies to what a run keeps of them, and what a user should know."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.client.entries import JudgedLine
from eval.judging.task import Judgements, judgement_failure
from eval.scoring.stats import METHOD
from touchstone.reply import parse_reply, scale_fault, usable
from touchstone.score import (
    BEST,
    METRIC,
    WORST,
    Judged,
    Means,
    Round,
    published_means,
    touchstone_scores,
)
from touchstone.table import Dialogue

OWN_WORDS = "judged with a prompt that is not the benchmark's"
FARTHEST = 1e6  # the largest score that is shown
PUBLISHED_JUDGES = ("gpt-4", "gpt-4-0314", "gpt-4-0613")  # as the card's judge was called in 2023


def judged_result(judgements: Judgements) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows for TaskScores.write_judgements, and scores for its write_server.

    as_published  scores outside the scale count, as in the published script; else these rounds have
                  failed. The script's score is recorded in either case

    Every judgement is settled. Equal judgements give equal results: no day, no price is in them.
    """
    dialogues, lines = judgements.items, judgements.lines
    as_published = judgements.as_published
    rows = [
        {"id": each.id, "rounds": [_audit(line, as_published) for line in lines[each.id]]}
        for each in dialogues
    ]
    every = [line for pair in lines.values() for line in pair]
    off_scale = sum(bool(_scale_fault(line)) for line in every)
    script = [_judged(each, lines[each.id], as_published=True) for each in dialogues]
    means, _ = published_means(script)
    counted = [_judged(each, lines[each.id], as_published) for each in dialogues]
    scores = touchstone_scores(counted)
    server, prompt = judgements.server, judgements.prompt
    doubts = scores.pop("faults")
    if off_scale and not as_published:
        doubts.append(
            f"{off_scale:,} of them for scores outside {WORST:g} to {BEST:g}, which the published "
            "script counts (--as-published)"
        )
    if not prompt.published:
        doubts.append(OWN_WORDS)
    if server.model not in PUBLISHED_JUDGES:
        doubts.append(f"judged by {server.model}, not by {PUBLISHED_JUDGES[0]}")
    anchored = judgements.drift
    about = {
        "model": server.model,
        "reported": sorted({line.reported for line in every if line.reported}),
        "fingerprints": sorted({line.fingerprint for line in every if line.fingerprint}),
        "server": server.host,
        "parameters": dict(server.parameters),
        "prompt": {"digest": prompt.digest, "published": prompt.published},
        **scores["judge"],
        "off_scale": off_scale,
        "as_published": as_published,
        "published": _figure(means),
        "anchors": anchored and {k: v for k, v in anchored.items() if k != "recorded_on"},
    }
    name = f"{', '.join(about['reported']) or server.model} at {server.host}"
    if scores["metrics"]:
        scores["metric_types"] = {METRIC: {"range": [WORST, BEST], "mean": True}}
        if ends := about["interval"]:
            scores["intervals"] = {METRIC: {"low": ends[0], "high": ends[1], "method": METHOD}}
        elif reason := about["no_interval"]:
            scores["no_interval"] = {METRIC: reason}
    return rows, {**scores, "server": name, "judge": about, "doubts": doubts}


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
    scores = None
    if line.reply is not None and usable(line.reply, as_published=as_published):
        scores = parse_reply(line.reply)
    if scores is None:
        return Round(0.0, 0.0, failed=True)
    return Round(*scores) if number == 1 else Round(scores[1], scores[0])


def _scale_fault(line: JudgedLine) -> str:
    return "" if line.reply is None else scale_fault(line.reply)


def _audit(line: JudgedLine, as_published: bool) -> dict[str, Any]:
    """What whoever doubts a figure looks at; the key leads to the ledger."""
    return {
        "key": line.judged,
        "reported": line.reported,
        "fingerprint": line.fingerprint,
        "reply": line.reply,
        "scores": None if line.reply is None else parse_reply(line.reply),
        "fault": judgement_failure(line, scale_fault, as_published=as_published),
    }


def remarks(judged: Mapping[str, Any]) -> Iterator[str]:
    """What the scores are worth, a line each.

    judged  a summary's field `judge`
    """
    if judged["failed"]:
        low, high = judged["bounds"] or (None, None)
        yield (
            f"{judged['failed']:,} judgements failed and are left out; had they been the worst and "
            f"the best, the score would be {_x100(low)} and {_x100(high)}"
        )
    if judged["off_scale"]:
        published = _x100(judged["published"])
        yield f"{judged['off_scale']:,} judgements have scores outside 1 to 10, which " + (
            f"count here, as published: {published}"
            if judged["as_published"]
            else f"failed; as published they count, and the score is {published}"
        )
    wins, rounds = judged["against_reference"], judged["rounds"]
    yield (
        f"beside the reference answers ({_x100(judged['reference'])}): {wins['win']:,} better, "
        f"{wins['tie']:,} alike, {wins['loss']:,} worse"
    )
    if rounds["dialogues"]:
        yield (
            f"both rounds prefer the same answer in {rounds['same_winner']:,} of "
            f"{rounds['dialogues']:,} dialogues; what stands first is scored "
            f"{rounds['first_preferred']:+.2f} beside the other"
        )


def _x100(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
