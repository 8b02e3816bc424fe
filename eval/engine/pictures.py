"""Images, each once: opened in the background ahead of the model, then encoded.

The features of recent images stay in memory, since few-shot examples come again.
"""

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import torch
from torch import Tensor

from eval.engine.features import FeatureStore
from eval.engine.plan import Picture
from eval.engine.usage import Usage
from eval.errors import DataError
from eval.runtime import QwenVL
from eval.runtime.image import load_pixels

RECENT = 64  # images whose features stay in memory


class Pictures:
    """Features of images, by their content.

    workers  threads that open files
    usage    counts encoded images and the seconds spent waiting for files
    recent   features (256, D) by key, the most recent last; may outlive this object
    store    features on disk, from earlier runs and for later ones
    """

    def __init__(
        self,
        model: QwenVL,
        workers: int,
        usage: Usage,
        recent: OrderedDict[str, Tensor],
        store: FeatureStore | None = None,
    ) -> None:
        self.visual = model.model.transformer.visual
        self.device = self.visual.conv1.weight.device
        self.store = store
        self.threads = ThreadPoolExecutor(workers, "pictures")
        self.loading: dict[str, Future[tuple[Tensor, bool]]] = {}
        self.usage = usage
        self.recent = recent

    def prefetch(self, pictures: Iterable[Picture]) -> None:
        """Start to open files whose features will be needed."""
        for picture in pictures:
            if picture.key not in self.loading and picture.key not in self.recent:
                self.loading[picture.key] = self.threads.submit(self._load, picture)

    def features(self, pictures: Iterable[Picture]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Features (256, D) of pictures, and why the others cannot be read, both by key."""
        by_key = {picture.key: picture for picture in pictures}
        self.prefetch(by_key.values())
        features: dict[str, Tensor] = {}
        unreadable: dict[str, str] = {}
        pixels: dict[str, Tensor] = {}
        for key in by_key:
            if key in self.recent:
                self.recent.move_to_end(key)
                features[key] = self.recent[key]
                continue
            begun = perf_counter()
            try:
                loaded, encoded = self.loading.pop(key).result()
            except DataError as error:
                unreadable[key] = str(error)
            else:
                (features if encoded else pixels)[key] = loaded
            self.usage.waited_s += perf_counter() - begun
        features |= self._encode(pixels)
        self.recent |= features
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)
        return features, unreadable

    def close(self) -> None:
        """Stop opening files; features that are being written still reach the disk."""
        for future in self.loading.values():
            future.cancel()
        self.threads.shutdown()

    def _load(self, picture: Picture) -> tuple[Tensor, bool]:
        """Features (256, D) from the disk and True, or pixels (3, S, S) and False."""
        stored = self.store.read(picture.key) if self.store else None
        if stored is not None:
            return stored.to(self.device), True
        pixels = load_pixels(picture.file, self.visual.image_size)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels, False

    def _encode(self, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
        if not pixels:
            return {}
        self.usage.images += len(pixels)
        batch = torch.stack([p.to(self.device, non_blocking=True) for p in pixels.values()])
        features = dict(zip(pixels, self.visual(batch).unbind(), strict=True))
        if self.store:
            for key, value in features.items():
                self.threads.submit(self.store.write, key, value)
        return features
