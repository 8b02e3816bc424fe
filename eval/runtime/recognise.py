"""Recognises what users give in place of a Qwen-VL checkpoint, and names the remedy.

Three tables: folders, configurations of other models, names of parameters. A row has what to look
for and the message. Support for one of these replaces its row.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from eval.errors import CheckpointError
from eval.storage.reading import exists, open_file, parse_json, read_bytes

CONFIG = "config.json"
GENERATION = "generation_config.json"
VOCABULARY = "qwen.tiktoken"
ADAPTER = "adapter_config.json"
MAX_WEIGHT_BYTES = 1 << 50
MAX_JSON_BYTES = 4_000_000
SNIFFED = 200  # bytes at the begin of a file that show what it is

FORMAT = (
    f"A checkpoint is a folder in the published Qwen-VL format: {CONFIG}, {VOCABULARY}, and "
    "weights in .safetensors or pytorch_model*.bin"
)
MERGE = (
    "Merge it first (peft: model.merge_and_unload(), then save_pretrained), and copy "
    f"{VOCABULARY} from the base model"
)
FLOATS = "Quantised weights are not supported: give the checkpoint in bfloat16, float16 or float32"
GATHER = (
    "In the folder that has zero_to_fp32.py run: python zero_to_fp32.py . pytorch_model.bin; or "
    "train with stage3_gather_16bit_weights_on_model_save"
)


class Folder(NamedTuple):
    """A folder as the table sees it.

    names   of its files and folders
    config  fields of its config.json; empty where there is none that can be read
    choice  the file with weights that the user chose, if any
    """

    path: Path
    names: frozenset[str]
    config: Mapping[str, Any]
    choice: str | None

    def first(self, pattern: str) -> str | None:
        """The first name that matches the whole pattern."""
        return min((n for n in self.names if re.fullmatch(pattern, n)), default=None)

    def has_weights(self) -> bool:
        """Whether some of its files look like the published format's weights."""
        known = r"(model|pytorch_model)(-.*)?\.(safetensors|bin)(\.index\.json)?"
        return bool(self.choice or self.first(known))


class Kind(NamedTuple):
    """A row of the table of folders.

    sign  finds what gives it away, which the message shows
    what  and `remedy` may hold {sign}
    """

    sign: Callable[[Folder], str | None]
    what: str
    remedy: str


def _adapter(folder: Folder) -> str | None:
    """A file of an adapter, and its base model as far as its configuration names it."""
    if folder.choice and not folder.choice.startswith("adapter_"):
        return None
    sign = ADAPTER if ADAPTER in folder.names else folder.first(r"adapter_model.*")
    if sign is None:
        return None
    base = _fields(folder.path / ADAPTER).get("base_model_name_or_path")
    return f"{sign}, of the base model {base:.200}" if isinstance(base, str) and base else sign


def _quantised(folder: Folder) -> str | None:
    """The file or the field that says how the weights were quantised."""
    files = r"quant(ize)?_config\.json|(gptq|awq)_model.*|.*-[48]bit.*\.(safetensors|bin|pt)"
    if sign := folder.first(files):
        return sign
    found = folder.config.get("quantization_config")
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else None
    return f"quantization_config in {CONFIG}" + (f", {method!s:.40}" if method else "")


def _deepspeed(folder: Folder) -> str | None:
    if folder.has_weights():
        return None
    signs = r"(mp_rank|zero_pp_rank|bf16_zero_pp_rank)_.*|global_step\d+|zero_to_fp32\.py|latest"
    return folder.first(signs)


def _fsdp(folder: Folder) -> str | None:
    if folder.has_weights():
        return None
    return folder.first(r".*\.distcp|\.metadata|pytorch_model_fsdp_\d+|.*_fsdp.*\.bin")


def _snapshot(folder: Folder) -> str | None:
    """The newest commit below the root of a hub's cache, as a path."""
    place = folder.path / "snapshots"
    if CONFIG in folder.names or not ({"snapshots", "blobs", "refs"} & folder.names):
        return None
    commits = _subfolders(place)
    try:
        main = read_bytes(folder.path / "refs" / "main", CheckpointError, 100).decode("ascii")
    except (CheckpointError, ValueError):
        main = ""
    commit = main if main in commits else next(iter(commits), None)
    return str(place / commit) if commit else None


def _below(folder: Folder) -> str | None:
    """Subfolders that are checkpoints, where the folder itself is none."""
    if CONFIG in folder.names and folder.has_weights():
        return None
    found = [
        str(folder.path / name)
        for name in _subfolders(folder.path)
        if any(exists(folder.path / name / file) for file in (CONFIG, ADAPTER, "snapshots"))
    ]
    return " or ".join(found[:3]) + (f" or {len(found) - 3} more" if found[3:] else "") or None


