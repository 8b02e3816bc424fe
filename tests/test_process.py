"""What surrounds a command: a launcher's variables, streams, a home, signals, GPUs of no use."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launched import SCRIPT, Launched, asking_fragile, make_groups, offer_fragile
from small import command, import_commands, make_data

from eval.cli.machine import settle_home
from eval.cli.process import generates_answers
from eval.launch import process as worker

LAUNCHES = {
    "torchrun": {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    },
    "slurm": {
        "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_JOB_ID": "77",
        "SLURM_LOCALID": "3",
        "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "n1",
    },
    "incomplete": {"RANK": "1", "WORLD_SIZE": "2"},
    "nonsense": {"RANK": "x", "WORLD_SIZE": "y", "SLURM_PROCID": "z", "SLURM_STEP_NUM_TASKS": "-"},
}
ROOT = Path(__file__).resolve().parents[1]
NOBODY = 12345  # a user whom no passwd names


def setenv(monkeypatch, told):
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return offer_fragile(tmp_path_factory.mktemp("site") / "site")


@pytest.mark.case("environment/01")
@pytest.mark.parametrize("told", LAUNCHES.values(), ids=LAUNCHES)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("compare", "nothing", "nothing-else", "--gate"), 2),
        (("report", "nothing"), 2),
        (("judge", "nothing"), 2),
        (("list",), 0),
        (("run", "--help"), 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_who_generates_no_answers_ignores_a_launch(tmp_path, monkeypatch, told, arguments, code):
    """Every process does the whole of the work, whatever the variables say."""
    monkeypatch.chdir(tmp_path)
    setenv(monkeypatch, told)
    done = command(*arguments)
    assert code == done.returncode, done.stderr
    assert done.stdout if code == 0 else "nothing" in done.stderr


@pytest.mark.case("environment/02")
def test_one_process_of_kubeflow_is_alone(data, monkeypatch):
    """It sets RANK and WORLD_SIZE in every pod, and no LOCAL_RANK."""
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "m", "MASTER_PORT": "23456"}
    setenv(monkeypatch, told)
    assert command("list").returncode == 0
    done = command("run", "okvqa", "--model", "demo", "--data", data, "--out", data / "x" / "y")
    assert "--allow-partial runs all the same" in done.stderr  # it came as far as the data


@pytest.mark.parametrize(
    ("told", "named"),
    [(LAUNCHES["incomplete"], "unset RANK WORLD_SIZE"), (LAUNCHES["nonsense"], "unset RANK WORLD")],
)
def test_a_run_names_the_variables_to_unset(tmp_path, monkeypatch, told, named):
    """Rather than wait for processes that nobody has started."""
    setenv(monkeypatch, told)
    done = command("run", "okvqa", "--model", "demo", "--data", tmp_path, "--out", tmp_path / "run")
    assert (2, True) == (done.returncode, named in done.stderr), done.stderr


def test_what_generates():
    """A plan generates nothing, nor does a page of help."""
    assert generates_answers(["run", "okvqa"])
    assert generates_answers(["demo"])
    assert not generates_answers(["card", "qwen-vl", "--dry-run"])
    assert not generates_answers(["certify", "okvqa"])
    assert not generates_answers([])


@pytest.mark.case("environment/07")
@pytest.mark.parametrize(
    ("visible", "gpus", "said"),
    [
        ("-1", 1, "no GPU: 1 processes"),
        ("", 2, "no GPU: 2 processes"),
        ("0,1", 2, "CUDA_VISIBLE_DEVICES names 2 GPUs, torch sees none (CPU build or driver)"),
        ("GPU-8f9a,MIG-77", 2, "CUDA_VISIBLE_DEVICES names 2 GPUs, torch sees none"),
    ],
)
def test_gpus_that_torch_does_not_see(site, data, tmp_path, monkeypatch, visible, gpus, said):
    """They count as none, and processes share the cores."""
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert worker.devices() == []
    asked = asking_fragile("quick", data, tmp_path / "run", "--device", "cuda", "--gpus", gpus)
    monkeypatch.syspath_prepend(site)
    done = command(*asked)
    assert (2, True) == (done.returncode, "--device cuda: this machine has no GPU" in done.stderr)
    if visible == "0,1":  # with workers once
        more = {"CUDA_VISIBLE_DEVICES": visible}
        asked = asking_fragile("quick", data, tmp_path / "run", "--gpus", gpus)
        with Launched(SCRIPT, *asked, site=site, more=more) as launched:
            code, told = launched.ended()
        assert (0, True) == (code, said in told), told


def test_more_processes_than_a_machine_bears(site, data, tmp_path, monkeypatch):
    """Without GPUs each of them loads the model."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.syspath_prepend(site)
    done = command(*asking_fragile("quick", data, tmp_path / "run", "--gpus", 1000))
    assert (2, True) == (done.returncode, "--gpus 1000: no GPU is here" in done.stderr)


