"""A server of files on loopback that can misbehave as real ones do."""

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep


@dataclass
class Page:
    """What one path answers.

    cut      the connection ends after so many bytes of each answer
    ranges   whether a part may be asked for
    fail     so many answers first are status 503
    pause_s  seconds between pieces of 64 kB
    early    a part begins so many bytes before the one that was asked for
    heeds    whether If-Range is heeded
    sized    whether the length is told
    """

    content: bytes
    cut: int | None = None
    ranges: bool = True
    tagged: bool = True
    fail: int = 0
    status: int = 200
    location: str = ""
    pause_s: float = 0
    early: int = 0
    heeds: bool = True
    sized: bool = True
    commit: str = ""  # of the hub's repository that the file is of
    asked: list = field(default_factory=list)  # the Range of each request, or None


class Web:
    """Pages by path; `url(path)` is where one is."""

    def __init__(self):
        self.pages = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                web._answer(self)

            def do_HEAD(self):
                web._answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/{path}"

    def page(self, path, content=b"", **options):
        self.pages[path] = Page(content, **options)
        return self.url(path)

    def asked(self, path):
        return self.pages[path].asked

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _answer(self, request):
        page = self.pages.get(request.path.lstrip("/"))
        if page is None:
            request.send_error(404)
            return
        wanted = request.headers.get("Range")
        page.asked.append(wanted)
        if page.location:
            request.send_response(302)
            request.send_header("Location", page.location)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if page.fail:
            page.fail -= 1
            request.send_error(503)
            return
        tag = f'"{hashlib.sha256(page.content).hexdigest()[:16]}"'
        start = 0
        same = not page.heeds or request.headers.get("If-Range", tag) == tag
        if wanted and page.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) - page.early
        content = page.content[start:]
        request.send_response(206 if start else page.status)
        if start:
            whole = len(page.content)
            request.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if page.tagged:
            request.send_header("ETag", tag)
        if page.commit:
            request.send_header("X-Repo-Commit", page.commit)
        if page.sized:
            request.send_header("Content-Length", str(len(content)))
        else:
            request.send_header("Connection", "close")
        request.end_headers()
        if request.command == "HEAD":
            return
        sent = content if page.cut is None else content[: page.cut]
        with contextlib.suppress(OSError):  # who asked may be gone
            for place in range(0, len(sent), 65536):
                request.wfile.write(sent[place : place + 65536])
                sleep(page.pause_s)
        request.close_connection = page.cut is not None or request.close_connection
