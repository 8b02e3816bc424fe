"""Images, each once: opened ahead of the model in the background, then through the vision tower.

What the tower made of an image is kept for a while, since few-shot examples come again.
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

KEPT = 64  # images whose features stay in memory


class Pictures:
    """Features of images, by their content.

    workers  threads that open files
    usage    where it is told what was encoded and waited for
    kept     features (256, D) by key, the most recent last; may outlive this object
    store    features on disk, from earlier runs and for later ones
    """

    def __init__(
        self,
        model: QwenVL,
        workers: int,
        usage: Usage,
        kept: OrderedDict[str, Tensor],
        store: FeatureStore | None = None,
    ) -> None:
        self.visual = model.model.transformer.visual
        self.device = self.visual.conv1.weight.device
        self.store = store
        self.threads = ThreadPoolExecutor(workers, "pictures")
        self.loading: dict[str, Future[tuple[Tensor, bool]]] = {}
        self.usage = usage
        self.kept = kept

    def expect(self, pictures: Iterable[Picture]) -> None:
        """Begin to open files whose features will be asked for."""
        for picture in pictures:
            if picture.key not in self.loading and picture.key not in self.kept:
                self.loading[picture.key] = self.threads.submit(self._load, picture)

    def features(self, pictures: Iterable[Picture]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Features (256, D) of each picture that can be read, and why another cannot, by key."""
        wanted = {picture.key: picture for picture in pictures}
        self.expect(wanted.values())
        found: dict[str, Tensor] = {}
        failed: dict[str, str] = {}
        pixels: dict[str, Tensor] = {}
        for key in wanted:
            if key in self.kept:
                self.kept.move_to_end(key)
                found[key] = self.kept[key]
                continue
            begun = perf_counter()
            try:
                loaded, encoded = self.loading.pop(key).result()
            except DataError as error:
                failed[key] = str(error)
            else:
                (found if encoded else pixels)[key] = loaded
            self.usage.waited_s += perf_counter() - begun
        found |= self._encode(pixels)
        for key, features in found.items():
            self.kept[key] = features
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found, failed

    def close(self) -> None:
        """Stop opening files; features that are being written come to the disk yet."""
        for future in self.loading.values():
            future.cancel()
        self.threads.shutdown()

    def _load(self, picture: Picture) -> tuple[Tensor, bool]:
        """Features that are on disk already (256, D), or pixels (3, S, S); and which it is."""
        known = self.store.read(picture.key) if self.store else None
        if known is not None:
            return known.to(self.device), True
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
