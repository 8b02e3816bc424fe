"""Checkpoint folders: configuration, index, weights, vocabulary, and folders that are none.

The clean ones are small random models, whose answers to four questions are compared. SIZES are the
fields of config.json that decide the shape of a parameter,
so another value contradicts the weights.
"""

import base64
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import damage
from fuzz.cases import Area, Box, Came, Case, Expect, Make, Step, as_nobody, refused, step
from fuzz.damage import BROKEN, SAME
from fuzz.pictures import TASK, predictions

KINDS = ("single", "sharded", "bin")
SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "kv_channels", "intermediate_size",
    "visual.width", "visual.layers", "visual.output_dim", "visual.mlp_ratio", "visual.patch_size",
)  # fmt: skip
FIELDS = (*SIZES, "num_attention_heads", "seq_length", "layer_norm_epsilon", "rotary_emb_base",
          "visual.heads", "visual.image_size", "visual.image_start_id")  # fmt: skip
OTHERS = ("a_field_of_the_future", "architectures", "use_dynamic_ntk")
HUGE = (999_998, 10**9, 2**40, 10**30)
RUN = ("run", TASK, "--model", "ck", "--data", "data", "--out", "out", "--allow-partial")
WRITES = ("out", "out/*", "ck/.qwen-vl-eval*")


def folder(box: Box, kind: str) -> Path:
    """A copy of a clean checkpoint, and the data that it is asked about."""
    box.link("four", "data")
    return box.copy(f"tiny/{kind}", "ck")


def asked(*expect: Expect, **more: Any) -> Step:
    return step((*RUN, "--device", "cpu", "--limit", "2"), *expect, writes=WRITES, **more)


def texts(place: Path) -> dict[str, object]:
    return {key: row.get("text") for key, row in predictions(place).items()}


def same_texts(box: Box) -> Expect:
    """Exit code 0 and the answers of the clean checkpoint."""
    clean = texts(box.control("single") / "here/out")

    def check(came: Came) -> str:
        found = texts(came.kept / "here/out")
        return "" if found == clean else f"other answers: {found}"

    return Expect((0,), (), check)


def judged(box: Box, kind: str, *names: str) -> tuple[Expect, ...]:
    if kind == SAME:
        return (same_texts(box),)
    if kind == BROKEN:
        return (refused(names) if names else refused(),)
    return (Expect((0, 3)), refused())


def _control(kind: str) -> Make:
    def make(box: Box, _: Random) -> Case:
        folder(box, kind)
        # "single" comes first; the other forms of the same weights must answer the same
        expect = Expect((0,)) if kind == "single" else same_texts(box)
        return Case(f"{kind}: nothing was done to it", (asked(expect),))

    return make


# config.json


def config_bytes(box: Box, rng: Random) -> Case:
    ck = folder(box, "single")
    what, changed, kind = rng.choice(damage.TO_JSON)((ck / "config.json").read_bytes(), rng)
    (ck / "config.json").write_bytes(changed)
    return Case(f"config.json: {what}", (asked(*judged(box, kind, "config.json")),))


def config_value(box: Box, rng: Random) -> Case:
    """A field of another type or size, or none."""
    ck = folder(box, rng.choice(KINDS))
    told = json.loads((ck / "config.json").read_text())
    name = rng.choice([*FIELDS, *SIZES, *OTHERS])  # fields of every small checkpoint
    path = tuple(name.split("."))
    old = damage.at(told, path)
    turn = rng.choice(["type", "huge", "other", "gone", "negative"])
    if turn == "gone":
        changed = damage.without(told, path)
        expect = (refused(path[-1]), Expect((0, 3)))
    else:
        new = {
            "type": rng.choice([None, [], {"a": 1}, "text", [5]]),
            "huge": rng.choice(HUGE),
            "other": old + rng.choice([1, 8]) if isinstance(old, int | float) else [],
            "negative": rng.choice([-1, 0]),
        }[turn]
        changed = damage.put(told, path, new)
        turn = f"{turn}, {new!r}"
        expect = (refused(path[-1], ("config.json", "ck")),)
        if not turn.startswith("type") and name not in SIZES:
            expect = (refused(), Expect((0, 3)))
        elif name in SIZES and turn.startswith("other"):
            expect = (refused(),)  # names the parameter or the field
    if name in OTHERS:
        expect = (same_texts(box), refused("config.json"))
    (ck / "config.json").write_text(json.dumps(changed))
    return Case(f"config.json: {name}: {turn}", (asked(*expect),))


