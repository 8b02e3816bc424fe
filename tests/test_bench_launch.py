"""The soak and the benchmark of spread runs work."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent / "bench"


def run(script, *arguments):
    command = [sys.executable, "-W", "error", str(BENCH / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_soak_of_one_kill_finds_nothing():
    """Killed, resumed, complete: no answer is lost and no byte differs."""
    few = ("--tasks", "okvqa_val", "--limit", "12", "--delay", "0.2", "--ways", "one process")
    done = run("soak.py", "--kills", "1", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| kills in all | 1 |" in done.stdout
    assert "| files that differ in a byte | 0 |" in done.stdout


def test_the_queue_is_measured():
    """Real workers and server answer each group once, or it would fail."""
    done = run("bench_launch.py", "--quick", "--only", "3")
    assert done.returncode == 0, done.stderr
    assert "| 500 | 2 by the server |" in done.stdout
