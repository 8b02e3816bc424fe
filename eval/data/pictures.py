"""Is a file a picture that the model can be shown?"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from PIL import Image

from eval.storage.picture import FILE_BYTES, FORMATS, NO_MEMORY, size_fault

Given = TypeVar("Given")
Found = TypeVar("Found")


def picture_fault(path: Path, *, decode: bool = True) -> str | None:
    """What is wrong with a file as a picture for the model, or None.

    decode  decode all of it, not only the header

    Pillow may warn; see `quiet`. Raises FileNotFoundError where there is no file.
    """
    status = path.stat()
    if not S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        return "a folder or a device"
    if not 0 < status.st_size <= FILE_BYTES:
        return f"{status.st_size:,} bytes, 1 to {FILE_BYTES:,} expected"
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if fault := size_fault(*image.size):
                return fault
            if decode:
                image.convert("RGB")
    except MemoryError:
        return NO_MEMORY
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        return f"{type(error).__name__}: {error}".replace(f"{path}", path.name)
    return None


def is_pixel(path: Path) -> bool:
    """Whether a picture without a fault is a single pixel."""
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        return image.size == (1, 1)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings. Use it outside threads: warning filters belong to the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def in_threads(
    function: Callable[[Given], Found], values: Iterable[Given], threads: int | None = None
) -> Iterator[tuple[Given, Found]]:
    """(value, result of the function), in order; a bounded number is in flight.

    threads  default: the number of processors, at most eight
    """
    threads = threads or min(8, os.cpu_count() or 1)
    waiting = iter(values)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while batch := list(islice(waiting, 32 * threads)):
                yield from zip(batch, pool.map(function, batch), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # a stop waits only for calls in flight
