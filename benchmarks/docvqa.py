"""DocVQA: questions about one scanned page of a letter, a report, a form.

Paper     Mathew et al. 2021, https://arxiv.org/abs/2007.00398
Split     val, 5,349 questions on 1,286 pages; test, 5,188 on 1,287, whose answers only the server
          knows
Protocol  zero-shot, greedy, 1 to 100 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "docvqa_val" and
          "docvqa_test"
Metric    ANLS, of answers stripped at their ends; a similarity of exactly 0.5 counts
Departs   nowhere known
Known     the card's figure is test's, scored by the server, which needs an account; val stands in
          for it here. Scorers in circulation differ on a similarity of exactly 0.5, which a strict
          reading of the paper counts 0
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval import ByHand, Expect, Generate, Layout, Mirror, Sample, Source, Submission, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_json,
    read_jsonl,
    read_parquet,
    read_pictures,
)
from eval.data.mirrors import distinct
from eval.metrics.anls import anls
from eval.storage.reading import is_folder

SITE = "https://rrc.cvc.uab.es/?ch=17&com=downloads"
HUB = "lmms-lab/DocVQA"
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
DOCUMENT, PAGE_NUMBER = "[0-9A-Za-z]{1,64}", "[0-9]{1,9}"
PAGE = rf"{DOCUMENT}_{PAGE_NUMBER}\.png"
NUMBER = "(0|[1-9][0-9]{0,17})"  # a question's: the server takes integers
FORM = '{"dataset_name": ..., "data": [...]}'
COLUMNS = ("questionId", "question", "question_types", "answers", "data_split")
NAMED_BY = ("ucsf_document_id", "ucsf_document_page_no")
IN_MIRROR = {"train": "train", "val": "validation", "test": "test"}
LATER_PAGES = "docvqa/spdocvqa_images"  # of all splits
LATER = {  # only of test are there no types of question
    "train": "train_v1.0_withQT.json",
    "val": "val_v1.0_withQT.json",
    "test": "test_v1.0.json",
}


def official(split: str, path: str, root: Path) -> Iterator[Sample]:
    """A package's questions; they name pages by `documents/<document>_<page>.png`."""
    pages = folder(split, root)
    for row in read_json(root / path, FORM).records("data"):
        row.text("data_split", split)
        image = f"{pages}/{row.tail('image', PAGE)}"
        yield sample(split, row, "questionId", image, answers(split, row, "answers"))


def converted(split: str, path: str, root: Path) -> Iterator[Sample]:
    """Questions with their pages and, but for test, all their answers."""
    pages = folder(split, root)
    for row in read_jsonl(root / path):
        image = f"{pages}/{row.tail('image', PAGE)}"
        yield sample(split, row, "question_id", image, answers(split, row, "answer"))


def mirrored(split: str, source: Source, root: Path) -> Iterator[Sample]:
    """The official records; the page's name follows from its document and its number."""
    for row in read_parquet(root, source, (*COLUMNS, *NAMED_BY)):
        row.text("data_split", rf"{split}|{IN_MIRROR[split]}")
        yield sample(split, row, "questionId", page(split, row), answers(split, row, "answers"))


