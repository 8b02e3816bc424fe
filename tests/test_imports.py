"""Imports run one way, and what needs no model never imports torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {  # room -> the rooms it may import from, beside itself, errors and reading
    "api": {"prompt", "tree"},
    "prompt": set(),
    "metrics": set(),
    "stats": set(),
    "data": {"api", "picture", "tree"},
    "picture": set(),
    "reading": set(),
    "tree": set(),
    "registry": {"api", "prompt"},
    "replay": {"api", "run"},
    "digests": set(),
    "lock": set(),
    "writing": set(),
    "run_files": set(),
    "journal": {"api", "run_files", "writing"},
    "runtime": {"digests", "picture", "prompt"},
    "engine": {"api", "prompt", "runtime"},
    "launch": {"api", "run"},
    "asked": {"api", "data", "prompt", "tree"},
    "run": {"api", "asked", "data", "digests", "journal", "lock", "prompt", "run_files", "writing"},
    "score": {"api", "asked", "data", "journal", "run", "metrics", "stats"},
    "submit": {"api", "asked", "data", "run", "writing"},
    "report": {
        "api",
        "asked",
        "data",
        "metrics",
        "picture",
        "run",
        "run_files",
        "stats",
        "writing",
    },  # and boxes of samples
    "demo": {"api", "data", "metrics", "runtime"},
    "benchmarks": {"api", "data", "metrics", "prompt", "tree"},
    "touchstone": {"api", "asked", "data", "lock", "metrics", "prompt", "run", "stats", "writing"},
}


def rooms_imported(path):
    """The rooms of this project that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top in ("benchmarks", "touchstone", "tests", "configs"):
                yield top
            elif top == "eval" and rest:
                known = (ROOT / "eval" / rest[0]).is_dir() or (
                    ROOT / "eval" / f"{rest[0]}.py"
                ).is_file()
                yield rest[0] if known else "api"  # a public name of eval/__init__.py


def room_of(path):
    top, *rest = path.relative_to(ROOT).parts
    return top if top != "eval" else rest[0].removesuffix(".py")


FILES = [
    path
    for folder in ("eval", "benchmarks", "touchstone")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "checkpoint" not in path.parts
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    """No room imports one that stands above it; only the command line may import everything."""
    room = room_of(path)
    if room in ("cli", "__init__"):
        return
    found = set(rooms_imported(path)) - {room, "errors", "reading"}
    if path.parent.name == "benchmarks":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] != "benchmarks", "a benchmark imports another"
    assert found <= MAY_IMPORT.get(room, set())


@pytest.mark.parametrize(
    "modules",
    [
        "eval",
        "eval.cli",
        "eval.scoring.score, eval.backends.replay, eval.report",
        "eval.metrics",
        "benchmarks",
    ],
)
def test_no_torch_without_a_model(modules):
    """Listing, scoring and reporting work where torch would take seconds, or is not installed."""
    code = f"import sys; import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_rules_notice_a_wrong_import(tmp_path):
    """The walk sees imports inside functions too."""
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from eval.runtime import QwenVL\n    import benchmarks.okvqa\n")
    assert {"runtime", "benchmarks"} == set(rooms_imported(file))
