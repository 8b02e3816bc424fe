"""TextVQA: questions about the text that stands in a photograph.

Paper     Singh et al. 2019, https://arxiv.org/abs/1904.08920
Split     val of release 0.5.1, 5,000 questions with 10 human answers each
Protocol  zero-shot, greedy, at most 10 new tokens, no OCR tokens in the prompt, questions in lower
          case as released; Qwen-VL eval_mm/evaluate_vqa.py, "textvqa_val"
Metric    VQA accuracy, leave-one-out over the ten answers; by the altered rules behind the
          published figures, and beside it by the official ones
Departs   nowhere known
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval import Generate, Layout, Sample, Source, Task
from eval.data import converted_source, read_json, read_jsonl, vqa_samples
from eval.metrics.vqa import vqa_accuracy

OFFICIAL = Source(
    "textvqa/TextVQA_0.5.1_val.json",
    origin="https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json",
)
QUESTIONS = converted_source("textvqa/textvqa_val.jsonl")
ANSWERS = converted_source("textvqa/textvqa_val_annotations.json")
PROMPT = "<img>{image}</img>{question} Answer:"
NAME = r"[0-9A-Za-z_-]+"


def official(root: Path) -> Iterator[Sample]:
    """The ten answers are bare strings; val's images lie among those of train."""
    for row in read_json(root / OFFICIAL.path).records("data"):
        image = f"textvqa/train_images/{row.text('image_id', NAME)}.jpg"
        answers = row.texts("answers")
        if not answers:
            raise row.error("field 'answers': at least one answer expected, none found")
        fields = {"image": image, "question": row.text("question")}
        yield Sample(row.id("question_id"), fields, reference=answers)


def converted(root: Path) -> Iterator[Sample]:
    """Questions with their image files, and answers in the format of VQA v2."""
    rows = read_jsonl(root / QUESTIONS.path)
    pattern = rf"train_images/{NAME}\.jpg"
    questions = ((row, f"textvqa/{row.tail('image', pattern)}") for row in rows)
    return vqa_samples(questions, root / ANSWERS.path)


TASKS = (
    Task(
        name="textvqa_val",
        size=5000,
        layouts=(Layout((OFFICIAL,), official), Layout((QUESTIONS, ANSWERS), converted)),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics={
            "vqa_accuracy": vqa_accuracy,
            "vqa_accuracy_official": partial(vqa_accuracy, variant="official"),
        },
    ),
)
