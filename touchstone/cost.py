"""What judging will cost: about, and never more."""

from collections.abc import Iterable
from dataclasses import dataclass

from touchstone.judge import BATCH_SHARE, Judge
from touchstone.judging import PAID_TRIES, Wanted


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests will take.

    usd       about; None where prices are not known
    most_usd  never more: each request at its largest, as often as it may be tried
    """

    requests: int
    asked: int
    replied: int
    usd: float | None
    most_usd: float | None


def estimate(judge: Judge, wanted: Iterable[Wanted], *, batch: bool = False) -> Estimate:
    """Tokens and cost of requests that are to be asked."""
    count = asked = replied = 0
    most_usd = 0.0
    share, tries = (BATCH_SHARE, 1) if batch else (1.0, PAID_TRIES)
    for each in wanted:
        shown = each.messages
        tokens = judge.likely_tokens(shown)
        count, asked, replied = count + 1, asked + tokens[0], replied + tokens[1]
        if judge.price:
            most_usd += tries * judge.price.usd(*judge.most_tokens(shown), share)
    if judge.price is None:
        return Estimate(count, asked, replied, None, None)
    return Estimate(count, asked, replied, judge.price.usd(asked, replied, share), most_usd)
