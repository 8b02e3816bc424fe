"""Which questions stand together: those of a whole run that begin with the same image.

Images are told apart by their content, not by their name. The requests wait in a temporary
database on disk, so memory does not grow with the dataset; what no model could be asked is refused
before the first question is asked.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from eval.api import Generate, Rank, Request
from eval.errors import UsageError
from eval.runtime import QwenVL
from eval.runtime.image import image_digest
from eval.runtime.language import MAX_SLOTS, rotary_base
from eval.runtime.visual import QUERIES

AT_ONCE = 256  # requests that are read, and questions of a group, at most
READERS = 4  # threads that read image files for their digests
SPAN = QUERIES + 2  # tokens of an image with its tags
TABLES = """
CREATE TABLE images (path TEXT PRIMARY KEY, digest TEXT) WITHOUT ROWID;
CREATE TABLE groups (number INTEGER PRIMARY KEY, key TEXT UNIQUE);
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, "group" INTEGER, id TEXT, prompt TEXT, decode TEXT, chat INTEGER
);
CREATE INDEX by_group ON requests ("group", number);
"""


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
    """Takes requests, gives groups of them in the order in which their images first came."""

    def __init__(self, model: QwenVL, image_root: Path) -> None:
        self.model = model
        self.image_root = image_root
        self.store = sqlite3.connect("")  # a temporary file that goes with the connection
        self.store.executescript(TABLES)

    def put(self, requests: Iterable[Request]) -> int:
        """Put requests down; how many.

        Raises UsageError, naming the request, for a prompt longer than the model's positions.
        """
        count = 0
        remaining = iter(requests)
        with ThreadPoolExecutor(READERS, "digest") as readers:
            while batch := list(islice(remaining, AT_ONCE)):
                read = [self._read(request) for request in batch]
                self._digest({str(path) for _, paths in read for path in paths}, readers)
                for request, (ids, paths) in zip(batch, read, strict=True):
                    self._put_one(request, ids, paths)
                count += len(batch)
        return count

    def groups(self) -> Iterator[Group]:
        """All groups; one of more than AT_ONCE questions comes in parts."""
        told = self.store.execute(
            "SELECT groups.key, id, prompt, decode, chat FROM requests JOIN groups "
            'ON groups.number = "group" ORDER BY "group", requests.number'
        )
        waiting: list[Question] = []
        waiting_key = ""
        for key, *fields in told:
            if waiting and (key != waiting_key or len(waiting) == AT_ONCE):
                yield self._group(waiting, waiting_key)
                waiting = []
            waiting_key = key
            waiting.append(self._question(*fields))
        if waiting:
            yield self._group(waiting, waiting_key)

    def close(self) -> None:
        """Drop what is left."""
        self.store.close()

    def _read(self, request: Request) -> tuple[list[int], list[Path | str]]:
        ids, paths = self.model.read(request.prompt, self.image_root, request.chat)
        longest = len(ids) + self._new_tokens(request)
        if longest > MAX_SLOTS:
            raise UsageError(
                f"{request.id}: a prompt of {len(ids):,} tokens and its answer take {longest:,}; "
                f"the model's positions end at {MAX_SLOTS:,}. Shorten the prompt, or ask with "
                "fewer examples"
            )
        return ids, paths

    def _new_tokens(self, request: Request) -> int:
        """The most tokens that can follow a prompt."""
        if isinstance(request.decode, Generate):
            return request.decode.max_new_tokens
        options = map(self.model.tokenizer.encode, request.decode.options)
        return max(map(len, options), default=1)  # none at all is refused when it is asked

    def _digest(self, paths: set[str], readers: ThreadPoolExecutor) -> None:
        """Read the files that are not known yet."""
        known = "SELECT 1 FROM images WHERE path = ?"
        new = [p for p in sorted(paths) if not self.store.execute(known, (p,)).fetchone()]
        digests = zip(new, readers.map(image_digest, new), strict=True)
        self.store.executemany("INSERT INTO images VALUES (?, ?)", digests)

    def _put_one(self, request: Request, ids: list[int], paths: Sequence[Path | str]) -> None:
        longest = len(ids) if isinstance(request.decode, Generate) else self._padded(request, ids)
        base = rotary_base(self.model.model.config, longest)
        key = json.dumps([self._picture(paths[0]).key if paths else "", base])
        self.store.execute("INSERT OR IGNORE INTO groups (key) VALUES (?)", (key,))
        decode = request.decode
        told = (
            [decode.max_new_tokens, decode.min_new_tokens]
            if isinstance(decode, Generate)
            else {"options": decode.options}
        )
        self.store.execute(
            'INSERT INTO requests ("group", id, prompt, decode, chat) '
            "VALUES ((SELECT number FROM groups WHERE key = ?), ?, ?, ?, ?)",
            (key, request.id, request.prompt, json.dumps(told), request.chat),
        )

    def _padded(self, request: Request, ids: list[int]) -> int:
        """Length of the longest option's row, as it is read: without its last token."""
        return len(ids) + self._new_tokens(request) - 1

    def _question(self, name: str, prompt: str, decode: str, chat: int) -> Question:
        told = json.loads(decode)
        how = Rank(tuple(told["options"])) if isinstance(told, dict) else Generate(*told)
        request = Request(name, prompt, how, bool(chat))
        ids, paths = self.model.read(prompt, self.image_root, request.chat)
        return Question(request, ids, tuple(self._picture(path) for path in paths))

    def _picture(self, path: Path | str) -> Picture:
        found = self.store.execute("SELECT digest FROM images WHERE path = ?", (str(path),))
        (digest,) = found.fetchone()
        return Picture(digest or f"unreadable: {path}", path)

    def _group(self, questions: list[Question], key: str) -> Group:
        prefix = common_prefix(questions, self.model.tokenizer.img_start_id)
        return Group(tuple(questions), prefix, json.loads(key)[1])


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
