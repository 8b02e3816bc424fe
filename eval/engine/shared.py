"""The shared engine: each image once, each common prefix once, sequences that come and go.

A plan groups requests by their first image. A scheduler chooses which sequences run, a runner runs
them, a collector files the results; the loop below joins them. Each prompt counts as a batch of its
own, so no answer depends on other requests; plain.py is what this is tested against.

It knows no task. Nothing here has ever run on a GPU: the tests have none.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from eval.api import Prediction, Request
from eval.engine.attention import segments_of
from eval.engine.collector import Collector, failed_prediction
from eval.engine.features import FeatureStore
from eval.engine.kv_cache import Pool
from eval.engine.memory import free_bytes, is_out_of_memory
from eval.engine.pictures import Pictures
from eval.engine.plain import (
    GENERATION,
    PlainEngine,
    describe,
    device_kind,
    footprint,
    identify,
    load_model,
)
from eval.engine.plan import Plan
from eval.engine.runner import Outcome, Runner
from eval.engine.scheduler import Scheduler
from eval.engine.sequence import Sequence
from eval.engine.usage import Usage
from eval.errors import UsageError
from eval.runtime import QwenVL
from eval.runtime.generation import not_finite

__all__ = [
    "GENERATION",
    "SharedEngine",
    "device_kind",
    "footprint",
    "identify",
    "open_backend",
]

SEQUENCES = {"cpu": 64, "cuda": 256}  # that generate at a time, where memory allows
PULLED = {"cpu": 64, "cuda": 256}  # requests that are pulled and grouped at a time
PREFILL_TOKENS = {"cpu": 1024, "cuda": 8192}  # of one prefill, about
FEATURES_BYTES = 20 << 30  # of a folder of features, at most
WORKERS = {"cpu": 1, "cuda": 8}  # threads that open pictures; on a CPU the model needs the cores


class SharedEngine:
    """Answers requests, and shares everything that they have in common.

    `answer` may be called again and again: features of recent images stay, and `usage` counts on.

    sequences       at most so many generate at a time
    memory          bytes for the KV cache; by default a part of what the device has free
    prefill_tokens  tokens of one prefill, about
    workers         threads that open pictures
    """

    def __init__(
        self,
        model: QwenVL,
        image_root: Path,
        *,
        sequences: int | None = None,
        memory: int | None = None,
        prefill_tokens: int | None = None,
        workers: int | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        limits = {"sequences": sequences, "memory": memory, "prefill_tokens": prefill_tokens}
        for name, value in limits.items():
            if value is not None and value < 1:
                raise UsageError(f"{name}: at least 1 expected, {value} given")
        kind = "cuda" if model.device.type == "cuda" else "cpu"
        self.model = model
        self.image_root = image_root
        self.sequences = sequences or SEQUENCES[kind]
        self.memory = memory
        self.prefill_tokens = prefill_tokens or PREFILL_TOKENS[kind]
        self.pulled = PULLED[kind]
        self.workers = workers or WORKERS[kind]
        self.store = store
        self.recent: OrderedDict[str, Tensor] = OrderedDict()  # features (256, D), by image
        self.usage = Usage()

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield predictions as they are ready.

        Requests are pulled when the pool has room for more, a batch at a time, so the first
        predictions come long before the last request is pulled. Requests on one image share it
        best where they are neighbours: see plan.py. Where an image cannot be read, a prompt is
        longer than the model's positions, or an option has no token, the prediction has the reason.
        """
        usage = self.usage
        begun = perf_counter()
        pictures = Pictures(self.model, self.workers, usage, self.recent, self.store)
        try:
            for prediction in _Loop(self, requests, pictures).predictions():
                usage.answers += 1
                usage.failed += bool(prediction.error)
                now = perf_counter()
                usage.elapsed_s += now - begun
                begun = now
                yield prediction
        finally:
            pictures.close()

    def describe(self) -> Mapping[str, Any]:
        """What a manifest says about the model and this engine; nothing else changes an answer."""
        return describe(self.model, "shared", 1)


class _Loop:
    """One call of `answer`: choose which sequences run, run them, file the results."""

    def __init__(
        self, engine: SharedEngine, requests: Iterable[Request], pictures: Pictures
    ) -> None:
        model = engine.model
        self.plain = PlainEngine(model, engine.image_root)
        self.pictures = pictures
        self.device = model.device
        self.not_finite = not_finite(model.model.dtype)
        config = model.model.config
        slot = 2 * config.num_hidden_layers * config.num_attention_heads * config.kv_channels
        memory = engine.memory or free_bytes(self.device)
        slots = max(memory // (slot * model.model.dtype.itemsize), 1)
        self.pool = Pool(engine.sequences, slots)
        groups = iter(Plan(model, engine.image_root, requests, engine.pulled))
        self.scheduler = Scheduler(model, groups, pictures, self.pool, engine.prefill_tokens)
        self.runner = Runner(model, self.pool, engine.usage)
        self.collector = Collector(model, self.scheduler)

    @torch.inference_mode()
    def predictions(self) -> Iterator[Prediction]:
        """One for each request, as it is ready."""
        while True:
            if self.scheduler.may_admit():
                chosen, others = self.scheduler.choose()
                for other in others:
                    yield other if isinstance(other, Prediction) else self.plain.answer_one(other)
                if chosen:
                    yield from self._prefill(chosen)
                    continue
                if others:
                    continue
            if not self.pool.sequences:
                return
            yield from self._collect(self.runner.step())

    def _prefill(self, chosen: list[Sequence]) -> Iterator[Prediction]:
        """Prefill sequences that the scheduler has admitted."""
        segments = segments_of(chosen)
        pictures = self.runner.pictures(segments)
        try:
            features, unreadable = self.pictures.features(pictures)
            if not unreadable:
                hidden = self.runner.prefill(segments, [features[p.key] for p in pictures])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        else:
            if not unreadable:
                several = (each.sequences for each in segments if len(each.sequences) > 1)
                together = {sequence for sequences in several for sequence in sequences}
                yield from self._collect(self.runner.read_prefill(segments, hidden), together)
                return
            for sequence, why in self.scheduler.remove_unreadable(chosen, unreadable):
                yield failed_prediction(sequence, why)
            if chosen:
                yield from self._prefill(chosen)
            return
        # outside of `except`, which would keep the tensors of the failed prefill in memory
        if hopeless := self.scheduler.shrink(chosen):
            yield failed_prediction(
                hopeless,
                f"not enough memory on {self.device} for this question alone: {reason}",
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _collect(
        self, outcomes: Mapping[Sequence, Outcome], together: Set[Sequence] = frozenset()
    ) -> Iterator[Prediction]:
        """File outcomes; where scores are not finite, run again alone or fail.

        In a segment another sequence may be the cause, since a mask hides finite scores but not
        NaN. So a sequence fails only after a prefill in a segment of its own.

        together  sequences that shared a segment
        """
        yield from self.collector.collect(outcomes)
        lost = [sequence for sequence, outcome in outcomes.items() if outcome is None]
        again = [sequence for sequence in lost if sequence in together]
        for sequence in again:
            sequence.alone = True
        self.scheduler.put_back(again)
        for sequence in lost:
            if sequence not in together:
                self.scheduler.finish(sequence, suspect=True)
                yield failed_prediction(sequence, self.not_finite)


def open_backend(
    checkpoint: str,
    *,
    image_root: Path,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    revision: str | None = None,
    weights: str | None = None,
    sequences: int | None = None,
    memory: int | None = None,
    features: Path | None = None,
    features_bytes: int = FEATURES_BYTES,
) -> SharedEngine:
    """Load a checkpoint behind the shared engine; see `plain.load_model` for threads.

    sequences  at most so many generate at a time
    memory     bytes for the KV cache
    features   a folder for the features of images, and its bound in bytes
    """
    if batch_size != 1:
        raise UsageError(
            f"batch size {batch_size}: the shared engine takes each prompt as a batch of its own; "
            "batches as the original made them come from the back end 'plain'"
        )
    model = load_model(checkpoint, device, dtype, revision, weights)
    store = FeatureStore(features, model, features_bytes) if features else None
    return SharedEngine(model, image_root, sequences=sequences, memory=memory, store=store)