# model.safetensors.index.json and the weights


def index(box: Box, rng: Random) -> Case:
    ck = folder(box, "sharded")
    path = ck / "model.safetensors.index.json"
    content = path.read_bytes()
    told = json.loads(content)
    key = rng.choice(list(told["weight_map"]))
    shards = sorted(set(told["weight_map"].values()))
    other = rng.choice([name for name in shards if name != told["weight_map"][key]])
    turns: Mapping[str, tuple[Any, tuple[Expect, ...]]] = {
        "of another shard": (other, (refused(key),)),
        "of a shard that is not there": ("model-9.safetensors", (refused("model-9.safetensors"),)),
        "of a file outside": ("../../../etc/passwd", (refused(),)),
        "of a path": ("/etc/passwd", (refused(),)),
        "of nothing": (None, (refused(path.name),)),
        "of a list": ([other], (refused(path.name),)),
        "of an empty name": ("", (refused(),)),
        "of the folder": (".", (refused(),)),
    }
    if rng.random() < 0.4:
        what, changed, kind = rng.choice(damage.TO_JSON)(content, rng)
        path.write_bytes(changed)
        return Case(f"{path.name}: {what}", (asked(*judged(box, kind, path.name)),))
    if rng.random() < 0.3:
        removed = ck / rng.choice(shards)
        removed.unlink()
        return Case(f"{removed.name} is gone", (asked(refused(removed.name)),))
    if rng.random() < 0.2:
        changed = damage.put(told, ("metadata", "total_size"), rng.choice([0, -1, 10**30, "x"]))
        path.write_text(json.dumps(changed))
        return Case("another total_size", (asked(same_texts(box), refused(path.name)),))
    turn = rng.choice(list(turns))
    value, expect = turns[turn]
    told["weight_map"][key] = value
    path.write_text(json.dumps(told))
    return Case(f"{path.name}: {key} {turn}", (asked(*expect),))


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def _join(head: Any, body: bytes, size: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


def weights_header(box: Box, rng: Random) -> Case:
    """The header of a file of tensors says what its bytes do not hold."""
    ck = folder(box, "single")
    (path,) = ck.glob("*.safetensors")
    head, body = _split(path.read_bytes())
    names = [name for name in head if name != "__metadata__"]
    name = rng.choice(names)
    begin, end = head[name]["data_offsets"]
    shape = head[name]["shape"]
    turns: Mapping[str, Callable[[], bytes]] = {
        "another dtype": lambda: _join(head | {name: head[name] | {"dtype": "I64"}}, body),
        "no dtype": lambda: _join(head | {name: head[name] | {"dtype": "F7"}}, body),
        "a dtype of whole numbers": lambda: _join(
            head | {name: head[name] | {"dtype": "I32"}}, body
        ),
        "offsets beyond the end": lambda: _join(
            head | {name: head[name] | {"data_offsets": [begin, len(body) + 4]}}, body
        ),
        "offsets in reverse": lambda: _join(
            head | {name: head[name] | {"data_offsets": [end, begin]}}, body
        ),
        "negative offsets": lambda: _join(
            head | {name: head[name] | {"data_offsets": [-4, end]}}, body
        ),
        "another shape": lambda: _join(
            head | {name: head[name] | {"shape": [*shape[:-1], shape[-1] + 1]}}, body
        ),
        "a huge shape": lambda: _join(head | {name: head[name] | {"shape": [2**62, 2**62]}}, body),
        "a shape of fractions": lambda: _join(head | {name: head[name] | {"shape": [1.5]}}, body),
        "it is gone": lambda: _join({k: v for k, v in head.items() if k != name}, body),
        "it has another name": lambda: _join(
            {(f"{k}_" if k == name else k): v for k, v in head.items()}, body
        ),
        "a header of 2**63 bytes": lambda: _join(head, body, 2**63),
        "a header of 100 MB": lambda: _join(head, body, 100_000_001),
        "a header of nothing": lambda: _join(head, body, 0),
        "a header that is short": lambda: _join(head, body, 10),
        "a header that is a list": lambda: _join([head], body),
        "a nested header": lambda: _join(b'{"a":' * 50_000, body),
        "bytes after the last tensor": lambda: path.read_bytes() + bytes(64),
        "no bytes": lambda: _join(head, b""),
        "half of the bytes": lambda: _join(head, body[: len(body) // 2]),
    }
    turn = rng.choice(list(turns))
    path.write_bytes(turns[turn]())
    return Case(f"{path.name}: {name}: {turn}", (asked(refused((path.name, name))),))


def weights_bytes(box: Box, rng: Random) -> Case:
    """Bytes of the weights are others: answers are others, or none, but the process is the same."""
    ck = folder(box, rng.choice(KINDS))
    path = rng.choice([*ck.glob("*.safetensors"), *ck.glob("*.bin")])
    content = path.read_bytes()
    what, changed, kind = rng.choice(damage.TO_BYTES)(content, rng)
    path.write_bytes(changed)
    if "zero bytes" in what and "from 0" not in what:
        kind = damage.OTHER  # weights may be zero
    expect = (refused(path.name),) if kind == BROKEN else (Expect((0, 3)), refused(path.name))
    return Case(f"{path.name}: {what[:80]}", (asked(*expect),))


def no_numbers(box: Box, rng: Random) -> Case:
    """NaN and infinity in weights through which every answer goes: no answer can be had."""
    import numpy as np

    ck = folder(box, "single")
    (path,) = ck.glob("*.safetensors")
    head, body = _split(path.read_bytes())
    bad = rng.choice([np.nan, np.inf, -np.inf])
    name = rng.choice(["transformer.ln_f.weight", "transformer.h.0.attn.c_attn.bias"])
    begin, end = head[name]["data_offsets"]
    values = np.frombuffer(body[begin:end], _numpy(head[name]["dtype"])).copy()
    values[:] = _as_bits(bad, head[name]["dtype"])
    path.write_bytes(_join(head, body[:begin] + values.tobytes() + body[end:]))
    expect = Expect((3,), (), _no_texts)
    return Case(f"{name} is {bad} throughout", (asked(expect, refused()),))


def _numpy(dtype: str) -> str:
    return {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}[dtype]


def _as_bits(value: float, dtype: str) -> int:
    import numpy as np

    if dtype == "F16":
        return int(np.float16(value).view(np.uint16))
    bits = int(np.float32(value).view(np.uint32))
    return bits if dtype == "F32" else bits >> 16


def _no_texts(came: Came) -> str:
    found = predictions(came.kept / "here/out")
    wrong = [key for key, row in found.items() if not row.get("error")]
    return f"samples {wrong} were answered" if wrong else ""


# pytorch_model.bin


class _Touch:
    """A pickle of this makes a file when it is read by who trusts it."""

    def __reduce__(self) -> Any:
        return open, ("pwned", "w")


def pickled(box: Box, rng: Random) -> Case:
    """A .bin that would run something, or holds other things than dense tensors."""
    import torch

    ck = folder(box, "bin")
    path = ck / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    name = "transformer.ln_f.weight"
    turns: Mapping[str, Callable[[], Any]] = {
        "a payload": lambda: {**tensors, "x": _Touch()},
        "a payload in a tensor's place": lambda: {**tensors, name: _Touch()},
        "a sparse tensor": lambda: {**tensors, name: tensors[name].to_sparse()},
        "a tensor of whole numbers": lambda: {**tensors, name: tensors[name].long()},
        "a complex tensor": lambda: {**tensors, name: tensors[name].to(torch.complex64)},
        "a tensor without data": lambda: {**tensors, name: tensors[name].to("meta")},
        "a number": lambda: {**tensors, name: 5},
        "nothing": lambda: {**tensors, name: None},
        "a list": lambda: [tensors],
        "a tensor alone": lambda: tensors[name],
        "nested": lambda: {"state_dict": {"model": tensors}},
        "keys that are numbers": lambda: dict(enumerate(tensors.values())),
        "a quantised tensor": lambda: {
            **tensors, name: torch.quantize_per_tensor(tensors[name].float(), 0.1, 0, torch.qint8)
        },
        "a nested tensor": lambda: {
            **tensors, name: torch.nested.nested_tensor([tensors[name].float()])
        },
        "an empty tensor": lambda: {**tensors, name: torch.empty(0)},
        "one tensor too many": lambda: {**tensors, "x": tensors[name]},
        "one tensor too few": lambda: {k: v for k, v in tensors.items() if k != name},
    }  # fmt: skip
    turn = rng.choice(list(turns))
    value = turns[turn]()
    if rng.random() < 0.8:
        torch.save(value, path)
    else:
        turn += ", as a bare pickle"
        path.write_bytes(pickle.dumps(value if "payload" in turn else {"a": 5}))

    def untouched() -> str:
        return "the payload ran" if (box.here / "pwned").exists() else ""

    expect = refused((path.name, name))
    return Case(f"{path.name}: {turn}", (asked(expect),), untouched)


def zipped(box: Box, rng: Random) -> Case:
    """The archive that a .bin is: a member lacks, or its bytes are others."""
    ck = folder(box, "bin")
    path = ck / "pytorch_model.bin"
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
        names = old.namelist()
        chosen = rng.choice([*names[:3], *names])
        turn = rng.choice(["gone", "empty", "twice", "random"])
        for name in names:
            content = old.read(name)
            if name == chosen:
                if turn == "gone":
                    continue
                content = {"empty": b"", "random": rng.randbytes(300)}.get(turn, content)
            new.writestr(name, content)
    path.write_bytes(file.getvalue())
    return Case(f"{path.name}: {chosen}: {turn}", (asked(Expect((0, 3)), refused(path.name)),))


# qwen.tiktoken


def vocabulary(box: Box, rng: Random) -> Case:
    ck = folder(box, "single")
    path = ck / "qwen.tiktoken"
    lines = path.read_text("ascii").splitlines()
    number = rng.randrange(len(lines))
    token = base64.b64encode(b"zz").decode()
    turns: Mapping[str, list[str]] = {
        "a line without rank": [*lines[:number], lines[number].split()[0], *lines[number + 1 :]],
        "no base64": [*lines[:number], f"$$$$ {number}", *lines[number + 1 :]],
        "a rank that is a word": [*lines[:number], f"{token} x", *lines[number + 1 :]],
        "a negative rank": [*lines[:number], f"{token} -1", *lines[number + 1 :]],
        "a rank twice": [*lines[:-1], f"{token} 3"],
        "a huge rank": [*lines[:-1], f"{token} {10**30}"],
        "a token twice": [*lines[:-1], f"{lines[0].split()[0]} {len(lines) - 1}"],
        "a line is gone": lines[:number] + lines[number + 1 :],
        "one token more": [*lines, f"{token} {len(lines)}"],
        "nothing": [],
        "a page": ["<html>", "403", "</html>"],
        "a Git LFS pointer": [
            "version https://git-lfs.github.com/spec/v1",
            "oid sha256:0",
            "size 9",
        ],
        "a long line": ["A" * 5_000_000 + " 0", *lines[1:]],
    }
    turn = rng.choice([*turns, "lines end as on Windows", "bytes that are no text"])
    if turn == "lines end as on Windows":
        path.write_bytes("\r\n".join(lines).encode() + b"\r\n")
        return Case(turn, (asked(same_texts(box), refused(path.name)),))
    if turn == "bytes that are no text":
        path.write_bytes(path.read_bytes()[:300] + b"\xff\xfe\x00" + path.read_bytes()[300:])
    else:
        path.write_text("\n".join(turns[turn]) + "\n")
    return Case(f"{path.name}: {turn}", (asked(refused((path.name, "config.json"))),))


# Folders


def _empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def _adapter(ck: Path) -> None:
    _empty(ck)
    told = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen-VL", "r": 8}
    (ck / "adapter_config.json").write_text(json.dumps(told))
    (ck / "adapter_model.safetensors").write_bytes(_join({}, b""))


def _quantised(ck: Path) -> None:
    told = json.loads((ck / "config.json").read_text())
    told["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (ck / "config.json").write_text(json.dumps(told))


def _lfs(ck: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
    for file in ck.glob("*.safetensors"):
        file.write_text(pointer)


def _deepspeed(ck: Path) -> None:
    for file in ck.glob("*.safetensors*"):
        file.unlink()
    (ck / "global_step100").mkdir()
    (ck / "global_step100" / "mp_rank_00_model_states.pt").write_bytes(b"PK")
    (ck / "latest").write_text("global_step100")
    (ck / "zero_to_fp32.py").write_text("raise SystemExit(5)\n")


def _renamed(ck: Path, rename: Callable[[str], str]) -> None:
    for file in ck.glob("*.safetensors"):
        head, body = _split(file.read_bytes())
        file.write_bytes(_join({k if k[0] == "_" else rename(k): v for k, v in head.items()}, body))


def _wrapped(ck: Path) -> None:
    _renamed(ck, lambda name: f"module.{name}")


def _peft(ck: Path) -> None:
    _renamed(ck, lambda name: f"base_model.model.{name}")


def _zero3(ck: Path) -> None:
    (file,) = ck.glob("*.safetensors")
    head, _ = _split(file.read_bytes())
    empty = {"shape": [0], "data_offsets": [0, 0]}
    told = {name: entry | empty for name, entry in head.items() if name != "__metadata__"}
    file.write_bytes(_join(told, b""))


def _hub(ck: Path) -> None:
    snapshot = ck / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for file in [file for file in ck.iterdir() if file.is_file()]:
        file.rename(snapshot / file.name)
    (ck / "refs").mkdir()
    (ck / "refs" / "main").write_text("0123456789abcdef")
    (ck / "blobs").mkdir()


FOLDERS: Mapping[str, tuple[Callable[[Path], None], tuple[tuple[str, ...], ...]]] = {
    "an adapter": (_adapter, (("adapter", "Adapter"),)),
    "quantised": (_quantised, (("quantised", "quantized", "quantisation", "quantization"),)),
    "a Git LFS pointer": (_lfs, (("git lfs pull",),)),
    "DeepSpeed's": (_deepspeed, (("zero_to_fp32.py",),)),
    "keys of a wrapper": (_wrapped, (("module.",),)),
    "keys of peft": (_peft, (("base_model.model.", "adapter"),)),
    "empty tensors of ZeRO-3": (_zero3, (("ZeRO", "stage3"),)),
    "the root of a hub cache": (_hub, (("snapshots",),)),
    "empty": (_empty, ((),)),
}


def folders(box: Box, rng: Random) -> Case:
    """Folders that people have, each named with its remedy."""
    what = rng.choice(list(FOLDERS))
    make, says = FOLDERS[what]
    make(folder(box, "single"))
    return Case(f"a checkpoint folder: {what}", (asked(refused(*[s for s in says if s])),))


def two_sets(box: Box, rng: Random) -> Case:
    """Two sets of weights in one folder; the option that chooses one."""
    folder(box, "sharded")
    names = ["model.safetensors.index.json"]
    if rng.random() < 0.5:
        box.copy("tiny/bin/pytorch_model.bin", "ck/pytorch_model.bin")
        names.append("pytorch_model.bin")
    else:
        (single,) = (box.ground / "tiny/single").glob("*.safetensors")
        box.copy(f"tiny/single/{single.name}", "ck/model.safetensors")
        names.append("model.safetensors")
    chosen = rng.choice(names)
    again = step(
        (*RUN, "--device", "cpu", "--limit", "2", "--weights", chosen),
        same_texts(box),
        writes=WRITES,
    )
    return Case(f"two sets of weights, {chosen} chosen", (asked(refused(*names)), again))


def no_file(box: Box, rng: Random) -> Case:
    ck = folder(box, rng.choice(KINDS))
    path = rng.choice([path for path in ck.iterdir() if not path.name.startswith(".")])
    what = damage.replace(path, rng)
    expect = [refused((path.name, "weights"))]
    if path.name.endswith("index.json") and len(list(ck.glob("*.safetensors"))) == 1:
        expect.append(same_texts(box))
    return Case(what, (asked(*expect),))


def unreadable(box: Box, rng: Random) -> Case:
    uid = as_nobody()
    ck = folder(box, "single")
    path = rng.choice([*ck.iterdir(), ck])
    path.chmod(0)
    return Case(f"{path.name} may not be read", (asked(refused(path.name), uid=uid),))


def linked(box: Box, rng: Random) -> Case:
    """Files that are links, as in a hub cache: the same checkpoint."""
    ck = folder(box, rng.choice(KINDS))
    blobs = box.here / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(ck.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(Path("..") / "blobs" / str(number))
    return Case("all files are links", (asked(same_texts(box)),))


MAKERS: tuple[Make, ...] = (
    config_bytes, config_value, weights_header, index, weights_bytes, pickled, folders, vocabulary,
    config_value, no_file, weights_header, no_numbers, two_sets, zipped, vocabulary, unreadable,
    config_value, weights_bytes, pickled, linked,
)  # fmt: skip
CONTROLS = {kind: _control(kind) for kind in KINDS}
AREA = Area("checkpoints", MAKERS, count=360, torch=True, controls=CONTROLS)
