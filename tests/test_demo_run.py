"""The bundled checkpoint on the drawn data: the figures that stand in the repository come out."""

import json
from pathlib import Path

import pytest
from small import command

from eval.demo.writer import SIZES

RECORDED = Path(__file__).resolve().parents[1] / "results" / "demo"


@pytest.mark.slow
def test_demo_gives_the_recorded_figures(tmp_path):
    """Every family's figure comes out again, and scoring the predictions again changes nothing.

    Another processor may round a close choice differently, so a figure may move by two answers,
    or two of a hundred; on the machine that recorded them they are equal.
    """
    run = tmp_path / "demo"
    done = command("demo", "--data", tmp_path / "data", "--out", run)
    assert done.returncode == 0, done.stderr
    for recorded in sorted(RECORDED.glob("*/summary.json")):
        expected = json.loads(recorded.read_text())
        found = json.loads((run / expected["task"] / "summary.json").read_text())
        assert expected["samples"] == found["samples"]
        assert expected["images"] == found["images"]
        for name, value in expected["metrics"].items():
            spread = 0.3 if name == "cider" else max(0.02, 2 / expected["samples"])
            assert value == pytest.approx(found["metrics"][name], abs=spread), expected["task"]
    files = [*run.glob("*/scores.jsonl"), *run.glob("*/summary.json")]
    assert 2 * len(list(RECORDED.glob("*/summary.json"))) == 2 * len(SIZES) == len(files)
    before = {file: file.read_bytes() for file in files}
    assert command("score", run).returncode == 0
    assert before == {file: file.read_bytes() for file in files}
