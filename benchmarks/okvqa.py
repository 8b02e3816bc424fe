"""OK-VQA: open questions on COCO photographs that need knowledge from outside the picture.

Paper     Marino et al. 2019, https://arxiv.org/abs/1906.00067
Split     val, 5,046 questions with 10 human answers each
Protocol  zero-shot, greedy, at most 10 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "okvqa_val"
Metric    VQA accuracy, leave-one-out over the ten answers; by the altered rules behind the
          published figures, and beside it by the official ones
Departs   nowhere known; release 1.1 of the answers is meant, and which release is read is not
          checked yet
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval import Generate, Layout, Sample, Source, Task
from eval.data import converted_source, read_json, read_jsonl, vqa_samples
from eval.metrics.vqa import vqa_accuracy

SITE = "https://okvqa.allenai.org/download.html, release 1.1, unzipped"
QUESTIONS = Source("okvqa/OpenEnded_mscoco_val2014_questions.json", origin=SITE)
ANSWERS = Source("okvqa/mscoco_val2014_annotations.json", origin=SITE)
CONVERTED = converted_source("okvqa/okvqa_val.jsonl")
PROMPT = "<img>{image}</img>{question} Answer:"
IMAGE = r"val2014/COCO_val2014_[0-9]{12}\.jpg"


def official(root: Path) -> Iterator[Sample]:
    """Questions name COCO's images by their numbers."""
    rows = read_json(root / QUESTIONS.path).records("questions")
    name = "coco/val2014/COCO_val2014_{:012d}.jpg"
    questions = ((row, name.format(row.integer("image_id"))) for row in rows)
    return vqa_samples(questions, root / ANSWERS.path)


def converted(root: Path) -> Iterator[Sample]:
    """Questions name image files; they carry no ten answers, so the official ones are joined."""
    rows = read_jsonl(root / CONVERTED.path)
    questions = ((row, f"coco/{row.tail('image', IMAGE)}") for row in rows)
    return vqa_samples(questions, root / ANSWERS.path)


TASKS = (
    Task(
        name="okvqa_val",
        size=5046,
        layouts=(
            Layout((QUESTIONS, ANSWERS), official),
            Layout((CONVERTED, ANSWERS), converted),
        ),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics={
            "vqa_accuracy": vqa_accuracy,
            "vqa_accuracy_official": partial(vqa_accuracy, variant="official"),
        },
    ),
)
