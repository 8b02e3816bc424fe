"""Runs that are gone on with or repeated: journals, answers, digests and features on disk.

Whatever lies in a run's folder, the same command ends with the clean answers,
or says what is wrong.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.cases import Area, Box, Came, Case, Expect, Make, refused, step, works
from fuzz.damage import BROKEN, SAME
from fuzz.pictures import TASK, predictions
from fuzz.run_folders import damage_lines

RUN = ("run", TASK, "--model", "demo", "--data", "data", "--out", "out", "--allow-partial",
       "--device",
       "cpu")  # fmt: skip
WRITES = ("out", "out/*", "features", "features/*")


def again(*more: str) -> tuple[str, ...]:
    return (*RUN, *more)


def start(box: Box) -> Path:
    """The data, and a copy of the control's finished run."""
    box.link("four", "data")
    return box.copy(box.control("clean") / "here/out", "out")


def same_answers(box: Box) -> Expect:
    """Exit code 0 and the predictions of the clean run, to the byte."""
    clean = box.control("clean") / "here/out" / TASK / "predictions.jsonl"

    def check(came: Came) -> str:
        found = came.kept / "here/out" / TASK / "predictions.jsonl"
        return "" if found.read_bytes() == clean.read_bytes() else "other predictions"

    return works(check)


def _unfinished(out: Path) -> Path:
    """As a kill leaves it: a journal, and nothing that follows from it."""
    for name in ("predictions.jsonl", "scores.jsonl", "summary.json"):
        (out / TASK / name).unlink()
    return next((out / TASK).glob("journal-*.jsonl"))


def journal(box: Box, rng: Random) -> Case:
    """An unfinished run whose journal was damaged."""
    path = _unfinished(start(box))
    content = path.read_bytes()
    turn = rng.choice(["torn", "lines", "lines", "none", "gone", "twice", "other"])
    expect = [same_answers(box)]
    if turn == "torn":
        what, content = "a torn last line", content[: -rng.randrange(1, 60)]
    elif turn == "lines":
        what, content, kind = damage_lines(content, rng)
        if kind != SAME:
            expect.append(refused(path.name))
        if kind == damage.OTHER:  # of an answer without its own digest
            expect.append(works())
    elif turn == "gone":
        what, content = "nothing in it", b""
    elif turn == "twice":
        what, content = "every line twice", content + content
    elif turn == "other":
        rows = [json.loads(line) for line in content.splitlines()]
        for row in rows:
            row |= {"of": "0" * 16} if "of" in row else {}
        what = "answers to other questions"
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(content)
    if turn == "none":
        what = damage.replace(path, rng)
        expect.append(refused((path.name, TASK)))
    return Case(f"{path.name}: {what}", (step(again(), *expect, writes=WRITES),))


def finished(box: Box, rng: Random) -> Case:
    """A finished run of which a file was damaged, edited or removed."""
    out = start(box)
    name = rng.choice(["manifest.json", f"{TASK}/predictions.jsonl", f"{TASK}/scores.jsonl",
                       f"{TASK}/summary.json", f"{TASK}/journal-0.jsonl"])  # fmt: skip
    path = out / name
    content = path.read_bytes()
    if rng.random() < 0.3:
        what = damage.replace(path, rng)
        expect = [refused(path.name), same_answers(box)]
        if "predictions" in name:
            expect.append(refused())
    elif name.endswith(".jsonl"):
        what, changed, kind = damage_lines(content, rng)
        path.write_bytes(changed)
        expect = [refused((path.name, TASK)), same_answers(box)]
        if kind == damage.OTHER:
            expect.append(works())
    else:
        what, changed, kind = rng.choice(damage.TO_JSON)(content, rng)
        path.write_bytes(changed)
        expect = [refused(path.name)] if kind == BROKEN else [same_answers(box), refused()]
        if name.endswith("summary.json"):
            expect.append(same_answers(box))
    return Case(f"{name}: {what}", (step(again(), *expect, writes=WRITES),))


