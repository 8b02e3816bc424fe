"""Annotations of every benchmark in each of its layouts, damaged, and scored with clean answers.

The files are those of golden/prompts, whose samples are known; the answers are their references.
NEEDED lists what a layout's files must hold, from the benchmarks' own descriptions of them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.cases import (
    Area,
    Box,
    Came,
    Case,
    Expect,
    Make,
    as_nobody,
    incomplete,
    refused,
    step,
    works,
)
from fuzz.damage import BROKEN, OTHER, SAME

GOLDEN = Path(__file__).parents[1] / "golden" / "prompts"
WITH_JAVA = ("flickr30k_test", "nocaps_val")  # their score takes a second
ORDERED = ("chartqa", "refcoco")  # records without ids
IDS = {"question_id", "questionId", "image_id", "imageId", "example_id", "imgid", "id"}
NEEDED: Mapping[str, set[str]] = {  # end of a file's path -> fields that it cannot lack
    "2014_questions.json": {"question_id", "image_id", "question"},
    "2015_questions.json": {"question_id", "image_id", "question"},
    "_annotations.json": {"question_id", "answers", "answer"},
    "TextVQA_0.5.1_val.json": {"question_id", "image_id", "question", "answers"},
    "vizwiz/val.json": {"image", "question", "answers", "answer"},
    "vizwiz/test.json": {"image", "question"},
    "testdev_balanced_questions.json": {"question", "imageId", "answer"},
    "val_v1.0.json": {"questionId", "question", "answers"},
    "test_v1.0.json": {"questionId", "question"},
    "val_v1.0_withQT.json": {"questionId", "question", "answers"},
    "test_human.json": {"imgname", "query", "label"},
    "test_augmented.json": {"imgname", "query", "label"},
    "dataset_flickr30k.json": {"filename", "split", "raw", "sentences"},
    "refexp.json": {"example_id", "image_id", "task_query"},
    "_captions.json": {"image_id", "caption"},
    "refcoco_val.jsonl": {"image", "sent", "bbox"},
    "gqa/testdev_balanced.jsonl": {"image", "question", "question_id", "answer"},
    "docvqa/val.jsonl": {"image", "question", "question_id", "answer"},
    "docvqa/test.jsonl": {"image", "question", "question_id"},
    "vqav2_testdev.jsonl": {"image", "question", "question_id"},
    "okvqa_val.jsonl": {"image", "question", "question_id"},
    "scienceqa_test_img.jsonl": {"image", "question", "choices", "answer"},
    "ai2diagram/test.jsonl": {"image", "question", "question_id", "answer"},
}
WRONG_TYPES: tuple[Any, ...] = (None, True, [], {"a": 1}, [[None]])
BAD_PATHS = ("../../etc/passwd", "a/../../b.jpg", "/", "", "..", "x\u0000.jpg", "a\nb.jpg")


def _recorded() -> Iterator[tuple[str, int, dict[str, Any], list[dict[str, Any]]]]:
    """(task, number of the layout, its files, its samples)."""
    for path in sorted(GOLDEN.glob("*.json")):
        told = json.loads(path.read_text("utf-8"))
        for number, files in enumerate(told["layouts"]):
            yield path.stem, number, files, told["samples"]


LAYOUTS = [each for each in _recorded() if each[0] not in WITH_JAVA]
CAPTIONS = [each for each in _recorded() if each[0] in WITH_JAVA]
Layout = tuple[str, int, dict[str, Any], list[dict[str, Any]]]


def content(name: str, value: Any) -> bytes:
    """A file as its benchmark writes it: JSON lines by their name."""
    if name.endswith(".csv"):
        return f"{value}\n".encode()
    rows = value if name.endswith(".jsonl") else [value]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def answers(task: str, samples: list[dict[str, Any]]) -> bytes:
    """A result file of the published scripts that gives the references."""
    rows = []
    for sample in samples:
        told = sample["reference"]
        if isinstance(told, dict):
            told = "<box>(15,41),(173,458)</box>"
        text = told[0] if isinstance(told, list) else told
        row = {"caption" if task in WITH_JAVA else "answer": text or "none"}
        if not task.startswith("chartqa"):
            row["image_id" if task in WITH_JAVA else "question_id"] = sample["id"]
        rows.append(row)
    return json.dumps(rows).encode()


def lay_out(box: Box, layout: Layout) -> None:
    """Write a layout's files and the answers to its samples."""
    task, _, files, samples = layout
    for name, value in files.items():
        box.write(f"data/{name}", content(name, value))
    box.write("answers.json", answers(task, samples))


