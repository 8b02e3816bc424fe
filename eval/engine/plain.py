"""The plain engine: requests in the order given, nothing shared, the original's batches.

It knows no task and no file but the images of a prompt. It is what faster engines are tested
against.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from eval.api import Generate, Prediction, Rank, Request
from eval.errors import DataError, PredictionError, UsageError
from eval.runtime import QwenVL
from eval.runtime.checkpoint import combined_digest, find_checkpoint


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

        A batch holds neighbours with the same decoding. Raises DataError, naming the request, for
        an image that cannot be read; all before it have been answered.
        """
        for (decode, chat), group in groupby(requests, key=lambda each: (each.decode, each.chat)):
            if isinstance(decode, Rank):
                for request in group:
                    yield self._rank(request, decode)
                continue
            while batch := list(islice(group, self.batch_size)):
                yield from self._generate(batch, decode, chat)

    def _generate(self, batch: list[Request], decode: Generate, chat: bool) -> Iterator[Prediction]:
        try:
            answers = self.model.generate(
                [request.prompt for request in batch],
                decode.max_new_tokens,
                decode.min_new_tokens,
                image_root=self.image_root,
                chat=chat,
            )
        except (DataError, ValueError) as error:
            if len(batch) == 1:
                raise DataError(f"{batch[0].id}: {error}") from error
        else:
            for request, answer in zip(batch, answers, strict=True):
                yield Prediction(request.id, answer.text, tuple(answer.ids))
            return
        for request in batch:  # one of them is bad: answer those before it, and name it
            yield from self._generate([request], decode, chat)

    def _rank(self, request: Request, decode: Rank) -> Prediction:
        try:
            losses = self.model.choice_losses(
                request.prompt, decode.options, image_root=self.image_root, chat=request.chat
            )
            best = decode.best(losses)
        except (DataError, PredictionError, ValueError) as error:
            raise DataError(f"{request.id}: {error}") from error
        return Prediction(request.id, decode.options[best].strip(), losses=tuple(losses))

    def describe(self) -> Mapping[str, Any]:
        """What a manifest says about the model and this engine."""
        digests = self.model.checkpoint.digests()
        return {
            **self.model.describe(),
            "digest": combined_digest(digests),
            "files": digests,
            "engine": "plain",
            "batch_size": self.batch_size,
        }


def open_backend(
    checkpoint: str,
    *,
    image_root: Path,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    revision: str | None = None,
) -> PlainEngine:
    """Load a checkpoint behind the plain engine."""
    model = QwenVL.from_pretrained(checkpoint, device=device, dtype=dtype, revision=revision)
    return PlainEngine(model, image_root, batch_size)


def identify(checkpoint: str, revision: str | None = None) -> str:
    """The digest that `describe` would give, without loading the model."""
    return combined_digest(find_checkpoint(checkpoint, revision).digests())
