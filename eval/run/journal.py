"""Predictions as JSON lines: a worker's journal, which only grows, and the finished file.

A line is a prediction and `of`, the identity of the request. A journal begins with a line that
names the model which gave the answers, and they count only in a run of that model. The finished
file has no such line: its bytes are the same whoever answered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from eval.api import Prediction
from eval.errors import RunError
from eval.run.files import Count
from eval.storage.reading import BOM, MAX_INTEGER, Schema, open_file, read_lines
from eval.storage.writing import Lines

HEADER = b'{"journal":'  # begins the line that names the model
IDENTITY = ("digest", "engine", "device", "dtype", "batch_size", "generation")
Identity = dict[str, str | int | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a journal.

    of      identity of the request, see eval.run.requests.Identified
    offset  where the line begins in its file
    """

    prediction: Prediction
    of: str
    offset: int


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line of a journal. model: see identity."""

    journal: int
    model: Identity


@dataclass(frozen=True, slots=True)
class _Line:
    """Any other line."""

    id: str
    text: str
    tokens: tuple[Count, ...] = ()
    losses: tuple[float, ...] = ()
    dtype_losses: tuple[float, ...] = ()
    error: str = ""
    seed: Count | None = None
    of: str = ""


@dataclass(frozen=True, slots=True)
class _Losses:
    """A line of the file of losses."""

    id: str
    losses: tuple[float, ...]
    dtype_losses: tuple[float, ...] = ()


_HEADER: Schema[_Header] = Schema(_Header)
_LINE: Schema[_Line] = Schema(_Line)
_LOSSES: Schema[_Losses] = Schema(_Losses)


def model_identity(model: Mapping[str, Any]) -> Identity:
    """What distinguishes a model's answers from another's, from a manifest's entry on the model."""
    fields = {name: model.get(name) for name in IDENTITY}
    if isinstance(fields["device"], str):
        fields["device"] = fields["device"].partition(":")[0]  # its kind: one GPU is like another
    return fields


def header(model: Identity) -> bytes:
    """The first line of a journal."""
    return orjson.dumps({"journal": 1, "model": model}, option=orjson.OPT_APPEND_NEWLINE)


def is_header(content: bytes) -> bool:
    """Whether a line names a model; an editor may have put a byte order mark before it."""
    return content.removeprefix(BOM).startswith(HEADER)


def check_header(content: bytes, where: str, model: Identity | None) -> None:
    """Raise RunError, naming what differs, for a line that names another model. None: any."""
    named = _HEADER.parse(content, where, RunError).model
    model = named if model is None else model
    if differing := [name for name in model if named.get(name) != model[name]]:
        differences = ", ".join(
            f"{n} {named.get(n)!r:.80}, not {model[n]!r:.80}" for n in differing
        )
        raise RunError(
            f"{where}: these are answers of another model: {differences}. Remove the file, "
            "and what it answered is asked again"
        )


class Journal(Lines):
    """A worker's file of answers.

    model  that gives them; RunError where those in the file are another's
    """

    def __init__(self, path: Path, model: Identity) -> None:
        super().__init__(path)
        first = next(read_lines(path, RunError), None)
        if first is None:
            self.append(header(model))
        elif is_header(first):
            check_header(first, f"{path}, line 1", model)

    def write(self, prediction: Prediction, of: str) -> None:
        """Append an answer. Raises RunError where the disk takes no more."""
        self.append(line(prediction, of))


class AnswerIndex:
    """Which file and offset holds the answer to each request of a task; a later one replaces it.

    entries  reads a file; by default any whole line counts
    """

    def __init__(
        self, files: Sequence[Path], entries: Callable[[Path], Iterator[Entry]] | None = None
    ) -> None:
        self.files = files
        self.streams: dict[int, IO[bytes]] = {}
        self.answered: dict[str, tuple[int, int]] = {}
        self.failures: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(files):
            for entry in entries(file) if entries else read(file, torn=True):
                name = entry.prediction.id
                if entry.prediction.error:
                    self.failures[name] = (number, entry.offset)
                else:
                    self.answered[f"{name} {entry.of}"] = (number, entry.offset)

    def place(self, sample_id: str, of: str) -> tuple[int, int] | None:
        """File and offset of the answer to this very question, or of why the sample has none."""
        return self.answered.get(f"{sample_id} {of}") or self.failures.get(sample_id)

    def __enter__(self) -> "AnswerIndex":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self.streams.values():
            stream.close()

    def entry(self, place: tuple[int, int]) -> Entry:
        """The line at a place."""
        number, offset = place
        if number not in self.streams:
            self.streams[number] = open_file(self.files[number], RunError, MAX_INTEGER)
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


def read(
    file: Path, *, torn: bool, model: Identity | None = None, named: bool = False
) -> Iterator[Entry]:
    """All answers of a file; with `torn` a last line without its line feed is left out.

    model  that a journal must be of, wherever in it a line names one; None: any
    named  whether the file must begin by naming its model

    Raises RunError, naming the line, for one that is no prediction, and for another model.
    """
    offset = 0
    for number, content in enumerate(read_lines(file, RunError), 1):
        where = f"{file}, line {number}"
        if torn and not content.endswith(b"\n"):
            return
        if is_header(content):
            check_header(content, where, model)
        elif named and number == 1:
            raise RunError(
                f"{where}: does not name the model that answered. Remove the file, and what it "
                "answered is asked again"
            )
        else:
            yield parse(content, where, offset)
        offset += len(content)


def parse(content: bytes, where: str, offset: int = 0) -> Entry:
    """A line's prediction. Raises RunError, saying where, for one that is none."""
    row = _LINE.parse(content, where, RunError)
    prediction = Prediction(
        row.id,
        row.text,
        row.tokens,
        row.losses,
        row.error,
        row.seed,
        row.dtype_losses,
    )
    return Entry(prediction, row.of, offset)


def parse_losses(content: bytes, where: str) -> _Losses:
    """A line of losses.jsonl. Raises RunError."""
    return _LOSSES.parse(content, where, RunError)
