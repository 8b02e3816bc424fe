"""A run of an earlier version stays readable: scored, reported, compared, browsed, gone on with."""

import json
import shutil

import pytest
from small import command

from eval.demo.data import write_demo_data

TASKS = ("okvqa_val", "scienceqa_test_img", "refcoco_val")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The data that it was made from, which are drawn; tests only read them."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_demo_data(folder)
    return folder


@pytest.fixture
def run(golden, tmp_path):
    """A copy of the run in golden/run, which its README describes."""
    return shutil.copytree(golden / "run", tmp_path / "run")


def content(run):
    return {f.relative_to(run): f.read_bytes() for f in run.glob("[a-z]*/*") if f.is_file()}


def succeed(*arguments):
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_reported(run):
    """Its scores stand in the tables."""
    shown = succeed("report", run, "--format", "csv")
    assert all(task.partition("_")[0] in shown.lower() for task in TASKS)


def test_it_is_compared(run, tmp_path):
    """Both runs are paired by sample, and nothing differs."""
    other = shutil.copytree(run, tmp_path / "other")
    file = tmp_path / "comparison.json"
    succeed("compare", run, other, "--json", file)
    comparison = json.loads(file.read_text())
    assert {each["samples"] for each in comparison["benchmarks"]} == {6}
    assert not comparison["flips"]


def test_it_is_scored_again(run, data):
    """The same scores and summaries come out."""
    before = content(run)
    succeed("score", run, "--data", data)
    assert before == content(run)


def test_it_is_browsed(run, data, tmp_path):
    """Every sample has its place in the pages."""
    succeed("browse", run, "--data", data, "--out", tmp_path / "pages")
    assert (tmp_path / "pages" / "index.html").is_file()


def test_it_goes_on(run, data):
    """Its answers are taken as they are: no model is loaded, nothing is written."""
    before = content(run)
    options = ("--model", "demo", "--data", data, "--out", run, "--limit", 6, "--allow-partial")
    done = command("run", *TASKS, *options, "--dtype", "float32", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "loading" not in done.stderr
    assert before == content(run)
