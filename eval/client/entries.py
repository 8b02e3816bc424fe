"""The lines of a ledger, as they are read back; ledger.py says what they mean.

Lines have more fields than these, for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from eval.storage.reading import Schema

KINDS = ("asked", "judged", "unanswered", "again", "batch")  # a line has one of these fields
Usd = Annotated[float, Field(ge=0)] | None  # None where prices are not known


@dataclass(frozen=True, slots=True)
class AskedLine:
    """A request is about to be sent."""

    asked: str
    occasion: str
    usd: Usd


@dataclass(frozen=True, slots=True)
class JudgedLine:
    """A reply, or None where the server refuses the request."""

    judged: str
    occasion: str
    usd: Usd
    reply: str | None
    reported: str = ""
    fingerprint: str = ""
    fault: str = ""
    time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLine(JudgedLine):
    """A reply about an anchor."""

    anchor: str
    round: int
    judging: str


@dataclass(frozen=True, slots=True)
class UnansweredLine:
    """Nothing came."""

    unanswered: str
    occasion: str
    usd: Usd


@dataclass(frozen=True, slots=True)
class AgainLine:
    """A request may be asked anew."""

    again: str


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A batch is about to be handed in."""

    batch: str
    state: Literal["open"]
    occasion: str
    keys: tuple[str, ...]
    usd: Mapping[str, Usd]


@dataclass(frozen=True, slots=True)
class NamedLine:
    """The server has named a batch."""

    batch: str
    state: Literal["named"]
    id: str


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A batch is over."""

    batch: str
    state: Literal["ended"]


def _kind(line: Any) -> str | None:
    """Which of them a line is."""
    if not isinstance(line, Mapping):
        return None
    kinds = [name for name in KINDS if name in line]
    if len(kinds) != 1:
        return None
    if kinds == ["judged"] and "anchor" in line:
        return "anchor"
    state = line.get("state")
    return state if kinds == ["batch"] and isinstance(state, str) else kinds[0]


Line = (
    AskedLine
    | JudgedLine
    | AnchorLine
    | UnansweredLine
    | AgainLine
    | OpenLine
    | NamedLine
    | EndedLine
)
LINE = Schema[Line](
    Annotated[
        Annotated[AskedLine, Tag("asked")]
        | Annotated[JudgedLine, Tag("judged")]
        | Annotated[AnchorLine, Tag("anchor")]
        | Annotated[UnansweredLine, Tag("unanswered")]
        | Annotated[AgainLine, Tag("again")]
        | Annotated[OpenLine, Tag("open")]
        | Annotated[NamedLine, Tag("named")]
        | Annotated[EndedLine, Tag("ended")],
        Discriminator(
            _kind, custom_error_type="kind", custom_error_message="it is of none of the known kinds"
        ),
    ]
)
