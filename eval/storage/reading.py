"""Reads files of unknown origin within bounds.

Every file that is read back goes through here: annotations, configurations, run folders, ledgers.
Only regular files are opened, since a pipe blocks for ever and a device has no end. Sizes and
nesting are bounded. A UTF-8 byte order mark is skipped; UTF-16 is named. JSON is strict: no NaN, no
Infinity, no lone surrogates, no bytes that are not UTF-8, no key that an object has twice.

The caller says which error a bad file is (DataError, RunError, ...); all of them end with exit
code 2. `Schema` checks the content against a type with pydantic, which parses and checks 200,000
lines of predictions in the time that orjson and checks by hand take.
"""

import errno
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import jiter
import orjson

from eval.errors import EvalError, UsageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MAX_BYTES = 64_000_000  # of a file that is parsed as a whole, such as a manifest
PIECE_BYTES = 1 << 20  # read at once where a size is not known
MAX_TOML_BYTES = 1_000_000
MAX_TOML_NESTING = 50  # brackets open at once, dots in a line: tomllib recurses
MAX_LINE_BYTES = 16_000_000  # of a file of lines, which may have any number of them
MAX_FILE_BYTES = 4_000_000_000  # far more than any file of a benchmark
LONGEST_NAME = 255  # bytes, in every common file system
MAX_INTEGER = (1 << 63) - 1
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
CHOICES = ("str", "int", "float", "constrained-int", "constrained-float")  # pydantic's names
SHOWN = 80  # characters of a bad value that a message shows

T = TypeVar("T")
Wrong = Callable[[str], EvalError]  # makes the error of the caller's kind


def open_file(path: Path, wrong: Wrong, most: int = MAX_BYTES) -> BufferedReader:
    """A regular file of at most `most` bytes, opened for reading at its start.

    Raises the caller's error for a missing, unreadable or larger file, for a path that no file can
    have, and for a folder, pipe, socket or device.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer; regular files ignore the flag
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise wrong(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise wrong(f"{shown_path(path)}: cannot be opened: {reason(error)}") from None
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise wrong(f"{path}: a regular file expected, a folder or a device found")
        if status.st_size > most:
            raise wrong(f"{path}: {status.st_size:,} bytes, more than the limit of {most:,}")
        file = os.fdopen(descriptor, "rb")
    except EvalError:
        os.close(descriptor)
        raise
    try:
        file.peek(1)  # some files look regular and refuse to be read, such as /proc/self/mem
    except OSError as error:
        file.close()
        raise wrong(f"{shown_path(path)}: cannot be read: {reason(error)}") from None
    return file


def open_text(path: Path, wrong: Wrong, most: int = MAX_BYTES) -> BufferedReader:
    """As open_file, behind the byte order mark of a UTF-8 file. UTF-16 is an error."""
    file = open_file(path, wrong, most)
    try:
        begin = file.peek(4)[:4]
        file.read(len(begin) - len(without_bom(begin, str(path), wrong)))
    except OSError as error:
        file.close()
        raise wrong(f"{path}: cannot be read: {reason(error)}") from None
    except EvalError:
        file.close()
        raise
    return file


def read_bytes(path: Path, wrong: Wrong, most: int = MAX_BYTES) -> bytes:
    """All of a file; see open_file."""
    with open_file(path, wrong, most) as file:
        try:
            content = file.read(os.fstat(file.fileno()).st_size)
            while len(content) <= most and (more := file.read(PIECE_BYTES)):
                content += more  # a file that grows, or one of /proc that has no size
        except OSError as error:
            raise wrong(f"{path}: cannot be read: {reason(error)}") from None
    if len(content) > most:
        raise wrong(f"{path}: more than the limit of {most:,} bytes")
    return content


def read_lines(path: Path, wrong: Wrong) -> Iterator[bytes]:
    """The lines of a file of any size, one at a time, each with its line feed.

    Raises the caller's error as open_file does, and for a line that is absurdly long.
    """
    with open_file(path, wrong, MAX_INTEGER) as file:
        number = 0
        while True:
            try:
                line = file.readline(MAX_LINE_BYTES + 1)
            except OSError as error:
                raise wrong(f"{path}: cannot be read: {reason(error)}") from None
            if not line:
                return
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise wrong(
                    f"{path}, line {number}: more than the limit of {MAX_LINE_BYTES:,} bytes"
                )
            yield line


def read_text(path: Path, wrong: Wrong, most: int = MAX_BYTES) -> str:
    """All of a UTF-8 file, without its byte order mark."""
    content = without_bom(read_bytes(path, wrong, most), str(path), wrong)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise wrong(f"{path}: not UTF-8 at byte {error.start:,}") from None


def without_bom(content: bytes, where: str, wrong: Wrong) -> bytes:
    """The content without a UTF-8 byte order mark. Raises the caller's error for UTF-16."""
    if content.startswith(UTF16) or content[:2].count(0) == 1:  # without a mark: half a character
        raise wrong(f"{where}: this is UTF-16; save it as UTF-8")
    return content.removeprefix(BOM)


def parse_json(content: bytes, where: str, wrong: Wrong) -> Any:
    """What a JSON text holds; an integer beyond 64 bits becomes a float."""
    content = without_bom(content, where, wrong)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        context = repr(content[max(0, error.pos - 20) : error.pos + 20])[1:]
        place = f"{where}, character {error.pos}"
        raise wrong(f"{place}: not JSON: {error.msg}, near {context}") from None
    if place := repeated_key(content):
        raise wrong(f"{where}: {place}")
    return value


