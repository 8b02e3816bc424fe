"""The pickles of the RefCOCO family: damaged, hostile, or written otherwise.

A pickle that would call anything is refused and nothing is called; one that says the same in other
instructions gives the same score.
"""

import copy
import json
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.annotations import same_score
from fuzz.cases import Area, Box, Case, Expect, Make, refused, step, works
from fuzz.damage import BROKEN, SAME

SPLIT = "val"
NAMES = {"refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}


def lay_out(box: Box, name: str) -> tuple[Path, list[dict[str, Any]], tuple[str, ...]]:
    """The benchmark's files and answers; the pickle, what it holds, and the command."""
    for file in (NAMES[name], "instances.json"):
        box.copy(f"data/{name}/{file}", f"data/{name}/{file}")
    path = box.here / "data" / name / NAMES[name]
    refs = pickle.loads(path.read_bytes())  # the demo's own
    count = sum(len(ref["sentences"]) for ref in refs if ref["split"] == SPLIT)
    rows = [{"question_id": str(n), "answer": f"<box>({n},1),(900,{n + 500})</box>"}
            for n in range(count)]  # fmt: skip
    box.write("p.json", json.dumps(rows))
    argv = ("score", "--task", f"{name}_{SPLIT}", "--data", "data", "--predictions", "p.json")
    return path, refs, argv


def same(box: Box, name: str) -> Expect:
    return same_score(box, name)


def _choose(box: Box, rng: Random) -> tuple[str, Path, list[dict[str, Any]], tuple[str, ...]]:
    name = rng.choice(list(NAMES))
    return name, *lay_out(box, name)


def bytes_of_it(box: Box, rng: Random) -> Case:
    name, path, _, argv = _choose(box, rng)
    what, changed, kind = rng.choice(damage.TO_BYTES)(path.read_bytes(), rng)
    path.write_bytes(changed)
    expect = [refused(path.name)]
    if kind != BROKEN:
        expect = [same(box, name), works(), refused()]
    return Case(f"{path.name}: {what}", (step(argv, *expect),))


def written_otherwise(box: Box, rng: Random) -> Case:
    """Another protocol, or optimised: the same values."""
    name, path, refs, argv = _choose(box, rng)
    protocol = rng.randrange(pickle.HIGHEST_PROTOCOL + 1)
    content = pickle.dumps(refs, protocol=protocol)
    if rng.random() < 0.5:
        content = pickletools.optimize(content)
    path.write_bytes(content)
    return Case(f"{path.name}: protocol {protocol}", (step(argv, same(box, name)),))


class Payload:
    """A pickle of this makes a file when it is read by who trusts it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def _calls() -> tuple[Any, ...]:
    import os
    import subprocess

    return (
        (os.mkdir, ("pwned",)),
        (os.system, ("touch pwned",)),
        (open, ("pwned", "w")),
        (eval, ("open('pwned', 'w')",)),
        (subprocess.call, (["touch", "pwned"],)),
        (os.getcwd, ()),
        (print, ("pwned",)),
        (bytes, (10,)),
    )


BY_HAND: tuple[bytes, ...] = (
    b"cos\nsystem\n(S'touch pwned'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    b"\x80\x02c__builtin__\neval\nU\x12open('pwned', 'w') \x85R.",
    b"(ios\nsystem\n(S'touch pwned'\ntR.",
    b"\x80\x02cos\nsystem\nU\x0btouch pwned\x85\x81.",
    b"(S'touch pwned'\nios\nsystem\n.",
    b"\x80\x04P0\n.",
    b"\x80\x04\x82\x01.",
    b"\x80\x05\x97.",
    b"]q\x00h\x00a.",
    b"]q\x00(h\x00h\x00e.",
    b"(" * 100_000 + b"l" * 100_000 + b".",
    b"]" * 100_000 + b"a" * 99_999 + b".",
    b"}" * 60_000 + b".",
    b"I" + b"9" * 100_000 + b"\n.",
    b"L" + b"9" * 5000 + b"L\n.",
    b"\x8b\xff\xff\xff\x7f" + b"\x01" * 100 + b".",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"X\xff\xff\xff\xffx.",
    b"F1e999\n.", b"Fnan\n.", b"V\\ud800\n.", b"h\x05.", b"j\xff\xff\xff\xff.", b"0.", b"2.", b"t.",
    b"u.", b"s.", b".", b"\x80\xff.", b"N", b"NN.", b"(.", b"I01", b"S'\\x'\n.", b"S'a\n.",
    b"U\x05a.",
    b"(" + b"I1\n2" * 200_000 + b"l.",
    b"(lp0\n" + b"g0\na" * 3 + b".",
    b"(dp0\nI1\nI2\nsg0\n.",
    b"]" + b"q\x00(h\x00" * 30 + b"l" * 30 + b".",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff]\x94.",
)  # fmt: skip


def hostile(box: Box, rng: Random) -> Case:
    """Payloads, and instructions that no list of records needs."""
    _, path, refs, argv = _choose(box, rng)
    if rng.random() < 0.4:
        call = rng.choice(_calls())
        value: Any = Payload(call)
        whole = rng.choice(
            [value, [value], [*refs, value], {"a": value}, [{**refs[0], "x": value}]]
        )
        content = pickle.dumps(whole, protocol=rng.randrange(2, 6))
        what = f"a call of {call[0].__name__}"
    else:
        content = rng.choice(BY_HAND)
        what = repr(content[:40])
    path.write_bytes(content)

    def untouched() -> str:
        return "the payload ran" if (box.here / "pwned").exists() else ""

    expect = refused((path.name, "no samples"))
    return Case(f"{path.name}: {what}", (step(argv, expect),), untouched)


def spliced_opcodes(box: Box, rng: Random) -> Case:
    """Instructions moved, removed or repeated where they begin and end."""
    name, path, _, argv = _choose(box, rng)
    content = path.read_bytes()
    begins = [position for _, _, position in pickletools.genops(content)]
    a, b = sorted(rng.randrange(len(begins) - 1) for _ in range(2))
    first, last = begins[a], begins[b]
    turn = rng.choice(["gone", "twice", "moved"])
    changed = {
        "gone": content[:first] + content[last:],
        "twice": content[:last] + content[first:],
        "moved": content[:first] + content[last:-1] + content[first:last] + b".",
    }[turn]
    path.write_bytes(changed)
    expect = (same(box, name), works(), refused())
    return Case(f"{path.name}: instructions {a} to {b} {turn}", (step(argv, *expect),))


NEEDED = ("ann_id", "file_name", "split", "sentences")
WRONG_TYPES: tuple[Any, ...] = (None, 1.5, True, [], {"a": 1}, (), 2**70, -1, "", "\ud800",
                                b"bytes",
                                {1: 2}, "x" * 10_000)  # fmt: skip


def wrong_value(box: Box, rng: Random) -> Case:
    """A record's field of another type."""
    name, path, refs, argv = _choose(box, rng)
    number = rng.choice([n for n, ref in enumerate(refs) if ref["split"] == SPLIT])
    field = rng.choice([*NEEDED, "ref_id", "sent_ids", "category_id", "image_id"])
    changed = copy.deepcopy(refs)
    new = rng.choice([v for v in WRONG_TYPES if type(v) is not type(refs[number][field])])
    changed[number][field] = new
    path.write_bytes(pickle.dumps(changed, protocol=rng.randrange(6)))
    expect = [refused(path.name)]
    if field not in NEEDED:
        expect.append(same(box, name))
    if field == "split":
        expect.append(refused())
    if field == "file_name" and isinstance(new, str):
        expect.append(works())
    what = f"{path.name}: [{number}].{field} is {new!r:.40}"
    return Case(what, (step(argv, *expect),))


def records(box: Box, rng: Random) -> Case:
    """Lists and records that are none, or too many."""
    name, path, refs, argv = _choose(box, rng)
    turns: Mapping[str, Callable[[], Any]] = {
        "a dict": lambda: {"refs": refs},
        "a tuple": lambda: tuple(refs),
        "nothing": lambda: None,
        "an empty list": lambda: [],
        "a text": lambda: json.dumps(refs),
        "lists": lambda: [list(ref.values()) for ref in refs],
        "nested": lambda: [refs],
        "one too many": lambda: [*refs, refs[0]],
        "an unknown annotation": lambda: [{**ref, "ann_id": 10**9} for ref in refs],
        "no sentences": lambda: [{**ref, "sentences": []} for ref in refs],
        "keys that are numbers": lambda: [dict(enumerate(ref.values())) for ref in refs],
    }
    turn = rng.choice(list(turns))
    path.write_bytes(pickle.dumps(turns[turn](), protocol=2))
    expect = [refused()]
    if turn == "a tuple":
        expect.append(same(box, name))
    if turn == "one too many":
        expect.append(works())
    return Case(f"{path.name}: {turn}", (step(argv, *expect),))


def instances(box: Box, rng: Random) -> Case:
    """The file of boxes beside it."""
    name, path, _, argv = _choose(box, rng)
    file = path.with_name("instances.json")
    content = file.read_bytes()
    if rng.random() < 0.5:
        what, changed, kind = rng.choice(damage.TO_JSON)(content, rng)
    else:
        told = json.loads(content)
        key = rng.choice(["images", "annotations"])
        number = rng.randrange(len(told[key]))
        field = rng.choice(["id", "width", "height"] if key == "images" else
                           ["id", "bbox", "image_id"])  # fmt: skip
        new = rng.choice([None, "text", [], [1], [1, 2, 3, "x"], -1, 0, 1.5, {}, 10**30])
        changed = json.dumps(damage.put(told, (key, number, field), new)).encode()
        what, kind = f"{key}[{number}].{field} is {new!r}", damage.OTHER
    file.write_bytes(changed)
    expect = {SAME: [same(box, name)], BROKEN: [refused(file.name)]}.get(
        kind, [same(box, name), works(), refused()]
    )
    return Case(f"{file.name}: {what}", (step(argv, *expect),))


def no_file(box: Box, rng: Random) -> Case:
    _, path, _, argv = _choose(box, rng)
    target = rng.choice([path, path.with_name("instances.json")])
    what = damage.replace(target, rng)
    return Case(what, (step(argv, refused(target.name)),))


def _control(name: str) -> Make:
    def make(box: Box, _: Random) -> Case:
        _, _, argv = lay_out(box, name)
        return Case("nothing was done to it", (step(argv, works()),))

    return make


MAKERS: tuple[Make, ...] = (
    hostile, bytes_of_it, wrong_value, hostile, spliced_opcodes, bytes_of_it, written_otherwise,
    records, instances, spliced_opcodes, no_file,
)  # fmt: skip
AREA = Area("pickles", MAKERS, count=280, controls={name: _control(name) for name in NAMES})
