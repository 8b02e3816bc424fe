"""NoCaps: one English sentence about a photograph, often of objects that COCO's captions lack.

Paper     Agrawal et al. 2019, https://arxiv.org/abs/1812.08658
Split     val, 4,500 images with ten captions each; test, 10,600, whose captions only the server
          knows. Both by domain: objects of COCO only, near to them, none of them
Protocol  zero-shot, greedy, 8 to 30 new tokens; Qwen-VL eval_mm/evaluate_caption.py, "nocaps"
Metric    CIDEr over the whole split, on Penn Treebank tokens
Departs   nowhere known
Known     the card's figure is val's over all three domains together, not the mean of the three: how
          much a word weighs follows from all 4,500 images, so a domain's own figure is another run
          of the scorer. The benchmark has no training captions, so there are no few-shot examples
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval import (
    Corpus,
    Download,
    Expect,
    Generate,
    Layout,
    Mirror,
    Pictures,
    Sample,
    Source,
    Submission,
    Task,
)
from eval.data import (
    Record,
    coco_captions,
    converted_source,
    hub_source,
    read_json,
    read_parquet,
    read_pictures,
)
from eval.data.samples import wrong_count
from eval.metrics.caption import stripped_cider, why_cider_is_zero

URL = "https://nocaps.s3.amazonaws.com/"
OFFICIAL = {
    split: Source(f"nocaps/{name}", origin=f"{URL}{name}")
    for split, name in (
        ("val", "nocaps_val_4500_captions.json"),
        ("test", "nocaps_test_image_info.json"),
    )
}
CONVERTED = converted_source("nocaps/nocaps_val.json")
HUB = "lmms-lab/NoCaps"
HUBS = ("lmms-lab-encoder/NoCaps", HUB, "HuggingFaceM4/NoCaps")
TABLES = {"val": "validation-*.parquet", "test": "test-*.parquet"}
PROMPT = "<img>{image}</img>Describe the image in English:"
CHAT = "Picture 1: <img>{image}</img>\nDescribe the image in English:"
OPEN_IMAGES_ID = "[0-9a-f]{16}"
DOMAIN = "(in|near|out)-domain"
FORM = '{"images": [...], "annotations": [...]}'
CAPTIONS = 10  # of each image of val


def official(split: str, root: Path) -> Iterator[Sample]:
    """COCO's caption format; test's file has no captions."""
    file = read_json(root / OFFICIAL[split].path, FORM)
    captions = coco_captions(file) if split == "val" else None
    for row in file.records("images"):
        yield sample(row, "id", picture(row, "open_images_id"), captions)


def converted(root: Path) -> Iterator[Sample]:
    """The same format, with the pictures' paths; of these only the name counts."""
    file = read_json(root / CONVERTED.path, FORM)
    captions = coco_captions(file)
    for row in file.records("images"):
        name = row.tail("image", rf"{OPEN_IMAGES_ID}\.jpg")
        yield sample(row, "id", f"nocaps/images/{name}", captions)


def mirrored(split: str, source: Source, root: Path) -> Iterator[Sample]:
    """Rows tell each picture's captions, and not its domain."""
    columns = ["image_id", "image_open_images_id"]
    columns += ["annotations_captions"] if split == "val" else []
    for row in read_parquet(root, source, columns):
        captions = {row.id("image_id"): row.texts(columns[2])} if split == "val" else None
        yield sample(row, "image_id", picture(row, "image_open_images_id"), captions)


def mirror_pictures(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each row's picture."""
    for row, content in read_pictures(root, source, ["image_open_images_id"]):
        yield picture(row, "image_open_images_id"), content


def picture(row: Record, name: str) -> str:
    """Where the picture lies that a field names by its number in Open Images."""
    return f"nocaps/images/{row.text(name, OPEN_IMAGES_ID)}.jpg"


def sample(row: Record, name: str, image: str, captions: dict[str, list[str]] | None) -> Sample:
    """One image, known by its number in the benchmark.

    name      field of that number
    captions  number -> captions, or None where only the server knows them
    """
    number = str(row.integer(name))
    if captions is not None and number not in captions:
        raise row.error("captions expected, none found")
    groups = {"domain": row.text("domain", DOMAIN)} if row.has("domain") else {}
    reference = None if captions is None else captions[number]
    return Sample(number, {"image": image}, reference=reference, groups=groups)


def urls(split: str, root: Path) -> Iterator[tuple[str, str]]:
    """Each picture's address, which the official file tells, and its place."""
    for row in read_json(root / OFFICIAL[split].path, FORM).records("images"):
        yield row.text("coco_url", "https?://[!-~]+"), picture(row, "open_images_id")


class Caption(TypedDict):
    """One record of the server's file."""

    image_id: int
    caption: str


def submission(
    root: Path, answers: Mapping[str, str], model: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A stripped caption for every image."""
    return [{"image_id": int(each), "caption": text.strip()} for each, text in answers.items()]


def layouts(split: str) -> tuple[Layout, ...]:
    """All in which a split is found; of test there is no converted file."""
    tables = hub_source(f"nocaps/mirror/**/{TABLES[split]}", HUB)
    known = [Layout((OFFICIAL[split],), partial(official, split))]
    if split == "val":
        known.append(Layout((CONVERTED,), converted, name="converted"))
    mirror = partial(mirrored, split, tables)
    pictures = partial(mirror_pictures, tables)
    return (*known, Layout((tables,), mirror, name="mirror", pictures=pictures))


COUNTS = {  # images, and of each domain
    "val": (4500, {"in-domain": 648, "near-domain": 2938, "out-domain": 914}),
    "test": (10600, {"in-domain": 1311, "near-domain": 7406, "out-domain": 1883}),
}
TASKS = tuple(
    Task(
        name=f"nocaps_{split}",
        size=size,
        layouts=layouts(split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=30, min_new_tokens=8),
        metrics={"cider": Corpus(stripped_cider, why_cider_is_zero, mean=True)},
        chat=CHAT,
        expect=Expect(
            images=size,
            answers=CAPTIONS * size if split == "val" else None,
            groups={"domain": domains},
            each=partial(wrong_count, CAPTIONS, "captions") if split == "val" else None,
        ),
        steps=(
            Download(OFFICIAL[split].origin, OFFICIAL[split].path),
            Pictures(partial(urls, split)),
            Mirror(HUBS, f"**/{TABLES[split]}", "nocaps/mirror"),
        ),
        submission=Submission(
            server="EvalAI, challenge 355, https://eval.ai/web/challenges/challenge-page/355",
            file=f"nocaps_{split}.json",
            build=submission,
            schema=list[Caption],
            alone=split == "test",
        ),
    )
    for split, (size, domains) in COUNTS.items()
)
