"""The pending requests of a round, in groups: a file that all workers read.

Requests that begin with the same image stand together. The group with most work comes first, so
that what is left for the end is small. The plan lies on disk and memory does not grow with it.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.api import Decode, Generate, Nucleus, Rank, Request
from eval.errors import RunError
from eval.run.requests import Identified

AT_ONCE = 256  # requests of a group on one image, at most: a larger one is cut
IMAGE_WORK = 300  # an image and what is read of it, in tokens
TOKEN = 4  # characters, about
TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, key TEXT, id TEXT, prompt TEXT, decode TEXT, chat INTEGER, of TEXT,
    work INTEGER
);
"""
GROUPED = """
CREATE TABLE members AS
    SELECT number, key,
        (row_number() OVER (PARTITION BY key ORDER BY number) - 1) / {most} AS part, work
    FROM requests;
CREATE TABLE groups AS
    SELECT row_number() OVER (ORDER BY work DESC, first) - 1 AS place, key, part, work,
        sum(work) OVER (ORDER BY work DESC, first ROWS UNBOUNDED PRECEDING) AS until
    FROM (
        SELECT key, part, sum(work) + {image} AS work, min(number) AS first
        FROM members GROUP BY key, part
    );
CREATE UNIQUE INDEX by_place ON groups (place);
CREATE TABLE queue AS
    SELECT groups.place, members.number FROM groups JOIN members USING (key, part)
    ORDER BY groups.place, members.number;
CREATE INDEX by_group ON queue (place);
DROP TABLE members;
"""


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """Requests that are answered together.

    of     identity of each request, by its id
    work   tokens, about
    left   work of all groups behind it in the queue
    """

    number: int
    requests: tuple[Request, ...]
    of: dict[str, str]
    work: int
    left: int


class RoundPlan:
    """Groups of requests, numbered from 0 in the order in which they are taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.store = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            count, work = self.store.execute("SELECT count(*), max(until) FROM groups").fetchone()
        except sqlite3.Error as error:
            raise RunError(f"{path}: cannot be read as a plan: {error}") from None
        self.groups: int = count
        self.work: int = work or 0

    @classmethod
    def write(
        cls, path: Path, pending: Iterable[Identified], *, alone: bool = False, most: int = AT_ONCE
    ) -> "RoundPlan":
        """Write requests in groups. Raises RunError where the disk takes no more.

        alone  each is a group of its own
        most   requests of a group
        """
        beside = path.with_name(f"{path.name}.new")
        beside.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(beside)) as store:
                store.executescript(TABLES)
                store.executemany(
                    "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _rows(pending, alone)
                )
                store.executescript(GROUPED.format(most=most, image=IMAGE_WORK))
                store.commit()
            beside.replace(path)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"{path}: cannot be written: {error}") from None
        finally:
            beside.unlink(missing_ok=True)
        return cls(path)

    def counts(self) -> dict[str, int]:
        """Requests of each task."""
        counts = self.store.execute(
            "SELECT substr(id, 1, instr(id, '/') - 1) AS task, count(*) FROM requests GROUP BY task"
        )
        return dict(counts.fetchall())

    def group(self, number: int) -> RequestGroup:
        """The group of a number below `groups`."""
        (work, until) = self.store.execute(
            "SELECT work, until FROM groups WHERE place = ?", (number,)
        ).fetchone()
        rows = self.store.execute(
            "SELECT id, prompt, decode, chat, of FROM queue JOIN requests USING (number) "
            "WHERE place = ? ORDER BY number",
            (number,),
        )
        requests: list[Request] = []
        of: dict[str, str] = {}
        for name, prompt, decode, chat, identity in rows:
            how = _decode(json.loads(decode))
            requests.append(Request(name, prompt, how, bool(chat)))
            of[name] = identity
        return RequestGroup(number, tuple(requests), of, work, self.work - until)

    def close(self) -> None:
        """Let go of the file."""
        self.store.close()


def _decode(fields: dict[str, Any]) -> Decode:
    if "options" in fields:
        return Rank(tuple(fields["options"]))
    return Nucleus(**fields) if "top_p" in fields else Generate(**fields)


def _rows(pending: Iterable[Identified], alone: bool) -> Iterator[tuple[object, ...]]:
    for number, each in enumerate(pending):
        decode = each.request.decode
        if isinstance(decode, Generate):
            new = decode.max_new_tokens
        else:
            new = sum(map(len, decode.options)) // TOKEN
        yield (
            number,
            f"{number}" if alone else each.group,
            each.request.id,
            each.request.prompt,
            json.dumps(asdict(decode)),
            each.request.chat,
            each.of,
            len(each.request.prompt) // TOKEN + new,
        )
