"""The files of a run: their names, and the type of each that is read back.

    RUN/manifest.json               what was run: model, settings, versions, data and their digests
    RUN/<task>/examples.jsonl       few-shot: the training samples before each question
    RUN/<task>/journal-<n>.jsonl    worker n's answers, a line each; the first names the model
    RUN/<task>/predictions.jsonl    all answers in dataset order; that it exists proves it complete
    RUN/<task>/losses.jsonl         ranked options: each option's loss
    RUN/<task>/scores.jsonl         one line a sample: each metric's value
    RUN/<task>/summary.json         the scores, and digests of the files that they were made from
    RUN/<task>/submission/<file>    what the benchmark's server takes
    RUN/<task>/server.json          the scores that the server or a judge gave
    RUN/<task>/judgements.jsonl     what the judge said of each answer
    RUN/.work/                      the lock, the plan of pending requests, workers' logs

Each type is checked when its file is read, by pydantic (eval.storage.reading.Schema), also that of
a line: 200,000 lines take half a second, so no faster way is needed. Lines of predictions and
journals are in eval.run.journal. What no program reads back (examples, the submission) has no type.

The files of a scored task must agree: `check_agreement` compares a summary with what it was made
from.
"""

import hashlib
import math
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from annotated_types import Ge, Le

from eval.errors import RunError
from eval.storage.digests import sha256_file
from eval.storage.reading import (
    MAX_INTEGER,
    Schema,
    is_there,
    parse_json,
    read_bytes,
    read_lines,
    reason,
)

MANIFEST = "manifest.json"
EXAMPLES = "examples.jsonl"
JOURNAL = "journal-{}.jsonl"
PREDICTIONS = "predictions.jsonl"
LOSSES = "losses.jsonl"
SCORES = "scores.jsonl"
SUMMARY = "summary.json"
SUBMISSION = "submission"
SERVER = "server.json"
JUDGEMENTS = "judgements.jsonl"
WORK = ".work"
SOURCES = (PREDICTIONS, LOSSES, SCORES, SERVER, JUDGEMENTS)  # what a summary is made from

TEXTS = ("id", "image")  # of a sample's scores; all else in it are values of metrics
MAX_SOURCE_BYTES = 4 << 30  # of a file that a summary is made from: a sparse one has no end
FORMAT = 2  # of a run's folder; since 2 journals name their model
FARTHEST = 1e6  # from 0 that a score or an end of an interval may be
SETTLED_NS = 2_000_000_000  # a younger change may be followed by another of the same time stamp
SLACK = 1e-9  # sums in another order
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")  # of a task, a metric, a protocol

Count = Annotated[int, Ge(0), Le(MAX_INTEGER)]
Positive = Annotated[int, Ge(1), Le(MAX_INTEGER)]
Score = Annotated[float, Ge(0), Le(FARTHEST)]
End = Annotated[float, Ge(-FARTHEST), Le(FARTHEST)]
Metrics = dict[str, Score]
Groups = dict[str, dict[str, dict[str, Count | Score]]]  # group -> value -> samples and metrics


@dataclass(frozen=True, slots=True)
class Model:
    """What a manifest says about the model, as far as it is read; the back end may say more.

    answers  digest of the table of answers, where no model answered
    """

    checkpoint: str | None = None
    revision: str | None = None
    chat_format: str | None = None
    digest: str | None = None
    dtype: str | None = None
    device: str | None = None
    engine: str | None = None
    batch_size: Count | str | None = None
    generation: Count | None = None
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a manifest describes a task's decoding: `rank` alone, or how tokens are chosen."""

    rank: bool = False
    greedy: bool = True
    max_new_tokens: Count = 0
    min_new_tokens: Count = 0
    top_p: float | None = None
    seed: Count = 0


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """What a manifest says about a task; see eval.run.spec.spec_entry."""

    prompt: str
    protocol: str
    decode: Decoding
    size: Positive | None
    limit: Positive | None
    sources: dict[str, str]
    layout: str = ""
    system: str = ""
    few_shot: Count = 0
    seed: Count = 0
    leaking: bool = False
    faults: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json, as far as it is read.

    format  of the folder; 1 where it is missing
    data    data root when the run was made
    """

    model: Model
    tasks: dict[str, TaskEntry] | None = None
    name: str | None = None
    format: Positive = 1
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""


@dataclass(frozen=True, slots=True)
class SummaryInterval:
    """Where a metric's mean may lie, 95%, and by what method."""

    low: float
    high: float
    method: str = ""


