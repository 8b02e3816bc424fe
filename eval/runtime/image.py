"""Images: files in, the pixels the vision tower was trained on out.

Only Pillow's readers for common formats are allowed to run, sizes are bounded, and nothing is
fetched from the network.
"""

import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from eval.errors import DataError
from eval.storage.picture import FILE_BYTES, FORMATS, NO_MEMORY, size_fault

PREPROCESSING = 1  # to be raised when other pixels come out of the same file
IN_MEMORY = "an image given in memory"
# CLIP's mean and deviation of red, green and blue in [0, 1], (3, 1, 1)
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32).reshape(3, 1, 1)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32).reshape(3, 1, 1)


def load_image(source: str | Path | Image.Image) -> Image.Image:
    """The image in RGB, decoded fully.

    source  a file, or an image opened elsewhere, which is left as it is

    As in the original the EXIF orientation is not applied, alpha is dropped without blending, and
    of an animation the first frame counts. Raises DataError, naming the file, also where there is
    not enough memory.
    """
    if isinstance(source, Image.Image):
        with _reading(IN_MEMORY):
            return _to_rgb(source)
    path = _check_file(source)
    with _reading(str(path)), path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        return _to_rgb(image)


def load_pixels(source: str | Path | Image.Image, image_size: int) -> Tensor:
    """The image as the vision tower takes it, (3, S, S): `preprocess` of `load_image`.

    Raises DataError as `load_image` does.
    """
    image = load_image(source)
    with _reading(IN_MEMORY if isinstance(source, Image.Image) else str(source)):
        return preprocess(image, image_size)


def image_digest(path: str | Path) -> str | None:
    """sha256 of the file's bytes, which tells images apart; None where there is no such file."""
    try:
        with _check_file(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError):
        return None


def preprocess(image: Image.Image, image_size: int) -> Tensor:
    """Pixels (3, S, S) float32 with S = image_size, normalised with CLIP's mean and deviation.

    image  RGB, as `load_image` gives it

    The resize ignores the aspect ratio and works on 8-bit values, antialiased bicubic.
    """
    square = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    pixels = np.asarray(square).transpose(2, 0, 1).astype(np.float32, order="C")
    pixels /= 255  # numpy, not torch: torch wakes a thread pool for each of these three
    pixels -= MEAN
    pixels /= STD
    return torch.from_numpy(pixels)


def _check_file(source: str | Path) -> Path:
    """The path, if it is that of a file of a bearable size."""
    if str(source).startswith(("http://", "https://")):
        raise DataError(
            f"{source}: the path of a file expected, a web address found. Images are not fetched "
            "here: download it and give its path"
        )
    path = Path(source)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{str(path)!r}: an image file expected, found none ({reason})") from None
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a device or pipe"
        raise DataError(f"{str(path)!r}: an image file expected, {found} found")
    if not 0 < status.st_size <= FILE_BYTES:
        raise DataError(
            f"{path}: an image file of 1 to {FILE_BYTES:,} bytes expected, {status.st_size:,} "
            "found. Fetch the file again"
        )
    return path


def _to_rgb(image: Image.Image) -> Image.Image:
    if fault := size_fault(*image.size):
        raise ValueError(fault)
    return image.convert("RGB")


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever a damaged file makes Pillow raise becomes a DataError; its warnings stay unsaid."""
    try:
        with _quiet:
            yield
    except MemoryError:
        raise DataError(f"{name}: {NO_MEMORY}. Make it smaller") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{name}: an image ({', '.join(FORMATS)}) expected, none of these found. Fetch the "
            "file again, or convert it"
        ) from None
    except Exception as error:
        raise DataError(
            f"{name}: an image that can be read in full expected, {type(error).__name__} found "
            f"({error}). Fetch the file again, or make it smaller if that is its fault"
        ) from error


class _Quiet:
    """Context in which Pillow's warnings stay unsaid; none of them changes a pixel.

    Warning filters belong to the process, so the first thread in sets them and the last one out
    restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.|eval\.runtime\.image")
            self._inside += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.close()


_quiet = _Quiet()
