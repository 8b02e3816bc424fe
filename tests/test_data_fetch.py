"""Downloads over real HTTP on loopback: interrupted, changed, refused, redirected, killed."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
from time import sleep

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from web import Web

from eval.data.fetch import TRIES, Fetcher, ServerUnreachable
from eval.errors import DataError

CONTENT = random.Random(0).randbytes(400_000)


@pytest.fixture(scope="module")
def shared():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def web(shared):
    shared.pages.clear()
    return shared


@pytest.fixture
def fetcher():
    return Fetcher(backoff_s=0, timeout_s=10)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_arrives_whole_and_alone(web, fetcher, tmp_path):
    """The folder is made, progress counts bytes, the digest is told, nothing else stays behind."""
    seen = []
    path = tmp_path / "new" / "a.bin"
    digest = fetcher.fetch(
        web.page("a", CONTENT), path, progress=lambda done, total: seen.append((done, total))
    )
    assert sha256(CONTENT) == digest
    assert CONTENT == path.read_bytes()
    assert ["a.bin"] == names(path.parent)
    assert (len(CONTENT), len(CONTENT)) == seen[-1]


def test_broken_connections_are_continued(web, fetcher, tmp_path):
    """Each answer ends after 60,000 bytes: the next asks for the rest, and all bytes are right."""
    fetcher.fetch(web.page("a", CONTENT, cut=60_000), tmp_path / "a.bin")
    assert CONTENT == (tmp_path / "a.bin").read_bytes()
    starts = [0 if each is None else int(each[6:-1]) for each in web.asked("a")]
    assert sorted(set(starts)) == starts  # every request gained
    assert 0 == starts[0] < starts[1]


@settings(max_examples=20)
@given(cut=st.integers(1, 5000), size=st.integers(1, 5000), tagged=st.booleans())
def test_any_beginning_is_continued(shared, tmp_path_factory, cut, size, tagged):
    """Wherever connections break, what is put together is the file."""
    path = tmp_path_factory.mktemp("fetch") / "b"
    content, cut = CONTENT[:size], max(cut, size // 20)
    url = shared.page("b", content, cut=cut, tagged=tagged)
    Fetcher(backoff_s=0).fetch(url, path)
    assert content == path.read_bytes()
    assert -(-size // cut) == len(shared.asked("b"))


def stop_in_the_middle(web, tmp_path, **options):
    """A part of 100,000 bytes, as a process leaves it that is stopped."""
    url = web.page("a", CONTENT, cut=100_000, **options)

    class Stop(Exception):
        pass

    def progress(done, total):
        if done >= 100_000:
            raise Stop

    with pytest.raises(Stop):
        Fetcher(backoff_s=0).fetch(url, tmp_path / "a.bin", progress=progress)
    assert 100_000 == (tmp_path / "a.bin.part").stat().st_size
    assert not (tmp_path / "a.bin").exists()
    return url


def test_rest_alone_is_asked_for(web, fetcher, tmp_path):
    """A second call goes on at the byte where the first stopped."""
    url = stop_in_the_middle(web, tmp_path)
    web.page("a", CONTENT)
    fetcher.fetch(url, tmp_path / "a.bin")
    assert ["bytes=100000-"] == web.asked("a")
    assert CONTENT == (tmp_path / "a.bin").read_bytes()


def test_server_without_ranges(web, fetcher, tmp_path):
    """A server that sends all again is believed: nothing is put behind what was there."""
    url = stop_in_the_middle(web, tmp_path)
    web.page("a", CONTENT, ranges=False)
    fetcher.fetch(url, tmp_path / "a.bin")
    assert ["bytes=100000-"] == web.asked("a")
    assert CONTENT == (tmp_path / "a.bin").read_bytes()


@pytest.mark.parametrize("size", [400_000, 399_999, 50_000])
@pytest.mark.parametrize("tagged", [True, False])
def test_file_that_changed_between(web, fetcher, tmp_path, size, tagged):
    """Another ETag, or without one another size: the new file alone, no mixture of two.

    Without an ETag, two files of one size can't be told apart: then a pinned digest must do.
    """
    other = bytes(reversed(CONTENT))[:size]
    url = stop_in_the_middle(web, tmp_path, tagged=tagged)
    web.page("a", other, tagged=tagged)
    if not tagged and size == len(CONTENT):
        with pytest.raises(DataError, match=f"expected sha256:{sha256(other)}"):
            fetcher.fetch(url, tmp_path / "a.bin", sha256=sha256(other))
        assert [] == names(tmp_path)
    fetcher.fetch(url, tmp_path / "a.bin", sha256=sha256(other))
    assert other == (tmp_path / "a.bin").read_bytes()


def test_file_that_changed_is_sent_whole_at_once(web, fetcher, tmp_path):
    """The tag goes along with the request for the rest, so no second one is needed."""
    url = stop_in_the_middle(web, tmp_path)
    other = web.page("a", bytes(reversed(CONTENT)))
    fetcher.fetch(other, tmp_path / "a.bin")
    assert (url, ["bytes=100000-"]) == (other, web.asked("a"))


@pytest.mark.parametrize("options", [{"heeds": False}, {"early": 1}])
def test_server_that_sends_another_rest(web, fetcher, tmp_path, options):
    """The rest of another file, or from another byte: no mixture is made of it."""
    url = stop_in_the_middle(web, tmp_path)
    content = CONTENT if "early" in options else bytes(reversed(CONTENT))
    web.page("a", content, **options)
    fetcher.fetch(url, tmp_path / "a.bin")
    assert content == (tmp_path / "a.bin").read_bytes()


def test_part_of_another_url_is_not_continued(web, fetcher, tmp_path):
    """What was begun from another place is another file."""
    stop_in_the_middle(web, tmp_path)
    fetcher.fetch(web.page("b", CONTENT[::-1]), tmp_path / "a.bin")
    assert [None] == web.asked("b")
    assert CONTENT[::-1] == (tmp_path / "a.bin").read_bytes()


@pytest.mark.parametrize("notes", [b"", b"{", b"[]", b'{"url": 1}'])
def test_damaged_notes_mean_a_new_start(web, fetcher, tmp_path, notes):
    """A part of which nothing is known for sure is not continued."""
    url = stop_in_the_middle(web, tmp_path)
    (tmp_path / "a.bin.part.json").write_bytes(notes)
    web.page("a", CONTENT)
    fetcher.fetch(url, tmp_path / "a.bin")
    assert [None] == web.asked("a")
    assert CONTENT == (tmp_path / "a.bin").read_bytes()


def test_wrong_digest(web, fetcher, tmp_path):
    """A file that is not the pinned one is not kept; the error names URL and both digests."""
    url = web.page("a", CONTENT)
    with pytest.raises(DataError, match=rf"{url}.*{'0' * 64} but got {sha256(CONTENT)}"):
        fetcher.fetch(url, tmp_path / "a.bin", sha256="0" * 64)
    assert [] == names(tmp_path)


def test_missing_page(web, fetcher, tmp_path):
    """404 is not tried again, and says what to do."""
    url = web.url("gone.json")
    with pytest.raises(DataError, match=rf"{url}: the server answers 404 Not Found.*by hand"):
        fetcher.fetch(url, tmp_path / "gone.json")
    assert [] == names(tmp_path)


def test_busy_server_is_asked_again(web, fetcher, tmp_path):
    """503 passes; one that stays busy ends the attempt after a bounded number of requests."""
    fetcher.fetch(web.page("a", b"x", fail=TRIES), tmp_path / "a.bin")
    assert b"x" == (tmp_path / "a.bin").read_bytes()
    url = web.page("b", b"x", fail=100)
    with pytest.raises(DataError, match=r"503.*[Ll]ater"):
        fetcher.fetch(url, tmp_path / "b.bin")
    assert TRIES + 1 == len(web.asked("b"))


def test_connection_that_always_breaks(web, fetcher, tmp_path):
    """Without a byte gained the attempt ends, bounded, and says that the command goes on."""
    url = web.page("a", CONTENT, cut=0)
    with pytest.raises(ServerUnreachable, match=f"broke {TRIES + 1} times.*same command goes on"):
        fetcher.fetch(url, tmp_path / "a.bin")
    assert TRIES + 1 == len(web.asked("a"))


def test_what_came_before_a_connection_broke_for_good_is_kept(web, fetcher, tmp_path):
    """The message promises it, and the next call goes on from there."""
    url = stop_in_the_middle(web, tmp_path)
    web.page("a", CONTENT, cut=0)
    with pytest.raises(ServerUnreachable, match="100,000 bytes are kept; the same command goes on"):
        fetcher.fetch(url, tmp_path / "a.bin")
    web.page("a", CONTENT)
    fetcher.fetch(url, tmp_path / "a.bin")
    assert ["bytes=100000-"] == web.asked("a")


def test_nobody_listens(fetcher, tmp_path):
    """A server that cannot be reached is an error of its own kind: others need not be asked."""
    with pytest.raises(ServerUnreachable, match=r"cannot be reached.*network"):
        fetcher.fetch("http://127.0.0.1:9/x", tmp_path / "x")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirect_to_another_scheme(web, fetcher, tmp_path, target):
    """A redirect that leaves http and https is not followed."""
    url = web.page("a", location=target)
    with pytest.raises(DataError, match=f"{url}: redirects to {target}"):
        fetcher.fetch(url, tmp_path / "a.bin")
    assert [] == names(tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "/etc/passwd", ""])
def test_scheme_of_the_url(fetcher, tmp_path, url):
    """Nothing but http and https is fetched."""
    with pytest.raises(DataError, match="an http or https URL expected"):
        fetcher.fetch(url, tmp_path / "a.bin")


def test_redirect_within_http(web, fetcher, tmp_path):
    """An ordinary redirect leads to the file."""
    web.page("b", CONTENT)
    fetcher.fetch(web.page("a", location="/b"), tmp_path / "a.bin")
    assert CONTENT == (tmp_path / "a.bin").read_bytes()


def test_more_than_the_limit(web, fetcher, tmp_path):
    """A file larger than it may be is refused before it is received."""
    with pytest.raises(DataError, match="at most 1,000 bytes expected, 400,000 offered"):
        fetcher.fetch(web.page("a", CONTENT), tmp_path / "a.bin", limit=1000)
    with pytest.raises(DataError, match="more than 1,000 bytes; it was not kept"):
        fetcher.fetch(web.page("b", CONTENT, sized=False), tmp_path / "b.bin", limit=1000)
    assert [] == names(tmp_path)


def picture():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a.json", b'{"a": 1}'),
        ("a.jsonl", b'{"a": 1}\n'),
        ("a.csv", b"a,b\n1,2\n"),
        ("a.txt", b"one\n"),
        ("a.png", picture()),
    ],
)
@pytest.mark.parametrize("bad", [b"<html>gone</html>", b""])
def test_page_instead_of_a_file(web, fetcher, tmp_path, name, good, bad):
    """A notice sent with status 200 is not taken for data."""
    url = web.page("a", bad)
    with pytest.raises(DataError, match=f"{url}: a file {name[1:]} expected, something else"):
        fetcher.fetch(url, tmp_path / name)
    assert [] == names(tmp_path)
    web.page("a", good)
    fetcher.fetch(url, tmp_path / name)
    assert good == (tmp_path / name).read_bytes()


def test_killed_process_is_continued(web, fetcher, tmp_path):
    """kill -9 in the middle: the file isn't there, its beginning is, and only the rest comes."""
    url = web.page("a", CONTENT * 5, pause_s=0.05)
    code = (
        "import sys; from pathlib import Path; from eval.data.fetch import Fetcher\n"
        "Fetcher().fetch(sys.argv[1], Path(sys.argv[2]))"
    )
    path, part = tmp_path / "a.bin", tmp_path / "a.bin.part"
    process = subprocess.Popen([sys.executable, "-c", code, url, str(path)])
    while not (part.exists() and part.stat().st_size):
        assert process.poll() is None, "it ended before it could be killed"
        sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    have = part.stat().st_size
    web.page("a", CONTENT * 5)
    fetcher.fetch(url, path)
    assert [f"bytes={have}-"] == web.asked("a")
    assert CONTENT * 5 == path.read_bytes()
    assert ["a.bin"] == names(tmp_path)