@dataclass(frozen=True, slots=True)
class MetricRange:
    """The lowest and the highest value of a metric; mean: whether its score is that of samples."""

    range: tuple[End, End]
    mean: bool


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judged, in server.json and summary.json.

    reported  names that the judge's server gave itself
    prompt    its digest, and whether it is the benchmark's
    as_published  whether scores outside the scale count, as in the published script
    """

    model: str
    prompt: dict[str, Any]
    reported: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    as_published: bool = False


@dataclass(frozen=True, slots=True)
class JudgedRound:
    """What the judge said of an answer once. Its `key` in the ledger follows from an address too,
    and is not read.
    """

    reported: str | None = None
    fingerprint: str | None = None
    reply: str | None = None
    scores: tuple[float | None, ...] | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A line of judgements.jsonl: a sample, and each round in which it was judged."""

    id: str
    rounds: tuple[JudgedRound, ...]


@dataclass(frozen=True, slots=True)
class ServerScores:
    """server.json: see eval.run.scores.TaskScores.write_server."""

    server: str
    metrics: Metrics
    samples: dict[str, dict[str, float]] = field(default_factory=dict)
    by: Groups = field(default_factory=dict)
    intervals: dict[str, SummaryInterval] = field(default_factory=dict)
    judge: Judge | None = None
    no_interval: dict[str, str] = field(default_factory=dict)
    metric_types: dict[str, MetricRange] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    predictions: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Processes and batch size of the published procedure, where it was reproduced."""

    processes: Positive
    batch_size: Positive


@dataclass(frozen=True, slots=True)
class Summary:
    """summary.json.

    size          samples in the official split, or None where it is not known
    images        distinct ones among the samples
    complete      samples == size, none failed, and the data have no faults
    protocol      "published", or the name of another way to ask
    metrics       name -> mean over samples, the main one first; empty where only a server can score
    unreadable    answers that could not be parsed, and scored 0
    signature     one line that the scores can be quoted with
    few_shot      examples before each question
    faults        what keeps the data from being the official split's
    failed        samples without an answer, which are not among `samples`
    scored_by     the server or judge that gave the scores, "" where they were computed here
    doubts        why those are not what the card has
    caveats       what a reader must know of the scores
    as_published  where the published procedure was reproduced
    by            group -> value -> {"samples": count, metric: mean over them}
    no_interval   metric -> why it has none
    metric_types  of the metrics, by name; empty in older folders
    digests       sha256 of the files that it was made from, by name; None in older folders
    """

    task: str
    size: Positive | None
    samples: Count
    images: Count
    complete: bool
    protocol: str
    metrics: Metrics
    unreadable: Count = 0
    signature: str = ""
    few_shot: Count = 0
    faults: tuple[str, ...] = ()
    failed: Count = 0
    scored_by: str = ""
    doubts: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    as_published: Published | None = None
    by: Groups = field(default_factory=dict)
    intervals: dict[str, SummaryInterval] = field(default_factory=dict)
    no_interval: dict[str, str] = field(default_factory=dict)
    metric_types: dict[str, MetricRange] = field(default_factory=dict)
    judge: Judge | None = None
    digests: dict[str, str] | None = None


_MANIFEST: Schema[Manifest] = Schema(Manifest)
_SUMMARY: Schema[Summary] = Schema(Summary)
_SERVER: Schema[ServerScores] = Schema(ServerScores)
_JUDGEMENT: Schema[Judgement] = Schema(Judgement)
_ROW: Schema[dict[str, str | float]] = Schema(dict[str, str | float])


def read_manifest(run: Path) -> tuple[Manifest, dict[str, Any]]:
    """A run's manifest: checked, and as it stands in the file. Raises RunError."""
    file = run / MANIFEST
    content = read_bytes(file, RunError)
    manifest = _MANIFEST.parse(content, str(file), RunError)
    for task in manifest.tasks or ():
        _check_name(file, "a task's", task)
    return manifest, parse_json(content, str(file), RunError)


