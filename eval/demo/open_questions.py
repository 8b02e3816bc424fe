"""The demo's OK-VQA, VQAv2, VizWiz and GQA: short questions about scenes."""

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from eval.demo.questions import Question, questions
from eval.demo.writer import LICENSE, OPEN_FAMILIES, SIZES, Writer, humans, rarest

TRAINING = 24  # questions of OK-VQA's and VizWiz's training split, for few-shot examples
ANSWER_TYPES = {"exists": "yes/no", "relation": "yes/no", "count": "number", "bars": "number"}


def draw_okvqa(writer: Writer) -> None:
    """One or two questions about each picture, the families in equal parts where possible."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    size = SIZES["okvqa_val"]
    for number, (scene, draw, pool) in enumerate(writer.scenes("shapes")):
        if len(rows) == size:
            break
        image_id = 297147 + 11 * number
        path = f"coco/val2014/COCO_val2014_{image_id:012d}.jpg"
        writer.image(path, scene)
        writer.pictures[path] = scene
        for nth in range(min(draw.choice((1, 2)), size - len(rows))):
            question = rarest(pool, OPEN_FAMILIES, counts, draw)
            pool = [q for q in pool if q.family != question.family]
            _add(rows, annotations, image_id, image_id * 10 + nth, question, humans(question, draw))
    _okvqa_files(writer, "val2014", rows, annotations)


def draw_okvqa_training(writer: Writer) -> None:
    """A few questions of the training split."""
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for number, (scene, draw, pool) in zip(range(TRAINING), writer.scenes("shapes"), strict=False):
        image_id = 51606 + 17 * number
        writer.image(f"coco/train2014/COCO_train2014_{image_id:012d}.jpg", scene)
        question = rarest(pool, OPEN_FAMILIES, counts, draw)
        _add(rows, annotations, image_id, image_id * 10 + 5, question, humans(question, draw))
    _okvqa_files(writer, "train2014", rows, annotations)


def _add(
    rows: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    image_id: int,
    question_id: int,
    question: Question,
    answers: list[str],
) -> None:
    """A question and its annotation in OK-VQA's format."""
    head = {"image_id": image_id, "question_id": question_id}
    rows.append(head | {"question": question.text})
    annotations.append(
        head
        | {
            "question_type": "one",
            "answer_type": "other",
            "confidence": 3,
            "answers": [
                {"answer_id": n, "raw_answer": answer, "answer_confidence": "yes", "answer": answer}
                for n, answer in enumerate(answers, 1)
            ],
        }
    )