OTHERWISE: Mapping[str, tuple[tuple[str, ...], bool]] = {
    # options that a finished run is repeated with; whether they decide its answers
    "another engine": (("--backend", "plain"), True),
    "another dtype": (("--dtype", "bfloat16"), True),
    "another batch": (("--batch-size", "2"), True),
    "another protocol": (("--protocol", "chatml"), True),
    "fewer samples": (("--limit", "2"), True),
    "little memory": (("--memory", "1KiB"), False),
    "features": (("--features", "features"), False),
    "all read again": (("--verify",), False),
    "failed ones again": (("--retry-failed",), False),
    "a lease": (("--lease", "5"), False),
    "the same seed": (("--seed", "0"), False),
}


def otherwise(box: Box, rng: Random) -> Case:
    """A finished run repeated with other options: refused or answered anew, never taken as is."""
    what = rng.choice(list(OTHERWISE))
    options, decides = OTHERWISE[what]
    start(box)
    before = (box.here / "out/manifest.json").read_bytes()

    def other(came: Came) -> str:
        now = (came.kept / "here/out/manifest.json").read_bytes()
        return "" if now != before else "the run was taken as it is"

    expect = [refused(), works(other)] if decides else [same_answers(box)]
    return Case(f"again, with {what}", (step(again(*options), *expect, writes=WRITES),))


def features(box: Box, rng: Random) -> Case:
    """Kept features that were damaged count as missing: the answers are those without them."""
    box.link("four", "data")
    source = box.control("features") / "here/features"
    for path in source.rglob("*"):
        if path.is_file():
            box.write(f"features/{path.relative_to(source)}", path.read_bytes())
    files = [path for path in (box.here / "features").rglob("*") if path.suffix == ".safetensors"]
    kinds = [damage.flipped, damage.truncated, damage.nul_bytes, damage.garbage, damage.empty,
             damage.spliced]  # fmt: skip
    what = ""
    turn = rng.choice(["some", "all", "none", "swapped", "tail"])
    if turn == "swapped" and len(files) > 1:
        first, second = files[0].read_bytes(), files[1].read_bytes()
        files[0].write_bytes(second)
        files[1].write_bytes(first)
    elif turn == "tail":
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[:-4000] + bytes(4000))
    elif turn == "none":
        what = damage.replace(rng.choice(files), rng)
    else:
        for path in files if turn == "all" else [rng.choice(files)]:
            what, changed, _ = rng.choice(kinds)(path.read_bytes(), rng)
            path.write_bytes(changed)
    expect = [same_answers(box)]
    if turn == "none":
        expect.append(refused())
    one = step(again("--features", "features"), *expect, writes=WRITES)
    return Case(f"features: {turn} {what[:60]}", (one,))


def work(box: Box, rng: Random) -> Case:
    """What a run keeps for itself: remembered digests, the lock, plans, leftovers."""
    out = start(box)
    if rng.random() < 0.5:
        _unfinished(out)
    turns: Mapping[str, Callable[[Path], Any]] = {
        "digests that are none": lambda place: (place / "images.jsonl").write_bytes(
            b"\xff{]\n" * 9
        ),
        "digests of other types": lambda place: (place / "images.jsonl").write_text(
            '[1]\n{"path": 5}\nnull\n{"a": {"b": []}}\n'
        ),
        "a lock that is a folder": lambda place: _replace(place / "lock", damage.folder),
        "a lock with words": lambda place: (place / "lock").write_text("pid x\n" * 3),
        "a plan that is none": lambda place: (place / "plan-1.sqlite").write_bytes(b"SQLite?" * 99),
        "a plan that is a folder": lambda place: (place / "plan-0.sqlite").mkdir(exist_ok=True),
        "leftovers": lambda place: (place.parent / TASK / ".predictions.jsonl.4194399").write_text(
            "x"
        ),
        "a pipe": lambda place: _replace(place / "images.jsonl", damage.fifo),
        "nothing": lambda place: [path.unlink() for path in place.iterdir() if path.is_file()],
    }
    turn = rng.choice(list(turns))
    place = out / ".work"
    place.mkdir(exist_ok=True)
    turns[turn](place)
    expect = [same_answers(box)]
    if turn in ("a lock that is a folder", "a pipe", "a plan that is a folder"):
        expect.append(refused())
    return Case(f".work: {turn}", (step(again(), *expect, writes=(*WRITES, "out/*/.*")),))


