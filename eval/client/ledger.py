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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from eval.client.account import Account, Batch, ReplyRules
from eval.client.entries import LINE, JudgedLine, Line
from eval.client.server import Reply
from eval.errors import JudgeError
from eval.storage.lock import Locked, locked
from eval.storage.reading import exists, open_file, reason
from eval.storage.writing import Lines

MOST_BYTES = 1 << 33  # of a ledger
LINE_BYTES = 1 << 24  # of one of its lines
ADVICE = (
    "Put the file right, or give another with --ledger; judgements that are not in it would be "
    "paid again"
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the ledger knows it.

    key       see Server.key
    occasion  of which it is a part: these answers, before this judge
    about     what a person would want to know: task, sample, round
    """

    key: str
    occasion: str
    about: Mapping[str, Any] = field(default_factory=dict)


class LedgerFile:
    """The file's lines: read once, appended, and found again by their offset in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0  # bytes of whole lines
        self._lines = Lines(path)

    def read(self) -> Iterator[tuple[Line, int, str]]:
        """All lines, each with its offset, and its number as an error names it.

        Raises JudgeError for what is no line of a ledger.
        """
        with open_file(self.path, JudgeError, MOST_BYTES) as file:
            number = 0
            while content := file.readline(LINE_BYTES + 1):
                number += 1
                where = f"line {number}"
                if len(content) > LINE_BYTES:
                    raise self.wrong(where, f"more than {LINE_BYTES:,} bytes")
                yield self._parse(content, where), self.end, where
                self.end += len(content)

    def append(self, fields: dict[str, Any]) -> tuple[Line, int]:
        """Write a line with the time of day; the line, and its offset."""
        fields = {**fields, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        content = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
        line = self._parse(content, "a new line")
        self._lines.append(content)
        self.end += len(content)
        return line, self.end - len(content)

    def at(self, offset: int) -> JudgedLine:
        """The reply at an offset. Raises JudgeError where the file was changed meanwhile."""
        with open_file(self.path, JudgeError, MOST_BYTES) as file:
            file.seek(offset)
            found = self._parse(file.readline(LINE_BYTES), f"byte {offset:,}")
        if not isinstance(found, JudgedLine):
            raise JudgeError(f"{self.path}, byte {offset:,}: the file was changed meanwhile")
        return found

    def close(self) -> None:
        """Append nothing more."""
        self._lines.close()

    def wrong(self, where: str, text: str) -> JudgeError:
        """The error for what is no line of a ledger."""
        return JudgeError(f"{self.path}, {where}: not a line of a ledger: {text}. {ADVICE}")

    def _parse(self, content: bytes, where: str) -> Line:
        return LINE.parse(content, "", lambda text: self.wrong(where, text.removeprefix(": ")))


class Ledger:
    """Writes down what happens, in the file and in the account of it.

    rules  of the judged task, by which a reply counts

    Safe in threads; of processes one at a time.
    """

    def __init__(self, path: Path, rules: ReplyRules) -> None:
        self.file = LedgerFile(path)
        self.account = Account(rules)
        self._guard = Lock()
        for line, offset, where in self.file.read():
            try:
                self.account.apply(line, offset)
            except (KeyError, ValueError):  # keys without a price, of a batch
                text = "a batch without the cost of its keys"
                raise self.file.wrong(where, text) from None

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path, rules: ReplyRules) -> Iterator["Ledger"]:
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
                ledger = cls(path, rules)
                try:
                    yield ledger
                finally:
                    ledger.file.close()
        except Locked as held_by:
            raise JudgeError(
                f"{path}: another process judges with this ledger ({held_by}). Wait for it, stop "
                "it, or give another file with --ledger"
            ) from None

    def line(self, key: str) -> JudgedLine | None:
        """The last reply to a request, as the file has it."""
        offset = self.account.offset(key)
        return None if offset is None else self.file.at(offset)

    def asked(self, request: Request, usd: float | None, budget: float | None = None) -> bool:
        """Record that a request is about to be sent; False, and nothing, beyond the budget.

        usd     what it costs at most, None where prices are not known
        budget  USD of the whole occasion
        """
        with self._guard:
            if budget is not None and self.account.spent(request.occasion) + (usd or 0.0) > budget:
                return False
            self._append({"asked": request.key, "occasion": request.occasion, "usd": usd})
            return True

    def judged(
        self,
        request: Request,
        reply: Reply,
        usd: float | None,
        server: Mapping[str, Any],
        *,
        took_s: float | None = None,
        batch: str = "",
    ) -> tuple[float, ...] | None:
        """Record a reply; its scores.

        usd     what it cost, None where prices are not known
        server  see Server.describe
        """
        rules = self.account.rules
        scores = rules.parse_reply(reply.text)
        fields = {
            "judged": request.key,
            "occasion": request.occasion,
            **request.about,
            "judge": server,
            "reported": reply.model,
            "fingerprint": reply.fingerprint,
            "reply": reply.text,
            "scores": scores,
            "fault": reply.explain(rules.fault_of(reply.text)),
            "tokens": reply.tokens,
            "usd": usd,
            "took_s": took_s,
            **({"of_batch": batch} if batch else {}),
        }
        with self._guard:
            self._append(fields)
        return scores

    def refused(
        self, request: Request, reason: str, server: Mapping[str, Any], batch: str = ""
    ) -> None:
        """Record that the server will not judge this one, whatever we do."""
        fields = {
            "judged": request.key,
            "occasion": request.occasion,
            **request.about,
            "judge": server,
            "reply": None,
            "scores": None,
            "fault": f"refused: {reason}",
            "usd": 0.0,
            **({"of_batch": batch} if batch else {}),
        }
        with self._guard:
            self._append(fields)

    def unanswered(self, request: Request, reason: str, usd: float | None) -> None:
        """Record that nothing came; usd: what it may have cost all the same."""
        with self._guard:
            self._append(
                {
                    "unanswered": request.key,
                    "occasion": request.occasion,
                    "fault": reason,
                    "usd": usd,
                }
            )

    def again(self, keys: Iterable[str], *, as_published: bool = False) -> int:
        """Let requests that failed be asked anew; how many there are.

        as_published  scores outside the scale are no failure
        """
        with self._guard:
            once = dict.fromkeys(keys)
            failed = [
                key
                for key in once
                if self.account.settled(key)
                and not self.account.usable(key, as_published=as_published)
            ]
            for key in failed:
                self._append({"again": key})
        return len(failed)

    def named(self, batch: Batch, server_id: str) -> None:
        """Record what the server calls a batch."""
        with self._guard:
            self._append({"batch": batch.name, "state": "named", "id": server_id})

    def handed_in(self, batch: Batch) -> None:
        """Record a batch that is about to be handed in."""
        with self._guard:
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
        """Record that a batch is over; what it left unanswered has cost nothing."""
        with self._guard:
            self._append({"batch": batch.name, "state": "ended", "fault": reason})

    def _append(self, fields: dict[str, Any]) -> None:
        self.account.apply(*self.file.append(fields))
