"""Every judgement that was ever paid, in one file that only grows.

A line is a JSON object of one of these kinds, by its first field:

    asked       a request is about to be sent, and may cost so much
    judged      what was replied, or that the server refuses the request; what it cost
    unanswered  nothing came; what it may have cost all the same
    again       a request that failed may be asked anew
    batch       a batch was handed in, ended, or was given up

Requests are known by their key: who is asked, how, and the whole text. What was asked and has no
reply, because we were killed say, counts as paid at its most: no budget is ever exceeded.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from eval.errors import JudgeError
from eval.lock import Locked, locked
from eval.writing import Lines
from touchstone.judge import Reply, fault_of, parse_reply

MOST_CALLS = 5  # of one request, until a reply has scores: the published script's
KINDS = ("asked", "judged", "unanswered", "again", "batch")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a judgement.

    key       see Judge.key
    occasion  of which it is a part: these answers, before this judge
    about     what a person would want to know: task, sample, round
    """

    key: str
    occasion: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _State:
    """What is known of a key: replies so far, where the last line lies, whether it has scores."""

    calls: int = 0
    offset: int = -1
    scored: bool = False
    final: bool = False  # refused: asking again would not help


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was handed in.

    name  ours; the server has it in the batch's metadata
    usd   at most, of each key
    id    the server's, empty until it has told it
    """

    name: str
    occasion: str
    keys: tuple[str, ...]
    usd: Mapping[str, float | None]
    id: str = ""


class Ledger:
    """The file, and what follows from it. Safe in threads; of processes one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guard = Lock()
        self.states: dict[str, _State] = {}
        self.paid: dict[str, float] = {}  # occasion -> USD, open requests at their most
        self.open: dict[str, tuple[str, float]] = {}  # key -> occasion, USD at most
        self.batches: dict[str, Batch] = {}
        self.anchors: dict[tuple[str, str], dict[str, int]] = {}  # see anchor()
        self.lines = Lines(path)
        self.end = 0
        self._read()

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path) -> Iterator["Ledger"]:
        """The ledger, for this process alone. Raises JudgeError where another one holds it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JudgeError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            with locked(path.with_name(f".{path.name}.lock")):
                ledger = cls(path)
                try:
                    yield ledger
                finally:
                    ledger.lines.close()
        except Locked as held_by:
            raise JudgeError(
                f"{path}: another process judges with this ledger ({held_by}). Wait for it, stop "
                "it, or give another file with --ledger"
            ) from None

    # -- what is known ----------------------------------------------------------------------------

    def settled(self, key: str) -> bool:
        """Whether there is nothing left to ask: it has scores, or has failed for good."""
        state = self.states.get(key)
        return state is not None and (state.scored or state.final or state.calls >= MOST_CALLS)

    def calls(self, key: str) -> int:
        """Replies so far."""
        state = self.states.get(key)
        return state.calls if state else 0

    def line(self, key: str) -> dict[str, Any] | None:
        """The last reply to a request, as the file has it."""
        state = self.states.get(key)
        if state is None or state.offset < 0:
            return None
        with self.path.open("rb") as file:
            file.seek(state.offset)
            found: dict[str, Any] = orjson.loads(file.readline())
        return found

    def spent(self, occasion: str) -> float:
        """USD that an occasion has cost, at most."""
        return max(self.paid.get(occasion, 0.0), 0.0)  # nothing, but for rounding

    def anchor(self, judging: str) -> Iterator[tuple[str, dict[str, int]]]:
        """Occasions on which anchors were judged in one way, the earliest first.

        judging  digest of the judge and its prompt; each with (anchor and round -> line's offset)
        """
        for (told, occasion), offsets in self.anchors.items():
            if told == judging:
                yield occasion, offsets

    def at(self, offset: int) -> dict[str, Any]:
        """The line at an offset."""
        with self.path.open("rb") as file:
            file.seek(offset)
            found: dict[str, Any] = orjson.loads(file.readline())
        return found

    # -- what happens -----------------------------------------------------------------------------

    def asked(self, ask: Ask, usd: float | None, budget: float | None = None) -> bool:
        """Put down that a request is about to be sent; False, and nothing, beyond the budget.

        usd     what it costs at most, None where prices are not known
        budget  USD of the whole occasion
        """
        with self.guard:
            if budget is not None and self.spent(ask.occasion) + (usd or 0.0) > budget:
                return False
            self._append({"asked": ask.key, "occasion": ask.occasion, "usd": usd})
            return True

    def judged(
        self,
        ask: Ask,
        reply: Reply,
        usd: float | None,
        judge: Mapping[str, Any],
        *,
        took_s: float | None = None,
        batch: str = "",
    ) -> tuple[float, float] | None:
        """Put down a reply; its scores.

        usd  what it cost, None where prices are not known
        """
        scores = parse_reply(reply.text)
        fault = fault_of(reply.text)
        if fault and reply.finish not in ("", "stop"):
            fault += f" (finish reason {reply.finish!r:.40})"
        told = {
            "judged": ask.key,
            "occasion": ask.occasion,
            **ask.about,
            "judge": judge,
            "reported": reply.model,
            "fingerprint": reply.fingerprint,
            "reply": reply.text,
            "scores": scores,
            "fault": fault,
            "tokens": reply.tokens,
            "usd": usd,
            "took_s": took_s,
            **({"of_batch": batch} if batch else {}),
        }
        with self.guard:
            self._append(told)
        return scores

    def refused(self, ask: Ask, reason: str, judge: Mapping[str, Any], batch: str = "") -> None:
        """Put down that the server will not judge this one, whatever we do."""
        told = {
            "judged": ask.key,
            "occasion": ask.occasion,
            **ask.about,
            "judge": judge,
            "reply": None,
            "scores": None,
            "fault": f"refused: {reason}",
            "usd": 0.0,
            **({"of_batch": batch} if batch else {}),
        }
        with self.guard:
            self._append(told)

    def unanswered(self, ask: Ask, reason: str, usd: float | None) -> None:
        """Put down that nothing came; usd: what it may have cost all the same."""
        with self.guard:
            self._append(
                {"unanswered": ask.key, "occasion": ask.occasion, "fault": reason, "usd": usd}
            )

    def again(self, keys: Iterable[str]) -> int:
        """Let requests that failed be asked anew; how many there are."""
        with self.guard:
            once = dict.fromkeys(keys)
            failed = [key for key in once if self.settled(key) and not self.states[key].scored]
            for key in failed:
                self._append({"again": key})
        return len(failed)

    def named(self, batch: Batch, server_id: str) -> None:
        """Put down what the server calls a batch."""
        with self.guard:
            self._append({"batch": batch.name, "state": "named", "id": server_id})

    def handed_in(self, batch: Batch) -> None:
        """Put down a batch that is about to be handed in."""
        with self.guard:
            self._append(
                {
                    "batch": batch.name,
                    "state": "open",
                    "occasion": batch.occasion,
                    "keys": batch.keys,
                    "usd": dict(batch.usd),
                }
            )

    def ended(self, batch: Batch, reason: str) -> None:
        """Put down that a batch is over; what it left unanswered has cost nothing."""
        with self.guard:
            self._append({"batch": batch.name, "state": "ended", "fault": reason})

    # -- the file ---------------------------------------------------------------------------------

    def _append(self, told: dict[str, Any]) -> None:
        told = {**told, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        content = orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
        self.lines.append(content)
        self._apply(told, self.end)
        self.end += len(content)

    def _read(self) -> None:
        with self.path.open("rb") as file:
            for number, content in enumerate(file, 1):
                try:
                    told = orjson.loads(content)
                    self._apply(told, self.end)
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise JudgeError(
                        f"{self.path}, line {number}: a line of a ledger expected, "
                        f"{content[:80]!r} found. Put the file right, or give another with "
                        "--ledger; judgements that are not in it would be paid again"
                    ) from None
                self.end += len(content)

    def _apply(self, told: Mapping[str, Any], offset: int) -> None:
        """What a line changes. Raises ValueError, KeyError or TypeError for one that is none."""
        (kind,) = [name for name in KINDS if name in told]
        key = _text(told[kind])
        if kind == "asked":
            self._reserve(key, _text(told["occasion"]), told["usd"])
        elif kind == "judged":
            occasion, reply = _text(told["occasion"]), told["reply"]
            self._settle(key, occasion, told["usd"])
            state = self.states.setdefault(key, _State())
            state.calls += 1
            state.offset = offset
            state.final = reply is None
            state.scored = reply is not None and parse_reply(_text(reply)) is not None
            if "anchor" in told:
                group = self.anchors.setdefault((_text(told["judging"]), occasion), {})
                group[f"{told['anchor']} {told['round']}"] = offset
        elif kind == "unanswered":
            self._settle(key, _text(told["occasion"]), told["usd"])
        elif kind == "again":
            self.states[key] = _State()
        else:
            self._batch(told)

    def _batch(self, told: Mapping[str, Any]) -> None:
        name, state = told["batch"], told["state"]
        if state == "open":
            if not isinstance(told["keys"], list | tuple):
                raise TypeError
            keys = tuple(_text(key) for key in told["keys"])
            batch = Batch(name, _text(told["occasion"]), keys, told["usd"])
            for key in keys:
                self._reserve(key, batch.occasion, batch.usd[key])
            self.batches[name] = batch
        elif state == "named":
            server_id = _text(told["id"])
            if name in self.batches:
                self.batches[name] = replace(self.batches[name], id=server_id)
        elif state != "ended":
            raise ValueError(state)
        elif batch_open := self.batches.pop(name, None):
            for key in batch_open.keys:
                if key in self.open:
                    self._settle(key, batch_open.occasion, 0.0)

    def _reserve(self, key: str, occasion: str, usd: float | None) -> None:
        """What is open already stays paid: its reply was lost."""
        most = _amount(usd)
        self.paid[occasion] = self.spent(occasion) + most
        self.open[key] = occasion, most

    def _settle(self, key: str, occasion: str, usd: float | None) -> None:
        held_for, most = self.open.pop(key, (occasion, 0.0))
        self.paid[held_for] = self.spent(held_for) - most
        self.paid[occasion] = self.spent(occasion) + _amount(usd)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _amount(usd: float | None) -> float:
    if usd is None:
        return 0.0
    if isinstance(usd, bool) or not isinstance(usd, int | float):
        raise TypeError
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(usd)
    return float(usd)
