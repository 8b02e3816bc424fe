"""What a run takes a file for: its bytes, remembered only as long as nothing tells of a change."""

import hashlib
import json
import os
import shutil
import time

import pytest
from launched import PICTURE, answers, asking, make_groups, results
from PIL import Image
from small import command, make_checkpoint, make_model

from eval.runtime.checkpoint import REMEMBERED, find_checkpoint, save_checkpoint
from eval.storage.digests import SETTLED_NS, Digests


def state(file):
    told = file.stat()
    return [told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino]


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def settle(*files):
    """Wait until a change would show in the times of these files."""
    last = max(max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) for file in files)
    while time.time_ns() - last <= SETTLED_NS:
        time.sleep(0.05)


def overwrite(file, content):
    """Put other bytes of the same length in a file's place, with its old time."""
    times = file.stat()
    assert times.st_size == len(content)
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.jpg"
    file.write_bytes(b"a picture")
    return file


def test_a_digest_is_remembered_once_the_file_is_settled(tmp_path, picture):
    """One that was changed just now may change again within the same tick of the clock."""
    memory = tmp_path / "memory"
    young = Digests(memory)
    assert digest(picture) == young.of("p", picture)
    young.keep()
    assert not memory.exists()
    settle(picture)
    digests = Digests(memory)
    assert digest(picture) == digests.of("p", picture)
    digests.keep()
    digests.keep()
    assert [["p", state(picture), digest(picture)]] == [
        json.loads(row) for row in memory.read_text().splitlines()
    ]


def test_what_is_remembered_is_believed_unless_it_is_to_be_verified(tmp_path, picture):
    """A forged memory is found out by reading again, and that is remembered from then on."""
    memory, forged = tmp_path / "memory", "f" * 64
    memory.write_text(json.dumps(["p", state(picture), forged]) + "\n")
    assert forged == Digests(memory).of("p", picture)
    assert digest(picture) == Digests(memory).of("q", picture)
    settle(picture)
    verifying = Digests(memory, verify=True)
    assert digest(picture) == verifying.of("p", picture)
    verifying.keep()
    assert digest(picture) == Digests(memory).of("p", picture)


@pytest.mark.parametrize("how", ["size", "time", "place", "overwritten", "copied over"])
def test_any_change_of_a_file_is_noticed(tmp_path, picture, how):
    """Also one that keeps its size and puts its time back: the change time cannot be set."""
    memory = tmp_path / "memory"
    memory.write_text(json.dumps(["p", state(picture), "f" * 64]) + "\n")
    assert "f" * 64 == Digests(memory).of("p", picture)
    time.sleep(0.02)  # a tick of the file system's clock
    if how == "size":
        picture.write_bytes(b"a pictures")
    elif how == "time":
        os.utime(picture, ns=(1, 1))
    elif how == "place":
        shutil.copy2(picture, tmp_path / "copy")
        (tmp_path / "copy").replace(picture)
    elif how == "overwritten":
        overwrite(picture, b"another..")
    else:
        (tmp_path / "other").write_bytes(b"another..")
        shutil.copystat(picture, tmp_path / "other")
        shutil.copy2(tmp_path / "other", picture)
    assert digest(picture) == Digests(memory).of("p", picture)


TORN = (b"\xff\xfe", b"{}", b"7", b"[]", b'["p"]', b'["p", 7, "x"]', b'["p", [1, 2', b"[1, 2, 3]")


def test_a_memory_that_a_crash_has_torn(tmp_path, picture):
    """What is no line of it is left out, and the next begins on a line of its own."""
    settle(picture)
    for content in TORN:
        memory = tmp_path / "memory"
        good = json.dumps(["p", state(picture), "f" * 64]).encode()
        memory.write_bytes(good + b"\n" + content)
        digests = Digests(memory)
        assert "f" * 64 == digests.of("p", picture)
        digests.of("q", picture)
        digests.keep()
        assert digest(picture) == Digests(memory).known["q"][1]
        assert content == memory.read_bytes().splitlines()[1]


def test_a_memory_that_cannot_be_written(tmp_path, picture):
    """Costs time, and nothing else; a file that cannot be read is for the caller to tell."""
    settle(picture)
    for memory in (None, tmp_path, picture / "memory"):
        digests = Digests(memory)
        assert digest(picture) == digests.of("p", picture)
        digests.keep()
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError, match=r"No such file|not a regular file"):
            Digests(None).of("x", missing)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, checkpoint):
    """A finished run and its data, of which all times are settled; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    make_groups(folder / "data", 4, 3)
    settle(*folder.rglob("*.jpg"), *checkpoint.iterdir())
    done = command(*asking(checkpoint, folder / "data", folder / "run"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """The run and the data for one test: a copy of the run, and the data themselves."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run", finished / "data"


