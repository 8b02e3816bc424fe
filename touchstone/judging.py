"""What is asked of a judge, and asking it: at once, within a budget, nothing twice.

dialogues -> wanted -> (the ledger has it, or ask) -> judged dialogues
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from time import monotonic
from typing import Any

import orjson

from eval.errors import JudgeError
from touchstone.client import TRIES, Client, Refused, Unanswered, Unfit, Unreachable
from touchstone.judge import Judge, Reply, scale_fault, usable
from touchstone.ledger import MOST_CALLS, Ask, Ledger
from touchstone.prompt import JudgePrompt
from touchstone.table import Dialogue

ROUNDS = (1, 2)  # the reference first, then the assessed answer
CONCURRENCY = 48
PAID_TRIES = MOST_CALLS  # of a request, where each may cost: replies, and those that were lost
PREFLIGHT = 3  # usable replies before requests go out together
ALONE = 6  # requests that go out one at a time, at most
UNUSABLE = 5  # replies without one among them that can be used: the judge does not fit
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between them, where the server does not say
SILENT = 3  # requests in a row that got no answer at all: the server is down
DEAF = 8  # requests refused in a row: it refuses whatever we ask
SHOWN = 200  # characters of a reply that a message shows
EXCESS = 1 + 1e-9  # above it a cost is more than another, not the same in another order


@dataclass(frozen=True, slots=True)
class Wanted:
    """A judgement that is wanted: a dialogue, judged in one round."""

    ask: Ask
    dialogue: Dialogue
    round: int
    prompt: JudgePrompt

    @property
    def messages(self) -> list[dict[str, str]]:
        """What the judge is shown."""
        return messages(self.dialogue, self.round, self.prompt)


def messages(dialogue: Dialogue, number: int, prompt: JudgePrompt) -> list[dict[str, str]]:
    """A request's messages; the reference stands first in round 1, the assessed answer in 2."""
    answers = (dialogue.reference, str(dialogue.response))
    first, second = answers if number == 1 else answers[::-1]
    return prompt.messages(dialogue.annotation, dialogue.question, first, second)


@dataclass(frozen=True, slots=True)
class Occasion:
    """Some answers before a judge: all that is asked, and what it is known by.

    name     the same for the same answers, judge and prompt
    judging  the judge and prompt alone
    wanted   two rounds of every dialogue
    anchors  two rounds of every anchor, asked anew on every occasion
    """

    name: str
    judging: str
    judge: Judge
    prompt: JudgePrompt
    wanted: tuple[Wanted, ...]
    anchors: tuple[Wanted, ...]

    @classmethod
    def of(
        cls,
        task: str,
        dialogues: Sequence[Dialogue],
        judge: Judge,
        prompt: JudgePrompt,
        anchors: Sequence[Dialogue] = (),
    ) -> "Occasion":
        """All that is to be asked about dialogues with their responses."""
        judging = _digest(judge.describe(), prompt.digest)
        keyed = [
            (judge.key(messages(dialogue, number, prompt)), dialogue, number)
            for dialogue in dialogues
            for number in ROUNDS
        ]
        name = _digest(judging, [key for key, _, _ in keyed])
        about = {"task": task, "prompt": prompt.digest[:16]}
        wanted = tuple(
            Wanted(
                Ask(key, name, about | {"sample": dialogue.id, "round": number}),
                dialogue,
                number,
                prompt,
            )
            for key, dialogue, number in keyed
        )
        fixed = tuple(
            Wanted(
                Ask(
                    judge.key(messages(anchor, number, prompt), "anchor", name),
                    name,
                    {"anchor": anchor.id, "round": number, "judging": judging},
                ),
                anchor,
                number,
                prompt,
            )
            for anchor in anchors
            for number in ROUNDS
        )
        return cls(name, judging, judge, prompt, wanted, fixed)

    def open(self, ledger: Ledger) -> list[Wanted]:
        """What must still be asked: each request once, the anchors last."""
        found: dict[str, Wanted] = {}
        for wanted in (*self.wanted, *self.anchors):
            if not ledger.settled(wanted.ask.key):
                found.setdefault(wanted.ask.key, wanted)
        return list(found.values())


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
    retries: int = 0
    unanswered: int = 0
    reason: str = ""
    over_budget: bool = False
    halted: str = ""


