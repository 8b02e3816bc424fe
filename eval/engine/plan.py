"""Groups of questions that are near each other and begin with the same image.

Images are compared by content, not by name. Requests are pulled a batch at a time, and only when
another group is needed, so neither memory nor the wait for the first answer grows with the dataset.
Questions on one image form one group within a batch, and neighbours do across its end; to group
more, sort the requests by image.
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

MAX_QUESTIONS = 256  # of a group
READERS = 4  # threads that read image files for their digests
REMEMBERED = 4096  # paths whose digests are kept
SPAN = QUERIES + 2  # tokens of an image with its tags


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a prompt.

    key   digest of the file's bytes; of a file that cannot be read, its path
    file  its path
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
    """Pulls requests and groups them.

    batch  requests that are pulled at a time
    """

    def __init__(
        self,
        model: QwenVL,
        image_root: Path,
        requests: Iterable[Request],
        batch: int = MAX_QUESTIONS,
    ) -> None:
        self.model = model
        self.image_root = image_root
        self.requests = requests
        self.batch = batch
        self.digests: dict[str, str | None] = {}  # path -> digest, the most recent last

    def __iter__(self) -> Iterator[Group | Prediction]:
        """Groups of at most MAX_QUESTIONS, each batch's in the order of their first images.

        The group of a batch's last question waits for more of its kind; after all others the next
        batch is pulled. A request that the model cannot answer becomes a prediction with the
        reason.
        """
        remaining = iter(self.requests)
        held: dict[tuple[str, float], list[Question]] = {}
        while batch := list(islice(remaining, self.batch)):
            grouped, held = held, {}
            last = next(iter(grouped), None)
            for each in self._read(batch):
                if isinstance(each, Prediction):
                    yield each
                    continue
                question, base = each
                last = (question.pictures[0].key if question.pictures else "", base)
                grouped.setdefault(last, []).append(question)
            for key, questions in grouped.items():
                for begin in range(0, len(questions), MAX_QUESTIONS):
                    part = questions[begin : begin + MAX_QUESTIONS]
                    if key == last and len(part) < MAX_QUESTIONS:
                        held[key] = part
                    else:
                        yield self._group(part, key[1])
        for (_, base), questions in held.items():
            yield self._group(questions, base)

    def _read(self, batch: Sequence[Request]) -> Iterator[tuple[Question, float] | Prediction]:
        """Each request as the model reads it and its rotary base, or why it has no answer."""
        read = [self.model.read(each.prompt, self.image_root, each.chat) for each in batch]
        digests = self._digests(list({str(path): None for _, paths in read for path in paths}))
        for request, (ids, paths) in zip(batch, read, strict=True):
            try:
                length = self._prefill_slots(request, len(ids))
            except UsageError as error:
                yield Prediction(request.id, "", error=str(error))
                continue
            pictures = (Picture(digests[str(p)] or f"unreadable: {p}", p) for p in paths)
            base = rotary_base(self.model.model.config, length)
            yield Question(request, ids, tuple(pictures)), base

    def _prefill_slots(self, request: Request, length: int) -> int:
        """Slots of the longest sequence that the model reads of a prompt of `length` tokens.

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
        """Of different paths; a file is read unless its digest is remembered."""
        digests = {path: self.digests.pop(path) for path in paths if path in self.digests}
        new = [path for path in paths if path not in digests]
        if new:
            with ThreadPoolExecutor(READERS, "digest") as readers:
                digests |= zip(new, readers.map(image_digest, new), strict=True)
        self.digests |= digests
        for path in list(self.digests)[:-REMEMBERED]:
            del self.digests[path]
        return digests

    def _group(self, questions: list[Question], base: float) -> Group:
        prefix = common_prefix(questions, self.model.tokenizer.img_start_id)
        return Group(tuple(questions), prefix, base)


def common_prefix(questions: Sequence[Question], image_start_id: int) -> int:
    """How many first tokens and images all share; each question keeps at least one more token.

    An image is never cut: it lies before the end of the prefix, or after it.
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