def test_digests_of_checkpoint_and_images_are_remembered(finished, checkpoint):
    """Beside the checkpoint, and in the run's working folder."""
    names = [json.loads(row)[0] for row in (checkpoint / REMEMBERED).read_text().splitlines()]
    assert sorted(find_checkpoint(checkpoint).digests()) == sorted(names)
    memory = (finished / "run" / ".work" / "images.jsonl").read_text().splitlines()
    assert {PICTURE.format(n) for n in range(4)} == {json.loads(row)[0] for row in memory}


def test_a_checkpoint_that_is_overwritten_is_another_one(checkpoint, run, tmp_path):
    """Its path, sizes and times are as before, and a finished run refuses it all the same."""
    out, data = run
    changed = tmp_path / "small"
    shutil.copytree(checkpoint, changed)
    settle(*changed.iterdir())
    assert 0 == command(*asking(changed, data, out)).returncode  # remembers the copy's digests
    assert (changed / REMEMBERED).is_file()
    before = results(out)
    other = tmp_path / "other"
    other.mkdir()
    save_checkpoint(make_model(1), other, 2)
    for file in changed.glob("*.safetensors"):
        overwrite(file, (other / file.name).read_bytes())
    done = command(*asking(changed, data, out))
    assert (2, True) == (done.returncode, "model digest" in done.stderr), done.stderr
    assert before == results(out)


def test_a_checkpoint_that_is_moved_is_the_same(checkpoint, run, tmp_path):
    """Nothing is asked and no model loaded; the run's files stay as they are."""
    out, data = run
    before = results(out)
    moved = tmp_path / "elsewhere"
    shutil.copytree(checkpoint, moved)
    (moved / REMEMBERED).unlink(missing_ok=True)
    done = command(*asking(moved, data, out))
    assert (0, False) == (done.returncode, "loading" in done.stderr), done.stderr
    assert before == results(out)


def test_data_that_are_moved_are_the_same(checkpoint, run, tmp_path):
    """Also under a new name, and all of it copied."""
    out, data = run
    before = results(out)
    shutil.copytree(data, tmp_path / "moved")
    done = command(*asking(checkpoint, tmp_path / "moved", out))
    assert (0, False) == (done.returncode, "loading" in done.stderr), done.stderr
    assert before == results(out)


def test_an_image_that_is_replaced_is_asked_about_again(checkpoint, run, tmp_path):
    """Its own samples alone, though the run was finished and the file's size and time are as
    before; with the old picture back the run ends in its old bytes, and asks nothing."""
    out, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(run[1], data)
    file, new = data / PICTURE.format(2), tmp_path / "new.jpg"
    Image.new("RGB", (60, 40), (250, 0, 250)).save(new)
    for each in (file, new):
        each.write_bytes(each.read_bytes().ljust(4000, b"\0"))  # behind its end, which no one reads
    settle(*data.rglob("*.jpg"))
    assert 0 == command(*asking(checkpoint, data, out)).returncode
    before, old = results(out), file.read_bytes()
    overwrite(file, new.read_bytes())
    done = command(*asking(checkpoint, data, out))
    assert (0, True) == (done.returncode, "\n3 answers, 1 images" in done.stderr), done.stderr
    changed = [
        json.loads(row)["id"]
        for row, was in zip(
            results(out)["predictions.jsonl"].splitlines(),
            before["predictions.jsonl"].splitlines(),
            strict=True,
        )
        if row != was
    ]
    assert ["25", "65", "105"] == changed
    overwrite(file, old)
    done = command(*asking(checkpoint, data, out))
    assert (0, False) == (done.returncode, " answers" in done.stderr), done.stderr
    assert before == results(out)


def test_verify_reads_what_is_remembered_again(checkpoint, run, tmp_path):
    """A memory that is wrong is believed without, and found out with --verify."""
    out, data = run
    assert 0 == command(*asking(checkpoint, data, out)).returncode
    memory = out / ".work" / "images.jsonl"
    rows = [json.loads(row) for row in memory.read_text().splitlines()]
    for row in rows:
        if row[0] == PICTURE.format(1):
            row[2] = "f" * 64
    memory.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = results(out)
    done = command(*asking(checkpoint, data, out))
    assert (0, True) == (done.returncode, "\n3 answers" in done.stderr), done.stderr
    done = command(*asking(checkpoint, data, out, "--verify"))
    assert done.returncode == 0, done.stderr
    assert (12 + 3, before) == (answers(out, "0"), results(out))
