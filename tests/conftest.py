"""What several test files share: recorded truth, the published vocabulary, the tiny checkpoint."""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import zlib
from pathlib import Path

# One thread a process, set before torch is imported: two test workers with two threads each spend
# the time of two cores waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent / "golden"
PARITY = GOLDEN / "parity"
VOCABULARY_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
SHARDS = 3


# One profile: an example may take as long as a busy machine needs.
settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")

SLOW_FILES = (  # they start processes and wait for them
    "test_bench.py",
    "test_bench_launch.py",
    "test_demo_run.py",
    "test_fuzz.py",
    "test_launch.py",
    "test_launch_ranks.py",
    "test_launch_ray.py",
    "test_regression.py",
)


def pytest_collection_modifyitems(items):
    """Mark the slow files, and run them first: the others then fill both processes to the end."""
    for item in items:
        if item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of recorded truth."""
    return GOLDEN


@pytest.fixture
def in_parity_folder(monkeypatch) -> Path:
    """The working directory that image paths of recorded prompts are relative to."""
    monkeypatch.chdir(PARITY)
    return PARITY


@pytest.fixture(scope="session")
def qwen_vocabulary() -> Path:
    """The published qwen.tiktoken; dashscope ships a copy, and is not imported for it."""
    package = importlib.util.find_spec("dashscope")
    assert package, "tests need the vocabulary in dashscope: pip install --no-deps dashscope"
    path = Path(package.origin).parent / "resources" / "qwen.tiktoken"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == VOCABULARY_SHA256
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(request, qwen_vocabulary) -> Path:
    """The checkpoint that the numbers in golden/parity were recorded with: 81 million float32
    weights, 325 MB, in three shards.

    Made once in a few seconds and kept in pytest's cache. The folder's name is a digest of the
    recipe, and it appears when complete. After a change of `_make`: pytest --cache-clear.
    """
    return _cached(request, qwen_vocabulary) / "224"


@pytest.fixture(scope="session")
def tiny_checkpoint_448(request, qwen_vocabulary) -> Path:
    """The same weights with images of 448 x 448 pixels."""
    return _cached(request, qwen_vocabulary) / "448"


def _cached(request, vocabulary: Path) -> Path:
    cache = request.config.cache.mkdir("qwen-vl-tiny")
    sources = [PARITY / name for name in ("weights.json", "config.json", "config_448.json")]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources))
    folder = cache / digest.hexdigest()[:16]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of parallel test processes one makes it, the others wait
        if not folder.exists():
            for outdated in cache.glob("*/"):
                shutil.rmtree(outdated)
            unfinished = cache / f"unfinished-{os.getpid()}"
            _make(unfinished, vocabulary)
            unfinished.replace(folder)
    return folder


def _make(folder: Path, vocabulary: Path) -> None:
    small, large = folder / "224", folder / "448"
    small.mkdir(parents=True)
    large.mkdir()
    shutil.copyfile(vocabulary, small / "qwen.tiktoken")
    _write_weights(small)
    for path in small.iterdir():
        os.link(path, large / path.name)
    shutil.copyfile(PARITY / "config.json", small / "config.json")
    shutil.copyfile(PARITY / "config_448.json", large / "config.json")


def _write_weights(folder: Path) -> None:
    """All tensors of the recipe, in shards of nearly equal size, and their index."""
    recipe = json.loads((PARITY / "weights.json").read_text(encoding="utf-8"))
    parameters = recipe["parameters"]
    total = sum(4 * int(np.prod(p["shape"])) for p in parameters)
    shards: list[list[dict]] = [[] for _ in range(SHARDS)]
    filled = 0
    for parameter in parameters:
        shards[filled * SHARDS // total].append(parameter)
        filled += 4 * int(np.prod(parameter["shape"]))
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        save_file({p["name"]: _tensor(p, recipe) for p in shard}, folder / name)
        weight_map |= {p["name"]: name for p in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _tensor(parameter: dict, recipe: dict) -> np.ndarray:
    """One float32 tensor, checked against the recorded digest or, for the position table, sum."""
    name, shape, rule = parameter["name"], parameter["shape"], parameter["rule"]
    if rule == "sincos":
        tensor = _sincos(*shape)
        assert float(tensor.sum(dtype=np.float64)) == pytest.approx(parameter["sum"], rel=1e-6)
        return tensor
    seed = zlib.crc32((recipe["salt"] + name).encode())
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    drawn *= parameter["scale"]
    tensor = (1 + drawn if rule == "one_plus" else drawn).astype(np.float32)
    if rule == "normal_boost":
        tensor[recipe["boosted_rows"]] *= np.float32(recipe["boost"])
    assert hashlib.sha256(tensor.tobytes()).hexdigest()[:16] == parameter["sha256"], name
    return tensor


def _sincos(rows: int, width: int) -> np.ndarray:
    """The resampler's position table (256, width); row y * 16 + x, the column x comes first."""
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    angles = np.arange(16)[:, None] * frequency
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (16, width / 2)
    slot = np.arange(rows)
    return np.concatenate([waves[slot % 16], waves[slot // 16]], axis=1).astype(np.float32)
