"""Pictures of every kind and fault in place of one of four, which a model is asked about.

A picture with the same pixels gives the same answer, a picture that cannot be shown fails alone,
and the answers about the other three are those of the clean input whatever happens to the first.
"""

import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from fuzz import damage
from fuzz.cases import Area, Box, Came, Case, Expect, Make, Step, as_nobody, incomplete, step

TASK = "okvqa_val"
RUN = ("run", TASK, "--model", "demo", "--data", "data", "--out", "out", "--allow-partial")
CPU = ("--device", "cpu")
VERIFY = ("data", "verify", TASK, "--data", "data")
WRITES = ("out", "out/*", "data/.qwen-vl-eval*")
LOSSLESS: tuple[tuple[str, dict[str, object]], ...] = (
    ("PNG", {}),
    ("PNG", {"optimize": True}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("PPM", {}),
    ("WEBP", {"lossless": True, "quality": 50}),
)
FOREIGN = (  # what stands in a picture's place after a failed download, or is of another format
    b"",
    b"<!DOCTYPE html><html><body>403 Forbidden</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    b"%PDF-1.4\n1 0 obj <<>> endobj\n%%EOF",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n/x 1 def showpage\n",
    b"PK\x03\x04" + bytes(60),
    b"8BPS\x00\x01" + bytes(80),
    b"\x00\x00\x01\x00\x01\x00\x01\x01" + bytes(60),
    b"\x00\x00\x00\x18ftypheic" + bytes(60),
    b"\xff\x4f\xff\x51" + bytes(90),
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    b"P6\n9999999999 9999999999\n255\n",
    b"BM" + b"\xff" * 52,
    b"\x00" * 4096,
    b"\n" * 10,
    "Bild".encode("utf-16"),
)


def four(box: Box) -> list[Path]:
    """OK-VQA's first four pictures with a question each; the pictures' paths."""
    box.copy("four/okvqa", "data/okvqa")
    box.link("four/coco", "data/coco")
    return sorted((box.here / "data" / "coco").rglob("*.jpg"))


def predictions(folder: Path) -> dict[str, dict[str, object]]:
    """Lines of a run's predictions, by sample."""
    lines = (folder / TASK / "predictions.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def sample_of(box: Box, picture: Path) -> str:
    """The sample that asks about a picture."""
    questions = json.loads((box.ground / "four/okvqa" / QUESTIONS).read_text("utf-8"))
    number = int(picture.stem.rpartition("_")[2])
    (found,) = [q["question_id"] for q in questions["questions"] if q["image_id"] == number]
    return str(found)


QUESTIONS = "OpenEnded_mscoco_val2014_questions.json"


def clean_texts(box: Box) -> dict[str, object]:
    place = box.control("clean") / "here/out"
    return {key: row["text"] for key, row in predictions(place).items()}


def others_same(box: Box, hurt: str, *, same: bool = False) -> Callable[[Came], str]:
    """All answers but one are those of the clean run; with `same` that one too."""
    clean = clean_texts(box)

    def check(came: Came) -> str:
        found = predictions(came.kept / "here" / "out")
        for key, text in clean.items():
            if (key != hurt or same) and found.get(key, {}).get("text") != text:
                return f"sample {key} came out as {found.get(key)}, not as {text!r}"
        return ""

    return check


def alone(box: Box, hurt: str, *says: str) -> Expect:
    """Exit code 3; the sample has no answer, and all others have theirs."""
    check = others_same(box, hurt)

    def failed(came: Came) -> str:
        row = predictions(came.kept / "here" / "out").get(hurt)
        if row is not None and not row.get("error"):
            return f"sample {hurt} was answered: {row}"
        return check(came)

    return Expect((3,), says, failed)


def left_out(box: Box, hurt: str) -> Expect:
    """Exit code 0 without the sample, which has no picture."""
    check = others_same(box, hurt)

    def without(came: Came) -> str:
        if hurt in predictions(came.kept / "here" / "out"):
            return f"sample {hurt} is in the predictions"
        return check(came)

    return Expect((0,), (), without)


def asked(*expect: Expect, **more: object) -> Step:
    return step((*RUN, *CPU), *expect, writes=WRITES, **more)


def choose(box: Box, rng: Random) -> tuple[Path, str, bytes]:
    """One of the four: its place, its sample, its bytes."""
    picture = rng.choice(four(box))
    return picture, sample_of(box, picture), picture.read_bytes()


def put(picture: Path, content: bytes) -> None:
    picture.unlink()
    picture.write_bytes(content)


def lossless(box: Box, rng: Random) -> Case:
    """The same pixels in another format, under the same name."""
    from PIL import Image

    picture, sample, content = choose(box, rng)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    form, options = rng.choice(LOSSLESS)
    what = f"{form} {options}"
    extra: dict[str, object] = {}
    turn = rng.choice(["plain", "alpha", "frames", "orientation", "text"])
    if turn == "alpha" and form in ("PNG", "TIFF"):
        image.putalpha(255)
    if turn == "frames" and form in ("PNG", "TIFF", "WEBP"):
        more = [Image.new("RGB", image.size, "red")]
        extra = {"save_all": True, "append_images": more}
    if turn == "orientation" and form in ("PNG", "WEBP"):  # in a TIFF Pillow itself applies it
        exif = Image.Exif()
        exif[0x0112] = 6
        extra = {"exif": exif}
    file = io.BytesIO()
    image.save(file, form, **options, **extra)
    put(picture, file.getvalue())
    expect = Expect((0,), (), others_same(box, sample, same=True))
    return Case(f"{picture.name}: {what}, {turn}", (asked(expect),))


def converted(box: Box, rng: Random) -> Case:
    """Another kind of pixels: shown, with what answer is not known."""
    from PIL import Image

    picture, sample, content = choose(box, rng)
    image = Image.open(io.BytesIO(content)).convert("RGB")
    mode, form = rng.choice(
        [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
         ("LA", "PNG"), ("I;16", "PNG"), ("YCbCr", "JPEG"), ("L", "JPEG"), ("F", "TIFF"),
         ("LAB", "TIFF"), ("I", "TIFF"), ("1", "TIFF"), ("PA", "PNG")]
    )  # fmt: skip
    if mode in ("LAB", "I;16", "PA", "F", "I"):
        image = Image.frombytes(mode, (8, 8), rng.randbytes(8 * 8 * 4)[: 64 * _bytes(mode)])
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    try:
        image.save(file, form)
    except (OSError, ValueError):
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
    put(picture, file.getvalue())
    expect = (Expect((0,), (), others_same(box, sample)), alone(box, sample))
    return Case(f"{picture.name}: {mode} in {form}", (asked(*expect),))


def _bytes(mode: str) -> int:
    return {"LAB": 3, "I;16": 2, "PA": 2, "F": 4, "I": 4}[mode]


def foreign(box: Box, rng: Random) -> Case:
    """No picture at all."""
    picture, sample, _ = choose(box, rng)
    content = rng.choice(FOREIGN)
    put(picture, content)
    steps = (asked(alone(box, sample, picture.name)), step(VERIFY, incomplete(picture.name)))
    return Case(f"{picture.name}: {content[:30]!r}", steps)


def cut(box: Box, rng: Random) -> Case:
    """A download that stopped: what decodes to less than the picture is none."""
    from PIL import Image

    picture, sample, content = choose(box, rng)
    form = rng.choice(["JPEG", "PNG", "BMP", "TIFF", "PPM"])
    if form != "JPEG":
        file = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("RGB").save(file, form)
        content = file.getvalue()
    end = rng.randrange(1, int(len(content) * 0.9))
    put(picture, content[:end])
    expect = [alone(box, sample, picture.name)]
    if form == "TIFF":  # its directory may stand before the end
        expect.append(Expect((0,), (), others_same(box, sample)))
    steps = (asked(*expect), step(VERIFY, incomplete()))
    return Case(f"{picture.name}: {form}, cut after {end} of {len(content)} bytes", steps)


def flipped(box: Box, rng: Random) -> Case:
    """Bits that a disk changed: shown or refused, and the others as they were."""
    from PIL import Image

    picture, sample, content = choose(box, rng)
    form = rng.choice(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(file, form)
    make = rng.choice([damage.flipped, damage.flipped, damage.spliced])
    head = rng.random() < 0.5
    part = file.getvalue()
    cut_at = min(200, len(part)) if head else len(part)
    what, changed, _ = make(part[:cut_at], rng)
    put(picture, changed + part[cut_at:])
    expect = (Expect((0,), (), others_same(box, sample)), alone(box, sample, picture.name))
    return Case(f"{picture.name}: {form}, {what}", (asked(*expect),))


def _chunk(name: bytes, content: bytes) -> bytes:
    checked = name + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(
    width: int, height: int, rows: bytes, *chunks: bytes, depth: int = 8, kind: int = 0
) -> bytes:
    """A PNG of these sides, whatever its rows hold."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + _chunk(b"IEND", b"")


def _sides() -> Sequence[tuple[str, Callable[[], bytes], bool]]:
    """(what, content, whether it must fail): sides that no model can be shown, and some it can."""
    mega = 1 << 20
    return (
        ("178956970 x 1", lambda: png(178_956_970, 1, bytes(1 + 178_956_970)), True),
        ("1 x 20 million", lambda: png(1, 20 * mega, bytes(2 * 20 * mega)), True),
        ("65535 x 65535 by its header", lambda: png(65535, 65535, bytes(100)), True),
        ("2 billion x 2 billion", lambda: png(2**31 - 1, 2**31 - 1, b""), True),
        ("0 x 0", lambda: png(0, 0, b""), True),
        ("5 x 0", lambda: png(5, 0, b""), True),
        ("40000 x 40000, one bit", lambda: png(40000, 40000, bytes(5001 * 400), depth=1), True),
        ("rows are missing", lambda: png(100, 100, bytes(101 * 50)), False),
        ("1 x 1", lambda: png(1, 1, bytes(2)), False),
        ("3000 x 2", lambda: png(3000, 2, bytes(2 * 3001)), False),
        ("2 x 3000", lambda: png(2, 3000, bytes(3000 * 3)), False),
        ("6000 x 6000, one bit", lambda: png(6000, 6000, bytes(751 * 6000), depth=1), False),
    )  # fmt: skip


def sides(box: Box, rng: Random) -> Case:
    """Pictures with huge, no or odd sides."""
    picture, sample, _ = choose(box, rng)
    what, make, fails = rng.choice(_sides())
    put(picture, make())
    shown = Expect((0,), (), others_same(box, sample))
    failed = alone(box, sample, picture.name)
    expect = (failed,) if fails else (shown,)
    return Case(f"{picture.name}: {what}", (asked(*expect), step(VERIFY, incomplete())))


def chunks(box: Box, rng: Random) -> Case:
    """Texts and profiles in a picture that unpack to much more than it."""
    picture, sample, _ = choose(box, rng)
    bomb = zlib.compress(bytes(100 << 20), 9)
    name, content = rng.choice(
        [
            (b"zTXt", b"Comment\x00\x00" + bomb),
            (b"iCCP", b"icc\x00\x00" + bomb),
            (b"iTXt", b"Comment\x00\x01\x00\x00\x00" + bomb),
            (b"tEXt", b"Comment\x00" + bytes(1 << 20)),
            (b"eXIf", b"MM\x00*" + b"\xff" * 4000),
            (b"gAMA", b""),
        ]
    )
    put(picture, png(40, 40, bytes(41 * 40), *[_chunk(name, content)] * rng.choice([1, 3])))
    expect = (Expect((0,), (), others_same(box, sample)), alone(box, sample, picture.name))
    return Case(
        f"{picture.name}: a chunk {name.decode()} of {len(content)} bytes", (asked(*expect),)
    )


def no_file(box: Box, rng: Random) -> Case:
    """Something lies in a picture's place that is no file."""
    picture, sample, _ = choose(box, rng)
    what = damage.replace(picture, rng)
    expect = (left_out(box, sample), alone(box, sample))
    steps = (asked(*expect), step(VERIFY, incomplete(picture.name)))
    return Case(what, steps)


def unreadable(box: Box, rng: Random) -> Case:
    """A picture that another user may not read."""
    uid = as_nobody()
    picture, _, content = choose(box, rng)
    put(picture, content)
    picture.chmod(0)
    step_ = step(VERIFY, incomplete(picture.name), uid=uid)
    return Case(f"{picture.name} may not be read", (step_,))


def every_picture(box: Box, rng: Random) -> Case:
    """All four are of one kind of fault: nothing is answered, and nothing breaks."""
    content = rng.choice(FOREIGN)
    for picture in four(box):
        put(picture, content)

    def none(came: Came) -> str:
        rows = predictions(came.kept / "here" / "out").values()
        return "" if all(row.get("error") for row in rows) else "something was answered"

    return Case(f"all: {content[:30]!r}", (asked(Expect((2, 3), (), none), Expect((2,))),))


def _clean(box: Box, _: Random) -> Case:
    four(box)
    return Case("nothing was done to it", (asked(Expect((0,))),))


MAKERS: tuple[Make, ...] = (
    lossless, foreign, cut, flipped, no_file, flipped, converted, sides, lossless, cut, flipped,
    chunks, foreign, unreadable, every_picture,
)  # fmt: skip
AREA = Area("pictures", MAKERS, count=330, torch=True, controls={"clean": _clean})
