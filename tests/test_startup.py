"""Commands that need no model start without the libraries of one."""

import subprocess
import sys

import pytest
from small import make_checkpoint
from test_run import make_data, run_okvqa

HEAVY = ("torch", "transformers", "datasets", "pandas", "matplotlib")
CODE = f"""
import sys
from eval.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {HEAVY} if "compare" in sys.argv else ({HEAVY} + ("scipy",))  # its p-values need scipy
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Finished runs of two small models, and their data."""
    folder = tmp_path_factory.mktemp("recorded")
    make_data(folder / "data")
    for seed, name in enumerate(("run", "other")):
        model = make_checkpoint(folder / f"model-{seed}", seed=seed)
        done = run_okvqa(model, folder / "data", folder / name)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        "--version",
        "list",
        "score run",
        "report run",
        "report run --format html",
        "compare run other",
        "browse run --out pages",
        "run okvqa --model run --backend replay --data data --out again --allow-partial",
    ],
)
def test_no_model_library_without_a_model(recorded, arguments):
    """None is imported by what lists, scores, reports, compares, browses or replays."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=recorded,
    )
    assert done.returncode == 0, done.stderr
