"""The demo's TextVQA, DocVQA, ChartQA and OCR-VQA: words and numbers to read, bar charts."""

from collections.abc import Sequence
from random import Random
from typing import Any

from eval.demo.questions import Question
from eval.demo.scenes import Scene
from eval.demo.writer import SIZES, Writer, humans, picture_id, words

CHARTS = "chartqa/ChartQA Dataset/test"


def draw_textvqa(writer: Writer) -> None:
    """Words and numbers to read, and bar charts with two questions each."""
    rows: list[dict[str, Any]] = []
    size = SIZES["textvqa_val"]

    def add(scene: Scene, draw: Random, questions: Sequence[Question]) -> None:
        image_id = picture_id("textvqa", scene)
        writer.image(f"textvqa/train_images/{image_id}.jpg", scene)
        for question in questions:
            rows.append(
                {
                    "question": question.text,
                    "image_id": image_id,
                    "image_classes": [scene.kind.capitalize()],
                    "flickr_original_url": "",
                    "flickr_300k_url": "",
                    "image_width": scene.size[0],
                    "image_height": scene.size[1],
                    "answers": humans(question, draw),
                    "question_tokens": words(question.text),
                    "question_id": 34602 + len(rows),
                    "set_name": "val",
                }
            )

    for kind, family, share in (("word", "read", 0.4), ("number", "number", 0.2)):
        for (scene, draw, pool), _ in zip(
            writer.scenes(kind), range(round(size * share)), strict=False
        ):
            add(scene, draw, [q for q in pool if q.family == family])
    for scene, draw, pool in writer.scenes("chart"):
        if len(rows) == size:
            break
        values = [q for q in pool if q.family == "value"]
        others = [q for q in pool if q.family in ("tallest", "bars")]
        add(scene, draw, [draw.choice(values), draw.choice(others)][: size - len(rows)])
    content = {
        "dataset_type": "val",
        "dataset_name": "textvqa",
        "dataset_version": "0.5.1",
        "data": rows,
    }
    writer.json("textvqa/TextVQA_0.5.1_val.json", content)


def draw_docvqa(writer: Writer) -> None:
    """Two questions a page; the test's answers are known to the server alone."""
    number = 0
    for split in ("val", "test"):
        rows: list[dict[str, Any]] = []
        truth: dict[str, list[str]] = {}
        size = SIZES[f"docvqa_{split}"]
        while len(rows) < size:
            scene, _, pool = next(writer.scenes(("word", "number")[number % 2]))
            number += 1
            page = f"demo{number:04d}_1"
            writer.image(f"docvqa/{split}/documents/{page}.png", scene)
            for question in [q for q in pool if q.family != "choice"][:2]:
                row: dict[str, Any] = {
                    "questionId": 49153 + 2 * number + len(rows) % 2,
                    "question": question.text.capitalize(),
                    "docId": 1000 + number,
                    "image": f"documents/{page}.png",
                    "ucsf_document_id": page.partition("_")[0],
                    "ucsf_document_page_no": "1",
                    "data_split": split,
                }
                if split == "val":
                    row["answers"] = [question.answer]
                else:
                    truth[str(row["questionId"])] = [question.answer]
                rows.append(row)
        content = {
            "dataset_name": "docvqa",
            "dataset_version": "1.0",
            "dataset_split": split,
            "data": rows,
        }
        writer.json(f"docvqa/{split}/{split}_v1.0.json", content)
        if truth:
            writer.truth("docvqa_test", truth)


def draw_chartqa(writer: Writer) -> None:
    """Values and the tallest bar by people, the number of bars by a machine."""
    for half, families in (("human", ("value", "tallest")), ("augmented", ("bars", "value"))):
        rows: list[dict[str, Any]] = []
        size = SIZES[f"chartqa_test_{half}"]
        for scene, draw, pool in writer.scenes("chart"):
            if len(rows) == size:
                break
            name = f"two_col_{scene.seed % 1_000_000}.png"
            writer.image(f"{CHARTS}/png/{name}", scene)
            for family in families:
                question = draw.choice([q for q in pool if q.family == family])
                rows.append({"imgname": name, "query": question.text, "label": question.answer})
        writer.json(f"{CHARTS}/test_{half}.json", rows)


def draw_ocrvqa(writer: Writer) -> None:
    """A word to read and its colour, on the covers of books that nobody wrote."""
    books: dict[str, Any] = {}
    for split, number in (("val", 2), ("test", 3)):
        for scene, _, pool in writer.scenes("word"):
            key = f"{1000000000 + scene.seed % 1_000_000}"
            writer.image(f"ocrvqa/images/{key}.jpg", scene)
            questions = [q for q in pool if q.family != "choice"]
            books[key] = {
                "imageURL": f"https://images.invalid/{key}.jpg",
                "questions": [question.text for question in questions],
                "answers": [question.answer for question in questions],
                "title": "",
                "authorName": "",
                "genre": "",
                "split": number,
            }
            covers = [book for book in books.values() if book["split"] == number]
            if sum(len(book["questions"]) for book in covers) == SIZES[f"ocrvqa_{split}"]:
                break
    writer.json("ocrvqa/dataset.json", books)
