"""A judge on loopback that can misbehave as real ones do, and keeps count of what it was asked.

As a process: `python tests/judge_server.py --latency-s 0.2 --rate-limited 0.1` prints its URL on
the first line and serves until it is killed; GET /stats of the same port tells the counts.
"""

import argparse
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, repeat
from random import Random
from socket import SHUT_RDWR

from batch_judge import BatchJudge, BatchResult, batch_line

from eval.demo.judge import Response, error, user_text

# What may befall a request, in the order in which shares are added up
FAULTS = (
    # an error status
    "rate_limited",  # 429, with retry_after or retry_after_ms if given
    "quota",  # 429 that no waiting helps: insufficient_quota
    "server_error",  # 500
    "unavailable",  # 503
    "bad_request",  # 400
    "forbidden",  # 403
    "not_found",  # 404, as of a model that was withdrawn
    # a broken connection
    "slow",  # answered and billed, but sent only after slow_s
    "closed",  # no byte of an answer; not billed
    "truncated",  # a body that ends before its length; billed
    "invalid_json",  # status 200, half a JSON body; billed
    "html",  # status 200, a page of some proxy; billed
    # an answer that is no judgement; billed
    "nonsense",
    "empty",
    "null",
    "refusal",
    "length",  # cut: finish_reason "length"
    "filtered",  # finish_reason "content_filter", no content
    "no_choices",
)
NONSENSE = "I cannot judge these answers."
WHICH = "a share of all (1.0), the numbers of some as they arrive (0,3), or a text of theirs"


@dataclass
class Received:
    """One request for a chat completion.

    number   in order of arrival, from 0
    attempt  of requests with this body, from 0
    status   answered, or 0 where the connection was closed; None until then
    """

    number: int
    digest: str
    attempt: int
    request: dict
    headers: dict
    time_s: float
    fault: str = ""
    status: int | None = None
    replayed: bool = False


@dataclass(frozen=True)
class Broken(Response):
    """An answer that breaks off after `sent` bytes of its body, or before its first byte."""

    sent: int | None = None


@dataclass(frozen=True)
class Raw(Response):
    """Bytes in place of an HTTP answer, a piece at a time until nobody takes them any more.

    endless  the last piece is sent again and again
    """

    pieces: tuple = ()
    pause_s: float = 0.0
    endless: bool = False


@dataclass
class Record:
    """What the server was asked and what it did; `billed` counts completions by request digest."""

    asked: list = field(default_factory=list)
    billed: Counter = field(default_factory=Counter)
    in_flight: int = 0
    in_flight_max: int = 0
    paths: Counter = field(default_factory=Counter)
    batches: int = 0

    def statuses(self):
        return Counter(str(one.status) for one in self.asked)

    def stats(self):
        return {
            "requests": len(self.asked),
            "statuses": dict(self.statuses()),
            "faults": dict(Counter(one.fault for one in self.asked if one.fault)),
            "billed": dict(self.billed),
            "billed_total": self.billed.total(),
            "billed_twice": sum(count > 1 for count in self.billed.values()),
            "replayed": sum(one.replayed for one in self.asked),
            "in_flight_max": self.in_flight_max,
            "paths": dict(self.paths),
            "batches": self.batches,
        }


