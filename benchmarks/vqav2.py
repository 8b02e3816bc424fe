"""VQA v2: open questions on COCO photographs, most asked of two pictures with two answers.

Paper     Goyal et al. 2017, https://arxiv.org/abs/1612.00837
Split     val, 214,354 questions with 10 human answers each on 40,504 images; test-dev, 107,394 on
          36,807, a part of test, 447,793 on 81,434, whose answers only the server knows
Protocol  zero-shot, greedy, at most 10 new tokens; Qwen-VL eval_mm/evaluate_vqa.py, "vqav2_val" and
          "vqav2_testdev"
Metric    VQA accuracy, leave-one-out over the ten answers; by the altered rules behind the
          published figures, and beside it by the official ones
Departs   nowhere known
Known     the card's figure is test-dev's, scored by the server, which needs an account; val is a
          local check only. The server takes no file with gaps, so test-dev's holds an empty answer
          to every other question of test
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval import Archive, Expect, Generate, Layout, Mirror, Sample, Source, Submission, Task
from eval.data import (
    Record,
    converted_source,
    hub_source,
    read_jsonl,
    read_parquet,
    read_pictures,
    vqa_samples,
)
from eval.data.coco import coco_archive, coco_image, coco_pattern
from eval.data.files import read_records
from eval.data.mirrors import distinct
from eval.data.samples import GROUPS, NO_ANSWER, human_answers, wrong_count
from eval.errors import DataError, PredictionError
from eval.metrics.vqa import VQA_METRICS

SITE = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/"
ZIPS = {"train": "Train", "val": "Val", "testdev": "Test", "test": "Test"}
SUBSETS = {"train": "train2014", "val": "val2014", "testdev": "test-dev2015", "test": "test2015"}
IMAGES = {"train": "train2014", "val": "val2014", "testdev": "test2015", "test": "test2015"}
IN_MIRROR = {"val": "validation", "testdev": "testdev", "test": "test"}
HUB = "lmms-lab/VQAv2"
PROMPT = "<img>{image}</img>{question} Answer:"
CHAT = "Picture 1: <img>{image}</img>\n{question}"
ANSWERS = 10  # of each question whose answers are known
QUESTION_DIGITS = 3  # of a question's number, behind its image's

Questions = Callable[[Path], Iterator[tuple[Record, str]]]  # records, each with its image


def official(split: str, path: str, root: Path) -> Iterator[tuple[Record, str]]:
    """Questions that name COCO's images by their numbers."""
    for row in read_records(root / path, "questions"):
        yield row, picture(split, row)


def converted(split: str, path: str, root: Path) -> Iterator[tuple[Record, str]]:
    """Questions that name image files."""
    for row in read_jsonl(root / path):
        yield row, f"coco/{row.tail('image', coco_pattern(IMAGES[split]))}"


def mirrored(split: str, source: Source, root: Path) -> Iterator[tuple[Record, str]]:
    """The official questions; val's come with the fields of their annotations."""
    columns = ["question_id", "image_id", "question"]
    columns += ["answers", *GROUPS] if split == "val" else []
    for row in read_parquet(root, source, columns):
        yield row, picture(split, row)


