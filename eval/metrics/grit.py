"""GRIT's referring expressions: its rule for a hit, and the table of aggregates of its board.

A sample counts into partitions: sameSrc and newSrc by where it comes from, sameCpt and newCpt by
what it asks for (undistorted samples only); dist and undist for pictures that also stand in the
task with a distortion, and deldist for the difference of the two. `agg`, the board's figure, is the
plain mean over both sources.

Source   Gupta et al. 2022, https://arxiv.org/abs/2204.13653, and the evaluation of
         https://github.com/allenai/grit_official; equal to it, within 1.5e-4 of a percent, on all
         of tests/golden/metrics/grit_refexp.json
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.errors import DataError, EvalError, PredictionError
from eval.metrics.box import has_box, parse_box, true_box

Box = Sequence[float]

THRESHOLD = 0.5
EPSILON = 1e-6  # added to a union, and to a standard error
NORMAL_95 = 1.96
TASKS = 7  # of GRIT; those other than referring expressions count 0 if only these are answered
TWIN = "_dist"  # ends the id of a distorted sample; the rest is the id of the undistorted one
ANY = "any"  # the group of all samples
SOURCES = ("sameSrc", "newSrc")
OF_ALL_TASKS = (*SOURCES, "dist", "undist", "deldist")

# metric -> (confidence, hit) -> value in percent; rmse is a mean of squares until it is printed
METRICS: Mapping[str, Callable[[float, float], float]] = {
    "acc": lambda c, hit: 100 * hit,
    "inf": lambda c, hit: 100 * c * hit,
    "misinf": lambda c, hit: 100 * c * (1 - hit),
    "conf": lambda c, hit: 100 * c,
    "sa": lambda c, hit: 100 * (c * hit + (1 - c) * (1 - hit)),
    "rmse": lambda c, hit: (100 * (c - hit)) ** 2,
}


def box_accuracy_strict(prediction: str, reference: Mapping[str, Any]) -> float:
    """1.0 where the first box in the text is a hit by GRIT's rule, else 0.0.

    Arguments as for box_accuracy; the text is read by parse_box, its box not rounded to pixels.
    """
    box, width, height = true_box(reference)
    predicted = [parse_box(prediction, width, height)] if has_box(prediction) else []
    return grit_hit(predicted, [box])


def grit_hit(predicted: Sequence[Box], reference: Sequence[Box]) -> float:
    """1.0 where the first box overlaps the first true one by more than half, else 0.0.

    predicted, reference  boxes, each (4,) x1 y1 x2 y2 in pixels; none predicted is no hit
    """
    if not reference:
        raise DataError("reference: at least one true box expected, none found")
    return float(bool(predicted) and grit_iou(predicted[0], reference[0]) > THRESHOLD)


def grit_iou(predicted: Box, reference: Box) -> float:
    """Intersection over union of two boxes, each (4,) x1 y1 x2 y2 in one unit; below 1.

    Source   as this module; equal on every pair of tests/golden/metrics/iou_pairs.jsonl
    Quirks   kept as in the source: 1e-6 is added to the union; a reversed box has no area
    """
    shared = (*map(max, predicted[:2], reference[:2]), *map(min, predicted[2:], reference[2:]))
    intersection = _area(shared)
    return intersection / (_area(predicted) + _area(reference) - intersection + EPSILON)


def grit_summary(
    samples: Sequence[Mapping[str, Any]],
    predictions: Iterable[Mapping[str, Any]],
    lemma2groups: Mapping[str, Sequence[str]] | None = None,
    *,
    params_in_millions: int | None = None,
) -> dict[str, float]:
    """The board's metric file, `metric.group.partition.task.stat`: percent, four decimals.

    samples       records with example_id, bboxes, is_new_source, has_new_concept, is_distorted and,
                  where groups are given, lemmas
    predictions   records with example_id, confidence in [0, 1] and bboxes, as in a submission
    lemma2groups  lemma -> its groups of concepts, each of which gets acc.<group>.agg.ref.*
    params_in_millions  size of the model, repeated as `params` where it is told

    stat is mean, cnt, or lower and upper: bounds of 95 %. Task `ref` is this one; `all` is the mean
    over GRIT's seven tasks, and `overall.*` repeats acc.any.agg.all.*. The figure that is quoted is
    acc.any.agg.ref.mean.

    Quirks   kept as in the source: tasks without predictions enter `all` as 0, so that its figures
             are a seventh; of several predictions for a sample the last counts, unknown ones are
             ignored, and a confidence is not held to its range; a partition of one sample has no
             entry; deldist's values are not clipped to 0 to 100

    Raises PredictionError for a sample without a whole prediction, and DataError where the samples
    lack a partition that `all` needs.
    """
    given = {_field(p, "example_id", PredictionError): p for p in predictions}
    known = {str(_field(sample, "example_id", DataError)): sample for sample in samples}
    if len(known) != len(samples):
        raise DataError(f"samples: {len(samples)} found, but {len(known)} ids; each needs its own")
    missing = [number for number in known if number not in given]
    if missing:
        raise PredictionError(
            f"{len(missing)} of {len(known)} samples without a prediction ({missing[0]!r}, ...); "
            "every example_id needs one"
        )
    answers = {number: _judge(sample, given[number]) for number, sample in known.items()}
    groups = _groups(known, lemma2groups or {})
    table: dict[str, float] = {}
    for metric, rule in METRICS.items():
        values = {number: rule(*answer) for number, answer in answers.items()}
        parts = {
            part: stats
            for part, of_part in _partitions(known, values).items()
            if (stats := _Stats.of(of_part)) and not (metric == "rmse" and part == "deldist")
        }
        required = [part for part in OF_ALL_TASKS if (metric, part) != ("rmse", "deldist")]
        absent = [part for part in required if part not in parts]
        if absent:
            raise DataError(
                f"samples: at least two of each of {', '.join(required)} expected, fewer found of "
                f"{', '.join(absent)} among {len(known)}"
            )
        for part, stats in parts.items():
            table[f"{metric}.{ANY}.{part}.ref.cnt"] = stats.count
            _enter(table, f"{metric}.{ANY}.{part}.ref", stats.mean, *stats.bounds())
        sources = [parts[part] for part in SOURCES]
        _enter(table, f"{metric}.{ANY}.agg.ref", *_combined(sources, len(sources)))
        _enter(table, f"{metric}.{ANY}.agg.all", *_combined(sources, len(sources) * TASKS))
        for part in required:
            _enter(table, f"{metric}.{ANY}.{part}.all", *_combined([parts[part]], TASKS))
        if metric == "acc":
            for group, members in groups.items():
                of_group = _partitions(members, values)
                sources_of_group = [
                    stats for part in SOURCES if (stats := _Stats.of(of_group[part]))
                ]
                if len(sources_of_group) == len(SOURCES):
                    _enter(
                        table,
                        f"acc.{group}.agg.ref",
                        *_combined(sources_of_group, len(sources_of_group)),
                    )
    for stat in ("mean", "lower", "upper"):
        table[f"overall.{stat}"] = table[f"acc.{ANY}.agg.all.{stat}"]
    if params_in_millions is not None:
        table["params"] = int(params_in_millions)
    return dict(sorted(table.items()))


@dataclass(frozen=True, slots=True)
class _Stats:
    """Count, mean, and variance with one degree of freedom less, of at least two values."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Stats | None":
        count = len(values)
        if count < 2:
            return None
        mean = sum(values) / count
        return cls(count, mean, sum((value - mean) ** 2 for value in values) / (count - 1))

    def bounds(self) -> tuple[float, float]:
        """Lower and upper end of Student's interval of 95 %."""
        from scipy import stats

        scale = math.sqrt(self.variance / self.count) + EPSILON
        half = float(stats.t.ppf(0.975, self.count - 1)) * scale
        return self.mean - half, self.mean + half


