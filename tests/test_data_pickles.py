"""Pickles of refer are read; what a pickle could do beyond holding values is refused, not done."""

import os
import pickle
import pickletools
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.data import pickles, read_pickle
from eval.errors import DataError

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)
REF = {
    "ref_id": 9,
    "ann_id": 77,
    "file_name": "COCO_train2014_000000000042_3.jpg",
    "sent_ids": [1, 2],
    "sentences": [{"sent_id": 1, "raw": "Man, left caf\u00e9", "tokens": ["man", "left"]}],
}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "refs(unc).p"


def read(file, content):
    file.write_bytes(content)
    return read_pickle(file)


@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_whatever_the_protocol(file, value, protocol):
    """The standard library's own reader is the judge; types count, so True is not 1."""
    content = pickle.dumps(value, protocol=protocol)
    expected, actual = pickle.loads(content), read(file, content)
    assert repr(expected) == repr(actual)


@given(value=PLAIN, data=st.data())
@settings(max_examples=200)
def test_damage_is_a_dataerror_or_another_plain_value(file, value, data):
    """Whatever one byte becomes, nothing but DataError leaves the reader."""
    content = bytearray(pickle.dumps(value, protocol=data.draw(st.integers(0, 5))))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DataError):
        read(file, bytes(content))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_more_than_a_thousand_records_come_back(file, protocol):
    """The library writes long lists in batches and repeats strings by number."""
    value = [{**REF, "ref_id": number} for number in range(2500)]
    assert value == read(file, pickle.dumps(value, protocol=protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"(lp0\n(dp1\nS'sent'\np2\nS'man left'\np3\nsS'image_id'\np4\nL42L\nsa.",
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x08man leftq\x03U\x08image_idq\x04K*ua.",
        b"\x80\x02]q\x00}q\x01(T\x04\x00\x00\x00sentq\x02U\x08man leftU\x08image_id\x8a\x01*ua.",
    ],
    ids=["protocol 0", "protocol 2", "protocol 2 with long strings and numbers"],
)
def test_python_2_wrote_strings_of_bytes(file, content):
    """Refer's files are such; each was written by hand after pickletools' tables."""
    expected = [{"sent": "man left", "image_id": 42}]
    assert expected == read(file, content)
    assert expected == pickle.loads(content)


def test_python_2_strings_of_bytes_are_utf_8(file):
    """And what is not is an error, never a guess in Latin-1."""
    assert "caf\u00e9" == read(file, b"\x80\x02U\x05caf\xc3\xa9.")
    with pytest.raises(DataError, match="UnicodeDecodeError"):
        read(file, b"\x80\x02U\x04caf\xe9.")


class Payload:
    """A pickle of this asks its reader to make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_payload_is_refused_by_name_and_not_run(file, tmp_path, protocol):
    """The one thing that makes pickles dangerous; the standard library would run it."""
    content = pickle.dumps([REF, Payload(tmp_path / "made")], protocol=protocol)
    with pytest.raises(DataError, match=r"plain values expected, .*GLOBAL .*mkdir.* found"):
        read(file, content)
    assert not (tmp_path / "made").exists()
    pickle.loads(content)  # so the payload was a real one
    assert (tmp_path / "made").exists()


def test_a_shell_command_is_refused(file, tmp_path):
    """The textbook's payload, in the oldest protocol."""
    made = tmp_path / "made"
    content = f"cos\nsystem\n(S'touch {made}'\ntR.".encode()
    with pytest.raises(DataError, match=r"byte 0: plain values expected, GLOBAL 'os system' found"):
        read(file, content)
    assert not made.exists()


REFUSED = sorted({each.name for each in pickletools.opcodes} - set(pickles.STEPS) - {"STOP"})


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_instruction_is_refused_by_itself(file, name):
    """Even where none before it was: two values, and what would be done with them."""
    (opcode,) = (each for each in pickletools.opcodes if each.name == name)
    argument = b"os\nsystem\n" if name in ("GLOBAL", "INST") else bytes([1, *bytes(8)]) + b"\n"
    with pytest.raises(DataError, match=f"plain values expected, {name} .*found"):
        read(file, b"NU\x01xU\x01y" + opcode.code.encode("latin-1") + argument + b".")


