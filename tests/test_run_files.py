"""A run's folder: damaged files are named, and what does not agree with itself is refused."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small import command, make_checkpoint, make_data

from eval.errors import RunError
from eval.run.folder import RunFolder

TASK = "okvqa_val"
READERS = ("report", "compare", "gate", "leaderboard", "plot", "browse", "run")  # of scores


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of a tiny checkpoint on seven questions, as `whole`, and a copy, `other`."""
    root = tmp_path_factory.mktemp("made")
    make_checkpoint(root / "checkpoint")
    make_data(root / "data")
    done = ask(root, root / "whole")
    assert done.returncode == 0, done.stderr
    shutil.copytree(root / "whole", root / "other")
    return root


def ask(root, out, *more, checkpoint="checkpoint"):
    arguments = ("--model", root / checkpoint, "--data", root / "data", "--out", out)
    return command("run", TASK, "--allow-partial", "--device", "cpu", *arguments, *more)


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run to be damaged."""
    return shutil.copytree(made / "whole", tmp_path / "run")


def use(reader, made, run):
    """One of the commands that read a run's folder."""
    out = run.parent / reader
    arguments = {
        "report": ("report", run),
        "compare": ("compare", made / "other", run),
        "gate": ("compare", made / "other", run, "--gate"),
        "leaderboard": ("leaderboard", run, "--out", out),
        "plot": ("plot", run, "--out", out),
        "browse": ("browse", run, "--data", made / "data", "--out", out),
        "score": ("score", run, "--data", made / "data"),
    }
    if reader == "run":
        return ask(made, run)
    return command(*arguments[reader])


def refused(reader, made, run, *said):
    """The command ends as for wrong input, and names what is wrong."""
    done = use(reader, made, run)
    shown = done.stdout + done.stderr
    assert (12 if reader == "gate" else 2) == done.returncode, (reader, shown)
    assert "internal error" not in shown
    assert "Traceback" not in shown
    for text in said:
        assert text in shown, (reader, shown)


def change(file, **fields):
    content = json.loads(file.read_bytes())
    file.write_text(json.dumps({**content, **fields}))


def first_line(file, **fields):
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(json.dumps({**json.loads(first), **fields}) + "\n" + "".join(rest))


# Damaged and hostile files

MANIFESTS = (
    ({"data": 5}, "data: input should be a valid string"),
    ({"model": 5}, "model: input should be an object"),
    ({"model": {"digest": 5}}, "model.digest: input"),
    ({"tasks": {TASK: None}}, f"tasks.{TASK}: input should be an object"),
    ({"tasks": {TASK: {}}}, f"tasks.{TASK}.prompt: field required"),
    ({"tasks": {"../../x": {}}}, ""),
    ({"tasks": 5}, "tasks: input"),
    ({"settings": []}, "settings: input"),
)
ENTRIES = (
    *((name, value) for name in ("sources", "faults", "left_out", "decode") for value in (None, 5)),
    ("limit", 1 << 70),
    ("few_shot", "4"),
    ("sources", {"x": 5}),
)


@pytest.mark.case("hostile/27")
@pytest.mark.parametrize(("fields", "said"), MANIFESTS, ids=str)
@pytest.mark.parametrize("reader", ["report", "gate", "browse", "run", "score"])
def test_a_manifest_with_a_wrong_type_is_named(made, run, reader, fields, said):
    """File and field, by each command that reads it."""
    change(run / "manifest.json", **fields)
    refused(reader, made, run, "manifest.json", said)


@pytest.mark.case("hostile/27")
@pytest.mark.parametrize(("name", "value"), ENTRIES, ids=str)
def test_an_entry_of_a_task_with_a_wrong_type_is_named(made, run, name, value):
    """It decides which samples are read, and how."""
    file = run / "manifest.json"
    tasks = json.loads(file.read_bytes())["tasks"]
    change(file, tasks={TASK: {**tasks[TASK], name: value}})
    for reader in ("score", "browse", "plot"):
        refused(reader, made, run, "manifest.json", f"tasks.{TASK}.{name}")


