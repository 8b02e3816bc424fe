"""Weights on disk: the sets that a folder holds, and what their files say before they are loaded.

A set is a single file, or an index with the shards that it names. Of two sets in a folder a
program would read one in silence, so the user chooses. Headers are read before a model is made:
names, dtypes and shapes of all parameters, from files of either format.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from eval.errors import CheckpointError, UsageError
from eval.runtime import recognise
from eval.runtime.torch_file import DTYPES, damaged, read_tensors
from eval.storage.reading import Schema, open_file, read_bytes, unique_keys

INDEX = ".index.json"
SETS = (  # in the order in which transformers looks for them
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
NAME = re.compile(r"[\w.-]+\.(safetensors|bin)(\.index\.json)?")
SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-(\d{5})\.(safetensors|bin)")
MAX_HEADER_BYTES = 4_000_000  # of a .safetensors file, or of an index
FLOATS = tuple(DTYPES.values())


@dataclass(frozen=True, slots=True)
class Stored:
    """A parameter as its file describes it; the dtype has safetensors' name, such as BF16."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """The part of an index of shards that decides."""

    weight_map: dict[str, str]


INDEX_SCHEMA: Schema[Index] = Schema(Index)


def choose_weights(folder: Path, names: frozenset[str], choice: str | None) -> str:
    """The file that stands for the set that is read: an index, or weights.

    names   of the files in the folder
    choice  what the user chose, if anything

    Raises CheckpointError for several sets, or for none that can be read, UsageError for a choice
    that there is not.
    """
    sets = _sets(folder, names)
    known = ", ".join(sets) or "none"
    if choice is not None:
        if not NAME.fullmatch(choice):
            raise UsageError(
                f"--weights {choice!r}: give the name of a .safetensors or .bin file in the "
                f"checkpoint, or of an index of shards (.index.json). {folder} has: {known}"
            )
        if choice not in names:
            raise UsageError(f"--weights {choice}: no such file in {folder}, which has: {known}")
        return choice
    if len(sets) > 1:
        described = [f"{name}{what}" for name, what in sets.items()]
        usable = next((name for name in sets if name in SETS), next(iter(sets)))
        raise CheckpointError(
            f"{folder}: holds {len(sets)} sets of weights: {'; '.join(described)}. Remove what is "
            f"out of date, or choose with --weights, for example --weights {usable}"
        )
    for name in sets:
        if name not in SETS:
            kind = "model.safetensors" if name.endswith(".safetensors") else "pytorch_model.bin"
            raise CheckpointError(
                f"{folder}: shards without their index: {name}{sets[name]}. Copy {kind}{INDEX} "
                "from where the shards come from"
            )
        return name
    raise CheckpointError(f"{folder}: no weights found. It needs one of these: {', '.join(SETS)}")


def _sets(folder: Path, names: frozenset[str]) -> dict[str, str]:
    """The sets of weights in a folder: the file that stands for each, and what belongs to it.

    Shards that no index names are a set where none of them is missing: some program reads them. An
    incomplete one is nobody's weights.
    """
    found = {n: " with its shards" if n.endswith(INDEX) else "" for n in SETS if n in names}
    families: dict[str, set[str]] = {}
    for name in names:
        if match := SHARD.fullmatch(name):
            families.setdefault(f"{match[1]}-*-of-{match[2]}.{match[3]}", set()).add(name)
    complete = [f for f in families.values() if len(f) == int(min(f).split("-of-")[1][:5])]
    if complete:
        indexed = {n for i in found if i.endswith(INDEX) for n in read_index(folder / i).values()}
        for family in sorted(map(sorted, complete)):
            if not indexed.intersection(family):
                found[family[0]] = f" ({len(family)} shards that no index names)"
    return found


