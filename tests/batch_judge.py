"""A judge on loopback that takes files and batches too, as OpenAI's API does."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from threading import RLock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from eval.demo.judge import (
    CHAT,
    MODEL,
    Json,
    JudgeServer,
    Response,
    error,
    not_json,
    parse_object,
    to_json,
)

WINDOW_S = 24 * 3600


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


class BatchJudge(JudgeServer):
    """Serves chat completions, files and batches.

    polls  how often a batch is found still in progress
    """

    def __init__(self, port: int = 0, *, model: str = MODEL, polls: int = 0) -> None:
        self.polls = polls
        self.lock = RLock()
        self.files: dict[str, tuple[Json, bytes]] = {}
        self.batches: dict[str, StoredBatch] = {}
        super().__init__(port, model=model)

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
                request = parse_object(body)
                return not_json() if request is None else self._create_batch(request)
            case "GET", ["v1", "batches"]:
                return _page([batch.state for batch in self.batches.values()], query)
            case "GET", ["v1", "batches", name] if name in self.batches:
                return Response(self._poll(self.batches[name]))
            case "POST", ["v1", "batches", name, "cancel"] if name in self.batches:
                return Response(self._cancel(self.batches[name]))
        return super().respond(method, target, headers, body)

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
                    content = b"".join(to_json(line) + b"\n" for line in lines)
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
        line = parse_object(raw)
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