@pytest.mark.case("hostile/09")
@pytest.mark.parametrize(
    "fields",
    [{"id": [1]}, {"text": 5}, {"text": None}, {"text": ["a"]}, {"tokens": "a"}, {"seed": 1 << 70}],
    ids=str,
)
def test_a_prediction_with_a_wrong_type_is_named(made, run, fields):
    """File, line and field, by what reads predictions; the file, by what digests them."""
    first_line(run / TASK / "predictions.jsonl", **fields)
    refused("report", made, run, "predictions.jsonl: this is not what summary.json was made from")
    for reader in ("browse", "run", "score"):
        refused(reader, made, run, "predictions.jsonl")
    with pytest.raises(RunError, match=rf"predictions\.jsonl, line 1: {next(iter(fields))}"):
        list(RunFolder.open(run).answers(TASK).predictions())


@pytest.mark.case("hostile/27")
@pytest.mark.parametrize("content", ["[]", "null", "{", "7", '{"task": 1e999}', "[" * 100_000])
def test_a_summary_that_is_none_is_named(made, run, content):
    """Also by a run that would only print it; `score` writes it anew."""
    (run / TASK / "summary.json").write_text(content)
    for reader in ("report", "gate", "browse", "run"):
        refused(reader, made, run, "summary.json")
    assert use("score", made, run).returncode == 0
    assert use("report", made, run).returncode == 0


