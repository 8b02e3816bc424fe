"""Few-shot examples are of the training split in every layout, never of the split that is asked."""

import datasets
import pytest
from benchmark_data import TEXTS, picture, write
from text_data import tables

from eval.data import Examples
from eval.plugins import find_tasks

TASKS = {task.name: task for task in find_tasks(["all"])}
OF_ALL_SPLITS = {  # each record tells its split there, or a list of test's does
    "ai2d/ai2d_test_ids.csv",
    "ai2d/questions/*.png.json",
    "flickr30k/dataset_flickr30k.json",
    "flickr30k/mirror/**/*.parquet",
    "ocrvqa/dataset.json",
}
CHARTS = "chartqa/ChartQA Dataset/train"
DATES = ["May 3rd", "3 May", "3 May", "May 3", "May 3"]  # the first of the most frequent is shown
PAGE = {"ucsf_document_id": "abcd0001", "ucsf_document_page_no": "3"}
PAGE |= {"question": "When?", "answers": DATES, "data_split": "train"}
BOOK = {"questions": ["Who?", "What?"], "answers": ["A. Writer", "T"]}
LINE = {"image": "data/ocrvqa/images/01.jpg", "question_id": "q0"}
FILES = {  # task, layout of its training split -> files
    ("docvqa_val", 0): {
        "docvqa/train/train_v1.0.json": {
            "data": [{"questionId": 1, "image": "documents/abcd0001_3.png", **PAGE}]
        }
    },
    ("docvqa_val", 1): {
        "docvqa/spdocvqa_qas/train_v1.0_withQT.json": {
            "data": [{"questionId": 1, "image": "documents/abcd0001_3.png", **PAGE}]
        }
    },
    ("docvqa_val", 2): {
        "docvqa/train.jsonl": [
            {
                "image": "data/docvqa/train/documents/abcd0001_3.png",
                "question": "When?",
                "question_id": 1,
                "answer": DATES,
            }
        ]
    },
    ("chartqa_test_augmented", 0): {
        f"{CHARTS}/train_augmented.json": [{"imgname": "1.png", "query": "Up?", "label": "Yes"}]
    },
    ("chartqa_test_augmented", 1): {
        "chartqa/train_augmented.jsonl": [
            {"image": f"data/{CHARTS}/png/1.png", "question": "Up?", "answer": "Yes"}
        ]
    },
    ("ocrvqa_test", 0): {
        "ocrvqa/dataset.json": {
            "01": {**BOOK, "imageURL": "http://images.invalid/1.jpg", "split": 1},
            "02": {**BOOK, "imageURL": "http://images.invalid/2.jpg", "split": 3},
        }
    },
    ("ocrvqa_test", 1): {
        "ocrvqa/ocrvqa_train.jsonl": [
            {**LINE, "question": "Who?", "answer": "A. Writer"},
            {**LINE, "question": "What?", "answer": "T"},
        ]
    },
}
SHOWN = {  # id, image, question, answer
    "docvqa_val": [("1", "docvqa/train/documents/abcd0001_3.png", "When?", "3 May")],
    "chartqa_test_augmented": [("0", f"{CHARTS}/png/1.png", "Up?", "Yes")],
    "ocrvqa_test": [
        ("01_0", "ocrvqa/images/01.jpg", "Who?", "A. Writer"),
        ("01_1", "ocrvqa/images/01.jpg", "What?", "T"),
    ],
}


def shown(name, root):
    names = ("image", "question", "answer")
    samples = Examples(TASKS[name], root).samples
    return [(sample.id, *(sample.fields[each] for each in names)) for sample in samples]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.train])
def test_examples_are_read_from_no_file_of_the_split_that_is_asked(name):
    """One wrong name of a file, and a question could stand before itself with its answer."""
    asked, read = (
        {source.path for layout in layouts for source in layout.sources}
        for layouts in (TASKS[name].layouts, TASKS[name].train)
    )
    assert asked & read <= OF_ALL_SPLITS


@pytest.mark.parametrize(("name", "layout"), FILES)
def test_examples_are_the_same_in_every_layout_of_files(tmp_path, name, layout):
    """Pictures lie in the training split's folder, and one answer is shown."""
    write(tmp_path, FILES[name, layout])
    assert TASKS[name].examples(tmp_path) is TASKS[name].train[layout]
    assert SHOWN[name] == shown(name, tmp_path)


def test_examples_are_the_same_in_the_mirrors(tmp_path):
    """ChartQA's names its charts by their bytes, and holds both halves."""
    rows = [{"questionId": "1", "question_types": ["form"], "image": picture("red"), **PAGE}]
    path = tmp_path / "docvqa/mirror/DocVQA/train-00000-of-00001.parquet"
    tables(path, rows, question_types=TEXTS, answers=TEXTS)
    rows = [
        {"human_or_machine": half, "query": query, "label": ["Yes"], "image": picture("red")}
        for half, query in enumerate(("Down?", "Up?"))
    ]
    path = tmp_path / "chartqa/mirror_m4/data/train-00000-of-00001.parquet"
    number = datasets.Value("int64")
    tables(path, rows, human_or_machine=number, label=TEXTS)
    told = {"image_id": "01", "image_url": "http://images.invalid/1.jpg", "set_name": "train"}
    path = tmp_path / "ocrvqa/mirror/data/train-00000-of-00001.parquet"
    tables(path, [{**BOOK, **told, "image": picture("red")}], questions=TEXTS, answers=TEXTS)
    for name, expected in SHOWN.items():
        assert "mirror" == TASKS[name].examples(tmp_path).name
        found = shown(name, tmp_path)
        if name.startswith("chartqa"):
            assert found[0][1].startswith("chartqa/mirror/")
            found = [(row[0], expected[0][1], *row[2:]) for row in found]
        assert expected == found


def test_examples_of_ai2d_come_by_the_diagrams_numbers(tmp_path):
    """Which example is drawn hangs on the order; that of a folder is another on each machine."""
    row = {"answerTexts": list("abcd"), "correctAnswer": 0}
    files = {
        f"ai2d/questions/{number}.png.json": {
            "questions": {"Which?": {**row, "questionId": f"{number}.png-0"}}
        }
        for number in (10, 9, 100, 8)
    }
    write(tmp_path, files | {"ai2d/ai2d_test_ids.csv": b"8\n"})
    expected = ["9.png-0", "10.png-0", "100.png-0"]
    assert expected == [sample.id for sample in Examples(TASKS["ai2d_test"], tmp_path).samples]
