"""Benchmarks that a server scores: the file that it takes, and the scores that it gives.

finished run -> submit -> the file -> (a person sends it) -> record -> the run's summary
"""

import io
import re
import zipfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from eval.data.declare import Task, value_range
from eval.errors import DataError, PredictionError, UsageError
from eval.run.folder import RunFolder
from eval.run.spec import read_samples
from eval.storage.digests import sha256_file
from eval.storage.writing import write_file

SHOWN = 3  # ids that a message about many names
MAX_SCORE_CHARACTERS = 20
EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of every member of a zip: equal answers, equal bytes


def write_submission(task: Task, folder: RunFolder, data: Path, file: Path | None = None) -> Path:
    """Write the file that the task's server takes; where it was written.

    file  default: in the run's folder, under the name that the server knows

    Complete or not at all: one answer to every sample of the data, checked against the server's
    format before a byte is written. Whether the data are the whole official split is known from
    the run's faults. Raises UsageError for a task that no server scores, RunError for a run that is
    not finished or used other data, PredictionError for samples without an answer.
    """
    if task.submission is None:
        raise UsageError(f"{task.name}: no server scores it; its figure is in the run's summary")
    folder.check_task(task.name)
    folder.scores(task.name).verify()
    folder.check_sources(task, data)
    predictions = folder.answers(task.name).by_id()
    answers: dict[str, str] = {}
    missing: list[str] = []
    for sample in read_samples(task, data):
        prediction = predictions.get(sample.id)
        if prediction is None or prediction.error:
            missing.append(sample.id)
        else:
            answers[sample.id] = prediction.text
    if missing:
        some = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise PredictionError(
            f"{task.name}: its server refuses a file with gaps: an answer to each of "
            f"{len(answers) + len(missing):,} samples expected, {len(missing):,} have none "
            f"({some}). Run the whole task, without --limit, and with --retry-failed if some failed"
        )
    content = task.submission.build(data, answers, folder.manifest["model"])
    _check(content, task)
    path = file or folder.scores(task.name).submission_file(task.submission.file)
    suffix = Path(task.submission.file).suffix
    if path.suffix != suffix and (path.is_file() or not path.exists()):  # a device takes anything
        raise UsageError(f"--file {path}: a name that ends in {suffix} expected")
    write_file(path, WRITTEN.get(suffix, orjson.dumps)(content))
    return path


def parse_percentage(text: str, task: Task) -> float:
    """A server's score as tables show it: 65.1, also written "65.1%".

    Servers often give fractions, so a score that could be one needs the sign. Raises UsageError
    for a score without it, and for a text that is no number.
    """
    metric, most = _first_metric(task)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(%?)", text.strip(), re.ASCII)
    if match is None or len(text) > MAX_SCORE_CHARACTERS:
        raise UsageError(
            f"--scored {text[:MAX_SCORE_CHARACTERS]!r}: this is no figure; write it as tables "
            "show it, such as 65.1"
        )
    score = float(match[1])
    if 0 < score <= most and not match[2]:
        raise UsageError(
            f"--scored {text}: is the {metric} {text}%, or the fraction {text}? Tables show "
            f"percentages: write {match[1]}% for the first, {score * 100:g} for the second"
        )
    return score


def _first_metric(task: Task) -> tuple[str, float]:
    """Name of the metric that tables show, and its largest value."""
    name, metric = next(iter(task.metrics.items()))
    return name, value_range(metric)[1]


def record_server_scores(
    task: Task,
    folder: RunFolder,
    metrics: Mapping[str, float],
    server: str,
    day: str = "",
    submission: Path | None = None,
) -> None:
    """Record the scores that a server gave, for the task's summary.

    metrics     name -> score in [0, 1], CIDEr's in [0, 10]
    day         on which they were given, such as 2026-01-31
    submission  the file that was scored; its digest is recorded

    Raises UsageError for a score out of range, an invalid day, or a task that is scored here.
    """
    if task.submission is None or not task.submission.alone:
        raise UsageError(f"{task.name}: it is scored here; its figure is in the run's summary")
    folder.check_task(task.name)
    folder.scores(task.name).verify()
    folder.answers(task.name).predictions()  # refuses a run that is not finished
    for name, value in metrics.items():
        _, most = value_range(task.metrics[name])
        if not 0 <= value <= most:
            raise UsageError(
                f"{task.name} {name}: a figure from 0 to {most * 100:g} expected, as tables show "
                f"it, {value * 100:g} given"
            )
    if day:
        try:
            date.fromisoformat(day)
        except ValueError:
            raise UsageError(f"--on {day!r}: a day such as 2026-01-31 expected") from None
    scores: dict[str, Any] = {"server": server, "metrics": dict(metrics)}
    scores |= {"day": day} if day else {}
    scores |= {"submission": sha256_file(submission)} if submission else {}
    folder.scores(task.name).write_server(scores)


def _check(content: Any, task: Task) -> None:
    """Against the server's format. Raises DataError at the first place that departs from it."""
    from pydantic import TypeAdapter, ValidationError

    assert task.submission is not None  # the caller's promise
    try:
        TypeAdapter(task.submission.schema).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise DataError(
            f"{task.name}: its submission does not have the server's format: at {place or 'top'} "
            f"{first['msg']}, {first['input']!r:.80} found. Nothing was written"
        ) from None


def _zipped(members: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, orjson.dumps(content))
    return file.getvalue()


WRITTEN: dict[str, Callable[[Any], bytes]] = {  # by a file's ending; any other is JSON
    ".zip": _zipped,
    ".tsv": str.encode,
}
