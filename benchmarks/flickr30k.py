"""Flickr30K: one English sentence about a photograph of people and animals in daily life.

Paper     Young et al. 2014, https://aclanthology.org/Q14-1006; split of Karpathy and Li 2015,
          https://arxiv.org/abs/1412.2306
Split     Karpathy test, 1,000 images with five captions each (not the 31,783 of the whole set)
Protocol  zero-shot, greedy, 8 to 30 new tokens; Qwen-VL eval_mm/evaluate_caption.py, "flickr"
Metric    CIDEr over the whole split, on Penn Treebank tokens
Departs   nowhere known; few-shot examples are captions of the training split, where the published
          script draws them from the test split itself
Known     the photographs are behind a form. Some mirrors hold the whole set and call it test;
          without a file or a column that tells Karpathy's split they are refused
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from eval import Archive, ByHand, Corpus, Expect, Generate, Layout, Mirror, Sample, Source, Task
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
from eval.errors import DataError
from eval.metrics.caption import stripped_cider, why_cider_is_zero
from eval.storage.reading import is_folder

SPLITS = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
FORM = "https://shannon.cs.illinois.edu/DenotationGraph/"
HUB = "nlphuji/flickr30k"
WHOLE_HUB = "lmms-lab/flickr30k"
OFFICIAL = Source("flickr30k/dataset_flickr30k.json", origin=SPLITS)
FOLDERS = ("flickr30k", "flickr")  # the authors' instructions and scripts have one each
CONVERTED, CONVERTED_TRAIN = (
    tuple(converted_source(f"{folder}/flickr30k_karpathy_{split}.json") for folder in FOLDERS)
    for split in ("test", "train")
)
MIRROR = "flickr30k/mirror"
TABLES = hub_source(f"{MIRROR}/**/*.parquet", HUB)
PROMPT = "<img>{image}</img>Describe the image in English:"
CHAT = "Picture 1: <img>{image}</img>\nDescribe the image in English:"
NAME = r"[0-9]{1,18}\.jpg"
IMAGE = rf"flickr30k-images/{NAME}"
OBJECT = '{"images": [...], "annotations": [...]}'
CAPTIONS = 5  # of each image
T = TypeVar("T")


def official(root: Path, split: str = "test") -> Iterator[Sample]:
    """Karpathy's file holds all three splits."""
    for row in read_json(root / OFFICIAL.path, '{"images": [...]}').records("images"):
        if row.text("split") == split:
            captions = [sentence.text("raw") for sentence in row.records("sentences")]
            yield sample(row, picture(root, row), captions)


def converted(source: Source, root: Path) -> Iterator[Sample]:
    """COCO's caption format; an image's id is the number in its file name."""
    file = read_json(root / source.path, OBJECT)
    captions = coco_captions(file)
    for row in file.records("images"):
        image = f"{folder(root)}/{row.tail('image', IMAGE)}"
        captioned = sample(row, image, captions.get(row.id("id"), []))
        if captioned.id != row.id("id"):
            raise row.error(f"field 'id': the number of its image expected, {row.id('id')} found")
        yield captioned


def converted_train(source: Source, root: Path) -> Iterator[Sample]:
    """Of the training file only annotations count, each with an image and one of its captions."""
    counts: dict[str, int] = {}
    for row in read_json(root / source.path, OBJECT).records("annotations"):
        image = f"{folder(root)}/{row.tail('image', IMAGE)}"
        number = counts[image] = counts.get(image, -1) + 1
        yield example(sample(row, image, [row.text("caption")]), number, row.text("caption"))


def mirrored(root: Path, split: str = "test") -> Iterator[Sample]:
    """All images in one table, whose column `split` is Karpathy's."""
    for row in checked_split(read_parquet(root, TABLES, ["filename", "split", "caption"])):
        if row.text("split") == split:
            yield sample(row, picture(root, row), row.texts("caption"))


