"""A sequence: one prompt that is continued, or whose options are ranked; and its shared prefix."""

from dataclasses import dataclass, field

import numpy as np

from eval.api import Generate, Nucleus
from eval.engine.plan import Group, Question
from eval.runtime.tokenizer import Tokenizer


@dataclass(slots=True, eq=False)
class Prefix:
    """Tokens that sequences share.

    users     sequences of this prefix that run or wait
    entry     its place in the KV cache of prefixes, or None
    computed  whether its keys and values are there
    suspect   whether they may be NaN or infinite: they are set to zero when the entry is freed
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
class Sequence:
    """A prompt with the tokens generated so far, or a prompt with the options to rank.

    ids      what follows the shared prefix, at least one token
    max_new  new tokens at most, and `min_new` at least
    new      generated tokens
    rng      where tokens are drawn from, for a sequence that samples
    options  tokens of each option, or none; such a sequence is finished after its prefill
    tails    options without their last token, each once: what the model reads to rank them
    alone    whether it needs a prefill segment of its own
    """

    question: Question
    prefix: Prefix
    ids: list[int]
    max_new: int = 0
    min_new: int = 0
    new: list[int] = field(default_factory=list)
    options: list[list[int]] = field(default_factory=list)
    tails: list[list[int]] = field(default_factory=list)
    rng: np.random.Generator | None = None
    alone: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of its prefill."""
        return len(self.ids) + sum(map(len, self.tails))

    @property
    def slots(self) -> int:
        """Slots of the KV cache that it needs at most: its last token is never read."""
        return len(self.ids) + max(self.max_new - 1, 0)


def make_sequence(
    question: Question, prefix: Prefix, tokenizer: Tokenizer, trained: int
) -> Sequence | None:
    """The question as a sequence, or None for one that only the plain engine answers.

    trained  the model's trained length, in tokens
    """
    decode = question.request.decode
    ids = question.ids[prefix.length :]
    if isinstance(decode, Generate):
        if not decode.max_new_tokens:
            return None
        seed = decode.seed if isinstance(decode, Nucleus) else None
        rng = None if seed is None else np.random.Generator(np.random.PCG64(seed))
        return Sequence(
            question, prefix, ids, decode.max_new_tokens, decode.min_new_tokens, rng=rng
        )
    options = [tokenizer.encode(option) for option in decode.options]
    lengths = {len(option) for option in options}
    longest = len(question.ids) + max(lengths) - 1
    if tokenizer.eod_id in question.ids or (longest > trained and len(lengths) > 1):
        # the plain engine pads options to one batch, and here the padding changes the scores
        return None
    tails = list(dict.fromkeys(tuple(option[:-1]) for option in options))
    return Sequence(question, prefix, ids, options=options, tails=[list(t) for t in tails if t])
