"""Paths that cannot be what a command needs, and places that it cannot or must not write to."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from fuzz import damage
from fuzz.arguments import BASE, DEEP, JUDGE, LONG, ground
from fuzz.cases import (
    Area,
    Box,
    Case,
    Expect,
    Make,
    Skip,
    as_nobody,
    incomplete,
    refused,
    step,
    works,
)

PATHS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    # what -> command with {} where a folder or file must be, whether the path names a folder
    "report": (("report", "{}"), True),
    "report, second": (("report", "run", "{}"), True),
    "compare": (("compare", "{}", "other", "--gate"), True),
    "candidate": (("compare", "run", "{}", "--gate"), True),
    "browse": (("browse", "{}", "--out", "pages"), True),
    "browse --data": (("browse", "run", "--out", "pages", "--data", "{}"), True),
    "leaderboard": (("leaderboard", "{}", "--out", "site"), True),
    "plot": (("plot", "{}", "--out", "plots"), True),
    "score": (("score", "{}"), True),
    "score --data": (("score", "run", "--data", "{}"), True),
    "score --predictions": (
        ("score", "--task", "okvqa_val", "--data", "data", "--predictions", "{}"), False
    ),
    "submit": (("submit", "docvqa_test", "{}"), True),
    "judge": (("judge", "{}", *JUDGE[2:], "--base-url", BASE), True),
    "judge --judge-prompt": ((*JUDGE, "--base-url", BASE, "--judge-prompt", "{}"), False),
    "judge --config": ((*JUDGE, "--config", "{}"), False),
    "judge --data": ((*JUDGE, "--base-url", BASE, "--data", "{}"), True),
    "card": (("card", "{}", "--dry-run", "--data", "data"), False),
    "card --data": (("card", "c.toml", "--dry-run", "--data", "{}"), True),
    "run --data": (("run", "okvqa_val", "--model", "ck", "--out", "out", "--data", "{}"), True),
    "run --config": (("run", "--data", "data", "--out", "out", "--config", "{}"), False),
    "data list": (("data", "list", "--data", "{}"), True),
    "data verify": (("data", "verify", "okvqa_val", "--data", "{}"), True),
}  # fmt: skip


def _socket(path: Path) -> str:
    """Bound by a short name: that of a socket may not be long."""
    with socket.socket(socket.AF_UNIX) as made:
        at = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{at}/{path.name}")
        os.close(at)
    return "a socket"


def _wrong_path(box: Box, rng: Random, folder: bool) -> tuple[str, str]:
    """(what, path): a path at which neither a run nor a file to be read is."""
    plain = ["", LONG, DEEP, "nowhere", "nowhere/below", "p.json/below", " ", "\n", "~", "-x",
             "run/../nowhere", "\udcff\udcfe", "a\x1b[31mb", "Ω" * 200, "/proc/self/nothing",
             "$HOME", "*", "http://127.0.0.1/x", "loop/x", "\u202egnp", "nowhere\\x",
             "con:"]  # fmt: skip
    made: list[Callable[[Path], str]] = [
        damage.fifo, damage.device, damage.null_device, damage.loop, damage.dangling, _socket,
        damage.sparse,
    ]  # fmt: skip
    if rng.random() < 0.6:
        path = rng.choice(plain)
        if path == "loop/x":
            (box.here / "loop").symlink_to("loop")
        return f"{path[:40]!r}", path
    made.append(_text if folder else damage.folder)
    return rng.choice(made)(box.here / "it"), "it"


def _text(path: Path) -> str:
    path.write_text("some words\n")
    return "a text"


def wrong_path(box: Box, rng: Random) -> Case:
    """What cannot be a run, a folder of data, or a file of answers."""
    ground(box)
    box.write("c.toml", 'model = "Qwen/Qwen-VL"\ntasks = ["okvqa_val"]\npartial = true\n')
    name = rng.choice(list(PATHS))
    command, folder = PATHS[name]
    what, path = _wrong_path(box, rng, folder)
    expect = [refused()]
    if name in ("data verify",):
        expect.append(incomplete())
    argv = [part.replace("{}", path) if part == "{}" else part for part in command]
    if path.startswith("-"):
        argv = [*argv, "--help"][:0] or argv
    return Case(f"{name}: {what}", (step(argv, *expect),))


def locked(box: Box, rng: Random) -> Case:
    """A path below a folder that another user may not enter."""
    uid = as_nobody()
    ground(box)
    (box.here / "locked" / "x").mkdir(parents=True)
    name = rng.choice(list(PATHS))
    command, _ = PATHS[name]
    box.write("c.toml", 'model = "Qwen/Qwen-VL"\ntasks = ["okvqa_val"]\npartial = true\n')
    argv = [part.replace("{}", "locked/x") for part in command]
    (box.here / "locked").chmod(0)
    expect = [refused(("locked", "okvqa_val"))]
    if name == "data verify":
        expect.append(incomplete())
    return Case(f"{name}: below a folder that may not be entered", (step(argv, *expect, uid=uid),))


# Outputs

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "report --output": ("report", "run", "--format", "md", "--output"),
    "compare --json": ("compare", "run", "other", "--json"),
    "compare --junit": ("compare", "run", "other", "--junit"),
    "compare --markdown": ("compare", "run", "other", "--markdown"),
    "submit --file": ("submit", "docvqa_test", "run", "--file"),
}
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "browse --out": ("browse", "run", "--out"),
    "leaderboard --out": ("leaderboard", "run", "--out"),
    "plot --out": ("plot", "run", "--out"),
}


def output(box: Box, rng: Random) -> Case:
    """Where a command writes: a file is replaced, a link followed, a device written, or refused."""
    ground(box)
    name = rng.choice(list(OUTPUTS))
    turn = rng.choice(["new", "file", "link", "null", "fifo", "folder", "loop", "dangling", "long",
                       "deep", "empty", "below a file", "device", "nowhere", "stdout"])  # fmt: skip
    place, path = "o.json", box.here / "o.json"
    expect: list[Expect] = [refused()]
    writes: tuple[str, ...] = ()
    check: Callable[[], str] | None = None
    if turn in ("new", "file", "link", "dangling"):
        writes, expect = ("o.json",), [works()]
        target = path
        if turn == "file":
            path.write_text("old")
        if turn == "link":
            target = box.write("target.json", "old")
            path.symlink_to("target.json")
            writes = ("target.json",)
        if turn == "dangling":
            target = box.here / "target.json"
            path.symlink_to("target.json")
            writes, expect = ("target.json", "o.json"), [works(), refused()]

        def check() -> str:
            if turn == "dangling":
                return ""
            return "" if target.read_bytes() not in (b"", b"old") else "nothing was written"

    elif turn == "null":
        path.symlink_to("/dev/null")
        expect = [works(), refused()]
    elif turn == "stdout":
        place = "/dev/stdout"
        expect = [works(), refused()]
    elif turn == "device":
        _null_node(path)
        expect = [works(), refused()]
    elif turn == "fifo":
        damage.fifo(path)
    elif turn == "folder":
        path.mkdir()
    elif turn == "loop":
        damage.loop(path)
    elif turn == "nowhere":
        place = "no/such/folder/o.json"
        expect = [refused(), works()]
        writes = ("no", "no/*")
    else:
        place = {"long": LONG, "deep": DEEP, "empty": "", "below a file": "p.json/o.json"}[turn]
    writes = (*writes, "run/.work", "run/.work/*")
    return Case(f"{name}: {turn}", (step((*OUTPUTS[name], place), *expect, writes=writes),), check)


def _null_node(path: Path) -> None:
    """A device node of our own that is /dev/null."""
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))
    except OSError:
        raise Skip("device nodes cannot be made here") from None


def out_folder(box: Box, rng: Random) -> Case:
    """A folder of pages that cannot be one."""
    ground(box)
    name = rng.choice(list(FOLDERS))
    turn = rng.choice(["file", "fifo", "loop", "long", "deep", "empty", "below a file", "the run",
                       "data", "null", "below", "new", "again"])  # fmt: skip
    place, path = "o", box.here / "o"
    expect: list[Expect] = [refused()]
    writes: tuple[str, ...] = ()
    argv: list[str] = [*FOLDERS[name]]
    if turn in ("file", "fifo", "loop", "null"):
        {"file": _text, "fifo": damage.fifo, "loop": damage.loop, "null": damage.null_device}[turn](
            path
        )
    elif turn in ("new", "again", "below"):
        place = "o" if turn != "below" else "new/folders/o"
        expect, writes = [works()], ("o", "o/*", "new", "new/*")
        first = step((*argv, place), works(), writes=writes)
        steps = (first, step((*argv, place), works(), writes=writes))
        return Case(f"{name}: {turn}, twice", steps)
    else:
        place = {"long": LONG, "deep": DEEP, "empty": "", "below a file": "p.json/o",
                 "the run": "run", "data": "data"}[turn]  # fmt: skip
    return Case(f"{name}: {turn}", (step((*argv, place), *expect, writes=writes),))


MAKERS: tuple[Make, ...] = (
    wrong_path, output, wrong_path, out_folder, locked, wrong_path, output,
)  # fmt: skip
AREA = Area("paths", MAKERS, count=300)
