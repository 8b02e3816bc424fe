"""Workers that are processes of this machine: lost, hung, stopped, refused, on a full disk.

Whatever happens, the same command goes on, and what it writes are the bytes of an undisturbed run.
"""

import os
import re
import shutil
import signal
import subprocess

import pytest
from launched import (
    PICTURE,
    PYTHON,
    TASK,
    Launched,
    answers,
    asked_twice,
    asking,
    asking_fragile,
    failed,
    journals,
    make_groups,
    results,
    run,
    workers,
)
from small import command, make_checkpoint

pytest_plugins = ("launched_fixtures",)
ONE_AT_A_TIME = ("--memory", "1KiB")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small")


@pytest.fixture(scope="module")
def whole_at_length(tmp_path_factory, site, data):
    """The same with long answers."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run(*asking_fragile("wordy", data, out), site=site)[0] == 0
    return results(out)


@pytest.fixture(scope="module")
def whole_of_model(tmp_path_factory, checkpoint, data):
    """The same with the model."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = command(*asking(checkpoint, data, out))
    assert done.returncode == 0, done.stderr
    return results(out)


def test_a_worker_that_is_killed_is_replaced(checkpoint, data, tmp_path, whole_of_model):
    """The run goes on, says so, asks nothing that was answered, and ends in the same bytes."""
    out = tmp_path / "run"
    asked = asking(checkpoint, data, out, *ONE_AT_A_TIME, "--gpus", 2)
    with Launched(*PYTHON, *asked) as launched:
        number, process = launched.until_one_has_answered(out, 5)
        os.kill(process, signal.SIGKILL)
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert f"worker {number} is lost: it ended with signal 9; what it held is asked again" in said
    assert whole_of_model == results(out)
    assert (2, []) == (workers(out), asked_twice(out))
    assert 2 < len(list((out / ".work").glob("worker-*.log")))


def test_stopped_and_continued_by_other_numbers_of_workers(site, data, tmp_path, whole):
    """However it was stopped, no process is left and the folder is free at once.

    The last time each worker is in the middle of a question that takes ten minutes.
    """
    out, two = tmp_path / "run", ("--gpus", 2)
    stops = [
        (1, (), "slow", signal.SIGTERM, 143),
        (2, two, "slow", signal.SIGTERM, 143),
        (2, two, "slow", signal.SIGINT, 130),
        (2, two, "drowsy", signal.SIGKILL, -9),
    ]
    for number, more, model, how, code in stops:
        before = answers(out)
        with Launched(*PYTHON, *asking_fragile(model, data, out, *more), site=site) as launched:
            launched.until_answered(out, before + (2 if model == "drowsy" else 6))
            os.kill(launched.process.pid, how)
            assert code == launched.ended(10)[0]
            launched.left()
            assert ("to go on:" in launched.said) == (how != signal.SIGKILL)
        assert number == workers(out)
        assert not (out / TASK / "predictions.jsonl").exists()
    answered = answers(out)
    assert 20 <= answered < 160
    code, said = run(*asking_fragile("quick", data, out, "--gpus", 3), site=site)
    assert code == 0, said
    assert f"\n{160 - answered} answers" in said
    assert (3, whole, []) == (workers(out), results(out), asked_twice(out))


@pytest.mark.parametrize("gpus", [(), ("--gpus", 2)])
def test_a_full_disk(site, data, tmp_path, whole_at_length, gpus):
    """The run ends, naming the file; each line before is whole, and with room it goes on."""
    out = tmp_path / "run"
    asked = asking_fragile("wordy", data, out, *gpus)
    code, said = run(*asked, site=site, limit=100 << 10)
    assert code == 2, said
    assert re.search(r"error: .*/okvqa_val/journal-\d\.jsonl: cannot be written: File too la", said)
    if not gpus:  # beside others a worker may be killed within its last line, which is then none
        assert all(file.read_bytes().endswith(b"}\n") for file in journals(out))
    answered = answers(out)
    assert 30 < answered < 160
    code, said = run(*asked, site=site)
    assert code == 0, said
    assert f"\n{160 - answered} answers" in said
    assert whole_at_length == results(out)


SMALL_DISK = """
mount -t tmpfs -o size=300k tmpfs "$0" || exit 77
"$@"
echo "exit code $?" >&2
cat "$0"/run/okvqa_val/journal-*.jsonl > "$OUT"/journals
mount -o remount,size=8m "$0" && "$@"
code=$?
cp -r "$0"/run "$OUT"
exit $code
"""


