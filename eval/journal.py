"""Predictions as JSON lines: a worker's journal, which only grows, and the finished file.

A line is a prediction and `of`, the identity of what was asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from eval.api import Prediction
from eval.errors import RunError
from eval.writing import Lines


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a journal.

    of      identity of what was asked, see RunFolder.lacking
    offset  where the line begins in its file
    """

    prediction: Prediction
    of: str
    offset: int


class Journal(Lines):
    """A worker's file of answers."""

    def write(self, prediction: Prediction, of: str) -> None:
        """Append an answer. Raises RunError where the disk takes no more."""
        self.append(line(prediction, of))


class Answers:
    """Where the answers of a task stand in its files, of which the later counts on equal terms."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.streams: dict[int, IO[bytes]] = {}
        self.answered: dict[str, tuple[int, int]] = {}
        self.failures: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(files):
            for entry in read(file, torn=True):
                name = entry.prediction.id
                if entry.prediction.error:
                    self.failures[name] = (number, entry.offset)
                else:
                    self.answered[f"{name} {entry.of}"] = (number, entry.offset)

    def place(self, sample_id: str, of: str) -> tuple[int, int] | None:
        """File and offset of the answer to this very question, or of why the sample has none."""
        return self.answered.get(f"{sample_id} {of}") or self.failures.get(sample_id)

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self.streams.values():
            stream.close()

    def entry(self, place: tuple[int, int]) -> Entry:
        """The line at a place."""
        number, offset = place
        if number not in self.streams:
            self.streams[number] = self.files[number].open("rb")
        self.streams[number].seek(offset)
        return parse(self.streams[number].readline(), str(self.files[number]), offset)


def line(prediction: Prediction, of: str, *, losses: bool = True) -> bytes:
    """A prediction as a line, its line feed included."""
    record: dict[str, object] = {"id": prediction.id, "text": prediction.text}
    if prediction.tokens:
        record["tokens"] = prediction.tokens
    if losses:
        record |= losses_of(prediction)
    if prediction.seed is not None:
        record["seed"] = prediction.seed
    if prediction.error:
        record["error"] = prediction.error
    if of:
        record["of"] = of
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def losses_of(prediction: Prediction) -> dict[str, object]:
    """The losses of ranked options, by the names that a line has for them."""
    kinds = {"losses": prediction.losses, "dtype_losses": prediction.dtype_losses}
    return {name: losses for name, losses in kinds.items() if losses}


def read(file: Path, *, torn: bool) -> Iterator[Entry]:
    """All lines of a file; with `torn` a last one without its line feed is left out.

    Raises RunError, naming the line, for one that is no prediction.
    """
    offset = 0
    with file.open("rb") as lines:
        for number, content in enumerate(lines, 1):
            if torn and not content.endswith(b"\n"):
                return
            yield parse(content, f"{file}, line {number}", offset)
            offset += len(content)


def parse(content: bytes, where: str, offset: int = 0) -> Entry:
    """A line's prediction. Raises RunError, saying where, for one that is none."""
    try:
        record = orjson.loads(content)
        if not isinstance(record, Mapping):
            raise TypeError
        prediction = Prediction(
            record["id"],
            record["text"],
            tuple(record.get("tokens", ())),
            tuple(record.get("losses", ())),
            record.get("error", ""),
            record.get("seed"),
            tuple(record.get("dtype_losses", ())),
        )
        return Entry(prediction, record.get("of", ""), offset)
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{where}: not a prediction: {content[:80]!r}") from None
