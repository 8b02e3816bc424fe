"""Captions in COCO's format: images, and beside them annotations that name an image each."""

from eval.data.records import Record


def coco_captions(file: Record) -> dict[str, list[str]]:
    """Image id -> its captions, in the order of the file's `annotations`."""
    captions: dict[str, list[str]] = {}
    for row in file.records("annotations"):
        captions.setdefault(row.id("image_id"), []).append(row.text("caption"))
    return captions
