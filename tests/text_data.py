"""Data of DocVQA, ChartQA, AI2D and OCR-VQA for tests, as files and as the tables of mirrors.

The records are those of golden/prompts; the tables are real parquet.
"""

import copy

import datasets
from benchmark_data import RECORDED, TEXTS, cases, picture, tasks_of

from benchmarks import ai2d, chartqa, docvqa, ocrvqa

TASKS = tasks_of(docvqa, chartqa, ai2d, ocrvqa)
CASES = cases(TASKS)
CHARTS = "chartqa/ChartQA Dataset/test"


def tables(path, rows, **features):
    """Write rows as a hub has them: the image column is a picture, others are as named or text."""
    kinds = {name: datasets.Value("string") for name in rows[0]}
    kinds |= features | {"image": datasets.Image()}
    for row in rows:
        row["image"] = {"bytes": row["image"], "path": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=datasets.Features(kinds)).to_parquet(path)


def docvqa_tables(root, split, **change):
    pages = {"abcd0001": picture("white"), "zzzz0002": picture("gray")}
    part = {"val": "validation", "test": "test"}[split]
    rows = []
    for row in RECORDED[f"docvqa_{split}"]["layouts"][0][f"docvqa/{split}/{split}_v1.0.json"][
        "data"
    ]:
        columns = ("questionId", "docId", "question", "ucsf_document_id", "ucsf_document_page_no")
        rows.append(
            {
                **{column: str(row[column]) for column in columns},
                "question_types": ["layout", "form"] if split == "val" else None,
                "image": pages[row["ucsf_document_id"]],
                "answers": row.get("answers"),
                "data_split": split,
            }
        )
    rows[0].update(change)
    path = root / f"docvqa/mirror/DocVQA/{part}-00000-of-00001.parquet"
    tables(path, rows, question_types=TEXTS, answers=TEXTS)
    return {
        f"docvqa/{split}/documents/abcd0001_3.png": pages["abcd0001"],
        f"docvqa/{split}/documents/zzzz0002_12.png": pages["zzzz0002"],
    }


def chartqa_tables(root, hub, **change):
    """Both halves, mixed, as both mirrors have them; returns chart name -> bytes."""
    charts, rows = {}, []
    halves = {
        half: RECORDED[f"chartqa_test_{half}"]["layouts"][0][f"{CHARTS}/test_{half}.json"]
        for half in ("human", "augmented")
    }
    for number in range(3):
        for code, (half, records) in enumerate(halves.items()):
            for row in records[number : number + 1]:
                color = (len(row["imgname"]), 9, 9)
                charts[row["imgname"]] = picture(color)
                own = {"type": f"{half}_test", "question": row["query"], "answer": row["label"]}
                other = {"human_or_machine": code, "query": row["query"], "label": [row["label"]]}
                rows.append((own if hub == "lmms" else other) | {"image": charts[row["imgname"]]})
    rows[0].update(change)
    if hub == "lmms":
        tables(root / "chartqa/mirror/data/test-00000-of-00001.parquet", rows)
    else:
        halves = datasets.ClassLabel(names=["human", "machine"])
        path = root / "chartqa/mirror_m4/data/test-00000-of-00001.parquet"
        tables(path, rows, human_or_machine=halves, label=TEXTS)
    return charts


def ai2d_tables(root, answer="1"):
    questions = RECORDED["ai2d_test_lettered"]["layouts"][0]["ai2d/questions/12.png.json"]
    rows = [
        {
            "question": question,
            "options": row["answerTexts"],
            "answer": str(row["correctAnswer"]),
            "image": picture((number, 0, 0), kind="JPEG" if number else "PNG"),
        }
        for number, (question, row) in enumerate(questions["questions"].items())
    ]
    rows[0]["answer"] = answer
    images = [row["image"] for row in rows]
    tables(root / "ai2d/mirror/data/test-00000-of-00001.parquet", rows, options=TEXTS)
    return images


def ocrvqa_tables(root, split, **change):
    books = RECORDED[f"ocrvqa_{split}"]["layouts"][0]["ocrvqa/dataset.json"]
    part = {"val": "validation", "test": "test"}[split]
    number = {"val": 2, "test": 3}[split]
    covers = {}
    rows = []
    for key, book in books.items():
        if book["split"] == number:
            kind = book["imageURL"][-3:]
            covers[f"ocrvqa/images/{key}.{kind}"] = picture("red", kind=kind.replace("jpg", "jpeg"))
            rows.append(
                {
                    "image": covers[f"ocrvqa/images/{key}.{kind}"],
                    "image_id": key,
                    "questions": book["questions"],
                    "answers": book["answers"],
                    "title": book["title"],
                    "image_url": book["imageURL"],
                    "set_name": part,
                }
            )
    rows[0].update(change)
    path = root / f"ocrvqa/mirror/data/{part}-00000-of-00001.parquet"
    tables(path, rows, questions=TEXTS, answers=TEXTS)
    return covers


def first(name, layout):
    """The golden files of a layout, and of them the first record, to be changed in place."""
    files = copy.deepcopy(RECORDED[name]["layouts"][layout])
    content = list(files.values())[-1 if name.startswith("ocrvqa") else 0]
    if name.startswith("ai2d") and layout == 0:
        content = list(files["ai2d/questions/12.png.json"]["questions"].values())
    elif isinstance(content, dict):
        content = content["data"] if "data" in content else list(content.values())
    return files, content[0]
