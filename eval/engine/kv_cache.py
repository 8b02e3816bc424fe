"""The KV cache: keys and values of running sequences and of the prefixes that they share.

Shape letters: N entries, H heads, T slots, C channels of a head.
"""

from torch import Tensor

from eval.engine.sequence import Prefix, Sequence

WIDTH_STEP = 32  # widths are multiples of it
ENTRY_STEP = 4  # and numbers of entries of this


class KVCache:
    """Keys and values of several token sequences, an entry each; the entries in use come first.

    lengths  filled slots of each entry in use
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.entries = self.width = 0  # reserved
        self.keys: list[Tensor] = []  # of each layer, (N, H, T, C)
        self.values: list[Tensor] = []

    def size_for(self, entries: int, width: int, generous: bool) -> tuple[int, int]:
        """Entries and width to reserve for so many entries of such a width.

        Tensors that are large enough stay; an empty cache that is too wide does not.

        generous  the number of entries doubles, so that tensors are seldom copied
        """
        entries, width = _round_up(entries, ENTRY_STEP), _round_up(width, WIDTH_STEP)
        if not self.lengths and not self.width <= 2 * width <= 2 * self.width:
            return entries, width
        if generous and entries > self.entries:
            entries = max(entries, 2 * self.entries)
        return max(entries, self.entries), max(width, self.width)

    def reserve(self, entries: int, width: int) -> None:
        """Set the size to what `size_for` gave; the tensors grow when a layer is next used."""
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
                # zeros: a weight of 0 does not cancel a NaN in a masked slot
                new = like.new_zeros(self.entries, like.shape[1], self.width, like.shape[3])
                new[:n, :, :t] = old
                tensors[layer] = new
        return self.keys[layer], self.values[layer]

    @property
    def size(self) -> tuple[int, int]:
        """Entries and width that are reserved."""
        return self.entries, self.width

    def trim(self) -> None:
        """Reserve no more than every layer has: there was no memory for it."""
        if not self.lengths:
            self.keys, self.values = [], []
        tensors = (*self.keys, *self.values)
        self.entries = min((tensor.shape[0] for tensor in tensors), default=0)
        self.width = min((tensor.shape[2] for tensor in tensors), default=0)

    def allocate(self, length: int) -> int:
        """Use the next entry; its number."""
        self.lengths.append(length)
        return len(self.lengths) - 1

    def clear(self, entry: int) -> None:
        """Set an entry to zero: a weight of 0 does not cancel a NaN."""
        for tensor in (*self.keys, *self.values):
            if tensor.shape[0] > entry:
                tensor[entry] = 0

    def free(self, entry: int) -> None:
        """Free an entry: the last one moves to its place."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if entry != last:
            self.lengths[entry] = length
            for tensor in (*self.keys, *self.values):
                if tensor.shape[0] > last:
                    tensor[entry, :, :length] = tensor[last, :, :length]


class Pool:
    """Running sequences and their prefixes, bounded in number and in memory.

    max_sequences  at most so many generate at a time
    slots          of both caches together, at most: a slot is the keys and values of one token
    own, shared    caches of the sequences' own tokens and of the prefixes; entry n belongs to
                   sequences[n] and prefixes[n]
    """

    def __init__(self, max_sequences: int, slots: int) -> None:
        self.max_sequences = max_sequences
        self.slots = slots
        self.own, self.shared = KVCache(), KVCache()
        self.sequences: list[Sequence] = []
        self.prefixes: list[Prefix] = []

    def admit(self, sequence: Sequence) -> bool:
        """Take a sequence, and its prefix if it has no entry yet; False where there is no room.

        A sequence that is alone with its prefix is always admitted: work cannot get any smaller.
        """
        fresh = sequence.prefix.entry is None
        generates = not sequence.options
        count, prefixes = len(self.sequences) + generates, len(self.prefixes) + fresh
        for generous in (True, False):
            own = self.own.size
            if generates:
                own = self.own.size_for(count, sequence.slots, generous)
            shared = self.shared.size
            if fresh:
                shared = self.shared.size_for(prefixes, sequence.prefix.length, generous)
            if own[0] * own[1] + shared[0] * shared[1] <= self.slots:
                break
        else:
            if self.sequences or any(prefix is not sequence.prefix for prefix in self.prefixes):
                return False
        if count > self.max_sequences:
            return False
        if fresh:
            self.shared.reserve(*shared)
            sequence.prefix.entry = self.shared.allocate(sequence.prefix.length)
            self.prefixes.append(sequence.prefix)
        if generates:
            self.own.reserve(*own)
            self.own.allocate(len(sequence.ids))
            self.sequences.append(sequence)
        return True

    def remove(self, sequence: Sequence, *, clear: bool = False) -> None:
        """Free the entry of a sequence that generates.

        clear  its keys and values may be NaN or infinite
        """
        entry = self.sequences.index(sequence)
        if clear:
            self.own.clear(entry)
        self.own.free(entry)
        last = self.sequences.pop()
        if last is not sequence:
            self.sequences[entry] = last

    def remove_prefix(self, prefix: Prefix) -> None:
        """Free the entry of a prefix that no running sequence reads."""
        assert prefix.entry is not None
        if prefix.suspect:
            self.shared.clear(prefix.entry)
        self.shared.free(prefix.entry)
        last = self.prefixes.pop()
        if last is not prefix:
            self.prefixes[prefix.entry] = last
            last.entry = prefix.entry
        prefix.entry, prefix.computed = None, False

    def shrink(self) -> None:
        """Halve the slots: the device has less memory than was assumed."""
        self.slots = max(self.slots // 2, 1)
        self.own.trim()
        self.shared.trim()


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
