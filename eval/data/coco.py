"""COCO: its photographs, which several benchmarks ask about, and its format of captions."""

from eval.data.declare import Archive
from eval.data.records import Record

ARCHIVE_GB = {"train2014": 13.5, "val2014": 6.6, "test2015": 12.4}


def coco_archive(subset: str) -> Archive:
    """All pictures of a subset such as val2014, unpacked where `coco_image` has them."""
    url = f"http://images.cocodataset.org/zips/{subset}.zip"
    return Archive(url, "coco", coco_pattern(subset), gb=ARCHIVE_GB[subset])


def coco_pattern(subset: str) -> str:
    """What the paths of a subset's pictures end like: its folder and the picture's name."""
    return rf"{subset}/COCO_{subset}_[0-9]{{12}}\.jpg"


def coco_image(subset: str, number: int) -> str:
    """Path of a picture below the data root."""
    return f"coco/{subset}/COCO_{subset}_{number:012d}.jpg"


def coco_captions(file: Record) -> dict[str, list[str]]:
    """Image id -> its captions, in the order of the file's `annotations`."""
    captions: dict[str, list[str]] = {}
    for row in file.records("annotations"):
        captions.setdefault(row.id("image_id"), []).append(row.text("caption"))
    return captions
