"""The lock file: pins hold, nothing in it is passed over, processes take turns."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest
from small import make_data

from eval.data.pins import NAME, Archived, Mirrored, Pinned, Pins, Unpacked
from eval.errors import DataError
from eval.plugins import find_tasks
from eval.run.spec import Spec, spec_entry
from eval.storage.lock import locked

ONE, TWO = "1" * 64, "2" * 64
URL = "https://x/a.zip"


def archived(*unpacked, sha256=ONE):
    return Archived(sha256, 5, unpacked)


def test_what_was_pinned_is_read(tmp_path):
    """All kinds of pins come back as they were; without a file there are none."""
    lock = Pins.read(tmp_path)
    assert (None, {}, {}) == (lock.digest("a"), lock.archives, lock.mirrors)
    lock.pin({"a/b.json": Pinned(ONE, 3, URL)})
    lock.pin_archive(URL, archived(Unpacked("coco", "x", 7)))
    lock.pin_mirror("okvqa/mirror", Mirrored("lab/x", "3" * 40))
    read = Pins.read(tmp_path)
    assert (ONE, lock) == (read.digest("a/b.json"), read)


def test_pin_holds(tmp_path):
    """Another digest is refused and changes nothing, the same one is welcome."""
    lock = Pins.read(tmp_path)
    lock.pin({"a": Pinned(ONE, 3)})
    lock.pin({"a": Pinned(ONE, 3)})
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(DataError, match=f"a: sha256 {ONE} is pinned.*{TWO} found"):
        lock.pin({"b": Pinned(TWO, 3), "a": Pinned(TWO, 3)})
    lock.pin_archive(URL, archived())
    with pytest.raises(DataError, match=f"{URL}: sha256 {ONE} is pinned"):
        lock.pin_archive(URL, archived(sha256=TWO))
    lock.pin_mirror("m", Mirrored("lab/x", "3" * 40))
    with pytest.raises(DataError, match=f"commit {'3' * 40} of lab/x is pinned"):
        lock.pin_mirror("m", Mirrored("lab/x", "4" * 40))
    assert before != (tmp_path / NAME).read_bytes()
    assert {"a": Pinned(ONE, 3)} == Pins.read(tmp_path).files


def test_nothing_is_asked_from_another_file_than_the_pinned(tmp_path):
    """A run would have a figure of data that were changed after they were verified."""
    (task,) = find_tasks(["okvqa_val"])
    make_data(tmp_path)
    pinned, _ = (source.path for source in task.layouts[0].sources)
    Pins(tmp_path).pin({pinned: Pinned("0" * 64, 1)})
    with pytest.raises(DataError, match=f"{pinned}: sha256 0{{64}} expected, .* found"):
        spec_entry(task, tmp_path, Spec())


def test_what_was_unpacked_is_added(tmp_path):
    """Two tasks take different members of one archive."""
    lock = Pins.read(tmp_path)
    first, second = Unpacked("coco", "x", 7), Unpacked("coco", "y", 8)
    lock.pin_archive(URL, archived(first))
    lock.pin_archive(URL, archived(second))
    lock.pin_archive(URL, archived(second))
    assert (first, second) == Pins.read(tmp_path).archives[URL].unpacked


def test_two_who_read_before_either_wrote(tmp_path):
    """Neither loses what the other pinned."""
    first, second = Pins.read(tmp_path), Pins.read(tmp_path)
    first.pin({"a": Pinned(ONE, 1)})
    second.pin({"b": Pinned(TWO, 1)})
    assert {"a", "b"} == Pins.read(tmp_path).files.keys() == second.files.keys()


def pin_many(root, worker):
    for number in range(25):
        Pins.read(root).pin({f"{worker}/{number}": Pinned(ONE, 1)})


def test_processes_that_pin_at_once(tmp_path):
    """Four processes pin at the same time, and all pins are there."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=pin_many, args=(tmp_path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [0] * 4 == [worker.exitcode for worker in workers]
    assert 100 == len(Pins.read(tmp_path).files)
    assert [] == list(tmp_path.glob("*.new"))


FILE = {"sha256": ONE, "bytes": 1, "url": ""}
ARCHIVE = {"sha256": ONE, "bytes": 1}


def good(**changes):
    return {"format": 1, "files": {}, "archives": {}, "mirrors": {}} | changes


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        good(format=2),
        good(more={}),
        good(files={"../a": FILE}),
        good(files={"a": FILE | {"x": 1}}),
        good(files={"a": FILE | {"sha256": ONE[1:]}}),
        good(files={"a": FILE | {"sha256": "A" * 64}}),
        good(archives={"u": ARCHIVE}),
        good(archives={"u": ARCHIVE | {"unpacked": [1]}}),
        good(mirrors={"m": {"repo": "a/b", "revision": "main"}}),
    ],
)
def test_malformed(tmp_path, values):
    """A pin that is misread would no longer be enforced: everything unknown is an error."""
    content = json.dumps(values)
    (tmp_path / NAME).write_text(content)
    with pytest.raises(DataError, match="restore it from a copy, or delete it"):
        Pins.read(tmp_path)
    with pytest.raises(DataError, match="restore"):
        Pins(tmp_path).pin({"a": Pinned(ONE, 1)})
    assert content == (tmp_path / NAME).read_text()


def test_held_waits_and_ends_with_its_process(tmp_path):
    """Another process that holds it is waited for, and said so once; its death lets us through."""
    code = (
        "import sys; from pathlib import Path; from eval.storage.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    path, waited = tmp_path / "guard", []
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert "held\n" == process.stdout.readline()

        def waiting():
            waited.append(process.poll())
            os.kill(process.pid, 9)

        with locked(path, wait=True, waiting=waiting):
            assert [None] == waited
    with locked(path, wait=True, waiting=waiting):
        assert [None] == waited
