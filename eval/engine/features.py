"""Features of images on disk, so that a later run need not encode them again.

A file's name is a digest of everything that determines its content: the image's bytes, the vision
tower's weights and dtype, the preprocessing. The file holds the features and a checksum of its name
and of them, so a damaged or renamed file counts as missing and is written again. Files appear whole
and follow the umask, so several processes and users may share a folder. Only tensors are read.
"""

import contextlib
import hashlib
import os
import secrets
import threading
from pathlib import Path
from stat import S_ISREG
from time import time

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from eval.errors import DataError, UsageError
from eval.runtime import QwenVL
from eval.runtime.image import PREPROCESSING
from eval.runtime.visual import QUERIES
from eval.storage.reading import read_bytes

NAME, DIGEST = "features", "sha256"  # of the tensors in a file
SUFFIX = ".safetensors"
HEADER_BYTES = 10_000  # of a file at most, beside the features; usually some hundred
ABANDONED_S = 3600.0  # an unfinished file of this age was left by a killed process
KEPT_SHARE = 0.9  # of the bound, when old files are dropped


class FeatureStore:
    """A folder of features, bounded in size: the least recently used files are dropped first.

    bound  bytes that the folder's files may take
    """

    def __init__(self, folder: Path, model: QwenVL, bound: int) -> None:
        self.folder = folder
        self.bound = bound
        visual = model.model.transformer.visual
        self.dtype = visual.conv1.weight.dtype
        self.shape = (QUERIES, visual.proj.shape[0])
        self.encoder = _digest(visual)
        self.lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{folder}: a folder for features expected, it cannot be made ({error.strerror})"
            ) from None
        self._drop_unfinished()
        self.held = sum(size for _, size, _ in self._files())

    def read(self, key: str) -> Tensor | None:
        """Features (256, D) of the image with this digest, or None."""
        file = self._file(key)
        limit = self.shape[0] * self.shape[1] * self.dtype.itemsize + HEADER_BYTES
        try:
            tensors = load(read_bytes(file, DataError, limit))
            features, digest = tensors[NAME], tensors[DIGEST]
        except (DataError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            return None  # missing, not a regular file, or so damaged that it cannot be parsed
        if features.shape != self.shape or features.dtype != self.dtype:
            return None
        if not torch.equal(digest, _checksum(file, features)):
            return None
        with contextlib.suppress(OSError):  # the file may be another user's
            os.utime(file)
        return features

    def write(self, key: str, features: Tensor) -> None:
        """Keep features (256, D) that are finite; a full disk is no error."""
        features = features.detach().cpu().contiguous()
        if not bool(features.isfinite().all()):
            return
        file = self._file(key)
        content = save({NAME: features, DIGEST: _checksum(file, features)})
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            beside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
            try:
                with beside.open("xb") as stream:
                    stream.write(content)
                beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
            with self.lock:
                self.held += len(content)
                if self.held > self.bound:
                    self._drop_oldest()

    def _file(self, key: str) -> Path:
        name = hashlib.sha256(f"{self.encoder} {key}".encode()).hexdigest()
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its size in bytes, its path."""
        files = []
        for file in self.folder.glob(f"??/*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may drop it meanwhile
                status = file.lstat()
                if S_ISREG(status.st_mode):
                    files.append((status.st_mtime, status.st_size, file))
        return files

    def _drop_unfinished(self) -> None:
        """Remove the unfinished files of killed processes."""
        for file in self.folder.glob(f"??/.*{SUFFIX}.*"):
            with contextlib.suppress(OSError):
                if file.lstat().st_mtime < time() - ABANDONED_S:
                    file.unlink()

    def _drop_oldest(self) -> None:
        files = sorted(self._files())
        self.held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if self.held <= KEPT_SHARE * self.bound:
                return
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
                self.held -= size


def _checksum(file: Path, features: Tensor) -> Tensor:
    """sha256 of a file's name and its features, (32,) uint8."""
    digest = hashlib.sha256(file.name.encode())
    digest.update(_bytes(features))
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return content


def _digest(visual: torch.nn.Module) -> str:
    """sha256 of everything that determines an image's features."""
    digest = hashlib.sha256(f"{PREPROCESSING} {visual.image_size}".encode())
    for name, parameter in visual.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(_bytes(parameter))
    return digest.hexdigest()
