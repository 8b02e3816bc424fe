"""Decoding: greedy or sampled continuation of left-padded rows, and the likelihood of choices.

Shape letters: R rows, S prompt slots, V vocabulary.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.runtime.model import QwenVLForCausalLM

LIKELY = 64  # ids among which a nucleus is looked for, before all are sorted


@dataclass(frozen=True, slots=True)
class Sampling:
    """Nucleus sampling; the defaults are the published ones of Qwen-VL-Chat. top_k 0 is off."""

    top_p: float = 0.3
    top_k: int = 0
    temperature: float = 1.0


def are_finite(scores: Tensor) -> Tensor:
    """Whether all scores (R, V) of a row are finite numbers, (R,) bool."""
    # amin and amax are NaN where any score is, and need no tensor of scores' size
    return scores.amin(-1).isfinite() & scores.amax(-1).isfinite()


def not_finite(dtype: torch.dtype) -> str:
    """Why a prompt has no answer whose scores are not finite."""
    name = str(dtype).removeprefix("torch.")
    return (
        f"scores that are no numbers: NaN or infinite. The model overflows in {name}, or its "
        "weights are damaged"
    )


@torch.inference_mode()
def continue_rows(
    model: QwenVLForCausalLM,
    ids: Tensor,
    mask: Tensor,
    features: Tensor | None,
    *,
    end_id: int,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    stop_ids: Sequence[int] = (),
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
) -> list[list[int]]:
    """New ids of each row, up to and with `end_id`; a row ends at it or at the maximum.

    ids, mask  (R, S) int64, padded on the left, mask 1 = real
    features   (N, 256, D) of the rows' images in reading order
    stop_ids   after one of these the next id is `end_id`
    seeds      one a row, where sampling: a row's draw depends on its seed and its scores alone

    Raises ValueError where a row that has not ended gets scores that are not finite.
    """
    draws = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
    hidden, cache = model(ids, mask, features)
    stops = torch.tensor(list(stop_ids), dtype=torch.int64, device=ids.device)
    last = ids[:, -1]
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    new: list[Tensor] = []
    for step in range(max_new_tokens):
        scores = model.lm_head(hidden[:, -1]).to(ids.device)  # (R, V)
        ended = ended | torch.isin(last, stops)
        lost = ~(are_finite(scores) | ended)
        if step < min_new_tokens:
            scores[:, end_id] = -torch.inf
        if sampling is None:
            last = scores.argmax(-1)
        else:
            last = sample_tokens(scores.masked_fill((lost | ended)[:, None], 0.0), sampling, draws)
        last = torch.where(ended, end_id, last)
        new.append(last)
        ended = ended | (last == end_id)
        done, broken = torch.stack([ended.all(), lost.any()]).tolist()
        if broken:
            raise ValueError(not_finite(scores.dtype))
        if done or step + 1 == max_new_tokens:
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        hidden, cache = model(last[:, None], mask, cache=cache)
    rows = torch.stack(new, dim=1).tolist() if new else [[] for _ in range(len(ids))]
    return [row[: row.index(end_id) + 1] if end_id in row else row for row in rows]


def sample_tokens(scores: Tensor, how: Sampling, draws: Sequence[np.random.Generator]) -> Tensor:
    """One id a row (R,) from scores (R, V): temperature, then top-k, then the nucleus.

    The nucleus is the smallest set of likeliest ids whose probability reaches top_p. The id is
    found by inverting the cumulative distribution at one uniform draw, in float64.
    """
    wide = scores.double()
    top, ids = wide.topk(min(LIKELY, wide.shape[-1]))  # (R, K)
    whole = ((wide - top[:, :1]) / how.temperature).exp().sum(-1).tolist()
    likely = zip(top.cpu().numpy(), ids.cpu().numpy(), strict=True)
    picked = []
    for number, ((values, order), draw) in enumerate(zip(likely, draws, strict=True)):
        by_score = np.lexsort((order, -values))  # of equal scores the lowest id is first
        order = order[by_score]
        kept = _nucleus(values[by_score], how, whole[number])
        if how.top_k or kept is None:
            row = wide[number].cpu().numpy()
            order = np.argsort(-row, kind="stable")[: how.top_k or None]
            weights = np.exp((row[order] - row[order[0]]) / how.temperature)
            kept = _nucleus(row[order], how, float(weights.sum()), all_there=True)
        assert kept is not None  # where all are there, a nucleus is
        place = int(np.searchsorted(kept, draw.random() * kept[-1], side="right"))
        picked.append(int(order[min(place, len(kept) - 1)]))
    return torch.tensor(picked, dtype=torch.int64, device=scores.device)


def _nucleus(
    values: np.ndarray, how: Sampling, whole: float, *, all_there: bool = False
) -> np.ndarray | None:
    """Cumulative probabilities of the nucleus, or None where it may reach beyond these values.

    values     scores, the highest first
    whole      weight of all ids
    all_there  there are no other values
    """
    total = np.cumsum(np.exp((values - values[0]) / how.temperature)) / whole
    size = int(np.searchsorted(total, how.top_p, side="left")) + 1
    if all_there:
        return total if how.top_p >= 1 else total[:size]
    if how.top_p >= 1 or size > len(values) or values[size - 1] == values[-1]:
        return None
    return total[:size]


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean negative log-likelihood of each of several choices, in nats.

    exact      from logits cast to float32
    published  as the original computes them, in the model's dtype: each token's loss is rounded to
               it, then their mean, so that near choices tie; empty where the dtype is float32,
               since both are equal then
    """

    exact: tuple[float, ...]
    published: tuple[float, ...]


def losses_of(choices: Iterable[tuple[Tensor, Tensor]]) -> Losses:
    """Losses from the logits (T, V) and the ids (T,) of each choice's tokens.

    Raises ValueError for logits that are not finite.
    """
    exact: list[Tensor] = []
    published: list[Tensor] = []
    finite: list[Tensor] = []
    for logits, ids in choices:
        finite.append(are_finite(logits).all())
        each = F.cross_entropy(logits.float(), ids, reduction="none")
        exact.append(each.mean())
        if logits.dtype != torch.float32:
            published.append(each.to(logits.dtype).mean())
    if not bool(torch.stack(finite).all()):
        raise ValueError(not_finite(logits.dtype))
    lists = (torch.stack(each).tolist() if each else [] for each in (exact, published))
    return Losses(*map(tuple, lists))


@torch.inference_mode()
def choice_losses(
    model: QwenVLForCausalLM,
    ids: Tensor,
    mask: Tensor,
    features: Tensor | None,
    targets: Sequence[int],
) -> Losses:
    """Losses of the last `targets[r]` ids of each row; at least one row.

    ids, mask  (R, S) int64 of prompt and choice together, padded on the left

    Raises ValueError for logits that are not finite.
    """
    hidden, _ = model(ids[:, :-1], mask[:, :-1], features)
    logits = (model.lm_head(hidden[row, -count:]) for row, count in enumerate(targets))
    labels = (ids[row, -count:] for row, count in enumerate(targets))
    pairs = zip(logits, labels, strict=True)
    return losses_of((scores, ids.to(scores.device)) for scores, ids in pairs)
