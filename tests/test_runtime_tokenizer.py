"""The tokenizer against ids and texts recorded from the original, and what it adds to it."""

import base64
import json
from pathlib import Path
from unicodedata import normalize

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from eval.errors import CheckpointError
from eval.runtime.tokenizer import (
    SPECIALS,
    TAGS,
    Tokenizer,
)

RECORDED = json.loads(
    (Path(__file__).parent / "golden/parity/tokenizer_cases.json").read_text(encoding="utf-8")
)
ERRORS = {
    "AssertionError": AssertionError,
    "KeyError": KeyError,
    "TypeError": TypeError,
    "UnicodeDecodeError": UnicodeDecodeError,
    "ValueError": ValueError,
}
BYTES = [bytes([byte]) for byte in range(256)]

# Text with everything that splits differently: letters, digits, blanks, marks, tags of every kind.
PIECES = (
    *("a", "Answer:", " ", "  ", "\n", "\t", "'s", "12", "é", "e\u0301", "图", "🗽", "\u200d", "<"),
    *("<ref>", "</ref>", "<box>", "</box>", "<imgpad>", "</img>", "<|im_end|>", "<|extra_7|>"),
)
TEXT = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=12).map("".join)
PATH = st.text(
    st.sampled_from("abc/. _é图🗽<>\n") | st.characters(codec="utf-8"), max_size=60
).filter(lambda path: "</img>" not in path)


def cases(name):
    return [
        pytest.param(case, id=f"{number}-{case.get('cat', case.get('note', ''))}")
        for number, case in enumerate(RECORDED[name])
    ]


def check(case, key, call):
    """The recorded result, or an error of the recorded type itself."""
    if "error" in case:
        with pytest.raises(ERRORS[case["error"]]) as caught:
            call()
        assert caught.type is ERRORS[case["error"]]
    else:
        assert case[key] == call()


@pytest.fixture(scope="session")
def tokenizer(qwen_vocabulary):
    return Tokenizer.from_file(qwen_vocabulary)


@pytest.fixture(scope="session")
def byte_tokenizer():
    """The smallest vocabulary there is: every byte a token, specials from 256 on."""
    return Tokenizer(BYTES)


def test_vocabulary(tokenizer):
    """Every special token has the published id."""
    recorded = RECORDED["vocabulary"]
    assert recorded["special_tokens"] == tokenizer.special_ids
    assert recorded["n_mergeable"] == tokenizer.n_ranks
    assert recorded["n_vocab"] == tokenizer.vocab_size
    for name in ("eod", "im_start", "im_end", "img_start", "img_end", "img_pad"):
        assert recorded[f"{name}_id"] == getattr(tokenizer, f"{name}_id")
    for tag in ("ref", "box", "quad", "img"):
        ids = (getattr(tokenizer, f"{tag}_start_id"), getattr(tokenizer, f"{tag}_end_id"))
        assert [recorded["special_tokens"][f"{slash}{tag}>"] for slash in ("<", "</")] == [*ids]


@pytest.mark.parametrize("case", cases("encode"))
def test_encode(tokenizer, case):
    """Ids, and types of errors, are the original's."""
    check(case, "ids", lambda: tokenizer.encode(case["text"]))


@pytest.mark.parametrize("case", cases("encode_image_tags_only"))
def test_encode_image_tags_only(tokenizer, case):
    """What a chat's user types: control tokens are ordinary text."""
    check(case, "ids", lambda: tokenizer.encode(case["text"], image_tags_only=True))


@pytest.mark.parametrize("case", cases("decode"))
def test_decode(tokenizer, case):
    """Texts, and types of errors, are the original's."""
    skip, keep = case["skip_special_tokens"], case.get("keep_image_special", False)
    check(case, "text", lambda: tokenizer.decode(case["ids"], skip, keep))
    check(case, "text", lambda: tokenizer.decode(torch.tensor(case["ids"]).long(), skip, keep))


