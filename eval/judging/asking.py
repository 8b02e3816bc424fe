"""Asking a judge all that is pending: many requests at a time, and when to stop."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

from eval.client.client import Refused, Unanswered, Unreachable
from eval.client.sending import PAID_TRIES, Sender
from eval.client.server import Messages, Reply
from eval.errors import JudgeError
from eval.judging.occasion import JudgeRequest
from eval.judging.task import JudgedTask

CONCURRENCY = 48
PREFLIGHT = 3  # usable replies before requests go out together
ALONE = 6  # requests that go out one at a time, at most
UNUSABLE = 5  # replies without one among them that can be used: the judge does not fit
SILENT = 3  # requests in a row that got no answer at all: the server is down
DEAF = 8  # requests refused in a row: it refuses whatever we ask
SHOWN = 200  # characters of a reply that a message shows
EXCESS = 1 + 1e-9  # above it a cost is more than another, not the same in another order


@dataclass(slots=True)
class Outcome:
    """How asking went.

    replies      all that were obtained, also those without scores
    unanswered   requests that got no answer, and the last reason
    over_budget  whether it stopped for the budget
    halted       why it stopped though there is money: the judge does not fit
    """

    replies: int = 0
    usable: int = 0
    unanswered: int = 0
    reason: str = ""
    over_budget: bool = False
    halted: str = ""


@dataclass(slots=True)
class Asking:
    """Asks what is pending, many requests at a time.

    watch         called with how many are settled, after each
    proven        whether a usable reply is known from earlier
    as_published  scores outside the scale count
    """

    sender: Sender
    task: JudgedTask
    concurrency: int = CONCURRENCY
    watch: Callable[[int], None] = lambda _settled: None
    proven: bool = False
    as_published: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    guard: Lock = field(default_factory=Lock)
    done: int = 0
    refused: int = 0
    silent: int = 0

    def ask(self, pending: Sequence[JudgeRequest]) -> Outcome:
        """Ask all of them; returns when each is settled, has got no answer, or money is out.

        The first few are asked alone: a wrong key, model or address costs one request, a judge
        whose replies cannot be used a handful. Raises JudgeError for what concerns every request;
        all replies are in the ledger by then.
        """
        account = self.sender.ledger.account
        try:
            self._alone(pending)
            replies = -1
            while self.outcome.replies > replies and not self.outcome.halted:
                # again, where the budget stopped it: what was under way has cost less than was
                # held back for it, so there is money
                replies = self.outcome.replies
                if self.sender.over_budget:
                    self.sender.over_budget = False
                    self.sender.stop.clear()
                self.outcome.unanswered = self.silent = 0
                self._together(each for each in pending if not account.settled(each.key))
                if not self.sender.over_budget:
                    break
        finally:
            self.sender.stop.set()
            self.outcome.over_budget = self.sender.over_budget
        return self.outcome

    def _alone(self, pending: Sequence[JudgeRequest]) -> None:
        """Ask one at a time, each once, until a few replies can be used.

        Those come first that have had the fewest replies: another try shows something new.
        """
        account = self.sender.ledger.account
        unsettled = [each for each in pending if not account.settled(each.key)]
        waiting = deque(sorted(unsettled, key=lambda each: account.calls(each.key)))
        enough = 1 if self.proven else PREFLIGHT
        while (
            waiting
            and not self.sender.stop.is_set()
            and self.outcome.usable < enough
            and self.outcome.replies < ALONE
        ):
            each = waiting.popleft()
            self._settle(each, once=True)
            if self.sender.may_send(each.key):
                waiting.append(each)

    def _together(self, waiting: Iterator[JudgeRequest]) -> None:
        """Ask all that are waiting, many at a time."""
        with ThreadPoolExecutor(self.concurrency, "judge") as threads:
            workers = [threads.submit(self._work, waiting) for _ in range(self.concurrency)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:  # a signal too: what is under way is waited for
                self.sender.stop.set()
                raise

    def _work(self, waiting: Iterator[JudgeRequest]) -> None:
        try:
            while not self.sender.stop.is_set():
                with self.guard:
                    request = next(waiting, None)
                if request is None:
                    return
                self._settle(request)
        except BaseException:
            self.sender.stop.set()
            raise

    def _settle(self, request: JudgeRequest, *, once: bool = False) -> None:
        """Ask until there are scores, or there is no use in asking."""
        sender = self.sender
        messages = request.messages
        while sender.may_send(request.key) and not sender.stop.is_set():
            try:
                reply = sender.send(request, messages)
            except Refused as refused:
                self._refused(refused)
            except Unanswered as unanswered:
                self._unanswered(unanswered)
                return
            else:
                if reply is None:
                    return
                self._received(messages, reply)
            if once:
                break
        with self.guard:
            if sender.ledger.account.settled(request.key):
                self.done += 1
                self.watch(self.done)
            elif sender.paid_tries[request.key] >= PAID_TRIES:
                self.outcome.unanswered += 1
                self.outcome.reason = f"{PAID_TRIES} replies were lost or had no scores"

    def _received(self, messages: Messages, reply: Reply) -> None:
        """Stop where a reply shows that the judge does not fit."""
        server = self.sender.client.server
        usd, most = self.sender.usd(messages, reply), server.most_usd(messages)
        good = self.task.usable(reply.text, as_published=self.as_published)
        with self.guard:
            self.outcome.replies += 1
            self.outcome.usable += good
            self.silent = self.refused = 0
            if usd is not None and most is not None and usd > most * EXCESS:
                asked, replied = reply.tokens or (0, 0)
                bounds = server.most_tokens(messages)
                self._halt(
                    f"the server bills {asked:,} + {replied:,} tokens for a request that has at "
                    f"most {bounds[0]:,} + {bounds[1]:,}, so that no bound on the cost holds; set "
                    "the length of a reply with --parameter max_tokens=N"
                )
            elif self.outcome.replies >= UNUSABLE and not (self.proven or self.outcome.usable):
                self._halt(self._misfit(reply))

    def _misfit(self, reply: Reply) -> str:
        """Why no reply can be used, with the last of them."""
        scrub = self.sender.client.scrub
        shown = scrub(reply.text)[:SHOWN]
        off = "" if self.as_published else self.task.scale_fault(reply.text)
        fault = off or reply.explain(self.task.fault_of(reply.text))
        advice = (
            "; --as-published counts such scores"
            if off
            else "; --parameter and --judge-prompt change how it is asked"
        )
        return (
            f"none of the first {self.outcome.replies} replies can be used. The last was "
            f"{shown!r}: {scrub(fault)}. A reply must begin with {self.task.REPLY_FORM}{advice}"
        )

    def _halt(self, reason: str) -> None:
        self.outcome.halted = self.outcome.halted or reason
        self.sender.stop.set()

    def _refused(self, refused: Refused) -> None:
        with self.guard:
            self.refused += 1
            deaf = self.refused >= DEAF
        if deaf:
            raise JudgeError(
                f"{self.sender.client.where} refuses every request, the last with {refused}. "
                "Those cost nothing; its parameters may not suit it (--parameter). Ask "
                "them again with --retry-failed"
            ) from None

    def _unanswered(self, unanswered: Unanswered) -> None:
        with self.guard:
            self.outcome.unanswered += 1
            self.outcome.reason = str(unanswered)
            self.silent += 1
            down = self.silent >= SILENT or not self.outcome.replies
        if down and not self.sender.stop.is_set():
            client = self.sender.client  # the reason names the proxy where nothing was connected
            where = client.server.host if isinstance(unanswered, Unreachable) else client.where
            raise JudgeError(
                f"the judge at {where} does not answer: {unanswered}. What was "
                "judged is kept; the same command goes on"
            )
