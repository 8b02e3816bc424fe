"""Imports run one way, and what needs no model never imports torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (  # from top to bottom: a part imports only from levels below its own
    ("benchmarks", "touchstone"),
    ("cli",),
    ("readiness", "certify"),
    ("pipeline",),
    ("demo",),
    ("report", "judging"),
    ("launch",),
    ("scoring", "backends"),
    ("config",),
    ("plugins",),
    ("run", "engine"),
    ("protocols",),
    ("data", "runtime"),
    ("api", "metrics", "client"),
    ("storage",),
    ("errors",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
PLUGINS_MAY_NOT = {"cli", "readiness", "certify", "pipeline", "demo"}


def parts_imported(path):
    """The parts of this project that a file imports, wherever in it the import stands."""
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
                yield rest[0] if known else "data"  # a public name of eval/__init__.py


def part_of(path):
    top, *rest = path.relative_to(ROOT).parts
    return top if top != "eval" else rest[0].removesuffix(".py")


FILES = [
    path
    for folder in ("eval", "benchmarks", "touchstone")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != ROOT / "eval" / "__init__.py"
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    """A part imports only from levels below; eval reaches plug-ins through entry points alone."""
    part = part_of(path)
    above = {each for each in parts_imported(path) if each != part and LEVEL[each] <= LEVEL[part]}
    assert not above
    if part in ("benchmarks", "touchstone"):
        assert not PLUGINS_MAY_NOT & set(parts_imported(path))
    if part == "benchmarks":
        assert "benchmarks" not in parts_imported(path), "a benchmark imports another"


def modules_imported(path):
    """Modules of this project that a file imports when it is loaded or later."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def test_no_circle():
    """No module imports itself through others, also not inside functions."""
    graph = {
        name: {each for each in modules_imported(path) if each in MODULES and each != name}
        for name, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()


def test_no_private_name_of_another_module():
    """What begins with an underscore is used by its own module alone."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not [each for each in private if not each.startswith("__")], name


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
    assert {"runtime", "benchmarks"} == set(parts_imported(file))
