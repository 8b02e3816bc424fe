"""Which tokens each token reads, in a packed prefill and in a step of one token per sequence.

Both classes are a `Memory` of `eval.runtime.language`: they take the queries, keys and values of a
layer, write the latter into the KV cache, and let each query read its own sequence. The shared
prefix is read in place, never copied.

Shape letters: H heads, S tokens of this call, T slots read, C channels of a head, R sequences,
G prefixes, M sequences on one prefix at most, P slots of the longest prefix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.engine.kv_cache import Pool
from eval.engine.sequence import Prefix, Sequence
from eval.runtime.language import Places, attention


@dataclass(slots=True)
class Segment:
    """Sequences of one prefix in a packed prefill, and the prefix itself if it is new.

    begin   where its tokens begin: those of the prefix, if fresh, then of each sequence in turn
    fresh   tokens of the prefix among them, 0 where the KV cache has it already
    end     where they end
    mask    (1, 1, S, T) additive: which tokens of prefix and sequences each token reads, or None
    """

    prefix: Prefix
    sequences: list[Sequence]
    begin: int
    fresh: int
    end: int
    mask: Tensor | None = None


def segments_of(sequences: list[Sequence]) -> list[Segment]:
    """Neighbours on one prefix, with the prefix where it is new.

    A sequence that must be alone has a segment of its own.
    """
    segments: list[Segment] = []
    for sequence in sequences:
        last = segments[-1] if segments else None
        prefix = sequence.prefix
        follows = last is not None and last.prefix is prefix
        if last and follows and not sequence.alone and not last.sequences[-1].alone:
            last.sequences.append(sequence)
            last.end += sequence.tokens
            continue
        begin = last.end if last else 0
        # the segment before writes the keys and values of a common prefix, layer by layer
        fresh = 0 if prefix.computed or follows else prefix.length
        end = begin + fresh + sequence.tokens
        segments.append(Segment(prefix, [sequence], begin, fresh, end))
    return segments


class Prefill:
    """Attention of a packed prefill: the tokens of all segments, one after the other.

    A token reads the shared prefix in place and the earlier tokens of its sequence.
    """

    def __init__(
        self, pool: Pool, segments: list[Segment], dtype: torch.dtype, device: torch.device
    ):
        self.pool = pool
        self.segments = segments
        kept: list[tuple[int, int, int]] = []  # token, its sequence's entry, its slot there
        entries = {sequence: entry for entry, sequence in enumerate(pool.sequences)}
        for segment in segments:
            segment.mask = _tree_mask(segment, dtype, device)
            token = segment.begin + segment.fresh
            for sequence in segment.sequences:
                if not sequence.options:
                    entry = entries[sequence]
                    kept += [(token + slot, entry, slot) for slot in range(len(sequence.ids))]
                token += sequence.tokens
        self.kept = torch.tensor(kept, dtype=torch.int64, device=device).reshape(-1, 3).unbind(1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Places) -> Tensor:
        """(1, H, S, C) each; fills the KV caches of the pool."""
        y = torch.empty_like(q)
        tokens, entries, slots = (index.to(q.device) for index in self.kept)
        if self.pool.sequences:
            for tensor, new in zip(self.pool.own.layer(layer, q), (k, v), strict=True):
                tensor[entries, :, slots] = new[0].transpose(0, 1)[tokens]
        shared_k, shared_v = self.pool.shared.layer(layer, q)
        for segment in self.segments:
            begin, end = segment.begin, segment.end
            middle = begin + segment.fresh
            length, entry = segment.prefix.length, segment.prefix.entry
            mine_k, mine_v = k[:, :, begin:end], v[:, :, begin:end]
            if segment.fresh:
                fresh_k, fresh_v = k[:, :, begin:middle], v[:, :, begin:middle]
                shared_k[entry, :, :length] = fresh_k[0]
                shared_v[entry, :, :length] = fresh_v[0]
                y[:, :, begin:middle] = attention(q[:, :, begin:middle], fresh_k, fresh_v, None)
            elif length:
                mine_k = torch.cat([shared_k[entry, None, :, :length], mine_k], dim=2)
                mine_v = torch.cat([shared_v[entry, None, :, :length], mine_v], dim=2)
            mask = segment.mask if segment.mask is None else segment.mask.to(q.device)
            y[:, :, middle:end] = attention(q[:, :, middle:end], mine_k, mine_v, mask)
        return y


def _tree_mask(segment: Segment, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """A token reads the prefix, its sequence's prompt, and of its tails only its own."""
    numbers: list[int] = []  # of each token, its sequence and its tail, 0 for the prompt
    tails: list[int] = []
    for number, sequence in enumerate(segment.sequences):
        numbers += [number] * sequence.tokens
        for tail, ids in enumerate((sequence.ids, *sequence.tails)):
            tails += [tail] * len(ids)
    total, shared = len(numbers), segment.prefix.length
    if total == 1 or (not shared and not any(numbers) and not any(tails)):
        return None  # everything, or causal
    sequence_of, tail_of = torch.tensor(numbers), torch.tensor(tails)
    allowed = (sequence_of[:, None] == sequence_of).tril()
    allowed &= (tail_of == 0) | (tail_of[:, None] == tail_of)
    mask = torch.zeros(total, shared + total, dtype=dtype)
    mask[:, shared:].masked_fill_(~allowed, torch.finfo(dtype).min)
    return mask[None, None].to(device)


