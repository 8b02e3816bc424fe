"""Features on disk: each file is whole, right and readable, or it is written anew."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from small import command, make_checkpoint, make_data

from eval.api import Generate, Request
from eval.engine.features import NAME, FeatureStore
from eval.engine.shared import SharedEngine
from eval.errors import UsageError
from eval.runtime import QwenVL

PICTURES = 4
BOUND = 1 << 30
TASK = "okvqa_val"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def model(checkpoint):
    return QwenVL.from_pretrained(checkpoint)


def answers(model, root, store):
    """What is answered with these features, and how many pictures had to be encoded."""
    requests = [
        Request(f"t/{n}", f"<img>{n % PICTURES}.png</img>What is number {n}?", Generate(6))
        for n in range(8)
    ]
    engine = SharedEngine(model, root, store=store)
    found = {prediction.id: prediction for prediction in engine.answer(requests)}
    return found, engine.usage.images


def files(folder):
    return sorted(file for file in folder.glob("??/*") if not file.name.startswith("."))


def test_features_on_disk_spare_the_tower(model, root, tmp_path):
    """A second run encodes nothing and answers the same."""
    expected, encoded = answers(model, root, FeatureStore(tmp_path, model, BOUND))
    assert PICTURES == encoded == len(files(tmp_path))
    assert (expected, 0) == answers(model, root, FeatureStore(tmp_path, model, BOUND))


def test_features_belong_to_their_weights(model, root, tmp_path):
    """Another vision tower, or another dtype, never gets them."""
    other = QwenVL.from_pretrained(make_checkpoint(tmp_path / "other", seed=1))
    half = QwenVL.from_pretrained(tmp_path / "other", dtype="bfloat16")
    for each in (model, other, half):
        _, encoded = answers(each, root, FeatureStore(tmp_path / "features", each, BOUND))
        assert PICTURES == encoded


def zero_the_end(file, others):
    """As a disk does that lost its last blocks: the size stays."""
    content = file.read_bytes()
    file.write_bytes(content[:-4000] + bytes(4000))


def flip_a_bit(file, others):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file, others):
    file.write_bytes(file.read_bytes()[:100])


def empty(file, others):
    file.write_bytes(b"")


def lengthen(file, others):
    file.write_bytes(file.read_bytes() + bytes(100_000))


def of_an_earlier_version(file, others):
    """Features without a digest."""
    file.write_bytes(save({NAME: torch.zeros(256, 128)}))


def of_another_shape(file, others):
    file.write_bytes(save({NAME: torch.zeros(0), "sha256": torch.zeros(32)}))


def another_picture_s(file, others):
    shutil.copyfile(others[0], file)


def a_link_to_another(file, others):
    file.unlink()
    file.symlink_to(others[0])


def a_link_to_nothing(file, others):
    file.unlink()
    file.symlink_to("nowhere")


def a_device(file, others):
    file.unlink()
    file.symlink_to("/dev/zero")


def a_pipe(file, others):
    file.unlink()
    os.mkfifo(file)


def a_socket(file, others):
    file.unlink()
    here = Path.cwd()
    os.chdir(file.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    finally:
        os.chdir(here)


DAMAGES = [
    zero_the_end,
    flip_a_bit,
    cut,
    empty,
    lengthen,
    of_an_earlier_version,
    of_another_shape,
    another_picture_s,
    a_link_to_another,
    a_link_to_nothing,
    a_device,
    a_pipe,
    a_socket,
]


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    """Features of two pictures."""
    found = FeatureStore(tmp_path_factory.mktemp("features"), model, BOUND)
    for key in "ab":
        found.write(key, torch.full((256, 128), float(ord(key))))
    return found


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_counts_as_missing_and_is_written_anew(store, damage):
    """It is whole afterwards; the other file is read as ever."""
    file, other = map(store._file, "ab")
    content = file.read_bytes()
    features = store.read("a")
    damage(file, [other])
    assert store.read("a") is None
    store.write("a", features)
    assert stat.S_ISREG(file.lstat().st_mode)
    assert content == file.read_bytes()
    assert torch.equal(features, store.read("a"))
    assert bool((store.read("b") == ord("b")).all())


def test_a_folder_in_place_of_a_file_stops_nothing(model, root, tmp_path):
    """Its picture is encoded again each time; nothing of the folder is removed."""
    expected, _ = answers(model, root, FeatureStore(tmp_path, model, BOUND))
    file, *_ = files(tmp_path)
    file.unlink()
    file.mkdir()
    (file / "mine").touch()
    assert (expected, 1) == answers(model, root, FeatureStore(tmp_path, model, BOUND))
    FeatureStore(tmp_path, model, 1).write("another", torch.zeros(256, 128))  # makes room
    assert [file] == files(tmp_path)
    assert (file / "mine").exists()


@pytest.mark.case("hostile/02")
def test_a_run_with_damaged_features_answers_as_with_none(checkpoint, tmp_path):
    """All files lose their last 4,000 bytes; the next run's answers are those of the first."""
    data = make_data(tmp_path / "data")

    def run(out):
        done = command(
            *("run", TASK, "--model", checkpoint, "--data", data, "--out", tmp_path / out),
            *("--features", tmp_path / "features", "--allow-partial", "--device", "cpu"),
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / out / TASK / "predictions.jsonl").read_bytes()

    first = run("a")
    contents = {file: file.read_bytes() for file in files(tmp_path / "features")}
    assert 3 == len(contents)
    for file in contents:
        zero_the_end(file, [])
    assert first == run("b")
    assert contents == {file: file.read_bytes() for file in files(tmp_path / "features")}


