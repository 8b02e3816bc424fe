"""Archives and servers that `data prepare` meets: hostile, damaged, or out of order.

The task is a package of its own, whose archive lies on a server on loopback. Whatever comes, files
appear only in their places below the data folder, whole or not at all.
"""

import gzip
import io
import json
import random
import stat
import struct
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.cases import Area, Box, Came, Case, Expect, Make, step, works
from fuzz.damage import BROKEN
from fuzz.serving import Asked, Piece, answer

PLUGIN = """
import os
from eval import Generate, Layout, Sample, Source, Task
from eval.data.declare import Archive, Download, Expect, Pictures
from eval.data import read_json

URL = os.environ["TOY_URL"]
KEEP = r"img/[0-9]\\.png"


def read(root):
    for image in read_json(root / "toy/q.json").texts("images"):
        yield Sample(image, {"image": f"toy/{image}", "question": "?"}, reference="a")


def urls(root):
    yield f"{URL}/1.png", "toy/img/1.png"
    yield f"{URL}/2.png", "toy/img/2.png"


ARCHIVE = Archive(f"{URL}/{os.environ['TOY_ARCHIVE']}", "toy", KEEP)
STEPS = (ARCHIVE,) if os.environ["TOY_ARCHIVE"] != "none" else (Pictures(urls),)
TASKS = (
    Task(
        name="toy_val",
        size=2,
        layouts=(Layout((Source("toy/q.json"),), read),),
        prompt="<img>{image}</img>{question}",
        decode=Generate(3),
        metrics={"zero": lambda _text, _reference: 0.0},
        expect=Expect(images=2),
        steps=(Download(f"{URL}/q.json", "toy/q.json"), *STEPS),
    ),
)
"""
QUESTIONS = b'{"images": ["img/1.png", "img/2.png"]}'
PREPARE = ("data", "prepare", "toy_val", "--data", "data")
WRITES = ("data", "data/*", "plugin/__pycache__", "plugin/__pycache__/*")
ALLOWED = {"qwen-vl-eval.lock.json", "toy", "toy/q.json", "toy/img", "toy/img/1.png",
           "toy/img/2.png", "archives"}  # fmt: skip


def install(box: Box) -> Path:
    """The package, as a stranger would install it; its folder goes on the path."""
    plugin = box.here / "plugin"
    about = plugin / "toy-1.0.dist-info"
    about.mkdir(parents=True)
    (plugin / "toy.py").write_text(textwrap.dedent(PLUGIN))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[eval.tasks]\ntoy = toy\n")
    return plugin


def picture(number: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (number * 5, 8), (number * 90, 7, 7)).save(file, "PNG")
    return file.getvalue()


MEMBERS = {f"x/img/{number}.png": picture for number in (1, 2)}


def members() -> dict[str, bytes]:
    return {"x/img/1.png": picture(1), "x/img/2.png": picture(2)}


