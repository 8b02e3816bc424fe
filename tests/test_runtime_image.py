"""Pixels against those recorded from the original, and files that are no images."""

import hashlib
import io
import json
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.errors import DataError
from eval.runtime.image import load_image, preprocess

CASES = json.loads(
    (Path(__file__).parent / "golden/parity/preprocess_cases.json").read_text(encoding="utf-8")
)["cases"]


def sha256(pixels):
    return hashlib.sha256(np.asarray(pixels).tobytes()).hexdigest()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['image']}-{case['image_size']}")
def test_pixels(in_parity_folder, case):
    """Decoding and resizing are exact; normalised values are within 1e-5."""
    image = load_image(case["image"])
    assert (image.mode, [*image.size]) == ("RGB", case["size_wh"])
    assert case["rgb_uint8_sha256"] == sha256(image)
    size = case["image_size"]
    square = image.resize((size, size), Image.Resampling.BICUBIC)
    assert case["resized_uint8_sha256"] == sha256(square)
    pixels = preprocess(image, size)
    assert (pixels.dtype, pixels.shape) == (torch.float32, (3, size, size))
    assert pixels.is_contiguous()
    c, y, x = torch.tensor(case["positions_cyx"]).T
    assert pixels[c, y, x].tolist() == pytest.approx(case["values"], abs=1e-5)
    assert pixels.mean((1, 2)).tolist() == pytest.approx(case["channel_mean"], abs=1e-5)
    assert pixels.std((1, 2), correction=0).tolist() == pytest.approx(case["channel_std"], abs=1e-5)
    assert pixels.amin((1, 2)).tolist() == pytest.approx(case["channel_min"], abs=1e-5)
    assert pixels.amax((1, 2)).tolist() == pytest.approx(case["channel_max"], abs=1e-5)


def test_an_image_in_memory_is_the_same(in_parity_folder):
    """And it is left as it is."""
    with Image.open("images/palette.png") as image:
        assert sha256(load_image(image)) == sha256(load_image("images/palette.png"))
        assert image.mode == "P"


def test_a_path_object_is_the_same(in_parity_folder):
    path = "images/street.jpg"
    assert sha256(load_image(Path(path))) == sha256(load_image(path))


def test_a_decomposed_name_is_found(tmp_path):
    """Names are opened as they are written, byte by byte."""
    for name in ("e\u0301.png", "é.png"):
        Image.new("RGB", (1, 1)).save(tmp_path / name)
        assert load_image(str(tmp_path / name)).size == (1, 1)
        (tmp_path / name).unlink()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats(tmp_path, format):
    Image.new("RGB", (3, 2), "white").save(tmp_path / "image", format)
    assert load_image(tmp_path / "image").size == (3, 2)


def test_a_photograph_with_a_second_picture(tmp_path):
    """Phones write JPEG files that hold several pictures (MPO): the first counts."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.jpg").getpixel((0, 0)) == (255, 255, 255)


def test_other_formats_are_refused(tmp_path):
    """A reader that is never needed is never run on a stranger's file."""
    Image.new("RGB", (3, 2)).save(tmp_path / "a.pcx", "PCX")
    with pytest.raises(DataError, match=r"a\.pcx: an image \(JPEG, .*none of these found"):
        load_image(tmp_path / "a.pcx")


def test_transparency_in_a_palette_is_no_warning(tmp_path):
    """Pillow warns of it, and a warning is not the user's business: alpha is dropped anyway."""
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    loaded = load_image(tmp_path / "a.png")
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(1, 2, 3), (4, 5, 6)]


def test_filters_of_warnings_are_restored(tmp_path):
    """Also after many threads that decode at once."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    before = list(warnings.filters)

    def read():
        for _ in range(20):
            load_image(tmp_path / "a.png")
            with pytest.raises(DataError):
                load_image(tmp_path / "bad.png")

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == list(warnings.filters)


def png(width, height, data=b""):
    """A PNG file of 8-bit grey with any size in its header."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def truncated(format):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an image file of 1 to 1,073,741,824 bytes expected, 0 found"),
        (b"<html>404</html>", "none of these found"),
        (b"\x89PNG\r\n\x1a\n", "found"),
        (b"\xff\xd8\xff\xe0", "found"),
        (b"P6 2 2 255\n\0", "found"),
        (b"GIF89a\1\0\0\0\0\0\0", "found"),
        (truncated("PNG"), "an image that can be read in full expected, "),
        (truncated("JPEG"), "an image that can be read in full expected, "),
        (truncated("TIFF"), "expected, "),
        (truncated("WEBP"), "found"),
        (png(0, 4), "found"),
        (png(1 << 31, 1 << 31), "found"),
        (png(13378, 13378), "exceeds limit of 178956970 pixels"),
        (png(4, 4, b"no deflate"), "an image that can be read in full expected, "),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_bad_files(tmp_path, content, found):
    """Each is a DataError that names the file, whatever Pillow raises or warns of."""
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert found in str(caught.value)


def test_every_cut_of_a_file_is_an_error_or_an_image(in_parity_folder, tmp_path):
    """No other exception than DataError leaves the reader."""
    for name in ("palette.png", "print_cmyk.jpg"):
        content = Path("images", name).read_bytes()
        for end in [*range(1, 200), *range(200, len(content), 997)]:
            (tmp_path / name).write_bytes(content[:end])
            with pytest.raises(DataError):
                load_image(tmp_path / name)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(
        DataError, match=r"none\.png': an image file expected, found none \(No such"
    ):
        load_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="an image file expected, a folder found"):
        load_image(tmp_path)
    with pytest.raises(DataError, match="an image file expected, a folder found"):
        load_image("")
    with pytest.raises(DataError, match="a device or pipe found"):
        load_image("/dev/zero")
    with pytest.raises(DataError, match="found none"):
        load_image("a\0.png")
    with pytest.raises(DataError, match="found none"):
        load_image("x" * 5000)


@pytest.mark.parametrize("address", ["http://localhost/a.png", "https://localhost/a.png"])
def test_nothing_is_fetched(address):
    with pytest.raises(DataError, match=f"{address}: .* Images are not fetched here: download it"):
        load_image(address)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(DataError, match="1,073,741,825 found"):
        load_image(path)


def test_a_bad_image_in_memory():
    with pytest.raises(DataError, match=r"an image given in memory: .* \(0 x 5 is not 1 to"):
        load_image(Image.new("RGB", (0, 5)))
