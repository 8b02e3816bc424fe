"""A run from the command line: what it writes, what survives, what it says of wrong input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import command, make_checkpoint, make_data

from eval.api import Generate, Prediction, Request
from eval.engine.plain import open_backend
from eval.errors import RunError
from eval.run.folder import RunFolder

QUESTIONS = "okvqa/OpenEnded_mscoco_val2014_questions.json"
IMAGE = "coco/val2014/COCO_val2014_{:012d}.jpg"
COMMAND = (sys.executable, "-c", "from eval.cli import main; main()")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, checkpoint):
    """A finished run and its data; tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    make_data(folder / "data")
    done = run_okvqa(checkpoint, folder / "data", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def run_okvqa(checkpoint, data, out, *more):
    arguments = ["--model", checkpoint, "--data", data, "--out", out, "--allow-partial"]
    return command("run", "okvqa", *arguments, *more)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_run_writes_predictions_scores_summary_and_manifest(finished, checkpoint):
    """Every file of a run, with the counts beside the figure and all that decides it."""
    task = finished / "run" / "okvqa_val"
    expected = [str(10 * n + 5) for n in range(7)]
    assert expected == [row["id"] for row in lines(task / "predictions.jsonl")]
    assert expected == [row["id"] for row in lines(task / "scores.jsonl")]
    summary = json.loads((task / "summary.json").read_text())
    assert (summary["samples"], summary["images"], summary["complete"]) == (7, 3, False)
    manifest = json.loads((finished / "run" / "manifest.json").read_text())
    assert set(manifest) >= {"model", "tasks", "command", "versions", "started", "data"}
    assert {"digest", "files", "dtype", "batch_size"} <= set(manifest["model"])
    assert manifest["tasks"]["okvqa_val"]["decode"]["max_new_tokens"] == 10
    assert QUESTIONS in manifest["tasks"]["okvqa_val"]["sources"]


def test_same_run_again_asks_nothing(checkpoint, data, tmp_path):
    """A finished run is not asked again, and its files stay the same to the byte."""
    out = tmp_path / "run"
    assert run_okvqa(checkpoint, data, out).returncode == 0
    files = [out / "okvqa_val" / n for n in ("predictions.jsonl", "scores.jsonl", "summary.json")]
    before = [file.read_bytes() for file in files]
    (out / "okvqa_val" / "journal-0.jsonl").unlink()
    assert run_okvqa(checkpoint, data, out).returncode == 0
    assert before == [file.read_bytes() for file in files]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_and_continued_equals_uninterrupted(checkpoint, tmp_path, how):
    """Killed or asked to stop, a run goes on where it was and ends in the same bytes."""
    data = make_data(tmp_path / "data", questions=24)
    arguments = ["run", "okvqa", "--allow-partial", "--model", checkpoint, "--data", data]
    arguments += ["--memory", "1KiB", "--out"]  # one question at a time
    journal = tmp_path / "stopped" / "okvqa_val" / "journal-0.jsonl"
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), str(tmp_path / "stopped")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 500):
        time.sleep(0.01)
    process.send_signal(how)
    _, message = process.communicate(timeout=60)
    assert {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how] == process.returncode
    if how != signal.SIGKILL:
        assert "to go on:" in message
        assert "Traceback" not in message
    answered = len(journal.read_bytes().splitlines()) - 1  # the first names the model
    assert 0 < answered < 24
    assert not (tmp_path / "stopped" / "okvqa_val" / "predictions.jsonl").exists()
    before = journal.read_bytes()
    assert command(*arguments, tmp_path / "stopped").returncode == 0
    assert journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert command(*arguments, tmp_path / "whole").returncode == 0
    for name in ("predictions.jsonl", "scores.jsonl", "summary.json"):
        files = [tmp_path / run / "okvqa_val" / name for run in ("stopped", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_torn_line_is_dropped(finished, checkpoint, tmp_path):
    """What a crash left of a line is neither read nor kept."""
    journal = tmp_path / "run" / "okvqa_val" / "journal-0.jsonl"
    journal.parent.mkdir(parents=True)
    whole = (finished / "run" / "okvqa_val" / "predictions.jsonl").read_bytes()
    (first, *_) = (finished / "run/okvqa_val/journal-0.jsonl").read_bytes().splitlines(True)
    journal.write_bytes(first + whole[: len(whole) // 2])
    manifest = (finished / "run" / "manifest.json").read_bytes()
    (tmp_path / "run" / "manifest.json").write_bytes(manifest)
    assert len(RunFolder.open(tmp_path / "run").answers("okvqa_val").recorded()) < 7
    assert run_okvqa(checkpoint, finished / "data", tmp_path / "run").returncode == 0
    assert whole == (journal.parent / "predictions.jsonl").read_bytes()


@pytest.mark.parametrize("batch", [(), ("--batch-size", "3")])
def test_an_unreadable_image_fails_its_own_samples(finished, checkpoint, data, tmp_path, batch):
    """Exit code 3, sample and file named, the reason in the journal, all others are scored.

    Asked again with --retry-failed once the image is there, the run equals an undisturbed one.
    """
    picture = data / IMAGE.format(2)
    whole = picture.read_bytes()
    picture.write_bytes(b"not a picture")
    run = tmp_path / "run"
    done = run_okvqa(checkpoint, data, run, *batch)
    assert done.returncode == 3
    assert "failed: okvqa_val/25" in done.stderr
    assert picture.name in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 samples failed" in " ".join(done.stdout.split())
    _, *answers = lines(run / "okvqa_val" / "journal-0.jsonl")
    rows = {row["id"]: row for row in answers}
    assert {"25", "55"} == {name for name, row in rows.items() if "error" in row}
    assert len(rows) == 7
    summary = json.loads((run / "okvqa_val" / "summary.json").read_text())
    assert (5, 2, False) == tuple(summary[key] for key in ("samples", "failed", "complete"))
    assert "failed=2" in summary["signature"]
    picture.write_bytes(whole)
    assert run_okvqa(checkpoint, data, run, *batch).returncode == 3
    again = run_okvqa(checkpoint, data, run, *batch, "--retry-failed")
    assert again.returncode == 0, again.stderr
    expected = (finished / "run" / "okvqa_val" / "predictions.jsonl").read_bytes()
    assert expected == (run / "okvqa_val" / "predictions.jsonl").read_bytes()


def test_all_images_unreadable_is_no_figure(checkpoint, data, tmp_path):
    """When nothing could be answered the table says so, and the exit code is 3."""
    for number in range(3):
        (data / IMAGE.format(number)).write_bytes(b"not a picture")
    done = run_okvqa(checkpoint, data, tmp_path / "run")
    assert done.returncode == 3
    assert "all 7 samples failed" in " ".join(done.stdout.split())
    assert "... and 2 more of okvqa_val" in done.stderr


def test_a_run_tells_its_work(checkpoint, data, tmp_path):
    """Answers, images that were encoded, and the share of time in which the model waited."""
    done = run_okvqa(checkpoint, data, tmp_path / "run")
    told = r"7 answers, 3 images encoded, [0-9.]+ s; the model waited for image files in [0-9.]+%"
    assert re.search(told, done.stderr)


def test_features_are_kept_between_runs(checkpoint, data, tmp_path):
    """With --features a second run encodes no image and answers the same."""
    told = []
    for name in ("one", "two"):
        done = run_okvqa(checkpoint, data, tmp_path / name, "--features", tmp_path / "features")
        assert done.returncode == 0, done.stderr
        told.append((tmp_path / name / "okvqa_val" / "predictions.jsonl").read_bytes())
    assert "0 images encoded" in done.stderr
    assert told[0] == told[1]


def test_a_row_of_the_card_takes_the_engine_s_settings(checkpoint, data, tmp_path):
    """A failed sample of a row is asked again, with features kept and little memory."""
    picture = data / IMAGE.format(2)
    whole = picture.read_bytes()
    picture.write_bytes(b"not a picture")
    config = tmp_path / "row.toml"
    config.write_text(
        f'model = "{checkpoint}"\ndtype = "float32"\npartial = true\ntasks = ["okvqa_val"]\n'
    )
    arguments = ("card", config, "--data", data, "--out", tmp_path / "run", "--device", "cpu")
    settings = ("--memory", "1MiB", "--features", tmp_path / "features")
    done = command(*arguments, *settings)
    assert (3, True) == (done.returncode, "failed: okvqa_val/25" in done.stderr), done.stderr
    picture.write_bytes(whole)
    done = command(*arguments, *settings, "--retry-failed")
    assert (0, True) == (done.returncode, "2 answers, 1 images encoded" in done.stderr), done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--memory", "8 GiG"), "--memory '8 GiG'"),
        (("--memory", "0"), "--memory '0'"),
        (("--memory", "1GiB", "--backend", "plain"), "'plain' has no such setting"),
        (("--batch-size", "8", "--backend", "shared"), "plain"),
        (("--backend", "none"), "none"),
    ],
)
def test_settings_of_engines(checkpoint, data, tmp_path, options, said):
    """A size that is none, or a setting that the back end does not have."""
    done = run_okvqa(checkpoint, data, tmp_path / "run", *options)
    assert (2, True) == (done.returncode, said in done.stderr), done.stderr


def test_tasks_of_one_run_share_images(checkpoint, tmp_path):
    """OK-VQA's and VQAv2's questions on the same photographs: each is encoded once."""
    data = make_data(tmp_path / "data")
    questions = json.loads((data / QUESTIONS).read_text())["questions"]
    answered = json.loads((data / "okvqa/mscoco_val2014_annotations.json").read_text())
    for row in (*questions, *answered["annotations"]):
        row["question_id"] = row["image_id"] * 1000 + row["question_id"]
    for row in answered["annotations"]:
        row |= {"question_type": "what", "answer_type": "other"}
    (data / "vqav2").mkdir()
    names = ("OpenEnded_mscoco_val2014_questions", "mscoco_val2014_annotations")
    for name, content in zip(names, ({"questions": questions}, answered), strict=True):
        (data / "vqav2" / f"v2_{name}.json").write_text(json.dumps(content))
    arguments = ("--model", checkpoint, "--data", data, "--allow-partial", "--out")
    done = command("run", "okvqa_val", "vqav2_val", *arguments, tmp_path / "both")
    assert done.returncode == 0, done.stderr
    assert "14 answers, 3 images encoded" in done.stderr
    for task in ("okvqa_val", "vqav2_val"):
        assert command("run", task, *arguments, tmp_path / task).returncode == 0
        files = [tmp_path / run / task / "predictions.jsonl" for run in ("both", task)]
        assert files[0].read_bytes() == files[1].read_bytes()


def break_nothing(data):
    return ["run", "okvka"], "did you mean 'okvqa"


def break_all_images_missing(data):
    for number in range(3):
        (data / IMAGE.format(number)).unlink()
    return ["run", "okvqa"], "no sample has its picture"


def break_questions_missing(data):
    (data / QUESTIONS).unlink()
    return ["run", "okvqa"], QUESTIONS


def break_malformed(data):
    (data / QUESTIONS).write_text('{"questions": [{"image_id": 0,')
    return ["run", "okvqa"], QUESTIONS


def break_duplicate(data):
    rows = json.loads((data / QUESTIONS).read_text())
    rows["questions"].append(rows["questions"][0])
    (data / QUESTIONS).write_text(json.dumps(rows))
    return ["run", "okvqa"], "'5'"


def break_image_in_question(data):
    rows = json.loads((data / QUESTIONS).read_text())
    rows["questions"][1]["question"] = "<img>/etc/hostname</img> what?"
    (data / QUESTIONS).write_text(json.dumps(rows))
    return ["run", "okvqa"], "image tag"


def break_no_data_folder(data):
    return ["run", "okvqa", "--data", data / "nowhere"], "nowhere"


def break_task_missing(data):
    return ["run"], "TASK"


def break_option(data):
    return ["run", "okvqa", "--batch-size", "0"], "batch-size"


BREAKS = [value for name, value in sorted(globals().items()) if name.startswith("break_")]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda b: b.__name__.removeprefix("break_"))
def test_bad_input(checkpoint, data, tmp_path, break_it):
    """One clear message, exit code 2, no traceback."""
    arguments, said = break_it(data)
    options = {"--model": checkpoint, "--data": data, "--out": tmp_path / "run"}
    more = [part for name, at in options.items() if name not in arguments for part in (name, at)]
    done = command(*arguments, *more, "--allow-partial")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    """With --debug the same mistake shows where it arose."""
    done = command("--debug", "report", tmp_path)
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr


def test_another_checkpoint_does_not_continue_a_run(finished, tmp_path):
    """Old answers never come back for a changed checkpoint, whatever its path."""
    other = make_checkpoint(tmp_path / "small", seed=1)
    done = run_okvqa(other, finished / "data", finished / "run")
    assert done.returncode == 2
    assert "model digest" in done.stderr


def test_changed_data_do_not_continue_or_score_a_run(finished, checkpoint, tmp_path):
    """The answers belong to the file they were asked from."""
    data = make_data(tmp_path / "data", questions=8)
    done = run_okvqa(checkpoint, data, finished / "run")
    assert (done.returncode, "okvqa_val sources" in done.stderr) == (2, True)
    done = command("score", finished / "run", "--data", data)
    assert (done.returncode, QUESTIONS in done.stderr) == (2, True)


def test_other_folder_is_left_alone(checkpoint, data, tmp_path):
    """A folder with something else in it is not written to."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.tex").write_text("...")
    done = run_okvqa(checkpoint, data, out)
    assert (done.returncode, "not a run" in done.stderr) == (2, True)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_score_again_without_model(finished, tmp_path):
    """Scoring a run again writes the same bytes, and imports no torch."""
    task = finished / "run" / "okvqa_val"
    before = {name: (task / name).read_bytes() for name in ("scores.jsonl", "summary.json")}
    for name in before:
        (task / name).unlink()
    code = (
        "import sys; from eval.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(finished / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "n=7 of=5046 images=3" in done.stdout
    assert before == {name: (task / name).read_bytes() for name in before}


def test_score_result_file_of_the_published_scripts(finished, tmp_path):
    """Their list of question_id and answer is scored by the same rules."""
    results = tmp_path / "okvqa_val_231101_fs0_s0.json"
    rows = [{"question_id": 10 * n + 5, "answer": "Red" if n else "blue"} for n in range(7)]
    results.write_text(json.dumps(rows))
    arguments = ["--task", "okvqa_val", "--data", finished / "data", "--predictions", results]
    values = tmp_path / "values.jsonl"
    done = command("score", *arguments, "--per-sample", values)
    assert done.returncode == 0, done.stderr
    assert f"vqa_accuracy={6 / 7:.6f}" in done.stdout
    assert "protocol=? decode=?" in done.stdout  # how others asked is not known
    assert [row["vqa_accuracy"] for row in lines(values)] == [0, 1, 1, 1, 1, 1, 1]
    results.write_text(json.dumps(rows[1:]))
    done = command("score", *arguments)
    assert (done.returncode, "without a prediction (5)" in done.stderr) == (2, True)


def test_replay_gives_the_recorded_answers(finished, tmp_path):
    """A recorded run answers in place of its model."""
    arguments = ["--model", finished / "run", "--backend", "replay", "--data", finished / "data"]
    done = command("run", "okvqa", *arguments, "--out", tmp_path / "run", "--allow-partial")
    assert done.returncode == 0, done.stderr
    files = [
        run / "okvqa_val" / "predictions.jsonl" for run in (finished / "run", tmp_path / "run")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("size", [2, 3, 7])
def test_batch_size_changes_no_answer(finished, checkpoint, size):
    """In float32, below the trained length, ids do not depend on the neighbours."""
    requests = [
        Request(str(n), f"<img>{IMAGE.format(n % 3)}</img>{'word ' * n}Answer:", Generate(6, n % 2))
        for n in range(7)
    ]
    requests.sort(key=lambda r: r.decode.min_new_tokens)

    def answers(batch_size):
        engine = open_backend(str(checkpoint), image_root=finished / "data", batch_size=batch_size)
        return list(engine.answer(requests))

    assert answers(1) == answers(size)


def test_run_from_a_configuration_file(checkpoint, data, tmp_path):
    """A TOML file names checkpoint, dtype and tasks; a wrong key is named."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'model = "{checkpoint}"\ndtype = "float32"\npartial = true\ntasks = ["okvqa_val"]\n'
    )
    done = command("run", "--config", config, "--data", data, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    config.write_text('modell = "x"\n')
    done = command("run", "--config", config, "--data", data, "--out", tmp_path / "run")
    assert (done.returncode, "modell" in done.stderr) == (2, True)


def test_limit_marks_the_figure(checkpoint, data, tmp_path):
    """A limited run says so beside its figure and in the table."""
    done = run_okvqa(checkpoint, data, tmp_path / "run", "--limit", "2")
    assert "n=2 of=5046" in done.stdout
    assert "partial:" in done.stdout


def test_data_that_fail_are_refused(checkpoint, data, tmp_path):
    """Seven questions are not OK-VQA: the run says so before a model is loaded."""
    arguments = ["--model", tmp_path / "none", "--data", data, "--out", tmp_path / "run"]
    (data / IMAGE.format(1)).unlink()
    done = command("run", "okvqa", *arguments)
    assert done.returncode == 2
    assert "samples: 5,046 expected, 7 found" in done.stderr
    assert f"1 of 3 images are missing: {IMAGE.format(1)}" in done.stderr
    assert "--allow-partial" in done.stderr
    assert not (tmp_path / "run").exists()


def test_allow_partial_leaves_out_and_marks(checkpoint, data, tmp_path):
    """What has no picture is left out, and every figure says that the data are not the split's."""
    (data / IMAGE.format(1)).unlink()
    done = run_okvqa(checkpoint, data, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "okvqa_val" / "summary.json").read_text())
    assert (summary["samples"], summary["complete"]) == (5, False)
    assert "samples: 5,046 expected, 7 found" in summary["faults"]
    assert "faults=" in summary["signature"]
    assert "†" in done.stdout
    again = command("score", tmp_path / "run")
    assert summary["signature"] in again.stdout


