"""TouchStone's tab-separated tables, read as the published scripts read them: by pandas' defaults.

These decide what the judge is shown: an empty cell, and a word such as None, N/A or null, is a
missing value, which prints as `nan`; a column of nothing but numbers prints as pandas prints them.

The published table holds its pictures, in base64: about 1 GB. It is read once, a row at a time;
what it says lies then in an index beside it, and the pictures in files.
"""

import base64
import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import orjson

from eval.data import Record, read_jsonl, safe_path
from eval.data.files import read_bytes
from eval.data.pictures import picture_fault, quiet_pillow
from eval.errors import DataError
from eval.storage.digests import sha256_file

INDEX, IMAGE, RESPONSE = "index", "image", "response"
TEXTS = ("question", "human_annotation", "gpt4_ha_answer", "category", "task_name")
ANSWERS = (INDEX, *TEXTS, RESPONSE)  # the columns of a submission
MISSING = "nan"  # as pandas prints it
ANSWERS_BYTES = 2_000_000_000  # of a submission, which may still have its pictures
CELL_CHARACTERS = 64_000_000  # of the pictures of a row, in base64
ROW_CHARACTERS = CELL_CHARACTERS + 16_000_000
PICTURES = "touchstone/images"  # folder below the data root
DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
SPACES = re.compile(r"\s+")
MAGIC = (  # a picture's first bytes, and the ending of its file
    (rb"\xff\xd8\xff", "jpg"),
    (rb"\x89PNG\r\n\x1a\n", "png"),
    (rb"RIFF.{4}WEBP", "webp"),
    (rb"GIF8[79]a", "gif"),
    (rb"BM", "bmp"),
)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A question about pictures, what the judge is told of them, and a reference answer.

    id          the cell `index`
    annotation  the cell `human_annotation`: the pictures in a person's words
    reference   the cell `gpt4_ha_answer`
    category    one, or several with commas between
    images      paths below the data root; empty where they are not known
    response    the assessed answer

    Texts stand as pandas prints them, `nan` for a missing one.
    """

    id: str
    question: str
    annotation: str
    reference: str
    category: str
    task_name: str
    images: tuple[str, ...] = ()
    response: str | None = None


def read_answers(path: Path) -> list[Dialogue]:
    """The dialogues of a submission: the published columns without `image`, and `response`.

    Other columns are passed over. Raises DataError for what is no such table.
    """
    return _parse(read_bytes(path, ANSWERS_BYTES), str(path))


def write_answers(dialogues: Iterable[Dialogue]) -> bytes:
    """A submission, as pandas writes it; a response that is not there is an empty cell."""
    rows = [
        (
            each.id,
            each.question,
            each.annotation,
            each.reference,
            each.category,
            each.task_name,
            each.response or "",
        )
        for each in dialogues
    ]
    # The csv module may leave a lone carriage return bare, and pandas would end the row there.
    bare = any("\r" in cell for row in rows for cell in row)
    text = io.StringIO(newline="")
    quoting: Any = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=quoting)
    writer.writerows([ANSWERS, *rows])
    return text.getvalue().encode()


def as_read_back(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The dialogues written as a submission and read again, without their images.

    The published scripts do so between a model and its judge: of a response "None" or "" only `nan`
    is left.
    """
    return _parse(write_answers(dialogues), "the answers") if dialogues else []


def write_index(table: Path, root: Path, index: str) -> None:
    """Write the pictures of the published table below `root`, and its texts to the file `index`.

    What is held at a time is a row, however large the table is. The index appears when all of it is
    right, and is the same wherever it was made of the same table. Raises DataError, naming file and
    row, for a table that is damaged.
    """
    digest = sha256_file(table)
    before = table.stat()
    place = root / index
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        with beside.open("wb") as file:
            head = {"name": table.name, "bytes": before.st_size, "sha256": digest}
            file.write(_line({"table": head}))
            for row in _rows(table):
                file.write(_line(row.told(root)))
        after = table.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(f"{table}: was changed while it was read: read it again")
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def read_index(
    root: Path, index: str, table: str, task: str = "touchstone_en"
) -> Iterator[Dialogue]:
    """The dialogues of an index, in the order of its table.

    table  path below `root` of the table that it was made of, which may be gone
    task   whose data are prepared to make it again, as an error says

    Raises DataError for an index that is malformed, or whose table was changed since.
    """
    lines = read_jsonl(root / index)
    head = next(lines, None)
    if head is None or "table" not in head.values:
        raise DataError(
            f"{root / index}: a first line that tells the table expected, none found. Delete it; "
            f"'qwen-vl-eval data prepare {task}' makes it again"
        )
    _check_current(root / index, head.record("table"), root / table, task)
    for row in lines:
        question, annotation, reference, category, task_name = (
            row.text(name) if row.has(name) else MISSING for name in TEXTS
        )
        images = tuple(safe_path(path, row.where) for path in row.texts("images"))
        yield Dialogue(row.text("id"), question, annotation, reference, category, task_name, images)


