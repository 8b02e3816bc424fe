"""Checkpoints on disk: every layout loads to the same weights, every damage is named."""

import json
import os
import pickle
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hub_server import COMMIT, Hub, environment
from safetensors.torch import load_file, save_file
from small import CONFIG, make_checkpoint, make_model

from eval.errors import CheckpointError, EvalError, UsageError
from eval.runtime import QwenVL
from eval.runtime.checkpoint import combined_digest, find_checkpoint
from eval.runtime.config import QwenVLConfig

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path / "small")


def as_bin(folder, shards=2):
    """The same checkpoint in the layout of the published ones."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    for number, name in enumerate(sorted(set(weight_map.values())), 1):
        tensors = load_file(folder / name)
        (folder / name).unlink()
        new = f"pytorch_model-{number:05d}-of-{shards:05d}.bin"
        torch.save(tensors, folder / new)
        weight_map = {k: new if v == name else v for k, v in weight_map.items()}
    (folder / INDEX).unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def same_weights(model, seed=0):
    expected = dict(make_model(seed).named_parameters())
    found = dict(model.model.named_parameters())
    return expected.keys() == found.keys() and all(
        torch.equal(expected[name], found[name]) for name in expected
    )


@pytest.mark.parametrize("layout", ["safetensors", "single", "bin", "single bin", "old bin"])
def test_every_layout_loads(folder, layout):
    """Sharded or single, safetensors or torch's zip or its older form: the same weights."""
    if layout in ("single", "single bin"):
        make_checkpoint(folder, shards=1)
        for name in folder.glob("*-of-00002*"):
            name.unlink()
        (folder / INDEX).unlink()
        whole = folder / "model-00001-of-00001.safetensors"
        whole.rename(folder / "model.safetensors")
        if layout == "single bin":
            torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
    elif "bin" in layout:
        as_bin(folder)
        if layout == "old bin":
            for path in folder.glob("*.bin"):
                tensors = torch.load(path, weights_only=True)
                torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert same_weights(QwenVL.from_pretrained(folder))


def test_no_state_is_left_to_chance(folder):
    """Two loads of one checkpoint give the same logits to the bit; the model holds no buffer."""
    first, second = (QwenVL.from_pretrained(folder) for _ in range(2))
    assert not list(first.model.buffers())
    assert torch.equal(first.next_token_logits(["hello"]), second.next_token_logits(["hello"]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_take_the_dtype(folder, dtype):
    """A float32 checkpoint loads in half precision, and computes in it."""
    model = QwenVL.from_pretrained(folder, dtype=dtype)
    assert {getattr(torch, dtype)} == {p.dtype for p in model.model.parameters()}
    logits = model.next_token_logits(["hello"])
    assert logits.dtype == getattr(torch, dtype)
    full = QwenVL.from_pretrained(folder).next_token_logits(["hello"])
    assert torch.allclose(full, logits.float(), atol=0.15 * float(full.abs().max()))


def edit_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def edit_shard(folder, change, number=1):
    path = folder / f"model-{number:05d}-of-00002.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


WTE, HEAD = "transformer.wte.weight", "lm_head.weight"


def damage_missing_key(folder):
    edit_index(folder, lambda m: m.pop(HEAD))
    return INDEX, f"missing parameter '{HEAD}'"


def damage_unexpected_key(folder):
    edit_index(folder, lambda m: m.update({"transformer.x": m[WTE]}))
    edit_shard(folder, lambda t: t.update({"transformer.x": t[WTE].clone()}))
    return "model-00001-of-00002.safetensors", "unexpected parameter 'transformer.x'"


def damage_one_more_layer(folder):
    edit_index(folder, lambda m: m.update({"transformer.h.2.ln_1.weight": m[WTE]}))
    edit_shard(folder, lambda t: t.update({"transformer.h.2.ln_1.weight": t[WTE].clone()}))
    return "config.json", "num_hidden_layers is 2, and the weights have 3 layers"


def damage_key_lacks_in_shard(folder):
    edit_shard(folder, lambda t: t.pop(WTE))
    return "model-00001-of-00002.safetensors", f"missing parameter '{WTE}'"


def damage_shape(folder):
    edit_shard(folder, lambda t: t.update({WTE: t[WTE][1:].clone()}))
    return "config.json", "vocab_size asks for 480"


def damage_integers(folder):
    edit_shard(folder, lambda t: t.update({WTE: t[WTE].long()}))
    return "model-00001-of-00002.safetensors", "the dtype is I64"


def damage_truncated(folder):
    path = folder / "model-00002-of-00002.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    return path.name, "truncated"


def damage_shard_missing(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "model-00002-of-00002.safetensors", "missing"


def damage_path_escapes(folder):
    edit_index(folder, lambda m: m.update({HEAD: "../model-00001-of-00002.safetensors"}))
    return INDEX, "not the name of a shard beside the index"


def damage_index_text(folder):
    (folder / INDEX).write_text("{")
    return INDEX, "not JSON"


def damage_other_model(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "llama"}))
    return "config.json", "model_type 'llama'"


def damage_text_only(folder):
    (folder / "config.json").write_text(json.dumps({k: CONFIG[k] for k in CONFIG if k != "visual"}))
    return "config.json", "without 'visual'"


def damage_huge(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 10**15}))
    return "config.json", "vocab_size"


def damage_sizes(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"kv_channels": 32}))
    return "config.json", "num_attention_heads"


def damage_config_text(folder):
    (folder / "config.json").write_bytes(b"\xff{")
    return "config.json", "JSON"


