"""Files of torch.save, read as data: a mapping from names to dense tensors of floats, or nothing.

Such a file is a pickle, and a pickle is a program. Only the names that a state dict of plain
tensors needs may stand in it; what it then builds comes from torch's weights-only reader, and is
held to what the published weights are.
"""

import os
import pickletools
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from eval.errors import CheckpointError
from eval.runtime import recognise
from eval.storage.reading import open_file, reason

MAX_PICKLE_BYTES = 4_000_000
MAX_INSTRUCTIONS = 500_000  # of a pickle: 25 for each parameter
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
GLOBALS = re.compile(  # what the pickle of a state dict of plain tensors names
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|float64|float32|float16|bfloat16)"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
)
LEGACY_PICKLES = 5  # that begin a file of torch before 1.6: number, protocol, system, tensors, keys


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that torch.save wrote, memory-mapped where the format allows."""
    with open_file(path, CheckpointError, recognise.MAX_WEIGHT_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        try:
            if zipped:
                _check_zip(path, file)
            else:
                _check_pickles(path, file.read(MAX_PICKLE_BYTES), LEGACY_PICKLES)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except CheckpointError:
            raise
        except Exception as error:  # parsers of a hostile file: zipfile's, pickle's and torch's
            raise CheckpointError(damaged(path, error)) from None
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: holds a {type(state).__name__}; weights are a mapping from names to tensors"
        )
    recognise.refuse_nested(path, state)
    for key, tensor in state.items():
        _check_tensor(path, key, tensor)
    if sum(t.numel() * t.element_size() for t in state.values()) > 2 * size:
        raise CheckpointError(f"{path}: its tensors share their memory: {size:,} bytes are too few")
    return state


def _check_tensor(path: Path, key: Any, tensor: Tensor) -> None:
    """Raise CheckpointError for anything but a name and a plain tensor of floats."""
    if not isinstance(key, str):
        raise CheckpointError(f"{path}: {key!r:.80}: a parameter's name is a text")
    if type(tensor) not in (Tensor, nn.Parameter):
        what = type(tensor).__name__
    elif tensor.is_nested or tensor.layout is not torch.strided:
        what = "nested" if tensor.is_nested else str(tensor.layout)
    elif tensor.dtype not in DTYPES or tensor.device.type != "cpu":
        what = f"{tensor.dtype} on {tensor.device}"
    elif _span(tensor) < tensor.numel():
        what = "a view that repeats its elements"
    else:
        return
    raise CheckpointError(
        f"{path}: {key}: dense tensors of floats are needed, and this one is {what}. Save "
        "tensor.to_dense().float().contiguous() in its place"
    )


def _span(tensor: Tensor) -> int:
    """How many elements of its storage a tensor reaches over."""
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _check_zip(path: Path, file: IO[bytes]) -> None:
    """Raise CheckpointError for a zip that torch.save did not write, or whose pickle is foreign."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{path}: {entry.filename!r:.80} is compressed, and torch.save compresses "
                    "nothing. Is this an archive that has to be unpacked?"
                )
            if entry.filename.lower().endswith("data.pkl"):
                with archive.open(entry) as pickled:
                    _check_pickles(path, pickled.read(MAX_PICKLE_BYTES), 1)


def _check_pickles(path: Path, content: bytes, count: int) -> None:
    """Raise CheckpointError for pickles that name more than plain tensors need.

    Raises ValueError or LookupError for damaged ones, and for tuples as keys: to hash nested ones
    may overflow the interpreter's stack, or never end.
    """
    stream = BytesIO(content)
    for _ in range(count):
        stack: list[str] = []  # what each value is: a tuple, (), OrderedDict, or anything else
        marks: list[int] = []
        memo: dict[int, str] = {}
        for number, (opcode, argument, _place) in enumerate(pickletools.genops(stream)):
            if number > MAX_INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions")
            name, before = opcode.name, opcode.stack_before
            if name == "GLOBAL" and not GLOBALS.fullmatch(str(argument)):
                raise CheckpointError(
                    f"{path}: holds more than plain tensors: "
                    f"{str(argument).replace(' ', '.')!r:.100}. No code of a checkpoint is run, "
                    "and weights are dense tensors of floats"
                )
            if name == "MARK":
                marks.append(len(stack))
                continue
            if name.endswith("PUT"):
                memo[int(argument or 0)] = stack[-1]
                continue
            begin = len(stack) - len(before)
            if pickletools.markobject in before:
                begin = marks.pop() - before.index(pickletools.markobject)
            taken = stack[begin:]
            keys = taken[1::2] if name.startswith("SETITEM") else []
            if "tuple" in keys or (name == "REDUCE" and taken == ["OrderedDict", "tuple"]):
                raise ValueError("its pickle has tuples as keys")
            made = "tuple" if name.startswith("TUPLE") else "anything"
            if name == "GLOBAL" and argument == "collections OrderedDict":
                made = "OrderedDict"
            if name.endswith("GET"):
                made = memo[int(argument or 0)]
            stack[begin:] = [made] * len(opcode.stack_after)


def damaged(path: Path, error: Exception) -> str:
    """That a file cannot be read, and why."""
    lines = reason(error).strip().splitlines()
    return (
        f"{path}: cannot be read as weights: truncated, damaged, or more than plain tensors "
        f"({lines[0][:200] if lines else type(error).__name__}). Fetch it again"
    )
