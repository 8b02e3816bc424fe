"""What `bench_launch.py` asks: drawn scenes, with as many questions on each as are wanted."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from eval.api import Generate, Request
from eval.demo.questions import questions
from eval.demo.scenes import HELD_OUT_SEEDS, draw_scene, make_scene
from eval.demo.writer import OPEN_FAMILIES, save_image, write_json
from eval.run.requests import Identified

PICTURE = "coco/val2014/COCO_val2014_{:012d}.jpg"
PROMPT = "<img>{}</img>{} Answer:"
SHORT = Generate(max_new_tokens=10, min_new_tokens=1)


def scenes(
    folder: Path, per_image: Sequence[int], seeds: Sequence[int] = HELD_OUT_SEEDS
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Draw a picture for each count; its number, and so many questions with their answers.

    Where a scene has fewer questions than are wanted they are asked again.
    """
    (folder / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    for number, (count, seed) in enumerate(zip(per_image, seeds, strict=False), 1):
        scene = make_scene(seed, "shapes")
        save_image(draw_scene(scene), folder / PICTURE.format(number))
        draw = Random(f"launch {seed}")
        pool = [q for q in questions(scene, draw) if q.family in OPEN_FAMILIES]
        draw.shuffle(pool)
        asked = [pool[n % len(pool)] for n in range(count)]
        yield number, [(question.text, question.answer) for question in asked]


def write_okvqa(folder: Path, per_image: Sequence[int]) -> None:
    """OK-VQA's two official files below a folder."""
    asked, annotations = [], []
    for number, pairs in scenes(folder, per_image):
        for nth, (text, answer) in enumerate(pairs):
            head = {"image_id": number, "question_id": number * 1000 + nth}
            asked.append(head | {"question": text})
            humans = [{"answer": answer, "answer_id": human} for human in range(1, 11)]
            annotations.append(head | {"answers": humans})
    write_json(folder / "okvqa/OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    write_json(folder / "okvqa/mscoco_val2014_annotations.json", {"annotations": annotations})


def skewed(folder: Path, crowded: int, single: int) -> list[Identified]:
    """In the order of a dataset: one image with many questions, then many with one."""
    return [
        Identified(Request(f"skewed/{number}-{nth}", PROMPT.format(path, text), SHORT), "", path)
        for number, pairs in scenes(folder, [crowded] + [1] * single)
        for path in [PICTURE.format(number)]
        for nth, (text, _) in enumerate(pairs)
    ]


def warming(folder: Path, images: int) -> Iterator[Request]:
    """Questions on pictures that nothing else asks about, in a folder below the data's."""
    for number, ((text, _),) in scenes(folder, [1] * images, HELD_OUT_SEEDS[-images:]):
        path = f"{folder.name}/{PICTURE.format(number)}"
        yield Request(f"warming/{number}", PROMPT.format(path, text), SHORT)


def nothing(groups: int) -> Iterator[Identified]:
    """Questions for the simulated back end, each a group of its own."""
    for number in range(groups):
        request = Request(f"simulated/{number}", PROMPT.format(f"{number}.jpg", "What?"), SHORT)
        yield Identified(request, "", f"{number}")
