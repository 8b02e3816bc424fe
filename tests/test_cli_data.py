"""The data commands: exit codes, tables, a whole preparation, a mirror from a hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from small import command
from web import Web

from eval.demo.data import write_demo_data

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PACKAGE = """
import json
from eval import *
from eval.data.declare import Download, Mirror, ByHand
from eval.data.parquet import read_parquet, read_pictures
def read(root):
    for n in json.loads((root / "toy/q.json").read_text()):
        yield Sample(str(n), {"image": f"toy/{n}.png"}, "a")
TABLE = Source("toy/mirror/**/val-*.parquet")
def mirrored(root):
    for row in read_parquet(root, TABLE, ["n"]):
        n = row.integer("n")
        yield Sample(str(n), {"image": f"toy/{n}.png"}, "a")
def pictures(root):
    for row, picture in read_pictures(root, TABLE, ["n"]):
        yield f"toy/{row.integer('n')}.png", picture
TASKS = (Task(
    "toy_val", 2, (Layout((Source("toy/q.json"),), read),
    Layout((TABLE,), mirrored, "mirror", pictures)), "<img>{image}</img>", Generate(1),
    {"zero": lambda text, reference: 0.0},
    steps=(Download("URL/q.json", "toy/q.json"), ByHand("toy/*.png", "https://toy.example"),
           Mirror(("lab/gone", "lab/toy"), "**/val-*.parquet", "toy/mirror"))),)
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder)
    return folder


@pytest.fixture
def web():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def toy(tmp_path, web):
    """Run the command line in a process that finds the package toy, and the hub on loopback."""
    package = tmp_path / "package"
    (package / "toy-0.1.dist-info").mkdir(parents=True)
    (package / "toy-0.1.dist-info/METADATA").write_text("Name: toy\nVersion: 0.1\n")
    (package / "toy-0.1.dist-info/entry_points.txt").write_text("[eval.tasks]\ntoy = toy_tasks\n")
    (package / "toy_tasks.py").write_text(PACKAGE.replace("URL", web.url("")[:-1]))
    environment = os.environ | {
        "PYTHONPATH": str(package),
        "HF_ENDPOINT": web.url("")[:-1],
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }

    def run(*arguments):
        code = "from eval.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, "data", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    return run


def test_list(demo):
    """Every task, with the layouts that are there."""
    done = command("data", "list", "--data", demo)
    assert 0 == done.returncode, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("gqa_testdev")]
    assert ["gqa_testdev", "12,578", "official"] == line.split()[:3]


def test_verify_says_what_is_not_official(demo):
    """Demo data are sound, and too few: 3, with the counts."""
    done = command("data", "verify", "gqa", "--data", demo)
    assert 3 == done.returncode, done.stderr
    assert "samples: 12,578 expected, 60 found" in done.stdout
    assert "cannot be shown" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [["verify", "gqa", "--data", "no/such"], ["prepare", "gqua", "--data", "x"]]
)
def test_bad_usage(arguments):
    """A folder or a task that does not exist is 2."""
    assert 2 == command("data", *arguments).returncode


def test_prepare_by_hand_then_verify(toy, web, tmp_path, demo):
    """Dry run fetches nothing; what is left for a person is 3; then all is there and pinned."""
    data = tmp_path / "data"
    web.page("q.json", b"[1, 2]")
    done = toy("prepare", "toy", "--data", data, "--dry-run")
    assert (3, False) == (done.returncode, data.exists()), done.stderr
    assert "by hand: toy/*.png; from https://toy.example" in done.stdout
    done = toy("prepare", "toy", "--data", data)
    assert 3 == done.returncode, done.stderr
    assert "by hand: toy/*.png" in done.stderr
    for number, picture in enumerate(sorted(demo.rglob("*.png"))[:2], 1):
        (data / f"toy/{number}.png").write_bytes(picture.read_bytes())
    done = toy("prepare", "toy", "--data", data)
    assert 0 == done.returncode, done.stderr
    assert 1 == len(web.asked("q.json"))
    assert 0 == toy("verify", "toy", "--data", data, "--pin").returncode
    (data / "toy/q.json").write_text("[2, 1]")
    done = toy("verify", "toy", "--data", data, "--quick")
    assert (3, True) == (done.returncode, "is pinned in" in done.stdout), done.stderr


