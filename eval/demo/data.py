"""Held-out scenes as data of the benchmarks, in their official formats on disk.

`write_demo_data(folder)` makes a data root that the harness's own loaders read: 7 tasks of 5
benchmarks. What is drawn comes from the seed alone. Knows no model.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

from PIL import Image

from eval.demo.questions import Question, paraphrases, questions, sentence
from eval.demo.scenes import (
    COLORS,
    HELD_OUT_SEEDS,
    SHAPES,
    TRAINING_SEEDS,
    WORDS,
    Scene,
    draw_scene,
    make_scene,
)
from eval.errors import DataError

VERSION = 1
MANIFEST = "demo.json"
SCENES = 1000  # seeds that one data seed may use
CHECKED = 1000  # the last held-out seeds are what training checks itself on
SIZES = {  # samples
    "flickr30k_test": 100,
    "okvqa_val": 180,
    "textvqa_val": 150,
    "scienceqa_test_img": 150,
    "refcoco_val": 150,
    "refcoco_testA": 120,
    "refcoco_testB": 120,
}
REFERRED = {  # kinds of object, as people and other objects in the real splits
    "val": SHAPES,
    "testA": ("circle", "cross"),
    "testB": ("square", "triangle"),
}
OPEN_FAMILIES = ("color", "count", "shape", "exists", "side", "relation")
LICENSE = {"name": "drawn by eval/demo, no rights reserved", "url": ""}


def write_demo_data(folder: Path, seed: int = 0) -> None:
    """Make the data root `folder`, or leave it as it is where it is complete already.

    seed  another gives other scenes, 0 to 998

    The folder appears whole or not at all: it is written beside and renamed, and its manifest,
    demo.json, is written last. Raises DataError where the folder holds anything that isn't ours.
    """
    folder = Path(folder)
    manifest = {"data": "qwen-vl-eval demo", "version": VERSION, "seed": seed, "samples": SIZES}
    found = _manifest(folder)
    if found is not None and {key: found.get(key) for key in manifest} == manifest:
        return
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder}: a new or empty folder expected, something found that the demo did not "
            "write. Give another folder: the demo's data must not mix with real ones"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        beside.chmod(0o755)
        _Writer(beside, seed).write()
        digests = {
            path.relative_to(beside).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(beside.rglob("*.json*"))
        }
        _write_json(beside / MANIFEST, {**manifest, "sha256": digests})
        if folder.exists():
            shutil.rmtree(folder)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def demo_seeds(seed: int) -> range:
    """Seeds of the scenes of one data seed; never one that training draws or checks itself on."""
    first = HELD_OUT_SEEDS[0] + seed * SCENES
    seeds = range(first, first + SCENES)
    if seed < 0 or seeds[-1] >= HELD_OUT_SEEDS[-CHECKED]:
        raise DataError(f"demo data: a seed from 0 to 998 expected, {seed} given")
    assert seeds[0] not in TRAINING_SEEDS
    assert seeds[-1] not in TRAINING_SEEDS
    return seeds


class _Writer:
    """Writes one data root; every scene takes the next seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.seeds = iter(demo_seeds(seed))

    def write(self) -> None:
        self.flickr30k()
        self.okvqa()
        self.textvqa()
        self.scienceqa()
        for split in REFERRED:
            self.refcoco(split)

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

    def flickr30k(self) -> None:
        """Karpathy's file; a few pictures belong to the other two splits."""
        images: list[dict[str, Any]] = []
        splits = ["train"] * 6 + ["val"] * 3 + ["test"] * SIZES["flickr30k_test"]
        for number, (split, (scene, _, _)) in enumerate(
            zip(splits, self.scenes("shapes"), strict=False)
        ):
            filename = f"{1000092795 + 7919 * number}.jpg"
            self.image(f"flickr30k/flickr30k-images/{filename}", scene)
            ids = list(range(5 * number, 5 * number + 5))
            sentences = [
                {"tokens": _words(text), "raw": sentence(text), "imgid": number, "sentid": i}
                for i, text in zip(ids, paraphrases(scene), strict=True)
            ]
            images.append(
                {
                    "sentids": ids,
                    "imgid": number,
                    "sentences": sentences,
                    "split": split,
                    "filename": filename,
                }
            )
        content = {"images": images, "dataset": "flickr30k"}
        _write_json(self.root / "flickr30k/dataset_flickr30k.json", content)

    def okvqa(self) -> None:
        """One or two questions about each picture, the families in equal parts where possible."""
        asked: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        size = SIZES["okvqa_val"]
        for number, (scene, draw, pool) in enumerate(self.scenes("shapes")):
            if len(asked) == size:
                break
            image_id = 297147 + 11 * number
            self.image(f"coco/val2014/COCO_val2014_{image_id:012d}.jpg", scene)
            for nth in range(min(draw.choice((1, 2)), size - len(asked))):
                question = _rarest(pool, OPEN_FAMILIES, counts, draw)
                pool = [q for q in pool if q.family != question.family]
                question_id = image_id * 10 + nth
                head = {"image_id": image_id, "question_id": question_id}
                asked.append(head | {"question": question.text})
                answers = _humans(question, draw)
                annotations.append(
                    head
                    | {
                        "question_type": "one",
                        "answer_type": "other",
                        "confidence": 3,
                        "answers": [
                            {
                                "answer_id": n,
                                "raw_answer": answer,
                                "answer_confidence": "yes",
                                "answer": answer,
                            }
                            for n, answer in enumerate(answers, 1)
                        ],
                    }
                )
        top = {
            "info": {"description": "OK-VQA's format, drawn scenes", "version": str(VERSION)},
            "license": LICENSE,
            "data_type": "mscoco",
            "data_subtype": "val2014",
        }
        folder = self.root / "okvqa"
        _write_json(
            folder / "OpenEnded_mscoco_val2014_questions.json",
            top | {"task_type": "Open-Ended", "questions": asked},
        )
        _write_json(folder / "mscoco_val2014_annotations.json", top | {"annotations": annotations})

    def textvqa(self) -> None:
        """Words and numbers to read, and bar charts with two questions each."""
        rows: list[dict[str, Any]] = []
        size = SIZES["textvqa_val"]

        def add(scene: Scene, draw: Random, asked: Sequence[Question]) -> None:
            image_id = hashlib.sha256(f"textvqa {scene.seed}".encode()).hexdigest()[:16]
            self.image(f"textvqa/train_images/{image_id}.jpg", scene)
            for question in asked:
                rows.append(
                    {
                        "question": question.text,
                        "image_id": image_id,
                        "image_classes": [scene.kind.capitalize()],
                        "flickr_original_url": "",
                        "flickr_300k_url": "",
                        "image_width": scene.size[0],
                        "image_height": scene.size[1],
                        "answers": _humans(question, draw),
                        "question_tokens": _words(question.text),
                        "question_id": 34602 + len(rows),
                        "set_name": "val",
                    }
                )

        for kind, family, share in (("word", "read", 0.4), ("number", "number", 0.2)):
            for (scene, draw, pool), _ in zip(
                self.scenes(kind), range(round(size * share)), strict=False
            ):
                add(scene, draw, [q for q in pool if q.family == family])
        for scene, draw, pool in self.scenes("chart"):
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
        _write_json(self.root / "textvqa/TextVQA_0.5.1_val.json", content)

    def scienceqa(self) -> None:
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
            scene, draw, pool = next(self.scenes(kind))
            choices = [q for q in pool if q.family == "choice"]
            while not choices:  # three shapes can be such that no plain question is clear
                scene, draw, pool = next(self.scenes(kind))
                choices = [q for q in pool if q.family == "choice"]
            question = draw.choice(choices)
            pid = str(11 + 3 * number)
            problems[pid] = _problem(question, split, "image.png")
            splits[split].append(pid)
            self.image(f"scienceqa/images/{split}/{pid}/image.png", scene)
            if number % 8 == 0:  # a problem without picture
                pid = str(12 + 3 * number)
                plain = Question("choice", "Which is a color?", "red", options=("dog", "red"))
                problems[pid] = _problem(plain, split, None)
                splits[split].append(pid)
        _write_json(self.root / "scienceqa/problems.json", problems)
        _write_json(self.root / "scienceqa/pid_splits.json", splits)

    def refcoco(self, split: str) -> None:
        """About three phrases for each picture, for shapes of the split's kinds."""
        rows: list[dict[str, Any]] = []
        size = SIZES[f"refcoco_{split}"]
        base = {"val": 100000, "testA": 200000, "testB": 300000}[split]
        for number, (scene, draw, pool) in enumerate(self.scenes("shapes")):
            if len(rows) == size:
                break
            boxes = [
                q for q in pool if q.family == "box" and q.thing and q.thing.name in REFERRED[split]
            ]
            if not boxes:
                continue
            name = f"coco/train2014/COCO_train2014_{base + 13 * number:012d}.jpg"
            self.image(name, scene)
            chosen = draw.sample(boxes, min(draw.choice((2, 3, 4)), len(boxes), size - len(rows)))
            for question in chosen:
                assert question.thing is not None
                rows.append(
                    {
                        "image": f"data/{name}",
                        "sent": question.text,
                        "bbox": [float(side) for side in scene.box_px(question.thing)],
                        "width": scene.size[0],
                        "height": scene.size[1],
                    }
                )
        path = self.root / f"refcoco/refcoco_{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save_image(image: Image.Image, path: Path) -> None:
    """PNG by its ending, else JPEG whose artefacts are too faint to matter."""
    if path.suffix == ".png":
        image.save(path)
    else:
        image.save(path, quality=95, subsampling=0)


def _rarest(
    pool: Sequence[Question], families: Sequence[str], counts: Counter[str], draw: Random
) -> Question:
    """A question of the family asked least so far."""
    found = {question.family for question in pool}
    family = min((f for f in families if f in found), key=lambda f: (counts[f], families.index(f)))
    counts[family] += 1
    return draw.choice([question for question in pool if question.family == family])


def _humans(question: Question, draw: Random) -> list[str]:
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


def _words(text: str) -> list[str]:
    return text.lower().replace(",", "").rstrip(".?").split()


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of data that the demo wrote, or None."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(content, dict) and content.get("data") == "qwen-vl-eval demo"
    return content if ours else None


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
