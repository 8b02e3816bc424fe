"""Files that are read back: only regular ones, within bounds, of the type that was expected."""

import os
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from eval.errors import RunError
from eval.storage.reading import (
    Schema,
    exists,
    is_folder,
    open_file,
    read_bytes,
    read_text,
    read_toml,
)


@dataclass(frozen=True, slots=True)
class Line:
    id: str
    losses: tuple[float, ...] = ()
    seed: int | None = None


LINE = Schema[Line](Line)


def test_a_line_of_the_type_is_read():
    """Lists become tuples, integers may stand for floats, what is not named is ignored."""
    content = b'\xef\xbb\xbf{"id": "a", "losses": [1, 2.5], "more": {}}'
    assert LINE.parse(content, "f, line 1", RunError) == Line("a", (1.0, 2.5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": [1]}', r"f: id: input should be a valid string, \[1\] found"),
        (b'{"losses": []}', "f: id: field required"),
        (b'{"id": "a", "losses": [NaN]}', "f: losses.0: input should be a finite number"),
        (b'{"id": "a", "losses": [1e999]}', "f: losses.0: input should be a finite number"),
        (b'{"id": "a", "seed": true}', "f: seed: input should be a valid integer, True found"),
        (b"[]", r"f: input should be an object, \[\] found"),
        (b'{"id": "\\ud800"}', "f: invalid JSON"),
        (b"[" * 100_000, "f: invalid JSON: recursion limit"),
        (b"\xff\xfe{\x00", "f: this is UTF-16; save it as UTF-8"),
    ],
)
def test_a_line_of_another_type_is_an_error_that_names_the_field(content, message):
    """The error is the caller's, says where, and shows what was found."""
    with pytest.raises(RunError, match=message):
        LINE.parse(content, "f", RunError)


def test_what_is_no_number_is_refused_where_any_value_may_stand():
    """NaN and Infinity are not JSON, wherever they stand; the words within a text are."""
    anything = Schema[dict[str, Any]](dict[str, Any])
    for word in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(RunError, match=r"f, character .*: not JSON"):
            anything.parse(f'{{"a": {{"b": [{word}]}}}}'.encode(), "f", RunError)
    assert anything.parse(b'{"a": "NaN"}', "f", RunError) == {"a": "NaN"}


def test_only_regular_files_are_opened(tmp_path):
    """A pipe would block for ever, a device never ends; neither is waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(RunError, match="a regular file expected"):
            open_file(path, RunError)


@pytest.mark.parametrize("path", [Path("x" * 5000), Path("a\0b"), Path("none/at/all")])
def test_a_path_that_no_file_can_have_is_an_error(path):
    """Not an OSError, and no message of 5,000 characters."""
    with pytest.raises(RunError) as caught:
        read_bytes(path, RunError)
    assert len(str(caught.value)) < 400
    assert not exists(path)
    assert not is_folder(path)


def test_sizes_are_bounded(tmp_path):
    """A file of /proc says that its size is 0, and is bounded all the same."""
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", RunError, most=5) == b"12345"
    for path, most in ((tmp_path / "file", 4), (Path("/proc/self/status"), 10)):
        with pytest.raises(RunError, match="more than the limit of"):
            read_bytes(path, RunError, most=most)


def test_memory_follows_the_file_not_the_bound(tmp_path):
    """A bound of 4 GB reserves no 4 GB, which a machine or a limit may not have."""
    file = tmp_path / "small"
    file.write_bytes(b"{}")
    tracemalloc.start()
    assert read_bytes(file, RunError, 4_000_000_000) == b"{}"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
    assert read_bytes(Path("/proc/self/stat"), RunError)  # its size is 0


def test_text_has_no_byte_order_mark(tmp_path):
    """UTF-8 with or without the mark; other bytes are named by their place."""
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbfa\xc3\xa9")
    assert read_text(file, RunError) == "aé"
    file.write_bytes(b"ab\xff")
    with pytest.raises(RunError, match="not UTF-8 at byte 2"):
        read_text(file, RunError)


@pytest.mark.parametrize("content", ["a = " + "[" * 10_000, "a" + ".a" * 100_000 + " = 1", "a = "])
def test_toml_is_bounded(tmp_path, content):
    """Nested brackets and dotted keys would exhaust the parser's stack."""
    file = tmp_path / "file.toml"
    file.write_text(content)
    with pytest.raises(RunError, match="not TOML"):
        read_toml(file, RunError)


def test_a_file_that_looks_regular_and_refuses_to_be_read(tmp_path):
    """Its own error names it: the system's would name no file."""
    link = tmp_path / "link"
    link.symlink_to("/proc/self/mem")
    with pytest.raises(RunError, match=r"link: cannot be read: "):
        open_file(link, RunError)
