"""Texts from outside made fit to print, and the name that a misspelt one was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_NAME = 80  # characters
MOST_NAMES = 12  # that a message lists where a command can list them


def printable(text: str, instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """The text with a replacement for each character that is not printable, line feeds too."""
    return "".join(char if char.isprintable() else instead for char in text)


def clean(text: str) -> str:
    """A name as one printable line, cut off after LONGEST_NAME characters."""
    line = printable(text).strip() or "(no name)"
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def nearest(name: str, known: Iterable[str], listing: str = "") -> str:
    """The end of a message on an unknown name: "; did you mean 'gqa'? known: gqa, vqav2".

    listing  command that lists the names; named in place of more than MOST_NAMES of them
    """
    names = list(known)
    close = get_close_matches(name, names, n=1)
    shown = f"see {listing}" if listing and len(names) > MOST_NAMES else ", ".join(names)
    return f"{f'; did you mean {close[0]!r}?' if close else ';'} known: {shown}"
