"""A server on loopback that sends whatever bytes it is given, in a process of its own."""

import contextlib
import json
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSED_S = 600.0  # after which a server ends by itself, should nobody end it


@dataclass(frozen=True)
class Asked:
    """A request, and how many came before it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    number: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Piece = bytes | float  # bytes to send, or seconds to wait
Respond = Callable[[Asked], Iterable[Piece]]


def answer(
    body: bytes, status: int = 200, kind: str = "application/json", **headers: str
) -> list[Piece]:
    """A whole answer, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join([*lines, "Connection: close", "", ""]).encode() + body]


def completion(content: Any, **changed: Any) -> bytes:
    """A chat completion that says `content`."""
    told = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "rules",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }
    return json.dumps(told | changed).encode()


def replies(tell: Callable[[Any], Any]) -> Respond:
    """A judge that says what `tell` makes of a request."""
    return lambda asked: answer(completion(tell(asked.json)))


class Counter:
    """A number that two processes share."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int.from_bytes(self.memory[:8], "little")

    def add(self) -> int:
        before = self.value
        self.memory[:8] = (before + 1).to_bytes(8, "little")
        return before


@contextlib.contextmanager
def serving(respond: Respond, counter: Counter | None = None) -> Iterator[str]:
    """The URL of a server that runs until the end of the block."""
    server = _server(respond, counter or Counter())
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(CLOSED_S))
        try:
            server.serve_forever(0.05)
        finally:
            os._exit(0)
    port = server.server_port
    server.socket.close()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _server(respond: Respond, counter: Counter) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            asked = Asked(self.command, self.path, dict(self.headers), body, counter.add())
            with contextlib.suppress(OSError):
                for piece in respond(asked):
                    if isinstance(piece, float):
                        time.sleep(piece)
                    else:
                        self.connection.sendall(piece)
            self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
