"""Mirrors of benchmarks on the model hub: tables in parquet, read through `datasets`, as a stream.

No code of a dataset is run and nothing is cached: the files are read where they lie.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.api import Source
from eval.data.records import Record
from eval.errors import DataError


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
    """Rows as above, each with the bytes of the picture in its column `image`, as they were saved.

    sparse  rows where that column is null are passed over; else they are an error

    The record's column `image` is the name that the picture was saved under, or null.
    """
    for number, row in enumerate(_rows(root, source, [*columns, image], image)):
        where = f"row {number} of {root / source.path}"
        picture = row[image]
        if picture is None and sparse:
            continue
        if not isinstance(picture, dict) or not isinstance(picture.get("bytes"), bytes):
            raise DataError(f"{where}: column {image!r}: a picture expected, none found")
        yield Record({**row, image: picture.get("path")}, where), picture["bytes"]


def _rows(
    root: Path, source: Source, columns: Sequence[str], image: str | None = None
) -> Iterator[dict[str, Any]]:
    from datasets import Image, load_dataset

    files = source.files(root)
    _check_parts(files, root / source.path)
    try:
        rows = load_dataset(
            "parquet",
            data_files=[str(file) for file in files],
            columns=list(columns),
            split="train",
            streaming=True,
        )
        if image:
            rows = rows.cast_column(image, Image(decode=False))
        yield from rows
    except DataError:
        raise
    except Exception as error:  # pyarrow's and datasets' errors share no base
        raise DataError(
            f"{root / source.path}: parquet with the columns {', '.join(columns)} expected, "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def _check_parts(files: Sequence[Path], pattern: Path) -> None:
    """`x-00000-of-00003.parquet`: all three, else rows would be missing in silence."""
    counts = {file.stem.split("-of-")[1][:5] for file in files if "-of-" in file.stem}
    expected = sum(int(count) for count in counts if count.isdigit())
    if not files or (counts and len(files) != expected):
        raise DataError(
            f"{pattern}: {expected or 'some'} parts expected, {len(files)} found. "
            "Are there two versions of the mirror?"
        )