@pytest.mark.parametrize("home", [None, "/nonexistent", "read-only"])
def test_a_home_is_found(tmp_path, monkeypatch, home):
    """A temporary folder stands in where there is none; one that cannot be written stays."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o500)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder if home == "read-only" else home))
    if home is None:
        monkeypatch.delenv("HOME")
    with acting_as(NOBODY, tmp_path):
        settle_home()
        assert Path(os.environ["MPLCONFIGDIR"]).is_relative_to(tmp_path)
        if home == "read-only":
            assert os.environ["HOME"] == str(folder)
        else:
            assert Path.home().is_dir()
            assert Path.home().is_relative_to(tmp_path)


@contextlib.contextmanager
def acting_as(user, folder):
    """As somebody who may only reach what anybody may, and this folder."""
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    for each in (folder, *folder.parents):
        if each.stat().st_uid == 0 and each.name.startswith(("pytest-", "popen-", folder.name)):
            each.chmod(0o777)
    import_commands()  # another user may not be allowed to read the modules
    uid, gid = os.getresuid(), os.getresgid()
    os.setresgid(user, user, 0)
    os.setresuid(user, user, 0)
    try:
        yield
    finally:
        os.setresuid(*uid)
        os.setresgid(*gid)


def script(*arguments, shell="exec", **more):
    """The script through a shell, which can close streams; exit code, output, errors."""
    line = f"{shell} {SCRIPT} {' '.join(map(str, arguments))}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, check=False, timeout=120, env=os.environ | more
    )
    return done.returncode, done.stdout, done.stderr


def test_nobody_reads_the_output():
    """As `| head` leaves it: the command ends as one that SIGPIPE ends, and says nothing."""
    code, _, said = script("list", "|", "true; exit ${PIPESTATUS[0]}", shell="")
    assert (141, b"") == (code, said)


def test_closed_streams():
    """Nothing is printed, and no file of ours takes the place of a stream."""
    assert (0, b"", b"") == script("list", ">&- 2>&- <&-")


def test_a_full_disk_takes_no_output():
    """It is said, and the exit code is not 0."""
    code, _, said = script("--version", ">/dev/full")
    assert (2, True) == (code, b"No space left on device" in said)


def test_a_terminal_without_our_letters():
    """They are replaced; ends 0."""
    plain = {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0", "LC_ALL": "C"}
    code, told, said = script("report", ROOT / "results" / "demo", **plain)
    assert code == 0, said
    assert told.isascii()
    assert b"Qwen-VL" in told


def test_arguments_that_are_no_text():
    """They would stand in files of JSON."""
    done = subprocess.run([SCRIPT, "report", b"\xff"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"argument b'\\xff': not UTF-8" in done.stderr


def test_a_folder_that_is_gone(tmp_path):
    """A relative path leads nowhere: exit code 2."""
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {SCRIPT} report run"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")


@pytest.mark.case("hostile/26")
def test_a_signal_ends_a_process_at_once(site, tmp_path):
    """After the last message nothing of the interpreter's own end is waited for.

    An exit handler stands for what keeps it on a busy machine.
    """
    data = make_groups(tmp_path / "data", 4, 10)
    code = (
        "import atexit, sys, time; atexit.register(time.sleep, 300); "
        "from eval.cli import main; main()"
    )
    asked = asking_fragile("slow", data, tmp_path / "run")
    with Launched(sys.executable, "-c", code, *asked, site=site) as launched:
        launched.until_answered(tmp_path / "run", 1)
        launched.process.send_signal(signal.SIGTERM)
        ended, said = launched.ended(60)
    assert 128 + signal.SIGTERM == ended
    assert "interrupted. All that was obtained is on disk" in said
