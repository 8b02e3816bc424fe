"""What is asked of a judge, and asking it: at once, within a budget, nothing twice.

dialogues -> wanted -> (the ledger has it, or ask) -> judged dialogues
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from time import monotonic
from typing import Any

import orjson

from eval.errors import JudgeError
from touchstone.judge import (
    BATCH_SHARE,
    Client,
    Judge,
    Refused,
    Reply,
    Unanswered,
    Unreachable,
)
from touchstone.ledger import Ask, Ledger
from touchstone.prompt import JudgePrompt
from touchstone.table import Dialogue

ROUNDS = (1, 2)  # the reference first, then the assessed answer
CONCURRENCY = 48
TRIES = 9  # of a request that gets no answer
FIRST_TRIES = 3  # where nobody listens and nobody has answered yet: the address may be wrong
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between them, where the server does not say
SILENT = 3  # requests in a row that got no answer at all: the server is down
DEAF = 8  # requests refused in a row: it refuses whatever we ask


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


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests will take: about, and at most if every reply can be read.

    usd  None where prices are not known
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
    share = BATCH_SHARE if batch else 1.0
    for each in wanted:
        shown = each.messages
        tokens = judge.likely_tokens(shown)
        count, asked, replied = count + 1, asked + tokens[0], replied + tokens[1]
        if judge.price:
            most_usd += judge.price.usd(*judge.most_tokens(shown), share)
    if judge.price is None:
        return Estimate(count, asked, replied, None, None)
    return Estimate(count, asked, replied, judge.price.usd(asked, replied, share), most_usd)


@dataclass(slots=True)
class Outcome:
    """How asking went.

    replies      all that were obtained, also those without scores
    unanswered   requests that got no answer, and the last reason
    over_budget  whether it stopped for the budget
    """

    replies: int = 0
    retries: int = 0
    unanswered: int = 0
    reason: str = ""
    over_budget: bool = False


@dataclass(slots=True)
class Asking:
    """Asks what is open, many at a time.

    budget  USD for the whole occasion, what it has cost before included
    watch   told how many are settled, after each
    tell    told why nothing has come yet
    tries   of a request that gets no answer
    """

    client: Client
    ledger: Ledger
    budget: float | None = None
    concurrency: int = CONCURRENCY
    watch: Callable[[int], None] = lambda _settled: None
    tell: Callable[[str], None] = lambda _reason: None
    tries: int = TRIES
    outcome: Outcome = field(default_factory=Outcome)
    stop: Event = field(default_factory=Event)
    guard: Lock = field(default_factory=Lock)
    done: int = 0
    refused: int = 0
    silent: int = 0

    def ask(self, wanted: Sequence[Wanted]) -> Outcome:
        """Ask all of them; returns when each is settled, has got no answer, or money is out.

        The first is asked alone: a wrong key, model or address costs one request. Raises
        JudgeError for what concerns every request; all replies are in the ledger by then.
        """
        waiting = iter(wanted)
        try:
            while not (self.outcome.replies or self.refused or self.stop.is_set()):
                if (first := next(waiting, None)) is None:
                    return self.outcome
                self._settle(first)
            replies = 0
            while self._together(waiting).over_budget and self.outcome.replies > replies:
                # what was under way has cost less than was held back for it: there is money again
                replies = self.outcome.replies
                waiting = (each for each in wanted if not self.ledger.settled(each.ask.key))
                self.outcome.over_budget, self.outcome.unanswered = False, 0
                self.silent = 0
                self.stop.clear()
        finally:
            self.stop.set()
        return self.outcome

    def _together(self, waiting: Iterator[Wanted]) -> Outcome:
        """Ask all that are waiting, many at a time."""
        with ThreadPoolExecutor(self.concurrency, "judge") as threads:
            workers = [threads.submit(self._work, waiting) for _ in range(self.concurrency)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:  # a signal too: what is under way is waited for
                self.stop.set()
                raise
        return self.outcome

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

    def _settle(self, wanted: Wanted) -> None:
        """Ask until there are scores, or there is no use in asking."""
        ask, client = wanted.ask, self.client
        shown = wanted.messages
        about = client.judge.describe()
        while not self.ledger.settled(ask.key) and not self.stop.is_set():
            began = monotonic()
            try:
                reply = self._reply(ask, shown)
            except Refused as refused:
                self.ledger.refused(ask, str(refused), about)
                with self.guard:
                    self.refused += 1
                    deaf = self.refused >= DEAF
                if deaf:
                    raise JudgeError(
                        f"{client.judge.host} refuses every request, the last with {refused}. "
                        "Those cost nothing; 'parameters' of the judge's configuration may not "
                        "suit it. Ask them again with --retry-failed"
                    ) from None
            except Unanswered as unanswered:
                self._unanswered(unanswered)
                return
            else:
                if reply is None:
                    return
                self.ledger.judged(
                    ask, reply, self._usd(shown, reply), about, took_s=round(monotonic() - began, 3)
                )
                with self.guard:
                    self.outcome.replies += 1
                    self.silent = self.refused = 0
        if self.ledger.settled(ask.key):
            with self.guard:
                self.done += 1
                self.watch(self.done)

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
            with self.guard:
                self.outcome.retries += 1
                if not self.outcome.replies:
                    self.tell(f"no answer yet: {error}; trying again")
            return backoff(state) if asked_for is None else asked_for

        def stopping(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            unheard = isinstance(error, Unreachable) and not self.outcome.replies
            tries = min(FIRST_TRIES, self.tries) if unheard else self.tries
            return self.stop.is_set() or state.attempt_number >= tries

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
            raise
        except JudgeError as error:
            self.ledger.unanswered(ask, str(error), 0.0)
            raise

    def _unanswered(self, unanswered: Unanswered) -> None:
        with self.guard:
            self.outcome.unanswered += 1
            self.outcome.reason = str(unanswered)
            self.silent += 1
            down = self.silent >= SILENT or not self.outcome.replies
        if down and not self.stop.is_set():
            raise JudgeError(
                f"the judge at {self.client.judge.host} does not answer: {unanswered}. What was "
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
