"""What a training step shows: scenes, some questions about each, and labels for the helper heads.

Shape letters as in eval/runtime: R rows (one image each), S positions, K image tokens used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.demo.questions import Question, questions, reply, tail
from eval.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    KINDS,
    MAX_VALUE,
    SHAPES,
    UNITS,
    WORDS,
    Scene,
    Thing,
    draw_scene,
    letters,
    make_scene,
)
from eval.demo.trainer.start import IMAGE_PX
from eval.runtime.chat import chat_prompt
from eval.runtime.image import preprocess
from eval.runtime.tokenizer import Tokenizer
from eval.runtime.visual import QUERIES

CHAT_SHARE = 0.15
KIND_WEIGHTS = (0.64, 0.08, 0.14, 0.14)  # of KINDS
# How often a question of a family is drawn, and how many of the family an image may get
WEIGHTS = {
    "caption": (8, 1),
    "box": (8, 2),
    "choice": (3, 1),
    "value": (4, 3),
    "read": (9, 1),
    "number": (9, 1),
    "exists": (3, 1),
    "relation": (3, 1),
    "side": (4, 2),
    "count": (2, 1),
    "color": (4, 2),
    "shape": (2, 1),
    "tallest": (2, 1),
    "bars": (1, 1),
    "ink": (1, 1),
}
QUESTIONS = 7  # of one image
EMPHASIS = {"box": 1.7, "caption": 1.3}  # factors of a family's loss

# What helper heads tell of an image token's place: name -> number of classes
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
NAMES = (*SHAPES, "bar", "word", "number")
PLACE = {
    "name": len(NAMES) + 1,  # 0: nothing stands there
    "color": len(COLORS),
    "x1": UNITS + 1,
    "y1": UNITS + 1,
    "x2": UNITS + 1,
    "y2": UNITS + 1,
    "value": MAX_VALUE + 1,
    "glyph": len(GLYPHS) + 1,
    "word": len(WORDS) + 1,
    "background": len(BACKGROUNDS),
}
POINT = ("name", "color", "x1", "y1", "x2", "y2")  # what a question's last token must know
NONE = -100  # a class that is not asked


def place_labels(scene: Scene) -> np.ndarray[Any, Any]:
    """Class of each helper head at each image token, (256, len(PLACE)) int64."""
    table = np.full((UNITS, UNITS, len(PLACE)), NONE, np.int64)
    table[:, :, 0] = 0
    table[:, :, 9] = list(BACKGROUNDS).index(scene.background)
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        cell = table[y1:y2, x1:x2]
        cell[:, :, 0] = NAMES.index(thing.name) + 1
        cell[:, :, 1] = list(COLORS).index(thing.color)
        if not thing.text:
            cell[:, :, 2:6] = thing.box
        if thing.value:
            cell[:, :, 6] = thing.value
        if thing.name == "word":
            cell[:, :, 8] = WORDS.index(thing.text)
        if thing.text:
            width = scene.size[0] // UNITS
            for letter, (left, _, right, _) in letters(scene, thing):
                first = max(round(left / width), 0)
                last = max(round(right / width), first + 1)
                table[y1:y2, first:last, 7] = GLYPHS.index(letter)
    return table.reshape(QUERIES, len(PLACE))


def point_labels(thing: Thing) -> list[int]:
    """Class of a shape for each head of POINT."""
    return [NAMES.index(thing.name) + 1, list(COLORS).index(thing.color), *thing.box]


@dataclass(slots=True)
class Row:
    """One image with its questions, as ids.

    ids, slots, segments  of equal length; image tokens are left out and stand at `image_at`
    targets               the id after each, or NONE
    weights               of each target in the loss
    options               (position, is right) of the options of choices
    points                (position, classes of POINT) of questions about one shape
    answers               (question, positions) of each question's targets
    """

    prefix: list[int]
    suffix: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    options: list[tuple[int, float]] = field(default_factory=list)
    points: list[tuple[int, list[int]]] = field(default_factory=list)
    answers: list[tuple[Question, list[int]]] = field(default_factory=list)


class RowWriter:
    """Turns questions into rows of ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.newline = tokenizer.encode("\n")[0]

    def row(self, questions: Sequence[Question], keep: Sequence[int], chat: bool) -> Row:
        """Prefix with the kept image tokens, then each question as a segment of its own."""
        pairs = [self._chat(q) if chat else self._raw(q) for q in questions]
        prompt = pairs[0][0]
        end = prompt.index(self.tokenizer.img_end_id)
        row = Row(prompt[: end - QUERIES])
        first = len(row.prefix)
        row.ids = [*row.prefix, *[self.tokenizer.img_pad_id] * len(keep), prompt[end]]
        row.slots = [*range(first), *(first + place for place in keep), end]
        row.segments = [0] * len(row.ids)
        row.targets = [NONE] * len(row.ids)
        row.weights = [0.0] * len(row.ids)
        for number, (question, (ids, answer)) in enumerate(zip(questions, pairs, strict=True), 1):
            ids = ids[end + 1 :]
            start = len(row.ids)
            body = ids + answer
            row.ids += body[:-1]
            row.slots += range(end + 1, end + len(body))
            row.segments += [number] * (len(body) - 1)
            row.targets += [NONE] * (len(ids) - 1) + answer
            weight = EMPHASIS.get(question.family, 1.0) * len(answer) ** -0.5
            row.weights += [0.0] * (len(ids) - 1) + [weight] * len(answer)
            here = start + len(ids) - 1
            row.answers.append((question, list(range(here, here + len(answer)))))
            if question.thing:
                row.points.append((here, point_labels(question.thing)))
            if question.family == "choice":
                breaks = [i for i, token in enumerate(ids) if token == self.newline]
                if chat:
                    breaks = breaks[:-2]  # after the user's <|im_end|>, and after "assistant"
                for option, at in zip(
                    question.options, breaks[-len(question.options) :], strict=True
                ):
                    row.options.append((start + at - 1, float(option == question.answer)))
        return row

    def _raw(self, question: Question) -> tuple[list[int], list[int]]:
        ids, _ = self.tokenizer.encode_prompt("<img>x</img>" + tail(question))
        return ids, [*self.tokenizer.encode(reply(question)), self.tokenizer.eod_id]

    def _chat(self, question: Question) -> tuple[list[int], list[int]]:
        text = tail(question)
        if question.family not in ("caption", "choice", "box"):
            text = question.text
        answer = reply(question).strip()
        ids = chat_prompt(self.tokenizer, f"Picture 1: <img>x</img>\n{text}").ids
        return ids, [*self.tokenizer.encode(answer), self.tokenizer.im_end_id]