@pytest.mark.parametrize("name", ["manifest.json", f"{TASK}/summary.json", f"{TASK}/scores.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_regular_file_is_named(made, run, name, kind):
    """A pipe blocks for ever and a device has no end."""
    file = run / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero")
    for reader in ("report", "gate", "run"):
        refused(reader, made, run, Path(name).name)


@pytest.mark.parametrize("name", ["predictions.jsonl", "journal-0.jsonl", "losses.jsonl"])
def test_a_pipe_among_the_answers_is_named(made, run, name):
    """By what reads them, and by what would write on."""
    file = run / TASK / name
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    refused("run", made, run, name)
    refused("score" if "journal" not in name else "run", made, run, name)


@pytest.mark.case("hostile/27")
@pytest.mark.parametrize("reader", ["run", "score"])
def test_a_file_in_place_of_a_task_s_folder_is_named(made, run, reader):
    shutil.rmtree(run / TASK)
    (run / TASK).write_text("")
    refused(reader, made, run, TASK)


@pytest.mark.parametrize(
    "fields",
    [
        {"server": 5},
        {"metrics": [1]},
        {"metrics": {"x y": 1.0}},
        {"metrics": {"vqa_accuracy": "0.5"}},
        {"samples": {"5": 1}},
        {"by": {"a": {"b": {"vqa_accuracy": 0.5}}}},
        {"judge": {"model": 5}},
        {"judge": {"model": "m", "prompt": []}},
        {"doubts": "x"},
        {"predictions": 5},
    ],
    ids=str,
)
def test_a_server_s_scores_with_a_wrong_type_are_named(run, fields):
    from eval.run.files import read_server

    file = run / TASK / "server.json"
    told = {"server": "RRC", "metrics": {"vqa_accuracy": 0.5}}
    file.write_text(json.dumps(told))
    assert told == read_server(file)
    file.write_text(json.dumps(told | fields))
    with pytest.raises(RunError, match=r"server\.json: "):
        RunFolder.open(run).scores(TASK).server()


JUDGED = {"key": "a", "reported": "j", "fingerprint": "", "reply": "7 8", "scores": [7.0, 8.0]}


def test_judgements_are_digested_but_for_their_place_in_the_ledger(run):
    """A key follows from the judge's address too, and two runs may have had two ports."""
    from eval.run.files import source_digests

    folder = RunFolder.open(run)

    def digest(**fields):
        rounds = [{**JUDGED, "fault": "", **fields}]
        folder.scores(TASK).write_judgements([{"id": "5", "rounds": rounds}])
        return source_digests(run / TASK)["judgements.jsonl"]

    assert digest() == digest(key="b") != digest(reply="7 9")
    for wrong in ({"reply": 5}, {"scores": "7 8"}, {"fault": None}):
        with pytest.raises(RunError, match=r"judgements\.jsonl, line 1: rounds\.0\."):
            digest(**wrong)


@pytest.mark.case("hostile/14")
def test_a_run_that_one_may_not_write_is_named(made):
    """Scoring it is refused; a report of it is not."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        run = shutil.copytree(made / "whole", folder / "run")
        shutil.copytree(made / "data", folder / "data")
        for path in (run, *run.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        code = (
            "import os, sys\nfrom eval.cli.main import Commands, main\ndict(Commands())\n"
            "from eval.storage.reading import Schema\n"
            "Schema(int).parse(b'1', '', ValueError)\n"
            "if not os.getuid(): os.setgid(65534); os.setuid(65534)\nmain()"
        )
        for arguments, expected in (
            (["score", run, "--data", folder / "data"], 2),
            (["report", run], 0),
        ):
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, arguments)],
                capture_output=True,
                text=True,
                cwd=folder,
                timeout=60,
            )
            assert expected == done.returncode, done.stderr
            assert (": cannot be written" in done.stderr) == bool(expected)
    finally:
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


# A folder agrees with itself


def edit_scores(folder):
    file = folder / "scores.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    names = [name for name in rows[0] if name not in ("id", "image")]
    changed = [row | {name: 1.0 - row[name] for name in names} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in changed))


def edit_predictions(folder):
    first_line(folder / "predictions.jsonl", text=" red")


def edit_summary(folder):
    metrics = json.loads((folder / "summary.json").read_bytes())["metrics"]
    change(folder / "summary.json", metrics=dict.fromkeys(metrics, 0.625), intervals={})


def add_server(folder):
    told = {"server": "RRC", "metrics": {"vqa_accuracy": 0.5}}
    (folder / "server.json").write_text(json.dumps(told))


def add_losses(folder):
    (folder / "losses.jsonl").write_text('{"id":"5","losses":[1.0]}\n')


EDITS = {
    "scores.jsonl": edit_scores,
    "predictions.jsonl": edit_predictions,
    "summary.json": edit_summary,
    "server.json": add_server,
    "losses.jsonl": add_losses,
}


@pytest.mark.case("hostile/19")
@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (reader, name)
        for reader in READERS
        for name in EDITS
        if reader != "plot" or "scores" in name
    ],
)
def test_a_summary_that_does_not_follow_from_its_files_is_refused(made, run, reader, name):
    """The file is named, and what makes the folder agree again."""
    EDITS[name](run / TASK)
    refused(reader, made, run, name, "Score it again: qwen-vl-eval score")


@pytest.mark.parametrize("name", ["scores.jsonl", "predictions.jsonl", "summary.json"])
def test_scoring_makes_a_folder_agree_again(made, run, name):
    EDITS[name](run / TASK)
    assert use("score", made, run).returncode == 0
    for reader in ("report", "gate", "browse", "run"):
        done = use(reader, made, run)
        assert done.returncode == 0 or reader == "gate", (reader, done.stderr)


def strip_digests(run):
    file = run / TASK / "summary.json"
    summary = json.loads(file.read_bytes())
    assert {"predictions.jsonl", "scores.jsonl"} == summary.pop("digests").keys()
    file.write_text(json.dumps(summary))


def test_a_folder_without_digests_is_unverified(made, run):
    """As earlier versions left it: shown with that word, and let through a gate with a warning."""
    assert "unverified" not in use("report", made, run).stdout
    strip_digests(run)
    assert "unverified" in use("report", made, run).stdout
    for reader, said in (("leaderboard", "unverified"), ("browse", "summary.json has no digests")):
        assert use(reader, made, run).returncode == 0
        pages = (*(run.parent / reader).rglob("*.html"), *(run.parent / reader).rglob("tasks.js"))
        assert any(said in page.read_text() for page in pages)
    done = use("gate", made, run)
    assert 0 == done.returncode
    assert f"warning: {run}: {TASK}: unverified, since summary.json has no dig" in done.stdout
    assert use("score", made, run).returncode == 0
    assert "unverified" not in use("report", made, run).stdout
    assert "warning" not in use("gate", made, run).stdout


@pytest.mark.case("hostile/19")
@pytest.mark.parametrize("edit", [edit_scores, edit_summary])
def test_a_mean_must_be_that_of_its_samples_without_digests_too(made, run, edit):
    strip_digests(run)
    edit(run / TASK)
    for reader in ("report", "gate", "compare", "leaderboard", "browse"):
        refused(reader, made, run, "summary.json")


def test_summaries_alone_are_unverified_and_no_base_of_a_gate(made, run, tmp_path):
    """As results/ keeps them."""
    kept = tmp_path / "kept"
    (kept / TASK).mkdir(parents=True)
    shutil.copy(run / TASK / "summary.json", kept / TASK)
    done = command("report", kept)
    assert (0, True) == (done.returncode, "unverified" in done.stdout)
    for runs in ((kept, run), (run, kept)):
        done = command("compare", *runs, "--gate")
        assert (12, True) == (done.returncode, str(kept) in done.stdout)
    shutil.copy(run / "manifest.json", kept)
    assert 12 == command("compare", kept, run, "--gate").returncode


# Journals and engines


def unfinished(run):
    """The same run, stopped before its answers were put together."""
    for name in ("predictions.jsonl", "scores.jsonl", "summary.json"):
        (run / TASK / name).unlink()
    return run / TASK / "journal-0.jsonl"


def test_a_journal_names_its_model_in_its_first_line(made, run):
    """Once, and the finished file does not: its bytes are the same for any number of workers."""
    journal = run / TASK / "journal-0.jsonl"
    first, *answers = map(json.loads, journal.read_text().splitlines())
    model = json.loads((run / "manifest.json").read_bytes())["model"]
    named = ("digest", "engine", "device", "dtype", "batch_size", "generation")
    assert {"journal": 1, "model": {name: model[name] for name in named}} == first
    assert 7 == len(answers) == sum("id" in answer for answer in answers)
    assert "journal" not in (run / TASK / "predictions.jsonl").read_text()


@pytest.mark.parametrize("finished", [True, False])
def test_a_journal_of_another_checkpoint_is_refused(made, run, tmp_path, finished):
    """It is named, and what differs; without it the run goes on."""
    other = tmp_path / "checkpoint"
    shutil.copytree(made / "checkpoint", other)
    make_checkpoint(other, seed=1)
    done = ask(made, tmp_path / "theirs", checkpoint=other)
    assert done.returncode == 0, done.stderr
    if not finished:
        unfinished(run)
    foreign = run / TASK / "journal-1.jsonl"
    shutil.copy(tmp_path / "theirs" / TASK / "journal-0.jsonl", foreign)
    refused("run", made, run, "journal-1.jsonl, line 1", "another model: digest")
    own = (made / "whole" / TASK / "journal-0.jsonl").read_bytes()
    foreign.write_bytes(own + foreign.read_bytes())  # further down it is no better
    refused("run", made, run, "journal-1.jsonl, line 9", "another model: digest")
    foreign.unlink()
    assert ask(made, run).returncode == 0
    whole = (made / "whole" / TASK / "predictions.jsonl").read_bytes()
    assert whole == (run / TASK / "predictions.jsonl").read_bytes()


def test_a_journal_that_names_no_model_counts_only_in_a_folder_of_its_time(made, run):
    """Earlier versions wrote such journals, and manifests without a format."""
    journal = unfinished(run)
    _, *answers = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(answers[:4]))
    refused("run", made, run, "journal-0.jsonl, line 1: does not name the model")
    manifest = json.loads((run / "manifest.json").read_bytes())
    assert 2 == manifest.pop("format")
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = ask(made, run)
    assert (0, True) == (done.returncode, "\n3 answers" in done.stderr), done.stderr
    whole = (made / "whole" / TASK / "predictions.jsonl").read_bytes()
    assert whole == (run / TASK / "predictions.jsonl").read_bytes()


def test_a_journal_whose_first_line_is_torn_begins_anew(made, run):
    journal = unfinished(run)
    journal.write_bytes(journal.read_bytes()[:40])
    assert ask(made, run).returncode == 0
    whole = (made / "whole" / TASK / "journal-0.jsonl").read_bytes().splitlines()
    assert whole[0] == journal.read_bytes().splitlines()[0]


@pytest.mark.case("hostile/11")
@pytest.mark.parametrize("finished", [True, False])
def test_another_back_end_is_refused_before_a_model_is_loaded(made, run, finished):
    """Finished or not: the answers of one engine are not the other's."""
    if not finished:
        unfinished(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = ask(made, run, "--backend", "plain")
    assert (2, True) == (done.returncode, "model engine (shared, not plain)" in done.stderr)
    assert "loading" not in done.stderr
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.case("hostile/11")
def test_another_kind_of_device_is_refused(made, run):
    """The number of a GPU does not matter, only that it was one."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(file, model={**manifest["model"], "device": "cuda:1"})
    done = ask(made, run)
    assert (2, True) == (done.returncode, "model device (cuda, not cpu)" in done.stderr)
    assert "loading" not in done.stderr


def test_an_earlier_manifest_tells_its_back_end_by_the_engine(made, run):
    """Settings did not say which back end there was."""
    file = run / "manifest.json"
    settings = json.loads(file.read_bytes())["settings"]
    assert "shared" == settings.pop("backend")
    change(file, settings=settings)
    assert 2 == ask(made, run, "--backend", "plain").returncode
    done = ask(made, run)
    assert (0, False) == (done.returncode, "loading" in done.stderr), done.stderr
