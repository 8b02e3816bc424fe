"""Are the data on disk those that the card was measured on? Counts, identity, pictures."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eval.api import Sample, Task
from eval.data.samples import unique

SHOWN = 3  # ids or paths that a fault about many names


@dataclass(frozen=True, slots=True)
class Findings:
    """What a task's data hold.

    samples, images, answers  as counted; images are distinct ones
    faults                    a line for each way in which they are not the official split's
    """

    samples: int
    images: int
    answers: int
    faults: tuple[str, ...]


def verify(task: Task, root: Path, *, limit: int | None = None) -> Findings:
    """Read all of a task's records and look for its pictures.

    limit  look at the first so many samples only, and compare no counts

    Raises DataError for files that are missing or malformed; what is merely not the official
    split's is a fault.
    """
    samples = answers = 0
    pictures: dict[str, None] = {}
    groups: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for sample in _first(unique(task.layout(root).read(root), task.name), limit):
        samples += 1
        answers += len(sample.reference) if isinstance(sample.reference, list) else 1
        pictures.update(dict.fromkeys(sample.images))
        for group, value in sample.groups.items():
            groups.setdefault(group, Counter())[value] += 1
        if task.expect.each and (fault := task.expect.each(sample)):
            wrong.append(f"sample {sample.id}: {fault}")
    faults = [] if limit is not None else _counts(task, samples, len(pictures), answers, groups)
    faults += _some(wrong, "samples are not of this split")
    missing = [path for path in pictures if not (root / path).is_file()]
    faults += _some(missing, f"of {len(pictures):,} images are missing")
    return Findings(samples, len(pictures), answers, tuple(faults))


def _counts(
    task: Task, samples: int, images: int, answers: int, groups: dict[str, Counter[str]]
) -> list[str]:
    expect = task.expect
    counted = [
        ("samples", task.size, samples),
        ("images", expect.images, images),
        ("answers", expect.answers, answers),
    ]
    for group, values in expect.groups.items():
        if group in groups:
            counted += [(f"{group} {v!r}", n, groups[group][v]) for v, n in values.items()]
    return [
        f"{name}: {expected:,} expected, {found:,} found"
        for name, expected, found in counted
        if expected is not None and expected != found
    ]


def _some(found: list[str], what: str) -> list[str]:
    if not found:
        return []
    dots = ", ..." if len(found) > SHOWN else ""
    return [f"{len(found):,} {what}: {', '.join(found[:SHOWN])}{dots}"]


def _first(samples: Iterator[Sample], limit: int | None) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number == limit:
            return
        yield sample
