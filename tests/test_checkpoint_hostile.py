"""Hostile files in a checkpoint: exit code 2 and the file's name, at once, in bounded memory."""

import base64
import json
import os
import resource
import shutil
import signal
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import CONFIG, RANKS, command, make_checkpoint, make_data

from eval.errors import CheckpointError
from eval.runtime import QwenVL
from eval.runtime.checkpoint import REMEMBERED, find_checkpoint

SINGLE, INDEX, BIN = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
WTE = "transformer.wte.weight"
SMALL_FILES = ("config.json", INDEX, "generation_config.json", "qwen.tiktoken")
GROWTH_BYTES = 150_000_000  # of the process by one refusal; without bounds it would be gigabytes


@pytest.fixture(autouse=True)
def bounded():
    """A test that hangs fails after a minute, and none makes the process grow."""

    def late(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < GROWTH_BYTES // 1024


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
    path = tmp_path / "checkpoint"
    shutil.copytree(sharded, path, ignore=shutil.ignore_patterns(".*"))
    return path


@pytest.fixture
def bare(folder):
    """A checkpoint without weights."""
    for path in folder.glob("model*"):
        path.unlink()
    return folder


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        QwenVL.from_pretrained(path)
    message = str(caught.value)
    assert len(message) < 1000
    return message


def run(folder, data, out):
    asked = ("run", "okvqa", "--model", folder, "--data", data, "--out", out)
    return command(*asked, "--allow-partial", "--device", "cpu")


def configure(folder, field, value):
    fields = json.loads(json.dumps(CONFIG))
    section, _, name = field.rpartition(".")
    (fields[section] if section else fields)[name] = value
    (folder / "config.json").write_text(json.dumps(fields))


@pytest.mark.case("hostile/03")
@pytest.mark.parametrize("field", ["num_hidden_layers", "visual.layers"])
@pytest.mark.parametrize("layers", [9999998, 999])
def test_layers_that_the_weights_do_not_have(folder, data, tmp_path, field, layers):
    """The field is named at once, before a model of so many layers is made."""
    configure(folder, field, layers)
    done = run(folder, data, tmp_path / "out")
    assert (2, True) == (done.returncode, f"config.json: {field}" in " ".join(done.stderr.split()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 999_999),
        ("vocab_size", 2**64),
        ("vocab_size", 480.0),
        ("intermediate_size", 999_998),
        ("num_hidden_layers", True),
        ("num_hidden_layers", None),
        ("num_hidden_layers", 0),
        ("seq_length", "2048"),
        ("seq_length", 10**30),
        ("layer_norm_epsilon", 5),
        ("rotary_emb_base", -1.0),
        ("use_dynamic_ntk", "false"),
        ("use_logn_attn", 1),
        ("visual.width", 999_936),
        ("visual.patch_size", 7),
        ("visual.image_size", 14 * 70_000),
        ("visual.image_size", 14 * 1000),
        ("visual.mlp_ratio", 900.0),
        ("visual.image_start_id", -1),
        ("visual.heads", []),
    ],
)
def test_a_field_that_is_wrong_is_named(folder, field, value):
    """Of a wrong type, out of bounds, or contradicted by the weights."""
    configure(folder, field, value)
    message = refused(folder)
    assert message.startswith(f"{folder / 'config.json'}: ")
    assert field in message


DEEP = b"[" * 200_000
TEXTS = {
    "nested": (DEEP, SMALL_FILES),
    "nested_objects": (b'{"a":' * 5000 + b"1" + b"}" * 5000, SMALL_FILES),
    "nested_unknown_field": (b'{"x": ' + DEEP, SMALL_FILES),
    "utf-16": ("{}".encode("utf-16"), SMALL_FILES),
    "not_utf-8": (b'{"\xff": 1}', SMALL_FILES),
    "empty": (b"", SMALL_FILES),
    "list": (b"[]", SMALL_FILES),
    "null": (b"null", SMALL_FILES),
    "nul_bytes": (b"\0" * 100, SMALL_FILES),
    "too_large": (b" " * 4_000_001, ("config.json", INDEX, "generation_config.json")),
    "twice": (json.dumps(CONFIG)[:-1].encode() + b', "vocab_size": 480}', ("config.json",)),
    "nan": (b'{"model_type": "qwen", "visual": {}, "vocab_size": NaN}', ("config.json",)),
    "digits": (b'{"model_type": "qwen", "visual": {}, "x": %s}' % (b"9" * 9999), ("config.json",)),
    "format_number": (b'{"chat_format": 5}', ("generation_config.json",)),
    "map_list": (b'{"weight_map": ["a"]}', (INDEX,)),
    "map_empty": (b'{"weight_map": {}}', (INDEX,)),
    "map_number": (b'{"weight_map": {"a": 5}}', (INDEX,)),
    "map_twice": (b'{"weight_map": {"a": "x.bin", "a": "y.bin"}}', (INDEX,)),
    "map_absolute": (b'{"weight_map": {"a": "/etc/model.bin"}}', (INDEX,)),
    "map_above": (b'{"weight_map": {"a": "../model.bin"}}', (INDEX,)),
    "map_itself": (b'{"weight_map": {"a": "%s"}}' % INDEX.encode(), (INDEX,)),
    "map_nul": (b'{"weight_map": {"a": "a\\u0000.bin"}}', (INDEX,)),
    "map_pickle": (b'{"weight_map": {"a": "optimizer.pt"}}', (INDEX,)),
}


