"""Which questions stand together: those near each other that begin with the same image.

Images are told apart by their content, not by their name. Requests are pulled a batch at a time,
and only when another group is asked for, so neither memory nor the wait for the first answer grows
with the dataset. Questions on one image that lie in one batch stand together, and so do neighbours
across its end; who wants more sorts the requests before.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from eval.api import Generate, Prediction, Request
from eval.errors import UsageError
from eval.runtime import QwenVL
from eval.runtime.image import image_digest
from eval.runtime.language import MAX_SLOTS, rotary_base
from eval.runtime.visual import QUERIES

AT_ONCE = 256  # questions of a group, at most
READERS = 4  # threads that read image files for their digests
KNOWN = 4096  # paths whose digests are remembered
SPAN = QUERIES + 2  # tokens of an image with its tags


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a prompt.

    key   digest of the file's bytes, or where it cannot be read its path
    file  where it lies
    """

    key: str
    file: Path | str


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the model reads it.

    ids       of the prompt, nothing but `<imgpad>` in image slots
    pictures  in reading order
    """

    request: Request
    ids: list[int]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Questions that begin alike; their rotary base is the same.

    prefix  how many tokens all of them begin with; each has at least one more
    """

    questions: tuple[Question, ...]
    prefix: int
    base: float


class Plan:
    """Pulls requests, gives groups of them.

    batch  requests that are pulled at a time
    """

    def __init__(
        self, model: QwenVL, image_root: Path, requests: Iterable[Request], batch: int = AT_ONCE
    ) -> None:
        self.model = model
        self.image_root = image_root
        self.requests = requests
        self.batch = batch
        self.known: dict[str, str | None] = {}  # path -> digest, the most recent last

    def __iter__(self) -> Iterator[Group | Prediction]:
        """Groups of at most AT_ONCE questions, each batch's in the order of their first images.

        The next batch is pulled when all groups are given but the one that the last question
        belongs to: it waits for more of its kind. A request that the model cannot be asked comes
        as a prediction with the reason.
        """
        remaining = iter(self.requests)
        held: dict[tuple[str, float], list[Question]] = {}
        while batch := list(islice(remaining, self.batch)):
            grouped, held = held, {}
            last = next(iter(grouped), None)
            for found in self._read(batch):
                if isinstance(found, Prediction):
                    yield found
                    continue
                question, base = found
                last = (question.pictures[0].key if question.pictures else "", base)
                grouped.setdefault(last, []).append(question)
            for key, questions in grouped.items():
                for begin in range(0, len(questions), AT_ONCE):
                    part = questions[begin : begin + AT_ONCE]
                    if key == last and len(part) < AT_ONCE:
                        held[key] = part
                    else:
                        yield self._group(part, key[1])
        for (_, base), questions in held.items():
            yield self._group(questions, base)

    def _read(self, batch: Sequence[Request]) -> Iterator[tuple[Question, float] | Prediction]:
        """Each request as the model reads it, and its rotary base; or why it cannot be asked."""
        read = [self.model.read(each.prompt, self.image_root, each.chat) for each in batch]
        digests = self._digests(list({str(path): None for _, paths in read for path in paths}))
        for request, (ids, paths) in zip(batch, read, strict=True):
            try:
                length = self._prefilled(request, len(ids))
            except UsageError as error:
                yield Prediction(request.id, "", error=str(error))
                continue
            pictures = (Picture(digests[str(p)] or f"unreadable: {p}", p) for p in paths)
            base = rotary_base(self.model.model.config, length)
            yield Question(request, ids, tuple(pictures)), base

    def _prefilled(self, request: Request, length: int) -> int:
        """Slots of the longest row that a prompt of so many tokens is read in.

        Raises UsageError for options without a token, and beyond the model's positions.
        """
        decode = request.decode
        if isinstance(decode, Generate):
            new, slots = decode.max_new_tokens, length
        else:
            options = [len(self.model.tokenizer.encode(option)) for option in decode.options]
            if not options or not all(options):
                raise UsageError(
                    f"options of at least one token each expected, {decode.options} found"
                )
            new = max(options)
            slots = length + new - 1  # an option's last token is not read
        if length + new > MAX_SLOTS:
            raise UsageError(
                f"a prompt of {length:,} tokens and its answer take {length + new:,}; "
                f"the model's positions end at {MAX_SLOTS:,}. Shorten the prompt, or ask with "
                "fewer examples"
            )
        return slots

    def _digests(self, paths: Sequence[str]) -> dict[str, str | None]:
        """Of different paths; files that are not known are read."""
        found = {path: self.known.pop(path) for path in paths if path in self.known}
        new = [path for path in paths if path not in found]
        if new:
            with ThreadPoolExecutor(READERS, "digest") as readers:
                found |= zip(new, readers.map(image_digest, new), strict=True)
        self.known |= found
        for path in list(self.known)[:-KNOWN]:
            del self.known[path]
        return found

    def _group(self, questions: list[Question], base: float) -> Group:
        prefix = common_prefix(questions, self.model.tokenizer.img_start_id)
        return Group(tuple(questions), prefix, base)


def common_prefix(questions: Sequence[Question], image_start_id: int) -> int:
    """How many tokens all begin with, the same images among them, leaving each at least one.

    An image is never cut: it lies before the end of the prefix, or behind it.
    """
    first = questions[0]
    length = min(len(question.ids) for question in questions) - 1
    for question in questions[1:]:
        pairs = zip(first.ids[:length], question.ids, strict=False)
        length = next((n for n, (a, b) in enumerate(pairs) if a != b), length)
    spans = [n for n, token in enumerate(first.ids[:length]) if token == image_start_id]
    for number, start in enumerate(spans):
        same = {question.pictures[number].key for question in questions}
        if len(same) > 1 or start + SPAN > length:
            return start
    return length
