"""ScienceQA: school science questions with a picture and two to five options.

Paper     Lu et al. 2022, https://arxiv.org/abs/2209.09513
Split     test questions with an image, 2,017 of 4,241
Protocol  zero-shot, nothing generated: " A", " B", ... are appended and the likeliest wins; lecture
          and solution are not shown; Qwen-VL eval_mm/evaluate_multiple_choice.py
Metric    accuracy of the letter
Departs   nowhere known
Known     other harnesses let the model generate an answer and score far less, and both the 2,017
          and all 4,241 questions are called test. Mirrors do not tell the problems' numbers: there
          a sample is known by its row among those with a picture, as row-0, so its answers cannot
          be paired with those of a run on the other layouts
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from eval import Archive, Download, Layout, Mirror, Rank, Sample, Source, Task
from eval.data import Record, converted_source, hub_source, read_json, read_jsonl, read_pictures
from eval.data.mirrors import digest_name, distinct
from eval.metrics.choice import LETTERS, choice_accuracy, option_tokens, options_text

SITE = "https://github.com/lupantech/ScienceQA, folder data/scienceqa"
RAW = "https://raw.githubusercontent.com/lupantech/ScienceQA/main/data/scienceqa"
IMAGES = "https://scienceqa.s3.us-west-1.amazonaws.com/images/test.zip"
PROBLEMS = Source("scienceqa/problems.json", origin=SITE)
SPLITS = Source("scienceqa/pid_splits.json", origin=SITE)
CONVERTED = converted_source("scienceqa/scienceqa_test_img.jsonl")
HUB, OTHER_HUB = "lmms-lab/ScienceQA", "derek-thomas/ScienceQA"
TABLES = {  # the first has only the questions with an image
    HUB: "scienceqa/mirror/**/ScienceQA-IMG/test-*.parquet",
    OTHER_HUB: "scienceqa/mirror/data/test-*.parquet",
}
TOLD = "Context: {hint}\nQuestion: {question}\nOptions: {options}\nAnswer:"
PROMPT = f"<img>{{image}}</img>{TOLD}"
CHAT = f"Picture 1: <img>{{image}}</img>\n{TOLD}"
NUMBER = "[0-9]{1,18}"
IMAGE = rf"images/test/{NUMBER}/image\.png"
GROUPS = ("subject", "grade")
COLUMNS = ("question", "choices", "answer", "hint", *GROUPS)


def official(root: Path) -> Iterator[Sample]:
    """Problems by number, and the numbers of the test split; those without image are left out."""
    problems = read_json(root / PROBLEMS.path, '{"<problem>": {...}}')
    splits = read_json(root / SPLITS.path, '{"test": [...]}')
    for number in splits.texts("test", NUMBER):
        row = problems.record(number)
        if row.has("image"):
            picture = row.text("image", r"image\.png")
            yield sample(row, number, f"scienceqa/images/test/{number}/{picture}")


def converted(root: Path) -> Iterator[Sample]:
    """Records without a number; the image's folder tells it."""
    for row in read_jsonl(root / CONVERTED.path):
        image = row.tail("image", IMAGE)
        yield sample(row, PurePosixPath(image).parent.name, f"scienceqa/{image}")


def mirrored(source: Source, root: Path) -> Iterator[Sample]:
    """Rows that tell neither the problem's number nor its image's name."""
    rows = read_pictures(root, source, COLUMNS, sparse=True)
    for number, (row, content) in enumerate(rows):
        yield sample(row, f"row-{number}", picture(row, content))


def mirror_pictures(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each picture once; some stand beside several questions."""
    rows = read_pictures(root, source, (), sparse=True)
    return distinct((picture(row, content), content) for row, content in rows)


def picture(row: Record, content: bytes) -> str:
    """Where a mirror's picture lies."""
    return digest_name("scienceqa/mirror", row, content)


def sample(row: Record, number: str, image: str) -> Sample:
    """One problem."""
    choices = row.texts("choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise row.error(f"field 'choices': 2 to {len(LETTERS)} expected, {len(choices)} found")
    answer = row.integer("answer")
    if answer >= len(choices):
        raise row.error(f"field 'answer': below {len(choices)} expected, {answer} found")
    fields = {
        "image": image,
        "hint": (row.text("hint") if row.has("hint") else "") or "N/A",
        "question": row.text("question"),
        "options": options_text(choices),
    }
    groups = {name: row.text(name) for name in GROUPS if row.has(name)}
    options = option_tokens(choices)
    return Sample(number, fields, reference=LETTERS[answer], options=options, groups=groups)


def mirror(hub: str) -> Layout:
    """A mirror's tables, which hold the pictures."""
    tables = hub_source(TABLES[hub], hub)
    pictures = partial(mirror_pictures, tables)
    return Layout((tables,), partial(mirrored, tables), name="mirror", pictures=pictures)


TASKS = (
    Task(
        name="scienceqa_test_img",
        size=2017,
        layouts=(
            Layout((PROBLEMS, SPLITS), official),
            Layout((CONVERTED,), converted, name="converted"),
            *map(mirror, TABLES),
        ),
        prompt=PROMPT,
        decode=Rank,
        metrics={"accuracy": choice_accuracy},
        chat=CHAT,
        steps=(
            Download(f"{RAW}/problems.json", PROBLEMS.path),
            Download(f"{RAW}/pid_splits.json", SPLITS.path),
            Archive(IMAGES, "scienceqa/images", rf"test/{NUMBER}/image\.png", gb=0.3),
            Mirror(
                ("lmms-lab-encoder/ScienceQA", HUB),
                "ScienceQA-IMG/test-*.parquet",
                "scienceqa/mirror",
            ),
        ),
    ),
)