def _parse(content: bytes, where: str) -> list[Dialogue]:
    """The dialogues of a submission's bytes, by pandas' defaults but for the column `index`."""
    import pandas

    with quiet_pillow(), _refusing(where):  # a column of several types is a warning
        frame = pandas.read_csv(io.BytesIO(content), sep="\t", dtype={INDEX: str})
    _check_columns(frame, ANSWERS, where)
    if not len(frame):
        raise DataError(f"{where}: at least one row expected, none found")
    ids = _Ids(where)
    row_ids = (ids.take(number, found) for number, found in enumerate(frame[INDEX].tolist(), 1))
    columns = ([str(cell) for cell in frame[name].tolist()] for name in (*TEXTS, RESPONSE))
    return [
        Dialogue(row_id, question, annotation, reference, category, task_name, (), response)
        for row_id, question, annotation, reference, category, task_name, response in zip(
            row_ids, *columns, strict=True
        )
    ]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the published table.

    cells  column -> text, or None where pandas finds it missing
    where  what an error begins with
    """

    cells: dict[str, str | None]
    where: str

    def told(self, root: Path) -> dict[str, Any]:
        """What the index says of it; its pictures lie below `root` then."""
        images = [self._write(picture, root) for picture in self._pictures()]
        texts = {name: self.cells[name] for name in TEXTS}
        return {"id": self.cells[INDEX], **texts, "images": images}

    def _pictures(self) -> Iterator[bytes]:
        """The bytes of its pictures: the cell is one in base64, or a list of such."""
        cell = (self.cells[IMAGE] or "").strip()
        if len(cell) > CELL_CHARACTERS:
            raise self._error(f"at most {CELL_CHARACTERS:,} characters expected, {len(cell):,}")
        encoded: Any = [cell]
        if cell.startswith("["):
            try:  # base64 has no quotes, so that a list of Python's is one of JSON's
                encoded = orjson.loads(cell.replace("'", '"'))
            except orjson.JSONDecodeError:
                raise self._error(f"a list of pictures expected, {cell[:60]!r}...") from None
        if not encoded or not all(isinstance(each, str) and each for each in encoded):
            raise self._error("a picture in base64 expected, an empty cell")
        for each in encoded:
            plain = SPACES.sub("", DATA_URL.sub("", each, count=1))
            try:
                yield base64.b64decode(plain, validate=True)
            except ValueError as error:
                raise self._error(
                    f"a picture in base64 expected, {plain[:60]!r}... ({error})"
                ) from None

    def _write(self, picture: bytes, root: Path) -> str:
        """Write a picture, if it is one that a model can be shown; its path below `root`."""
        endings = [ending for magic, ending in MAGIC if re.match(magic, picture, re.DOTALL)]
        if not endings:
            raise self._error(f"JPEG, PNG, WEBP, GIF or BMP expected, {picture[:8]!r}...")
        path = f"{PICTURES}/{hashlib.sha256(picture).hexdigest()[:16]}.{endings[0]}"
        place = root / path
        if place.is_file() and read_bytes(place) == picture:
            return path
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{os.getpid()}.new")
        try:
            beside.write_bytes(picture)
            with quiet_pillow():
                fault = picture_fault(beside)
            if fault:
                raise self._error(f"a picture that can be shown to a model expected, {fault}")
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
        return path

    def _error(self, message: str) -> DataError:
        return DataError(f"{self.where}, column {IMAGE!r}: {message} found. {AGAIN}")


AGAIN = "Delete the table and prepare the data again: it is fetched anew"


def _rows(table: Path) -> Iterator[_Row]:
    """The rows of the published table, as they come; at least one."""
    import pandas

    where, number = str(table), 0
    ids = _Ids(where)
    with table.open(encoding="utf-8-sig", newline="") as file, _refusing(where):
        text = _Metered(file, where)
        for chunk in pandas.read_csv(text, sep="\t", dtype=str, chunksize=1):
            _check_columns(chunk, (INDEX, IMAGE, *TEXTS), where)
            for cells in chunk.to_dict("records"):
                number += 1
                told = {
                    name: cell if isinstance(cell, str) else None for name, cell in cells.items()
                }
                row_id = ids.take(number, told[INDEX])
                yield _Row(told, f"{where}: row {number} (index {row_id!r})")
            text.row_ends(number)
    if not number:
        raise DataError(f"{where}: at least one row expected, none found")


class _Metered:
    """A table's text for pandas, which would take the rest of it for one cell at a lost quote."""

    def __init__(self, file: TextIO, where: str) -> None:
        self.file, self.where = file, where
        self.row_ends(0)

    def row_ends(self, number: int) -> None:
        """Count anew: so many rows were read."""
        self.number, self.count = number, 0

    def read(self, size: int = -1) -> str:
        """The next so many characters. Raises DataError where no row ends among too many."""
        piece = self.file.read(size)
        self.count += len(piece)
        if self.count > ROW_CHARACTERS:
            raise DataError(
                f"{self.where}: row {self.number + 1}: at most {ROW_CHARACTERS:,} characters "
                f"expected, more found. Is a quote lost? {AGAIN}"
            )
        return piece

    def __iter__(self) -> Iterator[str]:  # pandas asks for it and does not call it
        return iter(self.file)