def scored(task: str) -> tuple[str, ...]:
    return ("score", "--task", task, "--data", "data", "--predictions", "answers.json")


def verified(task: str, *more: str) -> tuple[str, ...]:
    return ("data", "verify", task, "--data", "data", *more)


def has_score(layout: Layout) -> bool:
    return all(sample["reference"] is not None for sample in layout[3])


def figures(stdout: str) -> str:
    """Task, scores and number of samples of a signature: what no digest changes."""
    score, _, facts = stdout.partition(" | ")
    counts = [fact for fact in facts.split() if fact.startswith(("n=", "images="))]
    return " ".join([*score.split(), *counts])


def same_score(box: Box, control: str) -> Expect:
    """Exit code 0 and the clean input's scores."""
    place = box.control(control)

    def check(came: Came) -> str:
        expected, found = figures((place / "stdout").read_text()), figures(came.stdout)
        return "" if expected == found else f"came {found}, not {expected}"

    return works(check)


def expected(box: Box, layout: Layout, kind: str, name: str) -> tuple[Expect, ...]:
    """What may come of the command, by what was done to the file."""
    base = name.rpartition("/")[2]
    same = same_score(box, control_name(layout)) if has_score(layout) else incomplete()
    culprit = refused(base) if has_score(layout) else incomplete(base)
    if kind == SAME:
        return (same,)
    if kind == BROKEN:
        return (culprit,)
    return (same, refused(), incomplete(), works())


def command(layout: Layout) -> tuple[str, ...]:
    """Score where the references are known, else verify."""
    return scored(layout[0]) if has_score(layout) else verified(layout[0])


def control_name(layout: Layout) -> str:
    return f"{layout[0]}-{layout[1]}"


def _control(layout: Layout) -> Make:
    def make(box: Box, _: Random) -> Case:
        lay_out(box, layout)
        expect = works() if has_score(layout) else incomplete()
        return Case("nothing was done to it", (step(command(layout), expect),))

    return make


def _choose(rng: Random) -> tuple[Layout, str]:
    """A layout and one of its JSON files."""
    layout = rng.choice(LAYOUTS)
    names = [name for name in layout[2] if not name.endswith((".csv", "13.png.json"))]
    return layout, rng.choice(names)


def damaged_bytes(box: Box, rng: Random) -> Case:
    """The bytes of a file, or of one of its lines."""
    layout, name = _choose(rng)
    lay_out(box, layout)
    whole = content(name, layout[2][name])
    what, changed, kind = damage_json(whole, rng, lines=name.endswith(".jsonl"))
    box.write(f"data/{name}", changed)
    return Case(f"{name}: {what}", (step(command(layout), *expected(box, layout, kind, name)),))


LINE = tuple(
    each
    for each in damage.TO_JSON
    if each not in (damage.empty, damage.indented, damage.utf16, damage.compressed, damage.bom)
)
WHOLE = (damage.utf16, damage.compressed, damage.bom)


def damage_json(whole: bytes, rng: Random, *, lines: bool) -> damage.Damaged:
    """Damage a JSON file; of JSON lines a line, or all."""
    if not lines:
        return rng.choice(damage.TO_JSON)(whole, rng)
    if rng.random() < 0.2:
        return rng.choice(WHOLE)(whole, rng)
    rows = whole.splitlines()
    number = rng.randrange(len(rows))
    what, changed, kind = rng.choice(LINE)(rows[number], rng)
    rows[number] = changed
    return f"line {number + 1}: {what}", b"\n".join(rows) + b"\n", kind


def needed_in(name: str) -> set[str]:
    return next((fields for end, fields in NEEDED.items() if name.endswith(end)), set())


def wrong_value(box: Box, rng: Random) -> Case:
    """A field of another type, or none. What is needed must be refused, all else may be."""
    layout, name = _choose(rng)
    lay_out(box, layout)
    whole = layout[2][name]
    path = rng.choice(list(damage.places(whole)))
    field = next((key for key in reversed(path) if isinstance(key, str)), "")
    is_field = isinstance(path[-1], str)
    old = damage.at(whole, path)
    if is_field and rng.random() < 0.3:
        what, changed = "is gone", damage.without(whole, path)
    else:
        wrong = [each for each in WRONG_TYPES if type(each) is not type(old)]
        new = rng.choice([*wrong, 10**30] if field in IDS else wrong)
        what, changed = f"is {new!r:.40}", damage.put(whole, path, new)
    box.write(f"data/{name}", content(name, changed))
    needed = field in needed_in(name) and (is_field or field in ("answers", "choices"))
    kind = BROKEN if needed else OTHER
    expect = expected(box, layout, kind, name)
    return Case(f"{name}: {'.'.join(map(str, path))} {what}", (step(command(layout), *expect),))


