"""What every part of the demo's data is written with: scenes, pictures, files, human answers."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from eval.demo.questions import Question, questions
from eval.demo.scenes import COLORS, SHAPES, WORDS, Scene, draw_scene, make_scene

SIZES = {  # samples of each task
    "flickr30k_test": 100,
    "okvqa_val": 180,
    "textvqa_val": 150,
    "scienceqa_test_img": 150,
    "refcoco_val": 150,
    "refcoco_testA": 120,
    "refcoco_testB": 120,
    "nocaps_val": 45,
    "nocaps_test": 10,
    "vqav2_val": 60,
    "vqav2_testdev": 40,
    "vqav2_test": 60,
    "vizwiz_val": 30,
    "vizwiz_test": 40,
    "gqa_testdev": 60,
    "docvqa_val": 30,
    "docvqa_test": 40,
    "chartqa_test_human": 40,
    "chartqa_test_augmented": 40,
    "ocrvqa_val": 20,
    "ocrvqa_test": 40,
    "ai2d_test": 40,
    "ai2d_test_lettered": 40,
    "refcoco+_val": 40,
    "refcoco+_testA": 40,
    "refcoco+_testB": 40,
    "refcocog_val": 40,
    "refcocog_test": 40,
    "grit_refexp_ablation": 40,
    "grit_refexp_test": 20,
    "touchstone_en": 30,
    "touchstone_cn": 8,
}
TRUTH = "demo-truth"  # folder of what only a server would know
OPEN_FAMILIES = ("color", "count", "shape", "exists", "side", "relation")
LICENSE = {"name": "drawn by eval/demo, no rights reserved", "url": ""}


class Writer:
    """Writes below one data root; every scene takes the next seed.

    pictures  scenes that more than one benchmark asks about, by path
    """

    def __init__(self, root: Path, seeds: Sequence[int]) -> None:
        self.root = root
        self.seeds = iter(seeds)
        self.pictures: dict[str, Scene] = {}

    def scenes(self, kind: str) -> Iterator[tuple[Scene, Random, list[Question]]]:
        """New scenes without end, each with a source of chance and its questions."""
        for seed in self.seeds:
            draw = Random(f"demo {seed}")
            scene = make_scene(seed, kind)
            yield scene, draw, questions(scene, draw)

    def image(self, path: str, scene: Scene) -> None:
        """Draw a scene below the root: JPEG at high quality with full colour, or PNG."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(draw_scene(scene), target)

    def json(self, path: str, content: Any) -> None:
        """A JSON file below the root."""
        write_json(self.root / path, content)

    def lines(self, path: str, rows: Sequence[Any]) -> None:
        """A file of JSON lines below the root."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def truth(self, task: str, references: dict[str, Any]) -> None:
        """What the stand-in for a server knows: sample id -> reference."""
        self.json(f"{TRUTH}/{task}.json", references)


def write_json(path: Path, content: Any) -> None:
    """A JSON file that people can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def picture_id(name: str, scene: Scene) -> str:
    """Sixteen hexadecimal digits, as Open Images and TextVQA name their pictures."""
    return hashlib.sha256(f"{name} {scene.seed}".encode()).hexdigest()[:16]


def save_image(image: Image.Image, path: Path) -> None:
    """PNG by its ending, else JPEG whose artefacts are too faint to matter."""
    if path.suffix == ".png":
        image.save(path)
    else:
        image.save(path, quality=95, subsampling=0)


def rarest(
    pool: Sequence[Question], families: Sequence[str], counts: Counter[str], draw: Random
) -> Question:
    """A question of the family asked least so far."""
    available = {question.family for question in pool}
    family = min(
        (f for f in families if f in available), key=lambda f: (counts[f], families.index(f))
    )
    counts[family] += 1
    return draw.choice([question for question in pool if question.family == family])


def humans(question: Question, draw: Random) -> list[str]:
    """Ten answers: mostly the right one, sometimes two or four that differ, as people do."""
    answers = [question.answer] * 10
    for number in draw.sample(range(10), draw.choice((0, 0, 1, 2, 3))):
        answers[number] = draw.choice(_variants(question))
    return answers


def _variants(question: Question) -> Sequence[str]:
    """What a human could plausibly say instead."""
    answer = question.answer
    if answer in COLORS:
        return (f"dark {answer}", f"{answer} color", *(c for c in COLORS if c != answer))
    if answer in SHAPES:
        return (f"a {answer}", *(s for s in SHAPES if s != answer))
    if answer in WORDS:
        return (answer.upper(), answer + "s", f"the {answer}")
    if answer in ("yes", "no"):
        return ("no" if answer == "yes" else "yes", "not sure")
    return (str(int(answer) + 1), str(abs(int(answer) - 1)))


def words(text: str) -> list[str]:
    """Lower-case words without the punctuation at the end."""
    return text.lower().replace(",", "").rstrip(".?").split()
