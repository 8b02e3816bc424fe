"""The loop: choose who runs, run them, file the results.

Groups are taken while the pool and a small window of open groups have room for more.

Rows enter through a packed prefill of several prefixes and the rows on them, and then take one
token a step together until each is done. Ranked options need no step: their losses come out of the
prefill.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from eval.api import Generate, Nucleus, Prediction, Rank
from eval.engine.attention import Prefill, Segment, Step, segments_of
from eval.engine.memory import is_out_of_memory
from eval.engine.pictures import Pictures
from eval.engine.plain import PlainEngine, ranked
from eval.engine.plan import Group, Picture, Question
from eval.engine.pool import Pool, Prefix, Row
from eval.engine.usage import Usage
from eval.errors import PredictionError
from eval.runtime.generation import Sampling, are_finite, losses_of, not_finite, sample
from eval.runtime.language import places

WINDOW = 16  # groups that are open at most; the one with most work is next
AHEAD = 32  # pictures that are opened before they are needed
LOST = -1  # in place of a token, where scores are not finite
REFILL = 0.75  # new rows enter when so many of the rows that the pool could hold are left


class Answering:
    """Groups in, predictions out.

    groups                and what could not be asked, which is passed on
    plain                 answers what the pool cannot
    rows, memory, packed  see SharedEngine
    """

    def __init__(
        self,
        plain: PlainEngine,
        groups: Iterator[Group | Prediction],
        pictures: Pictures,
        usage: Usage,
        *,
        rows: int,
        memory: int,
        packed: int,
    ) -> None:
        self.plain = plain
        self.model = plain.model
        self.net = self.model.model
        self.tokenizer = self.model.tokenizer
        self.groups = groups
        self.pictures = pictures
        self.usage = usage
        self.packed = packed
        config = self.net.config
        self.trained = config.seq_length
        self.stops = (self.tokenizer.im_end_id, self.tokenizer.im_start_id)  # of a dialogue
        slot = 2 * config.num_hidden_layers * config.num_attention_heads * config.kv_channels
        self.pool = Pool(rows, max(memory // (slot * self.net.dtype.itemsize), 1))
        self.window: deque[Group] = deque()
        self.waiting: deque[Row] = deque()  # of opened groups, in their order
        self.full = 0  # rows in the pool when it last had no room, 0 where it may have some

    @torch.inference_mode()
    def predictions(self) -> Iterator[Prediction]:
        """One a question, as each is ready."""
        while True:
            if not self.pool.rows or len(self.pool.rows) <= REFILL * self.full or not self.full:
                picked, odd = self._pick()
                yield from odd
                if picked:
                    yield from self._enter(picked)
                    continue
                if odd:
                    continue
            if not self.pool.rows:
                return
            yield from self._step()

    # -- who runs --------------------------------------------------------------------------------

    def _pick(self) -> tuple[list[Row], list[Prediction]]:
        """Rows that enter the pool now; and answers to questions that are not for it."""
        picked: list[Row] = []
        odd: list[Prediction] = []
        tokens = 0
        self.full = 0
        while tokens < self.packed and len(odd) < WINDOW:
            if not self.waiting:
                odd += self._fill_window()
                if not self.window:
                    break
                odd += self._open_next()
                continue
            row = self.waiting[0]
            fresh = row.prefix.entry is None
            if not self.pool.admit(row):
                self.full = len(self.pool.rows)
                break
            picked.append(self.waiting.popleft())
            tokens += row.tokens + fresh * row.prefix.length
        self._look_ahead()
        return picked, odd

    def _fill_window(self) -> list[Prediction]:
        """Take groups until they are enough to fill the pool; what could not be asked."""
        odd: list[Prediction] = []
        while (
            len(self.window) < WINDOW
            and len(odd) < WINDOW
            and sum(len(group.questions) for group in self.window) < self.pool.most
            and (found := next(self.groups, None))
        ):
            if isinstance(found, Prediction):
                odd.append(found)
            else:
                self.window.append(found)
        self._look_ahead()
        return odd

    def _open_next(self) -> list[Prediction]:
        """Make the rows of the group with most work; answer what is not for the pool."""
        group = max(self.window, key=_work)
        self.window.remove(group)
        prefix = Prefix(group)
        odd: list[Prediction] = []
        for question in group.questions:
            row = self._row(question, prefix)
            if isinstance(row, Prediction):
                odd.append(row)
            else:
                prefix.users += 1
                self.waiting.append(row)
        return odd

    def _row(self, question: Question, prefix: Prefix) -> Row | Prediction:
        decode = question.request.decode
        ids = question.ids[prefix.length :]
        if isinstance(decode, Generate):
            if not decode.max_new_tokens:
                return self.plain.answer_one(question.request)
            row = Row(question, prefix, ids, decode.max_new_tokens, decode.min_new_tokens)
            if isinstance(decode, Nucleus):
                row.draws = np.random.Generator(np.random.PCG64(decode.seed))
            return row
        options = [self.tokenizer.encode(option) for option in decode.options]
        lengths = {len(option) for option in options}
        longest = len(question.ids) + max(lengths) - 1
        if self.tokenizer.eod_id in question.ids or (longest > self.trained and len(lengths) > 1):
            # options are one padded batch there, where slots and so scores depend on the longest
            return self.plain.answer_one(question.request)
        tails = list(dict.fromkeys(tuple(option[:-1]) for option in options))
        return Row(question, prefix, ids, options=options, tails=[list(t) for t in tails if t])

    def _look_ahead(self) -> None:
        """Have the pictures opened that will be needed next."""
        for row in list(self.waiting)[:AHEAD]:
            if len(self.pictures.loading) >= AHEAD:
                return
            self.pictures.expect(row.question.pictures)
        for group in self.window:
            if len(self.pictures.loading) >= AHEAD:
                return
            self.pictures.expect(group.questions[0].pictures)

    # -- run them --------------------------------------------------------------------------------

    def _enter(self, picked: list[Row]) -> Iterator[Prediction]:
        """Prefill rows that the pool has admitted."""
        segments = segments_of(picked)
        images = [picture for segment in segments for picture in self._images(segment)]
        failed: dict[str, str] = {}
        try:
            found, failed = self.pictures.features(images)
            if not failed:
                hidden = self._prefill(segments, [found[picture.key] for picture in images])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        else:
            if not failed:
                yield from self._prefilled(segments, hidden)
                return
            yield from self._leave_out(picked, failed)
            if picked:
                yield from self._enter(picked)
            return
        yield from self._back_out(picked, reason)

    def _images(self, segment: Segment) -> list[Picture]:
        """Pictures of a segment's tokens, in reading order."""
        shared = self._count(segment.prefix.group.questions[0].ids[: segment.prefix.length])
        images: list[Picture] = []
        if segment.fresh:
            images += segment.prefix.group.questions[0].pictures[:shared]
        for row in segment.rows:
            images += row.question.pictures[shared:]
        return images

    def _count(self, ids: Sequence[int]) -> int:
        return ids.count(self.tokenizer.img_start_id)

    def _prefill(self, segments: list[Segment], features: list[Tensor]) -> Tensor:
        """Final hidden states (K, D): of each row its prompt's last token, then all its tails'."""
        device = self.model.device
        ids: list[int] = []
        slots: list[int] = []
        bases: list[float] = []
        kept: list[int] = []
        for segment in segments:
            group, shared = segment.prefix.group, segment.prefix.length
            if segment.fresh:
                ids += group.questions[0].ids[:shared]
                slots += range(shared)
            for row in segment.rows:
                ids += row.ids
                slots += range(shared, shared + len(row.ids))
                kept += range(len(ids) - 1, len(ids) + row.tokens - len(row.ids))
                for tail in row.tails:
                    ids += tail
                    begin = shared + len(row.ids)
                    slots += range(begin, begin + len(tail))
            bases += [group.base] * (segment.end - segment.begin)
        x = self.net.embed(
            torch.tensor([ids], device=device),
            torch.stack(features).to(device) if features else None,
        )
        at = places(self.net.config, torch.tensor([slots], device=device), self._bases([bases]))
        memory = Prefill(self.pool, segments, x.dtype, device)
        wanted = torch.tensor(kept, device=device)
        hidden: Tensor = self.net.transformer(x, at, memory, wanted)[0]
        for segment in segments:
            segment.prefix.computed = True
        self.usage.prefills += 1
        self.usage.prefix += sum(segment.fresh for segment in segments)
        self.usage.suffix += len(ids) - sum(segment.fresh for segment in segments)
        return hidden

    def _bases(self, bases: list[list[float]]) -> float | Tensor:
        """One rotary base for all tokens where it is the same, as it nearly always is."""
        first = bases[0][0]
        if all(base == first for row in bases for base in row):
            return first
        return torch.tensor(bases, device=self.model.device)

    def _prefilled(self, segments: list[Segment], hidden: Tensor) -> Iterator[Prediction]:
        """First tokens of generating rows; losses of ranked options.

        Where a row's scores are not finite, a neighbour may be the cause, since a mask hides finite
        scores but not NaN. So a row fails only after a prefill that it shared with no other row.
        """
        lost: list[Row] = []
        growing: list[Row] = []
        firsts: list[int] = []
        place = 0
        for segment in segments:
            for row in segment.rows:
                if row.options:
                    end = place + 1 + row.tokens - len(row.ids)
                    try:
                        prediction = self._ranked(row, hidden[place:end])
                    except ValueError:
                        lost.append(row)
                    else:
                        self._release(row.prefix)
                        yield prediction
                    place = end
                else:
                    growing.append(row)
                    firsts.append(place)
                    place += 1
        if growing:
            lost += yield from self._take(growing, hidden[firsts])
        together = {row for segment in segments if len(segment.rows) > 1 for row in segment.rows}
        again = [row for row in lost if row in together]
        for row in again:
            row.alone = True
        self._put_back(again)
        for row in lost:
            if row not in together:
                yield self._fail(row)

    def _step(self) -> Iterator[Prediction]:
        """One token more for every row in the pool."""
        device = self.model.device
        rows = list(self.pool.rows)
        own = self.pool.own.lengths
        slots = [[row.prefix.length + n] for row, n in zip(rows, own, strict=True)]
        last = torch.tensor([[row.new[-1]] for row in rows], device=device)
        x = self.net.transformer.wte(last)  # an <img> that the model wrote means no image
        bases = self._bases([[row.prefix.group.base] for row in rows])
        at = places(self.net.config, torch.tensor(slots, device=device), bases)
        hidden = self.net.transformer(x, at, Step(self.pool, device))
        for entry in range(len(own)):
            own[entry] += 1
        self.usage.steps += 1
        self.usage.decoded += len(rows)
        for row in (yield from self._take(rows, hidden[:, 0])):
            yield self._fail(row)

    # -- file the results ------------------------------------------------------------------------

    def _take(self, rows: list[Row], hidden: Tensor) -> Generator[Prediction, None, list[Row]]:
        """Append each row's next token, from hidden states (R, D); rows that end leave.

        Returns the rows whose scores are not finite; they have no next token, and stay.
        """
        end = self.tokenizer.eod_id
        scores = self.net.lm_head(hidden).to(self.model.device)  # (R, V)
        finite = are_finite(scores)  # before <|endoftext|> is forbidden by a score of -inf
        early = [n for n, row in enumerate(rows) if len(row.new) < row.least]
        if early:
            scores[early, end] = -torch.inf
        tokens = scores.argmax(-1).masked_fill(~finite, LOST).tolist()
        self._draw(rows, scores, tokens)
        lost: list[Row] = []
        for row, token in zip(rows, tokens, strict=True):
            if token == LOST:
                lost.append(row)
                continue
            request = row.question.request
            row.new.append(token)
            if request.chat and token in self.stops and len(row.new) < row.most:
                row.new.append(end)  # nothing else can follow
            if row.new[-1] == end or len(row.new) == row.most:
                self._drop(row)
                text = self.tokenizer.decode_answer(row.new)
                decode = request.decode
                seed = decode.seed if isinstance(decode, Nucleus) else None
                yield Prediction(request.id, text, tuple(row.new), seed=seed)
        return lost

    def _draw(self, rows: list[Row], scores: Tensor, tokens: list[int]) -> None:
        """Put drawn tokens in place of the best ones, for rows that sample."""
        drawn: dict[float, list[int]] = {}
        for number, row in enumerate(rows):
            decode = row.question.request.decode
            if isinstance(decode, Nucleus) and tokens[number] != LOST:
                drawn.setdefault(decode.top_p, []).append(number)
        for top_p, numbers in drawn.items():
            draws = [draws for number in numbers if (draws := rows[number].draws)]
            found = sample(scores[numbers], Sampling(top_p), draws).tolist()
            for number, token in zip(numbers, found, strict=True):
                tokens[number] = token

    def _ranked(self, row: Row, hidden: Tensor) -> Prediction:
        """From hidden states (1 + tails, D): of the prompt's last token, then of all tails.

        Raises ValueError for scores that are not finite.
        """
        request = row.question.request
        assert isinstance(request.decode, Rank)
        scores = self.net.lm_head(hidden)  # (1 + tails, V)
        begins: dict[tuple[int, ...], int] = {}
        place = 1
        for tail in row.tails:
            begins[tuple(tail)] = place
            place += len(tail)
        pairs = []
        for option in row.options:
            begin = begins.get(tuple(option[:-1]), 1)
            where = [0, *range(begin, begin + len(option) - 1)]
            pairs.append((scores[where], torch.tensor(option, device=scores.device)))
        try:
            return ranked(request.id, request.decode, losses_of(pairs))
        except PredictionError as error:
            return Prediction(request.id, "", error=str(error))

    def _fail(self, row: Row) -> Prediction:
        """Its scores are not finite; nothing of it stays where other rows' sums would meet it."""
        if not row.options:
            self.pool.remove(row, wipe=True)
        row.prefix.suspect = True
        self._release(row.prefix)
        return Prediction(row.question.request.id, "", error=not_finite(self.net.dtype))

    def _drop(self, row: Row) -> None:
        self.pool.remove(row)
        self._release(row.prefix)

    def _release(self, prefix: Prefix) -> None:
        prefix.users -= 1
        if not prefix.users and prefix.entry is not None:
            self.pool.forget(prefix)

    def _leave_out(self, picked: list[Row], failed: dict[str, str]) -> Iterator[Prediction]:
        """Answer with the reason where a picture could not be read, also rows that still wait."""
        for rows in (picked, self.waiting):
            for row in list(rows):
                broken = [p.key for p in row.question.pictures if p.key in failed]
                if not broken:
                    continue
                rows.remove(row)
                if rows is picked and not row.options:
                    self.pool.remove(row)
                self._release(row.prefix)
                yield Prediction(row.question.request.id, "", error=failed[broken[0]])

    def _put_back(self, rows: list[Row]) -> None:
        """Rows that could not be computed wait again, before all others.

        A prefix that no row in the pool reads leaves it, so that there is room for whoever is next.
        """
        for row in reversed(rows):
            if not row.options:
                self.pool.remove(row, wipe=True)
            self.waiting.appendleft(row)
        used = {row.prefix for row in self.pool.rows}
        for prefix in dict.fromkeys(row.prefix for row in rows):
            if prefix not in used:
                prefix.suspect = True
                self.pool.forget(prefix)

    def _back_out(self, picked: list[Row], reason: str) -> Iterator[Prediction]:
        """There was not memory enough: the rows wait again, for a smaller pool."""
        self._put_back(picked)
        if len(picked) == 1 and not self.pool.rows:
            row = self.waiting.popleft()
            self._release(row.prefix)
            yield Prediction(
                row.question.request.id,
                "",
                error=f"not enough memory on {self.model.device} for this question alone: {reason}",
            )
        self.packed = max(self.packed // 2, 1)
        self.pool.shrink()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()


def _work(group: Group) -> int:
    """Tokens that a group takes, about."""
    decodes = [question.request.decode for question in group.questions]
    return group.prefix + sum(
        len(question.ids) - group.prefix + (d.max_new_tokens if isinstance(d, Generate) else 1)
        for question, d in zip(group.questions, decodes, strict=True)
    )