class Step:
    """Attention of one new token per sequence: it reads its prefix in place, then its own slots.

    Sequences on one prefix read it together: a product (M, C) x (C, P) for each head and prefix.
    """

    def __init__(self, pool: Pool, device: torch.device) -> None:
        self.pool = pool
        own = pool.own.lengths
        self.width = max(own) + 1
        self.prefixes = len(pool.prefixes)
        self.shared_width = max(pool.shared.lengths, default=0)
        places: list[tuple[int, int]] = []  # of each sequence: its prefix, its place there
        counts = [0] * self.prefixes
        for sequence in pool.sequences:
            entry = sequence.prefix.entry
            assert entry is not None
            places.append((entry, counts[entry]))
            counts[entry] += 1
        self.widest = max(counts)
        table = [(*place, length) for place, length in zip(places, own, strict=True)]
        index = torch.tensor(table, dtype=torch.int64, device=device)
        shared = torch.tensor(pool.shared.lengths, dtype=torch.int64, device=device)[index[:, 0]]
        self.index = (index[:, 0], index[:, 1], index[:, 2])
        slots = torch.arange(max(self.shared_width, self.width), device=device)
        self.hidden = torch.cat(
            [
                slots[None, : self.shared_width] >= shared[:, None],
                slots[None, : self.width] > index[:, 2:],
            ],
            dim=1,
        )[:, None]  # (R, 1, P + T): slots that a sequence must not read

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Places) -> Tensor:
        """(R, H, 1, C) each; appends to the sequences' own slots."""
        entry, place, length = (index.to(q.device) for index in self.index)
        hidden = self.hidden.to(q.device)
        count, heads, _, channels = q.shape
        own_k, own_v = self.pool.own.layer(layer, q)
        number = torch.arange(count, device=q.device)
        own_k[number, :, length] = k[:, :, 0]
        own_v[number, :, length] = v[:, :, 0]
        q = q[:, :, 0] * channels**-0.5
        own = own_k[:count, :, : self.width] @ q[..., None]  # (R, H, T, 1)
        scores = own[..., 0]
        shared_k, shared_v = self.pool.shared.layer(layer, q[:, :, None])
        if self.shared_width:
            spread = q.new_zeros(self.prefixes, self.widest, heads, channels)
            spread[entry, place] = q
            read = shared_k[: self.prefixes, :, : self.shared_width]
            shared = spread.transpose(1, 2) @ read.transpose(2, 3)  # (G, H, M, P)
            scores = torch.cat([shared.transpose(1, 2)[entry, place], scores], dim=2)
        scores = scores.float().masked_fill_(hidden, -torch.inf)
        weights = scores.softmax(dim=-1).to(q.dtype)  # (R, H, P + T)
        y = (weights[:, :, None, self.shared_width :] @ own_v[:count, :, : self.width])[:, :, 0]
        if self.shared_width:
            mine = weights[:, :, : self.shared_width]
            spread = mine.new_zeros(self.prefixes, self.widest, heads, self.shared_width)
            spread[entry, place] = mine
            read = shared_v[: self.prefixes, :, : self.shared_width]
            y = y + (spread.transpose(1, 2) @ read).transpose(1, 2)[entry, place]
        return y[:, :, None]