def mirror_pictures(root: Path, split: str = "test") -> Iterator[tuple[str, bytes]]:
    """The pictures of one split: those that Karpathy's file names, else by the column `split`."""
    if OFFICIAL.files(root):
        yield from named_pictures(root, {p for s in official(root, split) for p in s.images})
    elif split == "test" and (available := [each for each in CONVERTED if each.files(root)]):
        yield from named_pictures(
            root, {p for s in converted(available[0], root) for p in s.images}
        )
    else:
        for row, content in checked_split(read_pictures(root, TABLES, ["filename", "split"])):
            if row.text("split") == split:
                yield picture(root, row), content


def named_pictures(root: Path, paths: set[str]) -> Iterator[tuple[str, bytes]]:
    """Of a table with any pictures these."""
    for row, content in read_pictures(root, TABLES, ["filename"]):
        if (path := picture(root, row)) in paths:
            yield path, content


def checked_split(rows: Iterator[T]) -> Iterator[T]:
    """The rows. An error in reading them says what it comes from most often."""
    try:
        yield from rows
    except DataError as error:
        raise DataError(
            f"{error}. Is it {WHOLE_HUB}? That holds all 31,783 images and does not tell which "
            f"1,000 are Karpathy's test split, as {HUB} does. Or put {OFFICIAL.path} beside it, "
            f"from {SPLITS}"
        ) from error


def picture(root: Path, row: Record) -> str:
    """Where the picture lies that the field `filename` names."""
    return f"{folder(root)}/flickr30k-images/{row.text('filename', NAME)}"


def folder(root: Path) -> str:
    """The folder of the photographs: the first of the two that has them, else the first."""
    there = (each for each in FOLDERS if is_folder(root / each / "flickr30k-images"))
    return next(there, FOLDERS[0])


def sample(row: Record, image: str, captions: list[str]) -> Sample:
    """One image, known by the number in its file name."""
    if not captions:
        raise row.error("captions expected, none found")
    number = int(PurePosixPath(image).stem)
    return Sample(str(number), {"image": image}, reference=captions)


def examples(read: Callable[[Path], Iterator[Sample]], root: Path) -> Iterator[Sample]:
    """Each caption of each image, to be shown before a question."""
    for sample in read(root):
        for number, caption in enumerate(sample.reference):
            yield example(sample, number, caption)


def example(sample: Sample, number: int, caption: str) -> Sample:
    """One caption of an image; `number` counts the image's captions from 0."""
    return Sample(f"{sample.id}/{number}", {**sample.fields, "answer": caption})


TASKS = (
    Task(
        name="flickr30k_test",
        size=1000,
        layouts=(
            Layout((OFFICIAL,), official),
            *(Layout((each,), partial(converted, each), name="converted") for each in CONVERTED),
            Layout((TABLES,), mirrored, name="mirror", pictures=mirror_pictures),
        ),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=30, min_new_tokens=8),
        metrics={"cider": Corpus(stripped_cider, why_cider_is_zero, mean=True)},
        chat=CHAT,
        expect=Expect(images=1000, answers=5000, each=partial(wrong_count, CAPTIONS, "captions")),
        steps=(
            Archive(SPLITS, "flickr30k", r"dataset_flickr30k\.json"),
            ByHand("the photographs, flickr30k/flickr30k-images/ (4.4 GB)", FORM),
            Mirror((HUB, "lmms-lab-encoder/flickr30k", WHOLE_HUB), "**/*.parquet", MIRROR),
        ),
        train=(
            Layout((OFFICIAL,), partial(examples, partial(official, split="train"))),
            *(
                Layout((each,), partial(converted_train, each), name="converted")
                for each in CONVERTED_TRAIN
            ),
            Layout(
                (TABLES,),
                partial(examples, partial(mirrored, split="train")),
                name="mirror",
                pictures=partial(mirror_pictures, split="train"),
            ),
        ),
    ),
)
