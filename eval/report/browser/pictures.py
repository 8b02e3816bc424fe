"""The pictures that pages show: where they lie, and which of them browsers turn."""

import os
import shutil
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from PIL import Image

from eval.data.pictures import quiet
from eval.errors import DataError
from eval.storage.picture import FORMATS
from eval.storage.reading import MAX_INTEGER, open_file

UPRIGHT = 1
ORIENTATION = 0x0112  # of EXIF: 1 to 8
HEAD = 64  # bytes of a JPEG, in which EXIF begins if it has any


class Pictures:
    """Each picture once: looked for, looked at, and brought into a folder where that is wanted.

    Only regular files are opened, and only those below the data root are copied: a link that leads
    out of it could bring anything into a folder that is meant for others.

    into     folder of copies, or None
    missing  is told the path of each that is not there, or may not be copied
    """

    def __init__(self, data: Path, into: Path | None, missing: Callable[[str], object]) -> None:
        self.data, self.into, self.missing = data, into, missing
        self.seen: dict[str, int] = {}

    def turned(self, path: str) -> int:
        """The orientation that a camera noted, which browsers follow.

        A model sees a picture as it is stored, and boxes are of that one; see runtime/image.py.
        """
        if path not in self.seen:
            self.seen[path] = self._take(path)
        return self.seen[path]

    def _take(self, path: str) -> int:
        source = Path(os.path.realpath(self.data / path))
        try:
            with open_file(source, DataError, MAX_INTEGER) as content:
                turned = _orientation(content)
            if self.into is not None:
                _copy(source, Path(os.path.realpath(self.data)), self.into, path)
        except DataError:
            self.missing(path)
            return UPRIGHT
        return turned


def _copy(source: Path, root: Path, into: Path, path: str) -> None:
    """Bring a picture below the root to the same path in a folder. Raises DataError for another."""
    if not source.is_relative_to(root) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"{path}: not below {root}")
    copy = into / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, copy)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, copy)


def _orientation(content: BufferedReader) -> int:
    """Of a JPEG with EXIF; 1 for all else, and for what is no picture."""
    if b"Exif" not in content.peek(HEAD)[:HEAD]:
        return UPRIGHT
    try:
        with quiet(), Image.open(content, formats=FORMATS) as picture:
            told = picture.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # a damaged file makes Pillow's readers raise nearly anything
        return UPRIGHT
    return told if told in range(1, 9) else UPRIGHT