def mirror_pictures(split: str, source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each page once, though it stands beside each of its questions."""
    rows = read_pictures(root, source, NAMED_BY)
    return distinct((page(split, row), picture) for row, picture in rows)


def page(split: str, row: Record) -> str:
    """Where the page of a mirror's row lies."""
    document = row.text("ucsf_document_id", DOCUMENT)
    number = row.text("ucsf_document_page_no", PAGE_NUMBER)
    return f"docvqa/{split}/documents/{document}_{number}.png"


def folder(split: str, root: Path) -> str:
    """Where a split's pages lie: as in its own package, or as in the later one of all pages."""
    own = f"docvqa/{split}/documents"
    return LATER_PAGES if is_folder(root / LATER_PAGES) and not is_folder(root / own) else own


def answers(split: str, row: Record, name: str) -> list[str] | None:
    """The accepted answers. Raises DataError for none, and for test's if there are any.

    The converted files give a list, or where there is one answer perhaps the answer itself.
    """
    if name == "answer" and isinstance(row.values.get(name), str):
        texts = [row.text(name)]
    else:
        texts = row.texts(name) if row.has(name) else []
    if split == "test" and texts:
        raise row.error(f"field {name!r}: none expected in test, {len(texts)} answers found")
    if split != "test" and not texts:
        raise row.error(f"field {name!r}: at least one answer expected, none found")
    return texts or None


def sample(split: str, row: Record, name: str, image: str, answers: list[str] | None) -> Sample:
    """One question, known by its number, which may be written as a string.

    Where it is of more than one type they are joined.
    """
    number = row.id(name)
    if not re.fullmatch(NUMBER, number):
        raise row.error(f"field {name!r}: a number like {NUMBER} expected, {number[:60]!r} found")
    fields = {"image": image, "question": row.text("question")}
    if split == "train" and answers:
        fields["answer"] = max(
            answers, key=answers.count
        )  # the first of those that are most frequent
    types = row.texts("question_types") if row.has("question_types") else []
    groups = {"question_type": " + ".join(sorted(types))} if types else {}
    return Sample(number, fields, reference=answers, groups=groups)


def layouts(split: str) -> tuple[Layout, ...]:
    """All in which a split is found."""
    first = Source(f"docvqa/{split}/{split}_v1.0.json", origin=f"package {split} of {SITE}")
    later = Source(f"docvqa/spdocvqa_qas/{LATER[split]}", origin=f"package spdocvqa_qas of {SITE}")
    lines = converted_source(f"docvqa/{split}.jsonl")
    tables = hub_source(f"docvqa/mirror/DocVQA/{IN_MIRROR[split]}-*.parquet", HUB)
    return (
        Layout((first,), partial(official, split, first.path)),
        Layout((later,), partial(official, split, later.path)),
        Layout((lines,), partial(converted, split, lines.path), name="converted"),
        Layout(
            (tables,),
            partial(mirrored, split, tables),
            name="mirror",
            pictures=partial(mirror_pictures, split, tables),
        ),
    )


class Answer(TypedDict):
    """One record of the server's file."""

    questionId: int
    answer: str


def submission(
    root: Path, answers: Mapping[str, str], model: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One stripped answer for every question of test."""
    return [{"questionId": int(each), "answer": text.strip()} for each, text in answers.items()]


def stripped_anls(prediction: str, references: list[str]) -> float:
    """ANLS as the published script takes it: its rule would count white space at the ends."""
    return anls(prediction.strip(), references)


def steps(split: str) -> tuple[ByHand | Mirror, ...]:
    """The site asks for an account; the mirror does not."""
    what = (
        f"package {split}: docvqa/{split}/{split}_v1.0.json and docvqa/{split}/documents/; or the "
        f"later ones: docvqa/spdocvqa_qas/{LATER[split]} and {LATER_PAGES}/"
    )
    files = f"DocVQA/{IN_MIRROR[split]}-*.parquet"
    mirror = Mirror(("lmms-lab-encoder/DocVQA", HUB), files, "docvqa/mirror")
    return (ByHand(what, SITE), mirror)


COUNTS = {"val": (5349, 1286), "test": (5188, 1287)}
TASKS = tuple(
    Task(
        name=f"docvqa_{split}",
        size=size,
        layouts=layouts(split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=100, min_new_tokens=1),
        metrics={"anls": stripped_anls},
        chat=CHAT,
        expect=Expect(images=images),
        steps=steps(split),
        train=layouts("train"),
        train_steps=steps("train")[:1],
        submission=Submission(
            server="Robust Reading Competition, challenge 17, task 1, https://rrc.cvc.uab.es/?ch=17",
            file="docvqa_test.json",
            build=submission,
            schema=list[Answer],
        )
        if split == "test"
        else None,
    )
    for split, (size, images) in COUNTS.items()
)