def test_chatml_asks_a_dialogue(finished, checkpoint, tmp_path):
    """The other protocol: another prompt, other answers, and its name beside the figure."""
    done = run_okvqa(checkpoint, finished / "data", tmp_path / "run", "--protocol", "chatml")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    told = manifest["tasks"]["okvqa_val"]
    assert told["protocol"] == "chatml"
    assert told["prompt"] == "Picture 1: <img>{image}</img>\n{question}"
    assert "protocol=chatml" in done.stdout
    answers = [
        lines(run / "okvqa_val" / "predictions.jsonl")
        for run in (tmp_path / "run", finished / "run")
    ]
    assert answers[0] != answers[1]
    done = run_okvqa(checkpoint, finished / "data", finished / "run", "--protocol", "chatml")
    assert (done.returncode, "okvqa_val protocol" in done.stderr) == (2, True)


def test_a_finished_run_loads_no_model(finished, checkpoint):
    """The checkpoint's files are digested, not loaded; one changed byte would be noticed."""
    done = run_okvqa(checkpoint, finished / "data", finished / "run")
    assert done.returncode == 0
    assert "loading" not in done.stderr


def test_damaged_journal_is_named(finished, tmp_path):
    """A line that is no prediction is named with its file and number."""
    folder = tmp_path / "run"
    (folder / "okvqa_val").mkdir(parents=True)
    (folder / "manifest.json").write_bytes((finished / "run" / "manifest.json").read_bytes())
    (first, *_) = (finished / "run/okvqa_val/journal-0.jsonl").read_bytes().splitlines(True)
    file = folder / "okvqa_val" / "journal-0.jsonl"
    file.write_bytes(first + b'{"id": "5", "text": "x"}\nnonsense\n')
    with pytest.raises(RunError, match=r"journal-0.jsonl, line 3: invalid JSON"):
        RunFolder.open(folder).answers("okvqa_val").recorded()


def test_prediction_is_frozen():
    """What travels between the stages cannot be changed on the way."""
    with pytest.raises(AttributeError):
        Prediction("1", "red").text = "blue"


def test_disk_full_is_an_error_of_its_own(finished, monkeypatch, tmp_path):
    """A file that cannot be written leaves the old one in place and no remains."""
    from eval.storage.writing import write_file

    file = tmp_path / "summary.json"
    file.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_file(file, b"new")
    assert ("old", [file.name]) == (file.read_text(), [p.name for p in Path(tmp_path).iterdir()])
