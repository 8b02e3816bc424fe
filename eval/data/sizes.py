"""Width and height of a picture, from its header; nothing is decoded."""

import io
from pathlib import Path

from PIL import Image

from eval.data.files import read_bytes
from eval.data.pictures import quiet_pillow
from eval.errors import DataError
from eval.storage.picture import FILE_BYTES, FORMATS, NO_MEMORY, size_fault


def picture_size(picture: Path | bytes, where: str = "") -> tuple[int, int]:
    """Width and height, in pixels, of a file or of a file's bytes.

    where  beginning of an error about bytes; errors about a file name the file

    Raises DataError for anything but a picture that the model accepts.
    """
    content = read_bytes(picture, FILE_BYTES) if isinstance(picture, Path) else picture
    where = where or str(picture)
    try:
        with quiet_pillow(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except MemoryError:
        raise DataError(f"{where}: {NO_MEMORY}") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise nearly anything
        raise DataError(
            f"{where}: a picture expected, {content[:8]!r}... found ({type(error).__name__})"
        ) from error
    if fault := size_fault(width, height):
        raise DataError(f"{where}: {fault}")
    return width, height
