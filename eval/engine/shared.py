"""The shared engine: each image once, each common prefix once, rows that come and go.

Requests are pulled as the engine needs them, and neighbours are grouped by their image. Its pixels
are made ahead in the background, its features and the keys and values of what its questions begin
with are computed once, and the questions are answered in a pool of rows: one that ends leaves, the
next enters. Each prompt counts as a batch of its own, so no answer depends on its neighbours;
plain.py is what this is tested against.

It knows no task. What has never run on a GPU: everything here; the tests have none.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor

from eval.api import Prediction, Request
from eval.engine.decode import Answering
from eval.engine.features import FeatureStore
from eval.engine.memory import free_bytes
from eval.engine.pictures import Pictures
from eval.engine.plain import (
    GENERATION,
    PlainEngine,
    describe,
    device_kind,
    footprint,
    identify,
)
from eval.engine.plan import Plan
from eval.engine.usage import Usage
from eval.errors import UsageError
from eval.runtime import QwenVL

__all__ = [
    "GENERATION",
    "SharedEngine",
    "device_kind",
    "footprint",
    "identify",
    "open_backend",
]

ROWS = {"cpu": 64, "cuda": 256}  # answered at a time, where memory allows
PULLED = {"cpu": 64, "cuda": 256}  # requests that are pulled and grouped at a time
PACKED = {"cpu": 1024, "cuda": 8192}  # tokens of one prefill, about
FEATURES_BYTES = 20 << 30  # of a folder of features, at most
WORKERS = {"cpu": 1, "cuda": 8}  # threads that open pictures; on a CPU the model needs the cores


class SharedEngine:
    """Answers requests with everything shared that they have in common.

    It may be asked again and again: features of recent images stay, and `usage` counts on.

    rows     at most so many are answered at a time
    memory   bytes for keys and values; by default a part of what the device has free
    packed   tokens of one prefill, about
    workers  threads that open pictures
    """

    def __init__(
        self,
        model: QwenVL,
        image_root: Path,
        *,
        rows: int | None = None,
        memory: int | None = None,
        packed: int | None = None,
        workers: int | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        for name, value in (("rows", rows), ("memory", memory), ("packed", packed)):
            if value is not None and value < 1:
                raise UsageError(f"{name}: at least 1 expected, {value} given")
        kind = "cuda" if model.device.type == "cuda" else "cpu"
        self.model = model
        self.image_root = image_root
        self.rows = rows or ROWS[kind]
        self.memory = memory
        self.packed = packed or PACKED[kind]
        self.pulled = PULLED[kind]
        self.workers = workers or WORKERS[kind]
        self.store = store
        self.kept: OrderedDict[str, Tensor] = OrderedDict()
        self.usage = Usage()

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield predictions as they are ready.

        Requests are pulled when the pool has room for more, a batch at a time, so the first are
        answered long before the last is pulled. Those on one image share it best where they stand
        together: see plan.py. One whose image cannot be read, whose prompt is longer than the
        model's positions, or whose options have no token is answered with the reason.
        """
        usage = self.usage
        begun = perf_counter()
        pictures = Pictures(self.model, self.workers, usage, self.kept, self.store)
        answering = Answering(
            PlainEngine(self.model, self.image_root),
            iter(Plan(self.model, self.image_root, requests, self.pulled)),
            pictures,
            usage,
            rows=self.rows,
            memory=self.memory or free_bytes(self.model.device),
            packed=self.packed,
        )
        try:
            for prediction in answering.predictions():
                usage.answers += 1
                usage.failed += bool(prediction.error)
                now = perf_counter()
                usage.elapsed_s += now - begun
                begun = now
                yield prediction
        finally:
            pictures.close()

    def describe(self) -> Mapping[str, Any]:
        """What a manifest says about the model and this engine; no answer depends on the rest."""
        return describe(self.model, "shared", 1)


def open_backend(
    checkpoint: str,
    *,
    image_root: Path,
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 1,
    revision: str | None = None,
    weights: str | None = None,
    rows: int | None = None,
    memory: int | None = None,
    features: Path | None = None,
    features_bytes: int = FEATURES_BYTES,
) -> SharedEngine:
    """Load a checkpoint behind the shared engine.

    rows      at most so many are answered at a time
    memory    bytes for keys and values
    features  a folder that keeps what the vision tower made of images, and its bound in bytes
    """
    if batch_size != 1:
        raise UsageError(
            f"batch size {batch_size}: the shared engine takes each prompt as a batch of its own; "
            "batches as the original made them come from the back end 'plain'"
        )
    model = QwenVL.from_pretrained(checkpoint, device, dtype, revision, weights)
    store = FeatureStore(features, model, features_bytes) if features else None
    return SharedEngine(model, image_root, rows=rows, memory=memory, store=store)
