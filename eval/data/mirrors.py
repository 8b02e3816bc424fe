"""Names for the pictures of mirrors that lack the official ones."""

import hashlib
from collections.abc import Iterable, Iterator

from eval.data.records import Record

ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg"}  # by a file's first bytes


def digest_name(folder: str, row: Record, picture: bytes) -> str:
    """`folder`/<16 hexadecimal digits of the SHA-256>.<png or jpg>: equal pictures, equal names.

    row  what an error names if the bytes are neither PNG nor JPEG
    """
    endings = [ending for magic, ending in ENDINGS.items() if picture.startswith(magic)]
    if not endings:
        raise row.error(f"a PNG or JPEG picture expected, {picture[:8]!r}... found")
    return f"{folder}/{hashlib.sha256(picture).hexdigest()[:16]}.{endings[0]}"


def distinct(pictures: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Each path once, with its first picture."""
    seen: set[str] = set()
    for path, picture in pictures:
        if path not in seen:
            seen.add(path)
            yield path, picture