def read_server(file: Path) -> dict[str, Any]:
    """The content of server.json, checked. Raises RunError."""
    content = read_bytes(file, RunError)
    checked = _SERVER.parse(content, str(file), RunError)
    _check_metrics(file, checked.metrics, checked.by)
    scores: dict[str, Any] = parse_json(content, str(file), RunError)
    return scores


def read_scores(folder: Path) -> Iterator[dict[str, Any]]:
    """A task's scores.jsonl: the texts `id` and `image`, and a number for each metric.

    Raises RunError, naming the line, for anything else.
    """
    file = folder / SCORES
    for number, line in enumerate(read_lines(file, RunError), 1):
        where = f"{file}, line {number}"
        row = _ROW.parse(line, where, RunError)
        for name, value in row.items():
            expected = "a text" if name in TEXTS else "a number"
            if isinstance(value, str) != (name in TEXTS):
                raise RunError(f"{where}: {name!s:.80}: {expected} expected, {value!r:.80} found")
        if not set(TEXTS) <= row.keys():
            raise RunError(
                f"{where}: the texts 'id' and 'image' expected, {row!r:.80} found. {_again(folder)}"
            )
        yield row


def read_summary(folder: Path) -> Summary:
    """A task's summary, which does not contradict itself. Raises RunError."""
    file = folder / SUMMARY
    summary = _SUMMARY.read(file, RunError)
    _check_name(file, "a task's", summary.task)
    _check_name(file, "a protocol's", summary.protocol)
    if summary.task != folder.name:
        raise RunError(
            f"{file}: task {folder.name!r} expected, as the folder, {summary.task!r} found"
        )
    if not summary.samples and not summary.failed:
        raise RunError(f"{file}: samples: there are none, and none failed")
    if summary.size is not None and summary.samples > summary.size and not summary.faults:
        raise RunError(
            f"{file}: at most {summary.size:,} samples expected, its 'size', "
            f"{summary.samples:,} found"
        )
    complete = summary.samples == summary.size and not summary.faults and not summary.failed
    if summary.complete != complete:
        size = "an unknown number" if summary.size is None else f"{summary.size:,}"
        raise RunError(
            f"{file}: 'complete': {str(complete).lower()} expected, as {summary.samples:,} samples "
            f"of {size} were scored and the data have {len(summary.faults)} faults, "
            f"{str(summary.complete).lower()} found"
        )
    _check_metrics(file, summary.metrics, summary.by)
    for group, values in summary.by.items():
        for value, part in values.items():
            if part["samples"] > summary.samples:
                raise RunError(
                    f"{file}: {group} {value!r:.80}: at most {summary.samples:,} samples expected, "
                    f"{part['samples']:,} found"
                )
    for name, each in summary.metric_types.items():
        low, high = each.range
        if low >= high:
            raise RunError(f"{file}: 'metric_types': {name!r:.80}: {low:g} is not below {high:g}")
    for name, ends in summary.intervals.items():
        score = summary.metrics.get(name)
        if score is None or not ends.low - SLACK <= score <= ends.high + SLACK:
            raise RunError(
                f"{file}: 'intervals': {name!r:.80}: {ends.low:g} to {ends.high:g} found, and its "
                f"figure is not between: {score!r:.80}"
            )
    return summary