def repeated_key(content: bytes) -> str:
    """A message with key and place if an object of a JSON text has a key twice, else "".

    Parsers keep the last value, which would silently lose a record or field.
    """
    try:
        jiter.from_json(content, catch_duplicate_keys=True)
    except ValueError as error:
        return f"{error}"[: 3 * SHOWN].replace("Detected duplicate key", "an object has two keys")
    return ""


def unique_keys(content: bytes, where: str, wrong: Wrong) -> None:
    """Raise the caller's error for a JSON object that has a key twice."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                raise wrong(f"{where}: {name!r:.{SHOWN}} stands twice in one object")
            fields[name] = value
        return fields

    try:
        json.loads(without_bom(content, where, wrong), object_pairs_hook=check)
    except ValueError as error:
        raise wrong(f"{where}: not JSON: {error}") from None
    except RecursionError:
        raise wrong(f"{where}: nested too deeply") from None


def read_toml(path: Path, wrong: Wrong) -> dict[str, Any]:
    """The tables of a TOML file."""
    text = read_text(path, wrong, MAX_TOML_BYTES)
    try:
        _check_nesting(text)
        return tomllib.loads(text)
    except ValueError as error:  # tomllib's errors name the line
        raise wrong(f"{path}: not TOML: {error}") from None


class Schema(Generic[T]):
    """The type of a file or line that is read back.

    kind  what pydantic can check: usually a frozen dataclass. Fields that it does not name are
          ignored; a field with a default may be missing. Numbers are finite, types are strict.
    closed  fields that it does not name are an error, and so are keys that stand twice
    """

    def __init__(self, kind: Any, *, closed: bool = False) -> None:
        self.kind = kind
        self.closed = closed

    @cached_property
    def _adapter(self) -> "TypeAdapter[T]":
        from pydantic import ConfigDict, TypeAdapter  # slow to import: only where a file is read
        from pydantic.errors import PydanticUserError

        strict = ConfigDict(strict=True, allow_inf_nan=False)
        if self.closed:
            strict["extra"] = "forbid"
        try:
            return TypeAdapter(self.kind, config=strict)
        except PydanticUserError:  # a dataclass carries its own configuration
            self.kind.__pydantic_config__ = strict
            return TypeAdapter(self.kind)

    def parse(self, content: bytes, where: str, wrong: Wrong) -> T:
        """A value of the type from its JSON text; the caller's error names field and fault."""
        from pydantic import ValidationError

        content = without_bom(content, where, wrong)
        if self.closed and (place := repeated_key(content)):
            raise wrong(f"{where}: {place}")
        try:
            value = self._adapter.validate_json(content)
            if b"NaN" in content or b"Infinity" in content:
                parse_json(content, where, wrong)  # pydantic takes them where any value may stand
            return value
        except ValidationError as error:
            first, *others = error.errors(include_url=False, include_context=False)
        keys, messages = first["loc"], [first["msg"]]
        if keys and keys[-1] in CHOICES:  # of a value that may be one of several types
            keys = keys[:-1]
            messages += [each["msg"] for each in others if each["loc"][:-1] == keys]
        field = ".".join(map(str, keys))
        message = " or ".join(each[:1].lower() + each[1:] for each in dict.fromkeys(messages))
        if first["type"] == "json_invalid":
            raise wrong(f"{where}: {message}")
        shown = "" if first["type"] == "missing" else f", {first['input']!r:.{SHOWN}} found"
        raise wrong(f"{where}: {f'{field}: ' if field else ''}{message}{shown}")

    def read(self, path: Path, wrong: Wrong, most: int = MAX_BYTES) -> T:
        """A value of the type from a file."""
        return self.parse(read_bytes(path, wrong, most), str(path), wrong)


def is_folder(path: Path) -> bool:
    """Whether it is a folder. Unlike Path.is_dir, False where the path cannot be looked up."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether the path exists. Unlike Path.exists, False if it cannot be looked up."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_there(path: Path, wrong: Wrong) -> bool:
    """Whether the path exists. Unlike `exists`, it raises if the path cannot be looked up."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise wrong(f"{shown_path(path)}: cannot be read: {reason(error)}") from None
    return True


def reason(error: Exception) -> str:
    """Why the system refused, without the path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def shown_path(path: Path) -> str:
    """A path as a message shows it, cut if it is very long."""
    text = str(path)
    return text if len(text) <= 3 * SHOWN else f"{text[: 3 * SHOWN]}..."


def _check_nesting(text: str) -> None:
    """Raise ValueError for brackets or dotted keys that nest too deeply, wherever they stand."""
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        most = line.count(".")
        for bracket in re.findall(r"[\[\]{}]", line):
            depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
            most = max(most, depth)
        if most > MAX_TOML_NESTING:
            raise ValueError(f"line {number}: nested more than {MAX_TOML_NESTING} levels deep")


def check_path(name: str, path: Path, passed: tuple[int, ...] = (errno.ENOENT,)) -> None:
    """Raise UsageError where a path cannot be looked up: too long, a loop of links, forbidden.

    passed  of the system's refusals, those that do not matter here
    """
    try:
        for part in path.parts:
            if len(os.fsencode(part)) > LONGEST_NAME:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        path.stat()
    except OSError as error:
        if error.errno not in passed:
            shown = shown_path(path)
            raise UsageError(f"{name} {shown}: cannot be looked up: {reason(error)}") from None
