"""How much arithmetic there is: performed, and the least that a workload needs.

In floating-point operations of matrix products and attention, two a multiply-add.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from eval.api import Prediction, Rank, Request
from eval.runtime import QwenVL
from eval.runtime.config import QwenVLConfig
from eval.runtime.visual import QUERIES

T = TypeVar("T")
SPAN = QUERIES + 2  # tokens of an image with its tags


def counted(work: Callable[[], T]) -> tuple[T, int]:
    """What `work` gives, and the operations that torch's own counter saw; attention reads all it
    is given there, also what a mask hides.
    """
    names = ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")
    extra = {getattr(torch.ops.aten, name): _attention for name in names}  # unknown to the counter
    with FlopCounterMode(display=False, custom_mapping=extra) as counter:
        found = work()
    return found, counter.get_total_flops()


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """Of queries (R, H, S, C), keys (R, H, T, C) and values of that shape."""
    rows, heads, queries, channels = q
    return 2 * rows * heads * queries * k[2] * (channels + v[3])


class Sizes:
    """Operations of a model's parts.

    image    of an image in the vision tower
    queries  of what the tower computes once for any number of images
    token    of a token in the language model, without attention
    pair     of a query that reads one key, in all layers
    scores   of the next token's scores
    last     of a token in the last layer behind attention, which few tokens need
    """

    def __init__(self, config: QwenVLConfig) -> None:
        tower = config.visual
        width, out = tower["width"], tower["output_dim"]
        patches = (tower["image_size"] // tower["patch_size"]) ** 2
        inner = int(width * tower["mlp_ratio"])
        layer = 2 * patches * (4 * width**2 + 2 * width * inner) + 4 * patches**2 * width
        embedded = 2 * patches * width * 3 * tower["patch_size"] ** 2
        keys = 2 * patches * (2 * out**2 + (width != out) * width * out)
        read = 4 * QUERIES * patches * out + 2 * QUERIES * 2 * out**2
        self.image = embedded + tower["layers"] * layer + keys + read
        self.queries = 2 * QUERIES * out**2
        hidden, layers = config.hidden_size, config.num_hidden_layers
        self.token = 2 * layers * (4 * hidden**2 + 3 * hidden * config.intermediate_size // 2)
        self.pair = 4 * layers * hidden
        self.scores = 2 * hidden * config.vocab_size
        self.last = 2 * (hidden**2 + 3 * hidden * config.intermediate_size // 2)

    def prefill(self, begin: int, end: int) -> int:
        """Of the tokens from `begin` to before `end`, each reading all up to itself."""
        tokens = end - begin
        return tokens * self.token + self.pair * (end * (end + 1) - begin * (begin + 1)) // 2

    def parts(self) -> dict[str, float]:
        """GFLOP of an image in the tower, of its tokens' prefill, and of a decoded token."""
        decoded = self.prefill(SPAN + 12, SPAN + 13) + self.scores
        parts = {"tower": self.image, "prefill": self.prefill(0, SPAN), "decoded": decoded}
        return {name: part / 1e9 for name, part in parts.items()}

    def fewest(
        self, model: QwenVL, requests: Iterable[Request], predictions: Mapping[str, Prediction]
    ) -> int:
        """The least that gives these predictions.

        Each distinct image goes through the tower once, each token that all questions on it begin
        with once, each token behind them once, each generated token but the last once; scores are
        computed once for each token that must be chosen, and the last layer behind its attention
        for those tokens alone whose scores are.
        """
        groups: dict[Any, list[tuple[list[int], Request]]] = defaultdict(list)
        for request in requests:
            ids, (path,) = model.read(request.prompt)
            groups[path].append((ids, request))
        total = self.queries + self.image * len(groups)
        for group in groups.values():
            shared = common([ids for ids, _ in group])
            total += self.prefill(0, shared) - shared * self.last
            for ids, request in group:
                rank = isinstance(request.decode, Rank)  # options of one token: scores of one place
                new = 1 if rank else len(predictions[request.id].tokens)
                total += self.prefill(shared, len(ids) + new - 1) + new * self.scores
                total -= (len(ids) - shared - 1) * self.last
        return total


def common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with, leaving each at least one."""
    shortest = min(map(len, rows)) - 1
    for place in range(shortest):
        if len({row[place] for row in rows}) > 1:
            return place
    return shortest
