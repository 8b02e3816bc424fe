"""RefCOCO, RefCOCO+, RefCOCOg: the box around the object in a COCO photograph that a phrase names.

Paper     Yu et al. 2016, https://arxiv.org/abs/1608.00272 (RefCOCO; RefCOCO+, whose phrases use no
          place); Mao et al. 2016, https://arxiv.org/abs/1511.02283 (RefCOCOg, long phrases)
Split     UNC, val, testA (people), testB (other objects): 10,834, 5,657, 5,095 phrases of RefCOCO,
          10,758, 5,726, 4,889 of RefCOCO+; UMD, val and test: 4,896, 9,602 of RefCOCOg
Protocol  zero-shot, greedy, 10 to 28 new tokens after "<box>"; Qwen-VL
          eval_mm/evaluate_grounding.py
Metric    share of boxes whose IoU with the true one is at least 0.5
Departs   every sample is scored; the published loader drops each GPU's last incomplete batch (on 8
          GPUs, in batches of 8, it scores 10,816 of val's 10,834)
Known     the hub's val splits are not these: the Google split seems mixed into them, and their
          counts differ (8,811 objects of RefCOCO). A sample is known by its number in the file;
          mirrors may have another order than refer's files, so do not pair answers across the two.
          Phrases put as dialogue score below the tags
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from eval import Archive, ByHand, Expect, Generate, Layout, Mirror, Sample, Source, Task
from eval.data import Record, converted_source, hub_source, read_jsonl, read_pickle, read_pictures
from eval.data.coco import coco_archive, coco_pattern
from eval.data.files import read_records
from eval.data.mirrors import distinct
from eval.data.sizes import picture_size
from eval.errors import DataError
from eval.metrics.box import box_accuracy, has_box

REFER = "https://bvisionweb1.cs.unc.edu/licheng/referit/data"
COPIES = "https://github.com/lichengunc/refer/issues/14"
# Phrase and box open the answer: the model goes on with "(x1,y1),(x2,y2)</box>".
PROMPT = "<img>{image}</img><ref>{expression}</ref><box>"
CHAT = "Picture 1: <img>{image}</img>\n<ref>{expression}</ref><box>"
REFERRED_IMAGE = r"COCO_train2014_[0-9]{12}(_[0-9]{1,12})?\.jpg"  # the number is the object's
PERSON = 1  # COCO's number of the category
TOLERANCE_PX = 1  # that a true box may stand out of its image: boxes are rounded
COLUMNS = ("answer", "bbox", "file_name")


class Set(NamedTuple):
    """One of the three sets.

    by      who split it, as the name of refer's file has it
    hub     its name on the hub
    counts  split -> phrases, images
    """

    by: str
    hub: str
    counts: dict[str, tuple[int, int]]


SETS = {
    "refcoco": Set(
        "unc", "RefCOCO", {"val": (10834, 1500), "testA": (5657, 750), "testB": (5095, 750)}
    ),
    "refcoco+": Set(
        "unc", "RefCOCOplus", {"val": (10758, 1500), "testA": (5726, 750), "testB": (4889, 750)}
    ),
    "refcocog": Set("umd", "RefCOCOg", {"val": (4896, 1300), "test": (9602, 2600)}),
}


def official(name: str, split: str, root: Path) -> Iterator[Sample]:
    """A sample for each sentence of refer's references, in order, numbered from 0."""
    refs_path, instances = (root / source.path for source in official_sources(name))
    content = read_pickle(refs_path)
    if not isinstance(content, list):
        raise DataError(f"{refs_path}: a list of references expected, another value found")
    refs = [Record(value, f"[{number}] of {refs_path}") for number, value in enumerate(content)]
    if SETS[name].by == "umd":
        one_split_an_image(refs)
    refs = [row for row in refs if row.text("split") == split]
    boxes = records_by_id(instances, "annotations", {row.integer("ann_id") for row in refs})
    images = records_by_id(instances, "images", {row.integer("image_id") for row in refs})
    number = 0
    for row in refs:
        annotation = referenced(boxes, row, "ann_id", instances)
        image = referenced(images, row, "image_id", instances)
        if annotation.integer("image_id") != row.integer("image_id"):
            raise row.error(f"its box is of another image, {annotation.integer('image_id')}")
        box = corners(annotation)
        size = image.integer("width", low=1), image.integer("height", low=1)
        kind = "person" if row.integer("category_id") == PERSON else "other"
        for sentence in row.records("sentences"):
            yield sample(
                number, image_path(row), sentence.text("sent"), box, size, {"object": kind}
            )
            number += 1


def one_split_an_image(refs: list[Record]) -> None:
    """UMD's splits share no image; Google's, which go by object, do."""
    splits: dict[int, str] = {}
    for row in refs:
        image, split = row.integer("image_id"), row.text("split")
        if splits.setdefault(image, split) != split:
            raise row.error(
                f"image {image} in one split only expected, found in {splits[image]} and {split}. "
                "Is this Google's split? refs(umd).p is needed"
            )


def records_by_id(instances: Path, name: str, ids: set[int]) -> dict[int, Record]:
    """Of a list in COCO's instances those records that have one of the ids."""
    rows = ((row.integer("id"), row) for row in read_records(instances, name))
    return {number: row for number, row in rows if number in ids}


def referenced(records: dict[int, Record], row: Record, name: str, instances: Path) -> Record:
    """The record that a field of a reference names."""
    number = row.integer(name)
    if number not in records:
        raise row.error(f"field {name!r}: one of {instances} expected, {number} found")
    return records[number]


