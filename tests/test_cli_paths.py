"""Arguments that nothing can take, in every command: exit code 2, and which one it is."""

import os
from pathlib import Path

import pytest
import typer
from small import command
from test_process import NOBODY, acting_as

from eval.cli.card import DEMO_DATA
from eval.cli.main import app
from eval.cli.options import engine_settings
from eval.errors import UsageError


def parameters(kind):
    """(words of a command, its parameters, one parameter of that type) of all commands."""

    def walk(each, words):
        for name, below in getattr(each, "commands", {}).items():
            yield from walk(below, [*words, name])
        if words and not hasattr(each, "commands"):
            for parameter in each.params:
                if parameter.type_descriptor.annotation in (kind, list[kind]):
                    yield words, each.params, parameter

    return list(walk(typer.main.get_command(app), []))


def given(parameter, value):
    return [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]


def with_value(words, params, chosen, value):
    """A command line in which one parameter has the value, and others that must be there are."""
    line = list(words)
    for parameter in params:
        if parameter is chosen:
            line += given(parameter, value)
        elif parameter.required:
            line += given(parameter, "something")
    return line


PATHS = parameters(Path)
NUMBERS = [*parameters(int), *parameters(float)]


def named(entry):
    words, _, parameter = entry
    return f"{'-'.join(words)}-{parameter.name}"


def test_all_paths_are_met():
    """The walk finds what a reader of the help finds."""
    found = {named(entry) for entry in PATHS}
    assert {"run-out_folder", "report-runs", "compare-junit", "data-verify-data"} <= found
    assert len(PATHS) > 35
    assert {"run-limit", "compare-margin", "judge-timeout"} <= {named(entry) for entry in NUMBERS}


@pytest.mark.case("hostile/08")
@pytest.mark.parametrize("entry", PATHS, ids=named)
def test_a_path_that_cannot_be_looked_up(tmp_path, monkeypatch, entry):
    """A name or a path that is too long, a loop of links, a file's inside, no value at all."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").write_text("")
    for path, why in (
        ("x" * 300, "File name too long"),
        ("new/" + "x" * 300, "File name too long"),
        ("xy/" * 1700, "File name too long"),
        ("loop", "Too many levels of symbolic links"),
        ("loop/below", "Too many levels of symbolic links"),
        ("file/below", "Not a directory"),
        ("", "an empty value"),
    ):
        done = command(*with_value(*entry, path))
        assert done.returncode == 2, (path[:20], done.stderr)
        assert why in done.stderr, done.stderr
        assert path[:20] in done.stderr
        assert len(done.stderr) < 1000


@pytest.mark.case("hostile/22")
@pytest.mark.parametrize("entry", PATHS, ids=named)
def test_a_path_in_a_folder_of_somebody_else(tmp_path, monkeypatch, entry):
    """What lies below a folder that may not be entered."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    command("report", "nothing")  # as another user, nothing more can be imported
    with acting_as(NOBODY, tmp_path):
        done = command(*with_value(*entry, locked / "x"))
    assert done.returncode == 2, done.stderr
    assert "locked/x: cannot be looked up: Permission denied" in done.stderr


@pytest.mark.case("hostile/22")
def test_the_demo_in_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """It draws its data there."""
    here = tmp_path / "here"
    here.mkdir(mode=0o755)
    monkeypatch.chdir(here)
    import eval.demo.stand_ins  # noqa: F401  # as another user, nothing more can be imported

    with acting_as(NOBODY, tmp_path):
        done = command("demo")
    assert done.returncode == 2, done.stderr
    assert f"--data {DEMO_DATA}: cannot be written: Permission denied" in done.stderr


@pytest.mark.case("hostile/07")
@pytest.mark.parametrize("entry", NUMBERS, ids=named)
def test_a_number_beyond_all_bounds(entry):
    """More than 64 bits, more digits than Python reads, not finite, no number."""
    for value in ("9" * 30, "-" + "9" * 30, "9" * 5000, "nan", "inf", "-inf", "1e400", "x"):
        if parameter_is_float(entry) and value.strip("-9") == "" and len(value) < 400:
            continue  # a float takes it
        done = command(*with_value(*entry, value))
        assert done.returncode == 2, (value[:20], done.stderr)
        assert entry[2].opts[0] in done.stderr


def parameter_is_float(entry):
    return entry[2].type_descriptor.annotation is float


@pytest.mark.case("hostile/07")
@pytest.mark.parametrize(
    "size", ["9" * 400, "9" * 5000, "9" * 19, "8388608TiB", "0", "nan", "-1", "1e9", "", "1.", "٣"]
)
def test_a_size_of_memory_beyond_all_bounds(size):
    with pytest.raises(UsageError, match="--memory"):
        engine_settings(size, None)


@pytest.mark.parametrize(("size", "bytes_"), [("1", 1), ("1.5KiB", 1536), ("8388607 TiB", None)])
def test_a_size_of_memory(size, bytes_):
    assert engine_settings(size, None)["memory"] == (bytes_ or 8388607 << 40)


def test_control_characters_are_spelled_out(tmp_path, monkeypatch):
    """A name must not command the terminal that shows it."""
    monkeypatch.chdir(tmp_path)
    done = command("compare", "a\x1b[31m\x07", "b", "--gate")
    assert done.returncode == 2
    assert r"a\x1b[31m\x07" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("line", [("run", "--config"), ("card",)])
def test_a_configuration_that_is_a_pipe(tmp_path, line):
    """Nobody waits for its writer."""
    os.mkfifo(tmp_path / "pipe")
    done = command(*line, tmp_path / "pipe", "--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "pipe: a regular file expected" in done.stderr