@pytest.mark.parametrize(
    ("text", "name"),
    [(text, name) for text, (_, names) in TEXTS.items() for name in names],
)
def test_a_small_file_that_is_damaged(folder, text, name):
    """JSON of any depth and type, other encodings, names of shards that leave the folder."""
    (folder / name).write_bytes(TEXTS[text][0])
    assert refused(folder).startswith(str(folder / name))


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", [*SMALL_FILES, "model-00001-of-00002.safetensors"])
def test_no_regular_file(folder, name, what):
    """A pipe blocks for ever, a device has no end: neither is read."""
    (folder / name).unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(folder / name)
    elif what == "device":
        (folder / name).symlink_to("/dev/zero")
    else:
        (folder / name).mkdir()
    assert refused(folder).startswith(str(folder / name))


def test_a_pipe_or_a_link_in_place_of_remembered_digests(folder, data, tmp_path):
    """Neither is read or written: the digests are computed again."""
    os.mkfifo(folder / REMEMBERED)
    assert 4 == len(find_checkpoint(folder).digests())
    (folder / REMEMBERED).unlink()
    (tmp_path / "foreign").write_text("mine\n")
    (folder / REMEMBERED).symlink_to(tmp_path / "foreign")
    for file in folder.glob("*"):
        os.utime(file, (1, 1), follow_symlinks=False)
    find_checkpoint(folder).digests()
    assert (tmp_path / "foreign").read_text() == "mine\n"


def ranks(*changed):
    """The small vocabulary with some of its lines replaced; None leaves a line out."""
    lines = {n: f"{base64.b64encode(bytes([n])).decode()} {n}" for n in range(RANKS)} | dict(
        changed
    )
    return "\n".join(line for line in lines.values() if line is not None).encode()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (ranks((3, "!!! 3")), "line 4: not base64"),
        (ranks((3, f"Aw== {'9' * 10_000}")), "line 4: rank 3"),
        (ranks((3, "Aw== -1")), "line 4: rank 3"),
        (ranks((3, "Ag== 3")), "line 4: these bytes have rank 2 already"),
        (ranks((3, None)), "line 4: rank 3"),
        (ranks((255, None)), "0xff"),
        (b"\n" * 5_000_000, "more than the limit"),
    ],
)
def test_a_vocabulary_that_is_damaged(folder, content, place):
    """Base64, ranks too large, twice or left out, and lines without end: the line is named."""
    (folder / "qwen.tiktoken").write_bytes(content)
    message = refused(folder)
    assert message.startswith(str(folder / "qwen.tiktoken"))
    assert place in message


@pytest.mark.parametrize("name", ["config.json", INDEX, "qwen.tiktoken"])
def test_a_byte_order_mark_changes_nothing(folder, name):
    """Some editors write one."""
    (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert QwenVL.from_pretrained(folder)


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "empty_file": b"",
    "short": b"ab",
    "length_beyond_file": struct.pack("<Q", 1000) + b"{}",
    "length_of_terabytes": struct.pack("<Q", 1 << 62) + b"{}",
    "many_parameters": {f"k{n}": entry("F32", [1], 4 * n, 4 * n + 4) for n in range(60_000)},
    "huge_shape": {WTE: entry("F32", [1 << 40, 1 << 40], 0, 4)},
    "overflowing_shape": {WTE: entry("F32", [1 << 62, 4], 0, 0)},
    "empty_shape": {WTE: entry("F32", [1 << 60, 0], 0, 0)},
    "negative_shape": {WTE: entry("F32", [-1], 0, 4)},
    "beyond_the_file": {WTE: entry("F32", [1 << 20], 0, 4 << 20)},
    "overlapping": {WTE: entry("F32", [1], 0, 4), "lm_head.weight": entry("F32", [1], 0, 4)},
    "no_dimension": {WTE: entry("F32", [], 0, 4)},
    "unknown_dtype": {WTE: entry("F128", [1], 0, 16)},
    "name_twice": b'{"a": %s, "a": %s}' % ((json.dumps(entry("F32", [1], 0, 4)).encode(),) * 2),
    "nested": b'{"a": ' + DEEP,
    "not_utf-8": b'{"\xff": 1}',
    "no_parameters": {},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_safetensors_header_that_is_damaged(bare, name):
    """Lengths, offsets and shapes that the file does not have; a name twice."""
    header = HEADERS[name]
    content = json.dumps(header).encode() if isinstance(header, dict) else header
    if content[:1] == b"{":
        content = struct.pack("<Q", len(content)) + content + bytes(4)
    (bare / SINGLE).write_bytes(content)
    message = refused(bare)
    assert SINGLE in message or "config.json: num_hidden_layers" in message


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "complex64", "float8_e4m3fn"])
def test_weights_that_are_no_floats(bare, tensors, dtype):
    """In both formats; the parameter is named."""
    changed = tensors | {WTE: tensors[WTE].to(getattr(torch, dtype))}
    save_file(changed, bare / SINGLE)
    assert f"{SINGLE}: {WTE}" in refused(bare)
    (bare / SINGLE).unlink()
    torch.save(changed, bare / BIN)
    assert BIN in refused(bare)


