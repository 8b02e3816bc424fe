"""The provider's batches on a server: handed in, looked up, and their results."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field

from eval.client.account import Batch
from eval.client.client import Client
from eval.client.server import Messages
from eval.errors import JudgeError
from eval.storage.reading import Schema

PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
WINDOW: Literal["24h"] = "24h"
# Of the account's batches, looked through for one that we lost sight of
PAGE_SIZE, LISTED = 100, 1000
METADATA = "qwen_vl_eval"
ENDED = ("completed", "failed", "expired", "cancelled")  # anything else is still under way
RESULT_BYTES = 4096  # of one request's result, at most about
RETRIES = 5  # of questions that change nothing

T = TypeVar("T")
Id = Annotated[str, Field(min_length=1)]


class Unknown(Exception):
    """The server does not know a batch, or its result."""


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


class Batches:
    """A server's batches. What it says is read strictly: nothing else may end a batch.

    Every call raises JudgeError where the server cannot be used.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def line(self, key: str, messages: Messages) -> bytes:
        """A request as a line of the file that is handed in."""
        body = self.client.server.request(messages)
        row = {"custom_id": key, "method": "POST", "url": PATH, "body": body}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    def hand_in(self, name: str, content: bytes) -> ServerBatch:
        """Hand in a batch under our name for it, with the lines of its requests."""
        with self._errors(known=True):
            api = self.client.transfer(len(content), RETRIES)
            sent = (f"{name}.jsonl", content)
            answer = api.files.with_raw_response.create(file=sent, purpose="batch")
            file = self._read(FILE, answer.content, "a file")
            # not tried again: a second one would be paid too; it is found by its metadata instead
            handed_in = self.client.api.batches.with_raw_response.create(
                input_file_id=file.id,
                endpoint=PATH,
                completion_window=WINDOW,
                metadata={METADATA: name},
            )
            return self._read(BATCH, handed_in.content, "a batch")

    def look_up(self, batch: Batch) -> ServerBatch | None:
        """A batch by its id, or else by our name; None where that was never handed in.

        Raises Unknown.
        """
        with self._errors():
            api = self.client.api.with_options(max_retries=RETRIES)
            if not batch.id:
                return self._named(batch.name)
            answer = api.batches.with_raw_response.retrieve(batch.id)
            return self._read(BATCH, answer.content, "a batch")

    def results(self, found: ServerBatch, requests: int) -> Iterator[bytes]:
        """Lines of the results of a batch of so many requests. Raises Unknown."""
        for file in (found.output_file_id, found.error_file_id):
            if file:
                yield from self._lines(file, RESULT_BYTES * requests)

    def _named(self, name: str) -> ServerBatch | None:
        """The batch whose metadata name it: we were killed between handing in and recording it."""
        from openai import Omit, omit

        api = self.client.api.with_options(max_retries=RETRIES)
        after: str | Omit = omit
        for _ in range(LISTED // PAGE_SIZE):
            answer = api.batches.with_raw_response.list(limit=PAGE_SIZE, after=after)
            page = self._read(PAGE, answer.content, "a list of batches")
            for found in page.data:
                metadata = found.get("metadata")
                if isinstance(metadata, dict) and metadata.get(METADATA) == name:
                    return self._read(BATCH, orjson.dumps(found), "a batch")
            last = page.data[-1].get("id") if page.data else None
            if not page.has_more or not isinstance(last, str):
                break
            after = last
        return None

    def _lines(self, file_id: str, size: int) -> list[bytes]:
        """Lines of a file on the server, of about so many bytes."""
        with self._errors():
            api = self.client.transfer(size, RETRIES)
            content = api.files.with_raw_response.content(file_id).content
        lines = content.splitlines()
        if lines and not any(line.lstrip().startswith(b"{") for line in lines):
            raise self._foreign("a batch's result", content)
        return lines

    def _read(self, schema: Schema[T], content: bytes, expected: str) -> T:
        return schema.parse(content, expected, lambda _: self._foreign(expected, content))

    def _foreign(self, expected: str, content: bytes) -> JudgeError:
        shown = self.client.scrub(content[:4096].decode("utf-8", "replace"))[:80]
        return JudgeError(
            f"batches at {self.client.where}: this is not {expected}: {shown!r}. Does the server "
            "offer batches? What was handed in and taken over is kept"
        )

    @contextmanager
    def _errors(self, *, known: bool = False) -> Iterator[None]:
        """Errors of the client and the wire as ours; known: a 404 is about no batch."""
        import openai

        from eval.client.wire import Broken

        try:
            yield
        except (openai.OpenAIError, Broken) as error:
            if isinstance(error, openai.NotFoundError) and not known:
                raise Unknown from error
            fault = self.client.fault(error)
            if isinstance(fault, JudgeError):
                raise fault from None
            raise JudgeError(
                f"batches at {self.client.where}: {fault}. What was handed in and taken over is "
                "kept; the same command goes on"
            ) from None
