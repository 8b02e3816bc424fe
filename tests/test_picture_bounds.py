"""Pictures of hostile sizes: each fails its own samples, in bounded memory, and is named."""

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from small import command, make_checkpoint, make_data

from eval.data.pictures import picture_fault, quiet_pillow
from eval.data.sizes import picture_size
from eval.errors import DataError
from eval.report.browser.pictures import PagePictures
from eval.runtime.image import load_pixels
from eval.storage.picture import NO_MEMORY, PIXELS, SIDE, size_fault

TASK = "okvqa_val"
PLACE = "coco/val2014/COCO_val2014_000000000001.jpg"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *more):
    """A black PNG of one bit a pixel, some kilobytes however large it is."""
    pack = zlib.compressobj(9)
    rows = [pack.compress(bytes((width + 7) // 8 + 1)) for _ in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IDAT", b"".join([*rows, pack.flush()]))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *more, data, chunk(b"IEND", b"")]
    )


def tiff(width, height, **tags):
    """A grey TIFF in one strip, which is missing where the picture is large."""
    known = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: 200,
        277: 1,
        278: height,
        279: 64,
    }
    known |= {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, known[tag]) for tag in sorted(known))
    head = b"II*\0" + struct.pack("<IH", 8, len(known)) + entries + bytes(4)
    return head.ljust(200, b"\0") + bytes(64)


def bmp(width, height):
    sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + sizes


def gif(screen, frame):
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00;"


def saved(size, **how):
    content = io.BytesIO()
    Image.new("L", size).save(content, **how)
    return content.getvalue()


def frames():
    """An animation, of which the first frame counts."""
    others = [Image.new("P", (40, 40), colour) for colour in range(1, 200)]
    content = io.BytesIO()
    Image.new("P", (40, 40)).save(content, "GIF", save_all=True, append_images=others)
    return content.getvalue()


PACKED = zlib.compress(bytes(100_000_000), 9)
GOOD = {
    "the longest side": png(SIDE, 2),
    "the longest other side": png(2, SIDE),
    "many frames": frames(),
    "large EXIF": png(8, 8, chunk(b"eXIf", b"MM\0*\0\0\0\x08" + bytes(5_000_000))),
    "large ICC profile": saved((8, 8), format="JPEG", icc_profile=bytes(5_000_000)),
    "EXIF without end": saved((8, 8), format="JPEG", exif=b"Exif\0\0MM\0*" + bytes(60_000)),
    "TIFF that names itself as next": tiff(8, 8)[:-64] + struct.pack("<I", 8) + bytes(60),
}
BAD = {
    "one row": png(PIXELS, 1),
    "a side too long": png(SIDE + 1, 1),
    "the other side too long": png(1, SIDE + 1),
    "packed text": png(8, 8, chunk(b"zTXt", b"key\0\0" + PACKED)),
    "packed international text": png(8, 8, chunk(b"iTXt", b"key\0\1\0\0\0" + PACKED)),
    "much packed text": png(
        8, 8, *80 * [chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))]
    ),
    "packed profile": png(8, 8, chunk(b"iCCP", b"key\0\0" + PACKED)),
    "a screen of four billion pixels": gif((65535, 65535), (1, 1)),
    "a frame larger than its screen": gif((1, 1), (65535, 65535)),
    "a frame without pixels": gif((6000, 6000), (6000, 6000)),
    "TIFF with one row": tiff(PIXELS, 1),
    "TIFF with a strip of two billion rows": tiff(8, 8, t278=2**31 - 1, t259=5),
    "TIFF with a count of four billion": tiff(8, 8).replace(
        struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 273, 4, 2**32 - 1)
    ),
    "PPM in words": b"P3 6000 6000 255\n" + b"1 " * 1000,
    "PPM without pixels": b"P6 6000 6000 255\n",
    "PPM of one row": b"P4 178956970 1\n",
    "BMP without pixels": bmp(6000, 6000),
    "BMP of negative size": bmp(-(2**31), -(2**31)),
    "half a WebP": saved((3000, 2000), format="WEBP", quality=1)[:-40],
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_odd_pictures_within_the_bounds_are_shown(tmp_path, content):
    """By every reader."""
    file = tmp_path / "picture"
    file.write_bytes(content)
    assert load_pixels(file, 56).shape == (3, 56, 56)
    with quiet_pillow():
        assert picture_fault(file) is None
    assert size_fault(*picture_size(file)) is None


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bombs_are_data_errors_that_name_the_file(tmp_path, content):
    """In the engine; where data are verified they have a fault."""
    file = tmp_path / "picture"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_pixels(file, 56)
    assert str(caught.value).startswith(f"{file}: ")
    with quiet_pillow():
        assert picture_fault(file)


