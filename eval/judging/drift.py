"""Has a judge changed under its name? Its anchors beside those of an earlier occasion.

Anchors are answers that never change. They are judged anew on every occasion, and compared with the
earliest on which this judge saw them (a hosted model may change under one name).
"""

import math
from typing import Any

from eval.client.ledger import Ledger
from eval.judging.occasion import Occasion
from eval.judging.task import JudgedTask


def judge_drift(occasion: Occasion, ledger: Ledger) -> dict[str, Any] | None:
    """The anchors on this occasion beside the earliest with as many; None where none were judged.

    mean, recorded  of the assessed answers' scores; recorded_on is the day, reported the model's
                    own name then; changed counts judgements that differ
    """
    anchors = dict(ledger.account.anchors(occasion.judging))
    by_occasion = {
        name: _scores(offsets, ledger, occasion.task) for name, offsets in anchors.items()
    }
    now = by_occasion.get(occasion.name)
    if not now:
        return None
    first = next(name for name, scores in by_occasion.items() if scores.keys() >= now.keys())
    before = by_occasion[first]
    shared = sorted(now)
    line = ledger.file.at(min(anchors[first].values()))
    mean, recorded = (
        sum(scores[name] for name in shared) / len(shared) for scores in (now, before)
    )
    return {
        "judgements": len(now),
        "mean": mean,
        "recorded": recorded,
        "recorded_on": line.time[:10],
        "reported": line.reported,
        "first": first == occasion.name,
        "changed": sum(now[name] != before[name] for name in shared),
    }


def _scores(offsets: dict[str, int], ledger: Ledger, task: JudgedTask) -> dict[str, float]:
    """Anchor and round -> the assessed answer's score, where there is one."""
    found: dict[str, float] = {}
    for name, offset in sorted(offsets.items()):
        reply = ledger.file.at(offset).reply
        scores = None if reply is None else task.parse_reply(reply)
        if scores is not None and all(map(math.isfinite, scores)):
            found[name] = task.assessed(scores, int(name.rpartition(" ")[2]))
    return found
