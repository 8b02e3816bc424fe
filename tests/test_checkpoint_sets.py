"""Several sets of weights in one place: refused in a folder, one of them taken from a hub."""

import json
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer

import pytest
import torch
from hub_server import Hub, environment
from safetensors.torch import load_file, save_file
from small import command, make_checkpoint, make_data

from eval.config import Config, read_config
from eval.errors import CheckpointError
from eval.pipeline import Place, _job
from eval.runtime import QwenVL
from eval.runtime.checkpoint import find_checkpoint

SINGLE, INDEX, BIN = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


def tensors_of(folder):
    return {k: v for f in folder.glob("model-*.safetensors") for k, v in load_file(f).items()}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Two shards and their index: the weights before."""
    return make_checkpoint(tmp_path_factory.mktemp("sharded") / "small")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Tensors of another training: the weights after."""
    return tensors_of(make_checkpoint(tmp_path_factory.mktemp("other") / "small", seed=1))


@pytest.fixture(scope="module")
def both(tmp_path_factory, sharded, other):
    """An old index with its shards beside a new single file."""
    folder = tmp_path_factory.mktemp("both") / "small"
    shutil.copytree(sharded, folder)
    save_file(other, folder / SINGLE)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), 3)


def asking(folder, data, out, *more):
    arguments = ["--model", folder, "--data", data, "--out", out, "--allow-partial"]
    return "run", "okvqa", *arguments, "--device", "cpu", *more


def files_of(out):
    return json.loads((out / "manifest.json").read_text())["model"]["files"]


