"""From judgements to TouchStone's figures."""

from collections.abc import Iterable
from dataclasses import dataclass

OK = "ok"
ERROR = "error"


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

    category  its category, or several with commas between
    """

    category: str
    rounds: tuple[Round, Round]


@dataclass(frozen=True, slots=True)
class Means:
    """Mean scores x 100 of reference and assessed answers; None where no round has scores."""

    reference: float | None
    assessed: float | None


def published(judged: Iterable[Judged]) -> tuple[Means, dict[str, Means]]:
    """Figures over all rounds with scores, and by category, as the published script makes them.

    Source  TouchStone's eval script; equal to it on tests/golden/metrics/touchstone_cases.json
    Quirks  kept as in the source: a dialogue counts once for each comma-separated part of its
            category, which is neither stripped nor taken once; rounds that failed are left out
    """
    every: list[Round] = []
    by_category: dict[str, list[Round]] = {}
    for one in judged:
        rounds = [each for each in one.rounds if not each.failed]
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
