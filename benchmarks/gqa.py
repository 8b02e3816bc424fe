"""GQA: compositional questions about photographs, made from scene graphs.

Paper     Hudson and Manning 2019, https://arxiv.org/abs/1902.09506
Split     testdev balanced, 12,578 questions on 398 images, one short answer each
Protocol  zero-shot, greedy, at most 10 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "gqa_testdev"
Metric    exact match after a clean-up of the prediction
Departs   nowhere known
Known     the clean-up is the published script's and eats parts of words: "pizza slice" becomes
          "slice". Harnesses that feed GQA's own scorer give other figures. Several files are
          called test: test balanced has no answers, testdev all is not balanced
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval import Archive, Expect, Generate, Layout, Mirror, Sample, Source, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_json,
    read_jsonl,
    read_parquet,
    read_pictures,
)
from eval.metrics.exact import gqa_match

SITE = "https://downloads.cs.stanford.edu/nlp/data/gqa/"
QUESTIONS = f"{SITE}questions1.2.zip"
OFFICIAL = Source("gqa/testdev_balanced_questions.json", origin=QUESTIONS)
TRAIN = Source("gqa/train_balanced_questions.json", origin=QUESTIONS)
CONVERTED = converted_source("gqa/testdev_balanced.jsonl")
CONVERTED_TRAIN = [converted_source(f"gqa/{name}.jsonl") for name in ("train", "train_balanced")]
HUB = "lmms-lab/GQA"
TABLES = hub_source("gqa/mirror/**/testdev_balanced_instructions/*.parquet", HUB)
PICTURES = hub_source("gqa/mirror/**/testdev_balanced_images/*.parquet", HUB)
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
IMAGE_ID = "n?[0-9]{1,18}"
TYPES = ("structural", "semantic")


def official(source: Source, root: Path) -> Iterator[Sample]:
    """One object, whose keys are the questions' numbers."""
    file = read_json(root / source.path, '{"<question>": {...}}')
    for number in file.values:
        row = file.record(number)
        yield balanced(number, row)


def mirrored(root: Path) -> Iterator[Sample]:
    """The official records with their numbers; a second table holds the images they name."""
    known = {row.text("id") for row in read_parquet(root, PICTURES, ["id"])}
    columns = ["id", "imageId", "question", "answer", "isBalanced", "types"]
    for row in read_parquet(root, TABLES, columns):
        question = balanced(row.id("id"), row)
        if (image := row.text("imageId")) not in known:
            raise row.error(f"field 'imageId': one of the second table expected, {image!r} found")
        yield question


def mirror_pictures(root: Path) -> Iterator[tuple[str, bytes]]:
    """Each image once, as the second table does."""
    for row, content in read_pictures(root, PICTURES, ["id"]):
        yield picture(row, "id"), content


def converted(source: Source, root: Path) -> Iterator[Sample]:
    """Questions with their image files, without types."""
    for row in read_jsonl(root / source.path):
        image = row.tail("image", rf"images/{IMAGE_ID}\.jpg")
        yield sample(row.id("question_id"), row, f"gqa/{image}")


def balanced(number: str, row: Record) -> Sample:
    """An official record. Raises DataError where it is not of the balanced questions."""
    if row.values.get("isBalanced") is not True:
        raise row.error(
            "field 'isBalanced': true expected, as in each of the balanced questions. Is the file "
            "that of all questions?"
        )
    types = row.record("types") if row.has("types") else None
    groups = {name: types.text(name) for name in TYPES if types and types.has(name)}
    return sample(number, row, picture(row, "imageId"), groups)


def picture(row: Record, name: str) -> str:
    """Where the image lies that a field tells the number of."""
    return f"gqa/images/{row.text(name, IMAGE_ID)}.jpg"


def sample(number: str, row: Record, image: str, groups: dict[str, str] | None = None) -> Sample:
    """One question."""
    answer = row.text("answer")
    fields = {"image": image, "question": row.text("question")}
    return Sample(number, fields, reference=answer, groups=groups or {})


def examples(read: "partial[Iterator[Sample]]", root: Path) -> Iterator[Sample]:
    """Questions of the training split, to be shown with their answers."""
    for sample in read(root):
        yield Sample(sample.id, {**sample.fields, "answer": sample.reference})


TASKS = (
    Task(
        name="gqa_testdev",
        size=12578,
        layouts=(
            Layout((OFFICIAL,), partial(official, OFFICIAL)),
            Layout((CONVERTED,), partial(converted, CONVERTED), name="converted"),
            Layout((TABLES, PICTURES), mirrored, name="mirror", pictures=mirror_pictures),
        ),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics={"exact_match": gqa_match},
        chat=CHAT,
        expect=Expect(images=398),
        steps=(
            Archive(QUESTIONS, "gqa", r"(testdev|train)_balanced_questions\.json", gb=1.4),
            Archive(f"{SITE}images.zip", "gqa", rf"images/{IMAGE_ID}\.jpg", gb=20),
            Mirror(("lmms-lab-encoder/GQA", HUB), "testdev_balanced_*/*.parquet", "gqa/mirror"),
        ),
        train=(
            Layout((TRAIN,), partial(examples, partial(official, TRAIN))),
            *(
                Layout((each,), partial(examples, partial(converted, each)), name="converted")
                for each in CONVERTED_TRAIN
            ),
        ),
    ),
)