def test_what_calls_imports_or_builds_is_among_the_refused():
    """A list by hand, so that a step added by mistake is seen."""
    dangerous = {
        "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID",
        "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER",
    }  # fmt: skip
    assert dangerous <= set(REFUSED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "pickle exhausted before seeing STOP"),
        (pickle.dumps([REF])[:-20], "ValueError"),
        (pickle.dumps([REF], protocol=0)[:-1], "exhausted"),
        (b".", "not enough values"),
        (b"NN.", "too many values"),
        (b"(N.", "a container that is not closed"),
        (b"h\x05.", "KeyError: 5"),
        (b"q\x05.", "IndexError"),
        (b"]NNs.", "a dict that is still being filled expected"),
        (b"}(U\x01aNU\x01aNu.", "fields named by strings, each once, expected, 'a'"),
        (b"}(K\x01Nu.", "fields named by strings, each once, expected, 1"),
        (b"}(U\x01au.", "a field without a value"),
        (b"]q\x00h\x00a.", "a list that is still being filled expected"),
        (b"}q\x00U\x01ah\x00s.", "a dict that is still being filled expected"),
        (b"\x8a\x09" + b"\xff" * 8 + b"\x01.", "more than 64 bits"),
        (b"L" + b"9" * 5000 + b"L\n.", "ValueError"),
        (b"L" + b"9" * 100 + b"L\n.", "more than 64 bits"),
        (b"Fnan\n.", "the number nan"),
        (b"G\x7f\xf0" + bytes(6) + b".", "the number inf"),
        (b"X\x03\x00\x00\x00\xed\xa0\x80.", "UnicodeEncodeError"),
        (b"S'a\\q'\n.", "invalid escape"),
        (b"\x8d" + b"\xff" * 8 + b".", "ValueError"),
    ],
)  # fmt: skip
def test_what_is_no_plain_pickle_is_an_error_that_says_why(file, content, message):
    """Truncated, without end, with unknown memos, self-containing, beyond JSON: all DataError."""
    with pytest.raises(DataError, match=message):
        read(file, content)


@pytest.mark.parametrize(
    "content",
    [
        b"]" * 5000 + b"a" * 4999 + b".",
        b"(" * 5000 + b"l" * 5000 + b".",
        b"N" + b"\x85" * 5000 + b".",
    ],
    ids=["appended", "marked", "tuples"],
)
def test_deep_nesting_is_an_error_before_it_is_a_crash(file, content):
    """A hundred levels are far more than any benchmark's; the interpreter dies at some thousand."""
    with pytest.raises(DataError, match=f"more than {pickles.MAX_DEPTH}"):
        read(file, content)


def test_a_hundred_levels_are_borne(file):
    """The bound itself, from below."""
    levels = pickles.MAX_DEPTH
    value = read(file, b"]" * levels + b"a" * (levels - 1) + b".")
    for _ in range(levels - 1):
        (value,) = value
    assert value == []


def test_a_memo_bomb_is_refused(file):
    """Forty lists, each ten times the one before, would be 10 ** 40 values to a walk."""
    bomb = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
        for n in range(40)
    )
    with pytest.raises(DataError, match="values, more than"):
        read(file, bomb + b".")


@pytest.mark.parametrize(("most", "good"), [(11, True), (10, False)])
def test_instructions_are_counted(file, monkeypatch, most, good):
    """A file of one-byte instructions ends at a bound, not with the machine's memory."""
    monkeypatch.setattr(pickles, "MAX_VALUES", most)
    content = b"(" + b"N" * 9 + b"l."  # eleven and STOP, ten values
    if good:
        assert [None] * 9 == read(file, content)
    else:
        with pytest.raises(DataError, match="more than 10"):
            read(file, content)


def test_containers_are_counted(file, monkeypatch):
    """An empty list takes a byte in the file and hundreds in memory."""
    monkeypatch.setattr(pickles, "MAX_CONTAINERS", 3)
    assert [[], []] == read(file, b"(]]l.")
    with pytest.raises(DataError, match="more than 3 containers"):
        read(file, b"(]]]l.")


def test_a_file_beyond_the_bound_is_not_read(file, monkeypatch):
    """Its size is looked at before its content."""
    content = pickle.dumps(REF)
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", len(content))
    assert REF == read(file, content)
    monkeypatch.setattr(pickles, "MAX_PICKLE_BYTES", len(content) - 1)
    with pytest.raises(DataError, match=f"more than the limit of {len(content) - 1:,}"):
        read(file, content)


def test_a_message_never_shows_the_inside_of_a_tuple(file):
    """A bomb must not go off in the error about it."""
    with pytest.raises(DataError, match="expected, a list of 2") as error:
        read(file, b"}K\x01K\x02\x86Ns.")
    assert "1, 2" not in str(error.value)
