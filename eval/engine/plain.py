"""The plain engine: requests in the order given, nothing shared, the original's batches.

Faster engines are tested against it. It knows no task, and no file but the images of a prompt.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from eval.api import Decode, Generate, Nucleus, Prediction, Rank, Request
from eval.errors import DataError, PredictionError, UsageError
from eval.runtime import QwenVL, Sampling
from eval.runtime.checkpoint import combined_digest, find_checkpoint
from eval.runtime.generation import Losses

# Version of the code that determines answers: raise it when recorded outputs change.
GENERATION = 3

SMALL_HIDDEN_SIZE = 1024  # smaller models run on one thread


class PlainEngine:
    """Answers requests one after the other, or in batches padded on the left."""

    def __init__(self, model: QwenVL, image_root: Path, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise UsageError(f"batch size: at least 1 expected, {batch_size} given")
        self.model = model
        self.image_root = image_root
        self.batch_size = batch_size

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield predictions in the order of the requests.

        A batch holds neighbours of one task with the same decoding. Where an image cannot be read,
        the prediction has the reason.
        """
        for (_, decode, _chat), group in groupby(requests, key=_alike):
            if isinstance(decode, Rank) or self.batch_size == 1:
                yield from map(self.answer_one, group)
                continue
            while batch := list(islice(group, self.batch_size)):
                yield from self._batch(batch)

    def answer_one(self, request: Request) -> Prediction:
        """The prediction of one request in a batch of its own."""
        decode = request.decode
        try:
            if isinstance(decode, Generate):
                (prediction,) = self._generate([request])
                return prediction
            losses = self.model.rank(
                request.prompt, decode.options, image_root=self.image_root, chat=request.chat
            )
            return ranked_prediction(request.id, decode, losses)
        except (DataError, PredictionError, ValueError) as error:
            return Prediction(request.id, "", error=str(error))

    def _batch(self, batch: list[Request]) -> list[Prediction]:
        try:
            return self._generate(batch)
        except (DataError, ValueError):  # one of them is bad: answer each alone
            return [self.answer_one(request) for request in batch]

    def _generate(self, batch: list[Request]) -> list[Prediction]:
        """Answers to requests whose decoding differs only in seeds."""
        decode = batch[0].decode
        assert isinstance(decode, Generate)  # answer() ranks options one by one
        seeds = [r.decode.seed if isinstance(r.decode, Nucleus) else None for r in batch]
        answers = self.model.generate(
            [request.prompt for request in batch],
            decode.max_new_tokens,
            decode.min_new_tokens,
            sampling=Sampling(decode.top_p) if isinstance(decode, Nucleus) else None,
            seeds=[seed or 0 for seed in seeds],
            image_root=self.image_root,
            chat=batch[0].chat,
        )
        return [
            Prediction(request.id, answer.text, tuple(answer.ids), seed=seed)
            for request, answer, seed in zip(batch, answers, seeds, strict=True)
        ]

    def describe(self) -> Mapping[str, Any]:
        """What a manifest says about the model and this engine."""
        return describe(self.model, "plain", self.batch_size)


def ranked_prediction(request_id: str, decode: Rank, losses: Losses) -> Prediction:
    """The option with the least loss. Raises PredictionError for losses that are not finite."""
    best = decode.best(losses.exact)
    if losses.published:
        decode.best(losses.published)  # --as-published chooses from them: they must be finite
    text = decode.options[best].strip()
    return Prediction(request_id, text, losses=losses.exact, dtype_losses=losses.published)


def _alike(request: Request) -> tuple[str, Decode, bool]:
    decode = request.decode
    if isinstance(decode, Nucleus):
        decode = replace(decode, seed=0)
    return request.id.partition("/")[0], decode, request.chat


def describe(model: QwenVL, engine: str, batch_size: int) -> Mapping[str, Any]:
    """What a manifest says about a model behind an engine."""
    digests = model.checkpoint.digests()
    return {
        **model.describe(),
        "digest": combined_digest(digests),
        "files": digests,
        "engine": engine,
        "batch_size": batch_size,
        "generation": GENERATION,
    }


def open_backend(
    checkpoint: str,
    *,
    image_root: Path,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    revision: str | None = None,
    weights: str | None = None,
) -> PlainEngine:
    """Load a checkpoint behind the plain engine; see `load_model` for threads."""
    model = load_model(checkpoint, device, dtype, revision, weights)
    return PlainEngine(model, image_root, batch_size)


def load_model(
    checkpoint: str, device: str, dtype: str, revision: str | None, weights: str | None
) -> QwenVL:
    """`QwenVL.from_pretrained`, with one torch thread in this process for a small model.

    Below a hidden size of 1,024 a product is too small to divide, and threads that wait for each
    other lose most of their time when another process takes a core. OMP_NUM_THREADS, if it is set,
    decides instead.
    """
    model = QwenVL.from_pretrained(checkpoint, device, dtype, revision, weights)
    if model.model.config.hidden_size < SMALL_HIDDEN_SIZE and "OMP_NUM_THREADS" not in os.environ:
        import torch  # loaded by now; this module is also imported to identify a checkpoint

        torch.set_num_threads(1)
    return model


def identify(
    checkpoint: str,
    revision: str | None = None,
    *,
    weights: str | None = None,
    verify: bool = False,
) -> str:
    """The digest that `describe` would give, without loading the model.

    verify  read the checkpoint's files again, even if their digests are remembered
    """
    return combined_digest(find_checkpoint(checkpoint, revision, weights).digests(verify=verify))


def device_kind(device: str) -> str:
    """The kind of the device that `describe` would give: cpu or cuda."""
    if device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.partition(":")[0]


def footprint(
    checkpoint: str, revision: str | None, dtype: str, *, weights: str | None = None
) -> int:
    """Bytes of the weights on a GPU, without loading them; `auto` is half precision there."""
    parameters = find_checkpoint(checkpoint, revision, weights).parameters()
    count = sum(math.prod(each.shape) for each in parameters.values())
    return count * (4 if dtype == "float32" else 2)