def weight_files(folder: Path, chosen: str) -> dict[str, str]:
    """Which file holds each parameter, by parameter name; for a single file the key is empty.

    Raises CheckpointError where the index is damaged or a shard is missing.
    """
    if not chosen.endswith(INDEX):
        return {"": chosen}
    index = folder / chosen
    files = read_index(index)
    present = frozenset(os.listdir(folder))  # noqa: PTH208  # names alone
    for key, name in files.items():
        if name not in present:
            others = [n for n in present - {*files.values()} if n.endswith(Path(name).suffix)]
            near = get_close_matches(name, others, n=1, cutoff=0.9)
            hint = f". If {near[0]!r} is this file, rename it" if near else ""
            raise CheckpointError(f"{folder / name}: missing; {chosen} has {key} in it{hint}")
    return files


def read_index(index: Path) -> dict[str, str]:
    """Which shard holds each parameter, as an index says. Raises CheckpointError."""
    content = read_bytes(index, CheckpointError, MAX_HEADER_BYTES)
    unique_keys(content, str(index), CheckpointError)
    files = INDEX_SCHEMA.parse(content, str(index), CheckpointError).weight_map
    if not files:
        raise CheckpointError(f"{index}: weight_map: it names no parameter")
    for key, name in files.items():
        if not NAME.fullmatch(name) or name.endswith(INDEX):
            raise CheckpointError(
                f"{index}: weight_map: {key}: {name!r:.100} is not the name of a shard beside the "
                "index"
            )
    return files


def stored_tensors(folder: Path, chosen: str) -> dict[str, Stored]:
    """Every parameter of a set, from the headers of its files alone.

    Raises CheckpointError where a file is damaged, holds more than plain tensors of floats, or
    contradicts the index.
    """
    files = weight_files(folder, chosen)
    found: dict[str, Stored] = {}
    for name in sorted(set(files.values())):
        path = folder / name
        for key, (dtype, shape) in _header(path).items():
            if key in found:
                raise CheckpointError(f"{path}: {key}: {found[key].file} holds it too")
            found[key] = Stored(name, dtype, shape)
    recognise.refuse_keys(folder / chosen, found.keys() | files.keys() - {""})
    for key, each in found.items():
        if each.dtype not in FLOATS:
            raise CheckpointError(
                f"{folder / each.file}: {key}: the dtype is {each.dtype}; weights are "
                f"{', '.join(FLOATS)}. Is this a quantised checkpoint? Give the original one"
            )
        recognise.refuse_shape(folder / each.file, key, each.shape)
    if "" in files:
        return found
    for key, name in files.items():
        if key not in found:
            raise CheckpointError(f"{folder / name}: missing parameter {key!r}; {chosen} names it")
        if found[key].file != name:
            raise CheckpointError(f"{folder / chosen}: {key}: it lies in {found[key].file}")
    if extra := found.keys() - files.keys():
        key = min(extra)
        raise CheckpointError(
            f"{folder / chosen}: missing parameter {key!r}, which {found[key].file} holds"
        )
    return found


def tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and memory-mapped tensor of each parameter in a file."""
    if path.suffix == ".bin":
        yield from read_tensors(path).items()
        return
    with _open_safetensors(path) as shard:
        for key in shard.keys():  # noqa: SIM118  # a shard is no dict
            yield key, shard.get_tensor(key)


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, dtype and shape of each parameter in a file."""
    if path.suffix == ".bin":
        return {key: (DTYPES[t.dtype], tuple(t.shape)) for key, t in read_tensors(path).items()}
    with _open_safetensors(path) as shard:
        slices = {key: shard.get_slice(key) for key in shard.keys()}  # noqa: SIM118
        return {key: (s.get_dtype(), tuple(s.get_shape())) for key, s in slices.items()}


def _open_safetensors(path: Path) -> Any:
    """An open file, whose header safetensors has checked against its size."""
    try:
        with open_file(path, CheckpointError, recognise.MAX_WEIGHT_BYTES) as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length <= MAX_HEADER_BYTES else b""
        if length > MAX_HEADER_BYTES:
            raise SafetensorError(f"the header would have {length:,} bytes")
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(damaged(path, error)) from None
    unique_keys(header, str(path), CheckpointError)
    return opened
