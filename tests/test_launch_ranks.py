"""Workers that a launcher has started: torchrun, accelerate launch, and Slurm's environment.

There is no Slurm here: its tests start two processes with the variables that srun sets.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from launched import (
    PYTHON,
    SCRIPT,
    Launched,
    answers,
    asked_twice,
    asking_fragile,
    journals,
    results,
    shadowing,
    workers,
)

from eval.errors import UsageError
from eval.launch.store import first_host, rank_of

pytest_plugins = ("launched_fixtures",)
BIN = Path(sys.executable).parent
TORCHRUN = (BIN / "torchrun", "--nproc-per-node", 2)
OURS = ("-m", "eval.cli")  # accelerate starts modules
ACCELERATE = (BIN / "accelerate", "launch", "--cpu", "--num_processes", 2)


def torchrun(*arguments, site, options=(), folder=None):
    return Launched(
        *TORCHRUN, *options, "--no-python", SCRIPT, *arguments, site=site, folder=folder
    )


def rank(launched, number):
    """The process of a rank, by its environment."""

    def found():
        for pid, line in launched.processes().items():
            with contextlib.suppress(OSError):
                told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                if f"RANK={number}".encode() in told and "qwen-vl-eval run" in line:
                    return pid
        return None

    return launched.until(found, f"rank {number}")


def test_ranks_of_torchrun_are_workers(site, data, tmp_path, whole):
    """Each answers its part, none what the other has; and a finished run keeps nobody waiting.

    A user's eval.py in the folder in which they start is nothing to them.
    """
    asked = asking_fragile("slow-social", data, tmp_path / "run")
    with torchrun(*asked, site=site, folder=shadowing(tmp_path / "here")) as launched:
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert "160 answers by 2 workers" in said
    assert ["journal-0.jsonl", "journal-1.jsonl"] == [f.name for f in journals(tmp_path / "run")]
    assert (2, []) == (workers(tmp_path / "run"), asked_twice(tmp_path / "run"))
    assert whole == results(tmp_path / "run")
    with torchrun(*asked, site=site) as launched:
        code, said = launched.ended(60)
        launched.left()
    assert (0, False) == (code, "loading" in said), said


def test_a_rank_that_is_killed_ends_all(site, data, tmp_path, whole):
    """As torchrun has it. Nothing is left of them, and the same command goes on."""
    out = tmp_path / "run"
    with torchrun(*asking_fragile("slow-social", data, out), site=site) as launched:
        first = rank(launched, 0)
        launched.until_answered(out, 3, journals="0")
        launched.until_answered(out, 3, journals="1")
        os.kill(first, signal.SIGKILL)
        code, said = launched.ended(60)
        launched.left()
    assert code != 0, said
    assert 6 <= answers(out) < 160
    with torchrun(*asking_fragile("quick", data, out), site=site) as launched:
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert (2, [], whole) == (workers(out), asked_twice(out), results(out))


def test_torchrun_may_restart_its_ranks(site, data, tmp_path, whole):
    """With --max-restarts a killed rank costs no more than what it held."""
    out = tmp_path / "run"
    asked = asking_fragile("slow-social", data, out)
    with torchrun(*asked, site=site, options=("--max-restarts", 1)) as launched:
        second = rank(launched, 1)
        launched.until_answered(out, 3, journals="1")
        os.kill(second, signal.SIGKILL)
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert (2, [], whole) == (workers(out), asked_twice(out), results(out))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--data", "/nowhere"), "error: --data /nowhere: no such folder\n"),
        (("--gpus", 3), "error: --gpus 3: the launcher has started 2 processes, of which each is"),
    ],
)
def test_wrong_input_under_torchrun_ends_all_ranks(site, data, tmp_path, more, message):
    """The first says why, once; the others do not wait."""
    asked = asking_fragile("slow-social", data, tmp_path / "run", *more)
    with torchrun(*asked, site=site) as launched:
        code, said = launched.ended(60)
        launched.left()
    assert code != 0
    assert 1 == said.count(message), said
    assert 1 == said.count("error: ")
    assert "failed (exitcode: 2) local_rank: 0" in said


@pytest.mark.parametrize(("gpus", "expected"), [((), 1), (("--gpus", 2), 2)])
def test_accelerate_on_a_cpu_starts_one_process(site, data, tmp_path, whole, gpus, expected):
    """Whatever number it is told. A run is complete all the same, and says how many there were."""
    asked = asking_fragile("quick", data, tmp_path / "run", *gpus)
    with Launched(*ACCELERATE, *OURS, *asked, site=site) as launched:
        code, said = launched.ended()
        launched.left()
    assert code == 0, said
    assert (expected, whole) == (workers(tmp_path / "run"), results(tmp_path / "run"))


class Slurm:
    """Two tasks of a step on this machine, as srun starts them."""

    def __init__(self, *arguments, site):
        self.meeting = tempfile.TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.tasks = [
            Launched(
                *PYTHON,
                *arguments,
                site=site,
                more={
                    "SLURM_JOB_ID": "71",
                    "SLURM_STEP_ID": "0",
                    "SLURM_PROCID": str(number),
                    "SLURM_LOCALID": str(number),
                    "SLURM_NODEID": "0",
                    "SLURM_STEP_NUM_TASKS": "2",
                    "SLURM_STEP_TASKS_PER_NODE": "2",
                    "SLURM_STEP_NODELIST": "localhost",
                    "MASTER_PORT": str(port),
                    "FRAGILE_MEETING": self.meeting.name,
                },
            )
            for number in range(2)
        ]

    def __enter__(self):
        return self.tasks

    def __exit__(self, *_):
        for task in self.tasks:
            task.__exit__()
        self.meeting.cleanup()


def test_tasks_of_slurm_are_workers(site, data, tmp_path, whole):
    """They meet at a port of the first one's host; a finished run keeps nobody waiting."""
    out = tmp_path / "run"
    for told in ("160 answers by 2 workers", ""):
        with Slurm(*asking_fragile("slow-social", data, out), site=site) as tasks:
            assert [0, 0] == [task.ended()[0] for task in tasks]
            for task in tasks:
                task.left()
            assert told in tasks[0].said
            assert "" == tasks[1].said
    assert (2, [], whole) == (workers(out), asked_twice(out), results(out))


