"""Mirrors of benchmarks on the model hub: tables in parquet, read through `datasets`, as a stream.

No code of a dataset runs and nothing is cached: the files are read in place. A part's footer is
checked first. Columns have the types that the file stores; its `datasets` features, which could
decode pictures or sound, are ignored.
"""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.data.declare import Source
from eval.data.records import Record, describe
from eval.errors import DataError
from eval.storage.reading import MAX_FILE_BYTES, open_file

MAX_GROUP_BYTES = 4_000_000_000  # unpacked, of a row group; the largest of a mirror has 0.5 GB
MAX_GROUP_ROWS = 10_000_000
MAX_ROWS = 1000  # in memory at a time
HELD_BYTES = 2_000_000_000


def read_parquet(root: Path, source: Source, columns: Sequence[str]) -> Iterator[Record]:
    """Rows of all parts, in the order of their names, with these columns only.

    Raises DataError, naming the source, for a part or a column that is missing or damaged.
    """
    for number, row in enumerate(_rows(root, source, columns)):
        yield Record(row, f"row {number} of {root / source.path}")


def read_pictures(
    root: Path,
    source: Source,
    columns: Sequence[str],
    image: str = "image",
    *,
    sparse: bool = False,
) -> Iterator[tuple[Record, bytes]]:
    """Rows as above, each with the bytes of the picture in its column `image`.

    sparse  skip rows where that column is null; otherwise they are an error

    The record's column `image` holds the picture's file name, or null.
    """
    for number, row in enumerate(_rows(root, source, [*columns, image])):
        where = f"row {number} of {root / source.path}"
        picture = row[image]
        if picture is None and sparse:
            continue
        if isinstance(picture, bytes):  # a bare column, without a file name
            picture = {"bytes": picture}
        if not isinstance(picture, dict) or not isinstance(picture.get("bytes"), bytes):
            raise DataError(f"{where}: column {image!r}: a picture expected, none found")
        yield Record({**row, image: picture.get("path")}, where), picture["bytes"]


def _rows(root: Path, source: Source, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    files = source.files(root)
    _check_parts(files, root / source.path)
    for path in files:
        yield from _rows_of_part(path, columns)


def _rows_of_part(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of one file, a few at a time."""
    from datasets import Features, load_dataset

    seen = 0
    try:
        schema, count, at_once = _footer(path, columns)
        rows = load_dataset(
            "parquet",
            data_files=[glob.escape(str(path))],  # the argument is a pattern
            columns=list(columns),
            features=Features.from_arrow_schema(schema),
            batch_size=at_once,
            split="train",
            streaming=True,
        )
        for row in rows:
            seen += 1  # needed after the loop
            yield row
        if seen != count:
            raise DataError(f"{path}: its footer tells of {count:,} rows, {seen:,} can be read")
    except DataError:
        raise
    except Exception as error:  # the errors of pyarrow and datasets share no base
        raise DataError(
            f"{path}: cannot be read as parquet: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}. Fetch the file again"
        ) from error


def _footer(path: Path, columns: Sequence[str]) -> tuple[Any, int, int]:
    """Arrow's schema of the columns, the number of rows, and how many to hold at a time.

    Raises DataError for missing columns and for row groups that are too large.
    """
    from pyarrow import schema
    from pyarrow.parquet import ParquetFile

    with open_file(path, DataError, MAX_FILE_BYTES) as file, ParquetFile(file) as table:
        stored = table.schema_arrow.remove_metadata()
        missing = [name for name in columns if name not in stored.names]
        if missing:
            raise DataError(
                f"{path}: columns {', '.join(columns)} expected, {', '.join(missing)} "
                f"missing among {describe(', '.join(stored.names))}"
            )
        groups = (table.metadata.row_group(number) for number in range(table.num_row_groups))
        at_once = min((_rows_at_once(group, path) for group in groups), default=1)
        fields = [stored.field(name) for name in columns]
        return schema(fields), table.metadata.num_rows, at_once


def _rows_at_once(group: Any, path: Path) -> int:
    """How many rows of a group to hold, as a single row may be as large as the group.

    Raises DataError for a group that unpacks to more than any benchmark's. The sizes of its columns
    are not read: pyarrow ends the process where they are damaged.
    """
    unpacked, rows = int(group.total_byte_size), int(group.num_rows)
    if unpacked > MAX_GROUP_BYTES or rows > MAX_GROUP_ROWS:
        raise DataError(
            f"{path}: a row group unpacks to {unpacked:,} bytes and {rows:,} rows; at most "
            f"{MAX_GROUP_BYTES:,} and {MAX_GROUP_ROWS:,} are read: a decompression bomb?"
        )
    return max(1, min(MAX_ROWS, HELD_BYTES // max(unpacked, 1)))


def _check_parts(files: Sequence[Path], pattern: Path) -> None:
    """`x-00000-of-00003.parquet`: all three must be there."""
    counts = {file.stem.split("-of-")[1][:5] for file in files if "-of-" in file.stem}
    expected = sum(int(count) for count in counts if count.isdigit())
    if not files or (counts and len(files) != expected):
        raise DataError(
            f"{pattern}: {expected or 'some'} parts expected, {len(files)} found. "
            "Are there two versions of the mirror?"
        )
