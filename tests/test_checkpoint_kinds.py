"""What people give in place of a checkpoint: recognised by name, with the remedy, exit code 2."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import CONFIG, command, make_checkpoint, make_data

from eval.errors import CheckpointError
from eval.runtime import QwenVL
from eval.runtime.checkpoint import find_checkpoint

SINGLE, INDEX, BIN = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 4731624\n"
ADAPTER = {"base_model_name_or_path": "Qwen/Qwen-VL-Chat", "peft_type": "LORA", "r": 64}
NOBODY = 65534


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("sharded") / "small")


@pytest.fixture(scope="module")
def tensors(sharded):
    return {k: v for f in sharded.glob("model-*.safetensors") for k, v in load_file(f).items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), 3)


@pytest.fixture
def folder(sharded, tmp_path):
    """A checkpoint without its weights; tests put something there."""
    path = tmp_path / "checkpoint"
    shutil.copytree(sharded, path, ignore=shutil.ignore_patterns("model*", ".*"))
    return path


def refused(path, weights=None):
    with pytest.raises(CheckpointError) as caught:
        QwenVL.from_pretrained(path, weights=weights)
    return str(caught.value)


def configure(folder, **fields):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))


def lora(folder, tensors):
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    save_file({key: torch.zeros(4, 64)}, folder / "adapter_model.safetensors")


def lora_beside_weights(folder, tensors):
    lora(folder, tensors)
    configure(folder)
    (folder / "qwen.tiktoken").touch()
    save_file(tensors, folder / SINGLE)


def gptq(folder, tensors):
    words = dict(tensors)
    stem = "transformer.h.0.attn.c_attn."
    shape = words.pop(f"{stem}weight").shape
    words[f"{stem}qweight"] = torch.zeros(shape[1] // 8, shape[0], dtype=torch.int32)
    words[f"{stem}g_idx"] = torch.zeros(shape[1], dtype=torch.int32)
    save_file(words, folder / SINGLE)


def gptq_file(folder, tensors):
    gptq(folder, tensors)
    (folder / SINGLE).rename(folder / "gptq_model-4bit-128g.safetensors")


def quantize_config(folder, tensors):
    save_file(tensors, folder / SINGLE)
    (folder / "quantize_config.json").write_text("{}")


def awq(folder, tensors):
    save_file(tensors, folder / SINGLE)
    configure(folder, quantization_config={"quant_method": "awq"})


def bitsandbytes(folder, tensors):
    key = "transformer.h.0.attn.c_attn.weight"
    save_file({**tensors, f"{key}.quant_state.bitsandbytes__nf4": torch.zeros(1)}, folder / SINGLE)


def eight_bits(folder, tensors):
    few = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in tensors.items()}
    save_file(few, folder / SINGLE)


def deepspeed(folder, tensors):
    (folder / "latest").write_text("global_step100")
    (folder / "global_step100").mkdir()
    (folder / "zero_to_fp32.py").touch()


def deepspeed_step(folder, tensors):
    for path in folder.iterdir():
        path.unlink()
    torch.save({"module": {}}, folder / "mp_rank_00_model_states.pt")


def fsdp(folder, tensors):
    for path in folder.iterdir():
        path.unlink()
    (folder / ".metadata").touch()
    (folder / "__0_0.distcp").touch()


def fsdp_trainer(folder, tensors):
    (folder / "pytorch_model_fsdp_0").mkdir()


def lfs_weights(folder, tensors):
    (folder / SINGLE).write_text(POINTER)


def lfs_vocabulary(folder, tensors):
    save_file(tensors, folder / SINGLE)
    (folder / "qwen.tiktoken").write_text(POINTER)


def lfs_index(folder, tensors):
    (folder / INDEX).write_text(POINTER)


def lfs_config(folder, tensors):
    save_file(tensors, folder / SINGLE)
    (folder / "config.json").write_text(POINTER)


def web_page(folder, tensors):
    (folder / BIN).write_text("<!DOCTYPE html><html><title>404</title>")


def zero_3(folder, tensors):
    torch.save({key: torch.zeros(0) for key in tensors}, folder / BIN)


def data_parallel(folder, tensors):
    torch.save({f"module.{key}": tensor for key, tensor in tensors.items()}, folder / BIN)


def compiled(folder, tensors):
    save_file({f"_orig_mod.{key}": tensor for key, tensor in tensors.items()}, folder / SINGLE)


def compiled_blocks(folder, tensors):
    names = {key: key.replace("transformer.h.0.", "transformer.h.0._orig_mod.") for key in tensors}
    save_file({names[key]: tensor for key, tensor in tensors.items()}, folder / SINGLE)


def peft(folder, tensors):
    save_file({f"base_model.model.{k}": tensor for k, tensor in tensors.items()}, folder / SINGLE)


def peft_unmerged(folder, tensors):
    more = {"transformer.h.0.attn.c_attn.lora_A.default.weight": torch.zeros(1)}
    save_file(tensors | more, folder / SINGLE)


def lightning(folder, tensors):
    torch.save({f"model.{key}": tensor for key, tensor in tensors.items()}, folder / BIN)


def inner_part(folder, tensors):
    save_file({k.removeprefix("transformer."): v for k, v in tensors.items()}, folder / SINGLE)


def nested(folder, tensors):
    torch.save({"state_dict": tensors, "epoch": 1}, folder / BIN)


def without_head(folder, tensors):
    save_file({k: v for k, v in tensors.items() if k != "lm_head.weight"}, folder / SINGLE)


def hub_cache(folder, tensors):
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in (*folder.glob("*.json"), folder / "qwen.tiktoken"):
        path.rename(snapshot / path.name)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)


def broken_link(folder, tensors):
    (folder / SINGLE).symlink_to("../../blobs/gone")


def above(folder, tensors):
    (folder / "checkpoint-500").mkdir()
    for path in (*folder.glob("*.json"), folder / "qwen.tiktoken"):
        path.rename(folder / "checkpoint-500" / path.name)


def gguf(folder, tensors):
    (folder / "qwen-vl.gguf").touch()


def other_format(folder, tensors):
    for name in ("consolidated.00.pth", "training_args.bin"):
        (folder / name).touch()


def no_vocabulary(folder, tensors):
    save_file(tensors, folder / SINGLE)
    (folder / "qwen.tiktoken").unlink()


def no_config(folder, tensors):
    save_file(tensors, folder / SINGLE)
    (folder / "config.json").unlink()


def successor(folder, tensors):
    fields = {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(fields))


def language_model(folder, tensors):
    fields = {key: value for key, value in CONFIG.items() if key != "visual"}
    (folder / "config.json").write_text(json.dumps(fields))


def renamed_shard(folder, tensors):
    make_checkpoint(folder)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.rename(folder / "model-00002-of-00002 (1).safetensors")


KINDS = {
    lora: ("a LoRA adapter (adapter_config.json, of the base model Qwen/Qwen-VL-Chat)", "Merge"),
    lora_beside_weights: ("a LoRA adapter", "qwen.tiktoken"),
    gptq: ("parameters of quantised layers", "bfloat16, float16 or float32"),
    gptq_file: ("a quantised checkpoint (gptq_model-4bit-128g.safetensors)", "bfloat16"),
    quantize_config: ("a quantised checkpoint (quantize_config.json)", "bfloat16"),
    awq: ("a quantised checkpoint (quantization_config in config.json, awq)", "bfloat16"),
    bitsandbytes: ("parameters of quantised layers", "bfloat16"),
    eight_bits: ("F8_E4M3", "quantised"),
    deepspeed: ("DeepSpeed (global_step100)", "python zero_to_fp32.py . pytorch_model.bin"),
    deepspeed_step: ("DeepSpeed (mp_rank_00_model_states.pt)", "zero_to_fp32.py"),
    fsdp: ("FSDP (.metadata)", "accelerate merge-weights"),
    fsdp_trainer: ("FSDP (pytorch_model_fsdp_0)", "accelerate merge-weights"),
    lfs_weights: ("model.safetensors: this is a Git LFS pointer", "git lfs pull"),
    lfs_vocabulary: ("qwen.tiktoken: this is a Git LFS pointer", "git lfs pull"),
    lfs_index: ("model.safetensors.index.json: this is a Git LFS pointer", "git lfs pull"),
    lfs_config: ("config.json: this is a Git LFS pointer", "git lfs pull"),
    web_page: ("pytorch_model.bin: this is a web page", "Fetch it again"),
    zero_3: ("empty, shape (0,)", "stage3_gather_16bit_weights_on_model_save"),
    data_parallel: ("the prefix 'module.' of DataParallel or DeepSpeed", "without the prefix"),
    compiled: ("the prefix '_orig_mod.' of torch.compile", "without the prefix"),
    compiled_blocks: ("the prefix '_orig_mod.' of torch.compile", "without the prefix"),
    peft: ("the prefix 'base_model.model.' of peft", "without the prefix"),
    peft_unmerged: ("of a LoRA adapter that is not merged", "Merge"),
    lightning: ("the prefix 'model.' of a wrapper", "without the prefix"),
    inner_part: ("without the prefix 'transformer.'", "save that of the whole model"),
    nested: ("below the key 'state_dict'", "Save that mapping alone"),
    without_head: ("missing parameter 'lm_head.weight'", "from the base model"),
    hub_cache: ("the root of a model in a hub's cache", f"snapshots/{COMMIT}"),
    broken_link: ("a link to a file that is missing", "Fetch the checkpoint again"),
    above: ("not a checkpoint itself", "checkpoint-500"),
    gguf: ("a GGUF checkpoint of llama.cpp (qwen-vl.gguf)", "it was made of"),
    other_format: ("consolidated.00.pth", "model.safetensors or pytorch_model.bin"),
    no_vocabulary: ("qwen.tiktoken: missing", "the base model's folder"),
    no_config: ("config.json: missing", "the published Qwen-VL format"),
    successor: ("Qwen2.5-VL (Qwen2_5_VLForConditionalGeneration)", "Only Qwen-VL and Qwen-VL-Chat"),
    language_model: ("a Qwen language model, without a vision tower", "with a 'visual' section"),
    renamed_shard: (
        "00002-of-00002.safetensors: missing",
        "'model-00002-of-00002 (1).safetensors'",
    ),
}


@pytest.mark.case("environment/09")
@pytest.mark.case("environment/10")
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_kind_is_named_with_its_remedy(folder, tensors, make):
    """One error that says what it is, where, and what to do."""
    make(folder, tensors)
    what, remedy = KINDS[make]
    message = refused(folder)
    assert message.startswith(str(folder))
    assert what in message
    assert remedy in message


@pytest.mark.case("environment/09")
@pytest.mark.case("environment/10")
@pytest.mark.parametrize("make", [lora, gptq, deepspeed, lfs_weights, zero_3, hub_cache])
def test_the_command_exits_with_2(folder, tensors, data, tmp_path, make):
    """An input that is wrong, not a failure of the program."""
    make(folder, tensors)
    asked = ("run", "okvqa", "--model", folder, "--data", data, "--out", tmp_path / "out")
    done = command(*asked, "--allow-partial", "--device", "cpu")
    assert (2, True) == (done.returncode, KINDS[make][0] in " ".join(done.stderr.split()))


@pytest.mark.case("environment/10")
def test_a_file_that_cannot_be_read_is_named_with_the_permission(sharded, tmp_path, monkeypatch):
    """As another user: neither the file's content nor torch is blamed."""
    if os.geteuid():
        pytest.skip("only root can become another user")
    shutil.copytree(sharded, tmp_path / "small")
    tmp_path.chmod(0o755)
    for file in (tmp_path / "small").iterdir():
        file.chmod(0o644)
    (tmp_path / "small" / "model-00002-of-00002.safetensors").chmod(0)
    monkeypatch.chdir(tmp_path)  # its parents are closed to others
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            find_checkpoint("small")
        except BaseException as error:
            os.write(writer, f"{type(error).__name__} {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    assert message.startswith("CheckpointError small/model-00002-of-00002.safetensors: ")
    assert "no permission to read it" in message


def test_a_folder_below_the_right_one(folder, tensors):
    """A step of DeepSpeed inside a checkpoint names the folder above; so do other parts of one."""
    save_file(tensors, folder / SINGLE)
    (folder / "logs").mkdir()
    assert f"Give the folder above: {folder}" in refused(folder / "logs")


@pytest.mark.parametrize("name", [SINGLE, BIN, INDEX, "config.json", "x.gguf"])
def test_a_file_in_place_of_a_folder(folder, name):
    """The error names the folder, and the option that chooses the file."""
    (folder / name).touch()
    message = refused(folder / name)
    assert "a checkpoint is a folder, and this is a file" in message
    if name in (SINGLE, BIN, INDEX):
        assert f"--model {folder} --weights {name}" in message


def test_an_adapter_beside_weights_that_are_chosen(folder, tensors):
    """--weights says that the whole model is meant."""
    lora_beside_weights(folder, tensors)
    make_checkpoint(folder)
    assert find_checkpoint(folder, weights=SINGLE).weights == SINGLE


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/x", "a" * 5000, "x\0y", "a/b/c"])
def test_paths_that_no_folder_can_have(path):
    """An error of ours, of bounded length."""
    message = refused(path)
    assert len(message) < 500


def test_leftovers_of_a_trainer_are_no_obstacle(folder, tensors):
    """A whole checkpoint beside what DeepSpeed and the trainer keep to go on is a checkpoint."""
    deepspeed(folder, tensors)
    save_file(tensors, folder / SINGLE)
    for name in ("training_args.bin", "trainer_state.json", "scheduler.pt", "rng_state_0.pth"):
        (folder / name).touch()
    assert find_checkpoint(Path(folder)).weights == SINGLE
