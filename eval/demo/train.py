"""Train the demo checkpoint on a CPU: python -m eval.demo.train --out DIR --minutes 75 --seed 0

Three stages. A: the vision tower alone learns what stands at each of the 256 image tokens. B: the
whole model answers several questions about each picture, which share one image prefix; a strided
quarter of the image tokens is used. C: the same with all tokens. Linear helper heads, dropped
afterwards, keep telling the image tokens what they stand for, and the options of a multiple choice
whether they are right.

The scenes of a step follow from the seed and the step. The learning rate follows the clock, or with
--steps the steps: only then do two runs of one machine give the same weights.

Shape letters as in eval/runtime: R rows (one image each), S positions, K image tokens used.
"""

import argparse
import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.demo.questions import Question, questions, reply, tail
from eval.demo.scenes import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT_SEEDS,
    KINDS,
    MAX_VALUE,
    SHAPES,
    TRAINING_SEEDS,
    UNITS,
    WORDS,
    Scene,
    Thing,
    draw_scene,
    letters,
    make_scene,
)
from eval.demo.vocabulary import corpus, learn_ranks, write_ranks
from eval.runtime.chat import chat_prompt
from eval.runtime.checkpoint import save_checkpoint
from eval.runtime.config import QwenVLConfig
from eval.runtime.image import preprocess
from eval.runtime.language import places
from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.tokenizer import Tokenizer
from eval.runtime.visual import QUERIES, VisionTransformer, resize_positions, sincos_positions

MERGES = 512
IMAGE_PX = 112
STAGE_B, STAGE_C = 0.11, 0.96  # where they begin, as shares of the whole
BATCH_A, BATCH = 24, 10  # images a step
RATE, VISION_RATE = 1.4e-3, 0.5  # the second is a factor
HELPER = 0.3  # weight of the helper losses in stages B and C
CHAT_SHARE = 0.15
SAVE_SECONDS, CHECK_SECONDS = 180, 420
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


