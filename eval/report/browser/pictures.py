"""The pictures that pages show: where they lie, and which of them browsers turn."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

UPRIGHT = 1
ORIENTATION = 0x0112  # of EXIF: 1 to 8
HEAD = 64  # bytes of a JPEG, in which EXIF begins if it has any


class Pictures:
    """Each picture once: looked for, looked at, and brought into a folder where that is wanted.

    into     folder of copies, or None
    missing  is told the path of each that is not there
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
        source = (self.data / path).resolve()
        try:
            turned = _orientation(source)
        except OSError:
            self.missing(path)
            return UPRIGHT
        if self.into is not None:
            copy = self.into / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, copy)
            except OSError:  # another disk, or one without links
                shutil.copyfile(source, copy)
        return turned


def _orientation(file: Path) -> int:
    """Of a JPEG with EXIF; 1 for all else, and for what is no picture. OSError without a file."""
    with file.open("rb") as content:
        if b"Exif" not in content.read(HEAD):
            return UPRIGHT
    try:
        with Image.open(file) as picture:
            told = picture.getexif().get(ORIENTATION, UPRIGHT)
    except (OSError, ValueError, SyntaxError):
        return UPRIGHT
    return told if told in range(1, 9) else UPRIGHT
