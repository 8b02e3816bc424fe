"""Train the demo checkpoint on a CPU.

    python -m eval.demo.trainer.train --out DIR --minutes 75 --seed 0

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
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eval.demo.questions import Question
from eval.demo.scenes import HELD_OUT_SEEDS, KINDS, TRAINING_SEEDS, UNITS, make_scene
from eval.demo.trainer.lessons import (
    NONE,
    PLACE,
    POINT,
    LessonBatch,
    Row,
    RowWriter,
    batch_of,
    make_batch,
)
from eval.demo.trainer.start import config_fields, generation_fields, init_weights
from eval.demo.trainer.vocabulary import corpus, learn_ranks, write_ranks
from eval.runtime.checkpoint import save_checkpoint
from eval.runtime.config import QwenVLConfig
from eval.runtime.language import token_places
from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.tokenizer import Tokenizer
from eval.runtime.visual import QUERIES, VisionTransformer, resize_positions

MERGES = 512
STAGE_B, STAGE_C = 0.11, 0.96  # where they begin, as shares of the whole
BATCH_A, BATCH = 24, 10  # images a step
RATE, VISION_RATE = 1.4e-3, 0.5  # the second is a factor
HELPER = 0.3  # weight of the helper losses in stages B and C
SAVE_SECONDS, CHECK_SECONDS = 180, 420


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
class StepOutcome:
    """What a forward pass gives.

    loss     the sum to be minimised
    parts    its parts, as floats
    right    per row and question: are all its tokens the likeliest, and the likeliest tokens
    """

    loss: Tensor
    parts: dict[str, float]
    right: list[tuple[Question, bool, list[int]]]


def run(
    model: QwenVLForCausalLM, helpers: Helpers, batch: LessonBatch, *, answers: bool = False
) -> StepOutcome:
    """Loss of a batch; with `answers` also which questions are answered right."""
    features = image_tokens(model.transformer.visual, batch.pixels, batch.keep)
    helper = helpers.place_loss(features, batch.places)
    if not batch.rows:
        return StepOutcome(helper, {"place": float(helper.detach())}, [])
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
    config = model.config
    at = token_places(
        config, batch.padded("slots", 0, torch.int64), config.rotary_emb_base, mask[:, None]
    )
    middle = []
    for layer, block in enumerate(model.transformer.h):
        x = block(x, at, None, layer)
        if layer in (1, 2):
            middle.append(x)
    hidden = model.transformer.ln_f(x)
    known = targets != NONE
    logits = model.lm_head(hidden[known]).float()
    each = F.cross_entropy(logits, targets[known], reduction="none")
    count = sum(len(row.answers) for row in batch.rows)
    answer = (each * weights[known]).sum() / count
    match = _match_loss(helpers, middle, batch.rows)
    point = _point_loss(helpers, middle, batch.rows)
    loss = answer + HELPER * (helper + match + point)
    named = {"answer": answer, "place": helper, "match": match, "point": point}
    parts = {name: float(part.detach()) for name, part in named.items()}
    right = _answers(batch.rows, known, logits.argmax(-1)) if answers else []
    return StepOutcome(loss, parts, right)


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
    rows: Sequence[Row], known: Tensor, best: Tensor
) -> list[tuple[Question, bool, list[int]]]:
    table = torch.full(known.shape, NONE, dtype=torch.int64)
    table[known] = best
    results = []
    for number, row in enumerate(rows):
        for question, positions in row.answers:
            said = table[number, positions].tolist()
            results.append((question, said == [row.targets[i] for i in positions], said))
    return results


class Trainer:
    """The run: what is trained, how far it is, and where it is kept."""

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        self.out = out
        self.options = options
        ranks = learn_ranks(corpus(), MERGES)
        self.ranks = ranks
        self.tokenizer = Tokenizer(ranks)
        self.fields = config_fields(len(ranks))
        self.writer = RowWriter(self.tokenizer)
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
    parser = argparse.ArgumentParser(prog="python -m eval.demo.trainer.train", description=__doc__)
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
