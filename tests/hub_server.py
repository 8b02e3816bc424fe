"""A model hub on loopback, for tests of what is downloaded."""

import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def environment(server, cache):
    """Of a process that takes this server for its hub."""
    return os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
    }


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download needs: repositories by id, COMMIT the head of each."""

    folders: ClassVar[dict[str, Path]]
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(None)

    def answer(self, body):
        path = unquote(self.path.partition("?")[0])
        self.asked.append(path)
        content = self.content(path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body is None:
            self.wfile.write(content)

    def content(self, path):
        for repository, folder in self.folders.items():
            files = sorted(folder.iterdir())
            if path.startswith(f"/api/models/{repository}/revision/"):
                names = [{"rfilename": file.name} for file in files]
                return json.dumps({"id": repository, "sha": COMMIT, "siblings": names}).encode()
            if path.startswith(f"/api/models/{repository}/tree/{COMMIT}"):
                rows = [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40}
                    for f in files
                ]
                return json.dumps(rows).encode()
            if path.startswith(f"/{repository}/resolve/{COMMIT}/"):
                return (folder / path.rpartition("/")[2]).read_bytes()
        return None

    def log_message(self, *_):
        pass
