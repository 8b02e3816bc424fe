"""The provider's batches: half the price, and an answer within a day.

The same command again and again: it hands in what is open, looks after what was handed in, and
takes over what is done.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from eval.client.account import Batch
from eval.client.batches import ENDED, Batches, Unknown
from eval.client.client import Client, Unanswered
from eval.client.ledger import Ledger
from eval.client.server import BATCH_SHARE, Reply
from eval.errors import JudgeError, UsageError
from eval.judging.asking import UNUSABLE
from eval.judging.occasion import JudgeRequest, Occasion

MOST_REQUESTS, MOST_BYTES = 20_000, 100_000_000  # of one batch: below what providers take


@dataclass(slots=True)
class BatchOutcome:
    """waiting: requests in batches under way; over_budget: requests that were not handed in.

    said    what a person would want to know of each batch
    halted  why nothing more is handed in: no reply could be used
    """

    waiting: int = 0
    over_budget: int = 0
    said: tuple[str, ...] = ()
    halted: str = ""


def work_batches(
    client: Client,
    ledger: Ledger,
    occasion: Occasion,
    budget: float | None = None,
    *,
    give_up: bool = False,
    as_published: bool = False,
) -> BatchOutcome:
    """Take over what is done, and hand in what is open.

    budget        USD for the whole occasion, what it has cost before included
    give_up       batches that the server does not know: what they may have cost stays counted
    as_published  scores outside the scale count

    Raises JudgeError where the server refuses; what was handed in or taken over is kept.
    """
    if client.server.azure:
        raise UsageError(
            "--batch: Azure's batches are not supported; judge without it. Nothing was asked"
        )
    work = _Work(client, ledger, occasion, as_published)
    for batch in [b for b in ledger.account.batches.values() if b.occasion == occasion.name]:
        try:
            work.look_after(batch)
        except Unknown:
            if not give_up:
                raise JudgeError(
                    f"batch {batch.id or batch.name}: {client.where} does not know it, or "
                    "its result. Is the key another account's? Results are kept for some weeks "
                    "only. --retry-failed gives it up: its requests are paid again"
                ) from None
            work.give_up(batch)
    under_way = {key: b.occasion for b in ledger.account.batches.values() for key in b.keys}
    pending = occasion.pending(ledger)
    fresh = [each for each in pending if each.key not in under_way]
    others = [under_way.get(each.key, occasion.name) != occasion.name for each in pending]
    if elsewhere := sum(others):
        work.outcome.waiting += elsewhere
        work.say(f"{elsewhere:,} are in a batch of other answers: judge those first")
    if not give_up:
        work.outcome.halted = work.misfit()
    for part in work.parts(fresh) if not work.outcome.halted else ():
        work.hand_in(part, budget)
    return work.outcome


class _Work:
    """The batches of an occasion."""

    def __init__(
        self, client: Client, ledger: Ledger, occasion: Occasion, as_published: bool
    ) -> None:
        self.client, self.ledger, self.occasion = client, ledger, occasion
        self.as_published = as_published
        self.batches = Batches(client)
        self.by_key = occasion.by_key
        self.outcome = BatchOutcome()

    def say(self, text: str) -> None:
        self.outcome.said += (text,)

    def look_after(self, batch: Batch) -> None:
        """Take over its judgements, if it has ended. Raises Unknown."""
        found = self.batches.look_up(batch)
        if found is None:
            self.ledger.ended(batch, "never handed in")
            return
        if not batch.id:
            self.ledger.named(batch, found.id)
        if found.status not in ENDED:
            self.outcome.waiting += len(batch.keys)
            counts = found.request_counts
            done = f", {counts.completed:,} of {counts.total:,} done" if counts else ""
            self.say(f"batch {found.id}: {found.status}{done}")
            return
        lines = self.batches.results(found, len(batch.keys))
        taken = sum(self._take(batch, line) for line in lines)
        self.say(f"batch {found.id}: {found.status}, {taken:,} of {len(batch.keys):,} judged")
        self.ledger.ended(batch, str(found.status))
        if found.status != "completed" and not taken:
            problems = (found.errors.data if found.errors else None) or ()
            first = f": {self.client.scrub(str(problems[0].message))}" if problems else ""
            raise JudgeError(
                f"batch {found.id} at {self.client.where}: {found.status}{first}. Nothing was "
                "judged; the same command hands it in again"
            )

    def give_up(self, batch: Batch) -> None:
        """Leave a batch that the server does not know: it may have cost its most."""
        for key in batch.keys:
            if key in self.ledger.account.open:
                self.ledger.unanswered(self.by_key[key], "its batch was given up", batch.usd[key])
        self.ledger.ended(batch, "given up")

    def misfit(self) -> str:
        """Why the judge does not fit, with one of its replies; "" where one of them can be used."""
        replies = []
        for request in (*self.occasion.requests, *self.occasion.anchors):
            line = self.ledger.line(request.key)
            if line is None or line.reply is None:
                continue
            if self.occasion.task.usable(line.reply, as_published=self.as_published):
                return ""
            replies.append(line.reply)
        if len(replies) < UNUSABLE:
            return ""
        return (
            f"none of {len(replies):,} replies can be used, such as "
            f"{self.client.scrub(replies[0])[:200]!r}. Change how the judge is asked (--parameter, "
            "--judge-prompt); --retry-failed hands the same requests in again"
        )

    def parts(self, fresh: Sequence[JudgeRequest]) -> Iterator[list[tuple[JudgeRequest, bytes]]]:
        """What is handed in together, with each request's line."""
        part: list[tuple[JudgeRequest, bytes]] = []
        size = 0
        for request in fresh:
            line = self.batches.line(request.key, request.messages)
            if part and (len(part) >= MOST_REQUESTS or size + len(line) > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append((request, line))
            size += len(line)
        if part:
            yield part

    def hand_in(self, part: list[tuple[JudgeRequest, bytes]], budget: float | None) -> None:
        """Hand in as many requests as the budget allows."""
        ledger, occasion = self.ledger, self.occasion.name
        spent = ledger.account.spent(occasion)
        chosen: list[bytes] = []
        usd: dict[str, float | None] = {}
        for request, line in part:
            most = self.client.server.most_usd(request.messages, BATCH_SHARE)
            if budget is not None and spent + (most or 0.0) > budget:
                self.outcome.over_budget += 1
                continue
            spent += most or 0.0
            usd[request.key] = most
            chosen.append(line)
        if not chosen:
            return
        calls = [ledger.account.calls(key) for key in usd]
        # with the end of the file no name comes twice
        identity = orjson.dumps([occasion, list(usd), calls, ledger.file.end])
        batch = Batch(hashlib.sha256(identity).hexdigest()[:32], occasion, tuple(usd), usd)
        ledger.handed_in(batch)
        created = self.batches.hand_in(batch.name, b"".join(chosen))
        ledger.named(batch, created.id)
        self.outcome.waiting += len(usd)
        self.say(f"batch {created.id}: {len(usd):,} requests handed in")

    def _take(self, batch: Batch, line: bytes) -> bool:
        """Record one line of a result; whether it was a judgement of ours."""
        try:
            result = orjson.loads(line)
            key = result["custom_id"]
            request = self.by_key[key] if key in batch.keys else None
            answer = result.get("response") or {}
            body, status = answer.get("body"), answer.get("status_code", 0)
            problem = result.get("error") or (body or {}).get("error")
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        account = self.ledger.account
        if request is None or account.settled(key) or key not in account.open:
            return False
        server = self.client.server
        if status != 200 or not isinstance(body, dict) or problem:
            said = problem.get("message") if isinstance(problem, dict) else problem
            reason = self.client.scrub(f"HTTP {status}: {said}")
            if isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429):
                self.ledger.refused(request, reason, server.describe(), batch.name)
            else:
                self.ledger.unanswered(request, reason, 0.0)
            return False
        try:
            reply = self.client.parse(orjson.dumps(body))
        except (Unanswered, orjson.JSONEncodeError) as unreadable:  # the latter: nested too deeply
            self.ledger.unanswered(request, str(unreadable), batch.usd[key])
            return False
        usd = self._usd(batch, key, reply)
        self.ledger.judged(request, reply, usd, server.describe(), batch=batch.name)
        return True

    def _usd(self, batch: Batch, key: str, reply: Reply) -> float | None:
        price = self.client.server.price
        if price is None:
            return None
        return price.usd(*reply.tokens, BATCH_SHARE) if reply.tokens else batch.usd[key]
