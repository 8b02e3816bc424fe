"""What the engine is asked in `bench_engine.py`: invented questions with the shape of real ones.

A workload copies a benchmark's prompt, decoding, questions on an image, order, and lengths of
questions and answers. Pictures are gradients with noise, questions are random words of one token.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from random_model import LETTERED, SEED, words

from eval.api import Decode, Generate, Rank, Request
from eval.protocols.qwen_vl import IMAGE

ASKED = "<img>{image}</img>{text} Answer:"
REFERRED = "<img>{image}</img><ref>{text}</ref><box>"
CAPTIONED = "<img>{image}</img>Describe the image in English:"
CHOSEN = "<img>{image}</img>Context: N/A\nQuestion: {text}\nOptions: {options}\nAnswer:"
WORDS = words()
SHORT = Generate(max_new_tokens=10, min_new_tokens=1)
CAPTION = Generate(max_new_tokens=30, min_new_tokens=8)
BOX = Generate(max_new_tokens=28, min_new_tokens=10)


@dataclass(frozen=True, slots=True)
class Workload:
    """Questions of one kind.

    prompt      with places {image}, {text} and {options}
    words       words of a question, from and to
    images      how many pictures, and how many questions there are on each
    shuffled    whether questions on one picture stand apart, as in GQA's file
    ends        whether `<|endoftext|>` is likely; where it is not, answers have full length
    target      published time / ours, at least; `aim` is what is hoped for
    """

    name: str
    prompt: str
    words: tuple[int, int]
    decode: Decode
    images: int
    per_image: int
    ends: bool
    target: float
    aim: float
    shuffled: bool = False
    size_px: tuple[int, int] = (640, 480)

    def resized(self, images: int, per_image: int) -> "Workload":
        """The same with other numbers."""
        return replace(self, images=images, per_image=per_image)

    def requests(self, folder: Path) -> list[Request]:
        """The questions, in the order of the file, on pictures of the folder."""
        asked = list(self.stream(folder))
        if self.shuffled:
            random.Random(SEED).shuffle(asked)
        return asked

    def stream(self, folder: Path) -> Iterator[Request]:
        """The questions one by one, picture after picture."""
        rng = random.Random(f"{SEED} {self.name}")
        for number in range(self.images * self.per_image):
            yield self._request(rng, folder, number)

    def _request(self, rng: random.Random, folder: Path, number: int) -> Request:
        text = question(rng, rng.randint(*self.words))
        options = "\n".join(f"{mark}. {question(rng, rng.randint(2, 8))}" for mark in "ABCD")
        image = picture(folder, number // self.per_image, self.size_px)
        prompt = self.prompt.format(image=image.name, text=text, options=options)
        return Request(f"{self.name}/{number}", prompt, self.decode)


WORKLOADS = (
    Workload("GQA-like", ASKED, (6, 10), SHORT, 2, 31, True, 10, 10, shuffled=True),
    Workload("RefCOCO-like", REFERRED, (3, 5), BOX, 8, 7, False, 4, 4),
    Workload("VQAv2-like", ASKED, (6, 10), SHORT, 10, 5, True, 3.5, 3.5),
    Workload("ScienceQA-like", CHOSEN, (12, 24), Rank(LETTERED), 16, 1, False, 3, 3),
    Workload("caption-like", CAPTIONED, (0, 0), CAPTION, 48, 1, True, 1, 1.2),
    Workload("VizWiz-like", ASKED, (6, 10), SHORT, 48, 1, True, 1, 1.2),
)
# For requests to a tiny model on tiny pictures, to see what stays in memory.
MEMORY = replace(WORKLOADS[2], name="memory", per_image=10, size_px=(32, 24))


def by_image(requests: Iterable[Request]) -> list[Request]:
    """As a run hands them over: those on one image together, the largest groups first."""
    groups: dict[str, list[Request]] = {}
    for request in requests:
        first = IMAGE.search(request.prompt)
        groups.setdefault(first[1] if first else "", []).append(request)
    return [each for group in sorted(groups.values(), key=len, reverse=True) for each in group]


def question(rng: random.Random, length: int) -> str:
    """Random words of one token each."""
    opening, later = WORDS
    return " ".join([rng.choice(opening), *rng.choices(later, k=max(length - 1, 0))])


def picture(folder: Path, number: int, size_px: tuple[int, int]) -> Path:
    """A JPEG, drawn where it is not there yet."""
    width, height = size_px
    path = folder / f"{width}x{height}_{number}.jpg"
    if not path.exists():
        rng = np.random.default_rng([SEED, number])
        y, x = np.mgrid[0:height, 0:width] / height
        waves = [
            np.sin(x * rng.uniform(1, 6) + y * rng.uniform(1, 6) + rng.uniform(0, 6))
            for _ in range(3)
        ]
        pixels = 128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return path