@dataclass(slots=True)
class Asking:
    """Asks what is open, many at a time.

    budget        USD for the whole occasion, what it has cost before included
    watch         told how many are settled, after each
    tell          told why nothing has come yet
    tries         of a request that gets no answer
    proven        whether a usable reply is known from earlier
    as_published  scores outside the scale count
    """

    client: Client
    ledger: Ledger
    budget: float | None = None
    concurrency: int = CONCURRENCY
    watch: Callable[[int], None] = lambda _settled: None
    tell: Callable[[str], None] = lambda _reason: None
    tries: int = TRIES
    proven: bool = False
    as_published: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    stop: Event = field(default_factory=Event)
    guard: Lock = field(default_factory=Lock)
    paid_tries: Counter[str] = field(default_factory=Counter)  # of each key
    done: int = 0
    refused: int = 0
    silent: int = 0

    def ask(self, wanted: Sequence[Wanted]) -> Outcome:
        """Ask all of them; returns when each is settled, has got no answer, or money is out.

        The first few are asked alone: a wrong key, model or address costs one request, a judge
        whose replies cannot be used a handful. Raises JudgeError for what concerns every request;
        all replies are in the ledger by then.
        """
        try:
            self._alone(wanted)
            replies = -1
            while self.outcome.replies > replies and not self.outcome.halted:
                # again, where the budget stopped it: what was under way has cost less than was
                # held back for it, so there is money
                replies = self.outcome.replies
                if self.outcome.over_budget:
                    self.outcome.over_budget = False
                    self.stop.clear()
                self.outcome.unanswered = self.silent = 0
                self._together(each for each in wanted if not self.ledger.settled(each.ask.key))
                if not self.outcome.over_budget:
                    break
        finally:
            self.stop.set()
        return self.outcome

    def _alone(self, wanted: Sequence[Wanted]) -> None:
        """Ask one at a time, each once, until a few replies can be used.

        Those come first that have had the fewest replies: another try shows something new.
        """
        unsettled = [each for each in wanted if not self.ledger.settled(each.ask.key)]
        waiting = deque(sorted(unsettled, key=lambda each: self.ledger.calls(each.ask.key)))
        enough = 1 if self.proven else PREFLIGHT
        while (
            waiting
            and not self.stop.is_set()
            and self.outcome.usable < enough
            and self.outcome.replies < ALONE
        ):
            each = waiting.popleft()
            self._settle(each, once=True)
            if self._may_ask(each.ask):
                waiting.append(each)

    def _together(self, waiting: Iterator[Wanted]) -> None:
        """Ask all that are waiting, many at a time."""
        with ThreadPoolExecutor(self.concurrency, "judge") as threads:
            workers = [threads.submit(self._work, waiting) for _ in range(self.concurrency)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:  # a signal too: what is under way is waited for
                self.stop.set()
                raise

    def _work(self, waiting: Iterator[Wanted]) -> None:
        try:
            while not self.stop.is_set():
                with self.guard:
                    wanted = next(waiting, None)
                if wanted is None:
                    return
                self._settle(wanted)
        except BaseException:
            self.stop.set()
            raise

    def _may_ask(self, ask: Ask) -> bool:
        """Whether a request is open and has tries left."""
        return not self.ledger.settled(ask.key) and self.paid_tries[ask.key] < PAID_TRIES

    def _settle(self, wanted: Wanted, *, once: bool = False) -> None:
        """Ask until there are scores, or there is no use in asking."""
        ask, client = wanted.ask, self.client
        shown = wanted.messages
        while self._may_ask(ask) and not self.stop.is_set():
            began = monotonic()
            try:
                reply = self._reply(ask, shown)
            except Refused as refused:
                self.ledger.refused(ask, str(refused), client.judge.describe())
                with self.guard:
                    self.refused += 1
                    deaf = self.refused >= DEAF
                if deaf:
                    raise JudgeError(
                        f"{client.where} refuses every request, the last with {refused}. "
                        "Those cost nothing; its parameters may not suit it (--parameter). Ask "
                        "them again with --retry-failed"
                    ) from None
            except Unanswered as unanswered:
                self._unanswered(unanswered)
                return
            else:
                if reply is None:
                    return
                self._received(ask, shown, reply, round(monotonic() - began, 3))
            if once:
                break
        with self.guard:
            if self.ledger.settled(ask.key):
                self.done += 1
                self.watch(self.done)
            elif self.paid_tries[ask.key] >= PAID_TRIES:
                self.outcome.unanswered += 1
                self.outcome.reason = f"{PAID_TRIES} replies were lost or had no scores"

    def _received(self, ask: Ask, shown: list[dict[str, str]], reply: Reply, took_s: float) -> None:
        """Put down a reply; stop where it shows that the judge does not fit."""
        judge = self.client.judge
        usd, most = self._usd(shown, reply), self._most(shown)
        self.ledger.judged(ask, reply, usd, judge.describe(), took_s=took_s)
        good = usable(reply.text, as_published=self.as_published)
        with self.guard:
            self.paid_tries[ask.key] += 1
            self.outcome.replies += 1
            self.outcome.usable += good
            self.silent = self.refused = 0
            if usd is not None and most is not None and usd > most * EXCESS:
                asked, replied = reply.tokens or (0, 0)
                bounds = judge.most_tokens(shown)
                self._halt(
                    f"the server bills {asked:,} + {replied:,} tokens for a request that has at "
                    f"most {bounds[0]:,} + {bounds[1]:,}, so that no bound on the cost holds; set "
                    "the length of a reply with --parameter max_tokens=N"
                )
            elif self.outcome.replies >= UNUSABLE and not (self.proven or self.outcome.usable):
                self._halt(self._misfit(reply))

    def _misfit(self, reply: Reply) -> str:
        """Why no reply can be used, with the last of them."""
        shown = self.client.scrub(reply.text)[:SHOWN]
        off = "" if self.as_published else scale_fault(reply.text)
        advice = (
            "; --as-published counts such scores"
            if off
            else "; --parameter and --judge-prompt change how it is asked"
        )
        return (
            f"none of the first {self.outcome.replies} replies can be used. The last was "
            f"{shown!r}: {self.client.scrub(off or reply.fault)}. A reply must begin with two "
            f"numbers from 1 to 10, such as '8 7'{advice}"
        )

    def _halt(self, reason: str) -> None:
        self.outcome.halted = self.outcome.halted or reason
        self.stop.set()

    def _reply(self, ask: Ask, shown: list[dict[str, str]]) -> Reply | None:
        """One reply, asked for again while the server has none; None where we are to stop."""
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
                self.outcome.retries += 1
                if not self.outcome.replies:
                    self.tell(f"no answer yet: {error}; trying again in {seconds:.1f} s")
            return seconds

        def stopping(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            tries = self.tries
            if isinstance(error, Unanswered) and not self.outcome.replies:
                tries = min(error.tries, tries)
            spent = self.paid_tries[ask.key] >= PAID_TRIES
            return self.stop.is_set() or spent or state.attempt_number >= tries

        retrying = Retrying(
            stop=stopping,
            wait=wait,
            retry=retry_if_exception_type(Unanswered),
            sleep=sleep_using_event(self.stop),
            reraise=True,
        )
        return retrying(self._once, ask, shown)

    def _once(self, ask: Ask, shown: list[dict[str, str]]) -> Reply | None:
        most = self._most(shown)
        if self.stop.is_set():
            return None
        if not self.ledger.asked(ask, most, self.budget):
            self.outcome.over_budget = True
            self.stop.set()
            return None
        try:
            return self.client.ask(shown)
        except Unanswered as unanswered:
            self.ledger.unanswered(ask, str(unanswered), most if unanswered.paid else 0.0)
            if unanswered.paid:
                with self.guard:
                    self.paid_tries[ask.key] += 1
            raise
        except JudgeError as error:
            self.ledger.unanswered(ask, str(error), most if isinstance(error, Unfit) else 0.0)
            raise

    def _unanswered(self, unanswered: Unanswered) -> None:
        with self.guard:
            self.outcome.unanswered += 1
            self.outcome.reason = str(unanswered)
            self.silent += 1
            down = self.silent >= SILENT or not self.outcome.replies
        if down and not self.stop.is_set():
            client = self.client  # the reason names the proxy where nothing was connected
            where = client.judge.host if isinstance(unanswered, Unreachable) else client.where
            raise JudgeError(
                f"the judge at {where} does not answer: {unanswered}. What was "
                "judged is kept; the same command goes on"
            )

    def _most(self, shown: list[dict[str, str]]) -> float | None:
        judge = self.client.judge
        return judge.price.usd(*judge.most_tokens(shown)) if judge.price else None

    def _usd(self, shown: list[dict[str, str]], reply: Reply) -> float | None:
        price = self.client.judge.price
        if price is None:
            return None
        return price.usd(*reply.tokens) if reply.tokens else self._most(shown)


def _digest(*told: Any) -> str:
    content = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]
