"""TextVQA: questions about the text that stands in a photograph.

Paper     Singh et al. 2019, https://arxiv.org/abs/1904.08920
Split     val of release 0.5.1, 5,000 questions with 10 human answers each on 3,166 images
Protocol  zero-shot, greedy, at most 10 new tokens, no OCR tokens in the prompt, questions in lower
          case as released; Qwen-VL eval_mm/evaluate_vqa.py, "textvqa_val"
Metric    VQA accuracy, leave-one-out over the ten answers; by the altered rules behind the
          published figures, and beside it by the official ones
Departs   nowhere known
Known     other harnesses put OCR tokens into the prompt or capitalise the questions. Figures by the
          m4c evaluator are not comparable: it gives LLaVA-1.5-13B 61.25, the published rules 59.18
"""

import re
from collections.abc import Iterator
from pathlib import Path

from eval import Archive, Download, Expect, Generate, Layout, Mirror, Sample, Source, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_json,
    read_jsonl,
    read_parquet,
    read_pictures,
    vqa_samples,
)
from eval.data.mirrors import distinct
from eval.data.samples import bare_answers, with_answers, wrong_count
from eval.metrics.vqa import VQA_METRICS

SITE = "https://dl.fbaipublicfiles.com/textvqa/"
OFFICIAL, TRAIN = (
    Source(f"textvqa/{name}", origin=f"{SITE}data/{name}")
    for name in ("TextVQA_0.5.1_val.json", "TextVQA_0.5.1_train.json")
)
QUESTIONS = converted_source("textvqa/textvqa_val.jsonl")
ANSWERS = converted_source("textvqa/textvqa_val_annotations.json")
CONVERTED_TRAIN = converted_source("textvqa/textvqa_train.jsonl")
HUB = "lmms-lab/textvqa"
TABLES = hub_source("textvqa/mirror/**/validation-*.parquet", HUB)
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
NAME = r"[0-9A-Za-z_-]+"
IMAGE = rf"train_images/{NAME}\.jpg"  # val's lie among those of train
FIRST, LAST = "34602", "39601"  # numbers of val's questions, without a gap
FORM = '{"dataset_version": ..., "data": [...]}'
HUMANS = 10  # answers to each question


def official(root: Path) -> Iterator[Sample]:
    """The ten answers are bare strings."""
    return map(sample, read_json(root / OFFICIAL.path, FORM).records("data"))


def converted(root: Path) -> Iterator[Sample]:
    """Questions with their image files, and answers in the format of VQA v2.

    That format's types of question are filled in: TextVQA has none.
    """
    rows = read_jsonl(root / QUESTIONS.path)
    questions = ((row, f"textvqa/{row.tail('image', IMAGE)}") for row in rows)
    for sample in vqa_samples(questions, root / ANSWERS.path):
        yield Sample(sample.id, sample.fields, reference=sample.reference)


def mirrored(root: Path) -> Iterator[Sample]:
    """The official records."""
    columns = ["question_id", "image_id", "question", "answers"]
    return map(sample, read_parquet(root, TABLES, columns))


def mirror_pictures(root: Path) -> Iterator[tuple[str, bytes]]:
    """Each image once, though it stands beside each of its questions."""
    rows = read_pictures(root, TABLES, ["image_id"])
    return distinct((picture(row), content) for row, content in rows)


def picture(row: Record) -> str:
    """Where the image lies that a record names."""
    return f"textvqa/train_images/{row.text('image_id', NAME)}.jpg"


def sample(row: Record) -> Sample:
    """An official record."""
    answers = bare_answers(row)
    fields = {"image": picture(row), "question": row.text("question")}
    return Sample(row.id("question_id"), fields, reference=answers)


def examples(root: Path) -> Iterator[Sample]:
    """Questions of the training split, each with the most frequent of its ten answers."""
    return with_answers(map(sample, read_json(root / TRAIN.path, FORM).records("data")))


def converted_examples(root: Path) -> Iterator[Sample]:
    """Questions of the training split, which the converted file gives with one answer."""
    for row in read_jsonl(root / CONVERTED_TRAIN.path):
        image = f"textvqa/{row.tail('image', IMAGE)}"
        fields = {"image": image, "question": row.text("question"), "answer": row.text("answer")}
        yield Sample(row.id("question_id"), fields)


def of_the_split(sample: Sample) -> str | None:
    """What is wrong with a sample. With the count, the range leaves no gap."""
    if not (re.fullmatch("[0-9]{5}", sample.id) and FIRST <= sample.id <= LAST):
        return f"a number from {FIRST} to {LAST} expected"
    return wrong_count(HUMANS, "answers", sample)


TASKS = (
    Task(
        name="textvqa_val",
        size=5000,
        layouts=(
            Layout((OFFICIAL,), official),
            Layout((QUESTIONS, ANSWERS), converted, name="converted"),
            Layout((TABLES,), mirrored, name="mirror", pictures=mirror_pictures),
        ),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics=VQA_METRICS,
        chat=CHAT,
        expect=Expect(images=3166, answers=50000, each=of_the_split),
        steps=(
            *(Download(source.origin, source.path) for source in (OFFICIAL, TRAIN)),
            Archive(f"{SITE}images/train_val_images.zip", "textvqa", IMAGE, gb=7),
            Mirror(("lmms-lab-encoder/textvqa", HUB), "**/validation-*.parquet", "textvqa/mirror"),
        ),
        train=(
            Layout((TRAIN,), examples),
            Layout((CONVERTED_TRAIN,), converted_examples, name="converted"),
        ),
    ),
)