def _combined(parts: Sequence[_Stats], terms: int) -> tuple[float, float, float]:
    """Mean over so many terms, of which those beyond the parts are 0; its lower and upper bound."""
    mean = sum(part.mean for part in parts) / terms
    error = math.sqrt(sum(part.variance / part.count for part in parts))
    half = NORMAL_95 * error / terms
    return mean, mean - half, mean + half


def _enter(table: dict[str, float], name: str, mean: float, lower: float, upper: float) -> None:
    """Put one figure with its bounds into the table, as the board prints it."""
    if name.startswith("rmse."):
        mean, lower, upper = math.sqrt(mean), math.sqrt(max(0.0, lower)), math.sqrt(upper)
    if ".deldist." not in name:
        lower, upper = max(0.0, lower), min(100.0, upper)
    for stat, value in (("mean", mean), ("lower", lower), ("upper", upper)):
        table[f"{name}.{stat}"] = round(value, 4)


def _judge(sample: Mapping[str, Any], prediction: Mapping[str, Any]) -> tuple[float, float]:
    """Confidence and hit of one sample."""
    number = sample["example_id"]
    confidence = _field(prediction, "confidence", PredictionError)
    predicted = _boxes(number, prediction, PredictionError)
    try:
        known = math.isfinite(confidence)
    except TypeError:
        known = False
    if not known:
        raise PredictionError(f"{number}: a number as confidence expected, {confidence!r} found")
    return float(confidence), grit_hit(predicted, _boxes(number, sample, DataError))


