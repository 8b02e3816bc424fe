"""Ranked options in half precision: the default choice, the published one, and what is recorded."""

import json
import shutil

import pytest
import torch
from PIL import Image
from small import command, make_checkpoint, make_model

from eval.api import Rank
from eval.runtime.checkpoint import save_checkpoint

TASK = "scienceqa_test_img"
QUESTIONS = 8
LETTERS = "ABCDE"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Questions of five options about one picture."""
    root = tmp_path_factory.mktemp("data")
    problems = {}
    for number in map(str, range(QUESTIONS)):
        picture = root / "scienceqa" / "images" / "test" / number / "image.png"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (90, 30, 200)).save(picture)
        problems[number] = {
            "question": f"Which, {number}?",
            "choices": list("vwxyz"),
            "answer": int(number) % 5,
            "hint": "",
            "image": "image.png",
        }
    (root / "scienceqa" / "problems.json").write_text(json.dumps(problems), "utf-8")
    splits = json.dumps({"test": list(problems)})
    (root / "scienceqa" / "pid_splits.json").write_text(splits, "utf-8")
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model to which all options are nearly alike: their losses differ by a few hundredths."""
    folder = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight *= -0.01
    save_checkpoint(model, folder, shards=2)
    return folder


def run(checkpoint, data, out, dtype, backend="shared"):
    done = command(
        *("run", TASK, "--model", checkpoint, "--data", data, "--out", out, "--dtype", dtype),
        *("--backend", backend, "--device", "cpu", "--allow-partial"),
    )
    assert done.returncode == 0, done.stderr
    return out


def lines(file):
    return {row["id"]: row for row in map(json.loads, file.read_text("utf-8").splitlines())}


def rights(out):
    return {name: row["accuracy"] for name, row in lines(out / TASK / "scores.jsonl").items()}


def is_right(number, letter):
    return float(LETTERS.index(letter) == int(number) % 5)


@pytest.mark.parametrize("backend", ["plain", "shared"])
def test_options_that_tie_in_bfloat16_are_told_apart_in_float32(
    checkpoint, data, tmp_path, backend
):
    """The least float32 loss wins; scored as published, the first of the least rounded losses.

    To this model options are so alike that their losses are one number in bfloat16.
    """
    out = run(checkpoint, data, tmp_path / "run", "bfloat16", backend)
    texts = {name: row["text"] for name, row in lines(out / TASK / "predictions.jsonl").items()}
    losses = lines(out / TASK / "losses.jsonl")
    best = Rank(tuple(LETTERS)).best
    published = {name: LETTERS[best(row["dtype_losses"])] for name, row in losses.items()}
    moved = [name for name in texts if texts[name] != published[name]]
    tied = [name for name in moved if (found := losses[name]["dtype_losses"]).count(min(found)) > 1]
    assert tied, "no two options tie"
    assert len(texts) == QUESTIONS
    assert texts == {name: LETTERS[best(row["losses"])] for name, row in losses.items()}
    assert rights(out) == {name: is_right(name, text) for name, text in texts.items()}

    done = command("score", out, "--as-published", "1x1")
    assert done.returncode == 0, done.stderr
    assert rights(out) == {name: is_right(name, text) for name, text in published.items()}
    assert "as_published=1x1" in done.stdout
    again = command("score", out)
    assert again.returncode == 0, again.stderr
    assert rights(out) == {name: is_right(name, text) for name, text in texts.items()}


def test_both_engines_record_the_same_losses(checkpoint, data, tmp_path):
    """In float32, where rounding cannot hide a difference; there they are the published ones too.

    So `--as-published` changes no choice.
    """
    plain, shared = (
        run(checkpoint, data, tmp_path / backend, "float32", backend)
        for backend in ("plain", "shared")
    )
    mine, others = (lines(out / TASK / "losses.jsonl") for out in (plain, shared))
    for name, row in mine.items():
        assert row["losses"] == pytest.approx(others[name]["losses"], abs=1e-4)
        assert row.keys() == {"id", "losses"}
    scores = rights(shared)
    assert command("score", shared, "--as-published", "1x1").returncode == 0
    assert rights(shared) == scores


def test_float16_ties_as_published_too(checkpoint, data, tmp_path):
    """What the original computes in the model's dtype is recorded for any half precision."""
    out = run(checkpoint, data, tmp_path / "run", "float16")
    for row in lines(out / TASK / "losses.jsonl").values():
        assert row["dtype_losses"] == pytest.approx(row["losses"], rel=2**-9)
        assert row["dtype_losses"] != row["losses"]
    assert command("score", out, "--as-published", "1x1").returncode == 0


def test_a_run_without_the_original_s_losses_cannot_be_scored_as_published(
    checkpoint, data, tmp_path
):
    """A run of an earlier version: the error says so, and its other scores stay to be had."""
    out = run(checkpoint, data, tmp_path / "run", "bfloat16")
    file = out / TASK / "losses.jsonl"
    rows = [{"id": name, "losses": row["losses"]} for name, row in lines(file).items()]
    scores = rights(out)
    files = [out / TASK / name for name in ("scores.jsonl", "summary.json")]
    for content in ("".join(json.dumps(row) + "\n" for row in rows), None):
        if content is None:
            file.unlink()
        else:
            file.write_text(content, "utf-8")
        before = [each.read_bytes() for each in files]
        done = command("score", out, "--as-published", "1x1")
        assert done.returncode == 2
        assert "losses.jsonl has no 'dtype_losses'" in done.stderr
        assert before == [each.read_bytes() for each in files]
        assert command("score", out).returncode == 0
        assert rights(out) == scores


def test_losses_of_both_kinds_survive_a_task_that_is_opened_again(checkpoint, data, tmp_path):
    """A finished task with a changed picture keeps the other samples' losses of both kinds."""
    place = shutil.copytree(data, tmp_path / "data")
    out = run(checkpoint, place, tmp_path / "run", "bfloat16")
    before = lines(out / TASK / "losses.jsonl")
    Image.new("RGB", (8, 8)).save(place / "scienceqa" / "images" / "test" / "7" / "image.png")
    run(checkpoint, place, out, "bfloat16")
    after = lines(out / TASK / "losses.jsonl")
    assert {"7"} == {name for name in before if before[name] != after[name]}
