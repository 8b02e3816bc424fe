"""The demo's stand-in for a judge: rules behind OpenAI's API, on loopback.

An answer's score is how far its words overlap with a paragraph of the rest of the message, such as
the description of what was drawn. Knows no prompt: it takes what stands behind lines that name
answer 1 and answer 2.
"""

import json
import math
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_hex
from socket import SHUT_RDWR, socket
from typing import Any, Self
from urllib.parse import urlsplit

Json = dict[str, Any]

MODEL = "demo-rules"
CHAT = "/v1/chat/completions"
WHO = r"(?:assistant|answer|response|reply|回答|答案|助手)"
NAME = (
    rf"[^\n\d]{{0,40}}?(?:{WHO}[^\w\n]{{0,3}}_?([12])(?!\d)"
    rf"|(first|second|第一|第二)个?[^\w\n]{{0,3}}{WHO})"
)
# "[Start: assistant 1]", "--- first answer ---", "Answer 1:", "<answer_1>"
MARKER = re.compile(
    rf"^([#\[<【=*-]+){NAME}[^\n\d]{{0,20}}?(?:[\]>】=*:：-]+|$)|^{NAME}[^\n\d:：]{{0,20}}[:：]+",
    re.MULTILINE | re.IGNORECASE,
)
NUMBERS = {"1": "1", "first": "1", "第一": "1", "2": "2", "second": "2", "第二": "2"}
# A word, or one character of a script that has no spaces
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back over the wire.

    content  of the body: an object that becomes JSON, or bytes as they are
    """

    content: Json | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The bytes of the body."""
        return self.content if isinstance(self.content, bytes) else to_json(self.content)


class JudgeServer:
    """Serves chat completions below `url`, on threads of its own.

    port   0 takes one that is free
    model  the one name it answers to; it reports itself as the first version of that

    Use it in a with statement. A subclass may answer otherwise in `reply` or `respond`. Names of
    headers are written as in Idempotency-Key.
    """

    def __init__(self, port: int = 0, *, model: str = MODEL) -> None:
        self.model = model
        self.reported = f"{model}-1"
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="judge", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The base URL that a client is given."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._server.drop_all()
        self._server.server_close()
        self._thread.join()

    def reply(self, request: Json, headers: Mapping[str, str]) -> Response:
        """Answer one chat request, given its body and its HTTP headers."""
        return self.refused(request) or Response(self.completion(request))

    def send(self, wire: BaseHTTPRequestHandler, answer: Response) -> None:
        """Write an answer out, in one piece."""
        body = answer.body
        wire.send_response(answer.status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "x-request-id": f"req_{token_hex(12)}",
            **answer.headers,
        }.items():
            wire.send_header(name, value)
        wire.end_headers()
        wire.wfile.write(body)
        wire.wfile.flush()

    def refused(self, request: Json) -> Response | None:
        """The error that a request deserves whatever its text, or None."""
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages or request.get("stream"):
            what = "streaming is not offered" if request.get("stream") else "no messages"
            return error(400, f"Invalid request: {what}.", "invalid_request_error", "invalid_value")
        if request.get("model") != self.model:
            return error(
                404,
                f"The model `{request.get('model')}` does not exist; this server has "
                f"`{self.model}`.",
                "invalid_request_error",
                "model_not_found",
            )
        return None

    def completion(self, request: Json) -> Json:
        """A whole chat completion for a request that is right."""
        first, second = self.scores(request)
        return self.said(request, f"{first:g} {second:g}")

    def scores(self, request: Json) -> tuple[float, float]:
        """The two scores of a request's answers."""
        return judge(user_text(request))

    def said(
        self,
        request: Json,
        content: str | None,
        *,
        finish: str = "stop",
        refusal: str | None = None,
    ) -> Json:
        """A chat completion that says `content`."""
        prompt_tokens = sum(_tokens(text) + 4 for text in _texts(request))
        given = _tokens(content or refusal or "")
        return {
            "id": f"chatcmpl-{token_hex(12)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.reported,
            "system_fingerprint": "fp_demo_1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, "refusal": refusal},
                    "logprobs": None,
                    "finish_reason": finish,
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": given,
                "total_tokens": prompt_tokens + given,
            },
        }

    def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        """Answer any HTTP request."""
        path = urlsplit(target).path.rstrip("/")
        if (method, path) != ("POST", CHAT):
            return error(404, f"Nothing stands at {method} {path}.", "invalid_request_error")
        request = parse_object(body)
        return not_json() if request is None else self.reply(request, headers)


