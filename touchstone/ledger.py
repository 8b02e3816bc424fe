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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from eval.errors import JudgeError
from eval.storage.lock import Locked, locked
from eval.storage.reading import exists, open_file, reason
from eval.storage.writing import Lines
from touchstone.entries import (
    LINE,
    AgainLine,
    AnchorLine,
    AskedLine,
    EndedLine,
    JudgedLine,
    Line,
    NamedLine,
    OpenLine,
    UnansweredLine,
)
from touchstone.judge import Reply, parse_reply

MOST_CALLS = 5  # of one request, until a reply has scores: the published script's
MOST_BYTES = 1 << 33  # of a ledger
LINE_BYTES = 1 << 24  # of one of its lines
ADVICE = (
    "Put the file right, or give another with --ledger; judgements that are not in it would be "
    "paid again"
)


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
    """What is known of a key: replies so far, where the last line lies, whether it has scores.

    usable  the scores are on the scale too
    """

    calls: int = 0
    offset: int = -1
    scored: bool = False
    usable: bool = False
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
        """The ledger, for this process alone.

        Raises JudgeError where another one holds it, and for what is no file or no ledger.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_name(f".{path.name}.lock")
            with contextlib.suppress(FileNotFoundError):
                path.stat()  # says why, where it cannot be a file
        except (OSError, ValueError) as error:  # the latter: '/' is no name of a file
            raise JudgeError(f"{path!s:.200}: cannot be written: {reason(error)}") from None
        if exists(path):
            open_file(path, JudgeError, MOST_BYTES).close()
        try:
            with locked(lock):
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

    def usable(self, key: str, *, as_published: bool = False) -> bool:
        """Whether a request has scores that count."""
        state = self.states.get(key)
        return state is not None and (state.scored if as_published else state.usable)

    def line(self, key: str) -> JudgedLine | None:
        """The last reply to a request, as the file has it."""
        state = self.states.get(key)
        return None if state is None or state.offset < 0 else self.at(state.offset)

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

    def at(self, offset: int) -> JudgedLine:
        """The reply at an offset. Raises JudgeError where the file was changed meanwhile."""
        with open_file(self.path, JudgeError, MOST_BYTES) as file:
            file.seek(offset)
            found = self._parse(file.readline(LINE_BYTES), f"byte {offset:,}")
        if not isinstance(found, JudgedLine):
            raise JudgeError(f"{self.path}, byte {offset:,}: the file was changed meanwhile")
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
        told = {
            "judged": ask.key,
            "occasion": ask.occasion,
            **ask.about,
            "judge": judge,
            "reported": reply.model,
            "fingerprint": reply.fingerprint,
            "reply": reply.text,
            "scores": scores,
            "fault": reply.fault,
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

    def again(self, keys: Iterable[str], *, as_published: bool = False) -> int:
        """Let requests that failed be asked anew; how many there are.

        as_published  scores outside the scale are no failure
        """
        with self.guard:
            once = dict.fromkeys(keys)
            failed = [
                key
                for key in once
                if self.settled(key) and not self.usable(key, as_published=as_published)
            ]
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
        line = self._parse(content, "a new line")
        self.lines.append(content)
        self._apply(line, self.end)
        self.end += len(content)

    def _read(self) -> None:
        with open_file(self.path, JudgeError, MOST_BYTES) as file:
            number = 0
            while content := file.readline(LINE_BYTES + 1):
                number += 1
                where = f"line {number}"
                if len(content) > LINE_BYTES:
                    raise self._wrong(where, f"more than {LINE_BYTES:,} bytes")
                try:
                    self._apply(self._parse(content, where), self.end)
                except (KeyError, ValueError):  # keys without a price, of a batch
                    raise self._wrong(where, "a batch without the cost of its keys") from None
                self.end += len(content)

    def _parse(self, content: bytes, where: str) -> Line:
        return LINE.parse(content, "", lambda text: self._wrong(where, text.removeprefix(": ")))

    def _wrong(self, where: str, text: str) -> JudgeError:
        return JudgeError(f"{self.path}, {where}: not a line of a ledger: {text}. {ADVICE}")

    def _apply(self, line: Line, offset: int) -> None:
        """What a line changes."""
        match line:
            case AskedLine():
                self._reserve(line.asked, line.occasion, line.usd)
            case JudgedLine():
                self._settle(line.judged, line.occasion, line.usd)
                state = self.states.setdefault(line.judged, _State())
                state.calls += 1
                state.offset = offset
                state.final = line.reply is None
                state.scored = line.usable(as_published=True)
                state.usable = line.usable()
                if isinstance(line, AnchorLine):
                    group = self.anchors.setdefault((line.judging, line.occasion), {})
                    group[f"{line.anchor} {line.round}"] = offset
            case UnansweredLine():
                self._settle(line.unanswered, line.occasion, line.usd)
            case AgainLine():
                self.states[line.again] = _State()
            case OpenLine():
                batch = Batch(line.batch, line.occasion, line.keys, line.usd)
                for key in batch.keys:
                    self._reserve(key, batch.occasion, batch.usd[key])
                self.batches[line.batch] = batch
            case NamedLine():
                if line.batch in self.batches:
                    self.batches[line.batch] = replace(self.batches[line.batch], id=line.id)
            case EndedLine():
                if ended := self.batches.pop(line.batch, None):
                    for key in ended.keys:
                        if key in self.open:
                            self._settle(key, ended.occasion, 0.0)

    def _reserve(self, key: str, occasion: str, usd: float | None) -> None:
        """What is open already stays paid: its reply was lost."""
        most = usd or 0.0
        self.paid[occasion] = self.spent(occasion) + most
        self.open[key] = occasion, most

    def _settle(self, key: str, occasion: str, usd: float | None) -> None:
        held_for, most = self.open.pop(key, (occasion, 0.0))
        self.paid[held_for] = self.spent(held_for) - most
        self.paid[occasion] = self.spent(occasion) + (usd or 0.0)
