"""The shared engine: each image once, each common prefix once, rows that come and go.

Requests are planned into groups on one image. Its pixels are made ahead in the background, its
features and the keys and values of what its questions begin with are computed once, and the
questions are answered in a pool of rows: one that ends leaves, the next enters. Each prompt counts
as a batch of its own, so no answer depends on its neighbours; plain.py is what this is tested
against.

It knows no task. What has never run on a GPU: everything here; the tests have none.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from eval.api import Prediction, Request
from eval.engine.decode import Answering, Usage
from eval.engine.features import FeatureStore
from eval.engine.memory import free_bytes
from eval.engine.pictures import Pictures
from eval.engine.plain import PlainEngine, describe, identify
from eval.engine.plan import Plan
from eval.errors import UsageError
from eval.runtime import QwenVL

__all__ = ["SharedEngine", "identify", "open_backend"]

ROWS = {"cpu": 64, "cuda": 256}  # answered at a time, where memory allows
PACKED = {"cpu": 1024, "cuda": 8192}  # tokens of one prefill, about
FEATURES_BYTES = 20 << 30  # of a folder of features, at most
WORKERS = {"cpu": 1, "cuda": 8}  # threads that open pictures; on a CPU the model needs the cores


class SharedEngine:
    """Answers requests with everything shared that they have in common.

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
        self.workers = workers or WORKERS[kind]
        self.store = store
        self.usage = Usage()

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield predictions as they are ready; those on one image stand together.

        All requests are taken before the first is answered. One whose image cannot be read is
        answered with the reason. Raises UsageError, naming the request, for a prompt longer than
        the model's positions.
        """
        plan = Plan(self.model, self.image_root)
        pictures = Pictures(self.model, self.workers, self.store)
        self.usage = Usage()
        try:
            plan.put(requests)
            begun = perf_counter()
            answering = Answering(
                PlainEngine(self.model, self.image_root),
                plan.groups(),
                pictures,
                self.usage,
                rows=self.rows,
                memory=self.memory or free_bytes(self.model.device),
                packed=self.packed,
            )
            for prediction in answering.predictions():
                self.usage.answers += 1
                self.usage.failed += bool(prediction.error)
                self.usage.images = pictures.encoded
                self.usage.waited_s = pictures.waited_s
                self.usage.elapsed_s = perf_counter() - begun
                yield prediction
        finally:
            pictures.close()
            plan.close()

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
    memory: int | None = None,
    features: Path | None = None,
    features_bytes: int = FEATURES_BYTES,
) -> SharedEngine:
    """Load a checkpoint behind the shared engine.

    memory    bytes for keys and values
    features  a folder that keeps what the vision tower made of images, and its bound in bytes
    """
    if batch_size != 1:
        raise UsageError(
            f"batch size {batch_size}: the shared engine takes each prompt as a batch of its own; "
            "batches as the original made them come from the back end 'plain'"
        )
    model = QwenVL.from_pretrained(checkpoint, device=device, dtype=dtype, revision=revision)
    store = FeatureStore(features, model, features_bytes) if features else None
    return SharedEngine(model, image_root, memory=memory, store=store)