def _okvqa_files(
    writer: Writer, split: str, rows: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> None:
    top = {
        "info": {"description": "OK-VQA's format, drawn scenes", "version": "1"},
        "license": LICENSE,
        "data_type": "mscoco",
        "data_subtype": split,
    }
    writer.json(
        f"okvqa/OpenEnded_mscoco_{split}_questions.json",
        top | {"task_type": "Open-Ended", "questions": rows},
    )
    writer.json(f"okvqa/mscoco_{split}_annotations.json", top | {"annotations": annotations})


def draw_vqav2(writer: Writer) -> None:
    """Questions on OK-VQA's own pictures for val, on new ones for test, of which dev is a part."""
    draw = Random("vqav2")
    val_rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for path, scene in list(writer.pictures.items())[: SIZES["vqav2_val"] // 2]:
        image_id = int(path[-16:-4])
        pool = [q for q in questions(scene, draw) if q.family in OPEN_FAMILIES]
        for nth, question in enumerate(draw.sample(pool, 2)):
            head = {"image_id": image_id, "question_id": 1000 * image_id + nth}
            val_rows.append(head | {"question": question.text})
            answers = humans(question, draw)
            annotations.append(
                head
                | {
                    "question_type": " ".join(question.text.lower().split()[:2]),
                    "answer_type": ANSWER_TYPES.get(question.family, "other"),
                    "multiple_choice_answer": question.answer,
                    "answers": [
                        {"answer": answer, "answer_confidence": "yes", "answer_id": n}
                        for n, answer in enumerate(answers, 1)
                    ],
                }
            )
    top: dict[str, Any] = {
        "info": {"description": "VQA v2's format, drawn scenes"},
        "data_type": "mscoco",
        "license": LICENSE,
    }
    open_ended = top | {"task_type": "Open-Ended"}
    val = {"data_subtype": "val2014"}
    writer.json(
        "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
        open_ended | val | {"questions": val_rows},
    )
    writer.json(
        "vqav2/v2_mscoco_val2014_annotations.json", top | val | {"annotations": annotations}
    )
    tested: list[dict[str, Any]] = []
    truth: dict[str, list[str]] = {}
    for number, (scene, draw, pool) in enumerate(writer.scenes("shapes")):
        if len(tested) == SIZES["vqav2_test"]:
            break
        image_id = 262144 + 5 * number
        writer.image(f"coco/test2015/COCO_test2015_{image_id:012d}.jpg", scene)
        families = [q for q in pool if q.family in OPEN_FAMILIES]
        for nth, question in enumerate(draw.sample(families, 2)):
            question_id = 1000 * image_id + nth
            tested.append(
                {"image_id": image_id, "question": question.text, "question_id": question_id}
            )
            truth[str(question_id)] = humans(question, draw)
    dev = tested[: SIZES["vqav2_testdev"]]
    for split, rows in (("test2015", tested), ("test-dev2015", dev)):
        content = open_ended | {"data_subtype": split, "questions": rows}
        writer.json(f"vqav2/v2_OpenEnded_mscoco_{split}_questions.json", content)
    writer.truth("vqav2_test", truth)
    in_dev = [str(row["question_id"]) for row in dev]
    writer.truth("vqav2_testdev", {question_id: truth[question_id] for question_id in in_dev})


def draw_vizwiz(writer: Writer) -> None:
    """One question a picture; the test's answers are known to the server alone."""
    counts: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        size = TRAINING if split == "train" else SIZES[f"vizwiz_{split}"]
        rows: list[dict[str, Any]] = []
        truth: dict[str, list[str]] = {}
        for number, (scene, draw, pool) in zip(range(size), writer.scenes("shapes"), strict=False):
            name = f"VizWiz_{split}_{number:08d}.jpg"
            writer.image(f"vizwiz/{split}/{name}", scene)
            question = rarest(pool, OPEN_FAMILIES, counts, draw)
            answers = humans(question, draw)
            row: dict[str, Any] = {"image": name, "question": question.text}
            if split == "test":
                truth[name] = answers
            else:
                row |= {
                    "answers": [
                        {"answer_confidence": "yes", "answer": answer} for answer in answers
                    ],
                    "answer_type": ANSWER_TYPES.get(question.family, "other"),
                    "answerable": 1,
                }
            rows.append(row)
        writer.json(f"vizwiz/{split}.json", rows)
        if truth:
            writer.truth("vizwiz_test", truth)


def draw_gqa(writer: Writer) -> None:
    """Several questions a picture, in one object keyed by their numbers."""
    rows: dict[str, Mapping[str, Any]] = {}
    size = SIZES["gqa_testdev"]
    for number, (scene, draw, pool) in enumerate(writer.scenes("shapes")):
        if len(rows) == size:
            break
        image = f"n{161313 + 7 * number}"
        writer.image(f"gqa/images/{image}.jpg", scene)
        families = [q for q in pool if q.family in OPEN_FAMILIES]
        chosen = draw.sample(families, min(4, len(families), size - len(rows)))
        ids = [str(201307251 + len(rows) + nth) for nth in range(len(chosen))]
        for question_id, question in zip(ids, chosen, strict=True):
            closed = question.family in ("exists", "relation")
            rows[question_id] = {
                "semantic": [],
                "entailed": [],
                "equivalent": [question_id],
                "question": question.text,
                "imageId": image,
                "isBalanced": True,
                "groups": {"global": None, "local": None},
                "answer": question.answer,
                "semanticStr": "",
                "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
                "types": {
                    "detailed": question.family,
                    "semantic": "rel" if question.family == "relation" else "attr",
                    "structural": "verify" if closed else "query",
                },
                "fullAnswer": f"{question.answer.capitalize()}.",
            }
    writer.json("gqa/testdev_balanced_questions.json", rows)