def digest_of(request):
    """Digest of a request's JSON body, whatever the order of its keys."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


class FaultyJudge(BatchJudge):
    """A judge with faults, drawn from the seed, the request's digest and its attempt.

    **faults        of FAULTS: a share of all attempts (0.1), or a list of which requests: their
                    numbers in order of arrival, or texts that stand in their user message
    attempts        only the first so many attempts of each request can be hurt
    latency_s       before every answer; slow_s before those that are "slow"
    retry_after     value of that header of a 429, in seconds or a date; retry_after_ms likewise
    key             the one key that is let in; else 401
    echo_key        the caller's key stands in every error message and every reply
    drift, bias     added to both scores, to the first score
    says            what every reply says instead of scores
    reported        the model's name in replies; fingerprint likewise
    honours_key     an Idempotency-Key seen before brings the old reply, which isn't billed again
    polls           how often a batch is found in progress
    batch_ends      "completed", "failed", "expired" or "cancelled"; the last two with half the work
    batch_left_out  which lines of a batch stand in neither file (as for faults)
    batch_errors    which lines of a batch come back as errors
    """

    def __init__(
        self,
        port=0,
        *,
        seed=0,
        latency_s=0.0,
        slow_s=60.0,
        attempts=None,
        retry_after=None,
        retry_after_ms=None,
        key=None,
        echo_key=False,
        drift=0.0,
        bias=0.0,
        says=None,
        reported=None,
        fingerprint="fp_demo_1",
        honours_key=False,
        batch_ends="completed",
        batch_left_out=0.0,
        batch_errors=0.0,
        model="demo-rules",
        polls=0,
        **faults,
    ):
        assert faults.keys() <= set(FAULTS), f"unknown: {faults.keys() - set(FAULTS)}"
        self.seed, self.latency_s, self.slow_s, self.attempts = seed, latency_s, slow_s, attempts
        self.retry_after, self.retry_after_ms = retry_after, retry_after_ms
        self.key, self.echo_key = key, echo_key
        self.drift, self.bias, self.says, self.fingerprint = drift, bias, says, fingerprint
        self.honours_key = honours_key
        self.batch_ends, self.batch_left_out = batch_ends, batch_left_out
        self.batch_errors = batch_errors
        self.faults = faults
        self.record = Record()
        self.attempted = Counter()
        self.replies = {}  # Idempotency-Key -> digest, Answer
        self.told = threading.local()  # the caller's key, while it is answered
        super().__init__(port, model=model, polls=polls)
        if reported is not None:
            self.reported = reported

    @property
    def requests(self):
        return self.record.asked

    @property
    def billed(self):
        return self.record.billed

    def stats(self):
        with self.lock:
            return self.record.stats()

    # The way of a request

    def respond(self, method, target, headers, body):
        if (method, target) == ("GET", "/stats"):
            return Response(self.stats())
        with self.lock:
            self.record.paths[f"{method} {target.partition('?')[0]}"] += 1
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        self.told.key = given
        if self.key is not None and given != self.key:
            return self._error(
                401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"
            )
        return super().respond(method, target, headers, body)

    def reply(self, request, headers):
        digest = digest_of(request)
        with self.lock:
            self.record.in_flight += 1
            self.record.in_flight_max = max(self.record.in_flight_max, self.record.in_flight)
            asked = Received(
                len(self.record.asked),
                digest,
                self.attempted[digest],
                request,
                {name: value for name, value in headers.items() if name != "Authorization"},
                time.time(),
            )
            self.attempted[digest] += 1
            self.record.asked.append(asked)
        try:
            return self._answer(asked)
        finally:
            with self.lock:
                self.record.in_flight -= 1

    def _answer(self, asked):
        name = asked.headers.get("Idempotency-Key") if self.honours_key else None
        with self.lock:
            if name in self.replies:
                digest, answer = self.replies[name]
                if digest != asked.digest:
                    answer = self._error(
                        400, "This Idempotency-Key was used for another request.", "idempotency"
                    )
                asked.status, asked.replayed = answer.status, answer.status == 200
            else:
                asked.fault = self._fault(asked)
                answer = self._hurt(asked.request, asked.fault)
                asked.status = 0 if asked.fault == "closed" else answer.status
                if asked.status == 200:
                    self.record.billed[asked.digest] += 1
                    if name is not None:
                        whole = Response(answer.content) if isinstance(answer, Broken) else answer
                        self.replies[name] = asked.digest, whole
        self.closing.wait(self.slow_s if asked.fault == "slow" else self.latency_s)
        return answer

    def send(self, wire, answer):
        if isinstance(answer, Raw):
            wire.close_connection = True
            pieces = chain(answer.pieces, repeat(answer.pieces[-1]) if answer.endless else ())
            with suppress(OSError):
                for piece in pieces:
                    wire.connection.sendall(piece)
                    if self.closing.wait(answer.pause_s):
                        break
            return
        if not isinstance(answer, Broken):
            with suppress(OSError):  # who asked may be gone
                super().send(wire, answer)
            return
        wire.close_connection = True
        if answer.sent is not None:
            wire.send_response(answer.status)
            wire.send_header("Content-Type", "application/json")
            wire.send_header("Content-Length", str(len(answer.body)))
            wire.end_headers()
            wire.wfile.write(answer.body[: answer.sent])
            wire.wfile.flush()
        with suppress(OSError):
            wire.connection.shutdown(SHUT_RDWR)

    # What befalls it

    def _fault(self, asked):
        if self.attempts is not None and asked.attempt >= self.attempts:
            return ""
        draw = Random(f"{self.seed} {asked.digest} {asked.attempt}").random()
        for name in FAULTS:
            which = self.faults.get(name, 0.0)
            if isinstance(which, int | float):
                draw -= which
                if draw < 0:
                    return name
            elif listed(which, asked.number, asked.request):
                return name
        return ""

    def _hurt(self, request, fault):
        refused = self.refused(request)
        if refused is not None:
            return refused
        match fault:
            case "rate_limited":
                wait = {"Retry-After": self.retry_after, "retry-after-ms": self.retry_after_ms}
                return self._error(
                    429,
                    "Rate limit reached. Please try again later.",
                    "requests",
                    "rate_limit_exceeded",
                    {name: str(value) for name, value in wait.items() if value is not None},
                )
            case "quota":
                return self._error(
                    429,
                    "You exceeded your current quota, please check your plan and billing details.",
                    "insufficient_quota",
                    "insufficient_quota",
                )
            case "server_error":
                return self._error(500, "The server had an error.", "server_error")
            case "unavailable":
                return self._error(503, "The engine is overloaded.", "service_unavailable")
            case "bad_request":
                return self._error(
                    400, "Invalid prompt.", "invalid_request_error", "invalid_prompt"
                )
            case "forbidden":
                return self._error(
                    403, "Country not supported.", "request_forbidden", "unsupported_country"
                )
            case "not_found":
                return self._error(
                    404, "The model was withdrawn.", "invalid_request_error", "model_not_found"
                )
            case "closed":
                return Broken({})
            case "no_choices":
                return Response(self.completion(request) | {"choices": []})
            case "html":
                page = b"<html><body>Bad gateway</body></html>"
                return Response(page, headers={"Content-Type": "text/html"})
        whole = Response(self.completion(request, fault))
        if fault == "truncated":
            return Broken(whole.content, sent=len(whole.body) // 2)
        if fault == "invalid_json":
            return Response(whole.body[: len(whole.body) // 2])
        return whole

    def completion(self, request, fault=""):
        one, two = self.scores(request)
        content = f"{one:g} {two:g}" if self.says is None else self.says
        finish, refusal = "stop", None
        match fault:
            case "nonsense":
                content = NONSENSE
            case "empty":
                content = ""
            case "null":
                content = None
            case "refusal":
                content, refusal = None, "I'm sorry, I can't help with that."
            case "length":
                content, finish = f"{one:g}", "length"
            case "filtered":
                content, finish = None, "content_filter"
        if self.echo_key and content is not None:
            content += f"\nYour key is {getattr(self.told, 'key', '')}"
        completion = self.said(request, content, finish=finish, refusal=refusal)
        return completion | {"system_fingerprint": self.fingerprint}

    def scores(self, request):
        one, two = super().scores(request)
        return one + self.drift + self.bias, two + self.drift

    def _error(self, status, message, kind, code=None, headers=()):
        if self.echo_key:
            message += f" Your key: {getattr(self.told, 'key', '')}."
        return Response(error(status, message, kind, code).content, status, dict(headers))

    # Batches

    def run_batch(self, lines):
        with self.lock:
            self.record.batches += 1
        if self.batch_ends == "failed":
            fault = {"code": "internal", "message": "The batch failed.", "line": None}
            return BatchResult("failed", faults=[fault | {"param": None}])
        output, errors = [], []
        done = len(lines) if self.batch_ends == "completed" else len(lines) // 2
        for number, line in enumerate(lines):
            custom_id, request = line["custom_id"], line["body"]
            draw = Random(f"{self.seed} {digest_of(request)} batch").random
            if chosen(self.batch_left_out, number, request, draw()):
                continue
            if number >= done:
                code = f"batch_{self.batch_ends}"
                fault = {"code": code, "message": "This request could not be executed in time."}
                errors.append({**batch_line(custom_id, Response({})), "response": None})
                errors[-1]["error"] = fault
                continue
            if chosen(self.batch_errors, number, request, draw()):
                answer = self._error(500, "The server had an error.", "server_error")
            else:
                answer = self.batch_reply(request)
            (output if answer.status == 200 else errors).append(batch_line(custom_id, answer))
        return BatchResult(self.batch_ends, output, errors)

    def batch_reply(self, request):
        """As `reply`, but for what only a connection can suffer."""
        digest = digest_of(request)
        with self.lock:
            attempt = self.attempted[digest]
            self.attempted[digest] += 1
            asked = Received(-1, digest, attempt, request, {}, time.time())
            fault = self._fault(asked)
            known = FAULTS.index(fault) >= FAULTS.index("nonsense") if fault else False
            answer = self._hurt(request, fault if known else "")
            if answer.status == 200:
                self.record.billed[digest] += 1
        return answer


class Answering(FaultyJudge):
    """A judge with one answer to everything; an exact one may be made of the request's number."""

    def __init__(self, answer, **options):
        self.answer = answer
        super().__init__(**options)

    def reply(self, request, headers):
        said = super().reply(request, headers)
        made = self.answer(said) if callable(self.answer) else self.answer
        return said if made is None else made


