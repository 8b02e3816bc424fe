"""Checkpoints in the published format: find the files, check them, bring the weights in.

A checkpoint is data. Weights in `.bin` files go through torch's weights-only reader, which builds
tensors and runs no code; code files of a hub repository are not even downloaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from eval.digests import Digests
from eval.errors import CheckpointError

VOCABULARY = "qwen.tiktoken"
CONFIG = "config.json"
GENERATION = "generation_config.json"
REMEMBERED = ".qwen-vl-eval.digests"
LAYOUTS = (  # tried in turn: index of shards, single file
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
DOWNLOADED = ["*.json", VOCABULARY, "*.safetensors", "pytorch_model*.bin"]
UNSPLIT = ["Block", "VisionTransformer"]  # classes that stay on one device
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SHARD_NAME = re.compile(r"[\w.-]+\.(safetensors|bin)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that holds a checkpoint, and the hub revision it came from, if any."""

    folder: Path
    name: str
    revision: str | None = None

    def digests(self, *, verify: bool = False) -> dict[str, str]:
        """sha256 of every file that decides what the model answers, by file name.

        Remembered beside the files, or in the user's cache where that cannot be written.

        verify  read all of them again
        """
        digests = Digests(_memory(self.folder), verify=verify)
        found: dict[str, str] = {}
        for name in sorted({CONFIG, VOCABULARY, *weight_files(self.folder).values()}):
            try:
                found[name] = digests.of(name, self.folder / name)
            except OSError as error:
                reason = error.strerror or "not a regular file"
                raise CheckpointError(f"{self.folder / name}: cannot be read: {reason}") from None
        digests.keep()
        return found

    def chat_format(self) -> str | None:
        """`chatml` for Qwen-VL-Chat, `raw` for Qwen-VL, None where the folder doesn't say."""
        try:
            fields = json.loads((self.folder / GENERATION).read_text(encoding="utf-8"))
            return str(fields["chat_format"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _memory(folder: Path) -> Path:
    """Where the digests of a checkpoint are remembered."""
    if os.access(folder, os.W_OK):
        return folder / REMEMBERED
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path("~/.cache/qwen-vl-eval").expanduser() / f"{place}{REMEMBERED}"


def combined_digest(digests: dict[str, str]) -> str:
    """One sha256 for a set of files, of their names and digests in order."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def find_checkpoint(path: str | Path, revision: str | None = None) -> Checkpoint:
    """A local folder, or a hub id such as Qwen/Qwen-VL at a revision, fetched where needed.

    Raises CheckpointError where there is neither.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, str(path))
    if folder.exists():
        raise CheckpointError(f"{path}: a checkpoint is a folder, and this is a file")
    if not HUB_ID.fullmatch(str(path)):
        raise CheckpointError(
            f"{path}: no such folder, and not a hub id either (a hub id reads owner/name)"
        )
    return _download(str(path), revision)


def _download(hub_id: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=DOWNLOADED))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{hub_id}: no folder of that name here, and the model hub could not provide it at "
            f"revision {revision or 'main'} ({reason}). Where there is no network, download the "
            "repository elsewhere and give its folder"
        ) from None
    return Checkpoint(folder, hub_id, folder.name)


def weight_files(folder: Path) -> dict[str, str]:
    """Which file holds each parameter, by parameter name; for a single file the key is empty.

    Raises CheckpointError where no weights lie in the folder or the index is damaged.
    """
    for index_name, single in LAYOUTS:
        index = folder / index_name
        if index.is_file():
            return _read_index(index)
        if (folder / single).is_file():
            return {"": single}
    expected = ", ".join(name for layout in LAYOUTS for name in layout)
    raise CheckpointError(f"{folder}: no weights found; one of these is expected: {expected}")


def _index(folder: Path) -> Path:
    return next(folder / name for name, _ in LAYOUTS if (folder / name).is_file())


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: not an index of shards: {error!r}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: 'weight_map' must map parameter names to shard files")
    for key, name in weight_map.items():
        if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
            raise CheckpointError(
                f"{index}: {key}: the name of a shard beside the index expected, {name!r} found"
            )
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent / name}: missing; the index has {key} in it")
    return weight_map