def _records(name: str, value: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Where the list of records stands in a file, and the list."""
    if isinstance(value, list):
        return (), value
    for key in ("questions", "data", "annotations", "images"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return (key,), value[key]
    return None


def other_records(box: Box, rng: Random) -> Case:
    """A record is gone, stands twice, or all stand in another order."""
    while True:
        layout, name = _choose(rng)
        if has_score(layout) and (found := _records(name, layout[2][name])):
            break
    lay_out(box, layout)
    path, records = found
    kinds: Mapping[str, Callable[[], list[Any]]] = {
        "the first record is gone": lambda: records[1:],
        "the last record stands twice": lambda: [*records, records[-1]],
        "in another order": lambda: records[::-1],
        "no records": lambda: [],
    }
    what = rng.choice(list(kinds))
    changed = kinds[what]()
    whole = damage.put(layout[2][name], path, changed) if path else changed
    box.write(f"data/{name}", content(name, whole))
    same = same_score(box, control_name(layout))
    ordered = layout[0].startswith(ORDERED)
    if what == "in another order":
        expect: tuple[Expect, ...] = (works(), refused()) if ordered else (same,)
    elif "dataset" in name or name.endswith(("_train.jsonl", "13.png.json")):
        expect = (same, refused(), works())  # may be a record of another split
    else:
        expect = (refused(),)
        if name.endswith("_annotations.json"):
            expect = (refused(), same)  # the second of two equal records says nothing new
    return Case(f"{name}: {what}", (step(command(layout), *expect),))


def no_file(box: Box, rng: Random) -> Case:
    """Something lies in a file's place that is none."""
    layout, name = _choose(rng)
    lay_out(box, layout)
    what = damage.replace(box.here / "data" / name, rng)
    argv = rng.choice([command(layout), verified(layout[0], "--quick")])
    culprit = refused if argv[0] == "score" else incomplete
    return Case(what, (step(argv, culprit(name.rpartition("/")[2])),))


def unreadable(box: Box, rng: Random) -> Case:
    """A file, or a folder above it, that another user may not read."""
    uid = as_nobody()
    layout, name = _choose(rng)
    lay_out(box, layout)
    path = box.here / "data" / name
    target = rng.choice([path, path.parent, box.here / "data"])
    target.chmod(0)
    argv = rng.choice([command(layout), verified(layout[0])])
    names = (target.name, path.name, layout[0])
    expect = (refused(names), incomplete(names))
    return Case(f"{target.name} may not be read", (step(argv, *expect, uid=uid),))


def bad_path(box: Box, rng: Random) -> Case:
    """A picture's path that leads out of the folder, or is none; a question with an image tag."""
    fields = ("image", "imgname", "filename")
    while True:
        layout, name = _choose(rng)
        whole = layout[2][name]
        found = [p for p in damage.places(whole) if p[-1] in (*fields, "question", "query", "sent")]
        if found and name != "docvqa" and "image" not in layout[2]:
            break
    lay_out(box, layout)
    path = rng.choice(found)
    if path[-1] in fields:
        new: str = rng.choice(BAD_PATHS)
    else:
        old = damage.at(whole, path)
        new = rng.choice([f"<img>/etc/passwd</img>{old}", f"{old}<img>", f"</img>{old}"])
    box.write(f"data/{name}", content(name, damage.put(whole, path, new)))
    kind = BROKEN if path[-1] in fields and path[-1] in needed_in(name) else OTHER
    expect = expected(box, layout, kind, name)
    return Case(f"{name}: {path} is {new!r}", (step(command(layout), *expect),))


def captions(box: Box, rng: Random) -> Case:
    """Caption files: only verified, since a score starts a Java."""
    layout = rng.choice(CAPTIONS)
    name = rng.choice(list(layout[2]))
    lay_out(box, layout)
    what, changed, kind = damage_json(content(name, layout[2][name]), rng, lines=False)
    box.write(f"data/{name}", changed)
    base = name.rpartition("/")[2]
    expect = incomplete(base) if kind == BROKEN else incomplete()
    return Case(f"{name}: {what}", (step(verified(layout[0]), expect),))


AREA = Area(
    "annotations",
    (
        damaged_bytes,
        wrong_value,
        damaged_bytes,
        wrong_value,
        no_file,
        other_records,
        bad_path,
        damaged_bytes,
        wrong_value,
        captions,
        unreadable,
        wrong_value,
    ),
    count=720,
    controls={control_name(layout): _control(layout) for layout in LAYOUTS},
)
