"""Submission files: complete and in the server's format, or not written; figures come back."""

import json
import zipfile
from dataclasses import replace

import pytest
from small import answer_all, command

from eval.api import Prediction
from eval.demo.data import write_demo_data
from eval.demo.server import score_submission
from eval.demo.writer import SIZES
from eval.errors import DataError, PredictionError, RunError, UsageError
from eval.plugins import find_tasks
from eval.run.check import check_data
from eval.run.folder import RunFolder
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import score_run
from eval.scoring.submission import record_server_scores, write_submission

SERVED = [task for task in find_tasks(["all"]) if task.submission and not task.judged]
TASKS = [task for task in SERVED if task.submission.alone]
WHOLE = {"vqav2_testdev": "vqav2_test"}  # a file that holds more than its own task's answers


class Constant:
    """Answers everything alike."""

    def answer(self, requests):
        for request in requests:
            box = "<box>" in request.prompt
            yield Prediction(request.id, "(100,200),(600,700)" if box else " two blue circles ")

    def describe(self):
        return {"checkpoint": "constant", "digest": "0" * 64, "dtype": "float32"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submit") / "data"
    write_demo_data(folder)
    return folder


def make_run(path, task, data, limit=None, seal=True):
    _, asked = check_data(task, data, Spec(limit=limit), allow_partial=True)
    entries = {task.name: spec_entry(task, data, asked)}
    manifest = {"name": "x", "model": Constant().describe(), "tasks": entries, "data": str(data)}
    folder = RunFolder.start(path, manifest)
    answer_all(folder, [task], data, {task.name: asked}, Constant())
    if seal:
        assert folder.answers(task.name).finalize(task, data, asked, folder.digests()) == 0
    return folder


def rows_of(file):
    if file.suffix != ".zip":
        return json.loads(file.read_text(encoding="utf-8"))
    with zipfile.ZipFile(file) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith("refexp.json"))
        return json.loads(archive.read(member))


def test_every_split_of_a_server_has_a_submission():
    assert {
        "vqav2_testdev",
        "vqav2_test",
        "vizwiz_test",
        "docvqa_test",
        "nocaps_test",
        "grit_refexp_ablation",
        "grit_refexp_test",
    } == {task.name for task in TASKS}
    assert ["nocaps_val"] == [task.name for task in SERVED if task not in TASKS]


def test_a_split_that_is_scored_here_can_be_sent_and_keeps_its_figure(data, tmp_path):
    """NoCaps' server takes val too; a figure of its would only stand beside the computed one."""
    (task,) = (task for task in SERVED if task not in TASKS)
    folder = make_run(tmp_path / "run", task, data)
    rows = rows_of(write_submission(task, folder, data))
    assert SIZES["nocaps_val"] == len(rows)
    assert {"image_id", "caption"} == set(rows[0])
    (other,) = find_tasks(["okvqa_val"])
    for scored_here in (task, other):
        with pytest.raises(UsageError, match="it is scored here"):
            record_server_scores(scored_here, folder, {"cider": 1.0}, "a stand-in")
    assert folder.scores(task.name).server() is None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_file_is_complete_and_its_server_can_score_it(task, data, tmp_path):
    """As many answers as the split has samples; a second file has the same bytes."""
    folder = make_run(tmp_path / "run", task, data)
    written = write_submission(task, folder, data)
    assert (tmp_path / "run" / task.name / "submission" / task.submission.file) == written
    rows = rows_of(written)
    assert SIZES[WHOLE.get(task.name, task.name)] == len(rows)
    again = write_submission(task, folder, data, tmp_path / f"again{written.suffix}")
    assert written.read_bytes() == again.read_bytes()
    metrics = score_submission(data, task.name, written)
    record_server_scores(task, folder, metrics, "a stand-in", "2026-01-31", written)
    summary = score_run(folder, task, data)
    assert metrics == summary["metrics"]
    assert "a stand-in" == summary["scored_by"]


