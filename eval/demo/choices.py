"""The demo's ScienceQA and AI2D: options by letter, and options by their text."""

from random import Random
from typing import Any

from PIL import ImageDraw

from eval.demo.questions import Question
from eval.demo.scenes import COLORS, SHAPES, WORDS, draw_scene
from eval.demo.writer import SIZES, Writer, save_image

POOLS = {"color": tuple(COLORS), "shape": SHAPES, "read": WORDS}


def draw_scienceqa(writer: Writer) -> None:
    """Choices about shapes, charts and words; some problems have no picture or other splits."""
    problems: dict[str, dict[str, Any]] = {}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    kinds = {"shapes": 0.5, "chart": 0.25, "word": 0.25}
    plan = [("train", "shapes")] * 10 + [("val", "chart")] * 5
    size = SIZES["scienceqa_test_img"]
    for kind, share in kinds.items():
        plan += [("test", kind)] * round(size * share)
    plan = plan[: 15 + size] + [("test", "shapes")] * (15 + size - len(plan))
    Random("plan").shuffle(plan)
    for number, (split, kind) in enumerate(plan):
        scene, draw, pool = next(writer.scenes(kind))
        choices = [q for q in pool if q.family == "choice"]
        while not choices:  # three shapes can be such that no plain question is clear
            scene, draw, pool = next(writer.scenes(kind))
            choices = [q for q in pool if q.family == "choice"]
        question = draw.choice(choices)
        pid = str(11 + 3 * number)
        problems[pid] = _problem(question, split, "image.png")
        splits[split].append(pid)
        writer.image(f"scienceqa/images/{split}/{pid}/image.png", scene)
        if number % 8 == 0:  # a problem without picture
            pid = str(12 + 3 * number)
            plain = Question("choice", "Which is a color?", "red", options=("dog", "red"))
            problems[pid] = _problem(plain, split, None)
            splits[split].append(pid)
    writer.json("scienceqa/problems.json", problems)
    writer.json("scienceqa/pid_splits.json", splits)


def _problem(question: Question, split: str, image: str | None) -> dict[str, Any]:
    """A record of problems.json."""
    return {
        "question": question.text,
        "choices": list(question.options),
        "answer": question.options.index(question.answer),
        "hint": "",
        "image": image,
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "topic": "drawn scenes",
        "category": "Look at the picture",
        "skill": "Answer by looking",
        "lecture": "",
        "solution": "",
        "split": split,
    }


def draw_ai2d(writer: Writer) -> None:
    """Four options a question; every fifth picture is a word that a letter can stand for."""
    size = SIZES["ai2d_test"]
    count = 0
    names: list[str] = []
    while count < size:
        number = 4 * len(names)
        kind = "word" if len(names) % 5 == 4 else "shapes"
        scene, draw, pool = next(writer.scenes(kind))
        questions = [q for q in pool if q.family in POOLS][: min(2, size - count)]
        if not questions:
            continue
        name = f"{number}.png"
        names.append(str(number))
        count += len(questions)
        picture = draw_scene(scene)
        target = writer.root / f"ai2d/images/{name}"
        for folder in ("images", "images_lettered"):
            (writer.root / "ai2d" / folder).mkdir(parents=True, exist_ok=True)
        save_image(picture, target)
        texts: dict[str, Any] = {}
        if kind == "word":  # what the dataset's lettered pictures show
            x1, y1, x2, y2 = scene.box_px(scene.things[0])
            texts["T0"] = {
                "id": "T0",
                "rectangle": [[x1, y1], [x2, y2]],
                "replacementText": "A",
                "value": scene.things[0].text,
            }
            canvas = ImageDraw.Draw(picture)
            canvas.rectangle((x1, y1, x2, y2), fill="white")
            canvas.text((x1, y1), "A", fill="black")
        save_image(picture, writer.root / f"ai2d/images_lettered/{name}")
        entries = {}
        for nth, question in enumerate(questions):
            wrong = [option for option in POOLS[question.family] if option != question.answer]
            options = [question.answer, *draw.sample(wrong, 3)]
            draw.shuffle(options)
            entries[question.text] = {
                "abcLabel": kind == "word",
                "answerTexts": options,
                "correctAnswer": options.index(question.answer),
                "questionId": f"{name}-{nth}",
            }
        writer.json(f"ai2d/questions/{name}.json", {"imageName": name, "questions": entries})
        writer.json(f"ai2d/annotations/{name}.json", {"imageName": name, "text": texts})
    ids = writer.root / "ai2d/ai2d_test_ids.csv"
    ids.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
