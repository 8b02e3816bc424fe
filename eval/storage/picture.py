"""Formats and bounds of pictures, for every reader.

Pillow needs up to about 16 bytes a pixel to decode, and to resize 4 bytes for each pixel of the
model's width times the picture's height, and 32 bytes for each pixel of a side. So a picture one
pixel high may be small to decode and take gigabytes to resize: both the pixels and the sides are
bounded. Within the bounds a picture takes less than 3 GB.
"""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
FILE_BYTES = 1 << 30
PIXELS = 178_956_970  # where Pillow too calls a file a decompression bomb
SIDE = 65_535  # the longest that a JPEG or a GIF can have; to resize it takes 120 MB
NO_MEMORY = "there is not enough memory to open and resize it"


def size_fault(width: int, height: int) -> str | None:
    """What is wrong with a picture's size in pixels, or None."""
    if not 0 < width * height <= PIXELS:
        return f"{width} x {height} is not 1 to {PIXELS:,} pixels"
    if max(width, height) > SIDE:
        return f"{width} x {height}: a side may have {SIDE:,} pixels at most"
    return None
