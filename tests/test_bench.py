"""The benchmark of the engine works."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench" / "bench_engine.py"


@pytest.mark.slow
def test_the_engine_benchmark_runs():
    """Both procedures give the same predictions to every kind of question, or it would fail."""
    command = [sys.executable, "-W", "error", str(BENCH), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for heading in ("Times", "Predictions", "Arithmetic", "Questions on an image", "Memory"):
        assert f"## {heading}\n" in done.stdout
