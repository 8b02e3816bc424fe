"""The wire to a judge: one HTTP request within bounds of time and size.

    time      connecting, sending, headers and body share one deadline
    size      of headers and body as received, and of the body when unpacked
    streams   server-sent events are refused before they are read: nobody asked for them
    headers   of an answer only those that are needed: cookies, for one, are dropped

Redirects are answers like any other here; the client refuses them.
"""

import ssl
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from eval.client.network import Proxy, tls_context

HEADER_BYTES = 1 << 20  # that an answer's headers, chunks and interim answers may take
SLICE_BYTES = 1 << 16  # sent between two looks at the clock
LONGEST_S = 86_400.0  # of a request, whatever was asked for
KEPT = ("content-type", "location", "retry-after", "retry-after-ms")  # headers of an answer


class Broken(Exception):
    """An answer came, and it cannot be used: it is too large, or cannot be unpacked."""


class Streaming(Broken):
    """The server sends events, although nobody asked it to."""


class Wire(httpx2.BaseTransport):
    """Sends requests for httpx2 and takes whole answers, within bounds.

    most   bytes of an answer's body
    proxy  through which everything goes

    The time of a request is that of its "read" time-out, from its start to the last byte of its
    answer. Raises Broken and Streaming beside httpx2's own errors. Safe in threads.
    """

    def __init__(self, url: str, most: int, proxy: Proxy | None) -> None:
        self.most = most
        self.calls = _Calls()
        encrypted = urlsplit(url).scheme == "https"
        self.pool = httpcore2.ConnectionPool(
            ssl_context=tls_context() if encrypted else None,
            proxy=_core(proxy) if proxy else None,
            max_connections=None,
            network_backend=_Backend(self.calls),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request and its whole answer."""
        seconds = request.extensions.get("timeout", {}).get("read") or LONGEST_S
        self.calls.begin(min(seconds, LONGEST_S), self.most + HEADER_BYTES)
        assert isinstance(request.stream, Iterable)
        url = request.url
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors(request):
            answer = self.pool.handle_request(asked)
            try:
                return self._whole(answer)
            finally:
                answer.close()

    def close(self) -> None:
        """End all connections."""
        self.pool.close()

    def _whole(self, answer: httpcore2.Response) -> httpx2.Response:
        found = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in answer.headers
        }
        kind = found.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            raise Streaming
        content = bytearray()
        assert isinstance(answer.stream, Iterable)
        for piece in answer.stream:
            content += piece
            if len(content) > self.most:
                raise Broken(f"a reply of over {self.most:,} bytes")
        encoding = found.get("content-encoding", "").strip().lower()
        body = bytes(content)
        if encoding in ("gzip", "x-gzip", "deflate"):
            body = _unpacked(body, self.most)
        kept = {name: found[name] for name in KEPT if name in found} | {"content-type": kind}
        return httpx2.Response(answer.status, headers=kept, content=body)


def _core(proxy: Proxy) -> httpcore2.Proxy:
    encrypted = proxy.url.startswith("https:")
    return httpcore2.Proxy(proxy.url, proxy.credentials, None, tls_context() if encrypted else None)


def _unpacked(content: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj(47)  # gzip or zlib, as the first bytes say
    try:
        body = unpacking.decompress(content, most + 1)
    except zlib.error:
        raise Broken("a packed reply that cannot be unpacked") from None
    if len(body) > most:
        raise Broken(f"a reply of over {most:,} bytes, once it is unpacked")
    if not unpacking.eof:
        raise Broken("a packed reply that breaks off")
    return body


@contextmanager
def _errors(request: httpx2.Request) -> Iterator[None]:
    """Errors of the network as httpx2 has them: ConnectError where nothing was sent."""
    try:
        yield
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.ProxyError) as error:
        raise httpx2.ConnectError(str(error) or "no connection in time", request=request) from None
    except httpcore2.TimeoutException as error:
        raise httpx2.ReadTimeout(str(error), request=request) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise httpx2.ReadError(str(error), request=request) from None
    except ValueError as error:  # of the resolver, for a name that no host can have
        raise httpx2.ConnectError(str(error), request=request) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "socksio":  # its own are not translated
            raise httpx2.ConnectError(f"not a SOCKS proxy: {error}", request=request) from None
        raise


class _Calls(threading.local):
    """The bounds of the request that a thread has under way."""

    until: float = 0.0
    left: int = 0

    def begin(self, seconds: float, most: int) -> None:
        self.until, self.left = monotonic() + seconds, most

    def remaining(self, late: type[Exception]) -> float:
        seconds = self.until - monotonic()
        if seconds <= 0:
            raise late("the time is over")
        return seconds

    def received(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Broken("an answer that has no end")


class _Backend(httpcore2.SyncBackend):
    """Connections whose every step ends with the deadline of the request."""

    def __init__(self, calls: _Calls) -> None:
        self.calls = calls

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.NetworkStream:
        timeout = self.calls.remaining(httpcore2.ConnectTimeout)
        found = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(found, self.calls)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, calls: _Calls) -> None:
        self.stream, self.calls = stream, calls

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found = self.stream.read(max_bytes, self.calls.remaining(httpcore2.ReadTimeout))
        self.calls.received(len(found))
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            self.stream.write(
                bytes(view[:SLICE_BYTES]), self.calls.remaining(httpcore2.WriteTimeout)
            )
            view = view[SLICE_BYTES:]

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        timeout = self.calls.remaining(httpcore2.ConnectTimeout)
        return _Stream(self.stream.start_tls(ssl_context, server_hostname, timeout), self.calls)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)
