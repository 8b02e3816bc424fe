"""Arguments that several commands take."""

import re
from pathlib import Path
from typing import Annotated

import typer

from eval.errors import UsageError
from eval.score import AsPublished

Tasks = Annotated[
    list[str] | None,
    typer.Argument(help="Task (okvqa_val), benchmark (refcoco) or 'all'; see 'list'."),
]
AsPublishedOption = Annotated[
    str | None,
    typer.Option(
        "--as-published",
        metavar="PROCESSESxBATCH",
        help="Reproduce the published procedure where it is known to be wrong, for so many "
        "processes and batches of that size, such as 8x8.",
    ),
]


def parse_as_published(text: str | None) -> AsPublished | None:
    """8x8: eight processes, batches of eight."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if not match:
        raise UsageError(f"--as-published {text!r}: PROCESSESxBATCH expected, such as 8x8")
    return AsPublished(int(match[1]), int(match[2]))


def folder_option(path: Path, option: str) -> Path:
    """The folder. Raises UsageError, naming the option, where there is none."""
    if not path.is_dir():
        raise UsageError(f"{option} {path}: no such folder")
    return path
