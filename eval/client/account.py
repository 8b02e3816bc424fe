"""What follows from the lines of a ledger: what is settled, what was spent, what is open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from eval.client.entries import (
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

MOST_CALLS = 5  # of one request, until a reply has scores: the published script's


class ReplyRules(Protocol):
    """What a judged task makes of the text of a reply; a module may be one."""

    def parse_reply(self, text: str) -> tuple[float, ...] | None:
        """The scores in it, or None where it has none."""

    def usable(self, text: str, *, as_published: bool = False) -> bool:
        """Whether its scores count; as_published: those outside the scale too."""

    def fault_of(self, text: str) -> str:
        """Why it has no scores; empty where it has."""


@dataclass(slots=True)
class _State:
    """State of a key: replies so far, the last line's offset, whether it has scores.

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
    id    the server's, empty until it is known
    """

    name: str
    occasion: str
    keys: tuple[str, ...]
    usd: Mapping[str, float | None]
    id: str = ""


class Account:
    """The sum of a ledger's lines, kept up as they come.

    paid     occasion -> USD, open requests at their most
    open     key -> occasion, USD at most
    batches  those under way, by name
    """

    def __init__(self, rules: ReplyRules) -> None:
        self.rules = rules
        self.paid: dict[str, float] = {}
        self.open: dict[str, tuple[str, float]] = {}
        self.batches: dict[str, Batch] = {}
        self._states: dict[str, _State] = {}
        self._anchors: dict[tuple[str, str], dict[str, int]] = {}  # see anchors()

    def settled(self, key: str) -> bool:
        """Whether there is nothing left to ask: it has scores, or has failed for good."""
        state = self._states.get(key)
        return state is not None and (state.scored or state.final or state.calls >= MOST_CALLS)

    def calls(self, key: str) -> int:
        """Replies so far."""
        state = self._states.get(key)
        return state.calls if state else 0

    def usable(self, key: str, *, as_published: bool = False) -> bool:
        """Whether a request has scores that count."""
        state = self._states.get(key)
        return state is not None and (state.scored if as_published else state.usable)

    def offset(self, key: str) -> int | None:
        """Where the last reply to a request lies in the file, in bytes; None where none came."""
        state = self._states.get(key)
        return None if state is None or state.offset < 0 else state.offset

    def spent(self, occasion: str) -> float:
        """USD that an occasion has cost, at most."""
        return max(self.paid.get(occasion, 0.0), 0.0)  # nothing, but for rounding

    def anchors(self, judging: str) -> Iterator[tuple[str, dict[str, int]]]:
        """Occasions on which anchors were judged in one way, the earliest first.

        judging  digest of the judge and its prompt; each with (anchor and round -> line's offset)
        """
        for (way, occasion), offsets in self._anchors.items():
            if way == judging:
                yield occasion, offsets

    def apply(self, line: Line, offset: int) -> None:
        """Add a line that begins at an offset of the file, in bytes.

        Raises KeyError for a batch without the cost of one of its keys.
        """
        match line:
            case AskedLine():
                self._reserve(line.asked, line.occasion, line.usd)
            case JudgedLine():
                self._settle(line.judged, line.occasion, line.usd)
                state = self._states.setdefault(line.judged, _State())
                state.calls += 1
                state.offset = offset
                state.final = line.reply is None
                state.scored = self._counts(line, as_published=True)
                state.usable = self._counts(line)
                if isinstance(line, AnchorLine):
                    group = self._anchors.setdefault((line.judging, line.occasion), {})
                    group[f"{line.anchor} {line.round}"] = offset
            case UnansweredLine():
                self._settle(line.unanswered, line.occasion, line.usd)
            case AgainLine():
                self._states[line.again] = _State()
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

    def _counts(self, line: JudgedLine, *, as_published: bool = False) -> bool:
        return line.reply is not None and self.rules.usable(line.reply, as_published=as_published)