def config_fields(n_ranks: int) -> dict[str, Any]:
    """The published config schema at the demo's size."""
    return {
        "_name_or_path": "./",
        "architectures": ["QWenLMHeadModel"],
        "attn_dropout_prob": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "bf16": True,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "kv_channels": 128,
        "layer_norm_epsilon": 1e-06,
        "max_position_embeddings": 8192,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "onnx_safe": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 2048,
        "tie_word_embeddings": False,
        "tokenizer_type": "QWenTokenizer",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_flash_attn": False,
        "use_logn_attn": True,
        "visual": {
            "heads": 6,
            "image_size": IMAGE_PX,
            "image_start_id": n_ranks + 214,
            "layers": 4,
            "mlp_ratio": 3.0,
            "output_dim": 256,
            "patch_size": 14,
            "width": 192,
        },
        "vocab_size": -(-(n_ranks + 217) // 8) * 8,
    }


def generation_fields(eod_id: int) -> dict[str, Any]:
    """The published generation config with this vocabulary's ids."""
    return {
        "chat_format": "chatml",
        "do_sample": True,
        "eos_token_id": eod_id,
        "max_new_tokens": 512,
        "max_window_size": 6144,
        "pad_token_id": eod_id,
        "top_k": 0,
        "top_p": 0.3,
        "transformers_version": "4.31.0",
    }


class Helpers(nn.Module):
    """Linear heads that exist during training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, sum(PLACE.values()))
        self.match = nn.ModuleList(nn.Linear(width, 1) for _ in range(2))
        classes = sum(PLACE[name] for name in POINT)
        self.point = nn.ModuleList(nn.Linear(width, classes) for _ in range(2))

    def place_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss of features (R, K, D) against labels (R, K, len(PLACE)) int64.

        Empty places are most of a picture: they count little, else learning does not start.
        """
        scores = self.place(features).float().split(list(PLACE.values()), dim=-1)
        total = features.new_zeros((), dtype=torch.float32)
        for number, (name, part) in enumerate(zip(PLACE, scores, strict=True)):
            label = labels[..., number]
            weight = None
            if name == "name":
                weight = torch.ones(PLACE["name"])
                weight[0] = 0.08
            if bool((label != NONE).any()):
                total = total + F.cross_entropy(
                    part.flatten(0, -2), label.flatten(), weight=weight, ignore_index=NONE
                )
        return total / len(PLACE)


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


class Writer:
    """Turns questions into rows of ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.newline = tokenizer.encode("\n")[0]

    def row(self, asked: Sequence[Question], keep: Sequence[int], chat: bool) -> Row:
        """Prefix with the kept image tokens, then each question as a segment of its own."""
        pairs = [self._chat(q) if chat else self._raw(q) for q in asked]
        prompt = pairs[0][0]
        end = prompt.index(self.tokenizer.img_end_id)
        row = Row(prompt[: end - QUERIES])
        first = len(row.prefix)
        row.ids = [*row.prefix, *[self.tokenizer.img_pad_id] * len(keep), prompt[end]]
        row.slots = [*range(first), *(first + place for place in keep), end]
        row.segments = [0] * len(row.ids)
        row.targets = [NONE] * len(row.ids)
        row.weights = [0.0] * len(row.ids)
        for number, (question, (ids, answer)) in enumerate(zip(asked, pairs, strict=True), 1):
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


def chosen_questions(scene: Scene, draw: Random) -> list[Question]:
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
class Batch:
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
    writer: Writer, seeds: Sequence[int], draw: Random, *, whole: bool, text: bool
) -> Batch:
    """Scenes of seeds, their questions and labels."""
    keep = list(range(QUERIES))
    if not whole:
        x, y = draw.randrange(2), draw.randrange(2)
        keep = [i for i in keep if i % UNITS % 2 == x and i // UNITS % 2 == y]
    scenes = [make_scene(seed, draw.choices(KINDS, KIND_WEIGHTS)[0]) for seed in seeds]
    return batch_of(writer, scenes, keep, draw, text=text)


def batch_of(
    writer: Writer, scenes: Sequence[Scene], keep: list[int], draw: Random, *, text: bool
) -> Batch:
    """The batch of given scenes."""
    pixels = torch.stack([preprocess(draw_scene(scene), IMAGE_PX) for scene in scenes])
    labels = torch.from_numpy(np.stack([place_labels(scene)[keep] for scene in scenes]))
    rows = []
    for scene in scenes if text else ():
        chat = draw.random() < CHAT_SHARE
        rows.append(writer.row(chosen_questions(scene, draw), keep, chat))
    return Batch(pixels, labels, keep, rows)


def image_tokens(visual: VisionTransformer, pixels: Tensor, keep: list[int]) -> Tensor:
    """What `visual(pixels)[:, keep]` gives, without computing the others: (R, K, D)."""
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = x + resize_positions(visual.positional_embedding, visual.grid)
    x = visual.transformer(visual.ln_pre(x))
    pool = visual.attn_pool
    value = pool.ln_kv(pool.kv_proj(x))
    query = (pool.ln_q(pool.query) + pool.pos_embed)[keep]
    key = value + resize_positions(pool.pos_embed, pool.grid)
    return visual.ln_post(pool.attn(query, key, value)) @ visual.proj  # type: ignore[no-any-return]


@dataclass(slots=True)
class Outcome:
    """What a forward pass gives.

    loss     the sum to be minimised
    parts    its parts, as floats
    right    per row and question: are all its tokens the likeliest, and the likeliest tokens
    """

    loss: Tensor
    parts: dict[str, float]
    right: list[tuple[Question, bool, list[int]]]


def run(
    model: QwenVLForCausalLM, helpers: Helpers, batch: Batch, *, answers: bool = False
) -> Outcome:
    """Loss of a batch; with `answers` also which questions are answered right."""
    features = image_tokens(model.transformer.visual, batch.pixels, batch.keep)
    helper = helpers.place_loss(features, batch.places)
    if not batch.rows:
        return Outcome(helper, {"place": float(helper.detach())}, [])
    ids = batch.padded("ids", 0, torch.int64)
    segments = batch.padded("segments", -1, torch.int64)
    targets = batch.padded("targets", NONE, torch.int64)
    weights = batch.padded("weights", 0.0, torch.float32)
    x = model.transformer.wte(ids)
    begins = torch.tensor([len(row.prefix) for row in batch.rows])
    at_image = begins[:, None] + torch.arange(len(batch.keep))
    x = x.index_put((torch.arange(len(ids))[:, None], at_image), features.to(x.dtype))
    mine, other = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    mask = causal & ((other == 0) | (other == mine))
    config = cast(QwenVLConfig, model.config)
    at = places(
        config, batch.padded("slots", 0, torch.int64), config.rotary_emb_base, mask[:, None]
    )
    middle = []
    for layer, block in enumerate(model.transformer.h):
        x = block(x, at, None, layer)
        if layer in (1, 2):
            middle.append(x)
    hidden = model.transformer.ln_f(x)
    asked = targets != NONE
    logits = model.lm_head(hidden[asked]).float()
    each = F.cross_entropy(logits, targets[asked], reduction="none")
    count = sum(len(row.answers) for row in batch.rows)
    answer = (each * weights[asked]).sum() / count
    match = _match_loss(helpers, middle, batch.rows)
    point = _point_loss(helpers, middle, batch.rows)
    loss = answer + HELPER * (helper + match + point)
    named = {"answer": answer, "place": helper, "match": match, "point": point}
    parts = {name: float(part.detach()) for name, part in named.items()}
    right = _answers(batch.rows, asked, logits.argmax(-1)) if answers else []
    return Outcome(loss, parts, right)


def _match_loss(helpers: Helpers, middle: Sequence[Tensor], rows: Sequence[Row]) -> Tensor:
    """Do the options of choices know, after two and three blocks, whether they are right?"""
    where = [(number, at) for number, row in enumerate(rows) for at, _ in row.options]
    total = torch.zeros(())
    if where:
        labels = torch.tensor([right for row in rows for _, right in row.options])
        one, two = torch.tensor(where).T
        for head, hidden in zip(helpers.match, middle, strict=True):
            scores = head(hidden[one, two]).float()[:, 0]
            total = total + F.binary_cross_entropy_with_logits(scores, labels)
    return total


def _point_loss(helpers: Helpers, middle: Sequence[Tensor], rows: Sequence[Row]) -> Tensor:
    """Does a question's last token know, after two and three blocks, which shape is meant?"""
    where = [(number, at) for number, row in enumerate(rows) for at, _ in row.points]
    total = torch.zeros(())
    if where:
        labels = torch.tensor([classes for row in rows for _, classes in row.points])
        one, two = torch.tensor(where).T
        for head, hidden in zip(helpers.point, middle, strict=True):
            scores = head(hidden[one, two]).float().split([PLACE[name] for name in POINT], dim=-1)
            for number, part in enumerate(scores):
                total = total + F.cross_entropy(part, labels[:, number]) / len(POINT)
    return total


def _answers(
    rows: Sequence[Row], asked: Tensor, best: Tensor
) -> list[tuple[Question, bool, list[int]]]:
    table = torch.full(asked.shape, NONE, dtype=torch.int64)
    table[asked] = best
    found = []
    for number, row in enumerate(rows):
        for question, positions in row.answers:
            said = table[number, positions].tolist()
            found.append((question, said == [row.targets[i] for i in positions], said))
    return found


def init_weights(model: QwenVLForCausalLM, seed: int) -> None:
    """Starting weights; above all, each resampler query looks at its own place in the picture."""
    generator = torch.Generator().manual_seed(seed)
    visual = model.transformer.visual
    visual.reset(generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and name.endswith("weight") and "attn_pool" not in name:
                std = weight.shape[1] ** -0.5
                if name.endswith("c_proj.weight") or name.endswith("out_proj.weight"):
                    std *= 0.35  # these are added to the residual stream
                if name.endswith("wte.weight"):
                    std = 0.5
                weight.normal_(std=std, generator=generator)
            elif name.endswith("bias"):
                weight.zero_()
        visual.conv1.weight.normal_(std=(3 * 14 * 14) ** -0.5, generator=generator)
        model.lm_head.weight.mul_(0.3)
        table = sincos_positions(visual.positional_embedding.shape[1])
        visual.positional_embedding.copy_(0.5 * table)
        pool = visual.attn_pool
        pool.ln_q.weight.fill_(0.1)
        pool.ln_kv.weight.fill_(0.1)
        width = pool.query.shape[1]
        halves = [*range(0, width, 2), *range(1, width, 2)]  # each head gets some of x and of y
        spread = torch.eye(width)[halves]
        pool.attn.in_proj_weight.copy_(torch.cat([4 * spread, 4 * spread, 10 * torch.eye(width)]))
        pool.attn.out_proj.weight.copy_(torch.eye(width))
        reading = cast(nn.Linear, pool.kv_proj).weight
        reading.normal_(std=reading.shape[1] ** -0.5, generator=generator)


class Trainer:
    """The run: what is trained, how far it is, and where it is kept."""

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        self.out = out
        self.options = options
        ranks = learn_ranks(corpus(), MERGES)
        self.ranks = ranks
        self.tokenizer = Tokenizer(ranks)
        self.fields = config_fields(len(ranks))
        self.writer = Writer(self.tokenizer)
        torch.manual_seed(options.seed)
        self.model = QwenVLForCausalLM(QwenVLConfig(**self.fields))
        self.helpers = Helpers(self.fields["hidden_size"])
        init_weights(self.model, options.seed)
        self.model.transformer.visual.attn_pool.pos_embed.requires_grad_(False)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        groups = []
        for seeing in (True, False):
            for flat in (True, False):
                group = [
                    p
                    for n, p in named
                    if (".visual." in n) == seeing and (p.dim() < 2 or "wte" in n) == flat
                ]
                decay = 0.0 if flat else 0.02
                groups.append({"params": group, "weight_decay": decay, "seeing": seeing})
        groups.append({"params": list(self.helpers.parameters()), "seeing": False})
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.97), fused=True)
        self.step = 0
        self.images = 0
        self.seconds = 0.0
        self.answered = 0

    @property
    def progress(self) -> float:
        """How much of the run is over, 0 to 1."""
        if self.options.steps:
            return float(self.step / self.options.steps)
        return float(self.seconds / (60 * self.options.minutes))

    def set_rate(self) -> float:
        """Warm-up in each of stages A and B, then half a cosine to nothing."""
        done, rate = self.progress, float(self.options.rate)
        if done < STAGE_B:
            rate *= min(1.0, done / STAGE_B * 8 + 0.02)
        else:
            past = (done - STAGE_B) / (1 - STAGE_B)
            rate *= min(1.0, past * 50 + 0.05)
            rate *= 0.01 + 0.99 * _half_cosine(past)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (VISION_RATE if group["seeing"] and done >= STAGE_B else 1.0)
        return rate

    def train(self) -> None:
        """Go on to the end of the budget."""
        begun = time.monotonic() - self.seconds
        saved = checked = time.monotonic()
        losses: dict[str, list[float]] = defaultdict(list)
        while self.progress < 1:
            rate = self.set_rate()
            text, whole = self.progress >= STAGE_B, self.progress >= STAGE_C
            draw = Random(f"{self.options.seed} {self.step}")
            size = BATCH if text else BATCH_A
            first = self.options.seed * 10_000_000 + self.images
            assert first + size < len(TRAINING_SEEDS) - 400  # the last teach the vocabulary
            seeds = TRAINING_SEEDS[first : first + size]
            batch = make_batch(self.writer, seeds, draw, whole=whole, text=text)
            with torch.autocast("cpu", torch.bfloat16):
                outcome = run(self.model, self.helpers, batch)
            self.optimizer.zero_grad(set_to_none=True)
            outcome.loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            self.images += size
            self.answered += sum(len(row.answers) for row in batch.rows)
            self.seconds = time.monotonic() - begun
            for name, value in outcome.parts.items():
                losses[name].append(value)
            if self.step % self.options.log_every == 0:
                means = {name: round(float(np.mean(v)), 4) for name, v in losses.items()}
                self.log({"rate": round(rate, 6), **means})
                losses.clear()
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
            if text and time.monotonic() - checked > CHECK_SECONDS:
                self.check(whole)
                checked = time.monotonic()
                self.seconds = time.monotonic() - begun
        self.save()
        self.check(True)

    def check(self, whole: bool, count: int = 120) -> dict[str, float]:
        """Accuracy by family on held-out scenes that the demo's data do not use."""
        draw = Random("check")
        keep = [i for i in range(QUERIES) if whole or (i % 2 == 0 and i // UNITS % 2 == 0)]
        hits: dict[str, list[float]] = defaultdict(list)
        for number in range(0, count, 12):
            seeds = HELD_OUT_SEEDS[-1 - number : -13 - number : -1]
            scenes = [make_scene(seed, KINDS[max(seed % 6 - 2, 0)]) for seed in seeds]
            batch = batch_of(self.writer, scenes, keep, draw, text=True)
            with torch.no_grad():
                outcome = run(self.model, self.helpers, batch, answers=True)
            for question, right, said in outcome.right:
                hit = float(right)
                if question.family == "box" and question.thing:
                    hit = float(_overlap(self.tokenizer.decode_answer(said), question) >= 0.5)
                hits[question.family].append(hit)
        means = {name: round(float(np.mean(hits[name])), 3) for name in sorted(hits)}
        self.log({"held_out": means})
        return means

    def log(self, record: dict[str, Any]) -> None:
        """One line to the log and to the screen."""
        record = {"step": self.step, "minutes": round(self.seconds / 60, 2)} | record
        line = json.dumps(record)
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def save(self) -> None:
        """The state for --resume, then the checkpoint in the published format."""
        state = {
            "model": self.model.state_dict(),
            "helpers": self.helpers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": [self.step, self.images, self.seconds, self.answered],
        }
        beside = self.out / "state.pt.part"
        torch.save(state, beside)
        beside.replace(self.out / "state.pt")
        folder = self.out / "checkpoint.part"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.export(folder)
        shutil.rmtree(self.out / "checkpoint", ignore_errors=True)
        folder.replace(self.out / "checkpoint")

    def export(self, folder: Path) -> None:
        """Write the checkpoint into an empty folder."""
        small = QwenVLForCausalLM(QwenVLConfig(**self.fields))
        small.load_state_dict(self.model.state_dict())
        small.bfloat16()
        save_checkpoint(small, folder, shards=2)
        write_ranks(self.ranks, folder / "qwen.tiktoken")
        for name, fields in (
            ("config.json", self.fields),
            ("generation_config.json", generation_fields(self.tokenizer.eod_id)),
        ):
            text = json.dumps(fields, indent=1) + "\n"
            (folder / name).write_text(text, encoding="utf-8")

    def resume(self) -> None:
        """Go on from the state file."""
        state = torch.load(self.out / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.helpers.load_state_dict(state["helpers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.images, self.seconds, self.answered = state["progress"]


def _half_cosine(past: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))


def _overlap(text: str, question: Question) -> float:
    """Intersection over union of a written box and the thing's, in units of 999."""
    numbers = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    if len(numbers) != 4 or not all(number.isdigit() for number in numbers):
        return 0.0
    x1, y1, x2, y2 = map(int, numbers)
    assert question.thing is not None
    a1, b1, a2, b2 = (side * 999 / UNITS for side in question.thing.box)
    inside = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inside
    return inside / union if union > 0 else 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m eval.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for state and checkpoint")
    parser.add_argument("--minutes", type=float, default=75.0, help="budget of time")
    parser.add_argument("--steps", type=int, default=0, help="a budget of steps instead")
    parser.add_argument("--rate", type=float, default=RATE, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options.out, options)
    if options.resume:
        trainer.resume()
    size = sum(p.numel() for p in trainer.model.parameters())
    trainer.log({"parameters": size, "vocabulary": trainer.tokenizer.vocab_size})
    trainer.train()


if __name__ == "__main__":
    main()
