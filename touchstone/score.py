"""From judgements to TouchStone's figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from eval.scoring.stats import Interval, Tally

WORST, BEST = 1.0, 10.0  # scores that the judge may give
LARGEST = 1e100  # beyond it sums of squares overflow, and a score is taken for infinite
METRIC = "touchstone_score"


@dataclass(frozen=True, slots=True)
class Round:
    """One judgement: scores of the reference and of the assessed answer, whoever stood first.

    failed  no reply had scores; these then count for nothing
    """

    reference: float
    assessed: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A dialogue, judged in both orders.

    category   its category, or several with commas between
    task_name  its one task
    image      its picture, or else the dialogue itself: what belongs together
    """

    category: str
    rounds: tuple[Round, Round]
    id: str = ""
    task_name: str = ""
    image: str = ""

    @property
    def scored(self) -> list[Round]:
        """The rounds with scores."""
        return [each for each in self.rounds if not each.failed]


@dataclass(frozen=True, slots=True)
class Means:
    """Mean scores x 100 of reference and assessed answers; None where no round has scores."""

    reference: float | None
    assessed: float | None


def published_means(judged: Iterable[Judged]) -> tuple[Means, dict[str, Means]]:
    """Figures over all rounds with scores, and by category, as the published script makes them.

    Source  TouchStone's eval script; equal to it on tests/golden/metrics/touchstone_cases.json
    Quirks  kept as in the source: a dialogue counts once for each comma-separated part of its
            category, which is neither stripped nor taken once; rounds that failed are left out
    """
    every: list[Round] = []
    by_category: dict[str, list[Round]] = {}
    for one in judged:
        rounds = one.scored
        every += rounds
        for part in one.category.split(","):
            by_category.setdefault(part, []).extend(rounds)
    return _means(every), {name: _means(rounds) for name, rounds in by_category.items()}


def _means(rounds: list[Round]) -> Means:
    if not rounds:
        return Means(None, None)
    return Means(
        100 * sum(each.reference for each in rounds) / len(rounds),
        100 * sum(each.assessed for each in rounds) / len(rounds),
    )


def touchstone_scores(judged: Sequence[Judged]) -> dict[str, Any]:
    """All that is made of judgements, as TaskScores.write_server takes it but for names.

    metrics  the published mean, from 1 to 10; none where a judge's scores make it no such number
    samples  each dialogue's mean over its rounds with scores
    by       the same by category and by task
    judge    intervals of all of these, clustered by image, or why there is none; bounds, if each
             round that failed had been the worst and the best; how the rounds agree; dialogues won
             against the reference
    faults   what keeps the figure from being whole
    """
    means, _ = published_means(judged)
    rounds = [each for one in judged for each in one.rounds]
    scored = [each for each in rounds if not each.failed]
    failed = len(rounds) - len(scored)
    whole = all(_is_number(each.assessed) for each in scored)
    faults = []
    if failed:
        faults.append(f"{failed:,} of {len(rounds):,} judgements failed and are left out")
    if odd := sum(not WORST <= each.assessed <= BEST for each in scored):
        faults.append(
            f"{odd:,} judgements are not from {WORST:g} to {BEST:g}, and count as they are"
        )
    mean = means.assessed / 100 if means.assessed is not None else None
    if mean is not None and not 0 <= mean <= BEST:  # nan too
        faults.append(f"their mean is {mean:g}, so there is no figure")
        mean = None
    groups: dict[str, dict[str, list[Judged]]] = {"category": {}, "task_name": {}}
    for one in judged:
        for part in one.category.split(","):
            groups["category"].setdefault(part, []).append(one)
        groups["task_name"].setdefault(one.task_name, []).append(one)
    parts = {
        group: {
            value: found
            for value, members in sorted(values.items())
            if (found := _interval(members))
        }
        for group, values in groups.items()
    }
    interval = _interval(judged)
    return {
        "metrics": {} if mean is None else {METRIC: mean},
        "samples": {
            one.id: {METRIC: _mean(one.scored)}
            for one in judged
            if one.scored and all(_is_number(each.assessed) for each in one.scored)
        },
        "by": {
            group: {
                value: {
                    "samples": len({one.id for one in groups[group][value]}),
                    METRIC: found.mean,
                }
                for value, found in values.items()
                if 0 <= found.mean <= BEST
            }
            for group, values in parts.items()
        },
        "judge": {
            "judgements": len(scored),
            "failed": failed,
            "interval": _ends(interval),
            "no_interval": interval.reason if interval else "",
            "images": interval.clusters if interval else 0,
            "bounds": _bounds(scored, failed) if whole else None,
            "reference": means.reference / 100 if _is_number(means.reference) else None,
            "intervals": {
                group: {value: _ends(found) for value, found in values.items()}
                for group, values in parts.items()
            },
            "no_intervals": {
                group: {value: found.reason for value, found in values.items() if found.reason}
                for group, values in parts.items()
            },
            "rounds": _agreement(judged),
            "against_reference": _against_reference(judged),
        },
        "faults": faults,
    }


