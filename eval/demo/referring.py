"""The demo's RefCOCO, RefCOCO+, RefCOCOg and GRIT: phrases that name one shape."""

import pickle
from random import Random
from typing import Any

from eval.demo.questions import Question, questions
from eval.demo.scenes import SHAPES, Scene
from eval.demo.writer import SIZES, Writer

REFERRED = {  # kinds of object, as people and other objects in the real splits
    "val": SHAPES,
    "testA": ("circle", "cross"),
    "testB": ("square", "triangle"),
}
PERSON, OTHER = 1, 17  # COCO's category numbers


def draw_refcoco(writer: Writer, split: str) -> None:
    """About three phrases for each picture, for shapes of the split's kinds."""
    rows: list[dict[str, Any]] = []
    size = SIZES[f"refcoco_{split}"]
    base = {"val": 100000, "testA": 200000, "testB": 300000}[split]
    for number, (scene, draw, pool) in enumerate(writer.scenes("shapes")):
        if len(rows) == size:
            break
        boxes = _boxes(pool, split)
        if not boxes:
            continue
        name = f"coco/train2014/COCO_train2014_{base + 13 * number:012d}.jpg"
        writer.image(name, scene)
        writer.pictures[name] = scene
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
    writer.lines(f"refcoco/refcoco_{split}.jsonl", rows)


def draw_refcoco_plus(writer: Writer) -> None:
    """Refer's own files, on the pictures of RefCOCO."""
    refer = _Refer()
    for split in REFERRED:
        base = {"val": "0000001", "testA": "0000002", "testB": "0000003"}[split]
        path = f"coco/train2014/COCO_train2014_{base}"
        shared = {name: scene for name, scene in writer.pictures.items() if name.startswith(path)}
        draw = Random(f"refcoco+ {split}")
        left = SIZES[f"refcoco+_{split}"]
        for name, scene in shared.items():
            left -= refer.add(name, scene, split, _boxes(questions(scene, draw), split), left)
    refer.write(writer, "refcoco+", "unc")


def draw_refcocog(writer: Writer) -> None:
    """Refer's own files, on new pictures."""
    refer = _Refer()
    number = 400000
    for split in ("val", "test"):
        left = SIZES[f"refcocog_{split}"]
        while left:
            scene, _, pool = next(writer.scenes("shapes"))
            boxes = _boxes(pool, "val")
            if boxes:
                number += 13
                name = f"coco/train2014/COCO_train2014_{number:012d}.jpg"
                writer.image(name, scene)
                left -= refer.add(name, scene, split, boxes, left)
    refer.write(writer, "refcocog", "umd")


class _Refer:
    """What refs(...).p and instances.json hold."""

    def __init__(self) -> None:
        self.refs: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.sentences = 0

    def add(self, name: str, scene: Scene, split: str, boxes: list[Question], most: int) -> int:
        """A reference for each shape that is named, at most so many sentences; how many it was."""
        image_id = int(name[-16:-4])
        before = self.sentences
        things = list(dict.fromkeys(q.thing for q in boxes if q.thing))
        for thing in things:
            room = most - (self.sentences - before)
            texts = [q.text for q in boxes if q.thing == thing][: min(2, room)]
            if not texts:
                break
            x1, y1, x2, y2 = scene.box_px(thing)
            number = len(self.annotations) + 1
            category = PERSON if thing.name in REFERRED["testA"] else OTHER
            box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            self.annotations.append(
                {"id": number, "image_id": image_id, "category_id": category, "bbox": box}
            )
            sentences = [
                {"sent_id": self.sentences + n, "raw": text, "sent": text, "tokens": text.split()}
                for n, text in enumerate(texts)
            ]
            self.refs.append(
                {
                    "ref_id": number,
                    "ann_id": number,
                    "category_id": category,
                    "image_id": image_id,
                    "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
                    "split": split,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )
            self.sentences += len(texts)
        if self.sentences > before:
            width, height = scene.size
            file_name = f"COCO_train2014_{image_id:012d}.jpg"
            self.images.append(
                {"id": image_id, "file_name": file_name, "width": width, "height": height}
            )
        return self.sentences - before

    def write(self, writer: Writer, folder: str, by: str) -> None:
        """Both files; refer's is a pickle."""
        writer.json(
            f"{folder}/instances.json", {"images": self.images, "annotations": self.annotations}
        )
        (writer.root / folder / f"refs({by}).p").write_bytes(pickle.dumps(self.refs, protocol=2))


def draw_grit(writer: Writer) -> None:
    """Phrases on RefCOCO's pictures, and every eighth once more on a distorted copy."""
    pictures = [name for name in writer.pictures if "train2014" in name]
    draw = Random("grit")
    draw.shuffle(pictures)
    for subset in ("ablation", "test"):
        rows: list[dict[str, Any]] = []
        truth: dict[str, Any] = {}
        size = SIZES[f"grit_refexp_{subset}"]
        while len(rows) < size:
            name = pictures.pop()
            scene = writer.pictures[name]
            boxes = _boxes(questions(scene, draw), "val")
            if not boxes:
                continue
            question = draw.choice(boxes)
            assert question.thing is not None
            twin = len(rows) % 8 == 6 and len(rows) + 2 <= size
            for suffix in ("", "_dist") if twin else ("",):
                example_id = f"refexp_{subset}_{len(truth) - bool(suffix)}{suffix}"
                image_id = name
                if suffix:
                    image_id = f"distorted/{example_id}.jpg"
                    writer.image(f"grit/GRIT/images/{image_id}", scene)
                rows.append(
                    {
                        "example_id": example_id,
                        "image_id": image_id,
                        "task_name": "refexp",
                        "task_query": question.text,
                        "task_bbox": None,
                        "output_options": None,
                    }
                )
                truth[example_id] = {
                    "example_id": example_id,
                    "bboxes": [list(scene.box_px(question.thing))],
                    "is_new_source": int(name[-16:-4]) >= 200000,
                    "has_new_concept": question.thing.color == "purple",
                    "is_distorted": bool(suffix),
                    "lemmas": [question.thing.name],
                }
        writer.json(f"grit/GRIT/samples/{subset}/refexp.json", rows)
        writer.truth(f"grit_refexp_{subset}", truth)


def _boxes(pool: list[Question], split: str) -> list[Question]:
    """Phrases that name a shape of the split's kinds."""
    return [q for q in pool if q.family == "box" and q.thing and q.thing.name in REFERRED[split]]