def test_answers_that_were_edited_after_they_were_scored_are_not_sent(data, tmp_path):
    """Nor is a score recorded for them, until they are scored again."""
    (task,) = find_tasks(["docvqa_test"])
    folder = make_run(tmp_path / "run", task, data)
    score_run(folder, task, data)
    file = tmp_path / "run" / task.name / "predictions.jsonl"
    file.write_text(file.read_text().replace(" two blue circles ", "edited", 1))
    for send in (
        lambda: write_submission(task, folder, data),
        lambda: record_server_scores(task, folder, {"anls": 0.5}, "a stand-in"),
    ):
        with pytest.raises(RunError, match=r"predictions\.jsonl: this is not what summary\.json"):
            send()
    score_run(folder, task, data)
    assert "edited" in write_submission(task, folder, data).read_text()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_gap_is_an_error_and_nothing_is_written(task, data, tmp_path):
    """A server may score a missing answer as wrong without a word."""
    folder = make_run(tmp_path / "run", task, data, limit=3)
    with pytest.raises(PredictionError, match=r"a file with gaps: an answer to each of \d+"):
        write_submission(task, folder, data)
    assert not (tmp_path / "run" / task.name / "submission").exists()


def docvqa():
    return next(task for task in TASKS if task.name == "docvqa_test")


def test_what_departs_from_the_server_s_format_is_not_written(data, tmp_path):
    task = docvqa()
    wrong = replace(task, submission=replace(task.submission, schema=list[int]))
    folder = make_run(tmp_path / "run", task, data)
    with pytest.raises(DataError, match=r"at \[0\] .* Nothing was written"):
        write_submission(wrong, folder, data)
    assert not (tmp_path / "run" / task.name / "submission").exists()


def test_only_a_finished_run_on_the_same_data_is_submitted(data, tmp_path):
    task = docvqa()
    unfinished = make_run(tmp_path / "unfinished", task, data, seal=False)
    with pytest.raises(RunError, match="docvqa_test is not finished"):
        write_submission(task, unfinished, data)
    finished = make_run(tmp_path / "finished", task, data)
    write_demo_data(tmp_path / "other")
    (source,) = task.layout(tmp_path / "other").sources
    file = tmp_path / "other" / source.path
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(RunError, match="not the file that the run was asked from"):
        write_submission(task, finished, tmp_path / "other")
    (other,) = find_tasks(["vizwiz_test"])
    with pytest.raises(RunError, match="a run of docvqa_test; vizwiz_test was not asked"):
        write_submission(other, finished, data)
    (scored_here,) = find_tasks(["docvqa_val"])
    with pytest.raises(UsageError, match="no server scores it"):
        write_submission(scored_here, finished, data)
    with pytest.raises(UsageError, match=r"a name that ends in \.json expected"):
        write_submission(task, finished, data, tmp_path / "answers.zip")


def test_a_server_s_figure_is_checked(data, tmp_path):
    task = docvqa()
    folder = make_run(tmp_path / "run", task, data)
    with pytest.raises(UsageError, match=r"a figure from 0 to 100 expected.*651 given"):
        record_server_scores(task, folder, {"anls": 6.51}, "RRC")
    with pytest.raises(UsageError, match="a day such as"):
        record_server_scores(task, folder, {"anls": 0.651}, "RRC", "yesterday")
    assert folder.scores(task.name).server() is None


def test_from_the_command_line(data, tmp_path):
    """submit writes the file; submit --scored puts the figure into the card's table."""
    task = docvqa()
    run = tmp_path / "run"
    make_run(run, task, data)
    done = command("submit", "docvqa_test", run)
    assert (0, True) == (done.returncode, "docvqa_test.json" in done.stdout), done.stderr
    assert "warning: the run's data are not the official split's (drawn by the demo" in done.stderr
    done = command("submit", "docvqa_test", run, "--scored", "12.3", "--on", "2026-01-31")
    assert 0 == done.returncode, done.stderr
    assert "anls=0.123000" in done.stdout
    assert "12.3" in command("report", run, "--format", "md").stdout
    assert 2 == command("submit", "docvqa_test", run, "--scored", "651").returncode
    assert 2 == command("submit", "docvqa_val", run).returncode