@pytest.mark.case("hostile/05")
@pytest.mark.parametrize(
    ("size", "backend"), [((PIXELS, 1), "shared"), ((1, SIDE + 1), "plain")], ids=["wide", "tall"]
)
def test_a_picture_with_a_huge_side_fails_its_own_samples(tmp_path, size, backend):
    """All others are answered, the run ends with exit code 3, and `data verify` names the file."""
    data = make_data(tmp_path / "data")
    (data / PLACE).write_bytes(png(*size))
    done = command(
        *("run", TASK, "--model", make_checkpoint(tmp_path / "model"), "--data", data),
        *("--out", tmp_path / "run", "--allow-partial", "--device", "cpu", "--backend", backend),
    )
    assert done.returncode == 3
    lines = (tmp_path / "run" / TASK / "predictions.jsonl").read_text().splitlines()
    errors = {row["id"]: row.get("error", "") for row in map(json.loads, lines)}
    assert {"15", "45"} == {name for name, error in errors.items() if error}
    assert PLACE in errors["15"]
    assert "a side may have 65,535 pixels at most" in errors["15"]
    verified = command("data", "verify", TASK, "--data", data)
    assert f"{PLACE} ({size[0]} x {size[1]}: a side may have" in verified.stdout + verified.stderr


def test_the_sample_browser_shows_a_page_for_a_bomb(tmp_path):
    """A picture that says it has 65535 x 65535 pixels is one whose orientation is not known."""
    content = bytearray(saved((8, 8), format="JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"))
    sizes = content.index(b"\xff\xc0") + 5
    content[sizes : sizes + 4] = b"\xff" * 4
    (tmp_path / "bomb.jpg").write_bytes(content)
    missing = []
    assert PagePictures(tmp_path, None, missing.append).turned("bomb.jpg") == 1
    assert missing == []


LIMITED = """
import resource, sys
from pathlib import Path
from eval.api import Generate, Request
from eval.data.pictures import picture_fault
from eval.engine.plain import PlainEngine
from eval.engine.shared import SharedEngine
from eval.runtime import QwenVL
model, root = QwenVL.from_pretrained(sys.argv[1]), Path(sys.argv[2])
requests = [
    Request(f"t/{n}", f"<img>{name}</img>What?", Generate(2))
    for n, name in enumerate(["good.png", "large.png", "good.png", "large.png"])
]
list(SharedEngine(model, root).answer(requests[:1]))  # threads and libraries are loaded
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
for engine in (SharedEngine(model, root), PlainEngine(model, root)):
    for answer in sorted(engine.answer(requests), key=lambda answer: answer.id):
        print(answer.id, answer.error)
print(picture_fault(root / "large.png"))
"""


def test_a_picture_that_memory_does_not_suffice_for_fails_its_own_samples(tmp_path):
    """A process that may take 400 MB more; the picture, within the bounds, needs 700 MB."""
    (tmp_path / "large.png").write_bytes(png(60_000, 2_900))
    (tmp_path / "good.png").write_bytes(png(9, 9))
    model = make_checkpoint(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )
    failed = f"{tmp_path / 'large.png'}: {NO_MEMORY}. Make it smaller"
    expected = ["t/0 ", f"t/1 {failed}", "t/2 ", f"t/3 {failed}"]
    assert [*expected, *expected, NO_MEMORY] == done.stdout.splitlines(), done.stderr
