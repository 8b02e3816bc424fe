"""Shapes: the name of the only shape in a drawing.

Split     test, two drawings
Protocol  zero-shot, greedy, at most 5 new tokens
Metric    share of right names
"""

from collections.abc import Iterator
from pathlib import Path

from eval import Generate, Layout, Sample, Source, Task
from eval.data import read_jsonl

DRAWINGS = Source("shapes/test.jsonl", origin="the laboratory's shelf")


def samples(root: Path) -> Iterator[Sample]:
    for row in read_jsonl(root / DRAWINGS.path):
        yield Sample(row.id("id"), {"image": row.path("image")}, reference=row.text("shape"))


def is_named(prediction: str, shape: str) -> float:
    return float(prediction.strip() == shape)


TASKS = (
    Task(
        name="shapes_test",
        size=2,
        layouts=(Layout((DRAWINGS,), samples),),
        prompt="<img>{image}</img>The shape is a",
        decode=Generate(max_new_tokens=5),
        metrics={"accuracy": is_named},
    ),
)
