"""Parquet of the model hub: damaged files, other columns, other types, pictures that are none.

The tables are those of the benchmarks' own tests, whose samples and answers are known.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.annotations import LAYOUTS, answers, same_score
from fuzz.cases import Area, Box, Case, Expect, Make, as_nobody, incomplete, refused, step, works
from fuzz.damage import BROKEN

MIRRORS = ("vqav2_val", "vizwiz_val", "okvqa_val", "textvqa_val", "docvqa_val",
           "chartqa_test_human",
           "ocrvqa_val", "ocrvqa_test")  # fmt: skip
SERVERS = ("vqav2_testdev", "vizwiz_test", "docvqa_test")
SAMPLES = {layout[0]: layout[3] for layout in LAYOUTS}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "vqav2_val": ("question", "question_id", "answers"),
    "vizwiz_val": ("question", "question_id", "answers"),
    "okvqa_val": ("question", "question_id", "answers"),
    "textvqa_val": ("question", "question_id", "answers", "image_id"),
    "docvqa_val": ("question", "questionId", "answers"),
    "chartqa_test_human": ("question", "answer", "type"),
    "ocrvqa_val": ("questions", "answers", "image_id"),
    "ocrvqa_test": ("questions", "answers", "image_id"),
    "vqav2_testdev": ("question", "question_id"),
    "vizwiz_test": ("question", "question_id"),
    "docvqa_test": ("question", "questionId"),
}


def make_mirrors(folder: Path) -> None:
    """The tables of all these tasks, each below a folder of its name."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import text_data
    import vqa_data

    for name in (*MIRRORS, *SERVERS):
        root = folder / name
        if name.startswith("docvqa"):
            text_data.docvqa_tables(root, name.partition("_")[2])
        elif name.startswith("chartqa"):
            text_data.chartqa_tables(root, "lmms")
        elif name.startswith("ocrvqa"):
            text_data.ocrvqa_tables(root, name.partition("_")[2])
        else:
            vqa_data.mirror_tables(root, name)


def lay_out(box: Box, name: str) -> tuple[Path, tuple[str, ...]]:
    """A copy of a task's table, and the command that reads it."""
    box.copy(f"mirrors/{name}", "data")
    box.write("p.json", answers(name, SAMPLES[name]))
    (path,) = (box.here / "data").rglob("*.parquet")
    if name in SERVERS:
        return path, ("data", "verify", name, "--data", "data", "--quick")
    return path, ("score", "--task", name, "--data", "data", "--predictions", "p.json")


def culprit(name: str, *says: str) -> Expect:
    return incomplete(*says) if name in SERVERS else refused(*says)


def same(box: Box, name: str) -> Expect:
    if name in SERVERS:
        return incomplete()
    return same_score(box, name)


def _choose(rng: Random) -> str:
    return rng.choice(SERVERS) if rng.random() < 0.15 else rng.choice(MIRRORS)


def bytes_of_it(box: Box, rng: Random) -> Case:
    """Pages have no check sum: damage within one may give other words, never a crash."""
    name = _choose(rng)
    path, argv = lay_out(box, name)
    content = path.read_bytes()
    part = rng.choice(["all", "end", "start"])
    if part == "all":
        what, changed, kind = rng.choice(damage.TO_BYTES)(content, rng)
    else:
        make = rng.choice([damage.flipped, damage.flipped, damage.spliced])
        cut = len(content) - 1500 if part == "end" else 600
        first, last = content[: max(cut, 8)], content[max(cut, 8) :]
        if part == "end":
            what, last, kind = make(last, rng)
        else:
            what, first, kind = make(first, rng)
        what, changed = f"{part}: {what}", first + last
    path.write_bytes(changed)
    expect = [culprit(name, path.name)]
    if kind != BROKEN:
        expect += [same(box, name), works(), culprit(name)]
    return Case(f"{name}: {what[:90]}", (step(argv, *expect),))


def _table(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path)


def _write(path: Path, table: Any, **options: Any) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, **options)


def columns(box: Box, rng: Random) -> Case:
    """A column is gone, has another name, another type, or stands twice."""
    import pyarrow as pa

    name = _choose(rng)
    path, argv = lay_out(box, name)
    table = _table(path)
    column = rng.choice([*NEEDED[name], *NEEDED[name], *table.column_names])
    place = table.column_names.index(column) if column in table.column_names else 0
    rows = table.num_rows
    turns: Mapping[str, Callable[[], Any]] = {
        "gone": lambda: table.remove_column(place),
        "renamed": lambda: table.rename_columns(
            [f"{each}_" if each == column else each for each in table.column_names]
        ),
        "numbers": lambda: table.set_column(place, column, pa.array([1.5] * rows)),
        "null": lambda: table.set_column(place, column, pa.nulls(rows)),
        "null of its type": lambda: table.set_column(
            place, column, pa.nulls(rows, table.schema.field(place).type)
        ),
        "bytes": lambda: table.set_column(place, column, pa.array([b"\xff\xfe"] * rows)),
        "lists": lambda: table.set_column(place, column, pa.array([[[1]]] * rows)),
        "structs": lambda: table.set_column(place, column, pa.array([{"a": 1}] * rows)),
        "truth values": lambda: table.set_column(place, column, pa.array([True] * rows)),
        "dates": lambda: table.set_column(
            place, column, pa.array([0] * rows).cast(pa.timestamp("s"))
        ),
    }
    turn = rng.choice(list(turns))
    _write(path, turns[turn]())
    expect = [culprit(name)]
    if column not in NEEDED[name] or "null" in turn:
        expect += [same(box, name), works()]
    return Case(f"{name}: column {column} {turn}", (step(argv, *expect),))