@pytest.mark.case("hostile/23")
@pytest.mark.parametrize(("mask", "mode"), [(0o000, 0o666), (0o022, 0o644), (0o077, 0o600)])
def test_files_follow_the_umask(model, tmp_path, mask, mode):
    """As all other files of a run do, so that a group may share them."""
    before = os.umask(mask)
    try:
        FeatureStore(tmp_path, model, BOUND).write("0", torch.zeros(256, 128))
    finally:
        os.umask(before)
    (file,) = files(tmp_path)
    assert mode == stat.S_IMODE(file.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_features_of_another_user_are_read(model, tmp_path):
    """Though the time of their last use cannot be set."""
    store = FeatureStore(tmp_path, model, BOUND)
    store.write("0", torch.ones(256, 128))
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        found = store.read("0")
    finally:
        os.seteuid(0)
    assert found is not None
    assert bool((found == 1).all())


def test_what_a_killed_process_left_is_removed(model, tmp_path):
    """But not what another process may be writing now."""
    place = tmp_path / "ab"
    place.mkdir()
    old, new = (place / f".{'0' * 64}.safetensors.{name}" for name in ("old", "new"))
    for file in (old, new):
        file.touch()
    os.utime(old, (1, 1))
    FeatureStore(tmp_path, model, BOUND)
    assert [new] == list(place.iterdir())


def test_features_that_are_no_numbers_are_not_kept(model, tmp_path):
    """Another device may make numbers of the same picture."""
    store = FeatureStore(tmp_path, model, BOUND)
    for value in (torch.nan, torch.inf):
        store.write("0", torch.full((256, 128), value))
    assert [] == files(tmp_path)


def test_features_are_bounded_and_the_oldest_go(model, tmp_path):
    """Those that were used longest ago are dropped first."""
    features = torch.zeros(256, 128)
    FeatureStore(tmp_path, model, BOUND).write("0", features)
    (file,) = files(tmp_path)
    size = file.stat().st_size
    file.unlink()
    store = FeatureStore(tmp_path, model, 5 * size + size // 2)
    for number in range(5):
        store.write(str(number), features + number)
        os.utime(store._file(str(number)), (number, number))
    assert store.read("0") is not None  # used just now
    store.write("5", features)
    left = [key for key in "012345" if store.read(key) is not None]
    assert ["0", "3", "4", "5"] == left
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 5 * size


def test_a_file_in_place_of_the_folder_is_an_error(model, tmp_path):
    """Said before anything is asked."""
    (tmp_path / "features").touch()
    with pytest.raises(UsageError, match="a folder for features"):
        FeatureStore(tmp_path / "features", model, BOUND)


SHARING = """
import sys
from pathlib import Path
import torch
from eval.engine.features import FeatureStore
from eval.runtime import QwenVL
model = QwenVL.from_pretrained(sys.argv[1])
store = FeatureStore(Path(sys.argv[2]), model, 3_000_000)
for turn in range(150):
    key = str(turn * int(sys.argv[3]) % 37)
    found = store.read(key)
    assert found is None or bool((found == int(key)).all()), key
    store.write(key, torch.full((256, 128), float(key)))
"""


def test_features_are_shared_by_processes(tmp_path):
    """Two processes read, write and drop in one folder: no half file is ever read."""
    folder = make_checkpoint(tmp_path / "model")
    code = [sys.executable, "-c", SHARING, str(folder), str(tmp_path / "features")]
    processes = [subprocess.Popen([*code, step]) for step in ("5", "7")]
    assert [0, 0] == [process.wait(timeout=120) for process in processes]
