"""Data of NoCaps and Flickr30K for tests, as files and as the tables of mirrors.

The records are those of golden/prompts; the tables are real parquet.
"""

import copy
import json
from pathlib import Path

import datasets

from benchmarks import flickr30k, nocaps
from eval import Sample
from eval.data import unique

GOLDEN = Path(__file__).parent / "golden" / "prompts"
TASKS = {task.name: task for module in (nocaps, flickr30k) for task in module.TASKS}
RECORDED = {name: json.loads((GOLDEN / f"{name}.json").read_text("utf-8")) for name in TASKS}
TEXTS = datasets.Sequence(datasets.Value("string"))
TEXT = datasets.Value("string")
FIRST, SECOND = "00ab00ab00ab00ab", "0123456789abcdef"  # the recorded images of NoCaps
PICTURES = {FIRST: b"\xff\xd8\xffgoat", SECOND: b"\xff\xd8\xffbus"}

datasets.disable_progress_bars()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")


def tables(path, rows, **features):
    """Write rows as a hub has them, with a picture in the column `image`."""
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    kinds = datasets.Features({**features, "image": datasets.Image()})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(path)


def recorded(name, groups=True):
    """The samples, or without what their groups are where a layout does not tell them."""
    rows = copy.deepcopy(RECORDED[name]["samples"])
    for row in rows:
        row["options"] = ()
        if not groups:
            row["groups"] = {}
    return [Sample(**row) for row in rows]


def official(name):
    """A fresh copy of the recorded official file: its path and content."""
    ((path, content),) = copy.deepcopy(RECORDED[name]["layouts"][0]).items()
    return path, content


def read(name, root):
    return list(unique(TASKS[name].layout(root).read(root), name))


def nocaps_rows(split):
    captions = {"val": {s.id: s.reference for s in recorded("nocaps_val")}, "test": {}}[split]
    _, content = official(f"nocaps_{split}")
    return [
        {
            "image": PICTURES[row["open_images_id"]],
            "image_id": row["id"],
            "image_open_images_id": row["open_images_id"],
            "image_file_name": row["file_name"],
            "annotations_captions": captions.get(str(row["id"]), []),
        }
        for row in content["images"]
    ]


NOCAPS_COLUMNS = {
    "image_id": datasets.Value("int64"),
    "image_open_images_id": TEXT,
    "image_file_name": TEXT,
    "annotations_captions": TEXTS,
}


def nocaps_tables(root, split, rows):
    part = {"val": "validation", "test": "test"}[split]
    tables(root / f"nocaps/mirror/data/{part}-00000-of-00001.parquet", rows, **NOCAPS_COLUMNS)


def flickr_rows():
    """The recorded images of all splits, each with its split, as nlphuji/flickr30k has them."""
    _, content = official("flickr30k_test")
    return [
        {
            "image": b"\xff\xd8\xff" + row["filename"].encode(),
            "caption": [sentence["raw"] for sentence in row["sentences"]],
            "split": row["split"],
            "filename": row["filename"],
        }
        for row in content["images"]
    ]


FLICKR_COLUMNS = {"caption": TEXTS, "split": TEXT, "filename": TEXT}


def flickr_tables(root, rows, columns=FLICKR_COLUMNS):
    rows = [{name: row[name] for name in (*columns, "image")} for row in rows]
    tables(root / "flickr30k/mirror/TEST/test/0000.parquet", rows, **columns)


def whole_tables(root):
    """lmms-lab/flickr30k: no column that tells the split."""
    columns = {name: kind for name, kind in FLICKR_COLUMNS.items() if name != "split"}
    flickr_tables(root, flickr_rows(), columns)
