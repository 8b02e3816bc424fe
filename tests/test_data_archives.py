"""Archives are unpacked in part, and nothing in one is believed that could do harm."""

import contextlib
import io
import stat
import tarfile
import zipfile
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eval.data.archives import LIMITS, unpack
from eval.errors import DataError

KEEP = r"val/[0-9]+\.txt"
MEMBERS = {"any/folder/val/1.txt": b"one", "any/folder/val/2.txt": b"two", "any/train/1.txt": b"x"}


def make(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as packed:
            for name, content in members.items():
                header = tarfile.TarInfo(name)
                header.size = len(content)
                packed.addfile(header, io.BytesIO(content))
    return path


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["a.zip", "a.tar.gz", "a.tgz"])
def archive(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def into(tmp_path):
    return tmp_path / "into"


def test_what_was_asked_for_and_no_more(archive, into):
    """Members are found by the end of their path, which is also their place."""
    assert ["val/1.txt", "val/2.txt"] == unpack(make(archive, MEMBERS), into, KEEP)
    assert {"val/1.txt": b"one", "val/2.txt": b"two"} == files(into)


def test_what_lay_there_is_replaced(archive, into):
    """A file that a stopped unpacking left is written again."""
    (into / "val").mkdir(parents=True)
    (into / "val" / "1.txt").write_bytes(b"o")
    unpack(make(archive, MEMBERS), into, KEEP)
    assert b"one" == (into / "val" / "1.txt").read_bytes()


@pytest.mark.parametrize(
    "name", ["../val/1.txt", "/val/1.txt", "a/../../val/1.txt", "..\\val\\1.txt", "x/../val/1.txt"]
)
def test_path_that_leads_out(archive, into, tmp_path, name):
    """One such member, kept or not, and the archive is refused."""
    with pytest.raises(DataError, match="leads out of the archive"):
        unpack(make(archive, {name: b"x"}), into, KEEP)
    assert [archive.name] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_of_a_tar(tmp_path, into, kind):
    """Never made, also where their name is one that was asked for."""
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        header = tarfile.TarInfo("val/1.txt")
        header.type, header.linkname = kind, "/etc/passwd"
        packed.addfile(header)
    with pytest.raises(DataError, match=r"'val/1\.txt': a link or a device"):
        unpack(archive, into, KEEP)
    assert not into.exists()


def test_links_of_a_zip(tmp_path, into):
    """A zip tells links by the file's mode."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        member = zipfile.ZipInfo("val/1.txt")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="a link or a device"):
        unpack(archive, into, KEEP)
    assert not into.exists()


def test_bomb_by_ratio(archive, into):
    """Bytes that unpack to far more than any benchmark's do are refused."""
    make(archive, {"val/1.txt": bytes(5_000_000)})
    with pytest.raises(DataError, match="decompression bomb"):
        unpack(archive, into, KEEP, limits=replace(LIMITS, ratio_from=1_000_000))
    assert {} == files(into) if into.exists() else True


def test_bomb_of_many_members(archive, into):
    """Bytes are counted in all: each member alone stays below the ratio."""
    make(archive, {f"val/{number}.txt": bytes(1_000_000) for number in range(8)})
    ratio = 2_000_000 // archive.stat().st_size
    assert ratio > 1
    with pytest.raises(DataError, match="decompression bomb"):
        unpack(archive, into, KEEP, limits=replace(LIMITS, ratio=ratio, ratio_from=1000))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (replace(LIMITS, members=2), "at most 2 members"),
        (replace(LIMITS, member_bytes=2), "at most 2 bytes"),
        (replace(LIMITS, total_bytes=5), "and 5 in all"),
    ],
)
def test_bounds(archive, into, limits, message):
    """Members, bytes of one and bytes in all are bounded."""
    with pytest.raises(DataError, match=message):
        unpack(make(archive, MEMBERS), into, KEEP, limits=limits)


def test_two_members_in_one_place(archive, into):
    """Two members that end alike would overwrite each other."""
    with pytest.raises(DataError, match=r"two members that end in 'val/1\.txt'"):
        unpack(make(archive, {"a/val/1.txt": b"1", "b/val/1.txt": b"2"}), into, KEEP)


def test_nothing_that_was_asked_for(archive, into):
    """An archive of something else is an error, not an empty success."""
    with pytest.raises(DataError, match="none found"):
        unpack(make(archive, {"train/1.txt": b"1"}), into, KEEP)


def test_format_that_is_not_known(tmp_path, into):
    """The ending tells the format."""
    with pytest.raises(DataError, match=r"\.zip or \.tar\.gz expected"):
        unpack(tmp_path / "a.rar", into, KEEP)


def test_encrypted_member(tmp_path, into):
    """A password is not asked for."""
    archive = make(tmp_path / "a.zip", MEMBERS)
    content = bytearray(archive.read_bytes())
    place = content.find(b"PK\x01\x02")
    content[place + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        unpack(archive, into, KEEP)


def test_truncated_at_any_byte(archive, into):
    """A truncated archive is an error, and every file that is there is whole."""
    content = make(archive, MEMBERS).read_bytes()
    for size in range(len(content)):
        archive.write_bytes(content[:size])
        with pytest.raises(DataError, match="a truncated or damaged one found"):
            unpack(archive, into, KEEP)
        if into.exists():
            assert files(into).items() <= {"val/1.txt": b"one", "val/2.txt": b"two"}.items()


@settings(max_examples=150)
@example(".zip", 0.984375, 1)  # a member before the file's start
@given(ending=st.sampled_from([".zip", ".tgz"]), place=st.floats(0, 1), value=st.integers(1, 255))
def test_damage_anywhere(tmp_path_factory, ending, place, value):
    """Any byte changed: a DataError and no other, or files with the right content."""
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(make(folder / f"a{ending}", MEMBERS).read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= value
    (folder / f"a{ending}").write_bytes(content)
    with contextlib.suppress(DataError):
        unpack(folder / f"a{ending}", folder / "into", KEEP)
    if (folder / "into").exists():
        assert set(files(folder / "into").values()) <= {b"one", b"two", b"x"}
