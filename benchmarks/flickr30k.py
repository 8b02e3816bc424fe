"""Flickr30K: one English sentence about a photograph of people and animals in daily life.

Paper     Young et al. 2014, https://aclanthology.org/Q14-1006; split of Karpathy and Li 2015,
          https://arxiv.org/abs/1412.2306
Split     Karpathy test, 1,000 images with five captions each (not the 31,783 of the whole set)
Protocol  zero-shot, greedy, 8 to 30 new tokens; Qwen-VL eval_mm/evaluate_caption.py, "flickr"
Metric    CIDEr over the whole split, on Penn Treebank tokens
Departs   nowhere known
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eval import Corpus, Generate, Layout, Sample, Source, Task
from eval.data import Record, converted_source, read_json
from eval.metrics.caption import cider

OFFICIAL = Source(
    "flickr30k/dataset_flickr30k.json",
    origin="caption_datasets of https://cs.stanford.edu/people/karpathy/deepimagesent/",
)
CONVERTED = converted_source("flickr30k/flickr30k_karpathy_test.json")
PROMPT = "<img>{image}</img>Describe the image in English:"
NAME = r"[0-9]{1,18}\.jpg"


def official(root: Path) -> Iterator[Sample]:
    """Karpathy's file holds all three splits."""
    for row in read_json(root / OFFICIAL.path).records("images"):
        if row.text("split") == "test":
            image = f"flickr30k-images/{row.text('filename', NAME)}"
            yield sample(row, image, [s.text("raw") for s in row.records("sentences")])


def converted(root: Path) -> Iterator[Sample]:
    """COCO's caption format; an image's id is the number in its file name."""
    file = read_json(root / CONVERTED.path)
    captions: dict[str, list[str]] = {}
    for row in file.records("annotations"):
        captions.setdefault(row.id("image_id"), []).append(row.text("caption"))
    for row in file.records("images"):
        image = row.tail("image", rf"flickr30k-images/{NAME}")
        found = sample(row, image, captions.get(row.id("id"), []))
        if found.id != row.id("id"):
            raise row.error(f"field 'id': the number of its image expected, {row.id('id')} found")
        yield found


def sample(row: Record, image: str, captions: list[str]) -> Sample:
    """One image, known by the number in its file name."""
    if not captions:
        raise row.error("captions expected, none found")
    number = int(PurePosixPath(image).stem)
    return Sample(str(number), {"image": f"flickr30k/{image}"}, reference=captions)


def caption_cider(predictions: Sequence[str], references: Sequence[Any]) -> list[float]:
    """CIDEr of captions stripped at their ends, as the published script keeps them."""
    return cider([prediction.strip() for prediction in predictions], references)


TASKS = (
    Task(
        name="flickr30k_test",
        size=1000,
        layouts=(Layout((OFFICIAL,), official), Layout((CONVERTED,), converted)),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=30, min_new_tokens=8),
        metrics={"cider": Corpus(caption_cider)},
    ),
)
