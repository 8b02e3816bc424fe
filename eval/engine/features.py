"""Features of images on disk, so that a later run need not encode them again.

A file is named by all that decides its content: the image's bytes, the vision tower's weights and
their dtype, the way pixels are made. Files appear whole, so several processes may share a folder;
a damaged one counts as missing. Nothing but tensors is read.
"""

import contextlib
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from eval.errors import UsageError
from eval.runtime import QwenVL
from eval.runtime.image import PREPROCESSING
from eval.runtime.visual import QUERIES

NAME = "features"
SUFFIX = ".safetensors"
SPARED = 0.9  # part of the bound that is left after files were dropped


class FeatureStore:
    """A folder of features, bounded in size: the files that were used longest ago go first.

    bound  bytes that the folder's files may take
    """

    def __init__(self, folder: Path, model: QwenVL, bound: int) -> None:
        self.folder = folder
        self.bound = bound
        visual = model.model.transformer.visual
        self.dtype = visual.conv1.weight.dtype
        self.shape = (QUERIES, visual.proj.shape[0])
        self.maker = _digest(visual)
        self.lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder}: a folder for features expected, it cannot be made ({error.strerror})"
            ) from None
        self.held = sum(size for _, size, _ in self._files())

    def read(self, key: str) -> Tensor | None:
        """Features (256, D) of the image with this digest, or None."""
        file = self._file(key)
        try:
            tensor = load(file.read_bytes())[NAME]
            os.utime(file)
        except (OSError, SafetensorError, KeyError):
            return None
        if tensor.shape != self.shape or tensor.dtype != self.dtype or tensor.isnan().any():
            return None
        return tensor

    def write(self, key: str, features: Tensor) -> None:
        """Keep features (256, D); a full disk is no reason to stop."""
        file = self._file(key)
        content = save({NAME: features.detach().cpu().contiguous()})
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            number, beside = tempfile.mkstemp(prefix=".", dir=file.parent)
            try:
                with os.fdopen(number, "wb") as stream:
                    stream.write(content)
                Path(beside).replace(file)
            finally:
                Path(beside).unlink(missing_ok=True)
            with self.lock:
                self.held += len(content)
                if self.held > self.bound:
                    self._drop_oldest()

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.maker} {key}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its size, and itself."""
        found = []
        for file in self.folder.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may drop it meanwhile
                told = file.stat()
                found.append((told.st_mtime, told.st_size, file))
        return found

    def _drop_oldest(self) -> None:
        files = sorted(self._files())
        self.held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if self.held <= SPARED * self.bound:
                return
            file.unlink(missing_ok=True)
            self.held -= size


def _digest(visual: torch.nn.Module) -> str:
    """Of all that decides what the tower makes of an image."""
    found = hashlib.sha256(f"{PREPROCESSING} {visual.image_size}".encode())
    for name, parameter in visual.named_parameters():
        found.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