def test_decode_skips_by_default(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a<ref>b</ref><|endoftext|>")) == "ab"


@pytest.mark.parametrize("case", cases("batch_left_pad"))
@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_left_pad(tokenizer, case, kind):
    """Fill is masked, an <|endoftext|> of the text is not; rows are lists or tensors."""
    ids, mask = tokenizer.left_pad([kind(tokenizer.encode(text)) for text in case["texts"]])
    assert case["input_ids"] == ids.tolist()
    assert case["attention_mask"] == mask.tolist()
    assert ids.dtype == mask.dtype == torch.int64


def test_left_pad_of_nothing(tokenizer):
    assert tokenizer.left_pad([])[0].shape == (0, 0)
    assert tokenizer.left_pad([[], [5]])[0].tolist() == [[tokenizer.eod_id], [5]]


def test_a_path_of_any_length(tokenizer):
    """The original refuses more than 256 bytes; the path's text never reaches the model."""
    path = "a/" * 2000 + "x.jpg"
    with pytest.raises(ValueError, match=r"at most 256 bytes expected .* 4005 found"):
        tokenizer.encode(f"<img>{path}</img>What?")
    ids, paths = tokenizer.encode_prompt(f"<img>{path}</img>What?")
    assert paths == [path]
    assert len(ids) == 258 + len(tokenizer.encode("What?"))


@pytest.mark.parametrize("path", ["<ref>x.jpg", "a<img>b", "<|endoftext|>", "<imgpad>", "a\nb", ""])
def test_a_path_may_look_like_anything(tokenizer, path):
    """Special tokens in a path are a TypeError in the original's encode, and only a path here."""
    ids, paths = tokenizer.encode_prompt(f"<img>{path}</img>")
    assert paths == [path]
    assert ids == tokenizer.encode("<img></img>")


def test_a_path_keeps_its_bytes(tokenizer):
    """A file whose name is decomposed on disk must be found: NFC is for text, not for paths."""
    _, paths = tokenizer.encode_prompt("e\u0301<img>e\u0301.png</img>")
    assert paths == ["e\u0301.png"]


@pytest.mark.parametrize("text", ["<img>a.png", "<img>a</img> <img>b", "</img><img>"])
def test_an_open_image_is_an_error(tokenizer, text):
    for encode in (tokenizer.encode, tokenizer.encode_prompt):
        with pytest.raises(ValueError, match="<img> is not closed"):
            encode(text)


def test_slots_are_not_taken_for_special_tokens(byte_tokenizer):
    """Where ids are few, a path's bytes stay below all special ids."""
    path = bytes(range(1, 256)).decode("latin-1").replace("<", "")[:120]
    ids = byte_tokenizer.encode(f"<img>{path}</img>")
    assert len(ids) == 258
    assert byte_tokenizer.decode(ids, False) == f"<img>{normalize('NFC', path)}</img>"


@given(TEXT, st.lists(st.tuples(PATH, TEXT), max_size=3), st.booleans())
def test_encode_prompt_is_encode_outside_the_slots(tokenizer, start, images, image_tags_only):
    text = start + "".join(f"<img>{path}</img>{after}" for path, after in images)
    assume("\u0338" not in text)  # NFC makes one character of it and the > of a tag
    ids, paths = tokenizer.encode_prompt(text, image_tags_only=image_tags_only)
    assert paths == [path for path, _ in images]
    try:
        expected = tokenizer.encode(text, image_tags_only=image_tags_only)
    except (ValueError, TypeError):  # of a path that encode doesn't take
        return
    inside = False
    for place, wanted in enumerate(expected):
        inside = inside and wanted != tokenizer.img_end_id
        assert ids[place] == (tokenizer.img_pad_id if inside else wanted)
        inside = inside or wanted == tokenizer.img_start_id
    assert len(expected) == len(ids)


@given(st.text(st.characters(codec="utf-8")))
def test_text_comes_back(tokenizer, byte_tokenizer, text):
    """Without special tokens in it, and normalised."""
    assume(not any(name in text for name in SPECIALS))
    for each in (tokenizer, byte_tokenizer):
        assert each.decode(each.encode(text)) == normalize("NFC", text)
        assert each.decode(each.encode(text), False) == normalize("NFC", text)


@given(TEXT)
def test_special_tokens_come_back(byte_tokenizer, text):
    assert byte_tokenizer.decode(byte_tokenizer.encode(text), False) == normalize("NFC", text)


@given(st.lists(st.sampled_from(range(151643, 151936)) | st.integers(0, 151935), max_size=20))
@example([151857])
@example([50, 151857, 51, 151858, 52])
@example([151857, 300, 151859, 151858])
@example([151857, 255, 151859, 151858])
@example([151935, 151857])
def test_any_generated_ids_have_a_text(tokenizer, ids):
    """A stray <img> in an answer must not end a run."""
    try:
        expected = tokenizer.decode(ids)
    except ValueError:
        expected = tokenizer.decode([i for i in ids if i < tokenizer.n_ranks])
    assert tokenizer.decode_answer(ids) == expected
    assert tokenizer.decode_answer(torch.tensor(ids, dtype=torch.int64)) == expected


def test_an_answer_with_its_special_tokens(tokenizer):
    ids = [151857, *tokenizer.encode("a<ref>b"), 151900]
    assert tokenizer.decode_answer(ids, skip_special_tokens=False) == "<img>a<ref>b"


def test_a_small_vocabulary(tmp_path):
    """Specials follow the file's own ranks, whatever their number."""
    ranks = [*BYTES, b"ab", b"abc"]
    tokenizer = Tokenizer.from_file(write_ranks(tmp_path, ranks))
    assert tokenizer.vocab_size == 258 + 217
    assert tokenizer.eod_id == 258
    assert tokenizer.img_pad_id == tokenizer.vocab_size - 1
    assert tokenizer.encode("xabc<ref>") == [120, 257, tokenizer.ref_start_id]
    assert [tokenizer.special_ids[tag] for tag in TAGS] == list(range(258 + 208, 258 + 217))
    assert tokenizer.decode([97, 258 + 217, 98]) == "ab"


def write_ranks(folder, ranks):
    path = folder / "qwen.tiktoken"
    lines = (base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b"!!!! 7", "line 8: not base64: b'!!!! 7'"),
        (b"BwE 7", "line 8: not base64"),
        (b"BwE=", "line 8: `base64 rank` expected"),
        (b"", "line 8: `base64 rank` expected"),
        (b"BwE= 7 7", "line 8: `base64 rank` expected"),
        (b"BwE= 8", "line 8: rank 7 expected"),
        (b"BwE= -7", "line 8: rank 7 expected"),
        (b"BwE= seven", "line 8: rank 7 expected"),
        (b"AA== 7", "line 8: these bytes have rank 0 already"),
        (b"BwE= 7", "all 256 single bytes expected in 256 lines, 1 are missing, the first is 0x07"),
    ],
)
def test_a_damaged_vocabulary(tmp_path, line, wrong):
    """The file and the line are named."""
    path = write_ranks(tmp_path, BYTES)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:7], line, *lines[8:]]))
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.from_file(path)
    assert str(path) in str(caught.value)
    assert wrong in str(caught.value)


def test_no_vocabulary(tmp_path):
    path = tmp_path / "qwen.tiktoken"
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken: no such file"):
        Tokenizer.from_file(path)
    path.touch()
    with pytest.raises(CheckpointError, match="256 single bytes expected in 0 lines"):
        Tokenizer.from_file(path)
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(CheckpointError, match="the limit of 67,108,864"):
        Tokenizer.from_file(path)
    with pytest.raises(CheckpointError, match="regular file"):
        Tokenizer.from_file(tmp_path)
