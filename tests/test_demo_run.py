"""The bundled checkpoint on the drawn data: the figures that stand in the repository come out."""

import json
from pathlib import Path

import pytest
from small import command

from eval.demo.writer import SIZES
from eval.report.card import load_card
from eval.report.scores import load_run
from eval.report.tables import build_tables

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "results" / "demo"
CONFIG = ROOT / "configs" / "demo.toml"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with the demo's data and its finished run."""
    folder = tmp_path_factory.mktemp("demo")
    done = command("demo", "--data", folder / "data", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def figures(run):
    """Every file of figures, and what it holds."""
    files = [*run.glob("*/scores.jsonl"), *run.glob("*/summary.json")]
    return {file: file.read_bytes() for file in files}


@pytest.mark.slow
def test_demo_gives_the_recorded_figures(demo):
    """Every task's figure comes out again.

    Another processor may round a close choice differently, so a figure may move by two answers,
    or two of a hundred; on the machine that recorded them they are equal.
    """
    recorded = sorted(RECORDED.glob("*/summary.json"))
    assert len(SIZES) == len(recorded)
    for file in recorded:
        expected = json.loads(file.read_text())
        found = json.loads((demo / "run" / expected["task"] / "summary.json").read_text())
        assert expected["samples"] == found["samples"]
        assert expected["images"] == found["images"]
        for name, value in expected["metrics"].items():
            wide = name in ("cider", "touchstone_score")  # they end at 10
            spread = 0.3 if wide else max(0.02, 2 / expected["samples"])
            assert value == pytest.approx(found["metrics"][name], abs=spread), expected["task"]


@pytest.mark.slow
def test_two_workers_give_the_same_bytes(demo):
    """Predictions, scores and summaries of all tasks are those of one process."""
    both = demo / "run-2"
    done = command("demo", "--data", demo / "data", "--out", both, "--gpus", 2)
    assert done.returncode == 0, done.stderr
    assert "answers by 2 workers" in done.stderr
    assert json.loads((both / "manifest.json").read_text())["workers"] == 2
    assert {0, 1} == {int(file.stem[-1]) for file in both.glob("*/journal-?.jsonl")}
    for task in SIZES:
        for name in ("predictions.jsonl", "scores.jsonl", "summary.json"):
            files = [run / task / name for run in (demo / "run", both)]
            assert files[0].read_bytes() == files[1].read_bytes(), (task, name)


@pytest.mark.slow
def test_certificate_of_the_demo_checkpoint(demo):
    """In float32 no prediction depends on batch, order, number of workers, or a kill."""
    out = demo / "certificate"
    tasks = ("okvqa", "scienceqa", "refcoco_val", "flickr30k")
    done = command(
        *("certify", *tasks, "--model", "demo", "--data", demo / "data", "--out", out),
        *("--limit", 8, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((out / "certificate.json").read_text())
    assert told["holds"]
    assert told["answers"] == 32
    assert {0} == {variant["differ"] for variant in told["variants"]}
    assert {"workers-3", "killed", "killed-2"} <= {v["name"] for v in told["variants"]}
    assert {32} == {variant["answers"] for variant in told["variants"]}
    assert "no prediction differs" in done.stdout


@pytest.mark.slow
def test_a_card_that_is_complete_does_nothing_and_is_full(demo):
    """The configuration of the same run: nothing is asked, no file changes, no gap."""
    before = {file: file.stat().st_mtime_ns for file in (demo / "run").rglob("*")}
    again = ("card", CONFIG, "--data", demo / "data", "--out", demo / "run")
    done = command(*again)
    assert (0, "") == (done.returncode, done.stderr.partition("loading")[1]), done.stderr
    assert before == {file: file.stat().st_mtime_ns for file in (demo / "run").rglob("*")}
    card = load_card()
    tables = build_tables([load_run(demo / "run")], card, all_tables=True)
    empty = [
        column.column
        for table, of_card in zip(tables, card.tables, strict=False)
        for compared in table.compared
        for column, told in zip(compared.columns, of_card.columns, strict=True)
        if column.missing and told.scored_by != "judge"
    ]
    assert [] == empty
    dry = command(*again, "--dry-run")
    assert (0, len(SIZES)) == (dry.returncode, dry.stdout.count("done")), dry.stdout


@pytest.mark.slow
def test_scoring_again_changes_nothing_and_as_published_drops_samples(demo):
    """RefCOCO's 150 samples on 4 processes in batches of 8 are 128: 38 and 37 hold 4 batches."""
    run = demo / "run"
    before = figures(run)
    assert 2 * len(SIZES) == len(before)
    done = command("score", run, "--as-published", "4x8")
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "refcoco_val" / "summary.json").read_text())
    assert (128, False) == (summary["samples"], summary["complete"])
    assert "scored as published" in command("report", run, "--format", "md").stdout
    assert command("score", run).returncode == 0
    assert before == figures(run)
