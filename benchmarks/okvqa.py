"""OK-VQA: open questions on COCO photographs that need knowledge from outside the picture.

Paper     Marino et al. 2019, https://arxiv.org/abs/1906.00067
Split     val, 5,046 questions with 10 human answers each on 5,033 images
Protocol  zero-shot, greedy, at most 10 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "okvqa_val"
Metric    VQA accuracy, leave-one-out over the ten answers; by the altered rules behind the
          published figures, and beside it by the official ones
Departs   nowhere known
Known     release 1.0 of the answers holds stems that are no words, such as "poni tail"; 1.1, which
          is meant here, repairs them. The mirror does not say which of an answer's two forms its
          bare texts are. Other harnesses add a hint on unanswerable questions to the prompt
"""

import re
from collections.abc import Iterator
from pathlib import Path

from eval import Archive, Expect, Generate, Layout, Mirror, Sample, Source, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_json,
    read_jsonl,
    read_pictures,
    vqa_samples,
)
from eval.data.coco import coco_archive, coco_image, coco_pattern
from eval.data.mirrors import digest_name, distinct
from eval.data.samples import GROUPS, answer_texts, bare_answers, with_answers, wrong_count
from eval.metrics.vqa import VQA_METRICS

FILES = "https://okvqa.allenai.org/static/data/"
SITE = "https://okvqa.allenai.org/download.html, release 1.1, unzipped"
QUESTIONS = Source("okvqa/OpenEnded_mscoco_val2014_questions.json", origin=SITE)
ANSWERS = Source("okvqa/mscoco_val2014_annotations.json", origin=SITE)
CONVERTED = converted_source("okvqa/okvqa_val.jsonl")
TRAIN_QUESTIONS = Source("okvqa/OpenEnded_mscoco_train2014_questions.json", origin=SITE)
TRAIN_ANSWERS = Source("okvqa/mscoco_train2014_annotations.json", origin=SITE)
CONVERTED_TRAIN = converted_source("okvqa/okvqa_train.jsonl")
HUB = "lmms-lab/OK-VQA"
TABLES = hub_source("okvqa/mirror/**/val2014-*.parquet", HUB)
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
COCO_NAME = re.compile(r"COCO_(train2014|val2014)_[0-9]{12}\.jpg\Z", re.ASCII)
HUMANS = 10  # answers to each question
STEM = "poni tail"  # among the answers of release 1.0 alone


def official(root: Path) -> Iterator[Sample]:
    """Questions name COCO's images by their numbers."""
    return joined("val2014", QUESTIONS, ANSWERS, root)


def joined(folder: str, questions: Source, answers: Source, root: Path) -> Iterator[Sample]:
    """The two official files of one split."""
    rows = read_json(root / questions.path, '{"questions": [...]}').records("questions")
    pairs = ((row, coco_image(folder, row.integer("image_id"))) for row in rows)
    return vqa_samples(pairs, root / answers.path)


def converted(root: Path) -> Iterator[Sample]:
    """Questions name image files; they carry no ten answers, so the official ones are joined."""
    rows = read_jsonl(root / CONVERTED.path)
    questions = ((row, f"coco/{row.tail('image', coco_pattern('val2014'))}") for row in rows)
    return vqa_samples(questions, root / ANSWERS.path)


def mirrored(root: Path) -> Iterator[Sample]:
    """Rows with bare answers."""
    for row, content in read_pictures(
        root, TABLES, ["question_id", "question", "answers", *GROUPS]
    ):
        answers = bare_answers(row)
        fields = {"image": picture(row, content), "question": row.text("question")}
        groups = {name: row.text(name) for name in GROUPS if row.values.get(name)}
        yield Sample(row.id("question_id"), fields, reference=answers, groups=groups)


def mirror_pictures(root: Path) -> Iterator[tuple[str, bytes]]:
    """Each image once; some stand beside two questions."""
    rows = read_pictures(root, TABLES, ())
    return distinct((picture(row, content), content) for row, content in rows)


def picture(row: Record, content: bytes) -> str:
    """Where a mirror's image lies: as COCO has it, if it was saved under its own name."""
    match = COCO_NAME.search(row.text("image")) if row.has("image") else None
    return f"coco/{match[1]}/{match[0]}" if match else digest_name("okvqa/mirror", row, content)


def examples(root: Path) -> Iterator[Sample]:
    """Questions of the training split, each with the most frequent of its ten answers."""
    return with_answers(joined("train2014", TRAIN_QUESTIONS, TRAIN_ANSWERS, root))


def converted_examples(root: Path) -> Iterator[Sample]:
    """Questions of the training split, which the converted file gives with one answer."""
    for row in read_jsonl(root / CONVERTED_TRAIN.path):
        image = f"coco/{row.tail('image', coco_pattern('train2014'))}"
        fields = {"image": image, "question": row.text("question"), "answer": row.text("answer")}
        yield Sample(row.id("question_id"), fields)


def of_the_split(sample: Sample) -> str | None:
    """What is wrong with a sample; a picture without a name of its own may be any."""
    image, answers = sample.fields["image"], answer_texts(sample)
    if image.startswith("coco/") and not image.startswith("coco/val2014/"):
        return f"an image of val2014 expected, {image} found"
    if fault := wrong_count(HUMANS, "answers", sample):
        return fault
    if STEM in answers:
        return f"release 1.1 of the answers expected, {STEM!r} is a stem of release 1.0"
    return None


TASKS = (
    Task(
        name="okvqa_val",
        size=5046,
        layouts=(
            Layout((QUESTIONS, ANSWERS), official),
            Layout((CONVERTED, ANSWERS), converted, name="converted"),
            Layout((TABLES,), mirrored, name="mirror", pictures=mirror_pictures),
        ),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics=VQA_METRICS,
        chat=CHAT,
        expect=Expect(images=5033, answers=50460, each=of_the_split),
        steps=(
            *(
                Archive(
                    f"{FILES}{source.path.removeprefix('okvqa/')}.zip",
                    "okvqa",
                    re.escape(source.path.removeprefix("okvqa/")),
                )
                for source in (QUESTIONS, ANSWERS, TRAIN_QUESTIONS, TRAIN_ANSWERS)
            ),
            coco_archive("val2014"),
            Mirror(("lmms-lab-encoder/OK-VQA", HUB), "**/val2014-*.parquet", "okvqa/mirror"),
        ),
        train=(
            Layout((TRAIN_QUESTIONS, TRAIN_ANSWERS), examples),
            Layout((CONVERTED_TRAIN,), converted_examples, name="converted"),
        ),
        train_steps=(coco_archive("train2014"),),
    ),
)