def rows(box: Box, rng: Random) -> Case:
    """No rows, rows twice, another order, many row groups, other compression."""
    name = _choose(rng)
    path, argv = lay_out(box, name)
    table = _table(path)
    turn = rng.choice(["none", "twice", "order", "groups", "compression", "version", "metadata"])
    options: dict[str, Any] = {}
    expect = [same(box, name)]
    if turn == "none":
        table, expect = table.slice(0, 0), [culprit(name)]
    elif turn == "twice":
        import pyarrow as pa

        table, expect = pa.concat_tables([table, table]), [culprit(name)]
    elif turn == "order":
        table = table.take(list(range(table.num_rows))[::-1])
        if name.startswith("chartqa"):
            expect = [works()]
    elif turn == "groups":
        options = {"row_group_size": 1}
    elif turn == "compression":
        options = {"compression": rng.choice(["gzip", "zstd", "brotli", "lz4", "none"])}
    elif turn == "version":
        options = {"version": rng.choice(["1.0", "2.4"]), "data_page_version": "2.0"}
    else:
        table = table.replace_schema_metadata(
            rng.choice([None, {b"huggingface": b"{"}, {b"huggingface": b"[]"},
                        {b"huggingface": b'{"info": {"features": {"x": {"_type": "Evil"}}}}'}])
        )  # fmt: skip
        expect = [same(box, name), culprit(name)]
    _write(path, table, **options)
    return Case(f"{name}: {turn} {options}", (step(argv, *expect),))


def no_file(box: Box, rng: Random) -> Case:
    name = _choose(rng)
    path, argv = lay_out(box, name)
    what = damage.replace(path, rng)
    return Case(f"{name}: {what}", (step(argv, culprit(name)),))


def unreadable(box: Box, rng: Random) -> Case:
    uid = as_nobody()
    name = _choose(rng)
    path, argv = lay_out(box, name)
    target = rng.choice([path, path.parent])
    target.chmod(0)
    return Case(f"{name}: {target.name} may not be read", (step(argv, culprit(name), uid=uid),))


def beside(box: Box, rng: Random) -> Case:
    """Beside the table: files of a Mac and of a download that stopped, which are passed over."""
    name = _choose(rng)
    path, argv = lay_out(box, name)
    extra = rng.choice(["._{}", ".{}.incomplete", "{}.lock", "README.md", ".DS_Store"])
    path.with_name(extra.format(path.name)).write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    return Case(f"{name}: beside {extra}", (step(argv, same(box, name)),))


def linked(box: Box, rng: Random) -> Case:
    """The table, or its folder, is a link, as a hub's snapshot is."""
    name = _choose(rng)
    path, argv = lay_out(box, name)
    target = rng.choice([path, path.parent])
    moved = box.here / "elsewhere" / target.name
    moved.parent.mkdir()
    target.rename(moved)
    target.symlink_to(moved)
    return Case(f"{name}: {target.name} is a link", (step(argv, same(box, name)),))


def pointer(box: Box, rng: Random) -> Case:
    """A Git LFS pointer, a page, or JSON under a table's name."""
    name = _choose(rng)
    path, argv = lay_out(box, name)
    content = rng.choice([b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                          b"<html>404</html>", json.dumps([{"a": 1}]).encode(), b"PAR1",
                          b"PAR1PAR1",
                          b"PAR1" + b"\xff" * 4 + b"PAR1",
                          b"PARE" + bytes(8) + b"PARE"])  # fmt: skip
    path.write_bytes(content)
    return Case(f"{name}: {content[:20]!r}", (step(argv, culprit(name, path.name)),))


def _control(name: str) -> Make:
    def make(box: Box, _: Random) -> Case:
        _, argv = lay_out(box, name)
        return Case("nothing was done to it", (step(argv, works()),))

    return make


MAKERS: tuple[Make, ...] = (
    bytes_of_it, columns, bytes_of_it, columns, rows, bytes_of_it, no_file, pointer, columns,
    beside,
    rows, linked, unreadable,
)  # fmt: skip
AREA = Area(
    "parquet", MAKERS, count=200, torch=True, controls={name: _control(name) for name in MIRRORS}
)
