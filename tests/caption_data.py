"""Data of NoCaps and Flickr30K for tests, as files and as the tables of mirrors.

The records are those of golden/prompts; the tables are real parquet.
"""

import copy

import datasets
from benchmark_data import RECORDED, TEXT, TEXTS, recorded, tables, tasks_of
from benchmark_data import read as read_task

from benchmarks import flickr30k, nocaps

TASKS = tasks_of(nocaps, flickr30k)
FIRST, SECOND = "00ab00ab00ab00ab", "0123456789abcdef"  # the recorded images of NoCaps
PICTURES = {FIRST: b"\xff\xd8\xffgoat", SECOND: b"\xff\xd8\xffbus"}


def read(name, root):
    return read_task(TASKS[name], root)


def picture_tables(path, rows, **features):
    """Write rows as a hub has them, with a picture in the column `image`."""
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    tables(path, rows, **features, image=datasets.Image())


def official(name):
    """A fresh copy of the recorded official file: its path and content."""
    ((path, content),) = copy.deepcopy(RECORDED[name]["layouts"][0]).items()
    return path, content


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
    picture_tables(
        root / f"nocaps/mirror/data/{part}-00000-of-00001.parquet", rows, **NOCAPS_COLUMNS
    )


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
    picture_tables(root / "flickr30k/mirror/TEST/test/0000.parquet", rows, **columns)


def whole_tables(root):
    """lmms-lab/flickr30k: no column that tells the split."""
    columns = {name: kind for name, kind in FLICKR_COLUMNS.items() if name != "split"}
    flickr_tables(root, flickr_rows(), columns)
