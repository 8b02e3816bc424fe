"""The provider's batches: half the price, and an answer within a day.

The same command again and again: it hands in what is open, looks after what was handed in, and
takes over what is done.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field

from eval.errors import JudgeError, UsageError
from eval.storage.reading import Schema
from touchstone.client import Client, Unanswered
from touchstone.judge import BATCH_SHARE, Reply, usable
from touchstone.judging import UNUSABLE, Occasion, Wanted
from touchstone.ledger import Batch, Ledger

PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
WINDOW: Literal["24h"] = "24h"
MOST_REQUESTS, MOST_BYTES = 20_000, 100_000_000  # of one batch: below what providers take
PAGE_SIZE, LISTED = (
    100,
    1000,
)  # of the account's batches, looked through for one that we lost sight of
METADATA = "qwen_vl_eval"
ENDED = ("completed", "failed", "expired", "cancelled")  # anything else is still under way
RESULT_BYTES = 4096  # of one request's result, at most about
RETRIES = 5  # of questions that change nothing

T = TypeVar("T")
Id = Annotated[str, Field(min_length=1)]


# What the server says, as far as it is needed


@dataclass(frozen=True, slots=True)
class ServerFile:
    """A file on the server."""

    id: Id


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of a batch."""

    completed: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a batch failed."""

    message: str | None = None


@dataclass(frozen=True, slots=True)
class Problems:
    """Why a batch failed, in full."""

    data: tuple[Problem, ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerBatch:
    """A batch on the server; its status is one of ENDED, or any other while it is under way."""

    id: Id
    status: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: Counts | None = None
    errors: Problems | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the account's batches; those of other programs may look otherwise."""

    data: tuple[Mapping[str, Any], ...]
    has_more: bool | None = None


FILE, BATCH, PAGE = (
    Schema[ServerFile](ServerFile),
    Schema[ServerBatch](ServerBatch),
    Schema[Page](Page),
)


