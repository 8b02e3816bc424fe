"""A run's figures, read from its summaries and checked: nothing doubtful reaches a table."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eval.errors import RunError
from eval.run import MANIFEST, SUMMARY

FARTHEST = 1e6  # from 0 that a metric's range may reach
SLACK = 1e-9  # sums in another order
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")  # of a task, a metric, a protocol


@dataclass(frozen=True, slots=True)
class MetricType:
    """What a summary says of a metric: its range, and whether the score is a mean of per-sample
    values.
    """

    low: float
    high: float
    mean: bool = True


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What a summary says.

    size          samples in the official split, or None where it is not known
    images        distinct ones among the samples
    complete      samples == size, none failed, and the data have no faults
    protocol      "published", or the name of another way to ask
    metrics       name -> mean over samples, the main one first; empty where only a server can score
    signature     one line that the figures can be quoted with
    few_shot      examples before each question
    faults        what keeps the data from being the official split's
    failed        samples without an answer, which are not among `samples`
    scored_by     the server or judge that gave the figures, "" where they were computed here
    doubts        why those are not what the card has
    as_published  processes and batch size, where the published procedure was reproduced
    by            group -> value -> {"samples": count, metric: mean over them}
    intervals     metric -> both ends of its 95% interval
    no_interval   metric -> why it has none, where that is known
    metric_types  of the metrics, by name; empty in the summary of an earlier version
    """

    task: str
    size: int | None
    samples: int
    images: int
    complete: bool
    protocol: str
    metrics: Mapping[str, float]
    unreadable: int = 0
    signature: str = ""
    few_shot: int = 0
    faults: tuple[str, ...] = ()
    failed: int = 0
    scored_by: str = ""
    doubts: tuple[str, ...] = ()
    as_published: tuple[int, int] | None = None
    by: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    no_interval: Mapping[str, str] = field(default_factory=dict)
    metric_types: Mapping[str, MetricType] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """How: the protocol, and the number of examples if there were any."""
        return f"{self.protocol}, {self.few_shot}-shot" if self.few_shot else self.protocol


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run's name, its checkpoint's chat format ("chatml" for Chat) and its tasks' figures."""

    name: str
    folder: Path
    chat_format: str | None
    tasks: Mapping[str, TaskFigures]


def load_run(path: Path) -> RunFigures:
    """Read a run folder, or a folder of results/, whose manifest may be missing.

    Raises RunError, naming the file and what was expected, for a folder that is no run or has no
    figures yet, and for a manifest or summary that is damaged or contradicts itself.
    """
    if not path.is_dir():
        raise RunError(f"{path}: the folder of a run expected, none found")
    name, chat_format = path.resolve().name, None
    manifest = path / MANIFEST
    found = manifest.is_file()
    if found:
        fields = _read(manifest)
        name = _field(manifest, fields, "name", _is_text, "a text", default=name)
        model = _field(manifest, fields, "model", _is_mapping, "a mapping")
        chat_format = _field(manifest, model, "chat_format", _is_text, "a text", default=None)
    files = sorted(path.glob(f"*/{SUMMARY}"))
    if not files:
        raise RunError(
            f"{path}: no task is scored yet: <task>/{SUMMARY} expected, none found. Run the same "
            "command again to go on, or score the run: qwen-vl-eval score"
            if found
            else f"{path}: not a run: {MANIFEST} and <task>/{SUMMARY} expected, neither found"
        )
    return RunFigures(name, path, chat_format, {file.parent.name: _figures(file) for file in files})


def _figures(file: Path) -> TaskFigures:
    fields = _read(file)
    task = _field(file, fields, "task", _is_name, "a task's name")
    if task != file.parent.name:
        raise RunError(f"{file}: task {file.parent.name!r} expected, as the folder, {task!r} found")
    size = _field(file, fields, "size", _is_size, "a positive integer or null")
    failed = _field(file, fields, "failed", _is_count, "an integer, 0 or more,", default=0)
    right, expected = (
        (_is_count, "an integer, 0 or more,")
        if failed
        else (
            _is_positive,
            "a positive integer",
        )
    )
    samples = _field(file, fields, "samples", right, expected)
    complete = _field(file, fields, "complete", _is_bool, "true or false")
    faults = _faults(file, fields)
    if size is not None and samples > size and not faults:
        raise RunError(f"{file}: at most {size:,} samples expected, its 'size', {samples:,} found")
    if complete != (samples == size and not faults and not failed):
        raise RunError(
            f"{file}: 'complete': {str(not complete).lower()} expected, as {samples:,} samples of "
            f"{'an unknown number' if size is None else f'{size:,}'} were scored and the data have "
            f"{len(faults)} faults, {str(complete).lower()} found"
        )
    metrics = _metrics(file, _field(file, fields, "metrics", _is_mapping, "name -> figure"))
    types = _metric_types(file, fields)
    intervals, no_interval = _intervals(file, fields, metrics, types)
    return TaskFigures(
        task,
        size,
        samples,
        images=_field(file, fields, "images", _is_count, "an integer, 0 or more,"),
        complete=complete,
        protocol=_field(file, fields, "protocol", _is_name, "a protocol's name"),
        metrics=metrics,
        unreadable=_field(
            file, fields, "unreadable", _is_count, "an integer, 0 or more,", default=0
        ),
        signature=_field(file, fields, "signature", _is_text, "a text", default=""),
        few_shot=_field(file, fields, "few_shot", _is_count, "an integer, 0 or more,", default=0),
        faults=faults,
        failed=failed,
        scored_by=_field(file, fields, "scored_by", _is_text, "a server's name", default=""),
        doubts=tuple(_field(file, fields, "doubts", _is_texts, "a list of texts", default=())),
        as_published=_as_published(file, fields),
        by=_breakdowns(file, fields, samples),
        intervals=intervals,
        no_interval=no_interval,
        metric_types=types,
    )