def test_a_task_of_slurm_is_killed(site, data, tmp_path, whole):
    """Slurm may leave the others alone; nobody sees it end, so its group waits for its lease."""
    out = tmp_path / "run"
    with Slurm(*asking_fragile("slow-social", data, out, "--lease", 6), site=site) as tasks:
        tasks[1].until_answered(out, 3, journals="1")
        os.kill(tasks[1].process.pid, signal.SIGKILL)
        code, said = tasks[0].ended()
        tasks[0].left()
    assert code == 0, said
    assert "worker 1 is lost: it gave no sign of progress for 6 s" in said
    assert whole == results(out)


def test_the_first_task_of_slurm_is_killed(site, data, tmp_path):
    """The others find that it does not answer, and end."""
    out = tmp_path / "run"
    with Slurm(*asking_fragile("slow-social", data, out), site=site) as tasks:
        tasks[1].until_answered(out, 3, journals="1")
        os.kill(tasks[0].process.pid, signal.SIGKILL)
        code, said = tasks[1].ended(20)
        assert (5, "worker 1: rank 0 does not answer any more") == (code, said.splitlines()[-1])
        tasks[0].left()
        tasks[1].left()
    assert answers(out) < 160


def test_wrong_input_under_slurm_ends_all_tasks(site, data, tmp_path):
    """The first says why; the others do not wait."""
    with Slurm(*asking_fragile("slow", "/nowhere", tmp_path / "run"), site=site) as tasks:
        assert [2, 0] == [task.ended(60)[0] for task in tasks]
        assert "error: --data /nowhere: no such folder\n" == tasks[0].said


