"""Who runs: the rows that are being answered, the prefixes they share, the memory of both.

Shape letters: N entries, H heads, T slots, C channels of a head.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from eval.engine.plan import Group, Question

WIDTH = 32  # widths of shelves are multiples of it
ENTRIES = 4  # and their numbers of entries of this


class Shelf:
    """Keys and values of several token sequences, those in use first.

    lengths  slots filled, of each entry in use
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.entries = self.width = 0  # what there is room for
        self.keys: list[Tensor] = []  # of each layer, (N, H, T, C)
        self.values: list[Tensor] = []

    def fitting(self, entries: int, width: int, generous: bool) -> tuple[int, int]:
        """Entries and width to reserve for so many entries of such a width.

        What is there stays where it serves; an empty shelf that is too wide does not.

        generous  room grows by doubling, so that tensors are seldom copied
        """
        entries, width = _up(entries, ENTRIES), _up(width, WIDTH)
        if not self.lengths and not self.width <= 2 * width <= 2 * self.width:
            return entries, width
        if generous and entries > self.entries:
            entries = max(entries, 2 * self.entries)
        return max(entries, self.entries), max(width, self.width)

    def reserve(self, entries: int, width: int) -> None:
        """Make room as `fitting` said: the tensors grow when a layer is next read."""
        if entries < self.entries or width < self.width:
            self.keys, self.values = [], []
        self.entries, self.width = entries, width

    def layer(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, H, T, C) of a layer, on the device and in the dtype of `like`.

        like  (R, H, S, C)
        """
        if layer == len(self.keys):
            empty = like.new_zeros(0, like.shape[1], 0, like.shape[3])
            self.keys.append(empty)
            self.values.append(empty)
        for tensors in (self.keys, self.values):
            old = tensors[layer]
            n, _, t, _ = old.shape
            if n < self.entries or t < self.width:
                # zeros: what is masked out must not be a number that poisons a sum
                new = like.new_zeros(self.entries, like.shape[1], self.width, like.shape[3])
                new[:n, :, :t] = old
                tensors[layer] = new
        return self.keys[layer], self.values[layer]

    @property
    def size(self) -> tuple[int, int]:
        """Entries and width that there is room for."""
        return self.entries, self.width

    def settle(self) -> None:
        """Want no more room than every layer has: there was no memory for it."""
        if not self.lengths:
            self.keys, self.values = [], []
        tensors = (*self.keys, *self.values)
        self.entries = min((tensor.shape[0] for tensor in tensors), default=0)
        self.width = min((tensor.shape[2] for tensor in tensors), default=0)

    def take(self, length: int) -> int:
        """Use the next entry; its number."""
        self.lengths.append(length)
        return len(self.lengths) - 1

    def wipe(self, entry: int) -> None:
        """Make an entry zero: a weight of 0 does not hide what is no number."""
        for tensor in (*self.keys, *self.values):
            if tensor.shape[0] > entry:
                tensor[entry] = 0

    def drop(self, entry: int) -> None:
        """Free an entry: the last one moves to its place."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if entry != last:
            self.lengths[entry] = length
            for tensor in (*self.keys, *self.values):
                if tensor.shape[0] > last:
                    tensor[entry, :, :length] = tensor[last, :, :length]


@dataclass(slots=True, eq=False)
class Prefix:
    """Tokens that rows share, while any of them is there.

    users     rows that are being answered, or still wait
    entry     in the pool's shelf, or None where it has none
    computed  whether its keys and values lie there
    suspect   whether they may be no numbers: they are wiped when it leaves
    """

    group: Group
    users: int = 0
    entry: int | None = None
    computed: bool = False
    suspect: bool = False

    @property
    def length(self) -> int:
        """Tokens."""
        return self.group.prefix


@dataclass(slots=True, eq=False)
class Row:
    """A prompt that is continued, or a question whose options are ranked.

    ids      what follows the shared prefix, at least one token
    most     new tokens at most, and `least` at least
    new      generated tokens
    draws    where tokens are drawn from, for a row that samples
    options  tokens of each option, or none; such a row is done after its prefill
    tails    what must be read behind the prompt to rank them: options without their last token
    alone    whether no other row of its prefix may stand in one segment with it
    """

    question: Question
    prefix: Prefix
    ids: list[int]
    most: int = 0
    least: int = 0
    new: list[int] = field(default_factory=list)
    options: list[list[int]] = field(default_factory=list)
    tails: list[list[int]] = field(default_factory=list)
    draws: np.random.Generator | None = None
    alone: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of its prefill."""
        return len(self.ids) + sum(map(len, self.tails))

    @property
    def slots(self) -> int:
        """Slots of its own that it needs at most: nothing reads its last token."""
        return len(self.ids) + max(self.most - 1, 0)


class Pool:
    """Rows that are being answered, bounded in number and in memory.

    rows   at most
    slots  of all shelves together, at most: a slot holds keys and values of one token
    """

    def __init__(self, rows: int, slots: int) -> None:
        self.most = rows
        self.slots = slots
        self.own, self.shared = Shelf(), Shelf()
        self.rows: list[Row] = []
        self.prefixes: list[Prefix] = []

    def admit(self, row: Row) -> bool:
        """Take a row, and its prefix if it is not there yet, where there is room.

        A row that is alone with its prefix always enters: there is no smaller piece of work.
        """
        fresh = row.prefix.entry is None
        keeps = not row.options
        rows, prefixes = len(self.rows) + keeps, len(self.prefixes) + fresh
        for generous in (True, False):
            own = self.own.fitting(rows, row.slots, generous) if keeps else self.own.size
            shared = self.shared.size
            if fresh:
                shared = self.shared.fitting(prefixes, row.prefix.length, generous)
            if own[0] * own[1] + shared[0] * shared[1] <= self.slots:
                break
        else:
            if self.rows or any(prefix is not row.prefix for prefix in self.prefixes):
                return False
        if rows > self.most:
            return False
        if fresh:
            self.shared.reserve(*shared)
            row.prefix.entry = self.shared.take(row.prefix.length)
            self.prefixes.append(row.prefix)
        if keeps:
            self.own.reserve(*own)
            self.own.take(len(row.ids))
            self.rows.append(row)
        return True

    def remove(self, row: Row, *, wipe: bool = False) -> None:
        """A generating row is done, or could not be computed.

        wipe  its keys and values may be no numbers
        """
        entry = self.rows.index(row)
        if wipe:
            self.own.wipe(entry)
        self.own.drop(entry)
        last = self.rows.pop()
        if last is not row:
            self.rows[entry] = last

    def forget(self, prefix: Prefix) -> None:
        """Nobody reads it any more."""
        assert prefix.entry is not None
        if prefix.suspect:
            self.shared.wipe(prefix.entry)
        self.shared.drop(prefix.entry)
        last = self.prefixes.pop()
        if last is not prefix:
            self.prefixes[prefix.entry] = last
            last.entry = prefix.entry
        prefix.entry, prefix.computed = None, False

    def shrink(self) -> None:
        """Take fewer rows from now on: the device has less memory than was thought."""
        self.slots = max(self.slots // 2, 1)
        self.own.settle()
        self.shared.settle()


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
