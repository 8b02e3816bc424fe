"""Checks whether data on disk are the official split: counts, identity, pictures."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eval.data.declare import Sample, Source, Task
from eval.data.pictures import in_threads, is_pixel, picture_fault, quiet_pillow
from eval.data.pins import NAME, Pinned, Pins
from eval.data.samples import unique
from eval.errors import DataError
from eval.storage.digests import sha256_file
from eval.storage.tree import is_file

SHOWN = 3  # ids or paths that an issue names
SAME = 3  # equal pictures that count as placeholders: official sets hold pairs
MANY, MANY_SHARE = 10, 0.1  # placeholders that are an issue: this many, and above this share
DRAWN = "demo.json"  # in a data root that the demo drew


@dataclass(frozen=True, slots=True)
class Findings:
    """What a task's data hold.

    samples, images, answers  as counted; images are distinct ones
    issues                    a line for each difference from the official split
    layout                    name of the layout that was read
    notes                     lines that are worth knowing but no issue
    """

    samples: int
    images: int
    answers: int
    issues: tuple[str, ...]
    layout: str
    notes: tuple[str, ...] = ()


def verify(
    task: Task,
    root: Path,
    *,
    limit: int | None = None,
    open_pictures: bool = False,
    digests: bool = False,
    opened: Callable[[int, int], None] | None = None,
) -> Findings:
    """Read all of a task's records and look for its pictures.

    limit          check only the first `limit` samples, and no counts
    open_pictures  decode each picture, and look for placeholders
    digests        compare files with their pins, and pictures if they are opened
    opened         called with (pictures opened, number of pictures)

    Raises DataError for missing or malformed files; data that only differ from the official split
    are an issue.
    """
    layout = task.layout(root)
    samples = answers = 0
    pictures: dict[str, None] = {}
    groups: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    outside: list[str] = []
    whole = task.expect.within(root) if task.expect.within else None
    for sample in _first(unique(layout.read(root), task.name), limit):
        samples += 1
        if sample.reference is not None:
            answers += len(sample.reference) if isinstance(sample.reference, list) else 1
        pictures.update(dict.fromkeys(sample.images))
        for group, value in sample.groups.items():
            groups.setdefault(group, Counter())[value] += 1
        if task.expect.each and (fault := task.expect.each(sample)):
            wrong.append(f"sample {sample.id}: {fault}")
        if whole is not None and sample.id not in whole:
            outside.append(sample.id)
    issues = ["drawn by the demo"] if is_file(root / DRAWN) else []
    if limit is None:
        issues += _counts(task, samples, len(pictures), answers, groups)
    issues += _some(wrong, "samples are not of this split")
    issues += _some(outside, "samples are not of the split that this one is a part of")
    missing = [path for path in pictures if not is_file(root / path)]
    issues += _some(missing, f"of {len(pictures):,} images are missing")
    pins = Pins.read(root) if digests else Pins(root)
    if digests:
        issues += _changed(layout.sources, root, pins)
    notes: list[str] = []
    if open_pictures:
        absent = set(missing)
        there = [path for path in pictures if path not in absent]
        seen = _look_at(there, root, pins, opened)
        issues += _some(seen.damaged, "images cannot be shown to a model")
        for line, count in seen.placeholders():
            few = count < MANY or count <= MANY_SHARE * len(there)
            (notes if few else issues).append(line)
    return Findings(samples, len(pictures), answers, tuple(issues), layout.name, tuple(notes))


def pin_sources(task: Task, root: Path) -> int:
    """Pin the files that the task reads and that are not pinned yet. Returns their number.

    For files that a person brought, once they are verified. Includes those of the training split if
    it is there. Pictures are not pinned.
    """
    pins = Pins.read(root)
    sources = [*task.layout(root).sources]
    if trained := [layout for layout in task.train if layout.complete(root)]:
        sources += trained[0].sources
    fresh = {
        path: Pinned(sha256_file(root / path), (root / path).stat().st_size)
        for path in dict.fromkeys(path for path, _ in _files(sources, root))
        if pins.digest(path) is None
    }
    if fresh:
        pins.pin(fresh)
    return len(fresh)


def _files(sources: Iterable[Source], root: Path) -> Iterator[tuple[str, str | None]]:
    """Path below the root of each file, and the digest that the task pins."""
    for source in sources:
        for file in source.files(root):
            yield file.relative_to(root).as_posix(), source.sha256


def _changed(sources: Iterable[Source], root: Path, pins: Pins) -> list[str]:
    issues = []
    for path, demanded in _files(sources, root):
        pinned = demanded or pins.digest(path)
        if pinned is not None and (digest := sha256_file(root / path)) != pinned:
            issues.append(
                f"{path}: sha256 {pinned} {'expected' if demanded else f'is pinned in {NAME}'}, "
                f"{digest} found: delete the file and prepare the data again"
            )
    return issues


@dataclass(slots=True)
class _Seen:
    """What opening pictures showed.

    damaged  `path (fault)` of each that cannot be decoded or does not match its pin
    pixels   paths of single pixels
    same     digest -> paths of all others with these bytes
    """

    damaged: list[str] = field(default_factory=list)
    pixels: list[str] = field(default_factory=list)
    same: dict[str, list[str]] = field(default_factory=dict)

    def placeholders(self) -> Iterator[tuple[str, int]]:
        """(line, number of pictures) for pictures that look like the placeholder of a shop."""
        sent = "a placeholder for pictures that are gone?"
        if self.pixels:
            (line,) = _some(self.pixels, "images are a single pixel")
            yield f"{line}: {sent}", len(self.pixels)
        for paths in self.same.values():
            if len(paths) >= SAME:
                (line,) = _some(paths, "images are one file, byte for byte")
                yield f"{line}: {sent}", len(paths)


def _look_at(
    paths: list[str], root: Path, pins: Pins, opened: Callable[[int, int], None] | None
) -> _Seen:
    """Decode each picture."""

    def look(path: str) -> tuple[str | None, str, bool]:
        """The fault of a picture, its digest, and whether it is a single pixel."""
        try:
            if damage := picture_fault(root / path):
                return damage, "", False
            digest = sha256_file(root / path)
            if pins.digest(path) not in (None, digest):
                return f"not the file that is pinned in {NAME}", "", False
            return None, digest, is_pixel(root / path)
        except (DataError, OSError) as error:
            return str(error), "", False

    seen = _Seen()
    with quiet_pillow():
        for number, (path, (damage, digest, pixel)) in enumerate(in_threads(look, paths), 1):
            if damage:
                seen.damaged.append(f"{path} ({damage})")
            elif pixel:
                seen.pixels.append(path)
            else:
                seen.same.setdefault(digest, []).append(path)
            if opened:
                opened(number, len(paths))
    return seen


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
    for group, expected in expect.distinct.items():
        if group in groups:
            counted.append((f"values of {group}", expected, len(groups[group])))
    return [
        f"{name}: {expected:,} expected, {count:,} found"
        for name, expected, count in counted
        if expected is not None and expected != count
    ]


def _some(items: list[str], what: str) -> list[str]:
    if not items:
        return []
    dots = ", ..." if len(items) > SHOWN else ""
    return [f"{len(items):,} {what}: {', '.join(items[:SHOWN])}{dots}"]


def _first(samples: Iterator[Sample], limit: int | None) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if number == limit:
            return
        yield sample