def mirror_pictures(split: str, source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Each image once, though it stands beside each of its questions."""
    rows = read_pictures(root, source, ["image_id"])
    return distinct((picture(split, row), content) for row, content in rows)


def picture(split: str, row: Record) -> str:
    """Where the image lies whose number a record tells."""
    return coco_image(IMAGES[split], row.integer("image_id"))


def answered(questions: Questions, annotations: Source, root: Path) -> Iterator[Sample]:
    """Questions with their human answers, which the official file alone holds."""
    return vqa_samples(questions(root), root / annotations.path)


def self_answered(questions: Questions, root: Path) -> Iterator[Sample]:
    """Questions whose records hold the human answers too."""
    for row, image in questions(root):
        groups = {name: row.text(name) for name in GROUPS if row.values.get(name)}
        answers = human_answers(row)
        yield Sample(row.id("question_id"), fields(row, image), reference=answers, groups=groups)


def unanswered(questions: Questions, root: Path) -> Iterator[Sample]:
    """Questions of test, whose numbers are what the server knows them by."""
    for row, image in questions(root):
        yield Sample(str(row.integer("question_id")), fields(row, image))


def examples(questions: Questions, annotations: Source, root: Path) -> Iterator[Sample]:
    """Questions of the training split, with one answer each."""
    rows = read_records(root / annotations.path, "annotations")
    answers = {row.id("question_id"): preferred(row) for row in rows}
    for row, image in questions(root):
        number = row.id("question_id")
        if number not in answers:
            raise row.error(f"question_id {number!r} has no annotation in {annotations.path}")
        yield Sample(number, {**fields(row, image), "answer": answers[number]})


def preferred(row: Record) -> str:
    """The answer that an annotation names, else the first of those that are most frequent."""
    if row.has("multiple_choice_answer"):
        return row.text("multiple_choice_answer")
    texts = [human.text("answer") for human in row.records("answers")]
    if not texts:
        raise row.error(NO_ANSWER)
    return max(texts, key=texts.count)


def converted_examples(questions: Questions, root: Path) -> Iterator[Sample]:
    """Questions of the training split, which the converted file gives with one answer."""
    for row, image in questions(root):
        shown = {**fields(row, image), "answer": row.text("answer")}
        yield Sample(row.id("question_id"), shown)


def fields(row: Record, image: str) -> dict[str, str]:
    """What the prompt is filled with."""
    return {"image": image, "question": row.text("question")}


def of_its_image(sample: Sample) -> str | None:
    """What is wrong with a sample: a question's number is its image's and three digits."""
    image = Path(sample.fields["image"]).stem[-12:]
    if sample.id[:-QUESTION_DIGITS].zfill(12) != image:
        return f"a number that begins with its image's expected, the image is {image}"
    return None if sample.reference is None else wrong_count(ANSWERS, "answers", sample)


def ids_of_test(root: Path) -> set[str] | None:
    """Numbers of all questions of test, of which test-dev's are some; None where it is not there.

    The official archive holds the files of both.
    """
    whole = next(task for task in TASKS if task.name == "vqav2_test")
    if not whole.has_data(root):
        return None
    return {sample.id for sample in whole.layout(root).read(root)}


class Answer(TypedDict):
    """One record of the server's file."""

    question_id: int
    answer: str


def submission(
    root: Path, answers: Mapping[str, str], model: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A record for every question of test, in its order; those that test-dev lacks stay empty.

    Raises PredictionError where an answer has no question in test.
    """
    whole = next(task for task in TASKS if task.name == "vqav2_test")
    try:
        layout = whole.layout(root)
    except DataError as error:
        raise DataError(
            f"the server takes every question of test, also for test-dev. {error}"
        ) from error
    ids = [sample.id for sample in layout.read(root)]
    strange = sorted(answers.keys() - set(ids))
    if strange:
        raise PredictionError(
            f"answers to questions of test2015 expected, {len(strange):,} are to others, "
            f"{strange[0]} first. Are they of another split?"
        )
    return [{"question_id": int(each), "answer": answers.get(each, "").strip()} for each in ids]


def questions_of(split: str) -> Source:
    """The official questions."""
    path = f"vqav2/v2_OpenEnded_mscoco_{SUBSETS[split]}_questions.json"
    return Source(path, origin=f"{SITE}v2_Questions_{ZIPS[split]}_mscoco.zip")


def annotations_of(split: str) -> Source:
    """The official answers."""
    path = f"vqav2/v2_mscoco_{SUBSETS[split]}_annotations.json"
    return Source(path, origin=f"{SITE}v2_Annotations_{ZIPS[split]}_mscoco.zip")


def layouts(split: str) -> tuple[Layout, ...]:
    """All in which a split is found; of test there is no converted file."""
    questions, answers = questions_of(split), annotations_of(split)
    lines = converted_source(f"vqav2/vqav2_{split}.jsonl")
    raw, by_file = partial(official, split, questions.path), partial(converted, split, lines.path)
    if split == "train":
        return (
            Layout((questions, answers), partial(examples, raw, answers)),
            Layout((lines,), partial(converted_examples, by_file), name="converted"),
        )
    tables = hub_source(f"vqav2/mirror/**/{IN_MIRROR[split]}-*.parquet", HUB)
    mirror = partial(
        Layout, (tables,), name="mirror", pictures=partial(mirror_pictures, split, tables)
    )
    rows = partial(mirrored, split, tables)
    if split == "val":
        by_name = partial(answered, by_file, answers)
        return (
            Layout((questions, answers), partial(answered, raw, answers)),
            Layout((lines, answers), by_name, name="converted"),
            mirror(read=partial(self_answered, rows)),
        )
    known = [Layout((questions,), partial(unanswered, raw))]
    if split == "testdev":
        known.append(Layout((lines,), partial(unanswered, by_file), name="converted"))
    return (*known, mirror(read=partial(unanswered, rows)))


def steps(split: str) -> tuple[Archive, ...]:
    """Questions, answers, COCO's pictures."""
    known = split in ("train", "val")
    name = SUBSETS[split] if known else "test(-dev)?2015"  # one archive, both are needed
    keep = rf"v2_OpenEnded_mscoco_{name}_questions\.json"
    archives = [Archive(questions_of(split).origin, "vqav2", keep)]
    if known:
        keep = rf"v2_mscoco_{name}_annotations\.json"
        archives.append(Archive(annotations_of(split).origin, "vqav2", keep))
    return (*archives, coco_archive(IMAGES[split]))


COUNTS = {"val": (214354, 40504), "testdev": (107394, 36807), "test": (447793, 81434)}
TASKS = tuple(
    Task(
        name=f"vqav2_{split}",
        size=size,
        layouts=layouts(split),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=10, min_new_tokens=1),
        metrics=VQA_METRICS,
        chat=CHAT,
        expect=Expect(
            images=images,
            answers=ANSWERS * size if split == "val" else None,
            each=of_its_image,
            within=ids_of_test if split == "testdev" else None,
        ),
        steps=(
            *steps(split),
            Mirror(
                ("lmms-lab-encoder/VQAv2", HUB), f"**/{IN_MIRROR[split]}-*.parquet", "vqav2/mirror"
            ),
        ),
        train=layouts("train"),
        train_steps=steps("train"),
        submission=Submission(
            server="EvalAI, challenge 830, https://eval.ai/web/challenges/challenge-page/830",
            file=f"vqav2_{split}.json",
            build=submission,
            schema=list[Answer],
        )
        if split != "val"
        else None,
    )
    for split, (size, images) in COUNTS.items()
)
