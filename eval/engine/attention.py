"""What each token reads: of a packed prefill, and of a step of one token a row.

Both are what `eval.runtime.language` calls a memory: they take the queries, keys and values of a
layer, put the latter into the pool, and let each query read what is its own; the shared prefix is
read where it stands.

Shape letters: H heads, S tokens of this call, T slots read, C channels of a head, R rows,
G prefixes, M rows on one prefix at most, P slots of the longest prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.engine.pool import Pool, Prefix, Row
from eval.runtime.language import Places, attention


@dataclass(slots=True)
class Segment:
    """Some rows of one prefix in a packed prefill, and the prefix itself if it is new.

    begin   where its tokens begin; first the prefix's, if fresh, then the rows' one after the other
    fresh   tokens of the prefix among them, 0 where it is in the pool already
    end     where they end
    mask    (1, 1, S, T) additive: which of prefix and rows' tokens each row's token reads, or None
    """

    prefix: Prefix
    rows: list[Row]
    begin: int
    fresh: int
    end: int
    mask: Tensor | None = None


def segments_of(rows: Sequence[Row]) -> list[Segment]:
    """Rows that follow each other on one prefix, with the prefix where it is new.

    A row that is to be alone has a segment of its own.
    """
    segments: list[Segment] = []
    for row in rows:
        last = segments[-1] if segments else None
        follows = last is not None and last.prefix is row.prefix
        if last and follows and not row.alone and not last.rows[-1].alone:
            last.rows.append(row)
            last.end += row.tokens
            continue
        begin = last.end if last else 0
        # the segment before has put the keys and values of a common prefix down, layer by layer
        fresh = 0 if row.prefix.computed or follows else row.prefix.length
        segments.append(Segment(row.prefix, [row], begin, fresh, begin + fresh + row.tokens))
    return segments


class Prefill:
    """Attention of a packed prefill: one sequence of all segments' tokens, each reading its own.

    A row's tokens read the shared prefix where it stands and the row's tokens before them.
    """

    def __init__(
        self, pool: Pool, segments: list[Segment], dtype: torch.dtype, device: torch.device
    ):
        self.pool = pool
        self.segments = segments
        kept: list[tuple[int, int, int]] = []  # token, its row's entry, its slot there
        entries = {id(row): entry for entry, row in enumerate(pool.rows)}
        for segment in segments:
            segment.mask = _tree_mask(segment, dtype, device)
            token = segment.begin + segment.fresh
            for row in segment.rows:
                if not row.options:
                    entry = entries[id(row)]
                    kept += [(token + slot, entry, slot) for slot in range(len(row.ids))]
                token += row.tokens
        self.kept = torch.tensor(kept, dtype=torch.int64, device=device).reshape(-1, 3).unbind(1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Places) -> Tensor:
        """(1, H, S, C) each; fills the pool's shelves."""
        y = torch.empty_like(q)
        tokens, entries, slots = (index.to(q.device) for index in self.kept)
        if self.pool.rows:
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
    """A token reads the prefix, its row's prompt, and of the row's tails only its own."""
    rows: list[int] = []  # of each token, its row and its tail, 0 for the prompt
    tails: list[int] = []
    for number, row in enumerate(segment.rows):
        rows += [number] * row.tokens
        for tail, ids in enumerate((row.ids, *row.tails)):
            tails += [tail] * len(ids)
    total, shared = len(rows), segment.prefix.length
    if total == 1 or (not shared and not any(rows) and not any(tails)):
        return None  # everything, or causal
    row_of, tail_of = torch.tensor(rows), torch.tensor(tails)
    allowed = (row_of[:, None] == row_of).tril()
    allowed &= (tail_of == 0) | (tail_of[:, None] == tail_of)
    mask = torch.zeros(total, shared + total, dtype=dtype)
    mask[:, shared:].masked_fill_(~allowed, torch.finfo(dtype).min)
    return mask[None, None].to(device)


class Step:
    """Attention of one new token a row: its prefix in place, then its own slots.

    The rows on one prefix read it together: a product (M, C) x (C, P) for each head and prefix.
    """

    def __init__(self, pool: Pool, device: torch.device) -> None:
        self.pool = pool
        own = pool.own.lengths
        self.rows = len(own)
        self.width = max(own) + 1
        self.prefixes = len(pool.prefixes)
        self.shared_width = max(pool.shared.lengths, default=0)
        places: list[tuple[int, int]] = []  # of each row: prefix, place among its rows
        counts = [0] * self.prefixes
        for row in pool.rows:
            entry = row.prefix.entry
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
        )[:, None]  # (R, 1, P + T): slots that a row must not read

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, at: Places) -> Tensor:
        """(R, H, 1, C) each; appends to the rows' own slots."""
        entry, place, length = (index.to(q.device) for index in self.index)
        hidden = self.hidden.to(q.device)
        rows, heads, _, channels = q.shape
        own_k, own_v = self.pool.own.layer(layer, q)
        number = torch.arange(rows, device=q.device)
        own_k[number, :, length] = k[:, :, 0]
        own_v[number, :, length] = v[:, :, 0]
        q = q[:, :, 0] * channels**-0.5
        own = own_k[:rows, :, : self.width] @ q[..., None]  # (R, H, T, 1)
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
        y = (weights[:, :, None, self.shared_width :] @ own_v[:rows, :, : self.width])[:, :, 0]
        if self.shared_width:
            mine = weights[:, :, : self.shared_width]
            spread = mine.new_zeros(self.prefixes, self.widest, heads, self.shared_width)
            spread[entry, place] = mine
            read = shared_v[: self.prefixes, :, : self.shared_width]
            y = y + (spread.transpose(1, 2) @ read).transpose(1, 2)[entry, place]
        return y[:, :, None]
