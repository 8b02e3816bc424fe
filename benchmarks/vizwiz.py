"""VizWiz: questions that blind people asked about photographs they took.

Paper     Gurari et al. 2018, https://arxiv.org/abs/1802.08218
Split     val, 4,319 questions with 10 human answers each; test, 8,000, whose answers only the
          server knows. One question a picture
Protocol  zero-shot, greedy, at most 10 new tokens, no word of unanswerable questions in the prompt;
          Qwen-VL eval_mm/evaluate_vqa.py, "vizwiz_val" and "vizwiz_test"
Metric    VQA accuracy, leave-one-out over the ten answers, which carry no numbers and are counted
          as numbered; by the altered rules behind the published figures, and beside it by the
          official ones
Departs   nowhere known. A sample is known by its picture's name, as the server knows it; published
          result files of val have numbers of the converted files instead and are read by order
Known     the card does not say which split its figure is of, presumably what the server calls
          test-dev; val stands in for it here. A release of 2018 and 2019 has other questions and
          names of twelve digits. Other harnesses tell the model to answer "unanswerable"
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from typing_extensions import TypedDict

from eval import Archive, Expect, Generate, Layout, Mirror, Sample, Source, Submission, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_jsonl,
    read_list,
    read_parquet,
    read_pictures,
    vqa_samples,
)
from eval.data.samples import bare_answers, human_answers, with_answers, wrong_count
from eval.metrics.vqa import VQA_METRICS

SITE = "https://vizwiz.cs.colorado.edu/VizWiz_final/"
RECORDS = f"{SITE}vqa_data/Annotations.zip"
HUB = "lmms-lab/VizWiz-VQA"
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
OLD = re.compile(r"VizWiz_[a-z]+_[0-9]{12}(\.jpg)?\Z")
GB = {"val": 2.1, "test": 4.0}
ANSWERS = 10  # of each question whose answers are known


def official(split: str, path: str, root: Path) -> Iterator[Sample]:
    """One list of records; test's have no answers."""
    for row in read_list(root / path):
        answers = None if split == "test" else human_answers(row)
        groups = {"answer_type": row.text("answer_type")} if row.has("answer_type") else {}
        if row.has("answerable"):
            groups["answerable"] = str(row.integer("answerable"))
        yield sample(row, picture(split, row, "image"), answers, groups)


def converted(lines: str, annotations: str, root: Path) -> Iterator[Sample]:
    """Val's questions with their image files; the answers are in VQA v2's format, with its ids."""
    rows = read_jsonl(root / lines)
    questions = ((row, picture("val", row, "image")) for row in rows)
    for sample in vqa_samples(questions, root / annotations):
        name = PurePosixPath(sample.fields["image"]).name
        yield Sample(name, sample.fields, reference=sample.reference, groups=sample.groups)


def converted_test(path: str, root: Path) -> Iterator[Sample]:
    """Test's questions with their image files."""
    for row in read_jsonl(root / path):
        yield sample(row, picture("test", row, "image"), None, {})


def mirrored(split: str, source: Source, root: Path) -> Iterator[Sample]:
    """Rows whose question_id is the image's name, with bare answers."""
    columns = ["question_id", "question"]
    columns += ["answers", "category"] if split == "val" else []
    for row in read_parquet(root, source, columns):
        answers = bare_answers(row) if split == "val" else None
        groups = {"answer_type": row.text("category")} if row.has("category") else {}
        yield sample(row, picture(split, row, "question_id"), answers, groups)


