"""Asking a server once: what goes there, what comes back, and what its errors mean."""

import json
import math
import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from eval.client.network import find_proxy
from eval.client.server import CHAT, Messages, Reply, Server
from eval.errors import JudgeError, UsageError
from eval.storage.text import printable

if TYPE_CHECKING:
    from openai import OpenAI

LARGEST_REPLY = 1 << 20  # bytes of an answer
LARGEST_FILE = 1 << 28  # bytes of a batch's results
SLOWEST = 50_000  # bytes a second in which a file of a batch must come or go
LONGEST_TEXT = 500  # characters of a server's message
LONGEST_WAIT_S = 120.0  # that a server may ask for; for more we stop and say so
TRIES = 9  # of a request that gets no answer, where that costs nothing
FIRST_TRIES = 3  # before any answer of use has come: the address may be wrong
ILL_TRIES = 5  # before any answer has come, of a server that has errors of its own
SECRET = 8  # characters of a key that is one: not the 'none' of a server that wants none
# Headers that the official client takes from the environment
ENVIRONMENT = ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS")
TEXT_PARTS = ("text", "output_text")  # of a content that is a list; others are no part of a reply
BESIDE = ("refusal", "reasoning_content", "reasoning")  # of a message, beside its content


class Refused(Exception):
    """The server refuses this very request; others may do."""


class Unanswered(Exception):
    """No answer this time.

    wait_s  what the server asks to wait
    paid    whether it may have been billed: it was cut off, or came too late
    tries   that it is worth before any answer has come
    """

    def __init__(
        self,
        reason: str,
        *,
        wait_s: float | None = None,
        paid: bool = False,
        tries: int = FIRST_TRIES,
    ) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.paid = paid
        self.tries = tries


class Unreachable(Unanswered):
    """Nobody listens at the address: nothing was sent."""


class Unfit(JudgeError):
    """The server answers every request in a way that cannot be used; this one may be billed."""


