"""Result files of other programs: damaged, of other types, with other ids, too few or too many."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from fuzz import damage
from fuzz.annotations import (
    LAYOUTS,
    Layout,
    answers,
    control_name,
    damage_json,
    has_score,
    lay_out,
    same_score,
    scored,
)
from fuzz.cases import Area, Box, Case, Expect, Make, as_nobody, refused, step, works
from fuzz.damage import BROKEN, SAME

SOME = [layout for layout in LAYOUTS if has_score(layout) and layout[1] == 0]
WRONG_TYPES: tuple[Any, ...] = (None, True, [], {"a": 1}, [["x"]], 1.5)
FILE = "answers.json"


def _choose(box: Box, rng: Random) -> tuple[Layout, list[dict[str, Any]]]:
    layout = rng.choice(SOME)
    lay_out(box, layout)
    return layout, json.loads(answers(layout[0], layout[3]))


def _write(box: Box, rows: Any, *, lines: bool) -> bytes:
    text = "\n".join(map(json.dumps, rows)) + "\n" if lines else json.dumps(rows)
    box.write(FILE, text)
    return text.encode()


def _scored(layout: Layout, *expect: Expect, **more: Any) -> Any:
    return step(scored(layout[0]), *expect, **more)


def bytes_of_it(box: Box, rng: Random) -> Case:
    layout, rows = _choose(box, rng)
    lines = rng.random() < 0.4
    whole = _write(box, rows, lines=lines)
    what, changed, kind = damage_json(whole, rng, lines=lines)
    box.write(FILE, changed)
    same = same_score(box, control_name(layout))
    expect = {SAME: [same], BROKEN: [refused(FILE)]}.get(kind, [same, works(), refused()])
    return Case(f"{FILE}, {'lines' if lines else 'list'}: {what}", (_scored(layout, *expect),))


def wrong_type(box: Box, rng: Random) -> Case:
    """An answer or an id of another type, or none."""
    layout, rows = _choose(box, rng)
    number = rng.randrange(len(rows))
    field = rng.choice(list(rows[number]))
    if rng.random() < 0.2:
        what, rows[number] = f"no {field}", damage.without(rows[number], (field,))
    else:
        new = rng.choice(WRONG_TYPES)
        what, rows[number] = f"{field} is {new!r}", rows[number] | {field: new}
    _write(box, rows, lines=rng.random() < 0.5)
    return Case(f"[{number}]: {what}", (_scored(layout, refused()),))


def other_rows(box: Box, rng: Random) -> Case:
    """Rows that lack, or are too many, or stand in another order or form."""
    layout, rows = _choose(box, rng)
    same = same_score(box, control_name(layout))
    ids = "question_id" in rows[0]
    turns: Mapping[str, tuple[Callable[[], Any], tuple[Expect, ...]]] = {
        "the first is gone": (lambda: rows[1:], (refused(),)),
        "none": (lambda: [], (refused(),)),
        "one too many": (
            lambda: [*rows, {"question_id": "no such", "answer": "x"} if ids else {"answer": "x"}],
            (refused(),),
        ),
        "the last twice": (lambda: [*rows, rows[-1]], (same, refused()) if ids else (refused(),)),
        "in another order": (lambda: rows[::-1], (same,) if ids else (works(), refused())),
        "other ids": (
            lambda: [{**row, "question_id": f"x{n}"} for n, row in enumerate(rows)],
            (refused(), same, works()),
        ),
        "other fields too": (lambda: [{**row, "score": [1], "é": None} for row in rows], (same,)),
        "in an object": (lambda: {"results": rows}, (refused(),)),
        "by id": (lambda: {str(n): row for n, row in enumerate(rows)}, (refused(),)),
        "texts": (lambda: [row["answer"] for row in rows], (refused(),)),
        "lists": (lambda: [list(row.values()) for row in rows], (refused(),)),
        "half with ids": (
            lambda: [{"answer": row["answer"]} if n else row for n, row in enumerate(rows)],
            (refused(),) if ids and len(rows) > 1 else (same, refused()),
        ),
    }
    turn = rng.choice(list(turns))
    make, expect = turns[turn]
    _write(box, make(), lines=False)
    return Case(f"{layout[0]}: {turn}", (_scored(layout, *expect),))


TEXTS = ("", " ", "\u0000", "\u2028", "<box>(1,1),(2,2)</box>", "<|endoftext|>", "A" * 200_000,
         "nan",
         "-", "é" * 1000, "\u202e", "1e999", "9" * 5000, "<img>x</img>", "0.5.5", "%", "$1,000",
         "\ud83d\ude00", "<box>(9999999999999999999,1),(2,2)</box>", "<box>(,),(,)</box>",
         "<box>" * 20_000, "(1,2),(3,4)" * 9000, "1/0", "٣", "½", "--5", "1 000", "()" * 50_000,
         "the a an " * 9000, "'" * 9000, "[" * 9000)  # fmt: skip


def odd_text(box: Box, rng: Random) -> Case:
    """Texts that a model may say: every one is scored, within its range."""
    layout, rows = _choose(box, rng)
    for row in rows:
        row["answer"] = rng.choice(TEXTS)
    _write(box, rows, lines=rng.random() < 0.5)
    return Case(f"{layout[0]}: {rows[0]['answer'][:30]!r}", (_scored(layout, works(_in_range)),))


def _in_range(came: Any) -> str:
    for word in came.stdout.partition(" | ")[0].split()[1:]:
        name, _, value = word.partition("=")
        if not 0.0 <= float(value) <= 1.0:
            return f"{name} is {value}"
    return ""


def no_file(box: Box, rng: Random) -> Case:
    layout, _ = _choose(box, rng)
    what = damage.replace(box.here / FILE, rng)
    return Case(what, (_scored(layout, refused(FILE)),))


def unreadable(box: Box, rng: Random) -> Case:
    uid = as_nobody()
    layout, _ = _choose(box, rng)
    (box.here / FILE).chmod(0)
    return Case(f"{FILE} may not be read", (_scored(layout, refused(FILE), uid=uid),))


def per_sample(box: Box, rng: Random) -> Case:
    """Where the samples' values are written."""
    layout, _ = _choose(box, rng)
    turn = rng.choice(["new", "file", "folder", "fifo", "null", "loop", "empty", "long", "input"])
    path, place = box.here / "values.jsonl", "values.jsonl"
    expect, writes = [refused()], ()
    if turn in ("new", "file"):
        expect, writes = [works()], (place,)
        if turn == "file":
            path.write_text("old")
    elif turn in ("folder", "fifo", "null", "loop"):
        {"folder": damage.folder, "fifo": damage.fifo, "null": damage.null_device,
         "loop": damage.loop}[turn](path)  # fmt: skip
        if turn == "null":
            expect = [works(), refused()]
    elif turn == "input":
        place, writes, expect = FILE, (FILE,), [works(), refused()]
    else:
        place = "" if turn == "empty" else "x" * 300
    argv = (*scored(layout[0]), "--per-sample", place)
    return Case(f"--per-sample: {turn}", (step(argv, *expect, writes=writes),))


def _control(layout: Layout) -> Make:
    def make(box: Box, _: Random) -> Case:
        lay_out(box, layout)
        return Case("nothing was done to it", (_scored(layout, works()),))

    return make


MAKERS: tuple[Make, ...] = (
    bytes_of_it, wrong_type, other_rows, odd_text, bytes_of_it, other_rows, no_file, wrong_type,
    bytes_of_it, per_sample, odd_text, unreadable,
)  # fmt: skip
AREA = Area(
    "result_files",
    MAKERS,
    count=260,
    controls={control_name(layout): _control(layout) for layout in SOME},
)