def _above(folder: Folder) -> str | None:
    """The parent folder, where that is a checkpoint and this one a part of it."""
    above = folder.path.resolve().parent
    if CONFIG in folder.names or folder.has_weights() or not exists(above / CONFIG):
        return None
    return str(above) if _fields(above / CONFIG).get("model_type") == "qwen" else None


def _gguf(folder: Folder) -> str | None:
    return None if folder.has_weights() else folder.first(r".*\.(gguf|ggml)")


def _other_format(folder: Folder) -> str | None:
    if folder.has_weights():
        return None
    kept_by_trainers = r"(training_args|optimizer|scheduler|rng_state|scaler).*"
    formats = r"(safetensors|bin|pth|pt|ckpt|h5|msgpack|onnx|npz)"
    return folder.first(rf"(?!{kept_by_trainers}).*\.{formats}")


FOLDERS = (
    Kind(_adapter, "a LoRA adapter ({sign}), which is a part of a model", MERGE),
    Kind(_snapshot, "the root of a model in a hub's cache", "Give the commit's folder: {sign}"),
    Kind(_quantised, "a quantised checkpoint ({sign})", FLOATS),
    Kind(_below, "not a checkpoint itself, but holds some", "Give one: {sign}"),
    Kind(_deepspeed, "a checkpoint of DeepSpeed ({sign}) in pieces", GATHER),
    Kind(
        _fsdp,
        "a checkpoint of FSDP ({sign}) in pieces",
        "Run: accelerate merge-weights FOLDER OUT; then copy the other files into OUT",
    ),
    Kind(_above, "a part of a checkpoint", "Give the folder above: {sign}"),
    Kind(_gguf, "a GGUF checkpoint of llama.cpp ({sign})", "Give the checkpoint it was made of"),
    Kind(
        _other_format,
        "without weights in the published format; it has {sign}",
        "Weights are called model.safetensors or pytorch_model.bin, or are shards with an index. "
        "If this is such a file under another name, choose it with --weights",
    ),
)

MODELS = {  # model_type -> the name that people know
    "qwen": "a Qwen language model, without a vision tower",
    "qwen2": "a Qwen2 or Qwen2.5 language model",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3": "a Qwen3 language model",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL",
    "qwen2_audio": "Qwen2-Audio",
    "qwen2_5_omni": "Qwen2.5-Omni",
    "llava": "LLaVA",
    "internvl_chat": "InternVL",
}

KEYS = (  # what parameters' names tell, what that is, and the remedy
    (r"\.lora_|\.base_layer\.", "of a LoRA adapter that is not merged", MERGE),
    (
        r"\.(qweight|qzeros|g_idx|SCB|absmax|quant_map)$|\.quant_state\.",
        "of quantised layers",
        FLOATS,
    ),
    (
        r"^(wte|ln_f|h\.\d+|visual)\.",
        "without the prefix 'transformer.'",
        "This is the state of the model's inner part; save that of the whole model",
    ),
)
WRAPPED = r"((_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.)"
PREFIX = r"(?!transformer\.)(.+?)(transformer\.(wte|ln_f|h|visual)\.|lm_head\.weight)"
WRAPPERS = {
    "module.": "DataParallel or DeepSpeed",
    "_forward_module.": "Lightning",
    "_orig_mod.": "torch.compile",
    "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
}
NESTED = ("state_dict", "model_state_dict", "model", "module")  # under which trainers put weights


def refuse_folder(path: Path, names: frozenset[str], choice: str | None = None) -> None:
    """Raise CheckpointError for a folder that is recognised as something else, or lacks files."""
    folder = Folder(path, names, _fields(path / CONFIG) if CONFIG in names else {}, choice)
    if folder.config:
        refuse_config(path / CONFIG, folder.config)
    for kind in FOLDERS:
        if sign := kind.sign(folder):
            what, remedy = kind.what.format(sign=sign), kind.remedy.format(sign=sign)
            raise CheckpointError(f"{path}: this is {what}. {remedy}")
    for file, why in ((CONFIG, FORMAT), (VOCABULARY, "Copy it from the base model's folder")):
        if file not in names:
            raise CheckpointError(f"{path / file}: missing. {why}")


def refuse_file(path: Path) -> None:
    """Raise CheckpointError for a file in place of a checkpoint's folder."""
    above = path.parent
    if path.suffix in (".gguf", ".ggml"):
        hint = "this is a GGUF file of llama.cpp; give the folder of the checkpoint it was made of"
    elif path.name.endswith((".safetensors", ".bin", ".index.json")):
        hint = f"give its folder, and choose the file: --model {above} --weights {path.name}"
    elif exists(above / CONFIG):
        hint = f"give its folder, {above}"
    else:
        hint = FORMAT
    raise CheckpointError(f"{path}: a checkpoint is a folder, and this is a file; {hint}")