def lesson_questions(scene: Scene, draw: Random) -> list[Question]:
    """Some of a scene's questions, by WEIGHTS, in random order."""
    pool = questions(scene, draw)
    left = {family: most for family, (_, most) in WEIGHTS.items()}
    chosen: list[Question] = []
    while pool and len(chosen) < QUESTIONS:
        weights = [WEIGHTS[q.family][0] for q in pool]
        question = draw.choices(pool, weights)[0]
        chosen.append(question)
        left[question.family] -= 1
        pool = [q for q in pool if q is not question and left[q.family] > 0]
    return chosen


@dataclass(slots=True)
class LessonBatch:
    """Tensors of one step; those of the text are None in stage A."""

    pixels: Tensor  # (R, 3, 112, 112)
    places: Tensor  # (R, K, len(PLACE))
    keep: list[int]  # K of the 256 image tokens
    rows: list[Row]

    def padded(self, name: str, fill: float, dtype: torch.dtype) -> Tensor:
        """A list of each row as one tensor (R, S)."""
        lists = [getattr(row, name) for row in self.rows]
        table = torch.full((len(lists), max(map(len, lists))), fill, dtype=dtype)
        for number, values in enumerate(lists):
            table[number, : len(values)] = torch.tensor(values, dtype=dtype)
        return table


def make_batch(
    writer: RowWriter, seeds: Sequence[int], draw: Random, *, whole: bool, text: bool
) -> LessonBatch:
    """Scenes of seeds, their questions and labels."""
    keep = list(range(QUERIES))
    if not whole:
        x, y = draw.randrange(2), draw.randrange(2)
        keep = [i for i in keep if i % UNITS % 2 == x and i // UNITS % 2 == y]
    scenes = [make_scene(seed, draw.choices(KINDS, KIND_WEIGHTS)[0]) for seed in seeds]
    return batch_of(writer, scenes, keep, draw, text=text)


def batch_of(
    writer: RowWriter, scenes: Sequence[Scene], keep: list[int], draw: Random, *, text: bool
) -> LessonBatch:
    """The batch of given scenes."""
    pixels = torch.stack([preprocess(draw_scene(scene), IMAGE_PX) for scene in scenes])
    labels = torch.from_numpy(np.stack([place_labels(scene)[keep] for scene in scenes]))
    rows = []
    for scene in scenes if text else ():
        chat = draw.random() < CHAT_SHARE
        rows.append(writer.row(lesson_questions(scene, draw), keep, chat))
    return LessonBatch(pixels, labels, keep, rows)