def _check_name(file: Path, whose: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise RunError(f"{file}: {whose} name expected, {name!r:.80} found")


def _check_metrics(file: Path, metrics: Mapping[str, float], by: Groups) -> None:
    """Names of metrics, and parts that count their samples."""
    for name in metrics:
        _check_name(file, "a metric's", name)
    for group, values in by.items():
        for value, part in values.items():
            count = part.get("samples")
            if not isinstance(count, int) or count < 1:
                raise RunError(
                    f"{file}: {group} {value!r:.80}: 'samples': a positive integer expected, "
                    f"{count!r:.80} found"
                )
            for name in part:
                _check_name(file, "a metric's", name)


def source_digests(folder: Path, names: tuple[str, ...] = SOURCES) -> dict[str, str]:
    """sha256 of those of these files that are in a task's folder. Raises RunError."""
    files = {name: folder / name for name in names}
    return {
        name: _sha256(*_state(file)) for name, file in files.items() if is_there(file, RunError)
    }


def check_agreement(folder: Path, summary: Summary) -> str:
    """Compare a task's summary with the files that it was made from.

    Why that is impossible, of an older folder say, or "". Raises RunError, naming the file, where
    they do not agree.
    """
    file = folder / SUMMARY
    scores = _means(*_state(folder / SCORES)) if is_there(folder / SCORES, RunError) else None
    digests = source_digests(folder)
    recorded = digests if summary.digests is None else summary.digests
    for name, digest in digests.items():
        if digest != (before := recorded.get(name, "none")):
            raise RunError(
                f"{folder / name}: this is not what {SUMMARY} was made from (sha256 "
                f"{digest[:12]} now, {before[:12]} then). {_again(folder)}"
            )
    if scores and scores[0] != summary.samples:
        raise RunError(
            f"{file}: {summary.samples:,} samples, and {scores[0]:,} in {SCORES}. {_again(folder)}"
        )
    given: Mapping[str, float | None] = summary.metrics
    if not summary.scored_by:
        given = scores[1] if scores and scores[0] else given
    elif SERVER in digests:
        given = read_server(folder / SERVER)["metrics"]
    for name in {**summary.metrics, **given}:
        if name in summary.metric_types and not summary.metric_types[name].mean:
            continue
        score, other = summary.metrics.get(name), given.get(name)
        if score is None or other is None or not math.isclose(score, other, rel_tol=SLACK):
            source = SERVER if summary.scored_by else f"the mean of {SCORES}"
            raise RunError(f"{file}: {name} is {score}, and {other} by {source}. {_again(folder)}")
    if summary.digests is None:
        return f"{SUMMARY} has no digests of the files that it was made from"
    missing = [name for name in recorded if name not in digests]
    return f"{', '.join(missing)} is missing" if missing else ""


def _again(folder: Path) -> str:
    return f"Score it again: qwen-vl-eval score {shlex.quote(str(folder.parent))}"


def _state(file: Path) -> tuple[Path, tuple[int, ...]]:
    """A file, and what changes with its content."""
    try:
        status = file.stat()
    except OSError as error:
        raise RunError(f"{file}: cannot be read: {reason(error)}") from None
    now = time.time_ns()
    settled = now - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
    return file, (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        settled or now,
    )


@lru_cache(maxsize=1000)
def _sha256(file: Path, _state: tuple[int, ...]) -> str:
    """Of a file's bytes, or of what is read of judgements, so that it is the same on any port."""
    if file.name == JUDGEMENTS:
        digest = hashlib.sha256()
        for number, line in enumerate(read_lines(file, RunError), 1):
            judgement = _JUDGEMENT.parse(line, f"{file}, line {number}", RunError)
            digest.update(orjson.dumps(judgement, option=orjson.OPT_APPEND_NEWLINE))
        return digest.hexdigest()
    return sha256_file(file, MAX_SOURCE_BYTES, error=RunError)


@lru_cache(maxsize=1000)
def _means(file: Path, _state: tuple[int, ...]) -> tuple[int, dict[str, float | None]]:
    """Samples of a scores.jsonl, and each metric's mean; None where not all have a value."""
    totals: dict[str, float] = {}
    values: dict[str, int] = {}
    count = 0
    for row in read_scores(file.parent):
        count += 1
        for name, value in row.items():
            if isinstance(value, float):
                totals[name] = totals.get(name, 0.0) + value
                values[name] = values.get(name, 0) + 1
    return count, {
        name: total / count if values[name] == count else None for name, total in totals.items()
    }
