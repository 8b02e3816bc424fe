"""OCR-VQA: questions about the covers of books: title, author, genre, year.

Paper     Mishra et al. 2019, https://anandmishra22.github.io/files/mishra-OCR-VQA.pdf
Split     test, about 100,000 questions on 20,796 covers; val, as many on 20,731. How many exactly
          is not known here, so the number of questions is not checked
Protocol  zero-shot, greedy, 1 to 100 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "ocrvqa_test" and
          "ocrvqa_val"
Metric    exact match in lower case, ends stripped
Departs   nowhere known. Questions are numbered <cover>_<n>, n from 0 among the cover's own: what
          the converted files call them is not known, so published result files are read by order
Known     on the day of the release the published script scored val with at most 10 new tokens; val
          and test with 100 came three days later. Where test disagrees with the card's 75.7,
          compute val too. Some covers are GIFs, whose first frame is shown; some downloads save
          every cover as .jpg, so any file extension is accepted. Some are gone from the shop:
          `data verify` names them, and the placeholders that the shop sends in their place
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from eval import ByHand, Expect, Generate, Layout, Mirror, Pictures, Sample, Source, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_json,
    read_jsonl,
    read_parquet,
    read_pictures,
)
from eval.metrics.exact import exact_match
from eval.storage.tree import is_file

SITE = "https://ocr-vqa.github.io/"
OFFICIAL = Source("ocrvqa/dataset.json", origin=f"the drive folder linked at {SITE}")
HUB = "howard-hou/OCR-VQA"
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
NUMBERS = {"train": 1, "val": 2, "test": 3}  # of the splits, in the official file
IN_MIRROR = {"train": "train", "val": "validation", "test": "test"}
KEY = "[0-9A-Za-z]{1,32}"
ENDING = r"(?:\.[0-9A-Za-z]{1,5})?"
ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".JPG", ".GIF")  # that covers are found under


def official(split: str, root: Path) -> Iterator[Sample]:
    """One object for all splits, with a record for each cover."""
    for key, row in covers(split, root):
        yield from cover(split, row, saved(root, key, ending(row, "imageURL")))


def covers(split: str, root: Path) -> Iterator[tuple[str, Record]]:
    """A split's covers by their keys."""
    file = read_json(root / OFFICIAL.path, '{"<cover>": {...}}')
    for key in file.values:
        row = file.record(key)
        number = row.integer("split", low=1)
        if number not in NUMBERS.values():
            raise row.error(f"field 'split': 1, 2 or 3 expected, {number} found")
        if number == NUMBERS[split]:
            if not re.fullmatch(KEY, key, re.ASCII):
                raise row.error(f"a key like {KEY} expected, {key[:60]!r} found")
            yield key, row


def converted(split: str, path: str, root: Path) -> Iterator[Sample]:
    """Questions one by one, numbered by how many of the same cover came before."""
    before: Counter[str] = Counter()
    for row in read_jsonl(root / path):
        name = PurePosixPath(row.tail("image", f"images/{KEY}{ENDING}"))
        image = saved(root, name.stem, name.suffix)
        yield sample(split, image, before[image], row.text("question"), row.text("answer"))
        before[image] += 1


def mirrored(split: str, source: Source, root: Path) -> Iterator[Sample]:
    """One row for each cover, under the key and the URL of the official file."""
    columns = ("image_id", "image_url", "questions", "answers", "set_name")
    for row in read_parquet(root, source, columns):
        row.text("set_name", f"(?i:{split}|{IN_MIRROR[split]})")
        yield from cover(split, row, mirror_name(row, root))


def mirror_pictures(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """The covers."""
    for row, picture in read_pictures(root, source, ("image_id", "image_url")):
        yield mirror_name(row, root), picture


def mirror_name(row: Record, root: Path) -> str:
    """Where the cover of a mirror's row lies."""
    return saved(root, row.text("image_id", KEY), ending(row, "image_url"))


def saved(root: Path, key: str, end: str) -> str:
    """Where a cover lies: under its URL's ending, unless it is found under another one only."""
    folder = "ocrvqa/images"
    paths = [f"{folder}/{key}{each}" for each in dict.fromkeys((end, *ENDINGS))]
    return next((path for path in paths if is_file(root / path)), paths[0])


def ending(row: Record, name: str) -> str:
    """The ending of a cover's URL, under which the official downloader saves it."""
    suffix = posixpath.splitext(row.text(name))[1]
    if not re.fullmatch(ENDING, suffix, re.ASCII):
        raise row.error(f"field {name!r}: an ending such as .jpg expected, {suffix[:60]!r} found")
    return suffix


def cover(split: str, row: Record, image: str) -> Iterator[Sample]:
    """All questions on one cover."""
    questions, answers = row.texts("questions"), row.texts("answers")
    if len(questions) != len(answers):
        raise row.error(
            f"as many answers as questions expected, {len(questions)} questions and "
            f"{len(answers)} answers found"
        )
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        yield sample(split, image, number, question, answer)


def sample(split: str, image: str, number: int, question: str, answer: str) -> Sample:
    """One question, known by its cover and its number among the cover's."""
    fields = {"image": image, "question": question}
    if split == "train":
        fields["answer"] = answer
    return Sample(f"{PurePosixPath(image).stem}_{number}", fields, reference=answer)


def cover_urls(split: str, root: Path) -> Iterator[tuple[str, str]]:
    """(URL, path) of each cover, saved as the official downloader does. Only from the web."""
    for key, row in covers(split, root):
        url = row.text("imageURL", r"https?://[!-~]+")
        yield url, saved(root, key, ending(row, "imageURL"))


def layouts(split: str) -> tuple[Layout, ...]:
    """All in which a split is found."""
    lines = converted_source(f"ocrvqa/ocrvqa_{split}.jsonl")
    tables = hub_source(f"ocrvqa/mirror/**/{IN_MIRROR[split]}-*.parquet", HUB)
    return (
        Layout((OFFICIAL,), partial(official, split)),
        Layout((lines,), partial(converted, split, lines.path), name="converted"),
        Layout(
            (tables,),
            partial(mirrored, split, tables),
            name="mirror",
            pictures=partial(mirror_pictures, tables),
        ),
    )


IMAGES = {"val": 20731, "test": 20796}
TASKS = tuple(
    Task(
        name=f"ocrvqa_{split}",
        size=None,  # about 100,000
        layouts=layouts(split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=100, min_new_tokens=1),
        metrics={"exact_match": exact_match},
        chat=CHAT,
        renumbered=True,
        expect=Expect(images=images),
        steps=(
            ByHand("ocrvqa/dataset.json", SITE),
            Pictures(partial(cover_urls, split)),
            Mirror((HUB,), f"**/{IN_MIRROR[split]}-*.parquet", "ocrvqa/mirror"),
        ),
        train=layouts("train"),
        train_steps=(Pictures(partial(cover_urls, "train")),),
    )
    for split, images in IMAGES.items()
)
