"""Which packages a command gets: its own, whatever files of those names lie about.

The wheel is built and installed as a user would, in an environment that borrows the libraries of
this one.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from launched import (
    SCRIPT,
    Launched,
    asking_fragile,
    make_groups,
    offer_fragile,
    shadowing,
    workers,
)

from eval.cli.start import start
from eval.config import find_config, read_config
from eval.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ("demo", "qwen-vl", "qwen-vl-4shot", "qwen-vl-chat", "qwen-vl-chat-4shot")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")


def run(*command, folder, **more):
    """A command's exit code, and all that it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200", **more},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "-w", folder)
    code, said = run(*PIP, "wheel", *options, ROOT, folder=folder)
    assert code == 0, said
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel; its script."""
    folder = tmp_path_factory.mktemp("installed")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    code, said = run(
        *PIP, "--python", venv / "bin" / "python", "install", "--no-deps", "--no-index", wheel,
        folder=folder,
    )  # fmt: skip
    assert code == 0, said
    (place,) = (venv / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (place / "libraries.pth").write_text("\n".join(libraries))
    return venv / "bin" / "qwen-vl-eval"


@pytest.mark.case("environment/17")
@pytest.mark.parametrize("name", ["eval.py", "benchmarks/__init__.py", "touchstone.py"])
def test_a_file_that_hides_a_package_is_named(tmp_path, name):
    """PYTHONPATH puts it first: exit code 2, which file it is, and what to do."""
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    code, said = run(SCRIPT, "list", folder=tmp_path, PYTHONPATH=".")
    assert code == 2
    package = name.removesuffix(".py").removesuffix("/__init__")
    assert f"error: {file} hides the package '{package}' of qwen-vl-eval" in said
    assert "unset PYTHONPATH" in said
    assert "Traceback" not in said


def test_a_folder_that_hides_nothing_is_nothing(tmp_path):
    """One without __init__.py comes last, wherever it stands on the path."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "eval").mkdir()
    code, said = run(SCRIPT, "list", folder=tmp_path, PYTHONPATH=".")
    assert code == 0, said
    assert "okvqa_val" in said


def test_a_module_that_is_started_checks_too(tmp_path):
    """`python -m eval.cli` puts the working folder on the path."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    code, said = run(sys.executable, "-m", "eval.cli", "list", folder=tmp_path)
    assert (2, True) == (code, "hides the package 'benchmarks'" in said), said


def test_a_package_that_is_gone_is_named(tmp_path, capsys):
    """As after another distribution's uninstall, which takes our file with its own."""
    with pytest.raises(SystemExit, match="2"):
        start(tmp_path)
    assert f"{tmp_path}/eval/__init__.py is missing: pip install" in capsys.readouterr().err


@pytest.mark.case("environment/03")
def test_workers_do_not_see_the_working_folder(tmp_path):
    """A user's eval.py and benchmarks/ there are nothing to them."""
    site = offer_fragile(tmp_path / "site")
    data, here = make_groups(tmp_path / "data", 2, 2), shadowing(tmp_path / "here")
    asked = asking_fragile("quick", data, tmp_path / "run", "--gpus", 2)
    with Launched(SCRIPT, *asked, site=site, folder=here) as launched:
        code, said = launched.ended()
    assert (0, 2) == (code, workers(tmp_path / "run")), said


@pytest.mark.case("environment/11")
def test_a_wheel_holds_all(installed, tmp_path):
    """Its script, under a name of its own, and the configurations, found by name."""
    code, said = run(installed, "card", "qwen-vl", "--data", tmp_path, "--dry-run", folder=tmp_path)
    assert code == 3, said  # no data are there
    assert "refcocog_test" in said


def test_files_of_a_wheel(wheel):
    """The top level holds our packages and one module; six configurations lie in it."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    packages = {"eval", "benchmarks", "touchstone", "qwen_vl_eval_start.py"}
    assert packages == {name for name in top if not name.endswith(".dist-info")}
    assert {f"eval/configs/{name}.toml" for name in (*CONFIGS, "judge/gpt-4")} <= {*names}


def test_a_distribution_that_writes_over_ours_is_named(installed, tmp_path):
    """Another package called benchmarks, in one environment with ours."""
    (place,) = installed.parents[1].glob("lib/python*/site-packages")
    other = place / "other_benchmarks-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other-benchmarks\nVersion: 1.0\n")
    (other / "RECORD").write_text("benchmarks/__init__.py,,\n")
    assert run(installed, "--version", folder=tmp_path)[0] == 0  # ours came last
    file = place / "benchmarks" / "__init__.py"
    ours = file.read_bytes()
    try:
        file.write_text("print('theirs')\n")
        code, said = run(installed, "--version", folder=tmp_path)
    finally:
        file.write_bytes(ours)
        shutil.rmtree(other)
    assert code == 2
    assert "other-benchmarks has written over it" in said


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_found_by_name(tmp_path, monkeypatch, name):
    """Unless a file of the user's has that name; a folder is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert read_config(find_config(Path(name))).tasks
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text("")
    assert Path(name) == find_config(Path(name))


def test_a_configuration_that_nobody_knows(tmp_path, monkeypatch):
    """The known ones are listed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"qwen-vl-ch: no such file.* 'qwen-vl-chat'.*known: demo"):
        find_config(Path("qwen-vl-ch"))
    assert find_config(Path("gpt-4"), "judge").name == "gpt-4.toml"


def test_the_launcher_reads_an_editable_install():
    """pip's record says where the sources are: not beside the launcher."""
    code = (
        "import json, qwen_vl_eval_start as start; from pathlib import Path; "
        "from importlib.metadata import Distribution; here = Path(start.__file__).parent; "
        "found = next(iter(Distribution.discover(name='qwen-vl-eval', path=[str(here)]))); "
        "print(json.dumps(str(start._root(found, here))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert Path(json.loads(done.stdout)) == ROOT
