"""The judge: who it is, asking it once, and what its reply says.

This module opens the socket. It knows neither the ledger nor what is asked next.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import orjson

from eval.errors import JudgeError, UsageError

OPENAI = "https://api.openai.com/v1"
MODEL = "gpt-4"
# As the published script asks, but for max_tokens: it bounds what a reply costs, and no reply that
# can be read is longer.
PARAMETERS: Mapping[str, Any] = {"temperature": 0, "stop": ["\n"], "max_tokens": 64}
UNBOUNDED_TOKENS = 8192  # of a reply, where the parameters set no bound
LARGEST_REPLY = 1 << 20  # bytes of an answer of the server
LONGEST_TEXT = 500  # characters of a server's message
LONGEST_WAIT_S = 600.0  # that a server may ask for; for more we stop and say so
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SECRET = 8  # characters of a key that is one: not the 'none' of a server that wants none
FRAME_TOKENS = 8  # that a message takes beside its text, at most
PRICES = {  # list prices of OpenAI, USD for a million tokens in and out; --price has the last word
    "gpt-4": (30.0, 60.0),
    "gpt-4-0613": (30.0, 60.0),
    "gpt-4-turbo": (10.0, 30.0),
    "gpt-4o": (2.5, 10.0),
    "gpt-4o-mini": (0.15, 0.6),
    "gpt-4.1": (2.0, 8.0),
    "gpt-4.1-mini": (0.4, 1.6),
}
BATCH_SHARE = 0.5  # of the price, in batches

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Price:
    """USD for a million tokens, of what is asked and of what is replied."""

    asked: float
    replied: float

    def usd(self, asked: int, replied: int, share: float = 1.0) -> float:
        """What so many tokens cost."""
        return share * (asked * self.asked + replied * self.replied) / 1e6


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges, and how it is asked: all of it decides what is said.

    base_url    of any server that speaks OpenAI's protocol
    parameters  of a request, beside its model and messages
    price       None where it is not known

    Raises UsageError for an address that is none, or that holds a password, and for parameters that
    would make a request another one.
    """

    model: str = MODEL
    base_url: str = OPENAI
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(PARAMETERS))
    price: Price | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            right = False
        if not right:
            secret = any(mark in self.base_url for mark in "@?#")  # it may hold a password
            found = "another" if secret else f"{self.base_url!r:.200}"
            raise UsageError(f"the judge's address: http(s)://host/v1 expected, {found} found")
        if wrong := sorted({"model", "messages", "n", "stream", "tools"} & {*self.parameters}):
            raise UsageError(f"the judge's parameters: {', '.join(wrong)} cannot be set there")
        try:
            json.dumps(dict(self.parameters), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the judge's parameters: what JSON has expected, {error}") from None
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(
                "the judge's address: one without a password or key in it expected; the key is "
                "read from the environment"
            )

    @classmethod
    def priced(
        cls, model: str, base_url: str, parameters: Mapping[str, Any] | None = None
    ) -> "Judge":
        """With the list price of the model, where it is known."""
        told = dict(PARAMETERS if parameters is None else parameters)
        found = cls(model, base_url.rstrip("/"), told)
        known = PRICES.get(model) if urlsplit(found.base_url).hostname == "api.openai.com" else None
        return replace(found, price=Price(*known)) if known else found

    @property
    def host(self) -> str:
        """Where it is; a port of this machine tells nothing."""
        parts = urlsplit(self.base_url)
        return str(parts.hostname) if parts.hostname in LOOPBACK else parts.netloc

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in LOOPBACK

    def request(self, messages: Messages) -> dict[str, Any]:
        """The body of a request."""
        return {"model": self.model, "messages": list(messages), **self.parameters}

    def key(self, messages: Messages, *more: str) -> str:
        """sha256 of who is asked, how and what: equal requests have one judgement.

        more  what tells apart requests that are to be asked anew
        """
        told = [self.base_url, self.request(messages), *more]
        return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def most_tokens(self, messages: Messages) -> tuple[int, int]:
        """Tokens of a request and its reply, at most: no token is less than a byte."""
        asked = sum(len(m["content"].encode()) + FRAME_TOKENS for m in messages) + FRAME_TOKENS
        bounds = [self.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
        return asked, max(
            (b for b in bounds if isinstance(b, int) and b > 0), default=UNBOUNDED_TOKENS
        )

    def likely_tokens(self, messages: Messages) -> tuple[int, int]:
        """About how many: four ASCII characters each, else a character; and two short numbers."""
        texts = [message["content"] for message in messages]
        plain = sum(character.isascii() for text in texts for character in text)
        others = sum(map(len, texts)) - plain
        return plain // 4 + others + FRAME_TOKENS * len(texts) // 2, 4

    def describe(self) -> dict[str, Any]:
        """What a ledger says of it."""
        return {"model": self.model, "base_url": self.base_url, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered.

    tokens  asked and replied, or None where it does not tell
    """

    text: str
    model: str = ""
    fingerprint: str = ""
    finish: str = ""
    tokens: tuple[int, int] | None = None


class Refused(Exception):
    """The server refuses this very request; others may do."""


class Unanswered(Exception):
    """No answer this time.

    wait_s  what the server asks to wait
    paid    whether it may have been billed: it was cut off, or came too late
    """

    def __init__(self, reason: str, *, wait_s: float | None = None, paid: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.paid = paid


class Unreachable(Unanswered):
    """Nobody listens at the address: nothing was sent."""


class Client:
    """A judge's server, asked through the official client.

    key  of the account; it appears in no message, and is cut out of what the server says

    Raises JudgeError where there is no key.
    """

    def __init__(self, judge: Judge, key: str | None, timeout_s: float = 60.0) -> None:
        if not key or not key.strip():
            raise JudgeError(
                "no key for the judge: OPENAI_API_KEY=... expected in the environment. A server "
                "that wants none takes any, such as 'none'. Nothing was asked"
            )
        if not key.strip().isascii() or not key.strip().isprintable():
            raise JudgeError("OPENAI_API_KEY: a key of ASCII characters on one line expected")
        from openai import OpenAI

        self.judge = judge
        self.secret = key.strip()
        self.timeout_s = timeout_s
        self.api = OpenAI(
            api_key=self.secret, base_url=judge.base_url, max_retries=0, timeout=timeout_s
        )

    def close(self) -> None:
        """End all connections."""
        self.api.close()

    def ask(self, messages: Messages) -> Reply:
        """Ask once.

        Raises JudgeError where no other request would fare better, Refused, Unanswered.
        """
        import httpx2
        from openai import OpenAIError

        judge = self.judge
        shown: Any = list(messages)
        began = monotonic()
        try:
            with self.api.chat.completions.with_streaming_response.create(
                model=judge.model, messages=shown, extra_body=dict(judge.parameters)
            ) as response:  # as they are: the client would refuse those that it does not know
                content = b""
                for piece in response.iter_bytes():
                    content += piece
                    if monotonic() - began > self.timeout_s:  # the client's own is for each piece
                        raise Unanswered("no whole answer in time", paid=True)
                    if len(content) > LARGEST_REPLY:
                        raise Unanswered(f"a reply of over {LARGEST_REPLY:,} bytes", paid=True)
        except OpenAIError as error:
            raise self.fault(error) from None
        except httpx2.HTTPError as error:  # cut off within the reply
            raise Unanswered(f"cut off: {self.scrub(str(error))}", paid=True) from None
        return self.parse(content)

    def parse(self, content: bytes) -> Reply:
        """What an answer says. Raises Unanswered where it is not what the protocol has."""
        try:
            answer = orjson.loads(content)
            choice = answer["choices"][0]
            text = choice["message"].get("content")
            if text is not None and not isinstance(text, str):
                raise TypeError
            tokens = _tokens(answer.get("usage"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            shown = self.scrub(content.decode("utf-8", "replace"))[:200]
            raise Unanswered(
                f"an answer that is no chat completion: {shown!r}", paid=True
            ) from None
        told = (answer.get("model"), answer.get("system_fingerprint"), choice.get("finish_reason"))
        model, fingerprint, finish = (self.scrub(t) if isinstance(t, str) else "" for t in told)
        return Reply(self._redact(text or ""), model, fingerprint, finish, tokens)

    def fault(self, error: Exception) -> Exception:
        """What an error of the client means for us."""
        import httpx2
        import openai

        judge = self.judge
        if isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            said = f"no connection to {judge.host}: {self.scrub(str(cause))}"
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
                return Unreachable(said)
            if isinstance(error, openai.APITimeoutError):
                said = "no answer in time"
            return Unanswered(said, paid=True)
        if not isinstance(error, openai.APIStatusError):
            return Unanswered(self.scrub(f"{type(error).__name__}: {error}"), paid=True)
        status, said = error.status_code, self.scrub(_message(error))
        where = f"{judge.host} answers {status}: {said}"
        if status == 401:
            return JudgeError(f"{where}. The key in OPENAI_API_KEY is not accepted")
        if status == 402:
            return JudgeError(f"{where}. The account has nothing left; all that was said is kept")
        if status == 403:
            return JudgeError(f"{where}. The key may not use {judge.model!r}")
        if status == 404:
            return JudgeError(
                f"{where}. Is the model {judge.model!r} (--judge) offered there, and does the "
                "address (--base-url) end as the server's does, in /v1 say?"
            )
        if status == 429 and "insufficient_quota" in (error.code, error.type):
            return JudgeError(f"{where}. The account has nothing left; all that was said is kept")
        if status in (408, 409, 429) or status >= 500:
            wait_s = _wait(error.response.headers)
            if wait_s is not None and wait_s > LONGEST_WAIT_S:
                return JudgeError(f"{where}. It asks to wait {wait_s:,.0f} s: try again then")
            return Unanswered(f"HTTP {status}: {said}", wait_s=wait_s)
        return Refused(f"HTTP {status}: {said}")

    def scrub(self, text: str) -> str:
        """A server's text as it can be shown: without our key, printable, of a bearable length."""
        return _printable(self._redact(text))

    def _redact(self, text: str) -> str:
        if len(self.secret) >= SECRET:
            for spelt in (self.secret, json.dumps(self.secret)[1:-1]):
                text = text.replace(spelt, "[key]")
        return text


def _printable(text: str) -> str:
    """What steers no terminal and fits a line or two."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST_TEXT])


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Asked and replied, where the server tells both."""
    told = usage if isinstance(usage, dict) else {}
    asked, replied = told.get("prompt_tokens"), told.get("completion_tokens")
    if not isinstance(asked, int) or not isinstance(replied, int):
        return None
    return (asked, replied) if 0 <= asked < 1 << 40 and 0 <= replied < 1 << 40 else None


def _message(error: Any) -> str:
    """What the server says, in one line."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.message).split()) or "nothing"


def _wait(headers: Any) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        told = headers.get(name)
        if told is None:
            continue
        try:
            seconds = float(told) * scale
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                continue
        if not math.isnan(seconds):
            return max(seconds, 0.0)
    return None


def parse_reply(text: str) -> tuple[float, float] | None:
    """Scores of the first and the second answer, or None where the reply has none.

    The first line that is not empty must be two numbers with one space between; every number that
    Python reads is one.

    Source  TouchStone's eval script; equal to it on every reply of
            tests/golden/metrics/touchstone_cases.json
    Quirks  kept as in the source: `8, 7`, `8/10 7` and two spaces are no scores, `nan 5` and
            `8 7.` are
    """
    try:
        first, second = map(float, _first_line(text).split(" "))
    except ValueError:
        return None
    return first, second


def fault_of(text: str) -> str:
    """Why a reply has no scores, for whoever must look into it; empty where it has."""
    if parse_reply(text) is not None:
        return ""
    line = _first_line(text)
    if not text.strip():
        return "an empty reply"
    parts = line.split(" ")
    if len(parts) != 2:
        return f"two numbers with one space between expected on the first line, {line[:80]!r} found"
    wrong = next(part for part in parts if not _is_number(part))
    return f"a number expected, {wrong[:80]!r} found on the first line, {line[:80]!r}"


def _first_line(text: str) -> str:
    """As the source takes it: of an empty reply it is the text that is put behind each."""
    return f"{text}\nok".strip().split("\n", 1)[0].strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
