"""ScienceQA: school science questions with a picture and two to five options.

Paper     Lu et al. 2022, https://arxiv.org/abs/2209.09513
Split     test questions with an image, 2,017 of 4,241
Protocol  zero-shot, nothing generated: " A", " B", ... are appended and the likeliest wins; lecture
          and solution are not shown; Qwen-VL eval_mm/evaluate_multiple_choice.py
Metric    accuracy of the letter
Departs   nowhere known
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from eval import Layout, Rank, Sample, Source, Task
from eval.data import Record, converted_source, read_json, read_jsonl
from eval.metrics.choice import LETTERS, choice_accuracy, option_tokens, options_text

SITE = "https://github.com/lupantech/ScienceQA, folder data/scienceqa"
PROBLEMS = Source("scienceqa/problems.json", origin=SITE)
SPLITS = Source("scienceqa/pid_splits.json", origin=SITE)
CONVERTED = converted_source("scienceqa/scienceqa_test_img.jsonl")
PROMPT = "<img>{image}</img>Context: {hint}\nQuestion: {question}\nOptions: {options}\nAnswer:"
NUMBER = "[0-9]{1,18}"
IMAGE = rf"images/test/{NUMBER}/image\.png"


def official(root: Path) -> Iterator[Sample]:
    """Problems by number, and the numbers of the test split; those without image are left out."""
    problems = read_json(root / PROBLEMS.path)
    for number in read_json(root / SPLITS.path).texts("test", NUMBER):
        row = problems.record(number)
        if row.has("image"):
            picture = row.text("image", r"image\.png")
            yield sample(row, f"images/test/{number}/{picture}")


def converted(root: Path) -> Iterator[Sample]:
    """Records without a number; the image's folder tells it."""
    for row in read_jsonl(root / CONVERTED.path):
        yield sample(row, row.tail("image", IMAGE))


def sample(row: Record, image: str) -> Sample:
    """One problem, known by the number of its image's folder."""
    choices = row.texts("choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise row.error(f"field 'choices': 2 to {len(LETTERS)} expected, {len(choices)} found")
    answer = row.integer("answer")
    if answer >= len(choices):
        raise row.error(f"field 'answer': below {len(choices)} expected, {answer} found")
    fields = {
        "image": f"scienceqa/{image}",
        "hint": (row.text("hint") if row.has("hint") else "") or "N/A",
        "question": row.text("question"),
        "options": options_text(choices),
    }
    number = PurePosixPath(image).parent.name
    return Sample(number, fields, reference=LETTERS[answer], options=option_tokens(choices))


TASKS = (
    Task(
        name="scienceqa_test_img",
        size=2017,
        layouts=(Layout((PROBLEMS, SPLITS), official), Layout((CONVERTED,), converted)),
        prompt=PROMPT,
        decode=Rank,
        metrics={"accuracy": choice_accuracy},
    ),
)