def write_table(folder, pictures):
    """A mirror's parquet with two pictures; it, and the rows."""
    import datasets

    datasets.disable_progress_bars()
    rows = [
        {"n": number, "image": {"bytes": path.read_bytes(), "path": None}}
        for number, path in enumerate(sorted(pictures.rglob("*.png"))[:2], 1)
    ]
    features = datasets.Features({"n": datasets.Value("int64"), "image": datasets.Image()})
    table = folder / "val-00000-of-00001.parquet"
    datasets.Dataset.from_list(rows, features=features).to_parquet(table)
    return table, rows


def hub_info(table, file):
    """What the hub says of a dataset that holds the table."""
    size = table.stat().st_size
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    lfs = {"sha256": digest, "size": size, "pointerSize": 1}
    told = {"rfilename": file, "size": size, "blobId": "0" * 40, "lfs": lfs}
    return {"id": "lab/toy", "sha": COMMIT, "siblings": [told, {"rfilename": "README.md"}]}


def test_mirror(toy, web, tmp_path, demo):
    """The second repository is taken at its commit, its pictures are written, its files pinned.

    A file whose digest is not what the hub tells is not kept, and fetched again by the next call.
    """
    table, rows = write_table(tmp_path, demo)
    content = table.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    file = f"data/{table.name}"
    info = hub_info(table, file)
    web.page("api/datasets/lab/toy?blobs=true", json.dumps(info).encode())
    web.page(f"datasets/lab/toy/resolve/{COMMIT}/{file}", content, commit=COMMIT)
    data = tmp_path / "data"
    right = web.pages["api/datasets/lab/toy?blobs=true"].content
    web.page("api/datasets/lab/toy?blobs=true", right.replace(digest.encode(), b"0" * 64))
    done = toy("prepare", "toy", "--data", data, "--mirror")
    assert (3, True) == (done.returncode, f"{digest} came; it was not kept" in done.stderr)
    web.page(f"api/datasets/lab/toy/revision/{COMMIT}?blobs=true", right)  # it is pinned now
    done = toy("prepare", "toy", "--data", data, "--mirror")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert rows[0]["image"]["bytes"] == (data / "toy/1.png").read_bytes()
    lock = json.loads((data / "qwen-vl-eval.lock.json").read_text())
    assert {"toy/mirror": {"repo": "lab/toy", "revision": COMMIT}} == lock["mirrors"]
    assert digest == lock["files"][f"toy/mirror/{file}"]["sha256"]
    place, path = data / f"toy/mirror/{file}", data / "qwen-vl-eval.lock.json"
    pinned = path.read_text()
    path.write_text(pinned.replace(digest, "1" * 64))
    place.unlink()
    done = toy("prepare", "toy", "--data", data, "--mirror")
    assert (3, False) == (done.returncode, place.exists()), done.stderr
    assert f"sha256 {'1' * 64} {path.name} has, {digest} came" in done.stderr
    path.write_text(pinned)
    assert 0 == toy("prepare", "toy", "--data", data, "--mirror").returncode
    web.pages.clear()
    assert 0 == toy("prepare", "toy", "--data", data, "--mirror").returncode


def test_mirror_that_the_hub_itself_put_into_parquet(toy, web, tmp_path, demo):
    """Of another format the hub has parquet on a branch of its own, whose commit is pinned."""
    table, rows = write_table(tmp_path, demo)
    file = f"default/{table.name}"
    plain = {"id": "lab/toy", "sha": "1" * 40, "siblings": [{"rfilename": "toy.py"}]}
    web.page("api/datasets/lab/toy?blobs=true", json.dumps(plain).encode())
    branch = "api/datasets/lab/toy/revision/refs%2Fconvert%2Fparquet?blobs=true"
    web.page(branch, json.dumps(hub_info(table, file)).encode())
    web.page(f"datasets/lab/toy/resolve/{COMMIT}/{file}", table.read_bytes(), commit=COMMIT)
    data = tmp_path / "data"
    done = toy("prepare", "toy", "--data", data, "--mirror")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert rows[0]["image"]["bytes"] == (data / "toy/1.png").read_bytes()
    lock = json.loads((data / "qwen-vl-eval.lock.json").read_text())
    assert COMMIT == lock["mirrors"]["toy/mirror"]["revision"]