def _replace(path: Path, make: Callable[[Path], str]) -> None:
    path.unlink(missing_ok=True)
    make(path)


def picture_changed(box: Box, rng: Random) -> Case:
    """A picture was replaced after its question was answered: it is asked again."""
    start(box)
    pictures = sorted((box.here / "data/coco").rglob("*.jpg"))
    first, second = rng.sample(pictures, 2)
    other = second.read_bytes()
    first.unlink()
    first.write_bytes(other)
    asked = step(again(), works(), writes=WRITES)
    clean = predictions(box.control("clean") / "here/out")

    def changed() -> str:
        now = predictions(box.here / "out")
        return "" if now.keys() == clean.keys() else "other samples"

    return Case(f"{first.name} is another picture now", (asked,), changed)


def data_changed(box: Box, rng: Random) -> Case:
    """The questions were changed after they were answered: refused, or asked again, never mixed."""
    start(box)
    name = rng.choice(
        ["OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"]
    )
    path = box.here / "data/okvqa" / name
    content = path.read_bytes()
    path.unlink()
    turn = rng.choice(["text", "damage"])
    if turn == "text":
        path.write_bytes(content.replace(b"?", b" now?").replace(b'"answer": "', b'"answer": "x'))
        expect = [refused(), works()]
    else:
        what, changed, kind = rng.choice(damage.TO_JSON)(content, rng)
        turn = what
        path.write_bytes(changed)
        expect = [refused(name)] if kind == BROKEN else [refused(), works(), same_answers(box)]
    argv = rng.choice([again(), ("score", "out", "--data", "data"),
                       ("browse", "out", "--data", "data", "--out", "pages")])  # fmt: skip
    one = step(argv, *expect, writes=(*WRITES, "pages", "pages/*"))
    return Case(f"{name}: {turn}; {argv[0]}", (one,))


def few_shot(box: Box, rng: Random) -> Case:
    """Training files of few-shot examples, damaged."""
    box.link("four", "data")
    names = ("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json")
    for name in names:
        box.copy(f"data/okvqa/{name}", f"data/okvqa/{name}")
    box.link("data/coco/train2014", "data/coco/train2014")
    name = rng.choice(names)
    path = box.here / "data/okvqa" / name
    what, changed, kind = rng.choice(damage.TO_JSON)(path.read_bytes(), rng)
    path.write_bytes(changed)
    expect = {BROKEN: [refused(name)], SAME: [works()]}.get(kind, [works(), refused()])
    argv = again("--few-shot", "2", "--limit", "2")
    return Case(f"{name}: {what}", (step(argv, *expect, writes=WRITES),))


def _clean(box: Box, _: Random) -> Case:
    box.link("four", "data")
    return Case("a clean run", (step(again(), works(), writes=WRITES),))


def _features(box: Box, _: Random) -> Case:
    box.link("four", "data")
    argv = again("--features", "features")
    return Case("a clean run with features", (step(argv, same_answers(box), writes=WRITES),))


MAKERS: tuple[Make, ...] = (
    journal, finished, otherwise, features, journal, finished, work, data_changed, features,
    few_shot, picture_changed,
)  # fmt: skip
AREA = Area(
    "resumed", MAKERS, count=240, torch=True, controls={"clean": _clean, "features": _features}
)
