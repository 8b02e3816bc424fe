"""The runner: sequences through the model. It chooses none and makes no prediction.

A packed prefill computes several prefixes and the sequences on them; then a step computes one token
for every sequence in the pool. Ranked options need no step: their losses come out of the prefill.
A token or a loss is None where the scores are not finite.

Shape letters: R sequences, K hidden states kept of a prefill, D width, V vocabulary.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from eval.api import Nucleus
from eval.engine.attention import Prefill, Segment, Step
from eval.engine.kv_cache import Pool
from eval.engine.plan import Picture
from eval.engine.sequence import Sequence
from eval.engine.usage import Usage
from eval.runtime import QwenVL
from eval.runtime.generation import Losses, Sampling, are_finite, losses_of, sample_tokens
from eval.runtime.language import Places, token_places

Outcome = int | Losses | None  # of a sequence: its next token, or the losses of its options


class Runner:
    """The model, with the keys and values of a pool of sequences."""

    def __init__(self, model: QwenVL, pool: Pool, usage: Usage) -> None:
        self.device = model.device
        self.net = model.model
        self.end_id = model.tokenizer.eod_id
        self.img_start_id = model.tokenizer.img_start_id
        self.pool = pool
        self.usage = usage

    def pictures(self, segments: list[Segment]) -> list[Picture]:
        """Pictures of a prefill's tokens, in reading order."""
        pictures: list[Picture] = []
        for segment in segments:
            first = segment.prefix.group.questions[0]
            shared = first.ids[: segment.prefix.length].count(self.img_start_id)
            if segment.fresh:
                pictures += first.pictures[:shared]
            for sequence in segment.sequences:
                pictures += sequence.question.pictures[shared:]
        return pictures

    def prefill(self, segments: list[Segment], features: list[Tensor]) -> Tensor:
        """Hidden states (K, D): of each sequence its prompt's last token, then all its tails'.

        features  (256, D) each, of `pictures(segments)`
        """
        ids: list[int] = []
        slots: list[int] = []
        bases: list[float] = []
        kept: list[int] = []
        for segment in segments:
            group, shared = segment.prefix.group, segment.prefix.length
            if segment.fresh:
                ids += group.questions[0].ids[:shared]
                slots += range(shared)
            for sequence in segment.sequences:
                begin = shared + len(sequence.ids)
                ids += sequence.ids
                slots += range(shared, begin)
                kept += range(len(ids) - 1, len(ids) + sequence.tokens - len(sequence.ids))
                for tail in sequence.tails:
                    ids += tail
                    slots += range(begin, begin + len(tail))
            bases += [group.base] * (segment.end - segment.begin)
        x = self.net.embed(
            torch.tensor([ids], device=self.device),
            torch.stack(features).to(self.device) if features else None,
        )
        at = self._places([slots], bases)
        memory = Prefill(self.pool, segments, x.dtype, self.device)
        hidden: Tensor = self.net.transformer(x, at, memory, torch.tensor(kept, device=self.device))
        for segment in segments:
            segment.prefix.computed = True
        fresh = sum(segment.fresh for segment in segments)
        self.usage.prefills += 1
        self.usage.prefix += fresh
        self.usage.suffix += len(ids) - fresh
        return hidden[0]

    def read_prefill(self, segments: list[Segment], hidden: Tensor) -> dict[Sequence, Outcome]:
        """Losses of ranked options, then first tokens, from what `prefill` gave (K, D)."""
        outcomes: dict[Sequence, Outcome] = {}
        generating: dict[Sequence, int] = {}
        place = 0
        for segment in segments:
            for sequence in segment.sequences:
                if sequence.options:
                    end = place + 1 + sequence.tokens - len(sequence.ids)
                    outcomes[sequence] = self._losses(sequence, hidden[place:end])
                    place = end
                else:
                    generating[sequence] = place
                    place += 1
        if generating:
            outcomes |= self._next_tokens(list(generating), hidden[[*generating.values()]])
        return outcomes

    def step(self) -> Mapping[Sequence, Outcome]:
        """The next token of every sequence in the pool, each of which has one already."""
        sequences = list(self.pool.sequences)
        lengths = self.pool.own.lengths
        slots = [[s.prefix.length + n] for s, n in zip(sequences, lengths, strict=True)]
        last = torch.tensor([[sequence.new[-1]] for sequence in sequences], device=self.device)
        x = self.net.transformer.wte(last)  # an <img> that the model wrote means no image
        at = self._places(slots, [sequence.prefix.group.base for sequence in sequences])
        hidden = self.net.transformer(x, at, Step(self.pool, self.device))
        for entry in range(len(lengths)):
            lengths[entry] += 1
        self.usage.steps += 1
        self.usage.decoded += len(sequences)
        return self._next_tokens(sequences, hidden[:, 0])

    def _places(self, slots: list[list[int]], bases: list[float]) -> Places:
        """Of tokens at these slots, each with its rotary base, which is nearly always the same."""
        at = torch.tensor(slots, device=self.device)
        if all(base == bases[0] for base in bases):
            return token_places(self.net.config, at, bases[0])
        base = torch.tensor(bases, device=self.device).reshape(at.shape)
        return token_places(self.net.config, at, base)

    def _next_tokens(self, sequences: list[Sequence], hidden: Tensor) -> dict[Sequence, Outcome]:
        """Tokens from hidden states (R, D): the best, or drawn for a sequence that samples."""
        scores = self.net.lm_head(hidden).to(self.device)  # (R, V)
        finite = are_finite(scores)  # before <|endoftext|> is forbidden by a score of -inf
        early = [n for n, sequence in enumerate(sequences) if len(sequence.new) < sequence.min_new]
        if early:
            scores[early, self.end_id] = -torch.inf
        lost = -1  # no token; one transfer from the device brings both
        best = scores.argmax(-1).masked_fill(~finite, lost).tolist()
        tokens = [None if token == lost else token for token in best]
        self._draw(sequences, scores, tokens)
        return dict(zip(sequences, tokens, strict=True))

    def _draw(self, sequences: list[Sequence], scores: Tensor, tokens: list[int | None]) -> None:
        """Put drawn tokens in place of the best ones, for sequences that sample."""
        by_top_p: dict[float, list[int]] = {}
        for number, sequence in enumerate(sequences):
            decode = sequence.question.request.decode
            if isinstance(decode, Nucleus) and tokens[number] is not None:
                by_top_p.setdefault(decode.top_p, []).append(number)
        for top_p, numbers in by_top_p.items():
            rngs = [rng for number in numbers if (rng := sequences[number].rng)]
            drawn = sample_tokens(scores[numbers], Sampling(top_p), rngs).tolist()
            for number, token in zip(numbers, drawn, strict=True):
                tokens[number] = token

    def _losses(self, sequence: Sequence, hidden: Tensor) -> Losses | None:
        """From hidden states (1 + tails, D): of the prompt's last token, then of all tails."""
        scores = self.net.lm_head(hidden)  # (1 + tails, V)
        begins: dict[tuple[int, ...], int] = {}
        place = 1
        for tail in sequence.tails:
            begins[tuple(tail)] = place
            place += len(tail)
        pairs = []
        for option in sequence.options:
            begin = begins.get(tuple(option[:-1]), 1)
            where = [0, *range(begin, begin + len(option) - 1)]
            pairs.append((scores[where], torch.tensor(option, device=scores.device)))
        try:
            return losses_of(pairs)
        except ValueError:
            return None
