"""Samples with the answers of one or two runs, one at a time, in dataset order.

Questions, references and true boxes come from the benchmark's own files, never from a run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eval.api import Prediction
from eval.data import safe_path
from eval.data.declare import Sample, Task
from eval.errors import DataError, RunError
from eval.metrics.box import Box, box_iou, has_box, parse_box, true_box
from eval.run.folder import RunFolder
from eval.run.requests import render_request
from eval.run.spec import Spec, read_samples

IMAGE = "image"  # starts the names of fields that are pictures
NOT_VALUES = ("id", "image")  # of a line of scores


@dataclass(frozen=True, slots=True)
class AnswerView:
    """A run's answer to a sample.

    error   why there is no answer
    values  metric -> value; empty if it was not scored
    box     the scored one, x1 y1 x2 y2 as fractions of the picture's sides; None without one
    iou     with the true box
    losses  of a ranked task, one for each option
    """

    text: str
    error: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    box: Box | None = None
    iou: float | None = None
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleView:
    """A sample and the answers to it.

    texts       of the question, field by field
    prompt      of the first run, without few-shot examples
    images      paths below the data root
    references  text and its count
    box         the true one, as in AnswerView
    answers     of each run; None without one
    """

    id: str
    texts: tuple[tuple[str, str], ...]
    prompt: str
    images: tuple[str, ...]
    references: tuple[tuple[str, int], ...]
    options: tuple[str, ...]
    groups: Mapping[str, str]
    box: Box | None
    answers: tuple[AnswerView | None, ...]


def read_rows(task: Task, data: Path, folders: Sequence[RunFolder]) -> Iterator[SampleView]:
    """The samples of any of the runs.

    Raises RunError if a run used other data, has not finished the task, or has answers to other
    samples or in another order; DataError for a picture outside the data root.
    """
    runs = [
        _Answers(folder, task.name) if task.name in folder.tasks else None for folder in folders
    ]
    specs = [run.spec for run in runs if run]
    for folder, run in zip(folders, runs, strict=True):
        if run:
            folder.check_sources(task, data)
    for sample in read_samples(task, data, _union(specs)):
        box, size = _true_box(sample.reference)
        about_boxes = box is not None or task.readable is has_box
        answers = [run.take(sample.id) if run else None for run in runs]
        yield SampleView(
            sample.id,
            tuple((k, v) for k, v in sample.fields.items() if not k.startswith(IMAGE)),
            render_request(task, sample, specs[0].protocol).prompt,
            tuple(safe_path(path, f"{task.name}: sample {sample.id}") for path in sample.images),
            tuple(_references(sample, size)),
            sample.options,
            sample.groups,
            box,
            tuple(_answer(each, box, size, about_boxes=about_boxes) for each in answers),
        )
    for run in runs:
        if run:
            run.check()


class _Answers:
    """A run's answers and values of one task, taken in the order of the samples."""

    def __init__(self, folder: RunFolder, task: str) -> None:
        self.what = f"{folder.path}: {task}"
        self.spec = Spec.of(folder.manifest["tasks"][task])
        self.answers = folder.answers(task).predictions()
        folder.scores(task).verify()
        self.scores = folder.scores(task).rows() if folder.scores(task).complete else iter(())
        self.answer = next(self.answers, None)
        self.score = next(self.scores, None)

    def take(self, sample_id: str) -> tuple[Prediction, dict[str, float]] | None:
        """The answer to a sample and its values, if it was scored; None without an answer."""
        answer, values = self.answer, {}
        if answer is None or answer.id != sample_id:
            return None
        self.answer = next(self.answers, None)
        if self.score is not None and self.score.get("id") == sample_id:
            values = {n: v for n, v in self.score.items() if n not in NOT_VALUES}
            self.score = next(self.scores, None)
        return answer, values

    def check(self) -> None:
        """Raise RunError if an answer or a value is left over."""
        for kind, left in (
            ("an answer", self.answer.id if self.answer else None),
            ("a value", self.score.get("id") if self.score else None),
        ):
            if left is not None:
                raise RunError(
                    f"{self.what}: the data's samples expected, in their order; {left!r:.80} has "
                    f"{kind} and is not among them there. Give the run's data with --data, or "
                    "score it again: qwen-vl-eval score"
                )


def _union(specs: Sequence[Spec]) -> Spec:
    """A specification of the samples of all runs."""
    limits = [each.limit for each in specs]
    given = [limit for limit in limits if limit is not None]
    left_out = set(specs[0].left_out).intersection(*(each.left_out for each in specs))
    return Spec(max(given) if len(given) == len(limits) else None, left_out=tuple(left_out))


def _true_box(reference: Any) -> tuple[Box | None, tuple[float, float]]:
    """As fractions of the picture's sides, and these in pixels; None if the reference is no box."""
    if not isinstance(reference, Mapping):
        return None, (1.0, 1.0)
    try:
        (x1, y1, x2, y2), width, height = true_box(reference)
    except DataError:
        return None, (1.0, 1.0)
    return (x1 / width, y1 / height, x2 / width, y2 / height), (width, height)


def _answer(
    scored: tuple[Prediction, dict[str, float]] | None,
    true: Box | None,
    size: tuple[float, float],
    *,
    about_boxes: bool,
) -> AnswerView | None:
    if scored is None:
        return None
    answer, values = scored
    box = iou = None
    if about_boxes and has_box(answer.text):
        box = parse_box(answer.text, 1, 1)
        if true is not None:
            width, height = size
            true_px = (true[0] * width, true[1] * height, true[2] * width, true[3] * height)
            iou = box_iou(parse_box(answer.text, width, height), true_px)
    return AnswerView(answer.text, answer.error, values, box, iou, answer.losses)


def _references(sample: Sample, size: tuple[float, float]) -> Iterable[tuple[str, int]]:
    """Distinct texts with their counts, in order; a box in words."""
    reference = sample.reference
    if reference is None:
        return []
    if isinstance(reference, Mapping) and _true_box(reference)[0]:
        x1, y1, x2, y2 = reference["box"]
        width, height = size
        return [(f"({x1:g},{y1:g}),({x2:g},{y2:g}) in {width:g} x {height:g} pixels", 1)]
    counts: dict[str, int] = {}
    for each in reference if isinstance(reference, list | tuple) else [reference]:
        text = each if isinstance(each, str) else orjson.dumps(each, default=str).decode()
        counts[text] = counts.get(text, 0) + 1
    return counts.items()