def zipped(files: Mapping[Any, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        for name, content in files.items():
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = compression
            packed.writestr(info, content)
    return file.getvalue()


def tarred(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for info, content in entries:
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            packed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _tar_of(files: Mapping[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(name), content) for name, content in files.items()]


def _whole(box: Box) -> Callable[[], str]:
    """Nothing lies below the data folder but what belongs there, and pictures are whole."""

    def check() -> str:
        data = box.here / "data"
        found = {path.relative_to(data).as_posix() for path in data.rglob("*")}
        extra = {
            name
            for name in found - ALLOWED
            if not name.startswith("archives/") and not name.rpartition("/")[2].startswith(".")
            and not name.endswith((".part", ".part.json"))
        }  # fmt: skip
        if extra:
            return f"{sorted(extra)} lie in the data folder"
        for path in (data / "toy").rglob("*"):
            if path.is_symlink():
                return f"{path.name} is a link"
        return ""

    return check


def _both(box: Box) -> Callable[[Came], str]:
    """Both pictures came as they were sent."""

    def check(_: Came) -> str:
        for number in (1, 2):
            path = box.here / "data/toy/img" / f"{number}.png"
            if not path.is_file() or path.read_bytes() != picture(number):
                return f"{path.name} is not the picture that was sent"
        return ""

    return check


def prepared(
    box: Box, name: str, pages: Callable[[Asked], list[Piece]], *expect: Expect, what: str,
    wall_s: float = 0.0,
) -> Case:  # fmt: skip
    """A case that prepares the task from these pages."""
    plugin = install(box)
    url = box.serve(pages)
    env = {"TOY_URL": url, "TOY_ARCHIVE": name, "PYTHONPATH": str(plugin),
           "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    one = step(PREPARE, *expect, env=env, writes=WRITES, wall_s=wall_s)
    return Case(what, (one,), _whole(box))


def pages(name: str, content: bytes) -> Callable[[Asked], list[Piece]]:
    """Questions and an archive, or 404."""

    def respond(asked: Asked) -> list[Piece]:
        path = asked.path.lstrip("/")
        if path == "q.json":
            return answer(QUESTIONS)
        return answer(content) if path == name else answer(b"", 404)

    return respond


def failed(name: str) -> Expect:
    """Exit code 3 and a line that names the archive, or the member."""
    return Expect((3,), (("failed:", "incomplete"), (name, "img/", "toy_val")))


def complete(box: Box) -> Expect:
    return works(_both(box))


OUT = ("../x/img/1.png", "/tmp/img/1.png", "x/../../img/1.png", "..\\img\\1.png", "\\x\\img\\1.png",
       "x/img/../../../img/1.png")  # fmt: skip


def _link(name: str, target: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    info.comment = target.encode()
    return info


def zip_names(box: Box, rng: Random) -> Case:
    """Names that lead out, links, devices, two members of one name."""
    good = members()
    turn = rng.choice(["out", "link", "device", "twice", "long", "nul", "folder", "extra", "case"])
    fails = True
    if turn == "out":
        bad = rng.choice(OUT)
        content, what = zipped({**good, bad: b"bad"}), bad
    elif turn == "link":
        target = rng.choice(["../../../home", "/etc/passwd", "2.png"])
        files: dict[Any, bytes] = {_link("x/img/1.png", target): target.encode(),
                                   "x/img/2.png": good["x/img/2.png"]}  # fmt: skip
        content, what = zipped(files), f"a link to {target}"
    elif turn == "device":
        info = zipfile.ZipInfo("x/img/1.png")
        info.external_attr = (rng.choice([stat.S_IFCHR, stat.S_IFIFO]) | 0o666) << 16
        content, what = zipped({info: b"", "x/img/2.png": good["x/img/2.png"]}), "a device"
    elif turn == "twice":
        content, what = zipped({**good, "y/img/1.png": picture(2)}), "two of one name"
    else:
        fails = False
        extra = {
            "long": "x/" + "n" * 60_000,
            "nul": "x/a\x00b",
            "folder": "x/img/1.png/",
            "extra": f"x/{'deep/' * 200}readme.txt",
            "case": "X/IMG/1.PNG",
        }[turn]
        content, what = zipped({**good, extra: b""}), f"a member {extra[:30]!r}"
    expect = [failed("a.zip")] if fails else [complete(box), failed("a.zip")]
    return prepared(box, "a.zip", pages("a.zip", content), *expect, what=f"zip: {what}")


def zip_bytes(box: Box, rng: Random) -> Case:
    """An archive that was damaged or cut, or is none."""
    what, content, kind = rng.choice(damage.TO_BYTES)(zipped(members()), rng)
    expect = [failed("a.zip")]
    if kind != BROKEN:
        expect.append(complete(box))
    return prepared(box, "a.zip", pages("a.zip", content), *expect, what=f"zip: {what}")


def zip_sizes(box: Box, rng: Random) -> Case:
    """Bombs, members that say another size, kinds of compression, encryption."""
    good = members()
    turn = rng.choice(["bomb", "bomb elsewhere", "many", "size", "stored", "bz2", "lzma",
    "encrypted",
                       "kind", "crc", "count"])  # fmt: skip
    content = zipped(good)
    fails = True
    if turn == "bomb":
        content = zipped({**good, "x/img/1.png": bytes(300 << 20)})
    elif turn == "bomb elsewhere":
        content, fails = zipped({**good, "x/readme": bytes(300 << 20)}), False
    elif turn == "many":
        content, fails = zipped({**good, **{f"x/{n}": b"" for n in range(20_000)}}), False
    elif turn in ("stored", "bz2", "lzma"):
        kinds = {"stored": 0, "bz2": 12, "lzma": 14}
        content, fails = zipped(good, compression=kinds[turn]), False
    else:
        changed = bytearray(content)
        central = content.rindex(b"PK\x01\x02")
        places = {
            "size": (central + 24, struct.pack("<I", 0xFFFFFFF0)),
            "encrypted": (central + 8, b"\x01\x00"),
            "kind": (central + 10, b"\x63\x00"),
            "crc": (central + 16, b"\xde\xad\xbe\xef"),
            "count": (len(content) - 12, b"\xff\xff"),
        }
        place, new = places[turn]
        changed[place : place + len(new)] = new
        content = bytes(changed)
        if turn == "count":
            fails = False
    expect = [failed("a.zip")] if fails else [complete(box), failed("a.zip")]
    return prepared(box, "a.zip", pages("a.zip", content), *expect, what=f"zip: {turn}")


def tar_members(box: Box, rng: Random) -> Case:
    """Links, devices and names that lead out, in a tar."""
    entries = _tar_of(members())
    name = rng.choice(["x/img/1.png", "x/other"])
    info = tarfile.TarInfo(name)
    turn = rng.choice(["symlink", "hard link", "device", "pipe", "out", "long", "sparse", "twice",
                       "folder", "bomb"])  # fmt: skip
    fails = name == "x/img/1.png"
    body = b""
    if turn == "symlink":
        info.type, info.linkname = tarfile.SYMTYPE, rng.choice(["../../../home", "/etc/passwd"])
    elif turn == "hard link":
        info.type, info.linkname = tarfile.LNKTYPE, rng.choice(["/etc/passwd", "x/img/2.png"])
    elif turn in ("device", "pipe"):
        info.type = tarfile.CHRTYPE if turn == "device" else tarfile.FIFOTYPE
    elif turn == "out":
        info.name, body, fails = rng.choice(OUT), b"bad", True
    elif turn == "long":
        info.name, fails = "x/" + "n" * 70_000, False
    elif turn == "sparse":
        info.type = tarfile.GNUTYPE_SPARSE
    elif turn == "folder":
        info.type = tarfile.DIRTYPE
        fails = False
    elif turn == "bomb":
        body = bytes(300 << 20)
        fails = True
    else:
        info.name, body, fails = "y/img/2.png", picture(1), True
    if fails and info.name == "x/img/1.png":
        entries = entries[1:]
    content = tarred([(info, body), *entries])
    expect = [failed("a.tar.gz")] if fails else [complete(box), failed("a.tar.gz")]
    what = f"tar: {turn} {info.name[:30]}"
    return prepared(box, "a.tar.gz", pages("a.tar.gz", content), *expect, what=what)


def tar_bytes(box: Box, rng: Random) -> Case:
    whole = tarred(_tar_of(members()))
    if rng.random() < 0.4:  # inside of the compression
        what, inner, kind = rng.choice((damage.flipped, damage.spliced))(
            gzip.decompress(whole), rng
        )
        content = gzip.compress(inner, mtime=0)
    else:
        what, content, kind = rng.choice(damage.TO_BYTES)(whole, rng)
    expect = [failed("a.tar.gz")]
    if kind != BROKEN or "cut" in what or "compressed" in what:
        expect.append(complete(box))
    if kind != BROKEN:
        expect.append(works())  # a picture's own bytes: a tar has no check sum of them
    return prepared(box, "a.tar.gz", pages("a.tar.gz", content), *expect, what=f"tar: {what}")


def server(box: Box, rng: Random) -> Case:
    """A server that sends something else, breaks off, or sends others elsewhere."""
    content = zipped(members())
    turns: Mapping[str, tuple[Callable[[Asked], list[Piece]], bool]] = {
        "404": (lambda _: answer(b"", 404), True),
        "403": (lambda _: answer(b"no", 403, "text/html"), True),
        "204": (lambda _: answer(b"", 204), True),
        "a page": (lambda _: answer(b"<html>sign in</html>", 200, "text/html"), True),
        "compressed": (lambda _: answer(gzip.compress(content), Content_Encoding="gzip"), False),
        "compressed bomb": (
            lambda _: answer(gzip.compress(bytes(100 << 20)), Content_Encoding="gzip"), True
        ),
        "broken compression": (lambda _: answer(b"\x1f\x8bxx", Content_Encoding="gzip"), True),
        "to itself": (lambda asked: answer(b"", 302, Location=asked.path), True),
        "to a file": (lambda _: answer(b"", 302, Location="file:///etc/passwd"), True),
        "elsewhere": (
            lambda asked: answer(content) if "?" in asked.path
            else answer(b"", 302, Location=f"{asked.path}?again"), False
        ),
        "no length": (
            lambda _: [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", content], False
        ),
        "in pieces": (
            lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                       b"Connection: close\r\n\r\n",
                       *(b"%x\r\n%s\r\n" % (len(part), part)
                         for part in (content[:100], content[100:])), b"0\r\n\r\n"], False
        ),
        "once more": (
            lambda asked: answer(content) if asked.number > 2 else answer(b"", 503), False
        ),
        "breaks off once": (
            lambda asked: answer(content) if asked.number > 1
            else [answer(content)[0][:-100]], False  # type: ignore[index]
        ),
        "a huge length": (
            lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n"], True
        ),
        "a negative length": (
            lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\nConnection: close\r\n\r\n",
                       content], False
        ),
    }  # fmt: skip
    turn = rng.choice(list(turns))
    respond, fails = turns[turn]

    def pages_(asked: Asked) -> list[Piece]:
        return answer(QUESTIONS) if asked.path == "/q.json" else respond(asked)

    expect = [failed("a.zip")] if fails else [complete(box), failed("a.zip")]
    return prepared(box, "a.zip", pages_, *expect, what=f"server: {turn}", wall_s=240)


def questions(box: Box, rng: Random) -> Case:
    """The file that names the pictures is damaged, and is fetched as it is."""
    what, content, kind = rng.choice(damage.TO_JSON)(QUESTIONS, rng)

    def respond(asked: Asked) -> list[Piece]:
        if asked.path == "/q.json":
            return answer(content)
        return answer(zipped(members()))

    expect = [Expect((3,), (("q.json", "toy_val"),)), complete(box)]
    if kind == BROKEN:
        expect = expect[:1]
    return prepared(box, "a.zip", respond, *expect, what=f"q.json: {what}")


def single_pictures(box: Box, rng: Random) -> Case:
    """Pictures that are fetched one by one, of which one is none."""
    bad = rng.choice([b"", b"<html>", picture(1)[:40], b"\x00" * 100, bytes(10)])

    def respond(asked: Asked) -> list[Piece]:
        if asked.path == "/q.json":
            return answer(QUESTIONS)
        return answer(picture(2) if asked.path == "/2.png" else bad)

    expect = Expect((3,), (("1.png", "toy_val"),))
    return prepared(box, "none", respond, expect, what=f"a picture: {bad[:20]!r}")


def lock_file(box: Box, rng: Random) -> Case:
    """The file of pinned digests is damaged or no file: named, and nothing is fetched."""
    lock = {"files": {}, "archives": {}, "mirrors": {}, "version": 1}
    what, content, _ = rng.choice(damage.TO_JSON)(json.dumps(lock).encode(), rng)
    path = box.write("data/qwen-vl-eval.lock.json", content)
    if rng.random() < 0.4:
        what = damage.replace(path, rng)
    if "nothing" in what or "nowhere" in what:
        what, _ = "random", path.unlink(missing_ok=True)
        path.write_bytes(random.Random(1).randbytes(50))
    expect = [Expect((2,), ("qwen-vl-eval.lock.json",))]
    if (
        "byte order" in what
        or "escapes" in what
        or "another order" in what
        or "indented" in what
        or ("flipped" in what or ("bytes" in what and "twice" in what) or "without bytes" in what)
    ):
        expect += [complete(box), Expect((3,))]
    return prepared(
        box, "a.zip", pages("a.zip", zipped(members())), *expect, what=f"lock file: {what}"
    )


def _clean(name: str, content: Callable[[], bytes]) -> Make:
    def make(box: Box, _: Random) -> Case:
        return prepared(box, name, pages(name, content()), complete(box), what="a good archive")

    return make


MAKERS: tuple[Make, ...] = (
    zip_bytes, zip_names, tar_bytes, tar_members, server, zip_sizes, questions, zip_bytes,
    tar_members, zip_names, single_pictures, tar_bytes, lock_file, server,
)  # fmt: skip
AREA = Area(
    "archives",
    MAKERS,
    count=260,
    waits=True,
    controls={
        "zip": _clean("a.zip", lambda: zipped(members())),
        "tar": _clean("a.tar.gz", lambda: tarred(_tar_of(members()))),
    },
)