def _metrics(file: Path, metrics: dict[str, Any]) -> dict[str, float]:
    for name in metrics:
        if not _is_name(name):
            raise RunError(f"{file}: a metric's name expected, {name!r:.80} found")
        _field(file, metrics, name, _is_figure, "a number, 0 or more,")
    return metrics


def _metric_types(file: Path, fields: Mapping[str, Any]) -> dict[str, MetricType]:
    told = _field(file, fields, "metric_types", _is_mapping, "metric -> its type", default={})
    found = {}
    for name in told:
        each = _field(file, told, name, _is_mapping, "'range' and 'mean'")
        low, high = _field(file, each, "range", _is_range, "its lowest and its highest value")
        mean = _field(file, each, "mean", _is_bool, "true or false")
        found[name] = MetricType(low, high, mean)
    return found


def assumed_type(value: float, *, judged: bool = False) -> MetricType:
    """Of a metric in the summary of an earlier version, where CIDEr and judges alone exceeded 1."""
    if judged:
        return MetricType(1.0, 10.0)
    return MetricType(0.0, 1.0 if value <= 1 else 10.0)


def _intervals(
    file: Path,
    fields: Mapping[str, Any],
    metrics: Mapping[str, float],
    types: Mapping[str, MetricType],
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Both ends of each metric's interval, between which its figure lies, and why others have none.

    An earlier version's interval that leaves the metric's range is not shown.
    """
    told: dict[str, Any] = _field(
        file, fields, "intervals", _is_mapping, "metric -> interval", default={}
    )
    reasons: dict[str, Any] = _field(
        file, fields, "no_interval", _is_mapping, "metric -> reason", default={}
    )
    missing: dict[str, str] = {
        name: _field(file, reasons, name, _is_text, "a reason") for name in reasons
    }
    found = {}
    for name in told:
        ends = _field(file, told, name, _is_mapping, "'low' and 'high'")
        low, high = (_field(file, ends, end, is_number, "a number") for end in ("low", "high"))
        if name not in metrics or not low - SLACK <= metrics[name] <= high + SLACK:
            raise RunError(
                f"{file}: 'intervals': {name!r:.80}: {low:g} to {high:g} found, and its figure is "
                f"not between: {metrics.get(name)!r:.80}"
            )
        judged = fields.get("judge") is not None
        kind = types.get(name) or assumed_type(metrics[name], judged=judged)
        if kind.low - SLACK <= low and high <= kind.high + SLACK:
            found[name] = low, high
        elif name in types:
            raise RunError(
                f"{file}: 'intervals': {name!r:.80}: {low:g} to {high:g} lies outside the metric's "
                f"range, {kind.low:g} to {kind.high:g}"
            )
        else:
            missing[name] = (
                f"the interval of an earlier version, beyond {kind.low:g} to {kind.high:g}, is "
                f"left out. Make another: qwen-vl-eval {'judge' if judged else 'score'}"
            )
    return found, missing


def _faults(file: Path, fields: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(_field(file, fields, "faults", _is_texts, "a list of texts", default=()))


def _as_published(file: Path, fields: Mapping[str, Any]) -> tuple[int, int] | None:
    given = _field(file, fields, "as_published", _is_mapping, "a mapping", default=None)
    if given is None:
        return None
    processes, batch_size = (
        _field(file, given, name, _is_positive, "a positive integer")
        for name in ("processes", "batch_size")
    )
    return processes, batch_size


def _breakdowns(
    file: Path, fields: Mapping[str, Any], samples: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by group and value; no value can have more samples than there are."""
    groups: dict[str, Any] = _field(file, fields, "by", _is_mapping, "a mapping", default={})
    for group in groups:
        values = _field(file, groups, group, _is_mapping, "value -> figures")
        for value in values:
            part = _field(file, values, value, _is_mapping, "samples and figures")
            count = _field(file, part, "samples", _is_positive, "a positive integer")
            if count > samples:
                raise RunError(
                    f"{file}: {group} {value!r:.80}: at most {samples:,} samples expected, "
                    f"{count:,} found"
                )
            _metrics(file, {name: figure for name, figure in part.items() if name != "samples"})
    return groups


def _read(file: Path) -> dict[str, Any]:
    try:
        fields = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise RunError(f"{file}: JSON expected, cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise RunError(f"{file}: a JSON object expected, {fields!r:.80} found")
    return fields


_NEEDED = object()


def _field(
    file: Path,
    fields: Mapping[str, Any],
    key: str,
    accepts: Callable[[Any], bool],
    expected: str,
    *,
    default: Any = _NEEDED,
) -> Any:
    """A checked field; one with a default may be missing or null."""
    value = fields.get(key)
    if value is None and default is not _NEEDED:
        return default
    if key not in fields:
        raise RunError(f"{file}: {key!r}: {expected} expected, nothing found")
    if not accepts(value):
        raise RunError(f"{file}: {key!r}: {expected} expected, {value!r:.80} found")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_range(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        return False
    low, high = map(float, value)
    return -FARTHEST <= low < high <= FARTHEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_size(value: Any) -> bool:
    return value is None or _is_positive(value)


def is_number(value: Any) -> bool:
    """Whether JSON holds a number here, and a finite one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_figure(value: Any) -> bool:
    return is_number(value) and value >= 0
