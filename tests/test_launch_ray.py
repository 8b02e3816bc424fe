"""Workers that are actors of a Ray cluster, which the run starts on this machine."""

import os
import signal
import sys

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
    run,
    shadowing,
    workers,
)

pytest_plugins = ("launched_fixtures",)

pytest.importorskip("ray", reason="ray is not installed: pip install 'qwen-vl-eval[ray]'")

TWO_ACTORS = ("--launcher", "ray", "--gpus", 2)
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}


def test_an_actor_that_is_killed_is_replaced(site, data, tmp_path, whole):
    """The run goes on, says so, and ends in the bytes of one process; nothing is left of Ray.

    Ray puts the driver's folder on the actors' path; a user's eval.py there is nothing to them.
    """
    out, here = tmp_path / "run", shadowing(tmp_path / "here")
    asked = asking_fragile("slow-social", data, out, *TWO_ACTORS)
    with Launched(SCRIPT, *asked, site=site, more=QUIET, folder=here) as launched:
        launched.until_answered(out, 1, journals="1")
        number, process = launched.until_one_has_answered(out, 5)
        os.kill(process, signal.SIGKILL)
        code, said = launched.ended()
        launched.left(30)
    assert code == 0, said
    assert f"worker {number} is lost: its actor died: " in said
    assert {"journal-0.jsonl", "journal-1.jsonl"} <= {file.name for file in journals(out)}
    assert (2, [], whole) == (workers(out), asked_twice(out), results(out))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_driver_is_stopped(site, data, tmp_path, whole, how, code):
    """The cluster that it has started ends with it, and one process goes on.

    Killed, it leaves two of Ray's own agents for a while, which hold nothing of ours.
    """
    out = tmp_path / "run"
    asked = asking_fragile("slow", data, out, *TWO_ACTORS)
    with Launched(*PYTHON, *asked, site=site, more=QUIET) as launched:
        launched.until_answered(out, 5)
        os.kill(launched.process.pid, how)
        assert code == launched.ended(10)[0]
        if how == signal.SIGKILL:
            actors = ("ray::Actor", "ray::IDLE", "raylet", "gcs_server")
            launched.until(lambda: not launched.named(*actors), "the actors have ended", 60)
        else:
            launched.left()
        assert ("to go on:" in launched.said) == (how != signal.SIGKILL)
    assert 5 <= answers(out) < 160
    code, said = run(*asking_fragile("quick", data, out), site=site)
    assert code == 0, said
    assert ([], whole) == (asked_twice(out), results(out))


CLUSTER = """
import sys, time, ray
from pathlib import Path
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
Path(sys.argv[1]).write_text(ray.get_runtime_context().gcs_address)
time.sleep(600)
"""


def test_a_cluster_that_is_there(site, data, tmp_path, whole):
    """A run takes as many actors as it has cores, and leaves the cluster as it was."""
    out, told = tmp_path / "run", tmp_path / "address"
    known = QUIET | {"RAY_AUTH_MODE": "disabled"}  # else such a cluster keeps its token to itself
    with Launched(sys.executable, "-c", CLUSTER, told, site=site, more=known) as cluster:
        cluster.until(told.is_file, "the cluster is there")
        asked = asking_fragile("quick", data, out, "--launcher", "ray", "--ray-address")
        code, said = run(*asked, told.read_text(), site=site, more=known)
        assert code == 0, said
        assert cluster.process.poll() is None
        assert cluster.named("raylet")
    assert (2, [], whole) == (workers(out), asked_twice(out), results(out))
