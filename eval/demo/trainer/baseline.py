"""What the best answer that never looks would score: python -m eval.demo.trainer.baseline [DATA]

For each task of the demo, every answer that occurs in its references is given to all questions,
and the best mean is printed. A model that sees must beat it. The references of test splits, which
only a server knows, are those that were drawn.
"""

import json
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from eval.data.declare import Corpus, Sample, Task
from eval.demo.data import write_demo_data
from eval.demo.writer import SIZES, TRUTH

CAPTIONS = 40  # constant captions tried: CIDEr is slow


def best_constant(task: Task, samples: Sequence[Sample]) -> tuple[str, float]:
    """The constant answer with the highest mean of the task's first metric, and that mean."""
    metric = next(iter(task.metrics.values()))
    references = [sample.reference for sample in samples]
    candidates = sorted(set(_answers(samples)))
    if isinstance(metric, Corpus):
        scores = [
            (_mean(metric.function([text] * len(references), references)), text)
            for text in candidates[:: max(1, len(candidates) // CAPTIONS)]
        ]
    else:
        scores = [(_mean(metric(text, one) for one in references), text) for text in candidates]
    score, text = max(scores)
    return text, score


def demo_tasks() -> list[Task]:
    """Our own benchmarks' tasks that the demo has data for; met through their entry point."""
    (entry,) = entry_points(group="eval.tasks", name="builtin")
    tasks: dict[str, Task] = {}
    for module in pkgutil.iter_modules(entry.load().__path__, f"{entry.value}."):
        tasks |= {task.name: task for task in getattr(import_module(module.name), "TASKS", ())}
    return [tasks[name] for name in SIZES]


def samples_of(task: Task, root: Path) -> list[Sample]:
    """The samples, with what was drawn as the reference of those that only a server could score."""
    samples = list(task.layout(root).read(root))
    if samples[0].reference is not None:
        return samples
    truth = json.loads((root / TRUTH / f"{task.name}.json").read_text(encoding="utf-8"))
    return [replace(sample, reference=_drawn(truth[sample.id], sample, root)) for sample in samples]


def _drawn(truth: Any, sample: Sample, root: Path) -> Any:
    if not isinstance(truth, dict):
        return truth
    with Image.open(root / sample.images[0]) as image:
        width, height = image.size
    return {"box": truth["bboxes"][0], "width": width, "height": height}


def _answers(samples: Sequence[Sample]) -> Iterable[str]:
    """Everything that is the right answer of some sample."""
    for sample in samples:
        reference: Any = sample.reference
        if isinstance(reference, dict):  # a box in pixels
            size = (reference["width"], reference["height"]) * 2
            grid = [
                round(side * 999 / most) for side, most in zip(reference["box"], size, strict=True)
            ]
            yield "({},{}),({},{})".format(*grid)
        elif isinstance(reference, list):
            yield from reference
        else:
            yield reference


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def main() -> None:
    """Print a line per task for a data root, by default newly drawn ones."""
    with TemporaryDirectory() as folder:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "data"
        write_demo_data(root)
        for task in demo_tasks():
            text, score = best_constant(task, samples_of(task, root))
            print(f"{task.name:22} {score:.4f}  {text!r}", flush=True)


if __name__ == "__main__":
    main()
