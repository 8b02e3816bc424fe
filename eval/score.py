"""Samples and predictions in, a value per sample and the task's summary out. No model needed."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.api import Corpus, Generate, Sample, Task
from eval.data import read_predictions, sha256_file
from eval.errors import DataError, PredictionError, RunError
from eval.run import PROTOCOL, RunFolder, describe_task, read_samples

SHOWN = 3  # how many ids a message about many samples names


@dataclass(frozen=True, slots=True)
class Scores:
    """Values per sample, in dataset order, and what they come to.

    rows     {"id", <metric>: value, ...}; values in [0, 1], CIDEr's in [0, 10]
    summary  what summary.json holds
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def score(
    task: Task,
    samples: Iterable[Sample],
    predictions: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> Scores:
    """Score the text predicted for each sample.

    predictions  sample id -> text; exactly one for every sample
    settings     what the signature says beside the counts: data, checkpoint, decoding

    Where no sample has a reference, only a server can score: the summary's metrics stay empty.
    Raises PredictionError, naming ids, for a missing or an unknown prediction: a gap is never
    scored as a wrong answer.
    """
    known = list(samples)
    _check_ids(task, [sample.id for sample in known], predictions)
    texts = [predictions[sample.id] for sample in known]
    references = [sample.reference for sample in known]
    rows: list[dict[str, Any]] = [{"id": sample.id} for sample in known]
    metrics: dict[str, float] = {}
    unknown = sum(reference is None for reference in references)
    if 0 < unknown < len(known):
        raise DataError(f"{task.name}: {unknown} of {len(known)} samples have no reference")
    if not unknown:
        for name, metric in task.metrics.items():
            if isinstance(metric, Corpus):
                values = metric.function(texts, references)
            else:
                values = [metric(t, r) for t, r in zip(texts, references, strict=True)]
            metrics[name] = sum(values) / len(values)
            for row, value in zip(rows, values, strict=True):
                row[name] = value
    readable = task.readable
    summary: dict[str, Any] = {
        "task": task.name,
        "size": task.size,
        "samples": len(known),
        "images": len({path for sample in known for path in sample.images}),
        "complete": len(known) == task.size,
        "protocol": PROTOCOL,
        "metrics": metrics,
        "unreadable": sum(not readable(text) for text in texts) if readable else 0,
    }
    summary["signature"] = signature(task, summary, settings or {})
    return Scores(rows, summary)


def signature(task: Task, summary: Mapping[str, Any], settings: Mapping[str, str]) -> str:
    """One line that a figure can be quoted with: value, counts, and all that decides it."""
    figures = " ".join(f"{name}={value:.6f}" for name, value in summary["metrics"].items())
    decode = (
        f"greedy:{task.decode.max_new_tokens}/{task.decode.min_new_tokens}"
        if isinstance(task.decode, Generate)
        else "rank"
    )
    facts = {
        "n": summary["samples"],
        "of": summary["size"] or "?",
        "images": summary["images"],
        "protocol": summary["protocol"],
        "decode": decode,
        **settings,
    }
    told = " ".join(f"{name}={value}" for name, value in facts.items())
    return f"{task.name} {figures or 'not scored'} | {told}"


def score_run(folder: RunFolder, task: Task, data: Path) -> Scores:
    """Score one finished task of a run; write its scores and its summary.

    Raises RunError where the data are not those that the run was asked from.
    """
    asked = folder.manifest["tasks"][task.name]
    now = describe_task(task, data, asked["limit"])
    for path, digest in asked["sources"].items():
        found = now["sources"].get(path)
        if found != digest:
            raise RunError(
                f"{data / path}: not the file that the run was asked from (sha256 "
                f"{found[:12] if found else 'not read'}, the run's {digest[:12]}); give the "
                "right folder with --data"
            )
    model = folder.manifest["model"]
    settings = {
        "data": _short(now["sources"]),
        "ckpt": str(model.get("digest", "?"))[:12],
        "dtype": str(model.get("dtype", "?")),
        "batch": str(model.get("batch_size", "?")),
        "eval": version("qwen-vl-eval"),
    }
    answers = {p.id: p.text for p in folder.predictions(task.name).values()}
    result = score(task, read_samples(task, data, asked["limit"]), answers, settings)
    folder.write_scores(task.name, result.rows, result.summary)
    return result


def score_file(predictions: Path, task: Task, data: Path) -> Scores:
    """Score a result file of the published scripts; of two answers to a sample the last wins.

    How they were asked for is not known, and the signature says so.
    """
    settings = {
        "protocol": "?",
        "decode": "?",
        "answers": sha256_file(predictions)[:12],
        "data": _short(describe_task(task, data, None)["sources"]),
        "eval": version("qwen-vl-eval"),
    }
    return score(task, read_samples(task, data), dict(read_predictions(predictions)), settings)


def _short(sources: Mapping[str, str]) -> str:
    """A short digest of a task's files, the same whatever their order."""
    return hashlib.sha256("".join(sorted(sources.values())).encode()).hexdigest()[:12]


def _check_ids(task: Task, expected: list[str], predictions: Mapping[str, str]) -> None:
    if not expected:
        raise PredictionError(f"{task.name}: no samples to score")
    missing = [sample_id for sample_id in expected if sample_id not in predictions]
    unknown = sorted(set(predictions) - set(expected))
    for kind, ids in (("without a prediction", missing), ("unknown", unknown)):
        if ids:
            some = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
            raise PredictionError(
                f"{task.name}: {len(ids)} samples {kind} ({some}); {len(expected)} samples and "
                f"{len(predictions)} predictions found. Every sample needs exactly one"
            )