TORCHRUN_TELLS = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
}
SLURM_TELLS = {
    "SLURM_JOB_ID": "65000",
    "SLURM_STEP_ID": "3",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "20",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2),4",
    "SLURM_STEP_NODELIST": "gpu[07-08,11]",
}


def test_rank_of_torchrun():
    """It opens the store itself, unless it says otherwise; a restart has keys of its own."""
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"}
    mine, its = rank_of(TORCHRUN_TELLS), rank_of(TORCHRUN_TELLS | agent)
    assert (5, 8, 1, 4) == (mine.number, mine.size, mine.local, mine.local_size)
    assert ("node1:29400", True, False) == (mine.store, mine.ours, its.ours)
    assert mine.prefix != its.prefix


def test_one_process_in_each_pod():
    """Kubeflow sets no local variables: each pod holds one process."""
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "m", "MASTER_PORT": "23456"}
    rank = rank_of(told)
    assert (1, 2, 0, 1) == (rank.number, rank.size, rank.local, rank.local_size)


def test_rank_of_slurm():
    """The step's own counts; a port of the job's and the step's number, or MASTER_PORT."""
    rank = rank_of(SLURM_TELLS)
    assert (9, 20, 1, 8) == (rank.number, rank.size, rank.local, rank.local_size)
    assert ("gpu07:25003", True) == (rank.store, rank.ours)
    last = rank_of(SLURM_TELLS | {"SLURM_PROCID": "19", "SLURM_NODEID": "2"})
    assert 4 == last.local_size
    told = {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "1234"}
    assert "10.0.0.7:1234" == rank_of(SLURM_TELLS | told).store


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("localhost", "localhost"),
        ("a003,b1", "a003"),
        ("a[003-007,9],b1", "a003"),
        ("gpu-a[12]", "gpu-a12"),
        ("rack1-[08,10-12]", "rack1-08"),
    ],
)
def test_first_host_of_a_compressed_list(nodes, expected):
    """As Slurm writes lists of hosts."""
    assert expected == first_host(nodes)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"},  # sbatch's own step
        {**SLURM_TELLS, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --ntasks 1
        {**TORCHRUN_TELLS, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "m", "MASTER_PORT": "23456"},  # Kubeflow
        {"RANK": "nonsense", "WORLD_SIZE": "1"},
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"WORLD_SIZE": "2"},
    ],
)
def test_one_process_is_alone(environ):
    """Nobody is waited for."""
    assert rank_of(environ) is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR is missing"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "unset RANK WORLD_SIZE"),
        ({**TORCHRUN_TELLS, "LOCAL_RANK": ""}, "LOCAL_RANK is missing"),
        ({**TORCHRUN_TELLS, "LOCAL_WORLD_SIZE": ""}, "LOCAL_WORLD_SIZE is missing"),
        ({**TORCHRUN_TELLS, "MASTER_PORT": "http"}, "'http'"),
        ({**TORCHRUN_TELLS, "MASTER_PORT": "70000"}, "no port 70000"),
        ({**TORCHRUN_TELLS, "RANK": "one"}, "'one'"),
        ({**TORCHRUN_TELLS, "RANK": "8"}, "rank 8 of 8 does not exist"),
        ({**SLURM_TELLS, "SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is missing"),
        ({**SLURM_TELLS, "SLURM_NODEID": "7"}, "names no node 7"),
        (
            {**SLURM_TELLS, "SLURM_STEP_TASKS_PER_NODE": "1(x9999999999999)"},
            "does not exist",
        ),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, "unset SLURM_PROCID"),
    ],
)
def test_a_launcher_that_contradicts_itself(environ, named):
    """It is named before anybody waits for others."""
    with pytest.raises(UsageError, match=re.escape(named)):
        rank_of(environ)
