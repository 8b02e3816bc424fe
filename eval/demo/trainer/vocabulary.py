"""The demo's own byte-pair vocabulary, learned from what the scenes say."""

import base64
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from random import Random

from eval.demo.questions import questions, reply, tail
from eval.demo.scenes import KINDS, TRAINING_SEEDS, WORDS, make_scene
from eval.runtime.chat import SYSTEM

# The tokenizer's splitting pattern, for ASCII
PIECE = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]|"
    r" ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> list[str]:
    """The texts that the vocabulary is learned from."""
    texts = [f"system\n{SYSTEM}", "user\nPicture 1:", "assistant\n"]
    texts += [f"{word} {word}" for word in WORDS]
    for number in range(400):
        for kind in KINDS:
            draw = Random(f"vocabulary {number}")
            scene = make_scene(TRAINING_SEEDS[-1 - number], kind)
            for question in questions(scene, draw):
                texts += [re.sub("<.*?>", " ", tail(question) + reply(question)), question.answer]
    return texts


def learn_ranks(texts: Iterable[str], merges: int) -> list[bytes]:
    """256 single bytes, then the commonest pair again and again, until each piece is one token."""
    counts = Counter(piece.encode() for text in texts for piece in PIECE.findall(text))
    words = [([bytes([byte]) for byte in piece], n) for piece, n in sorted(counts.items())]
    ranks = [bytes([byte]) for byte in range(256)]
    for _ in range(merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for parts, n in words:
            for pair in pairwise(parts):
                pairs[pair] += n
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks.append(best[0] + best[1])
        for parts, _ in words:
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == best:
                    parts[place : place + 2] = [ranks[-1]]
                place += 1
    return ranks


def write_ranks(ranks: list[bytes], path: Path) -> None:
    """Write `base64(bytes) rank` lines."""
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks)]
    path.write_bytes(b"".join(lines))
