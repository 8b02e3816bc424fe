"""The scheduler: chooses which sequences run. It reads no tensor and makes no prediction.

Groups are taken while the pool and a small window of open groups have room for more. Chosen
sequences enter the pool; they leave it when they are finished, or wait again when they could not
be computed.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from eval.api import Generate, Prediction, Request
from eval.engine.kv_cache import Pool
from eval.engine.pictures import Pictures
from eval.engine.plan import Group
from eval.engine.sequence import Prefix, Sequence, make_sequence
from eval.runtime import QwenVL

WINDOW = 16  # open groups at most; the one with the most work is next
PREFETCHED = 32  # pictures that are opened before they are needed
REFILL = 0.75  # a full pool is refilled when at most this part of its sequences is left


class Scheduler:
    """Queue of waiting sequences, in front of a pool of running ones.

    groups          from the plan, with predictions for requests that the model cannot answer
    prefill_tokens  of one prefill, about
    """

    def __init__(
        self,
        model: QwenVL,
        groups: Iterator[Group | Prediction],
        pictures: Pictures,
        pool: Pool,
        prefill_tokens: int,
    ) -> None:
        self.tokenizer = model.tokenizer
        self.trained = model.model.config.seq_length
        self.groups = groups
        self.pictures = pictures
        self.pool = pool
        self.prefill_tokens = prefill_tokens
        self.window: deque[Group] = deque()
        self.waiting: deque[Sequence] = deque()  # of opened groups, in their order
        self.full = 0  # sequences in the pool when it last refused one, 0 where it may have room

    def may_admit(self) -> bool:
        """Whether the pool may have room for enough sequences to be worth a prefill."""
        return not self.full or len(self.pool.sequences) <= REFILL * self.full

    def choose(self) -> tuple[list[Sequence], list[Prediction | Request]]:
        """Sequences that now enter the pool, to be prefilled; and what the pool is not for.

        The latter are predictions to pass on, and requests for the plain engine.
        """
        chosen: list[Sequence] = []
        others: list[Prediction | Request] = []
        tokens = 0
        self.full = 0
        while tokens < self.prefill_tokens and len(others) < WINDOW:
            if not self.waiting:
                others += self._fill_window()
                if not self.window:
                    break
                others += self._open_next()
                continue
            sequence = self.waiting[0]
            fresh = sequence.prefix.entry is None
            if not self.pool.admit(sequence):
                self.full = len(self.pool.sequences)
                break
            chosen.append(self.waiting.popleft())
            tokens += sequence.tokens + fresh * sequence.prefix.length
        self._prefetch()
        return chosen, others

    def finish(self, sequence: Sequence, *, suspect: bool = False) -> None:
        """Free what a running sequence holds, and its prefix after the last sequence on it.

        suspect  its keys and values and its prefix's may be NaN or infinite: they are set to zero,
                 since a weight of 0 would not cancel them in other sequences' sums
        """
        if not sequence.options:
            self.pool.remove(sequence, clear=suspect)
        sequence.prefix.suspect |= suspect
        self._release(sequence.prefix)

    def put_back(self, sequences: list[Sequence]) -> None:
        """Sequences that could not be computed wait again, before all others.

        A prefix that no sequence in the pool reads leaves it, so that the next one has room.
        """
        for sequence in reversed(sequences):
            if not sequence.options:
                self.pool.remove(sequence, clear=True)
            self.waiting.appendleft(sequence)
        used = {sequence.prefix for sequence in self.pool.sequences}
        for prefix in dict.fromkeys(sequence.prefix for sequence in sequences):
            if prefix not in used:
                prefix.suspect = True
                self.pool.remove_prefix(prefix)

    def shrink(self, sequences: list[Sequence]) -> Sequence | None:
        """Memory ran out in a prefill: its sequences wait again, for a smaller pool.

        Returns the sequence for which there is not enough memory even alone; it is finished.
        """
        self.put_back(sequences)
        hopeless = None
        if len(sequences) == 1 and not self.pool.sequences:
            hopeless = self.waiting.popleft()
            self._release(hopeless.prefix)
        self.prefill_tokens = max(self.prefill_tokens // 2, 1)
        self.pool.shrink()
        return hopeless

    def remove_unreadable(
        self, chosen: list[Sequence], unreadable: Mapping[str, str]
    ) -> list[tuple[Sequence, str]]:
        """Take out chosen and waiting sequences with such a picture; each with the reason.

        unreadable  why a picture cannot be read, by its key
        """
        removed: list[tuple[Sequence, str]] = []
        for sequences in (chosen, self.waiting):
            for sequence in list(sequences):
                keys = [p.key for p in sequence.question.pictures if p.key in unreadable]
                if not keys:
                    continue
                sequences.remove(sequence)
                if sequences is chosen:
                    self.finish(sequence)
                else:
                    self._release(sequence.prefix)
                removed.append((sequence, unreadable[keys[0]]))
        return removed

    def _release(self, prefix: Prefix) -> None:
        prefix.users -= 1
        if not prefix.users and prefix.entry is not None:
            self.pool.remove_prefix(prefix)

    def _fill_window(self) -> list[Prediction]:
        """Take groups until they are enough to fill the pool; predictions between them."""
        passed_on: list[Prediction] = []
        while (
            len(self.window) < WINDOW
            and len(passed_on) < WINDOW
            and sum(len(group.questions) for group in self.window) < self.pool.max_sequences
            and (group := next(self.groups, None))
        ):
            if isinstance(group, Prediction):
                passed_on.append(group)
            else:
                self.window.append(group)
        self._prefetch()
        return passed_on

    def _open_next(self) -> Iterable[Request]:
        """Queue the sequences of the group with the most work; requests for the plain engine."""
        group = max(self.window, key=_work)
        self.window.remove(group)
        prefix = Prefix(group)
        plain: list[Request] = []
        for question in group.questions:
            sequence = make_sequence(question, prefix, self.tokenizer, self.trained)
            if sequence is None:
                plain.append(question.request)
            else:
                prefix.users += 1
                self.waiting.append(sequence)
        return plain

    def _prefetch(self) -> None:
        """Have the pictures opened that will be needed next."""
        for sequence in list(self.waiting)[:PREFETCHED]:
            if len(self.pictures.loading) >= PREFETCHED:
                return
            self.pictures.prefetch(sequence.question.pictures)
        for group in self.window:
            if len(self.pictures.loading) >= PREFETCHED:
                return
            self.pictures.prefetch(group.questions[0].pictures)


def _work(group: Group) -> int:
    """Tokens that a group takes, about."""
    decodes = [question.request.decode for question in group.questions]
    return group.prefix + sum(
        len(question.ids) - group.prefix + (d.max_new_tokens if isinstance(d, Generate) else 1)
        for question, d in zip(group.questions, decodes, strict=True)
    )
