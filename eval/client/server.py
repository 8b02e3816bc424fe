"""A server of a model: its address, a request's parameters and key, what that costs; a reply."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import orjson

from eval.client.network import is_loopback
from eval.errors import UsageError

OPENAI = "https://api.openai.com/v1"
MODEL = "gpt-4"
# As the published script asks, but for max_tokens: it bounds what a reply costs, and no reply that
# can be read is longer.
PARAMETERS: Mapping[str, Any] = {"temperature": 0, "stop": ["\n"], "max_tokens": 64}
UNBOUNDED_TOKENS = 8192  # of a reply, where the parameters set no bound
TOKEN_BOUNDS = ("max_tokens", "max_completion_tokens")  # one replaces the other
RESERVED = ("model", "messages", "n", "stream", "stream_options", "tools")  # never parameters
CHAT = "/chat/completions"  # the path below a base URL; an address may be given with it
AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
DEPLOYMENTS = "/openai/deployments/"  # in the path of Azure's addresses
# Names of query parameters that hold a secret, in whole or as their last word
SECRETS = re.compile(
    r"(?:^|[-_.])(?:key|token|secret|password|passwd|pwd|sig|signature|auth|authorization|code)$"
    r"|(?:apikey|accesstoken|authtoken)$",
    re.IGNORECASE,
)
LONGEST_URL = 2000
LARGEST_USD = 1e9  # for a million tokens
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
    """USD for a million tokens, of what is asked and of what is replied.

    Raises UsageError for what is no price.
    """

    asked: float
    replied: float

    def __post_init__(self) -> None:
        if not all(0 <= usd <= LARGEST_USD for usd in (self.asked, self.replied)):
            raise UsageError(f"a price lies between 0 and {LARGEST_USD:g} USD a million tokens")

    def usd(self, asked: int, replied: int, share: float = 1.0) -> float:
        """What so many tokens cost."""
        return share * (asked * self.asked + replied * self.replied) / 1e6


@dataclass(frozen=True, slots=True)
class Server:
    """A model behind an address, and the parameters of a request: all of it decides the reply.

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
        _check_address(self.base_url)
        _check_parameters(self.parameters)
        if not self.model or not _encodable(self.model):
            raise UsageError("the judge's model: a name in UTF-8 is needed")

    @classmethod
    def priced(
        cls, model: str, base_url: str, parameters: Mapping[str, Any] | None = None
    ) -> "Server":
        """With the list price of the model, where it is known, and a tidy address."""
        chosen = dict(PARAMETERS if parameters is None else parameters)
        server = cls(model, _tidy(base_url), chosen)
        known = (
            PRICES.get(model) if urlsplit(server.base_url).hostname == "api.openai.com" else None
        )
        return replace(server, price=Price(*known)) if known else server

    @property
    def host(self) -> str:
        """Where it is; a port of this machine tells nothing."""
        parts = urlsplit(self.base_url)
        return str(parts.hostname) if self.local else parts.netloc

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(urlsplit(self.base_url).hostname)

    @property
    def azure(self) -> bool:
        """Whether it takes its key as Azure does, in a header of its own."""
        parts = urlsplit(self.base_url)
        return DEPLOYMENTS in parts.path or (parts.hostname or "").endswith(AZURE)

    @property
    def place(self) -> tuple[str, dict[str, str]]:
        """The base URL without its query, and the query that every request carries."""
        parts = urlsplit(self.base_url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return urlunsplit(parts._replace(query="")), query

    def request(self, messages: Messages) -> dict[str, Any]:
        """The body of a request."""
        return {"model": self.model, "messages": list(messages), **self.parameters}

    def key(self, messages: Messages, *more: str) -> str:
        """sha256 of who is asked, how and what: equal requests have one judgement.

        more  what tells apart requests that are to be asked anew
        """
        identity = [self.base_url, self.request(messages), *more]
        return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def most_tokens(self, messages: Messages) -> tuple[int, int]:
        """Tokens of a request and its reply, at most: no token is less than a byte."""
        asked = sum(len(m["content"].encode()) + FRAME_TOKENS for m in messages) + FRAME_TOKENS
        bounds = [self.parameters[name] for name in TOKEN_BOUNDS if name in self.parameters]
        return asked, max(bounds, default=UNBOUNDED_TOKENS)

    def most_usd(self, messages: Messages, share: float = 1.0) -> float | None:
        """Most that a request may cost; None where prices are not known.

        share  of the price: BATCH_SHARE in a batch
        """
        return self.price.usd(*self.most_tokens(messages), share) if self.price else None

    def likely_tokens(self, messages: Messages) -> tuple[int, int]:
        """About how many: four ASCII characters each, else a character; and two short numbers."""
        texts = [message["content"] for message in messages]
        plain = sum(character.isascii() for text in texts for character in text)
        others = sum(map(len, texts)) - plain
        return plain // 4 + others + FRAME_TOKENS * len(texts) // 2, 4

    def describe(self) -> dict[str, Any]:
        """What a ledger says of it."""
        return {"model": self.model, "base_url": self.base_url, "parameters": dict(self.parameters)}


def with_parameters(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a request with some changed; None leaves one out.

    Raises UsageError for those that are set elsewhere.
    """
    _check_reserved(changes)
    found = dict(base)
    for name, value in changes.items():
        for other in TOKEN_BOUNDS if name in TOKEN_BOUNDS else (name,):
            found.pop(other, None)
        if value is not None:
            found[name] = value
    return found


def _check_reserved(names: Iterable[str]) -> None:
    if wrong := sorted({*RESERVED} & {*names}):
        raise UsageError(f"the judge's parameters: {', '.join(wrong)} cannot be set there")


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    _check_reserved(parameters)
    for name in TOKEN_BOUNDS:
        bound = parameters.get(name, 1)
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
            raise UsageError(
                f"the judge's parameters: {name} is {bound!r:.40}; it must be a positive integer"
            )
    try:
        json.dumps(dict(parameters), allow_nan=False)
        orjson.dumps(dict(parameters))  # no integer beyond 64 bits, nothing nested too deeply
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the judge's parameters: JSON cannot hold them: {error}") from None


def _check_address(url: str) -> None:
    """Raise UsageError for what is no address, or may hold a secret, which is not repeated."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=100)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if len(url) > LONGEST_URL:
        raise UsageError(f"the judge's address: more than {LONGEST_URL:,} characters")
    if not right or not url.isprintable() or " " in url or not _encodable(url):
        secret = any(mark in url for mark in "@?#")  # it may hold a password
        shown = "" if secret else f"{url!r:.200} is not an address. "
        raise UsageError(f"the judge's address: {shown}Write http(s)://host/v1")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError(
            "the judge's address: leave out user name, password and fragment. The key is read from "
            "the environment"
        )
    if keys := [name for name, _ in query if SECRETS.search(name)]:
        raise UsageError(
            f"the judge's address: leave out the query parameter {keys[0]!r:.40}, which looks like "
            "a key: addresses are written to files. The key is read from the environment"
        )


def _tidy(url: str) -> str:
    """An address without a slash at its end, and without the path that is added to it."""
    path, mark, query = url.partition("?")
    return path.rstrip("/").removesuffix(CHAT).rstrip("/") + mark + query


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply.

    tokens  of request and reply, or None where the server does not report them
    note    what the server put beside an empty text: a refusal, its reasoning
    """

    text: str
    model: str = ""
    fingerprint: str = ""
    finish: str = ""
    tokens: tuple[int, int] | None = None
    note: str = ""

    def explain(self, fault: str) -> str:
        """Why the text cannot be used, as the server tells it; "" where there is no fault."""
        if fault and self.note:
            fault += f"; {self.note}"
        if fault and self.finish not in ("", "stop"):
            fault += f" (finish reason {self.finish!r:.40})"
        return fault
