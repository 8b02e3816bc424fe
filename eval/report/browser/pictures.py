"""The pictures that pages show: their files and their orientations."""

import os
import shutil
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

from PIL import Image

from eval.data.pictures import quiet_pillow
from eval.errors import DataError
from eval.storage.picture import FORMATS
from eval.storage.reading import MAX_INTEGER, open_file

UPRIGHT = 1
ORIENTATION = 0x0112  # of EXIF: 1 to 8
HEAD = 64  # bytes of a JPEG, in which EXIF begins if it has any


class PagePictures:
    """Reads each picture once for its orientation, and copies it if there is a folder of copies.

    Only regular files are opened, and only those below the data root are copied: a link out of it
    could bring any file into a folder that is given to others.

    into     folder of copies, or None
    missing  called with the path of each picture that is missing or may not be copied
    """

    def __init__(self, data: Path, into: Path | None, missing: Callable[[str], object]) -> None:
        self.data, self.into, self.missing = data, into, missing
        self.seen: dict[str, int] = {}

    def turned(self, path: str) -> int:
        """The EXIF orientation, which browsers apply.

        A model sees a picture as it is stored, and so do boxes; see runtime/image.py.
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
    """Copy a picture below the root to the same path in a folder. Raises DataError for others."""
    if not source.is_relative_to(root) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise DataError(f"{path}: not below {root}")
    copy = into / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, copy)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, copy)


def _orientation(content: BufferedReader) -> int:
    """Of a JPEG with EXIF; UPRIGHT for everything else."""
    if b"Exif" not in content.peek(HEAD)[:HEAD]:
        return UPRIGHT
    try:
        with quiet_pillow(), Image.open(content, formats=FORMATS) as picture:
            orientation = picture.getexif().get(ORIENTATION, UPRIGHT)
    except Exception:  # a damaged file makes Pillow's readers raise nearly anything
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT
