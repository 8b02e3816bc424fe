"""Image paths from benchmark files, which must not lead out of the data root."""

import re

from eval.errors import DataError

MAX_PATH_CHARACTERS = 1000  # below the limit of file systems
MAX_NAME_BYTES = 255  # of a file or folder, on common file systems


def safe_path(path: str, where: str) -> str:
    r"""The path, with forward slashes and without "." or empty parts, or DataError.

    It must stay below the data root on every system: relative, without "..", backslashes (which
    separate on Windows), colons (drives, streams, URLs) or control characters, and without parts
    such as ".. " that Windows reads as "..". No name may exceed the limits of file systems or hold
    a lone surrogate.

    where  beginning of an error's message
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if (
        not parts
        or path.startswith("/")
        or len(path) > MAX_PATH_CHARACTERS
        or re.search(r"[\\:\x00-\x1f\x7f\ud800-\udfff]", path)
        or any(not part.strip(". ") or len(part.encode()) > MAX_NAME_BYTES for part in parts)
    ):
        shown = ascii(path[:MAX_PATH_CHARACTERS])
        raise DataError(f"{where}: a relative path below the data root expected, {shown} found")
    return "/".join(parts)


def path_tail(path: str, pattern: str) -> str | None:
    """The end of a path that the pattern matches from the start of a part, or None.

    The published files and scripts disagree on the folders above the images, so only the tail of a
    path counts: flickr30k-images/1.jpg is one picture below data/flickr or data/flickr30k.
    """
    match = re.search(rf"(?:^|/)({pattern})\Z", path, re.ASCII)
    return match[1] if match else None
