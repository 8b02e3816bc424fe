"""The published procedure on the same weights: batches of 8 through transformers' own `generate`.

As in the authors' scripts: batches in the order of the data, padded on the left; every row opens
and encodes its own image; a batch ends with its longest row; each option of a multiple-choice
question is a row of its own. In its favour, next-token scores are computed only where one is
chosen, as transformers' models do; the authors' code computed them for every token of a prompt.
Source: Qwen-VL, eval_mm/evaluate_vqa.py, evaluate_grounding.py, evaluate_caption.py and
evaluate_multiple_choice.py.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from eval.api import Generate, Prediction, Rank, Request
from eval.runtime import QwenVL
from eval.runtime.image import load_image, preprocess
from eval.runtime.language import Places, additive_mask, attention, rotary_base, token_places
from eval.runtime.model import QwenVLForCausalLM
from eval.runtime.pretrained import PretrainedQwenVL, PretrainedQwenVLConfig

BATCH = 8


class Grown:
    """Attention of a batch that keeps keys and values in transformers' cache."""

    def __init__(self, cache: DynamicCache | None) -> None:
        self.cache = cache

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Places) -> Tensor:
        """Append k and v (R, H, S, C), then let the queries read all of the layer's."""
        if self.cache is not None:
            k, v = self.cache.update(k, v, layer)
        return attention(q, k, v, at.mask)


class Published(PretrainedQwenVL, GenerationMixin):
    """The model as transformers wants it; it shares the weights of another."""

    def __init__(self, model: QwenVLForCausalLM) -> None:
        with torch.device("meta"):
            super().__init__(PretrainedQwenVLConfig(**vars(model.config)))
        self.transformer, self.lm_head = model.transformer, model.lm_head
        self.eval()

    def hidden(
        self, ids: Tensor, mask: Tensor | None, pixels: Tensor | None, cache: DynamicCache | None
    ) -> Tensor:
        """Final hidden states (R, S, D) of ids (R, S); mask (R, T) with the cached slots, or None
        where nothing is padded.
        """
        past = cache.get_seq_length() if cache is not None else 0
        total = past + ids.shape[1]
        if past:
            x = self.transformer.wte(ids)
        else:
            x = self.embed(ids, self.transformer.visual(pixels))
            self.base = rotary_base(self.config, total)
        real = mask is None or (not past and bool(mask.all()))
        additive = None if real else additive_mask(mask, ids.shape[1], x.dtype)
        slots = torch.arange(past, total)[None]
        at = token_places(self.config, slots, self.base, additive)
        return self.transformer(x, at, Grown(cache))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        cache: DynamicCache | None = None,
        past_key_values: DynamicCache | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Scores of the next token, (R, 1, V); older releases call the cache by its long name."""
        cache = cache if cache is not None else past_key_values
        hidden = self.hidden(input_ids, attention_mask, pixel_values, cache)
        return CausalLMOutputWithPast(logits=self.lm_head(hidden[:, -1:]))

    def prepare_inputs_for_generation(
        self, *inputs: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Images belong to the first step alone."""
        found = super().prepare_inputs_for_generation(
            *inputs, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration:
            found.pop("pixel_values", None)
        return found


class PublishedEngine:
    """Answers requests as the authors' scripts did."""

    def __init__(self, model: QwenVL, image_root: Path) -> None:
        self.net = Published(model.model)
        self.tokenizer = model.tokenizer
        self.read = model.read
        self.image_root = image_root

    def answer(self, requests: Sequence[Request]) -> Iterator[Prediction]:
        """Yield predictions in the order of the requests, which all have the same decoding."""
        remaining = iter(requests)
        while batch := list(islice(remaining, BATCH)):
            rank = isinstance(batch[0].decode, Rank)
            yield from self._rank(batch) if rank else self._generate(batch, batch[0].decode)

    @torch.no_grad()
    def _generate(self, batch: list[Request], decode: Generate) -> Iterator[Prediction]:
        read = [self.read(request.prompt, self.image_root) for request in batch]
        ids, mask = self.tokenizer.left_pad([row for row, _ in read])
        end = self.tokenizer.eod_id
        given = self.net.generate(
            ids,
            attention_mask=mask,
            pixel_values=self._pixels([path for _, paths in read for path in paths]),
            do_sample=False,
            num_beams=1,
            max_new_tokens=decode.max_new_tokens,
            min_new_tokens=decode.min_new_tokens,
            pad_token_id=end,
            eos_token_id=end,
        )
        for request, row in zip(batch, given[:, ids.shape[1] :].tolist(), strict=True):
            new = row[: row.index(end) + 1] if end in row else row
            yield Prediction(request.id, self.tokenizer.decode_answer(new), tuple(new))

    @torch.no_grad()
    def _rank(self, batch: list[Request]) -> Iterator[Prediction]:
        rows: list[list[int]] = []
        counts: list[int] = []
        pictures: list[Path | str] = []
        for request in batch:
            prompt, paths = self.read(request.prompt, self.image_root)
            for option in request.decode.options:
                target = self.tokenizer.encode(option)
                rows.append(prompt + target)
                counts.append(len(target))
                pictures += paths
        ids, mask = self.tokenizer.left_pad(rows)
        hidden = self.net.hidden(ids[:, :-1], mask[:, :-1], self._pixels(pictures), None)
        losses = iter(
            float(F.cross_entropy(self.net.lm_head(row[-count:]), labels[-count:]))
            for row, labels, count in zip(hidden, ids, counts, strict=True)
        )
        for request in batch:
            mine = tuple(islice(losses, len(request.decode.options)))
            best = request.decode.best(mine)
            yield Prediction(request.id, request.decode.options[best].strip(), losses=mine)

    def _pixels(self, paths: list[Path | str]) -> Tensor:
        """(N, 3, S, S), each file opened as often as it is named."""
        size = self.net.transformer.visual.image_size
        return torch.stack([preprocess(load_image(path), size) for path in paths])