@dataclass(slots=True)
class BatchOutcome:
    """waiting: requests in batches under way; replies: taken over now; over_budget: not handed in.

    said    what a person would want to know of each batch
    halted  why nothing more is handed in: no reply could be used
    """

    waiting: int = 0
    replies: int = 0
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

    give_up       batches that the server does not know: what they may have cost stays counted
    as_published  scores outside the scale count

    Raises JudgeError where the server refuses; what was handed in or taken over is kept.
    """
    import openai

    from touchstone.wire import Broken

    if client.judge.azure:
        raise UsageError(
            "--batch: Azure's batches are not supported; judge without it. Nothing was asked"
        )
    outcome = BatchOutcome()
    by_key = {w.ask.key: w for w in (*occasion.wanted, *occasion.anchors)}
    try:
        for batch in [b for b in ledger.batches.values() if b.occasion == occasion.name]:
            try:
                _look_after(client, ledger, batch, by_key, outcome)
            except openai.NotFoundError:
                if not give_up:
                    raise JudgeError(
                        f"batch {batch.id or batch.name}: {client.where} does not know it, or "
                        "its result. Is the key another account's? Results are kept for some weeks "
                        "only. --retry-failed gives it up: its requests are paid again"
                    ) from None
                for key in batch.keys:
                    if key in ledger.open:
                        reason = "its batch was given up"
                        ledger.unanswered(by_key[key].ask, reason, batch.usd[key])
                ledger.ended(batch, "given up")
        under_way = {key: b.occasion for b in ledger.batches.values() for key in b.keys}
        open_now = occasion.open(ledger)
        wanted = [w for w in open_now if w.ask.key not in under_way]
        others = [under_way.get(w.ask.key, occasion.name) != occasion.name for w in open_now]
        if elsewhere := sum(others):
            outcome.waiting += elsewhere
            outcome.said += (f"{elsewhere:,} are in a batch of other answers: judge those first",)
        if not give_up:
            outcome.halted = _misfit(client, ledger, occasion, as_published)
        for part in _parts(client, wanted) if not outcome.halted else ():
            _hand_in(client, ledger, occasion, part, budget, outcome)
    except (openai.OpenAIError, Broken) as error:
        fault = client.fault(error)
        if isinstance(fault, JudgeError):
            raise fault from None
        raise JudgeError(
            f"batches at {client.where}: {fault}. What was handed in and taken over is kept; "
            "the same command goes on"
        ) from None
    return outcome


def _misfit(client: Client, ledger: Ledger, occasion: Occasion, as_published: bool) -> str:
    """Why the judge does not fit, with one of its replies; "" where one of them can be used."""
    replies = []
    for wanted in (*occasion.wanted, *occasion.anchors):
        line = ledger.line(wanted.ask.key)
        if line is None or line.reply is None:
            continue
        if usable(line.reply, as_published=as_published):
            return ""
        replies.append(line.reply)
    if len(replies) < UNUSABLE:
        return ""
    return (
        f"none of {len(replies):,} replies can be used, such as "
        f"{client.scrub(replies[0])[:200]!r}. Change how the judge is asked (--parameter, "
        "--judge-prompt); --retry-failed hands the same requests in again"
    )


def _look_after(
    client: Client, ledger: Ledger, batch: Batch, by_key: dict[str, Wanted], outcome: BatchOutcome
) -> None:
    api = client.api.with_options(max_retries=RETRIES)
    if batch.id:
        answer = api.batches.with_raw_response.retrieve(batch.id)
        found = _read(client, BATCH, answer.content, "a batch")
    else:
        named = _named(client, batch)
        if named is None:
            ledger.ended(batch, "never handed in")
            return
        found = named
        ledger.named(batch, found.id)
    if found.status not in ENDED:
        outcome.waiting += len(batch.keys)
        counts = found.request_counts
        done = f", {counts.completed:,} of {counts.total:,} done" if counts else ""
        outcome.said += (f"batch {found.id}: {found.status}{done}",)
        return
    taken = 0
    for file in (found.output_file_id, found.error_file_id):
        for line in _lines(client, file, RESULT_BYTES * len(batch.keys)) if file else ():
            taken += _take(client, ledger, batch, line, by_key)
    outcome.replies += taken
    outcome.said += (f"batch {found.id}: {found.status}, {taken:,} of {len(batch.keys):,} judged",)
    ledger.ended(batch, str(found.status))
    if found.status != "completed" and not taken:
        problems = (found.errors.data if found.errors else None) or ()
        first = f": {client.scrub(str(problems[0].message))}" if problems else ""
        raise JudgeError(
            f"batch {found.id} at {client.where}: {found.status}{first}. Nothing was judged; "
            "the same command hands it in again"
        )


def _named(client: Client, batch: Batch) -> ServerBatch | None:
    """The batch whose metadata name it: we were killed between handing in and putting down."""
    from openai import Omit, omit

    api = client.api.with_options(max_retries=RETRIES)
    after: str | Omit = omit
    for _ in range(LISTED // PAGE_SIZE):
        answer = api.batches.with_raw_response.list(limit=PAGE_SIZE, after=after)
        page = _read(client, PAGE, answer.content, "a list of batches")
        for found in page.data:
            metadata = found.get("metadata")
            if isinstance(metadata, dict) and metadata.get(METADATA) == batch.name:
                return _read(client, BATCH, orjson.dumps(found), "a batch")
        last = page.data[-1].get("id") if page.data else None
        if not page.has_more or not isinstance(last, str):
            break
        after = last
    return None


def _read(client: Client, schema: Schema[T], content: bytes, expected: str) -> T:
    """What the server says, if it is that: nothing else may end a batch."""
    return schema.parse(content, expected, lambda _: _foreign(client, expected, content))


def _foreign(client: Client, expected: str, content: bytes) -> JudgeError:
    shown = client.scrub(content[:4096].decode("utf-8", "replace"))[:80]
    return JudgeError(
        f"batches at {client.where}: this is not {expected}: {shown!r}. Does the server offer "
        "batches? What was handed in and taken over is kept"
    )


def _take(
    client: Client, ledger: Ledger, batch: Batch, line: bytes, by_key: dict[str, Wanted]
) -> bool:
    """Put down one line of a result; whether it was a judgement of ours."""
    try:
        told = orjson.loads(line)
        key = told["custom_id"]
        wanted = by_key[key] if key in batch.keys else None
        answer = told.get("response") or {}
        body, status = answer.get("body"), answer.get("status_code", 0)
        problem = told.get("error") or (body or {}).get("error")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if wanted is None or ledger.settled(key) or key not in ledger.open:
        return False
    judge = client.judge
    if status != 200 or not isinstance(body, dict) or problem:
        said = problem.get("message") if isinstance(problem, dict) else problem
        reason = client.scrub(f"HTTP {status}: {said}")
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429):
            ledger.refused(wanted.ask, reason, judge.describe(), batch.name)
        else:
            ledger.unanswered(wanted.ask, reason, 0.0)
        return False
    try:
        reply = client.parse(orjson.dumps(body))
    except (Unanswered, orjson.JSONEncodeError) as unreadable:  # the latter: nested too deeply
        ledger.unanswered(wanted.ask, str(unreadable), batch.usd[key])
        return False
    usd = _usd(client, batch, key, reply)
    ledger.judged(wanted.ask, reply, usd, judge.describe(), batch=batch.name)
    return True


def _usd(client: Client, batch: Batch, key: str, reply: Reply) -> float | None:
    price = client.judge.price
    if price is None:
        return None
    return price.usd(*reply.tokens, BATCH_SHARE) if reply.tokens else batch.usd[key]


def _parts(client: Client, wanted: Sequence[Wanted]) -> Iterator[list[tuple[Wanted, bytes]]]:
    """What is handed in together, with each request's line."""
    part: list[tuple[Wanted, bytes]] = []
    size = 0
    for each in wanted:
        request = {
            "custom_id": each.ask.key,
            "method": "POST",
            "url": PATH,
            "body": client.judge.request(each.messages),
        }
        line = orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)
        if part and (len(part) >= MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append((each, line))
        size += len(line)
    if part:
        yield part


def _hand_in(
    client: Client,
    ledger: Ledger,
    occasion: Occasion,
    part: list[tuple[Wanted, bytes]],
    budget: float | None,
    outcome: BatchOutcome,
) -> None:
    judge, spent = client.judge, ledger.spent(occasion.name)
    chosen: list[bytes] = []
    usd: dict[str, float | None] = {}
    for each, line in part:
        most = (
            judge.price.usd(*judge.most_tokens(each.messages), BATCH_SHARE) if judge.price else None
        )
        if budget is not None and spent + (most or 0.0) > budget:
            outcome.over_budget += 1
            continue
        spent += most or 0.0
        usd[each.ask.key] = most
        chosen.append(line)
    if not chosen:
        return
    content = b"".join(chosen)
    calls = [ledger.calls(key) for key in usd]
    told = orjson.dumps([occasion.name, list(usd), calls, ledger.end])  # the end: no name twice
    batch = Batch(hashlib.sha256(told).hexdigest()[:32], occasion.name, tuple(usd), usd)
    ledger.handed_in(batch)
    api = client.transfer(len(content), RETRIES)
    sent = (f"{batch.name}.jsonl", content)
    answer = api.files.with_raw_response.create(file=sent, purpose="batch")
    file = _read(client, FILE, answer.content, "a file")
    # not tried again: a second one would be paid too; it is found by its metadata instead
    handed_in = client.api.batches.with_raw_response.create(
        input_file_id=file.id,
        endpoint=PATH,
        completion_window=WINDOW,
        metadata={METADATA: batch.name},
    )
    created = _read(client, BATCH, handed_in.content, "a batch")
    ledger.named(batch, created.id)
    outcome.waiting += len(usd)
    outcome.said += (f"batch {created.id}: {len(usd):,} requests handed in",)


def _lines(client: Client, file_id: str, size: int) -> Iterator[bytes]:
    """Lines of a file on the server, of about so many bytes."""
    api = client.transfer(size, RETRIES)
    content = api.files.with_raw_response.content(file_id).content
    lines = content.splitlines()
    if lines and not any(line.lstrip().startswith(b"{") for line in lines):
        raise _foreign(client, "a batch's result", content)
    yield from lines