def load_weights(
    model: nn.Module, folder: Path, placement: dict[str, str], dtype: torch.dtype
) -> None:
    """Fill a model made on the meta device, one tensor at a time.

    placement  device of each parameter, by the longest matching module prefix ("" matches all)

    Host memory peaks at what the model keeps there plus one memory-mapped shard. Raises
    CheckpointError on the first missing or unexpected key, wrong shape, or damaged file.
    """
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    files = weight_files(folder)
    if "" not in files:
        for kind, keys in (
            ("missing", expected.keys() - files.keys()),
            ("unexpected", files.keys() - expected.keys()),
        ):
            if keys:
                first, more = min(keys), len(keys) - 1
                raise CheckpointError(
                    f"{_index(folder)}: {kind} parameter {first!r}"
                    + (f" and {more} more" if more else "")
                )
    seen: set[str] = set()
    for name in sorted(set(files.values())):
        path = folder / name
        for key, tensor in _tensors(path):
            if key not in expected or ("" not in files and files[key] != name):
                raise CheckpointError(
                    f"{path}: unexpected parameter {key!r}; the architecture has no such "
                    "parameter, or the index places it in another shard"
                )
            if tuple(tensor.shape) != expected[key]:
                raise CheckpointError(
                    f"{path}: {key}: shape {expected[key]} expected by config.json, "
                    f"{tuple(tensor.shape)} found"
                )
            if not tensor.is_floating_point():
                raise CheckpointError(f"{path}: {key}: floats expected, {tensor.dtype} found")
            device = _device_of(key, placement)
            _assign(model, key, tensor.to(device=device, dtype=dtype, copy=True))
            seen.add(key)
    for key in expected:
        if key not in seen:
            path = folder / files.get(key, files.get("", ""))
            raise CheckpointError(f"{path}: missing parameter {key!r}")


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and memory-mapped tensor of each parameter in a shard."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as shard:
                for key in shard.keys():  # noqa: SIM118  # a shard is no dict
                    yield key, shard.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(_damaged(path, error)) from None
        return
    try:
        try:
            shard = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            shard = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
        raise CheckpointError(_damaged(path, error)) from None
    if not isinstance(shard, dict) or not all(isinstance(t, Tensor) for t in shard.values()):
        raise CheckpointError(f"{path}: a mapping from parameter names to tensors expected")
    yield from shard.items()


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    return (
        f"{path}: cannot be read as weights: truncated, damaged, or more than plain tensors "
        f"({reason[0][:200] if reason else type(error).__name__}). Fetch it again"
    )


def _device_of(key: str, placement: dict[str, str]) -> str:
    matches = [p for p in placement if p == "" or key == p or key.startswith(p + ".")]
    return placement[max(matches, key=len)]


def _assign(model: nn.Module, key: str, tensor: Tensor) -> None:
    module_name, _, name = key.rpartition(".")
    module = model.get_submodule(module_name)
    setattr(module, name, nn.Parameter(tensor, requires_grad=False))


def place(model: nn.Module, device: str, dtype: torch.dtype) -> dict[str, str]:
    """Device of each part of a meta model: a single one, or accelerate's map for `auto`.

    `auto` takes the first GPU where the model fits it with a tenth to spare, several where it does
    not, and the CPU where there is no GPU. The paths with GPUs have never run on one.
    """
    if device != "auto":
        return {"": device}
    if not torch.cuda.is_available():
        return {"": "cpu"}
    need = sum(p.numel() for p in model.parameters()) * dtype.itemsize
    free, _ = torch.cuda.mem_get_info(0)
    if need < 0.9 * free:
        return {"": "cuda:0"}
    from accelerate import infer_auto_device_map

    found = infer_auto_device_map(model, dtype=dtype, no_split_module_classes=UNSPLIT)
    if "disk" in found.values():
        raise CheckpointError(
            f"the model needs {need / 2**30:.1f} GiB in {dtype}, and the GPUs and the host memory "
            "together hold less"
        )
    return {name: str(torch.device(where)) for name, where in found.items()}


def save_checkpoint(model: nn.Module, folder: Path, shards: int = 1) -> None:
    """Write the weights as `.safetensors`, split evenly by size into shards with an index."""
    from safetensors.torch import save_file

    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    total = sum(t.nbytes for t in tensors.values())
    parts: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    filled = 0
    for name, tensor in tensors.items():
        parts[min(filled * shards // total, shards - 1)][name] = tensor
        filled += tensor.nbytes
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / LAYOUTS[0][0]).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
