"""Steps are taken in order, over real HTTP: what is there is skipped, what fails stops no other."""

import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
from PIL import Image
from web import Web

from eval.api import Generate
from eval.data.declare import (
    Archive,
    Build,
    ByHand,
    Download,
    Expect,
    Layout,
    Pictures,
    Sample,
    Source,
    Task,
)
from eval.data.fetch import Fetcher
from eval.data.files import read_json
from eval.data.pins import Pins
from eval.data.prepare import plan_steps, prepare
from eval.data.verify import verify
from eval.errors import DataError

KEEP = r"img/[0-9]\.png"


@pytest.fixture(scope="module")
def shared():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def web(shared):
    shared.pages.clear()
    shared.page("q.json", json.dumps({"images": ["img/1.png", "img/2.png"]}).encode())
    shared.page("img.zip", zipped({f"x/img/{n}.png": picture(n) for n in (1, 2)}))
    return shared


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (number, 8), "red").save(file, "PNG")
    return file.getvalue()


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return file.getvalue()


def read(root):
    for image in read_json(root / "toy/q.json").texts("images"):
        yield Sample(image, {"image": f"toy/{image}", "question": "?"}, reference=["a", "b"])


def make_task(*steps):
    return Task(
        name="toy_val",
        size=2,
        layouts=(Layout((Source("toy/q.json"),), read),),
        prompt="<img>{image}</img>{question}",
        decode=Generate(3),
        metrics={"zero": lambda _text, _reference: 0.0},
        expect=Expect(images=2, answers=4),
        steps=steps,
    )


def official(web):
    return make_task(
        Download(web.url("q.json"), "toy/q.json"), Archive(web.url("img.zip"), "toy", KEEP)
    )


def get(task, root, **options):
    return prepare([task], root, fetcher=Fetcher(backoff_s=0), **options)


def test_all_is_fetched_pinned_and_complete(web, tmp_path):
    """Files are where the task reads them, digests are pinned, the archive is gone."""
    task = official(web)
    assert 2 == len(plan_steps([task], tmp_path))
    assert [] == get(task, tmp_path)
    assert () == verify(task, tmp_path, open_pictures=True, digests=True).issues
    lock = Pins.read(tmp_path)
    assert ({"toy/q.json"}, {web.url("img.zip")}) == (lock.files.keys(), lock.archives.keys())
    assert [] == list((tmp_path / "archives").iterdir())
    assert [] == plan_steps([task], tmp_path)


def test_nothing_is_fetched_twice(web, tmp_path):
    """A second call asks the server for nothing."""
    task = official(web)
    get(task, tmp_path)
    get(task, tmp_path)
    assert (1, 1) == (len(web.asked("q.json")), len(web.asked("img.zip")))


def test_archive_that_need_not_be_fetched(web, tmp_path):
    """Pictures that the user had already are found once the file that names them is there."""
    (tmp_path / "toy/img").mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / f"toy/img/{number}.png").write_bytes(picture(number))
    assert [] == get(official(web), tmp_path)
    assert [] == web.asked("img.zip")


def test_pictures_of_examples_are_fetched_when_asked_for(web, tmp_path):
    """Of complete data nothing but the step for few-shot examples is left, and only with them."""
    web.page("train.zip", zipped({"img/3.png": picture(3)}))
    task = replace(official(web), train_steps=(Archive(web.url("train.zip"), "toy/train", KEEP),))
    assert [] == get(task, tmp_path)
    assert ([], []) == (plan_steps([task], tmp_path), web.asked("train.zip"))
    assert [] == get(task, tmp_path, few_shot=True)
    assert picture(3) == (tmp_path / "toy/train/img/3.png").read_bytes()
    assert [] == plan_steps([task], tmp_path, few_shot=True)


def test_what_only_scoring_needs_is_fetched_beside_complete_data(web, tmp_path):
    """Also where the data were complete before, by themselves too; and what is there not again."""
    web.page("late.json", b"{}")
    web.page("late.zip", zipped({"img/7.png": picture(7)}))
    task = official(web)
    assert [] == get(task, tmp_path)
    steps = (
        Download(web.url("late.json"), "toy/late.json"),
        Archive(web.url("late.zip"), "toy/late", KEEP),
    )
    late = replace(task, later_steps=steps)
    assert list(steps) == [wanted.step for wanted in plan_steps([task, late], tmp_path)]
    for _ in range(2):
        assert [] == get(late, tmp_path)
        assert [] == plan_steps([late], tmp_path)
    assert b"{}" == (tmp_path / "toy/late.json").read_bytes()
    assert picture(7) == (tmp_path / "toy/late/img/7.png").read_bytes()
    for name in ("q.json", "img.zip", "late.json", "late.zip"):
        assert 1 == len(web.asked(name)), name
    (tmp_path / "toy/late.json").unlink()
    assert [steps[0]] == [wanted.step for wanted in plan_steps([late], tmp_path)]


