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
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]

MODEL = "demo-rules"
CHAT = "/v1/chat/completions"
WINDOW_S = 24 * 3600
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
        return self.content if isinstance(self.content, bytes) else _json(self.content)


@dataclass(slots=True)
class StoredBatch:
    """Requests that were handed in together.

    polls  how often it has been looked at
    state  what OpenAI's API calls a batch
    """

    state: Json
    polls: int = 0
    outcome: "BatchResult | None" = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How a batch ends: its last status, the lines of its two files, faults of the input."""

    status: str
    output: Sequence[Json] = ()
    errors: Sequence[Json] = ()
    faults: Sequence[Json] = ()


class JudgeServer:
    """Serves chat completions, files and batches below `url`, on threads of its own.

    port   0 takes one that is free
    model  the one name it answers to; it reports itself as the first version of that
    polls  how often a batch is found still in progress

    Use it in a with statement. `reply` is the seam: a subclass may answer there as it likes. Header
    names are written as in Idempotency-Key.
    """

    def __init__(self, port: int = 0, *, model: str = MODEL, polls: int = 0) -> None:
        self.model = model
        self.reported = f"{model}-1"
        self.polls = polls
        self.closing = threading.Event()
        self.lock = threading.RLock()
        self.files: dict[str, tuple[Json, bytes]] = {}
        self.batches: dict[str, StoredBatch] = {}
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

    def run_batch(self, lines: Sequence[Json]) -> BatchResult:
        """Do a batch's work: a line of the output or of the error file for each of its lines."""
        output: list[Json] = []
        errors: list[Json] = []
        for line in lines:
            answer = self.batch_reply(line["body"])
            done = batch_line(line["custom_id"], answer)
            (output if answer.status == 200 else errors).append(done)
        return BatchResult("completed", output, errors)

    def batch_reply(self, request: Json) -> Response:
        """Answer one request of a batch."""
        return self.refused(request) or Response(self.completion(request))

    def respond(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        """Answer any HTTP request."""
        place = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(place.query).items()}
        parts = place.path.strip("/").split("/")
        match method, parts:
            case "POST", ["v1", "chat", "completions"]:
                request = _object(body)
                return _not_json() if request is None else self.reply(request, headers)
            case "POST", ["v1", "files"]:
                return self._upload(headers, body)
            case "GET", ["v1", "files"]:
                return _page([state for state, _ in self.files.values()], query)
            case "GET", ["v1", "files", name] if name in self.files:
                return Response(self.files[name][0])
            case "GET", ["v1", "files", name, "content"] if name in self.files:
                headers = {"Content-Type": "application/octet-stream"}
                return Response(self.files[name][1], headers=headers)
            case "DELETE", ["v1", "files", name] if name in self.files:
                del self.files[name]
                return Response({"id": name, "object": "file", "deleted": True})
            case "POST", ["v1", "batches"]:
                request = _object(body)
                return _not_json() if request is None else self._create_batch(request)
            case "GET", ["v1", "batches"]:
                return _page([batch.state for batch in self.batches.values()], query)
            case "GET", ["v1", "batches", name] if name in self.batches:
                return Response(self._poll(self.batches[name]))
            case "POST", ["v1", "batches", name, "cancel"] if name in self.batches:
                return Response(self._cancel(self.batches[name]))
        return error(404, f"Nothing stands at {method} {place.path}.", "invalid_request_error")

    def _upload(self, headers: Mapping[str, str], body: bytes) -> Response:
        fields = _form(headers.get("Content-Type") or "", body)
        if "file" not in fields or fields.get("purpose", ("", b""))[1] != b"batch":
            return error(
                400, "A form with a file and purpose=batch expected.", "invalid_request_error"
            )
        filename, content = fields["file"]
        return Response(self._keep(filename, content, "batch"))

    def _keep(self, filename: str, content: bytes, purpose: str) -> Json:
        state: Json = {
            "id": f"file-{token_hex(12)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "expires_at": None,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        with self.lock:
            self.files[state["id"]] = state, content
        return state

    def _create_batch(self, request: Json) -> Response:
        name = str(request.get("input_file_id"))
        if name not in self.files:
            return error(404, f"No such File object: {name}", "invalid_request_error")
        if (request.get("endpoint"), request.get("completion_window")) != (CHAT, "24h"):
            what = f"Endpoint {CHAT} and completion_window 24h expected."
            return error(400, what, "invalid_request_error", "invalid_value")
        now = int(time.time())
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
        state: Json = {
            "id": f"batch_{token_hex(12)}",
            "object": "batch",
            "endpoint": CHAT,
            "model": None,
            "errors": None,
            "input_file_id": name,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + WINDOW_S,
            **{f"{each}_at": None for each in (*times, "cancelled")},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": request.get("metadata"),
        }
        batch = StoredBatch(state)
        lines, faults = _batch_lines(self.files[name][1])
        batch.outcome = BatchResult("failed", faults=faults) if faults else self.run_batch(lines)
        with self.lock:
            self.batches[state["id"]] = batch
            if not faults:
                state["request_counts"]["total"] = len(lines)
            return Response(dict(state))

    def _poll(self, batch: StoredBatch) -> Json:
        """The batch's state, one look later."""
        with self.lock:
            state, outcome = batch.state, batch.outcome
            batch.polls += 1
            if outcome is None:
                return dict(state)
            if batch.polls <= self.polls:
                if state["status"] == "validating":
                    _reach(state, "in_progress")
                return dict(state)
            batch.outcome = None
            if not outcome.faults:
                _reach(state, "in_progress")
                _reach(state, "finalizing")
            _reach(state, outcome.status)
            if outcome.faults:
                state["errors"] = {"object": "list", "data": list(outcome.faults)}
            for kind, lines in (("output", outcome.output), ("error", outcome.errors)):
                if lines:
                    content = b"".join(_json(line) + b"\n" for line in lines)
                    kept = self._keep(f"{state['id']}_{kind}.jsonl", content, "batch_output")
                    state[f"{kind}_file_id"] = kept["id"]
            state["request_counts"] |= {
                "completed": len(outcome.output),
                "failed": len(outcome.errors),
            }
            return dict(state)

    def _cancel(self, batch: StoredBatch) -> Json:
        with self.lock:
            if batch.outcome is not None:
                batch.outcome = None
                _reach(batch.state, "cancelling")
                _reach(batch.state, "cancelled")
            return dict(batch.state)


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


def batch_line(custom_id: str, answer: Response) -> Json:
    """A line of a batch's output or error file."""
    return {
        "id": f"batch_req_{token_hex(12)}",
        "custom_id": custom_id,
        "response": {
            "status_code": answer.status,
            "request_id": token_hex(16),
            "body": answer.content,
        },
        "error": None,
    }


def _batch_lines(content: bytes) -> tuple[list[Json], list[Json]]:
    """The requests of an input file, and what is wrong with it, as the API words it."""
    lines: list[Json] = []
    faults: list[Json] = []
    known: set[Any] = set()
    for number, raw in enumerate(content.splitlines(), 1):
        line = _object(raw)
        code = ""
        if line is None or not isinstance(line.get("body"), dict):
            code = "invalid_json_line"
        elif not isinstance(line.get("custom_id"), str):
            code = "missing_required_parameter"
        elif line["custom_id"] in known:
            code = "duplicate_custom_id"
        elif (line.get("method"), line.get("url")) != ("POST", CHAT):
            code = "invalid_url"
        if code or line is None:
            message = f"Line {number} of the input file is not as it should be: {code}."
            faults.append({"code": code, "message": message, "param": None, "line": number})
        else:
            known.add(line["custom_id"])
            lines.append(line)
    if not lines and not faults:
        message = "The input file is empty."
        faults.append({"code": "empty_file", "message": message, "param": None, "line": None})
    return lines, faults


def _reach(state: Json, status: str) -> None:
    state["status"] = status
    state[f"{status}_at"] = state[f"{status}_at"] or int(time.time())


def _page(states: list[Json], query: Mapping[str, str]) -> Response:
    """The newest first, from behind `after`, at most `limit`."""
    newest = states[::-1]
    start = 1 + next((n for n, s in enumerate(newest) if s["id"] == query.get("after")), -1)
    limit = int(query.get("limit", "20"))
    shown = [dict(state) for state in newest[start : start + limit]]
    return Response(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(newest) > start + limit,
        }
    )


def _form(kind: str, body: bytes) -> dict[str, tuple[str, bytes]]:
    """Name -> (file name, content) of the parts of a multipart form."""
    boundary = re.search(r'boundary="?([^";]+)', kind)
    fields: dict[str, tuple[str, bytes]] = {}
    for part in body.split(b"--" + boundary[1].encode())[1:-1] if boundary else ():
        head, _, content = part.partition(b"\r\n\r\n")
        header = head.decode(errors="replace")
        name = re.search(r'\bname="([^"]*)"', header)
        filename = re.search(r'\bfilename="([^"]*)"', header)
        if name:
            fields[name[1]] = filename[1] if filename else "", content.removesuffix(b"\r\n")
    return fields


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


def _object(body: bytes) -> Json | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _not_json() -> Response:
    what = "We could not parse the JSON body of your request."
    return error(400, what, "invalid_request_error")


def _json(content: Json) -> bytes:
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