@pytest.mark.case("environment/06")
@pytest.mark.parametrize("newer", [SINGLE, BIN])
def test_two_sets_are_refused_and_the_error_names_both(sharded, other, data, tmp_path, newer):
    """An old index beside a newer single file of either format: nothing is evaluated."""
    folder = tmp_path / "small"
    shutil.copytree(sharded, folder)
    save_file(other, folder / newer) if newer == SINGLE else torch.save(other, folder / newer)
    done = command(*asking(folder, data, tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert all(text in done.stderr for text in (INDEX, newer, "--weights"))
    assert not (tmp_path / "out" / "okvqa_val").exists()


def test_certify_refuses_them_too(both, data, tmp_path):
    """And takes the choice."""
    arguments = ("certify", "okvqa", "--model", both, "--data", data, "--out", tmp_path / "out")
    done = command(*arguments, "--device", "cpu")
    assert (2, True) == (done.returncode, "2 sets of weights" in done.stderr), done.stderr
    wrong = command(*arguments, "--device", "cpu", "--weights", "none.bin")
    assert (2, True) == (wrong.returncode, "--weights none.bin" in wrong.stderr), wrong.stderr


@pytest.mark.case("environment/06")
def test_the_user_chooses_and_the_digest_covers_that_set(sharded, both, data, tmp_path):
    """Each choice loads its own files, which the manifest lists; a finished run needs no model."""
    found = {}
    for chosen in (INDEX, SINGLE):
        done = command(*asking(both, data, tmp_path / chosen, "--weights", chosen))
        assert done.returncode == 0, done.stderr
        found[chosen] = files_of(tmp_path / chosen)
    assert found[INDEX] == find_checkpoint(sharded).digests()
    assert SINGLE in found[SINGLE]
    assert not [name for name in found[SINGLE] if "-of-" in name]
    again = command(*asking(both, data, tmp_path / INDEX, "--weights", INDEX))
    assert (0, False) == (again.returncode, "loading" in again.stderr), again.stderr
    changed = command(*asking(both, data, tmp_path / INDEX, "--weights", SINGLE))
    assert (2, True) == (changed.returncode, "model digest" in changed.stderr), changed.stderr


def test_workers_are_given_the_choice(both, data):
    """It is among the settings that a worker's process reads."""
    job = _job(Config(str(both), ("okvqa",), weights=SINGLE), Place(data, data))
    assert SINGLE == job.settings(data)["arguments"]["weights"]


def test_a_configuration_may_choose(both, data, tmp_path):
    """`weights` in a TOML file, which belongs to its model and not to another of --model."""
    file = tmp_path / "c.toml"
    file.write_text(f'model = "{both}"\ntasks = ["okvqa"]\npartial = true\nweights = "{SINGLE}"\n')
    assert SINGLE == read_config(file).weights
    arguments = ("card", file, "--data", data, "--device", "cpu")
    done = command(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert SINGLE in files_of(tmp_path / "out")
    other = command(*arguments, "--out", tmp_path / "out2", "--model", both)
    assert (2, True) == (other.returncode, "2 sets of weights" in other.stderr), other.stderr
    chosen = command(*arguments, "--out", tmp_path / "out", "--model", both, "--weights", SINGLE)
    assert chosen.returncode == 0, chosen.stderr


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/x.bin", "none.safetensors", "config.json", ""]
)
def test_a_choice_is_a_file_of_the_folder(both, data, tmp_path, name):
    """Neither a path that leaves the folder nor a file without weights."""
    done = command(*asking(both, data, tmp_path / "out", "--weights", name))
    assert (2, True) == (done.returncode, "--weights" in done.stderr), done.stderr


def test_a_file_of_any_name_can_be_chosen(sharded, other, tmp_path):
    """Weights that nothing else would find, and a folder of which nothing else is read."""
    folder = tmp_path / "small"
    shutil.copytree(sharded, folder)
    save_file(other, folder / "average-of-last.safetensors")
    model = QwenVL.from_pretrained(folder, weights="average-of-last.safetensors")
    assert torch.equal(other["lm_head.weight"], model.model.lm_head.weight)


def rename_shards(folder, count):
    """Shards of another number, which no index names."""
    for number in (1, 2):
        source = folder / f"model-{number:05d}-of-00002.safetensors"
        shutil.copy(source, folder / f"model-{number:05d}-of-{count:05d}.safetensors")


def test_leftovers_that_are_no_set(sharded, tmp_path):
    """What a trainer leaves, and a few shards of an older save, which nobody can read."""
    folder = tmp_path / "small"
    shutil.copytree(sharded, folder)
    rename_shards(folder, 3)
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"")
    (folder / "global_step500").mkdir()
    assert INDEX == find_checkpoint(folder).weights


def test_complete_shards_that_no_index_names_are_a_set(sharded, other, tmp_path):
    """New shards whose index was not copied, beside old weights; and alone."""
    folder = tmp_path / "small"
    shutil.copytree(sharded, folder)
    (folder / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"without their index.* Copy model.safetensors\.ind"):
        find_checkpoint(folder)
    save_file(other, folder / SINGLE)
    with pytest.raises(CheckpointError, match=r"2 sets.*model\.safetensors; model-00001-of-00002"):
        find_checkpoint(folder)
    assert SINGLE == find_checkpoint(folder, weights=SINGLE).weights


def test_a_revision_is_for_hub_ids(sharded, data, tmp_path):
    """With a folder it would say nothing about what is read."""
    done = command(*asking(sharded, data, tmp_path / "out", "--revision", "main"))
    assert (2, True) == (done.returncode, "--revision main" in done.stderr), done.stderr


FETCH = """
import sys
from eval.errors import EvalError
from eval.runtime.checkpoint import find_checkpoint
for asked in sys.argv[1:]:
    if asked == "down":
        print(asked, flush=True)
        input()
        continue
    name, _, weights = asked.partition("@")
    try:
        found = find_checkpoint("owner/" + name, None, weights or None)
        print(found.weights, *sorted(p.name for p in found.folder.iterdir()))
    except EvalError as error:
        print(error)
"""


def test_a_hub_gives_one_set(both, sharded, other, tmp_path):
    """`.safetensors` before `.bin`, never two; what the user chooses comes instead. No weights are
    fetched of what its small files show to be something else than a checkpoint. What was fetched
    is found when the hub is out of reach."""
    folders = {name: tmp_path / name for name in ("all", "two", "int4")}
    shutil.copytree(both, folders["all"])
    for name in ("two", "int4"):
        shutil.copytree(sharded, folders[name])
    for name in ("all", "two"):
        torch.save(other, folders[name] / BIN)
    (folders["int4"] / "quantize_config.json").write_text("{}")
    repositories = {f"owner/{name}": folder for name, folder in folders.items()}
    handler = type("Hub", (Hub,), {"folders": repositories, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = subprocess.Popen(
            [sys.executable, "-c", FETCH, "all", f"all@{BIN}", "two", "int4", "down", "two"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(server, tmp_path / "cache"),
        )
        first, chosen, two, int4, _ = (process.stdout.readline() for _ in range(5))
        server.shutdown()
    again, _ = process.communicate("\n")  # out of the cache
    assert (0, two) == (process.returncode, again)
    assert (SINGLE, False, False) == (first.split()[0], BIN in first.split(), "-of-" in first)
    assert BIN == chosen.split()[0]
    assert (INDEX, False, True) == (two.split()[0], BIN in two.split(), "-00002-of-" in two)
    assert "a quantised checkpoint" in int4
    fetched = [path for path in handler.asked if "/resolve/" in path]
    assert not [path for path in fetched if "all" in path and "-of-" in path]
    assert not [path for path in fetched if "int4" in path and "-of-" in path]
