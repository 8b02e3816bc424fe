"""Files below a folder: links are followed, loops and hidden files skipped.

A link to a folder is as good as the folder: people link a hub's cache into their data. Hidden files
have names that begin with a period, such as the `._x` that macOS puts beside `x` on a foreign disk.
Standard library only.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path


def files_like(root: Path, pattern: str) -> list[Path]:
    """The files below `root` that a path or a pattern with forward slashes matches, sorted.

    pattern  `*` stands for part of a name, `**` for any number of folders
    """
    if "*" not in pattern:
        return [root / pattern] if is_file(root / pattern) else []
    fixed: list[str] = []
    parts = pattern.split("/")
    while parts and "*" not in parts[0]:
        fixed.append(parts.pop(0))
    folder = root.joinpath(*fixed)
    deepest = None if "**" in parts else len(parts)
    paths = (path.split("/") for path in files_below(folder, deepest))
    return sorted(folder.joinpath(*names) for names in paths if _matches(names, parts))


def files_below(folder: Path, deepest: int | None = None) -> Iterator[str]:
    """Paths, relative to the folder and with forward slashes, of all files in it, in no order.

    deepest  parts that a path has at most

    A folder with two paths is entered once, through a path without links if there is one. A folder
    that cannot be listed counts as empty.
    """
    entered: set[tuple[int, int]] = set()
    waiting = deque([("", 1)])
    while waiting:
        above, depth = waiting.popleft()
        try:
            status = (folder / above).stat()
            with os.scandir(folder / above) as listing:
                entries = sorted((each.name, each.is_symlink()) for each in listing)
        except (OSError, ValueError):
            continue
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for name, is_link in entries:
            path = f"{above}{name}"
            if name.startswith("."):
                continue
            if is_file(folder / path):
                yield path
            elif deepest is None or depth < deepest:
                add = waiting.append if is_link else waiting.appendleft
                add((f"{path}/", depth + 1))


def is_file(path: Path) -> bool:
    """Whether it is a regular file. Unlike Path.is_file, False where it cannot be looked up."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether names of folders and of a file match the parts of a pattern."""
    if not names or not parts:
        return not names and not parts
    if parts[0] == "**":
        return _matches(names, parts[1:]) or _matches(names[1:], parts)
    return fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])