class Code:
    def __reduce__(self):
        return os.system, ("true",)


class OwnTensor(torch.Tensor):
    pass


STRANGE = {
    "sparse": lambda w: w.to_sparse(),
    "sparse_rows": lambda w: w.to_sparse_csr(),
    "nested": lambda w: torch.nested.nested_tensor([w[0], w[1]]),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "meta": lambda w: w.to("meta"),
    "repeated": lambda w: torch.zeros(1, 1).expand(w.shape),
    "overlapping": lambda w: torch.zeros(w.numel()).as_strided(w.shape, (1, 1)),
    "subclass": lambda w: w.as_subclass(OwnTensor),
    "code": lambda _: Code(),
    "number": lambda _: 5,
    "text": lambda _: "x" * 10_000,
}


@pytest.mark.case("hostile/15")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", STRANGE)
def test_tensors_that_are_not_plain(bare, tensors, name, zipped):
    """Sparse, nested, quantised, without memory, repeating one element, or no tensors at all."""
    changed = tensors | {WTE: STRANGE[name](tensors[WTE])}
    torch.save(changed, bare / BIN, _use_new_zipfile_serialization=zipped)
    assert refused(bare).startswith(str(bare / BIN))


@pytest.mark.case("hostile/15")
@pytest.mark.filterwarnings("ignore")
def test_a_sparse_tensor_ends_with_2(bare, tensors, data, tmp_path):
    """It passed the reader, and then torch failed with an internal error."""
    norm = "transformer.ln_f.weight"
    torch.save({**tensors, norm: tensors[norm].to_sparse()}, bare / BIN)
    done = run(bare, data, tmp_path / "out")
    assert (2, True) == (done.returncode, "dense tensors" in done.stderr), done.stderr


def test_views_of_a_large_storage_load(bare, tensors):
    """Their values are what they are, and only what they reach over is read."""
    large = torch.zeros(20_000_000)
    large[: tensors[WTE].numel()] = tensors[WTE].flatten()
    turned = {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in tensors.items()}
    torch.save({**turned, WTE: large[: tensors[WTE].numel()].view(tensors[WTE].shape)}, bare / BIN)
    found = dict(QwenVL.from_pretrained(bare).model.named_parameters())
    assert all(torch.equal(tensor, found[name]) for name, tensor in tensors.items())


def test_many_tensors_of_one_small_storage(bare, tensors):
    """A model of gigabytes in a file of kilobytes."""
    most = max(tensor.numel() for tensor in tensors.values())
    few = torch.zeros(most)
    torch.save({k: few[: v.numel()].view(v.shape) for k, v in tensors.items()}, bare / BIN)
    assert "share their memory" in refused(bare)


def test_a_compressed_archive(bare, tensors):
    """torch.save compresses nothing, so this may be a bomb; its mapped bytes would be garbage."""
    torch.save(tensors, bare / "stored")
    with (
        zipfile.ZipFile(bare / "stored") as stored,
        zipfile.ZipFile(bare / BIN, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for each in stored.infolist():
            archive.writestr(each.filename, stored.read(each))
    (bare / "stored").unlink()
    assert "is compressed" in refused(bare)


PICKLES = {
    "empty": b"",
    "one_byte": b"\x80",
    "zip_without_entries": b"PK\x03\x04" + bytes(100),
    "text": b"weights, honestly\n" * 50,
    "lists_in_lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "tuples_in_a_key": b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s.",  # overflows hash()
    "tuples_of_one": b"\x80\x02})" + b"q\x00h\x00h\x00\x86" * 60 + b"K\x01s.",  # doubles
    "tuples_in_an_ordered_dict": b"\x80\x02ccollections\nOrderedDict\n](K\x01))\x86a\x85R.",
    "memo_that_is_not_there": b"\x80\x02h\x05.",
    "large_memo": b"\x80\x02}r\xff\xff\xff\xff.",
    "long_text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "nothing_on_the_stack": b"\x80\x02..",
}


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_is_hostile(bare, name):
    """Nesting that overflows the interpreter's stack, sizes that are not there."""
    (bare / BIN).write_bytes(PICKLES[name])
    assert refused(bare).startswith(str(bare / BIN))