def converted(path: str, root: Path) -> Iterator[Sample]:
    """Records without an id, so their number in the file is taken, from 0.

    `bbox` is x1 y1 x2 y2 in pixels; a variant in circulation has "hw" for height and width, and
    other folders above COCO's. An image that is not COCO's lies below the data root as it is named.
    """
    for number, row in enumerate(read_jsonl(root / path)):
        coco = row.tail_or_none("image", coco_pattern("train2014"))
        image = f"coco/{coco}" if coco else row.path("image")
        if row.has("hw"):
            height, width = row.integers("hw", 2, low=1)
        else:
            height, width = row.integer("height", low=1), row.integer("width", low=1)
        box = row.numbers("bbox", 4)
        if box[2] < box[0] or box[3] < box[1]:
            raise row.error(f"field 'bbox': x1 y1 x2 y2 expected, {box} found")
        yield sample(number, image, row.text("sent"), box, (width, height), {})


def mirrored(source: Source, root: Path) -> Iterator[Sample]:
    """One row an object, whose phrases are its `answer`; the picture tells its size."""
    number = 0
    for row, picture in read_pictures(root, source, COLUMNS):
        box, size = corners(row), picture_size(picture, row.where)
        for phrase in row.texts("answer"):
            yield sample(number, image_path(row), phrase, box, size, {})
            number += 1


def mirror_pictures(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each picture once, though it stands beside each of its objects."""
    rows = read_pictures(root, source, ("file_name",))
    return distinct((image_path(row), picture) for row, picture in rows)


def image_path(row: Record) -> str:
    """Where the image lies whose name, and the object's number, `file_name` holds."""
    name = row.text("file_name", REFERRED_IMAGE)
    return f"coco/train2014/{name[:27]}.jpg"  # without the object's number


def corners(row: Record) -> list[float]:
    """COCO's `bbox`, x y width height, as x1 y1 x2 y2."""
    x, y, width, height = row.numbers("bbox", 4)
    if width < 0 or height < 0 or not math.isfinite(x + width + y + height):
        raise row.error(f"field 'bbox': x y width height expected, {[x, y, width, height]} found")
    return [x, y, x + width, y + height]


def sample(
    number: int,
    image: str,
    phrase: str,
    box: list[float],
    size: tuple[int, int],
    groups: dict[str, str],
) -> Sample:
    """One phrase; box and size in pixels."""
    fields = {"image": image, "expression": phrase}
    true_box = {"box": box, "width": size[0], "height": size[1]}
    return Sample(str(number), fields, reference=true_box, groups=groups)


def of_the_split(split: str, sample: Sample) -> str | None:
    """What is wrong with a sample: its box, or what kind of object it is of."""
    x1, y1, x2, y2 = sample.reference["box"]
    width, height = sample.reference["width"], sample.reference["height"]
    if min(x1, y1) < -TOLERANCE_PX or x2 > width + TOLERANCE_PX or y2 > height + TOLERANCE_PX:
        return f"a box inside {width} x {height} expected, {[x1, y1, x2, y2]} found"
    kind = sample.groups.get("object")
    if kind and {"testA": "person", "testB": "other"}.get(split, kind) != kind:
        return f"{'people' if split == 'testA' else 'no people'} expected in {split}, {kind} found"
    return None


def official_sources(name: str) -> tuple[Source, Source]:
    """Refer's references, and the boxes and sizes of images."""
    origin = f"{REFER}/{name}.zip; where that server is down, a copy: {COPIES}"
    names = f"refs({SETS[name].by}).p", "instances.json"
    references, instances = (Source(f"{name}/{each}", origin=origin) for each in names)
    return references, instances


def layouts(name: str, split: str) -> tuple[Layout, ...]:
    """All in which a split is found; the authors' folder is refcoco%2B for RefCOCO+."""
    quoted = name.replace("+", "%2B")
    published = converted_source(f"{quoted}/{quoted}_{split}.jsonl")
    lines = [replace(published, path=f"{name}/{name}_{split}.jsonl")]
    if quoted != name:
        lines.append(published)
    tables = hub_source(f"{name}/mirror/**/{split}-*.parquet", f"lmms-lab/{SETS[name].hub}")
    pictures = partial(mirror_pictures, tables)
    return (
        Layout(official_sources(name), partial(official, name, split)),
        *(Layout((each,), partial(converted, each.path), name="converted") for each in lines),
        Layout((tables,), partial(mirrored, tables), name="mirror", pictures=pictures),
    )


def steps(name: str, split: str) -> tuple[Archive | ByHand | Mirror, ...]:
    """Refer's own server is often down, so copies are named."""
    by, hub, _ = SETS[name]
    return (
        Archive(f"{REFER}/{name}.zip", name, rf"refs\({by}\)\.p|instances\.json"),
        ByHand(
            f"if that server is down, a copy: {name}/refs({by}).p, {name}/instances.json", COPIES
        ),
        coco_archive("train2014"),
        Mirror(
            (f"lmms-lab-encoder/{hub}", f"lmms-lab/{hub}"),
            f"**/{split}-*.parquet",
            f"{name}/mirror",
        ),
    )


TASKS = tuple(
    Task(
        name=f"{name}_{split}",
        size=size,
        layouts=layouts(name, split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=28, min_new_tokens=10),
        metrics={"accuracy": box_accuracy},
        readable=has_box,
        drops_last=True,
        chat=CHAT,
        expect=Expect(images=images, each=partial(of_the_split, split)),
        steps=steps(name, split),
    )
    for name, each in SETS.items()
    for split, (size, images) in each.counts.items()
)
