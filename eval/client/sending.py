"""A request sent until it has a reply: tried again, within a budget, all of it in the ledger."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock
from time import monotonic

from eval.client.account import MOST_CALLS
from eval.client.client import TRIES, Client, Refused, Unanswered, Unfit
from eval.client.ledger import Ledger, Request
from eval.client.server import Messages, Reply
from eval.errors import JudgeError

PAID_TRIES = MOST_CALLS  # of a request, where each may cost: replies, and those that were lost
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between them, where the server does not say


@dataclass(slots=True)
class Sender:
    """Sends requests; safe in threads.

    budget       USD for the whole occasion, what it has cost before included
    tries        of a request that gets no answer
    tell         called with why nothing has come yet
    stop         once it is set nothing more is sent
    replied      whether any reply has come
    over_budget  whether a request was not sent because of the budget
    paid_tries   of each key
    """

    client: Client
    ledger: Ledger
    budget: float | None = None
    tries: int = TRIES
    tell: Callable[[str], None] = lambda _reason: None
    stop: Event = field(default_factory=Event)
    replied: bool = False
    over_budget: bool = False
    paid_tries: Counter[str] = field(default_factory=Counter)
    guard: Lock = field(default_factory=Lock)

    def may_send(self, key: str) -> bool:
        """Whether a request is open and has tries left."""
        return not self.ledger.account.settled(key) and self.paid_tries[key] < PAID_TRIES

    def send(self, request: Request, messages: Messages) -> Reply | None:
        """One reply, asked for again while the server has none; None where it is to stop.

        Raises Refused where the server refuses the request, Unanswered where no try got an answer,
        JudgeError for what concerns every request. All of it is in the ledger by then.
        """
        began = monotonic()
        server = self.client.server
        try:
            reply = self._tried(request, messages)
        except Refused as refused:
            self.ledger.refused(request, str(refused), server.describe())
            raise
        if reply is not None:
            took_s = round(monotonic() - began, 3)
            usd = self.usd(messages, reply)
            self.ledger.judged(request, reply, usd, server.describe(), took_s=took_s)
            with self.guard:
                self.paid_tries[request.key] += 1
                self.replied = True
        return reply

    def usd(self, messages: Messages, reply: Reply) -> float | None:
        """What a reply cost; the most that it may have where the server reports no tokens."""
        price = self.client.server.price
        if price is None or reply.tokens is None:
            return self.client.server.most_usd(messages)
        return price.usd(*reply.tokens)

    def _tried(self, request: Request, messages: Messages) -> Reply | None:
        from tenacity import (
            RetryCallState,
            Retrying,
            retry_if_exception_type,
            sleep_using_event,
            wait_random_exponential,
        )

        backoff = wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_for = error.wait_s if isinstance(error, Unanswered) else None
            seconds = backoff(state) if asked_for is None else asked_for
            with self.guard:
                if not self.replied:
                    self.tell(f"no answer yet: {error}; trying again in {seconds:.1f} s")
            return seconds

        def stopping(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            tries = self.tries
            if isinstance(error, Unanswered) and not self.replied:
                tries = min(error.tries, tries)
            spent = self.paid_tries[request.key] >= PAID_TRIES
            return self.stop.is_set() or spent or state.attempt_number >= tries

        retrying = Retrying(
            stop=stopping,
            wait=wait,
            retry=retry_if_exception_type(Unanswered),
            sleep=sleep_using_event(self.stop),
            reraise=True,
        )
        return retrying(self._once, request, messages)

    def _once(self, request: Request, messages: Messages) -> Reply | None:
        most = self.client.server.most_usd(messages)
        if self.stop.is_set():
            return None
        if not self.ledger.asked(request, most, self.budget):
            self.over_budget = True
            self.stop.set()
            return None
        try:
            return self.client.ask(messages)
        except Unanswered as unanswered:
            self.ledger.unanswered(request, str(unanswered), most if unanswered.paid else 0.0)
            if unanswered.paid:
                with self.guard:
                    self.paid_tries[request.key] += 1
            raise
        except JudgeError as error:
            self.ledger.unanswered(request, str(error), most if isinstance(error, Unfit) else 0.0)
            raise