def chosen(which, number, request, draw):
    """Whether a share, given a number drawn from [0, 1), or a list picks a request."""
    return draw < which if isinstance(which, int | float) else listed(which, number, request)


def listed(which, number, request):
    """Whether a list names a request by its number or by a text in its user message."""
    text = user_text(request)
    return any(one == number if isinstance(one, int) else one in text for one in which)


def _which(text):
    """0.1 is a share; 3,5 are numbers; anything else is a text."""
    parts = text.split(",")
    if all(part.isdigit() for part in parts):
        return [int(part) for part in parts]
    with suppress(ValueError):
        return float(text)
    return [text]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-s", "--latency", type=float, default=0.0)
    parser.add_argument("--slow-s", type=float, default=60.0)
    parser.add_argument("--attempts", type=int)
    parser.add_argument("--retry-after")
    parser.add_argument("--retry-after-ms")
    parser.add_argument("--key")
    parser.add_argument("--echo-key", action="store_true")
    parser.add_argument("--drift", type=float, default=0.0)
    parser.add_argument("--bias", type=float, default=0.0)
    parser.add_argument("--says")
    parser.add_argument("--reported")
    parser.add_argument("--model", default="demo-rules")
    parser.add_argument("--honours-key", action="store_true")
    parser.add_argument("--polls", type=int, default=0)
    parser.add_argument(
        "--batch-ends",
        default="completed",
        choices=("completed", "failed", "expired", "cancelled"),
    )
    parser.add_argument("--batch-left-out", type=_which, default=0.0, help=WHICH)
    parser.add_argument("--batch-errors", type=_which, default=0.0, help=WHICH)
    for name in FAULTS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_which, default=0.0, help=WHICH)
    with FaultyJudge(**vars(parser.parse_args(argv))) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