def judge(text: str) -> tuple[float, float]:
    """Scores from 1 to 10 in steps of 0.5 of the two answers in a message.

    Where no two answers are found, the scores come from the text's digest.
    """
    answers, rest = find_answers(text)
    if len(answers) < 2:
        first, second = sha256(text.encode(errors="replace")).digest()[:2]
        return 1 + first % 19 / 2, 1 + second % 19 / 2
    blocks = [Counter(_words(block)) for block in re.split(r"\n\s*\n", rest)]
    one, two = (_score(Counter(_words(answers[number])), blocks) for number in "12")
    return one, two


def find_answers(text: str) -> tuple[dict[str, str], str]:
    """What stands behind the first marker of each number, "1" and "2", up to the next marker.

    And all the rest. Behind the last marker an answer ends at a line that begins like that one, or
    else with its paragraph.
    """
    markers = list(MARKER.finditer(text))
    if not markers:
        return {}, text
    ends = [*(marker.start() for marker in markers[1:]), len(text)]
    answers: dict[str, str] = {}
    rest = text[: markers[0].start()]
    for marker, end in zip(markers, ends, strict=True):
        mark, *names = marker.groups()
        number = NUMBERS[next(name for name in names if name).lower()]
        part, more = text[marker.end() : end], ""
        if number in answers:
            rest += part
            continue
        if end == len(text):
            closed = re.search(rf"^{re.escape(mark)}", part, re.MULTILINE) if mark else None
            part, more = (
                (part[: closed.start()], part[closed.start() :])
                if closed
                else part.lstrip().partition("\n\n")[::2]
            )
        answers[number] = part.strip()
        rest += f"\n\n{more}"
    return answers, rest


def _score(answer: Counter[str], blocks: Sequence[Counter[str]]) -> float:
    """The root of the F1 with the nearest paragraph, so that a right word is not worth nothing."""
    best = max(
        (2 * (answer & block).total() / max(1, answer.total() + block.total()) for block in blocks),
        default=0.0,
    )
    return 1 + round(18 * math.sqrt(best)) / 2


def user_text(request: Json) -> str:
    """The text of a request's last user message."""
    messages = [message for message in request["messages"] if message.get("role") == "user"]
    return _content(messages[-1]) if messages else ""


def error(
    status: int, message: str, kind: str, code: str | None = None, **headers: str
) -> Response:
    """An error as OpenAI's API words it; underscores in header names become hyphens."""
    content = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(content, status, named)


def _content(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):  # parts, each of a type
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def _texts(request: Json) -> list[str]:
    return [_content(message) for message in request.get("messages", [])]


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _tokens(text: str) -> int:
    """About as many as a real vocabulary would make of a text."""
    return math.ceil(len(_words(text)) * 4 / 3)


def parse_object(body: bytes) -> Json | None:
    """The JSON object in a body, or None."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def not_json() -> Response:
    """The answer to a body that is no JSON object."""
    what = "We could not parse the JSON body of your request."
    return error(400, what, "invalid_request_error")


def to_json(content: Json) -> bytes:
    """A body of JSON."""
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], handler: Callable[..., BaseHTTPRequestHandler]
    ) -> None:
        self.connections: set[socket] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        """End every open connection."""
        for connection in list(self.connections):
            with suppress(OSError):  # it ended by itself
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(judge_server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.title(): value for name, value in self.headers.items()}
            answer = judge_server.respond(self.command, self.path, headers, body)
            judge_server.send(self, answer)

    return Handler