def test_lost_member_is_unpacked_again(web, tmp_path):
    """That an archive was unpacked once does not hide that a picture was lost since."""
    task = official(web)
    get(task, tmp_path, keep_archives=True)
    (tmp_path / "toy/img/1.png").unlink()
    assert [] == get(task, tmp_path)
    assert 1 == len(web.asked("img.zip"))  # it had been kept
    assert picture(1) == (tmp_path / "toy/img/1.png").read_bytes()


def test_changed_file_on_the_server(web, tmp_path):
    """What was pinned must come again, archives included."""
    task = official(web)
    get(task, tmp_path)
    (tmp_path / "toy/q.json").unlink()
    (tmp_path / "toy/img/1.png").unlink()
    web.page("q.json", b'{"images": []}')
    web.page("img.zip", zipped({"img/1.png": picture(3)}))
    first, second = get(task, tmp_path)
    assert "not the file that was fetched before" in first
    assert "not the file that was fetched before" in second
    assert not (tmp_path / "toy/q.json").exists()


def test_failure_stops_no_other_step(web, tmp_path):
    """404 and a truncated zip are reported each; the rest is done; a later call mends them."""
    whole = web.pages["img.zip"].content
    web.page("img.zip", whole[:100])
    task = make_task(Download(web.url("gone.json"), "toy/g.json"), *official(web).steps)
    first, second = get(task, tmp_path)
    assert ("404" in first, "truncated" in second) == (True, True)
    assert (tmp_path / "toy/q.json").is_file()
    assert {} == Pins.read(tmp_path).archives
    web.page("img.zip", whole)
    assert 1 == len(get(task, tmp_path))
    assert () == verify(task, tmp_path).issues


def test_pictures_one_by_one(web, tmp_path):
    """What can be had is kept and pinned, others are counted; the next call takes these alone."""

    def urls(root):
        for sample in read(root):
            yield web.url(sample.id), sample.images[0]

    task = make_task(Download(web.url("q.json"), "toy/q.json"), Pictures(urls))
    web.page("img/1.png", picture(1))
    (failed,) = get(task, tmp_path)
    assert "1 could not be fetched" in failed
    assert "img/2.png: the server answers 404" in failed
    assert "toy/img/1.png" in Pins.read(tmp_path).files
    web.page("img/2.png", b"<html>")
    assert "a file .png expected" in get(task, tmp_path)[0]
    web.page("img/2.png", picture(2))
    assert [] == get(task, tmp_path)
    assert 1 == len(web.asked("img/1.png"))


def test_by_hand_and_made_files(web, tmp_path):
    """What a person must bring is planned until the data are complete, and is no failure."""
    made = []
    hand = ByHand("toy/img/", "https://x")
    build = Build("copies", lambda root: made.append(root))
    task = make_task(Download(web.url("q.json"), "toy/q.json"), hand, build)
    assert [] == get(task, tmp_path)
    assert [tmp_path] == made
    assert [hand, build] == [wanted.step for wanted in plan_steps([task], tmp_path)]
    (tmp_path / "toy/img").mkdir()
    for number in (1, 2):
        (tmp_path / f"toy/img/{number}.png").write_bytes(picture(number))
    assert [] == plan_steps([task], tmp_path)


def test_two_processes_take_turns(web, tmp_path):
    """Of two at once one fetches, the other finds all there."""
    web.pages["img.zip"].pause_s = 0.3
    code = (
        "import sys; from pathlib import Path\nfrom eval.api import *\n"
        "from eval.data.declare import *\n"
        "from eval.data.prepare import prepare\nfrom eval.data.files import read_json\n"
        "def read(root): return iter(())\n"
        "t = Task('toy_val', 2, (Layout((Source('toy/q.json'),), read),), '{q}', Generate(3), {},\n"
        "  steps=(Download(sys.argv[1], 'toy/q.json'), Archive(sys.argv[2], 'toy', sys.argv[3])))\n"
        "sys.exit(len(prepare([t], Path(sys.argv[4]))))"
    )
    arguments = [web.url("q.json"), web.url("img.zip"), KEEP, str(tmp_path)]
    both = [subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(2)]
    assert [0, 0] == [process.wait() for process in both]
    assert (1, 1) == (len(web.asked("q.json")), len(web.asked("img.zip")))


def test_malformed_lock(web, tmp_path):
    """A damaged lock file stops all: nothing could be enforced."""
    (tmp_path / "qwen-vl-eval.lock.json").write_text("{")
    with pytest.raises(DataError, match="restore it from a copy"):
        get(official(web), tmp_path)
