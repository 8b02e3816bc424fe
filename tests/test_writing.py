"""Where files are written: whole, where a link leads, in place where there is none to replace."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from launched import SCRIPT
from small import command, import_commands, make_checkpoint, make_data
from test_gate import make_run, rows_of

from eval.errors import RunError
from eval.report.browser.pictures import PagePictures
from eval.run.folder import RunFolder, held_run
from eval.storage.writing import remove_leftovers, write_file, writing

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "results" / "demo"  # a run without scores, whose tables can be printed
import_commands()  # slow: not within a test


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs that `compare` takes."""
    folder = tmp_path_factory.mktemp("pair")
    return [
        make_run(folder / name, {"okvqa_val": rows_of([1.0, 0.0, value] * 10)})
        for name, value in (("base", 1.0), ("candidate", 0.0))
    ]


@contextlib.contextmanager
def reading(pipe):
    """What comes out of a pipe, in a list, once it is closed."""
    content = []
    reader = threading.Thread(target=lambda: content.append(pipe.read_bytes()), daemon=True)
    reader.start()
    yield content
    reader.join(60)


@pytest.mark.case("hostile/17")
def test_a_device_stays_a_device(tmp_path, monkeypatch):
    """It takes what is written, and is not replaced by a file."""
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        null = Path(os.devnull)  # who may not make one cannot replace it either
    done = command("report", DEMO, "--output", null)
    assert done.returncode == 0, done.stderr
    assert stat.S_ISCHR(null.stat().st_mode)


@pytest.mark.case("hostile/17")
def test_every_option_writes_to_a_pipe(pair, tmp_path):
    """Who reads it gets the whole file, and it stays a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = [("report", DEMO, "--format", "md", "--output")]
    lines += [("compare", *pair, option) for option in ("--json", "--markdown", "--junit")]
    for line in lines:
        with reading(pipe) as content:
            done = command(*line, pipe)
        assert done.returncode == 0, done.stderr
        assert len(content[0]) > 100
        assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_pipe_that_nobody_reads(tmp_path, monkeypatch):
    """It is refused after a while, rather than waited for."""
    monkeypatch.setattr("eval.storage.writing.READER_S", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="pipe: cannot be written: no process reads this pipe"):
        write_file(tmp_path / "pipe", b"x")


@pytest.mark.case("hostile/17")
@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1"])
def test_standard_output_by_its_name(tmp_path, name):
    """Also where it is a file that already holds something: it is appended to, not replaced."""
    if not Path("/dev/stdout").is_symlink():
        pytest.skip("this machine has no /dev/stdout")
    file = tmp_path / "log"
    code = (
        "import sys; from pathlib import Path; from eval.storage.writing import write_file; "
        f"print('before'); write_file(Path({name!r}), b'written\\n'); print('after')"
    )
    with file.open("ab") as log:
        log.write(b"earlier\n")
        log.flush()
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert file.read_text() == "earlier\nbefore\nwritten\nafter\n"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert piped.stdout == b"before\nwritten\nafter\n"


@pytest.mark.case("hostile/17")
def test_a_link_is_followed(tmp_path):
    """Its target is written whole, and the link stays; also one that leads to no file yet."""
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "report.md", tmp_path / "link"
    link.symlink_to("there/report.md")
    for content in (b"first", b"second"):
        write_file(link, content)
        assert (True, content) == (link.is_symlink(), target.read_bytes())
    assert [target] == list(target.parent.iterdir())


@pytest.mark.parametrize("kind", ["folder", "loop", "below"])
def test_what_cannot_be_written_is_named(tmp_path, kind):
    """A folder, a loop of links, a place in a folder that is not there."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    place = tmp_path / kind / "x" if kind == "below" else tmp_path / kind
    with pytest.raises(RunError, match=f"{kind}.*: cannot be written: "):
        write_file(place, b"x")


def test_a_name_as_long_as_names_can_be(tmp_path):
    """The temporary file beside it has a shorter one."""
    place = tmp_path / ("x" * 250 + ".json")
    write_file(place, b"x")
    assert [place] == list(tmp_path.iterdir())