def test_a_small_disk(site, data, tmp_path, whole_at_length):
    """A file system that has no room left, and then has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    asked = asking_fragile("wordy", data, disk / "run", "--gpus", 2)
    command = ("unshare", "--mount", "sh", "-c", SMALL_DISK, disk, *PYTHON, *asked)
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and unshare")
    with Launched(*command, site=site, more={"OUT": str(tmp_path)}) as launched:
        code, said = launched.ended()
        launched.left()
    if code == 77:
        pytest.skip("a file system in memory cannot be mounted here")
    assert code == 0, said
    assert re.search(r"error: .*/journal-\d\.jsonl: cannot be written: No space left on dev", said)
    assert "\nexit code 2\n" in said
    assert (tmp_path / "journals").read_bytes().endswith(b"}\n")
    assert whole_at_length == results(tmp_path / "run")


def test_a_worker_that_hangs_is_replaced(site, data, tmp_path, whole):
    """It is ended after its lease, and what it held is asked again."""
    out = tmp_path / "run"
    asked = asking_fragile("slow", data, out, "--gpus", 2, "--lease", 3)
    with Launched(*PYTHON, *asked, site=site) as launched:
        number, process = launched.until_one_has_answered(out, 5)
        os.kill(process, signal.SIGSTOP)
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert f"worker {number} is lost: it gave no sign of progress for 3 s" in said
    assert whole == results(out)


def test_an_unreadable_image_fails_its_own_samples(checkpoint, data, tmp_path, whole_of_model):
    """Whoever is asked them. The others are scored, and once repaired they are asked again."""
    spoilt, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(data, spoilt)
    (spoilt / PICTURE.format(3)).write_bytes(b"not a picture")
    asked = asking(checkpoint, spoilt, out)
    code, said = run(*asked, "--gpus", 2)
    assert code == 3, said
    assert "failed: okvqa_val/35: " in said
    assert "... and 5 more of okvqa_val" in said
    assert 10 == failed(out)
    shutil.copy(data / PICTURE.format(3), spoilt / PICTURE.format(3))
    assert 3 == command(*asked).returncode
    done = command(*asked, "--retry-failed")
    assert (0, True) == (done.returncode, "\n10 answers" in done.stderr), done.stderr
    assert whole_of_model == results(out)


def test_two_runs_on_one_folder(site, data, tmp_path, whole):
    """The second ends at once, says who is at work, and leaves the first alone."""
    out = tmp_path / "run"
    asked = asking_fragile("slow", data, out)
    with Launched(*PYTHON, *asked, site=site) as first:
        first.until_answered(out, 1)
        code, said = run(*asked, "--gpus", 2, site=site)
        assert first.process.poll() is None
        assert first.ended()[0] == 0
    assert code == 2
    assert f"another run is at work in this folder (process {first.process.pid} on " in said
    assert whole == results(out)


def test_a_question_that_ends_its_worker(site, tmp_path):
    """It has failed when it was asked twice alone; all others are answered, by new workers."""
    data = make_groups(tmp_path / "data", 6, 4, poison=(9, 23))
    out, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    asked = asking_fragile("poisoned", data, out, "--gpus", 2)
    code, said = run(*asked, site=site)
    assert code == 3, said
    for sample in (95, 235):
        assert f"failed: okvqa_val/{sample}: each worker that was asked this was lost" in said
    assert 2 == failed(out)
    assert "it ended with signal 9" in said
    assert run(*asking_fragile("quick", data, undisturbed), site=site)[0] == 0
    code, said = run(*asking_fragile("quick", data, out, "--retry-failed"), site=site)
    assert (0, True) == (code, "\n2 answers" in said), said
    assert results(undisturbed) == results(out)


def test_batches_stay_whole(site, data, tmp_path):
    """A worker is lost and its batch asked again: no answer depends on who was asked together."""
    asked = ("--batch-size", 4)
    out, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    assert run(*asking_fragile("crowded", data, undisturbed, *asked), site=site)[0] == 0
    asked = asking_fragile("slow-crowded", data, out, *asked, "--gpus", 2)
    with Launched(*PYTHON, *asked, site=site) as launched:
        number, process = launched.until_one_has_answered(out, 5)
        os.kill(process, signal.SIGKILL)
        code, said = launched.ended()
        launched.left()
    assert (0, True) == (code, f"worker {number} is lost" in said), said
    assert results(undisturbed) == results(out)


@pytest.mark.parametrize(
    ("how", "lost", "ending"),
    [
        ("sterile", 8, "signal 9"),
        ("gruff", 6, r"exit code 1 after: ValueError: not today \(see .*worker-.\.log\)"),
    ],
)
def test_workers_that_never_answer(site, data, tmp_path, whole, how, lost, ending):
    """A run ends after a few, and says what the last one ended of."""
    out = tmp_path / "run"
    code, said = run(*asking_fragile(how, data, out, "--gpus", 2), site=site)
    assert code == 2, said
    row = f"error: {lost} workers in a row ended without an answer, the last because"
    assert re.search(rf"{row} it ended with {ending}\n", said), said
    assert lost == said.count(" is lost: ")
    assert run(*asking_fragile("quick", data, out), site=site)[0] == 0
    assert whole == results(out)


def test_a_damaged_checkpoint_is_an_error_of_its_own(data, tmp_path):
    """A worker tells what it cannot open, and no other is tried."""
    checkpoint = make_checkpoint(tmp_path / "small")
    shard = sorted(checkpoint.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    code, said = run(*asking(checkpoint, data, tmp_path / "run", "--gpus", 2))
    assert code == 2, said
    assert f"error: {shard}: " in said
    assert "is lost" not in said