def mirror_pictures(split: str, source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each row's picture."""
    for row, content in read_pictures(root, source, ["question_id"]):
        yield picture(split, row, "question_id"), content


def picture(split: str, row: Record, name: str) -> str:
    """Where the picture lies that a field names, in any folder, with or without its ending.

    Raises DataError for another split's, and for the old release's.
    """
    if OLD.search(row.text(name)):
        raise row.error(
            f"field {name!r}: a name of eight digits expected, {row.values[name]!r} found. The "
            f"file is of the old release, whose questions are others; the current one: {RECORDS}"
        )
    stem = row.tail(name, rf"VizWiz_{split}_[0-9]{{8}}(\.jpg)?").removesuffix(".jpg")
    return f"vizwiz/{split}/{stem}.jpg"


def sample(row: Record, image: str, reference: list[Any] | None, groups: dict[str, str]) -> Sample:
    """One question, known by its picture's name."""
    fields = {"image": image, "question": row.text("question")}
    return Sample(PurePosixPath(image).name, fields, reference=reference, groups=groups)


def examples(path: str, root: Path) -> Iterator[Sample]:
    """Questions of the training split, each with the most frequent of its ten answers."""
    return with_answers(official("train", path, root))


def converted_examples(path: str, root: Path) -> Iterator[Sample]:
    """Questions of the training split, which the converted file gives with one answer."""
    for row in read_jsonl(root / path):
        example = sample(row, picture("train", row, "image"), None, {})
        yield Sample(example.id, {**example.fields, "answer": row.text("answer")})


class Answer(TypedDict):
    """One record of the server's file."""

    image: str
    answer: str


def submission(
    root: Path, answers: Mapping[str, str], model: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A stripped answer for every picture of test."""
    return [{"image": each, "answer": text.strip()} for each, text in answers.items()]


def layouts(split: str) -> tuple[Layout, ...]:
    """All in which a split is found."""
    raw = Source(f"vizwiz/{split}.json", origin=RECORDS)
    lines = converted_source(f"vizwiz/vizwiz_{split}.jsonl")
    if split == "train":
        return (
            Layout((raw,), partial(examples, raw.path)),
            Layout((lines,), partial(converted_examples, lines.path), name="converted"),
        )
    if split == "val":
        answers = converted_source("vizwiz/vizwiz_val_annotations.json")
        read = partial(converted, lines.path, answers.path)
        second = Layout((lines, answers), read, name="converted")
    else:
        second = Layout((lines,), partial(converted_test, lines.path), name="converted")
    tables = hub_source(f"vizwiz/mirror/**/{split}-*.parquet", HUB)
    pictures = partial(mirror_pictures, split, tables)
    mirror = Layout((tables,), partial(mirrored, split, tables), name="mirror", pictures=pictures)
    return (Layout((raw,), partial(official, split, raw.path)), second, mirror)


COUNTS = {"val": 4319, "test": 8000}  # questions, and as many pictures
TASKS = tuple(
    Task(
        name=f"vizwiz_{split}",
        size=size,
        layouts=layouts(split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics=VQA_METRICS,
        chat=CHAT,
        renumbered=True,
        expect=Expect(
            images=size,
            answers=ANSWERS * size if split == "val" else None,
            each=partial(wrong_count, ANSWERS, "answers") if split == "val" else None,
        ),
        steps=(
            Archive(RECORDS, "vizwiz", rf"(train|{split})\.json"),
            Archive(
                f"{SITE}images/{split}.zip",
                "vizwiz",
                rf"{split}/VizWiz_{split}_[0-9]{{8}}\.jpg",
                gb=GB[split],
            ),
            Mirror(("lmms-lab-encoder/VizWiz-VQA", HUB), f"**/{split}-*.parquet", "vizwiz/mirror"),
        ),
        train=layouts("train"),
        train_steps=(
            Archive(f"{SITE}images/train.zip", "vizwiz", r"train/VizWiz_train_[0-9]{8}\.jpg"),
        ),
        submission=Submission(
            server="EvalAI, VizWiz VQA, https://vizwiz.org/tasks-and-datasets/vqa/",
            file="vizwiz_test.json",
            build=submission,
            schema=list[Answer],
        )
        if split == "test"
        else None,
    )
    for split, size in COUNTS.items()
)