def _partitions(
    samples: Mapping[str, Mapping[str, Any]], values: Mapping[str, float]
) -> dict[str, list[float]]:
    """The values of each partition; those of twins stand in the order of the undistorted ones."""
    plain = {n: s for n, s in samples.items() if not _field(s, "is_distorted", DataError)}
    twins = [n for n in plain if n + TWIN in samples and n + TWIN not in plain]
    parts: dict[str, list[float]] = {
        "dist": [values[n] for n in samples if n not in plain],
        "undist": [values[n] for n in twins],
        "deldist": [values[n] - values[n + TWIN] for n in twins],
    }
    for field, names in (("is_new_source", SOURCES), ("has_new_concept", ("sameCpt", "newCpt"))):
        for new, name in enumerate(names):
            of_part = (
                n for n, s in plain.items() if bool(_field(s, field, DataError)) == bool(new)
            )
            parts[name] = [values[n] for n in of_part]
    return parts


def _groups(
    samples: Mapping[str, Mapping[str, Any]], lemma2groups: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Samples of each group of concepts; one belongs to all groups of its lemmas."""
    members: dict[str, dict[str, Mapping[str, Any]]] = {}
    if lemma2groups:
        for number, sample in samples.items():
            for lemma in _field(sample, "lemmas", DataError):
                for group in lemma2groups.get(lemma, ()):
                    members.setdefault(group, {})[number] = sample
    return members


def _boxes(number: str, record: Mapping[str, Any], error: type[EvalError]) -> list[Box]:
    boxes = _field(record, "bboxes", error)
    try:
        good = all(len(box) == 4 and all(map(math.isfinite, box)) for box in boxes)
    except (TypeError, OverflowError):
        good = False
    if not good:
        raise error(f"{number}: bboxes [[x1, y1, x2, y2], ...] in pixels expected, {boxes!r} found")
    return list(boxes)


def _field(record: Mapping[str, Any], name: str, error: type[EvalError]) -> Any:
    try:
        return record[name]
    except KeyError:
        raise error(f"field {name!r} expected in every record, missing in {record!r}") from None


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return 0.0 if x2 <= x1 or y2 <= y1 else float((x2 - x1) * (y2 - y1))
