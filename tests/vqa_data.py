"""Data of VQAv2, VizWiz, OK-VQA and TextVQA for tests, as files and as the tables of mirrors.

The records are those of golden/prompts; the tables are real parquet.
"""

from pathlib import Path

import datasets
from benchmark_data import NUMBER, TEXT, TEXTS, cases, picture, recorded, tables, tasks_of

from benchmarks import okvqa, textvqa, vizwiz, vqav2

TASKS = tasks_of(vqav2, vizwiz, okvqa, textvqa)
CASES = cases(TASKS)
IN_MIRROR = {  # task -> the part of parquet that a hub has, and what its columns hold
    "vqav2_val": (
        "vqav2/mirror/data/validation",
        {
            "question_type": TEXT,
            "answers": [{"answer": TEXT, "answer_confidence": TEXT, "answer_id": NUMBER}],
            "answer_type": TEXT,
            "image_id": NUMBER,
            "question_id": NUMBER,
        },
    ),
    "vqav2_testdev": ("vqav2/mirror/data/testdev", {"image_id": NUMBER, "question_id": NUMBER}),
    "vqav2_test": ("vqav2/mirror/data/test", {"image_id": NUMBER, "question_id": NUMBER}),
    "vizwiz_val": (
        "vizwiz/mirror/data/val",
        {"question_id": TEXT, "answers": TEXTS, "category": TEXT},
    ),
    "vizwiz_test": ("vizwiz/mirror/data/test", {"question_id": TEXT}),
    "okvqa_val": (
        "okvqa/mirror/data/val2014",
        {"question_id": TEXT, "answers": TEXTS, "answer_type": TEXT, "question_type": TEXT},
    ),
    "textvqa_val": (
        "textvqa/mirror/data/validation",
        {"image_id": TEXT, "question_id": NUMBER, "answers": TEXTS, "ocr_tokens": TEXTS},
    ),
}

TRAINING = {  # task -> official and converted files of the training split, and the examples
    "vqav2_val": (
        {
            "vqav2/v2_OpenEnded_mscoco_train2014_questions.json": {
                "questions": [{"image_id": 9, "question": "How many?", "question_id": 9000}]
            },
            "vqav2/v2_mscoco_train2014_annotations.json": {
                "annotations": [{"question_id": 9000, "multiple_choice_answer": "4"}]
            },
        },
        "vqav2/vqav2_train.jsonl",
        ("9000", "coco/train2014/COCO_train2014_000000000009.jpg", "How many?", "4"),
    ),
    "okvqa_val": (
        {
            "okvqa/OpenEnded_mscoco_train2014_questions.json": {
                "questions": [{"image_id": 9, "question": "What for?", "question_id": 95}]
            },
            "okvqa/mscoco_train2014_annotations.json": {
                "annotations": [
                    {
                        "question_id": 95,
                        "answers": [
                            {"answer": text, "answer_id": number}
                            for number, text in enumerate(["run", "race", "walk", "race", "walk"])
                        ],
                    }
                ]
            },
        },
        "okvqa/okvqa_train.jsonl",
        ("95", "coco/train2014/COCO_train2014_000000000009.jpg", "What for?", "race"),
    ),
    "vizwiz_val": (
        {
            "vizwiz/train.json": [
                {
                    "image": "VizWiz_train_00000003.jpg",
                    "question": "What?",
                    "answers": [{"answer": text} for text in ("?", "tea", "tea", "a mug", "a mug")],
                }
            ]
        },
        "vizwiz/vizwiz_train.jsonl",
        (
            "VizWiz_train_00000003.jpg",
            "vizwiz/train/VizWiz_train_00000003.jpg",
            "What?",
            "tea",
        ),
    ),
    "textvqa_val": (
        {
            "textvqa/TextVQA_0.5.1_train.json": {
                "data": [
                    {
                        "question_id": 0,
                        "image_id": "00ff",
                        "question": "what brand?",
                        "answers": ["nokia", "acme", "acme"],
                    }
                ]
            }
        },
        "textvqa/textvqa_train.jsonl",
        ("0", "textvqa/train_images/00ff.jpg", "what brand?", "acme"),
    ),
}


def mirror_tables(root, name, saved_as=None, **changed):
    """Write a task's golden samples as a hub has them; returns image path -> the picture's bytes.

    saved_as  sample -> the name that its picture was saved under
    changed   columns of the first row that hold something else
    """
    path, features = IN_MIRROR[name]
    pictures, rows = {}, []
    for sample in recorded(name):
        image = sample.images[0]
        content = pictures.setdefault(image, picture((len(pictures) * 40, 0, 0), kind="JPEG"))
        answers = sample.reference
        if name == "vqav2_val":
            answers = [
                {"answer": text, "answer_confidence": "maybe", "answer_id": number}
                for number, text in enumerate(sample.reference, 1)
            ]
        stem = Path(image).stem
        values = {
            "question_id": stem if "vizwiz" in name else sample.id,
            "image_id": stem if "textvqa" in name else stem[-12:],
            "question": sample.fields["question"],
            "answers": answers,
            "answer_type": sample.groups.get("answer_type"),
            "question_type": sample.groups.get("question_type", ""),
            "category": sample.groups.get("answer_type"),
            "ocr_tokens": ["ACME"],
        } | (changed if not rows else {})
        row = {key: values[key] for key in ["question", *features]}
        for key in ("question_id", "image_id"):
            if features.get(key) is NUMBER:
                row[key] = int(row[key])
        saved = saved_as(sample) if saved_as else None
        rows.append({**row, "image": {"bytes": content, "path": saved}})
    file = root / f"{path}-00000-of-00001.parquet"
    tables(file, rows, question=TEXT, **features, image=datasets.Image())
    return pictures
