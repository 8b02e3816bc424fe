"""A run's figures are read from its folder, and nothing doubtful among them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from eval.errors import RunError
from eval.report.scores import describe_protocol, load_run
from eval.run.files import Published

SUMMARY = {
    "task": "okvqa_val",
    "size": 5046,
    "samples": 200,
    "images": 180,
    "complete": False,
    "protocol": "published",
    "metrics": {"vqa_accuracy": 0.586, "vqa_accuracy_official": 0.571},
    "unreadable": 3,
    "signature": "okvqa_val vqa_accuracy=0.586000 | n=200 of=5046",
}
MANIFEST = {"name": "qwen-vl.bf16", "model": {"chat_format": "raw"}, "tasks": {}}


def write(folder: Path, manifest=MANIFEST, **changes) -> Path:
    """A run of one task; a change to ... takes the field away."""
    fields = {k: v for k, v in {**SUMMARY, **changes}.items() if v is not ...}
    (folder / "okvqa_val").mkdir(parents=True)
    (folder / "okvqa_val" / "summary.json").write_text(json.dumps(fields), encoding="utf-8")
    if manifest is not None:
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_a_run_is_read(tmp_path):
    """Name and chat format come from the manifest, figures from the summaries."""
    run = load_run(write(tmp_path / "folder"))
    assert run.name == "qwen-vl.bf16"
    assert run.chat_format == "raw"
    task = run.tasks["okvqa_val"]
    assert (task.samples, task.images, task.size, task.complete) == (200, 180, 5046, False)
    assert task.metrics == SUMMARY["metrics"]
    assert (task.unreadable, task.signature) == (3, SUMMARY["signature"])


def test_what_a_run_may_record_beside_its_figures_is_read(tmp_path):
    """Examples, faults of the data, a server, the published procedure, figures by group."""
    by = {"answer_type": {"yes/no": {"samples": 90, "vqa_accuracy": 0.7}}}
    recorded = {
        "few_shot": 4,
        "faults": ["images: 180 expected, 179 found"],
        "scored_by": "EvalAI",
        "as_published": {"processes": 8, "batch_size": 16},
        "by": by,
    }
    task = load_run(write(tmp_path / "run", **recorded)).tasks["okvqa_val"]
    assert (task.few_shot, describe_protocol(task)) == (4, "published, 4-shot")
    assert task.faults == ("images: 180 expected, 179 found",)
    assert (task.scored_by, task.as_published, task.by) == ("EvalAI", Published(8, 16), by)
    plain = load_run(write(tmp_path / "plain")).tasks["okvqa_val"]
    assert (plain.few_shot, describe_protocol(plain), plain.faults) == (0, "published", ())
    assert (plain.scored_by, plain.as_published, plain.by) == ("", None, {})


def test_faulty_data_may_hold_more_samples_than_the_official_split(tmp_path):
    """What --allow-partial let through can still be shown, with its mark."""
    more = {"samples": 5047, "faults": ["samples: 5,046 expected, 5,047 found"]}
    task = load_run(write(tmp_path / "run", **more)).tasks["okvqa_val"]
    assert (task.samples, task.complete) == (5047, False)


def test_kept_summaries_need_no_manifest(tmp_path):
    """Folders of results/ may hold summaries alone; the folder's name is then the run's."""
    run = load_run(write(tmp_path / "qwen-vl.fp16", manifest=None))
    assert (run.name, run.chat_format) == ("qwen-vl.fp16", None)


def test_a_task_that_a_server_scores_has_no_metrics(tmp_path):
    """Answered, not scored: no error, and no figure."""
    assert load_run(write(tmp_path / "run", metrics={})).tasks["okvqa_val"].metrics == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "gqa_testdev"}, "task 'okvqa_val' expected, as the folder, 'gqa_testdev' found"),
        ({"task": "\x1b[2J"}, "a task's name expected"),
        ({"metrics": ...}, "metrics: field required"),
        ({"metrics": [0.5]}, r"metrics: input should be an object, \[0.5\] found"),
        (
            {"metrics": {"vqa_accuracy": None}},
            "metrics.vqa_accuracy: input should be a valid number, None",
        ),
        (
            {"metrics": {"vqa_accuracy": "0.5"}},
            "metrics.vqa_accuracy: input should be a valid number",
        ),
        (
            {"metrics": {"vqa_accuracy": True}},
            "metrics.vqa_accuracy: input should be a valid number, True",
        ),
        (
            {"metrics": {"vqa_accuracy": -0.1}},
            "metrics.vqa_accuracy: input should be greater than or equal to 0, -0.1",
        ),
        (
            {"metrics": {"vqa_accuracy": float("nan")}},
            "metrics.vqa_accuracy: input should be a finite number",
        ),
        (
            {"metrics": {"vqa_accuracy": float("inf")}},
            "metrics.vqa_accuracy: input should be a finite number",
        ),
        ({"metrics": {"a | b": 0.1}}, "a metric's name expected, 'a | b' found"),
        ({"samples": 0}, "samples: there are none, and none failed"),
        ({"samples": 200.0}, "samples: input should be a valid integer, 200.0 found"),
        ({"samples": 5047}, "at most 5,046 samples expected, its 'size', 5,047 found"),
        ({"images": -1}, "images: input should be greater than or equal to 0, -1 found"),
        ({"size": "5046"}, "size: input should be a valid integer, '5046' found"),
        ({"size": ...}, "size: field required"),
        ({"complete": True}, "'complete': false expected, as 200 samples of 5,046 were scored"),
        ({"size": None, "complete": True}, "false expected, as 200 samples of an unknown number"),
        ({"samples": 5046}, "'complete': true expected, as 5,046 samples of 5,046 were scored"),
        ({"complete": "no"}, "complete: input should be a valid boolean, 'no' found"),
        ({"protocol": "published\n| 99.9 |"}, "a protocol's name expected"),
        ({"few_shot": -4}, "few_shot: input should be greater than or equal to 0, -4 found"),
        ({"faults": "images"}, "faults: input should be a valid array, 'images' found"),
        ({"faults": [3]}, "faults.0: input should be a valid string, 3 found"),
        ({"scored_by": True}, "scored_by: input should be a valid string, True found"),
        (
            {"as_published": {"processes": 8}},
            "as_published.batch_size: field required",
        ),
        ({"by": {"type": [1]}}, r"by.type: input should be an object, \[1\] found"),
        ({"by": {"type": {"x": {}}}}, "'samples': a positive integer expected, None found"),
        ({"by": {"type": {"x": {"samples": 201}}}}, "type 'x': at most 200 samples expected, 201"),
        (
            {"by": {"type": {"x": {"samples": 2, "vqa_accuracy": "high"}}}},
            "by.type.x.vqa_accuracy: input should be a valid integer or input should be a valid n",
        ),
        ({"unreadable": True}, "unreadable: input should be a valid integer, True found"),
    ],
)
def test_a_malformed_summary_is_an_error_that_names_it(tmp_path, changes, message):
    """No figure is guessed, and none that contradicts itself is shown."""
    run = write(tmp_path / "run", **changes)
    with pytest.raises(RunError, match=rf"okvqa_val/summary.json: .*{message}"):
        load_run(run)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"task": 1e999}'])
def test_a_summary_that_is_no_json_object_is_an_error(tmp_path, content):
    """A file cut off by a full disk does not become a table."""
    run = write(tmp_path / "run")
    (run / "okvqa_val" / "summary.json").write_bytes(content)
    with pytest.raises(RunError, match=r"okvqa_val/summary\.json: "):
        load_run(run)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ([], "input should be an object"),
        ({"name": 3, "model": {}}, "name: input should be a valid string, 3 found"),
        ({"name": "run"}, "model: field required"),
        (
            {"name": "run", "model": {"chat_format": 1}},
            "model.chat_format: input should be a valid string, 1 found",
        ),
    ],
)
def test_a_malformed_manifest_is_an_error_that_names_it(tmp_path, manifest, message):
    """A Chat checkpoint whose manifest is damaged is not taken for the base one."""
    with pytest.raises(RunError, match=rf"manifest.json: {message}"):
        load_run(write(tmp_path / "run", manifest=manifest))


def test_what_is_no_run_is_an_error(tmp_path):
    """The message says what a run is, or that its tasks are not scored."""
    with pytest.raises(RunError, match=r"absent: the folder of a run expected, none found"):
        load_run(tmp_path / "absent")
    with pytest.raises(RunError, match=r"not a run: manifest\.json and <task>/"):
        load_run(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")
    with pytest.raises(RunError, match="no task is scored yet"):
        load_run(tmp_path)


def test_reports_need_no_torch():
    """Tables are made on laptops where torch is slow to import or not installed."""
    code = "import sys; import eval.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_interval_has_bearable_ends(tmp_path):
    """Ends whose squares are no number would stop every table."""
    for end in (1e308, -1e308, 2e6):
        ends = {"vqa_accuracy": {"low": min(end, 0.0), "high": max(end, 1.0)}}
        types = {"vqa_accuracy": {"range": [0.0, 1.0], "mean": True}}
        folder = write(tmp_path / str(end), intervals=ends, metric_types=types)
        with pytest.raises(RunError, match=r"outside the metric's range, 0 to 1"):
            load_run(folder)