def killed_while_writing(place):
    """A process that is killed in the middle of a file."""
    code = (
        "import os, signal; from pathlib import Path; from eval.storage.writing import writing\n"
        f"with writing(Path({str(place)!r})) as file:\n"
        "    file.write(b'a part'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert -signal.SIGKILL == done.returncode


@pytest.mark.case("hostile/10")
def test_what_a_killed_process_left_is_removed(tmp_path):
    """By the next that holds the run's folder; of one that lives, and of others, all stays."""
    run, task = tmp_path / "run", tmp_path / "run" / "okvqa_val"
    RunFolder.start(run, {"model": {}, "tasks": {}})
    task.mkdir()
    killed_while_writing(task / "scores.jsonl")
    assert 1 == len(list(task.iterdir()))
    (task / ".notes.4194399").write_text("a user's own")
    with writing(task / "summary.json") as file, held_run(run):
        file.write(b"whole")
        assert [".notes.4194399", f".summary.json.{os.getpid()}"] == names(task)
    assert [".notes.4194399", "summary.json"] == names(task)


def test_a_file_that_is_being_written_elsewhere_stays(tmp_path):
    """A process of another machine or container has a number that means nothing here."""
    with writing(tmp_path / "scores.jsonl") as file:
        file.write(b"whole")
        (beside,) = tmp_path.iterdir()
        elsewhere = beside.rename(tmp_path / ".scores.jsonl.4194399")
        remove_leftovers(tmp_path)
        assert elsewhere.exists()
        elsewhere.rename(beside)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.case("hostile/24")
def test_plots_replace_only_plots(pair, tmp_path):
    """A folder with anything else is refused; earlier plots of any format are ours."""
    out = tmp_path / "out"
    assert command("plot", pair[0], "--out", out, "--format", "png").returncode == 0
    assert command("plot", pair[0], "--out", out).returncode == 0
    assert {"intervals.svg", "intervals.png"} <= {*names(out)}
    killed_while_writing(out / "intervals.svg")  # by a name that `plots.json` lists
    assert command("plot", pair[0], "--out", out).returncode == 0
    assert not [name for name in names(out) if name.startswith(".")]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "intervals.svg").write_text("mine")
    for theirs in (mine, pair[1]):
        before = names(theirs)
        done = command("plot", pair[0], "--out", theirs)
        assert done.returncode == 2
        assert "is not of an earlier plot. Give an empty or a new folder" in done.stderr
        assert before == names(theirs)
    assert "mine" == (mine / "intervals.svg").read_text()


@pytest.mark.case("hostile/24")
@pytest.mark.parametrize("name", ["thesis.txt", "certificate.json", "alone.txt", "runs/file"])
def test_a_certificate_takes_no_folder_with_other_files(tmp_path, name):
    """A file of that name that has none of its runs beside it is somebody else's too."""
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    data, model = make_data(tmp_path / "data"), make_checkpoint(tmp_path / "model")
    asked = ("certify", "okvqa", "--model", model, "--data", data, "--out", tmp_path / "out")
    done = command(*asked, "--limit", 1)
    assert done.returncode == 2
    assert f"{name.split('/')[0]!r} in it is not of an earlier certificate" in done.stderr
    assert "mine" == file.read_text()


@pytest.mark.case("hostile/25")
def test_only_pictures_below_the_data_are_copied(tmp_path):
    """Neither what a link leads to elsewhere, nor a device, a pipe, or a way out of the folder."""
    data, copies, missing = tmp_path / "data", tmp_path / "out" / "pictures", []
    (data / "coco").mkdir(parents=True)
    (tmp_path / "secret").write_text("a password")
    (data / "good.jpg").write_bytes(b"a picture")
    (data / "coco" / "inside.jpg").symlink_to("../good.jpg")
    (data / "coco" / "outside.jpg").symlink_to(tmp_path / "secret")
    (data / "folder.jpg").mkdir()
    (data / "linked").symlink_to(tmp_path)
    os.mkfifo(data / "pipe.jpg")
    pictures = PagePictures(data, copies, missing.append)
    good = ["good.jpg", "coco/inside.jpg"]
    bad = ["coco/outside.jpg", "linked/secret", "folder.jpg", "pipe.jpg", "../secret", "/dev/null"]
    bad += ["none.jpg", "coco/../good.jpg", str(tmp_path / "secret")]
    for path in (*good, *bad):
        assert pictures.turned(path) == 1
    assert missing == bad
    copied = {str(f.relative_to(copies)) for f in copies.rglob("*") if not f.is_dir()}
    assert copied == {*good}


def test_pages_of_a_killed_process_are_removed(pair, tmp_path):
    """Folders beside the place, which only processes that are gone have left."""
    for name in (".site.4194399.new", ".site.4194399.old", ".site.1.new", ".site.x"):
        (tmp_path / name).mkdir()
    assert command("leaderboard", pair[0], "--out", tmp_path / "site").returncode == 0
    assert [".site.1.new", ".site.x", "site"] == names(tmp_path)


def test_the_script_writes_to_a_substitution(pair):
    """bash's >(...) is a pipe under /dev/fd."""
    line = f"{SCRIPT} compare {pair[0]} {pair[1]} --json >(cat >&2) >/dev/null"
    done = subprocess.run(["bash", "-c", f"{line}; wait $!"], capture_output=True, check=True)
    assert b'"benchmarks"' in done.stderr