class _Ids:
    """The ids of a table's rows, each there and each once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.rows: dict[str, int] = {}

    def take(self, number: int, found: Any) -> str:
        """The id of a row, counted from 1."""
        if not isinstance(found, str):
            raise DataError(
                f"{self.where}: row {number}, column {INDEX!r}: a text expected, an empty cell or "
                "a word that stands for one found"
            )
        if found in self.rows:
            raise DataError(
                f"{self.where}: row {number}, column {INDEX!r}: texts that stand once expected, "
                f"{found!r} of row {self.rows[found]} found again"
            )
        self.rows[found] = number
        return found


def _check_columns(frame: Any, needed: Sequence[str], where: str) -> None:
    import pandas

    found = [str(name) for name in frame.columns]
    if missing := [name for name in needed if name not in found]:
        raise DataError(
            f"{where}: columns {', '.join(needed)} expected, tab-separated and named in the first "
            f"line; {', '.join(missing)} missing among {', '.join(found)[:200]}"
        )
    if not isinstance(frame.index, pandas.RangeIndex):  # pandas took the first cells for labels
        raise DataError(
            f"{where}: {len(found)} cells a row expected, as in the first line, more found"
        )


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Errors of pandas as ours, with the file that they are about."""
    from pandas.errors import EmptyDataError, ParserError

    try:
        yield
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise DataError(f"{where}: UTF-8 expected, the byte 0x{found:02x} found") from None
    except EmptyDataError:
        raise DataError(f"{where}: a table expected, nothing found") from None
    except ParserError as error:
        told = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DataError(
            f"{where}: tab-separated rows with as many cells as the first line, and quotes that "
            f"close, expected; found: {told}"
        ) from None


def _check_current(index: Path, told: Record, table: Path, task: str) -> None:
    """Whether an index tells what its table holds, where that is still there.

    A table that is newer than its index may still be the same: copies of a folder have other times.
    """
    expected = told.integer("bytes"), told.text("sha256", "[0-9a-f]{64}")
    if not table.is_file():
        return
    found = table.stat()
    same = found.st_size == expected[0]
    if same and found.st_mtime_ns >= index.stat().st_mtime_ns:
        same = _digest(table, found.st_size, found.st_mtime_ns) == expected[1]
    if not same:
        raise DataError(
            f"{table}: {expected[0]:,} bytes with sha256 {expected[1][:12]}... expected, of which "
            f"{index.name} was made; the table was changed since. 'qwen-vl-eval data prepare "
            f"{task}' makes the index again"
        )


@lru_cache(maxsize=8)
def _digest(table: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_file(table)


def _line(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
