"""What judging costs, said before anything is asked; and who agrees to it."""

import sys
from contextlib import suppress

import typer
from rich.markup import escape

from eval.cli.console import err
from eval.cli.judges import How
from eval.errors import JudgeError, UsageError
from touchstone.cost import Estimate
from touchstone.judging import PAID_TRIES, Occasion
from touchstone.ledger import Ledger

CONFIRM_USD = 1.0  # above it a person is asked, or a budget must be given


def agree_on_cost(cost: Estimate, occasion: Occasion, ledger: Ledger, how: How) -> None:
    """Say what it will cost; stop where that is too much, or nobody agrees."""
    say(shown_cost(cost, how))
    spent = ledger.spent(occasion.name) + how.beside
    if cost.usd is None:
        if how.budget is not None:
            raise UsageError(
                f"--budget: the price of {how.judge.model!r} at {how.judge.host} is not known; say "
                "it with --price IN/OUT, USD for a million tokens. Nothing was asked"
            )
        if not how.judge.local:
            _agree(f"Ask {cost.requests:,} requests at a price that is not known?", how)
        return
    if how.budget is not None and spent + cost.usd > how.budget:
        before = f" beside ${spent:,.2f} spent before" if spent else ""
        raise JudgeError(
            f"about ${cost.usd:,.2f} expected{before}, more than --budget {how.budget:g}. Nothing "
            "was asked"
        )
    if cost.usd > CONFIRM_USD:
        _agree(f"Spend about ${cost.usd:,.2f}?", how)


def _agree(question: str, how: How) -> None:
    """Ask a person; where there is none, a budget or --yes must have said it."""
    if how.yes:
        return
    if sys.stdin.isatty():
        agreed = False
        with suppress(typer.Abort):  # the end of the input is no
            agreed = typer.confirm(question, err=True)
        if not agreed:
            raise JudgeError("not agreed to. Nothing was asked")
    elif how.budget is None:
        raise UsageError(
            f"{question} Nobody can be asked here: give --budget USD or --yes, and --price where "
            "it is not known. Nothing was asked"
        )


def shown_cost(cost: Estimate, how: How) -> str:
    """An estimate in words."""
    whom = f"{how.judge.model} at {how.judge.host}"
    text = f"{cost.requests:,} requests to {whom}, about {cost.asked:,} tokens"
    if cost.usd is None:
        return f"{text}; their price is not known"
    most = ", in batches" if how.batch else f" if each is asked {PAID_TRIES} times"
    return f"{text}: about ${cost.usd:,.2f}, at most ${cost.most_usd or 0.0:,.2f}{most}"


def say(text: str) -> None:
    """Print a line on standard error, as it is."""
    err.print(escape(text), highlight=False, soft_wrap=True)