class Client:
    """A server, asked through the official client.

    key  of the account; it appears in no message, and is cut out of what the server says

    Raises JudgeError where there is no key, or the environment's proxy or certificates cannot be
    used.
    """

    def __init__(self, server: Server, key: str | None, timeout_s: float = 60.0) -> None:
        if not key or not key.strip():
            raise JudgeError(
                "no key for the judge: set OPENAI_API_KEY=... in the environment. A server that "
                "wants none takes any, such as 'none'. Nothing was asked"
            )
        if not key.strip().isascii() or not key.strip().isprintable():
            raise JudgeError("OPENAI_API_KEY: a key is ASCII characters on one line")
        for name in ENVIRONMENT:
            if not os.environ.get(name, "").replace("\n", "").isascii():
                raise JudgeError(f"{name}: only ASCII characters can be sent. Nothing was asked")
        self.server = server
        self.secret = key.strip()
        self.timeout_s = timeout_s
        self.proxy = find_proxy(server.base_url)
        self.api = self._api(LARGEST_REPLY, timeout_s)
        self.files = self._api(LARGEST_FILE, timeout_s)

    def _api(self, most: int, seconds: float) -> "OpenAI":
        """The official client on a bounded wire."""
        import httpx2
        from openai import OpenAI

        from eval.client.wire import Wire

        def sign(request: httpx2.Request) -> None:
            if self.server.azure:
                request.headers["api-key"] = self.secret
                del request.headers["Authorization"]

        url, query = self.server.place
        http_client = httpx2.Client(
            transport=Wire(url, most, self.proxy),
            event_hooks={"request": [sign]},
            follow_redirects=False,
            trust_env=False,
        )
        try:
            return OpenAI(
                api_key=self.secret,
                base_url=url,
                default_query=query,
                default_headers={"Accept-Encoding": "identity"},
                max_retries=0,
                timeout=seconds,
                http_client=http_client,
            )
        except httpx2.InvalidURL as error:
            raise UsageError(f"the judge's address: {url!r:.200}: {error}") from None

    @property
    def where(self) -> str:
        """The server's host, and the proxy before it."""
        return f"{self.server.host} through {self.proxy}" if self.proxy else self.server.host

    def transfer(self, size: int, tries: int) -> "OpenAI":
        """For a file of about so many bytes, which may take longer than a reply."""
        seconds = self.timeout_s + size / SLOWEST
        return self.files.with_options(max_retries=tries, timeout=seconds)

    def close(self) -> None:
        """End all connections."""
        self.api.close()
        self.files.close()

    def ask(self, messages: Messages) -> Reply:
        """Ask once.

        Raises JudgeError where no other request would fare better, Refused, Unanswered.
        """
        import httpx2
        from openai import OpenAIError

        from eval.client.wire import Broken

        body = self.server.request(messages)
        try:
            answer = self.api.post(CHAT, cast_to=httpx2.Response, body=body)
        except (OpenAIError, Broken) as error:
            raise self.fault(error) from None
        return self.parse(answer.content)

    def parse(self, content: bytes) -> Reply:
        """What an answer says. Raises Unanswered where it is not what the protocol has."""
        try:
            answer = orjson.loads(content)
            choice = answer["choices"][0]
            message = choice.get("message")
            if message is None and "delta" in choice:
                raise self._streams()
            text = _joined(message.get("content"))
            tokens = _tokens(answer.get("usage"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            if content.lstrip().startswith((b"data:", b"event:")):
                raise self._streams() from None
            shown = self.scrub(content[:4096].decode("utf-8", "replace"))[:200]
            raise Unanswered(
                f"an answer that is no chat completion: {shown!r}", paid=True
            ) from None
        said = (answer.get("model"), answer.get("system_fingerprint"), choice.get("finish_reason"))
        model, fingerprint, finish = (self.scrub(t) if isinstance(t, str) else "" for t in said)
        note = ""
        if not text.strip():
            beside = ((name, message.get(name)) for name in BESIDE)
            note = next(
                (f"its {n} is {self.scrub(t)[:80]!r}" for n, t in beside if t and type(t) is str),
                "",
            )
        return Reply(self._redact(text), model, fingerprint, finish, tokens, note)

    def fault(self, error: Exception) -> Exception:
        """What an error of the client or the wire means for us."""
        import httpx2
        import openai

        from eval.client.wire import Broken, Streaming

        if isinstance(error, Streaming):
            return self._streams()
        if isinstance(error, Broken):
            return Unanswered(str(error), paid=True)
        if isinstance(error, openai.APIStatusError):
            return self._status_fault(error)
        if not isinstance(error, openai.APIConnectionError):
            return Unanswered(self.scrub(f"{type(error).__name__}: {error}"), paid=True)
        cause = error.__cause__ or error
        if isinstance(cause, httpx2.ConnectError):
            return Unreachable(f"no connection to {self.where}: {self.scrub(str(cause))}")
        if isinstance(error, openai.APITimeoutError):
            return Unanswered(f"no whole answer in {self.timeout_s:g} s", paid=True)
        said = self.scrub(str(cause)) or type(cause).__name__
        return Unanswered(f"cut off by {self.where}: {said}", paid=True)

    def _status_fault(self, error: Any) -> Exception:
        status, said = error.status_code, self.scrub(_message(error))
        where = f"{self.where} answers {status}: {said}"
        if 300 <= status < 400:
            target = self.scrub(error.response.headers.get("location", "")) or "an unnamed place"
            return JudgeError(
                f"{self.where} redirects to {target} (HTTP {status}). Dialogues and key go only to "
                "the address that was given; if the judge has moved, give the new one: --base-url"
            )
        if status == 401:
            return JudgeError(f"{where}. The key in OPENAI_API_KEY is not accepted")
        if status == 402:
            return JudgeError(f"{where}. The account has nothing left; all that was said is kept")
        if status == 403:
            return JudgeError(f"{where}. The key may not use {self.server.model!r}")
        if status == 404:
            return JudgeError(
                f"{where}. Is the model {self.server.model!r} (--judge) offered there, and does "
                "the address (--base-url) end as the server's does, in /v1 say?"
            )
        if status == 407:
            return JudgeError(f"{where}. The proxy wants a user name and a password, or other ones")
        if status == 429 and "insufficient_quota" in (error.code, error.type):
            return JudgeError(f"{where}. The account has nothing left; all that was said is kept")
        if status in (408, 409, 429) or status >= 500:
            wait_s = _wait(error.response.headers)
            if wait_s is not None and wait_s > LONGEST_WAIT_S:
                return JudgeError(f"{where}. It asks to wait {wait_s:,.0f} s: try again then")
            ill = status >= 500 and wait_s is None  # it does not say that it will be well again
            tries = ILL_TRIES if ill else TRIES
            return Unanswered(f"HTTP {status}: {said}", wait_s=wait_s, tries=tries)
        return Refused(f"HTTP {status}: {said}")

    def _streams(self) -> Unfit:
        return Unfit(
            f"{self.where} streams its replies although it was not asked to. Turn that off there, "
            "or in the gateway before it; one request was sent"
        )

    def scrub(self, text: str) -> str:
        """A server's text as it can be shown: without our key, printable, of a bearable length."""
        return printable(self._redact(text)[:LONGEST_TEXT], " ")

    def _redact(self, text: str) -> str:
        if len(self.secret) >= SECRET:
            for spelt in (self.secret, json.dumps(self.secret)[1:-1]):
                text = text.replace(spelt, "[key]")
        return text


def _joined(content: Any) -> str:
    """The text of a message: a text, none, or a list of parts. Raises TypeError for others."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in TEXT_PARTS:
            texts.append(_joined(part["text"]))
    return "".join(texts)


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Of request and reply, where the server reports both."""
    reported = usage if isinstance(usage, dict) else {}
    counts = [reported.get(name) for name in ("prompt_tokens", "completion_tokens")]
    asked, replied = (c if type(c) is int and 0 <= c < 1 << 40 else None for c in counts)
    return None if asked is None or replied is None else (asked, replied)


def _message(error: Any) -> str:
    """What the server says, in one line."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.message).split()) or "nothing"


def _wait(headers: Any) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                continue
        if not math.isnan(seconds):
            return max(seconds, 0.0)
    return None
