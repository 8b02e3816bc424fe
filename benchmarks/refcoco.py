"""RefCOCO: the box around the object in a COCO photograph that a phrase refers to.

Paper     Yu et al. 2016, https://arxiv.org/abs/1608.00272
Split     UNC: val 10,834, testA (people) 5,657, testB (other objects) 5,095 phrases
Protocol  zero-shot, greedy, 10 to 28 new tokens after "<box>"; Qwen-VL
          eval_mm/evaluate_grounding.py
Metric    share of boxes whose IoU with the true one is at least 0.5
Departs   every sample is scored; the published loader drops each GPU's last incomplete batch (on 8
          GPUs, in batches of 8, it scores 10,816 of val's 10,834)
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from eval import Generate, Layout, Sample, Task
from eval.data import converted_source, read_jsonl
from eval.metrics.box import box_accuracy, has_box

# Phrase and box open the answer: the model goes on with "(x1,y1),(x2,y2)</box>".
PROMPT = "<img>{image}</img><ref>{expression}</ref><box>"
COCO_IMAGE = re.compile(r"(?:^|/)(train2014/COCO_train2014_[0-9]{12}\.jpg)\Z")
SIZES = {"val": 10834, "testA": 5657, "testB": 5095}


def samples(path: str, root: Path) -> Iterator[Sample]:
    """Records without an id, so their number in the file is taken, from 0.

    `bbox` is x1 y1 x2 y2 in pixels; a variant in circulation has "hw" for height and width, and
    other folders above COCO's. An image that is not COCO's lies below the data root as it is named.
    """
    for number, row in enumerate(read_jsonl(root / path)):
        image = row.path("image")
        if coco := COCO_IMAGE.search(image):
            image = f"coco/{coco[1]}"
        if row.has("hw"):
            height, width = row.integers("hw", 2, low=1)
        else:
            height, width = row.integer("height", low=1), row.integer("width", low=1)
        box = row.numbers("bbox", 4)
        if box[2] < box[0] or box[3] < box[1]:
            raise row.error(f"field 'bbox': x1 y1 x2 y2 expected, {box} found")
        true_box = {"box": box, "width": width, "height": height}
        fields = {"image": image, "expression": row.text("sent")}
        yield Sample(str(number), fields, reference=true_box)


def layout(split: str) -> Layout:
    """The one layout of a split."""
    source = converted_source(f"refcoco/refcoco_{split}.jsonl")
    return Layout((source,), partial(samples, source.path))


TASKS = tuple(
    Task(
        name=f"refcoco_{split}",
        size=size,
        layouts=(layout(split),),
        prompt=PROMPT,
        decode=Generate(max_new_tokens=28, min_new_tokens=10),
        metrics={"accuracy": box_accuracy},
        readable=has_box,
    )
    for split, size in SIZES.items()
)
