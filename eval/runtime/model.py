"""Both towers as one model: token ids and image features in, hidden states out.

A plain module: `pretrained` has the same as a transformers model, whose base class alone takes
longer to import than torch.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eval.runtime.config import QwenVLConfig
from eval.runtime.language import (
    MAX_SLOTS,
    Block,
    Cache,
    Memory,
    Places,
    RMSNorm,
    additive_mask,
    rotary_base,
    token_places,
)
from eval.runtime.visual import QUERIES, VisionTransformer


class Transformer(nn.Module):
    """Embeddings, blocks, final norm, and the vision tower, under the published names."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.h = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.ln_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.visual = VisionTransformer(config.visual)

    def forward(
        self, x: Tensor, at: Places, memory: Memory | None = None, kept: Tensor | None = None
    ) -> Tensor:
        """Embeddings (R, S, D) at their places -> final hidden states (R, S, D).

        kept  (K,) int64: return only the hidden states of these places, (R, K, D); for the others
              the last block then only writes keys and values
        """
        last = len(self.h) - 1
        for layer, block in enumerate(self.h):
            x = block(x, at, memory, layer, kept if layer == last else None)
        return self.ln_f(x)  # type: ignore[no-any-return]


class QwenVLForCausalLM(nn.Module):
    """Qwen-VL under the parameter names of the published checkpoints; it holds no buffers."""

    def __init__(self, config: QwenVLConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.lm_head.weight.dtype

    def embed(self, ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Token embeddings (R, S, D) of ids (R, S), image slots replaced by features (N, 256, D).

        Features belong to the image spans in reading order, row by row. Raises ValueError where
        spans and features do not match.
        """
        x = self.transformer.wte(ids)
        start = self.config.image_start_id
        rows, columns = (ids == start).nonzero(as_tuple=True)
        count = 0 if features is None else len(features)
        if len(rows) != count:
            raise ValueError(f"{len(rows)} image spans in the ids, {count} images given")
        if features is None or not count:
            return x  # type: ignore[no-any-return]
        ends = columns + QUERIES + 1
        if int(ends.max()) >= ids.shape[1] or not bool((ids[rows, ends] == start + 1).all()):
            raise ValueError(f"an image span is not {QUERIES} slots between <img> and </img>")
        slots = columns[:, None] + torch.arange(1, QUERIES + 1, device=ids.device)
        return x.index_put((rows[:, None], slots), features.to(x.device, x.dtype))  # type: ignore[no-any-return]

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        features: Tensor | None = None,
        cache: Cache | None = None,
        **_: Any,
    ) -> tuple[Tensor, Cache]:
        """Hidden states (R, S, D) of ids (R, S), and the cache that a next step goes on from.

        mask      (R, T) with the cached slots, 1 = real, 0 = padding on the left; default all real
        features  (N, 256, D) for the image spans of a prefill
        cache     of the call before; its rotary base stays that of the prefill
        """
        past = cache.length if cache else 0
        rows, queries = ids.shape
        total = past + queries
        if total > MAX_SLOTS:
            raise ValueError(f"{total} tokens in a row; the model's positions end at {MAX_SLOTS}")
        if cache is None:
            cache = Cache(rotary_base(self.config, queries))
        # an <img> that the model wrote is a token as any other
        x = self.transformer.wte(ids) if past else self.embed(ids, features)
        additive = None
        if mask is not None and not (past == 0 and bool(mask.all())):
            additive = additive_mask(mask, queries, x.dtype)
        elif past and queries > 1:
            additive = additive_mask(ids.new_ones(rows, total), queries, x.dtype)
        slots = torch.arange(past, total, device=ids.device)[None]
        at = token_places(self.config, slots, cache.base, additive)
        return self.transformer(x, at, cache), cache
