"""Checkpoints in the published format: find the files, check them, bring the weights in.

A checkpoint is data. Weights in `.bin` files go through torch's weights-only reader, which builds
tensors and runs no code; code files of a hub repository are not even downloaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.errors import CheckpointError, UsageError
from eval.runtime import hub, recognise
from eval.runtime.recognise import CONFIG, GENERATION, MAX_JSON_BYTES, VOCABULARY
from eval.runtime.weights import SETS, Stored, choose_weights, stored_tensors, tensors, weight_files
from eval.storage.digests import Digests
from eval.storage.reading import Schema, exists, reason, shown_path

REMEMBERED = ".qwen-vl-eval.digests"
UNSPLIT = ["Block", "VisionTransformer"]  # classes that stay on one device
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Generation:
    """The part of generation_config.json that is read."""

    chat_format: str | None = None


GENERATION_SCHEMA: Schema[Generation] = Schema(Generation)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that holds a checkpoint.

    weights   the file that stands for its set of weights: an index of shards, or a single file
    revision  the hub's commit that it came from, if any
    """

    folder: Path
    name: str
    weights: str
    revision: str | None = None

    def digests(self, *, verify: bool = False) -> dict[str, str]:
        """sha256 of every file that decides what the model answers, by file name.

        Remembered beside the files, or in the user's cache where that cannot be written.

        verify  read all of them again
        """
        digests = Digests(_memory(self.folder), verify=verify)
        by_file: dict[str, str] = {}
        for name in sorted({CONFIG, VOCABULARY, *self.weight_files().values()}):
            try:
                by_file[name] = digests.of(name, self.folder / name)
            except OSError as error:
                why = error.strerror or "not a regular file"
                raise CheckpointError(f"{self.folder / name}: cannot be read: {why}") from None
        digests.keep()
        return by_file

    def weight_files(self) -> dict[str, str]:
        """Which file holds each parameter, by parameter name; for a single file the key is ""."""
        return weight_files(self.folder, self.weights)

    def parameters(self) -> dict[str, Stored]:
        """Every parameter, as the headers of the weights describe it."""
        return stored_tensors(self.folder, self.weights)

    def chat_format(self) -> str | None:
        """`chatml` for Qwen-VL-Chat, `raw` for Qwen-VL, None where the folder doesn't say."""
        path = self.folder / GENERATION
        if not exists(path):
            return None
        return GENERATION_SCHEMA.read(path, CheckpointError, MAX_JSON_BYTES).chat_format


def _memory(folder: Path) -> Path | None:
    """Where the digests of a checkpoint are remembered; nowhere for a user without a home."""
    if os.access(folder, os.W_OK):
        return folder / REMEMBERED
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    try:
        return Path("~/.cache/qwen-vl-eval").expanduser() / f"{place}{REMEMBERED}"
    except RuntimeError:
        return None


def combined_digest(digests: dict[str, str]) -> str:
    """One sha256 for a set of files, of their names and digests in order."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def find_checkpoint(
    path: str | Path, revision: str | None = None, weights: str | None = None
) -> Checkpoint:
    """A local folder, or a hub id such as Qwen/Qwen-VL at a revision, fetched where needed.

    weights  the file that stands for a set of weights, where a folder has several

    Raises CheckpointError where there is neither, or something else than a checkpoint; UsageError
    for a revision of a folder, or for a choice of weights that there is not.
    """
    folder = _local(path)
    if folder is None:
        if not HUB_ID.fullmatch(str(path)):
            raise CheckpointError(
                f"{shown_path(Path(path))}: no such folder, and not a hub id either (a hub id "
                "reads owner/name)"
            )
        folder, chosen = hub.download_checkpoint(str(path), revision, weights)
        commit = folder.name
        _check_files(folder, chosen)
        return Checkpoint(folder, str(path), chosen, commit)
    if revision is not None:
        raise UsageError(
            f"--revision {revision}: {path} is a folder, and revisions are of hub ids. Leave the "
            "option out"
        )
    try:
        names = frozenset(os.listdir(folder))  # noqa: PTH208  # names alone
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be listed: {reason(error)}") from None
    recognise.refuse_folder(folder, names, weights)
    recognise.refuse_unreadable(folder, names.intersection([weights] if weights else SETS))
    chosen = choose_weights(folder, names, weights)
    _check_files(folder, chosen)
    return Checkpoint(folder, str(path), chosen)


def _local(path: str | Path) -> Path | None:
    """The folder, or None where there is nothing of that name. Raises CheckpointError for files."""
    try:
        folder = Path(path).expanduser()
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, no such user
        raise CheckpointError(f"{shown_path(Path(path))}: {reason(error)}") from None
    if not folder.is_dir():
        recognise.refuse_file(folder)
    return folder


def _check_files(folder: Path, chosen: str) -> None:
    """Raise CheckpointError where a file of a checkpoint cannot be read, or is a placeholder."""
    files = {CONFIG, VOCABULARY, *weight_files(folder, chosen).values()}
    if os.path.lexists(folder / GENERATION):
        files.add(GENERATION)
    recognise.refuse_unreadable(folder, files)


def load_weights(
    model: nn.Module,
    folder: Path,
    parameters: Mapping[str, Stored],
    placement: dict[str, str],
    dtype: torch.dtype,
) -> None:
    """Fill a model made on the meta device, one tensor at a time.

    parameters  what the headers of the weights say
    placement   device of each parameter, by the longest matching module prefix ("" matches all)

    Host memory peaks at what the model keeps there plus one memory-mapped shard. Raises
    CheckpointError on a missing or unexpected key or a wrong shape, before anything is loaded.
    """
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for kind, keys in (
        ("missing", expected.keys() - parameters.keys()),
        ("unexpected", parameters.keys() - expected.keys()),
    ):
        if keys:
            key, more = min(keys), f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            where = folder / parameters[key].file if key in parameters else folder
            why = recognise.why_missing(keys) if kind == "missing" else ""
            raise CheckpointError(f"{where}: {kind} parameter {key!r}{more}{why}")
    for key, shape in expected.items():
        if parameters[key].shape != shape:
            raise CheckpointError(
                f"{folder / parameters[key].file}: {key}: shape {parameters[key].shape}, and "
                f"config.json asks for {shape}"
            )
    for name in sorted({each.file for each in parameters.values()}):
        for key, tensor in tensors(folder / name):
            device = _device_of(key, placement)
            _assign(model, key, tensor.to(device=device, dtype=dtype, copy=True))


def _device_of(key: str, placement: dict[str, str]) -> str:
    matches = [p for p in placement if p == "" or key == p or key.startswith(p + ".")]
    return placement[max(matches, key=len)]


def _assign(model: nn.Module, key: str, tensor: Tensor) -> None:
    module_name, _, name = key.rpartition(".")
    module = model.get_submodule(module_name)
    setattr(module, name, nn.Parameter(tensor, requires_grad=False))


def device_and_dtype(model: nn.Module, device: str, dtype: torch.dtype) -> dict[str, str]:
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

    device_map = infer_auto_device_map(model, dtype=dtype, no_split_module_classes=UNSPLIT)
    if "disk" in device_map.values():
        raise CheckpointError(
            f"the model needs {need / 2**30:.1f} GiB in {dtype}, and the GPUs and the host memory "
            "together hold less"
        )
    return {name: str(torch.device(where)) for name, where in device_map.items()}


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
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(index, indent=1) + "\n", encoding="utf-8"
    )