def damage_no_config(folder):
    (folder / "config.json").unlink()
    return "config.json", "missing"


def damage_no_weights(folder):
    for path in folder.glob("model*"):
        path.unlink()
    return str(folder), "no weights found"


def damage_no_index(folder):
    (folder / INDEX).unlink()
    return str(folder), "shards without their index"


def damage_vocabulary(folder):
    (folder / "qwen.tiktoken").write_text("AA== 0\n")
    return "qwen.tiktoken", ""


def damage_vocabulary_of_another(folder):
    config = json.loads(json.dumps(CONFIG))
    config["visual"]["image_start_id"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    return "qwen.tiktoken", "<img>"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.removeprefix("damage_"))
def test_damage_is_named(folder, damage):
    """One clear error that names the file and the key, whatever is wrong."""
    file, reason = damage(folder)
    with pytest.raises(CheckpointError) as error:
        QwenVL.from_pretrained(folder)
    assert file in str(error.value)
    assert reason in str(error.value)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_code_is_never_run(folder, monkeypatch, tmp_path, zipped):
    """A `.bin` that carries code is refused, and the code does not run."""
    monkeypatch.chdir(tmp_path)
    as_bin(folder)
    path = folder / "pytorch_model-00001-of-00002.bin"
    if zipped:
        torch.save({WTE: Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({WTE: Bomb()}, protocol=2))
    with pytest.raises(CheckpointError, match="pytorch_model-00001"):
        QwenVL.from_pretrained(folder)
    assert not (tmp_path / "exploded").exists()


def test_python_files_in_a_checkpoint_are_ignored(folder):
    """No remote code: a modeling file beside the weights is not imported."""
    (folder / "modeling_qwen.py").write_text("raise SystemExit('ran')")
    config = CONFIG | {"auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert same_weights(QwenVL.from_pretrained(folder))


def test_hub_id_without_network(monkeypatch):
    """A hub id fails with one plain message where there is no network."""
    code = (
        "from eval.runtime import QwenVL\n"
        "from eval.errors import CheckpointError\n"
        "try: QwenVL.from_pretrained('Qwen/Qwen-VL')\n"
        "except CheckpointError as error: print(error)"
    )
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": "/nonexistent",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert "Qwen/Qwen-VL: no folder of that name here" in done.stdout
    assert "no network" in done.stdout


def test_hub_id_is_fetched_without_its_code(folder, tmp_path):
    """A hub id is downloaded at a commit that is recorded; files of code stay where they are."""
    (folder / "modeling_qwen.py").write_text("raise SystemExit('ran')")
    handler = type("Hub", (Hub,), {"folders": {"owner/name": folder}, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = (
            "from eval.runtime import QwenVL\n"
            "model = QwenVL.from_pretrained('owner/name', revision='main')\n"
            "print(model.checkpoint.revision, model.generate(['hello'], 4)[0].ids)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment(server, tmp_path / "cache"),
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    expected = QwenVL.from_pretrained(folder).generate(["hello"], 4)[0].ids
    assert f"{COMMIT} {expected}" == done.stdout.strip()
    assert any("model-00002" in path for path in handler.asked)
    assert not any(path.endswith(".py") for path in handler.asked)


@pytest.mark.parametrize("path", ["no/such/folder", "", "nothing-here"])
def test_path_that_is_nothing(path, tmp_path, monkeypatch):
    """A path that is neither folder nor hub id says so."""
    monkeypatch.chdir(tmp_path)
    if path == "":
        (tmp_path / "file").write_text("")
        path = "file"
    with pytest.raises(EvalError, match=path):
        find_checkpoint(path)


@pytest.mark.parametrize("arguments", [{"device": "tpu"}, {"device": "cuda:99"}, {"dtype": "int8"}])
def test_device_and_dtype_are_checked(folder, arguments):
    """A device that is not there, or a dtype that cannot be computed in, is named."""
    with pytest.raises(UsageError, match=next(iter(arguments.values()))):
        QwenVL.from_pretrained(folder, **arguments)


def test_digest_follows_content(folder, tmp_path):
    """The digest is that of the files' content: the same after a move, another after a change."""
    before = combined_digest(find_checkpoint(folder).digests())
    moved = folder.rename(tmp_path / "elsewhere")
    assert before == combined_digest(find_checkpoint(moved).digests())
    make_checkpoint(moved, seed=1)
    assert before != combined_digest(find_checkpoint(moved).digests())


def test_unknown_fields_are_ignored_and_missing_switches_default(folder):
    """A config with fields of the future loads; the dtype switches may be missing."""
    config = QwenVLConfig.from_folder(folder)
    assert CONFIG["hidden_size"] == config.hidden_size
    assert config.use_dynamic_ntk is True


PEAK = """
import resource, sys
from eval.runtime import QwenVL
from eval.runtime.config import QwenVLConfig
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
QwenVL.from_pretrained(sys.argv[1], dtype=sys.argv[2])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_memory_is_the_model_and_one_shard(tiny_checkpoint, tmp_path, layout, dtype):
    """Loading adds at most the model plus one shard to the process, with 48 MB to spare."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    if layout == "bin":
        as_bin(folder)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder), dtype], capture_output=True, text=True, check=True
    )
    shards = [p.stat().st_size for p in folder.glob(f"*.{layout}")]
    model = sum(shards) / (2 if dtype == "bfloat16" else 1)
    assert int(done.stdout) <= model + max(shards) + 48 * 2**20
