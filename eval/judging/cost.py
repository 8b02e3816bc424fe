"""What judging will cost: about, and never more; and whether that may be spent."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eval.client.sending import PAID_TRIES
from eval.client.server import BATCH_SHARE, Server
from eval.errors import JudgeError, UsageError
from eval.judging.occasion import JudgeRequest

CONFIRM_USD = 1.0  # above it a person is asked, or a budget must be given


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests will take.

    usd       about; None where prices are not known
    most_usd  never more: each request at its largest, as often as it may be tried
    """

    server: Server
    batch: bool
    requests: int
    asked: int
    replied: int
    usd: float | None
    most_usd: float | None

    def __str__(self) -> str:
        """In words."""
        whom = f"{self.server.model} at {self.server.host}"
        text = f"{self.requests:,} requests to {whom}, about {self.asked:,} tokens"
        if self.usd is None:
            return f"{text}; their price is not known"
        most = ", in batches" if self.batch else f" if each is asked {PAID_TRIES} times"
        return f"{text}: about ${self.usd:,.2f}, at most ${self.most_usd or 0.0:,.2f}{most}"


def estimate(server: Server, requests: Iterable[JudgeRequest], *, batch: bool = False) -> Estimate:
    """Tokens and cost of requests that are to be sent."""
    count = asked = replied = 0
    most_usd = 0.0
    share, tries = (BATCH_SHARE, 1) if batch else (1.0, PAID_TRIES)
    for each in requests:
        messages = each.messages
        tokens = server.likely_tokens(messages)
        count, asked, replied = count + 1, asked + tokens[0], replied + tokens[1]
        most_usd += tries * (server.most_usd(messages, share) or 0.0)
    if server.price is None:
        return Estimate(server, batch, count, asked, replied, None, None)
    usd = server.price.usd(asked, replied, share)
    return Estimate(server, batch, count, asked, replied, usd, most_usd)


def agree_on_cost(
    cost: Estimate, spent: float, budget: float | None, confirm: Callable[[str], None]
) -> None:
    """Stop where an estimate is too much, or nobody agrees.

    spent    USD of the budget that is spent already
    confirm  called with a question; raises where the answer is no

    Raises UsageError for a budget where prices are not known, JudgeError for one that is too small.
    """
    server = cost.server
    if cost.usd is None:
        if budget is not None:
            raise UsageError(
                f"--budget: the price of {server.model!r} at {server.host} is not known; say "
                "it with --price IN/OUT, USD for a million tokens. Nothing was asked"
            )
        if not server.local:
            confirm(f"Ask {cost.requests:,} requests at a price that is not known?")
        return
    if budget is not None and spent + cost.usd > budget:
        before = f" beside ${spent:,.2f} spent before" if spent else ""
        raise JudgeError(
            f"about ${cost.usd:,.2f} expected{before}, more than --budget {budget:g}. Nothing "
            "was asked"
        )
    if cost.usd > CONFIRM_USD:
        confirm(f"Spend about ${cost.usd:,.2f}?")