def refuse_placeholder(path: Path, begin: bytes) -> None:
    """Raise CheckpointError for a file that stands for another: a pointer, or an error page."""
    if begin.startswith((b"version https://git-lfs", b"version https://hawser")):
        raise CheckpointError(
            f"{path}: this is a Git LFS pointer, not the file. Run 'git lfs pull' in {path.parent}"
        )
    if begin.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{path}: this is a web page, from a failed download. Fetch it again")


def refuse_unreadable(path: Path, names: Collection[str]) -> None:
    """Raise CheckpointError for a file that cannot be opened, is no regular one, or a pointer."""
    for name in sorted(names):
        file = path / name
        if file.is_symlink() and not exists(file):
            raise CheckpointError(
                f"{file}: a link to a file that is missing; the download is incomplete. Fetch the "
                "checkpoint again"
            )
        if not os.access(file, os.R_OK):
            raise CheckpointError(
                f"{file}: you have no permission to read it. Run 'chmod u+r', or ask its owner"
            )
        with open_file(file, CheckpointError, MAX_WEIGHT_BYTES) as opened:
            refuse_placeholder(file, opened.read(SNIFFED))


def refuse_config(path: Path, fields: Mapping[str, Any]) -> None:
    """Raise CheckpointError for the configuration of another model, naming that."""
    kind = fields.get("model_type")
    if kind == "qwen" and isinstance(fields.get("visual"), dict):
        return
    names = fields.get("architectures")
    shown = f" ({names[0]!s:.60})" if isinstance(names, list) and names else ""
    known = MODELS.get(kind) if isinstance(kind, str) and "visual" not in fields else None
    raise CheckpointError(
        f"{path}: this is {known or 'another model'}{shown}: model_type {kind!r:.60} "
        f"{'with' if 'visual' in fields else 'without'} 'visual'. Only Qwen-VL and Qwen-VL-Chat "
        "can be loaded: model_type 'qwen' with a 'visual' section"
    )


def refuse_keys(where: Path, keys: Collection[str]) -> None:
    """Raise CheckpointError for names of parameters that tell of a wrapper or a quantiser."""
    for pattern, what, remedy in KEYS:
        if key := min((key for key in keys if re.search(pattern, key)), default=None):
            raise CheckpointError(f"{where}: parameters {what} ({key!r:.100}). {remedy}")
    for key in keys:
        if match := re.search(WRAPPED, key) or re.match(PREFIX, key):
            who = next((w for p, w in WRAPPERS.items() if match[1].startswith(p)), "a wrapper")
            raise CheckpointError(
                f"{where}: the parameters' names have the prefix {match[1]!r:.80} of {who} "
                f"({key!r:.100}). Save the state of the model inside it, or rename the parameters "
                "without the prefix"
            )


def refuse_shape(path: Path, key: str, shape: tuple[int, ...]) -> None:
    """Raise CheckpointError for a tensor that is empty, as ZeRO-3 leaves them."""
    if 0 in shape:
        raise CheckpointError(
            f"{path}: {key}: empty, shape {shape}; DeepSpeed's ZeRO-3 leaves such tensors where it "
            f"does not gather the weights. {GATHER}"
        )


def refuse_nested(path: Path, found: Mapping[Any, Any]) -> None:
    """Raise CheckpointError where weights lie below a key, beside what else a trainer keeps."""
    for name in NESTED:
        if isinstance(found.get(name), dict):
            raise CheckpointError(
                f"{path}: the weights lie below the key {name!r}, as a trainer keeps them. Save "
                "that mapping alone"
            )


def why_missing(keys: Set[str]) -> str:
    """Why parameters may be missing, and what to do; empty where that is not known."""
    if keys <= {"lm_head.weight", "transformer.wte.weight"}:
        return (
            ". Qwen-VL's lm_head and wte are not tied, and fine-tuning scripts may leave them out. "
            "Save both, or take them from the base model where they were not trained"
        )
    return ""


def _fields(path: Path) -> Mapping[str, Any]:
    """Fields of a JSON file; none where it cannot be read, which its own reader says."""
    try:
        fields = parse_json(
            read_bytes(path, CheckpointError, MAX_JSON_BYTES), str(path), CheckpointError
        )
    except CheckpointError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _subfolders(path: Path) -> list[str]:
    """Names of subfolders, the one changed last first; none where they cannot be listed."""
    try:
        found = [entry for entry in path.iterdir() if entry.is_dir()]
        return [p.name for p in sorted(found, key=lambda p: (-p.stat().st_mtime, p.name))]
    except OSError:
        return []