def _interval(judged: Sequence[Judged]) -> Interval | None:
    values = [(each.assessed, one.image or one.id) for one in judged for each in one.scored]
    if not values or not all(_is_number(value) for value, _ in values):
        return None
    tally = Tally.of([value for value, _ in values], [image for _, image in values])
    return tally.interval(WORST, BEST)


def _ends(interval: Interval | None) -> list[float] | None:
    if interval is None or interval.low is None or interval.high is None:
        return None
    return [interval.low, interval.high]


def _bounds(scored: Sequence[Round], failed: int) -> list[float] | None:
    """The mean, had every round that failed been the worst, and the best."""
    if not scored and not failed:
        return None
    total = sum(each.assessed for each in scored)
    count = len(scored) + failed
    return [(total + failed * WORST) / count, (total + failed * BEST) / count]


def _agreement(judged: Sequence[Judged]) -> dict[str, Any]:
    """Dialogues with two scored rounds: how many agree on who is better, and by how much not.

    same_winner      dialogues whose rounds prefer the same answer, or neither
    difference       mean distance of the assessed answer's two scores
    first_preferred  by how much the answer that stands first is scored higher, on average
    """
    pairs = [one.rounds for one in judged if _all_numbers(one.rounds)]
    if not pairs:
        return {"dialogues": 0, "same_winner": 0, "difference": None, "first_preferred": None}
    return {
        "dialogues": len(pairs),
        "same_winner": sum(_winner([a]) == _winner([b]) for a, b in pairs),
        "difference": sum(abs(a.assessed - b.assessed) for a, b in pairs) / len(pairs),
        "first_preferred": sum(
            (a.reference - a.assessed) + (b.assessed - b.reference) for a, b in pairs
        )
        / (2 * len(pairs)),
    }


def _against_reference(judged: Sequence[Judged]) -> dict[str, int]:
    """Dialogues whose answer is scored above, like or below the reference answer."""
    winners = [_winner(one.scored) for one in judged if _all_numbers(one.scored)]
    return {name: winners.count(sign) for name, sign in (("win", 1), ("tie", 0), ("loss", -1))}


def _winner(rounds: Sequence[Round]) -> int:
    """1 for the assessed answer, -1 for the reference, 0 for neither."""
    margin = sum(each.assessed - each.reference for each in rounds)
    return (margin > 0) - (margin < 0)


def _mean(rounds: Sequence[Round]) -> float:
    return sum(each.assessed for each in rounds) / len(rounds)


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) <= LARGEST  # nan is not


def _all_numbers(rounds: Sequence[Round]) -> bool:
    return bool(rounds) and all(
        not each.failed and _is_number(each.assessed) and _is_number(each.reference)
        for each in rounds
    )
