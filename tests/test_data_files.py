"""Files that are missing, malformed or hostile end in an error that says which file and where."""

import hashlib
import json
import os
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import Sample
from eval.data import (
    Record,
    read_json,
    read_jsonl,
    read_list,
    read_predictions,
    safe_path,
    unique,
    vqa_samples,
)
from eval.data.paths import path_tail
from eval.errors import DataError, PredictionError
from eval.storage.digests import sha256_file


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty document"),
        (b'{"a": 1', "character 7: not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1e999}', "infinity"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": 1} {"b": 2}', "after document"),
        (b'{"a":' * 100_000, "depth limit"),
        (b"[" * 100_000 + b"]" * 100_000, "depth limit"),
        (b"[1]", "an object expected, a list of 1 found"),
        (b'"text"', "an object expected, 'text' found"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(tmp_path, content, found):
    """Neither RecursionError nor UnicodeDecodeError reaches a user, and NaN is no number."""
    path = write(tmp_path / "file.json", content)
    with pytest.raises(DataError, match=re.escape(found)) as error:
        read_json(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("reader", [read_json, sha256_file, lambda path: list(read_jsonl(path))])
def test_what_is_no_readable_file_is_an_error(tmp_path, reader):
    """A pipe would be waited for for ever, and an endless file would fill the memory."""
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        reader(tmp_path / "none.json")
    with pytest.raises(DataError, match="a folder or a device found"):
        reader(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="a folder or a device found"):
        reader(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(4_000_000_001)  # a hole: takes no space
    with pytest.raises(DataError, match="4,000,000,001 bytes, more than the limit"):
        reader(tmp_path / "huge")


def test_lines_are_read_one_at_a_time(tmp_path):
    """A file of JSON lines is never held as a whole: what precedes a bad line arrives first."""
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\r\n\n{"a": 2}\n{"a": oops}\n')
    rows = read_jsonl(path)
    expected = [1, 2]
    assert expected == [next(rows).integer("a"), next(rows).integer("a")]
    with pytest.raises(DataError, match=r"line 4 of .*rows\.jsonl, character 6: not JSON"):
        next(rows)


def test_a_line_without_end_is_an_error(tmp_path):
    """A file without line feeds is not a file of JSON lines."""
    with (tmp_path / "rows.jsonl").open("wb") as file:
        file.truncate(64_000_001)
    with pytest.raises(DataError, match=r"line 1 of .*: at most 64,000,000 bytes expected"):
        next(read_jsonl(tmp_path / "rows.jsonl"))


def test_sha256_is_of_the_bytes(tmp_path):
    """The digest is the one that sha256sum prints."""
    content = bytes(range(256)) * 5000
    expected = hashlib.sha256(content).hexdigest()
    assert expected == sha256_file(write(tmp_path / "file", content))


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        (lambda r: r.text("n"), "field 'n': a string expected, 3 found"),
        (lambda r: r.text("none"), "field 'none': a string expected, nothing found"),
        (lambda r: r.text("null"), "field 'null': a string expected, null found"),
        (lambda r: r.text("s", "[0-9]+"), "field 's': a string like [0-9]+ expected, 'x' found"),
        (lambda r: r.texts("s"), "field 's': a list expected, 'x' found"),
        (lambda r: r.texts("mixed"), "field 'mixed': a list of strings expected, 1 found"),
        (lambda r: r.texts("list", "y"), "a list of strings like y expected, 'x' found"),
        (lambda r: r.integer("s"), "field 's': an integer from 0 expected, 'x' found"),
        (lambda r: r.integer("n", low=4), "field 'n': an integer from 4 expected, 3 found"),
        (lambda r: r.integer("true"), "field 'true': an integer from 0 expected, true found"),
        (lambda r: r.integer("half"), "field 'half': an integer from 0 expected, 0.5 found"),
        (lambda r: r.integers("list", 1), "field 'list': 1 integers from 0 expected, a list of 1"),
        (lambda r: r.numbers("mixed", 2), "field 'mixed': 2 numbers expected, a list of 2 found"),
        (lambda r: r.numbers("mixed", 4), "field 'mixed': 4 numbers expected, a list of 2 found"),
        (lambda r: r.id("half"), "field 'half': an identifier expected, 0.5 found"),
        (lambda r: r.id("empty"), "field 'empty': an identifier expected, '' found"),
        (lambda r: r.id("long"), "field 'long': an identifier expected, 'xxx"),
        (lambda r: r.integer("large"), "an integer from 0 expected, 9223372036854775808 found"),
        (lambda r: r.numbers("nan", 2), "field 'nan': 2 numbers expected, a list of 2 found"),
        (lambda r: r.text("bytes"), "field 'bytes': a string expected, b'xxx"),
        (lambda r: r.record("list"), "list in questions[17] of FILE: an object expected, a list"),
        (lambda r: list(r.records("list")), "list[0] of questions[17] of FILE: an object expected"),
        (lambda r: r.tail("s", "y"), "field 's': a path that ends like y expected, 'x' found"),
        (lambda r: r.text("deep"), "field 'deep': a string expected, an object found"),
    ],
)
def test_a_field_of_another_type_is_an_error_that_names_it(fetch, message):
    """Where, which field, what was expected and what was found: enough to mend the file."""
    values = {
        **{"n": 3, "s": "x", "null": None, "true": True, "half": 0.5, "empty": ""},
        **{"long": "x" * 5000, "large": 2**63, "nan": [1.0, float("nan")], "bytes": b"x" * 5000},
        **{"list": ["x"], "mixed": ["x", 1], "deep": {"a": {}}},
    }
    with pytest.raises(DataError) as error:
        fetch(Record(values, "questions[17] of FILE"))
    assert "questions[17] of FILE: " in str(error.value)
    assert message in str(error.value)


def test_fields_are_fetched_as_they_stand():
    """Text is never stripped or altered; an identifier becomes text, because a Sample's id is."""
    row = Record({"q": " what? ", "id": 7, "name": "7", "box": [1, 2.5]}, "FILE")
    expected = (" what? ", "7", "7", [1.0, 2.5])
    assert expected == (row.text("q"), row.id("id"), row.id("name"), row.numbers("box", 2))


@pytest.mark.parametrize(
    "path",
    [
        "../x.jpg",
        "a/../../x.jpg",
        "a/..",
        "..",
        ".",
        "",
        "/etc/passwd",
        "//host/share",
        "C:/x.jpg",
        "C:x.jpg",
        "a\\..\\..\\x.jpg",
        "..\\x.jpg",
        "\\\\host\\share",
        "a/.. /x.jpg",
        "a/.../x.jpg",
        "a\x00.jpg",
        "a\n.jpg",
        "file:///etc/passwd",
        "http://host/x.jpg",
        "a/" * 600 + "x.jpg",
        "a" * 300 + ".jpg",
        "é" * 130 + ".jpg",
        "a\udcff.jpg",
    ],
)
def test_a_path_that_could_leave_the_data_root_is_refused(path):
    """A benchmark's file comes from strangers and must not name files of the machine it is on."""
    with pytest.raises(DataError, match="FILE: a relative path below the data root expected"):
        safe_path(path, "FILE")


def test_a_path_is_brought_to_its_plain_form():
    """Two spellings of one path are one image, so that its features are computed once."""
    expected = "a/b c/.x.jpg"
    assert expected == safe_path("./a//b c/./.x.jpg", "FILE")


@pytest.mark.parametrize(
    "above",
    ["data/coco/", "", "./", "/mnt/a b/coco/", "//host/", "https://host/x/", "s3://b/", "C:/coco/"],
)
def test_of_an_image_s_path_only_its_end_is_believed(above):
    """Converted files name images where they lay on another's machine, or by URL."""
    row = Record({"image": f"{above}val2014/1.jpg"}, "FILE")
    assert "val2014/1.jpg" == row.tail("image", r"val2014/[0-9]\.jpg")
    assert row.tail_or_none("image", r"train2014/[0-9]\.jpg") is None


@pytest.mark.parametrize("path", ["/a/../val2014/1.jpg", "https://h/../val2014/1.jpg", "/", "a\\b"])
def test_the_end_of_a_path_that_climbs_is_not_taken(path):
    with pytest.raises(DataError, match="field 'image': a relative path below the data root"):
        Record({"image": path}, "FILE").tail("image", r"val2014/[0-9]\.jpg")


def test_the_end_of_a_path_is_whole_parts():
    """other_images/1.jpg is not a picture of the folder images."""
    pattern = r"images/[0-9]+\.jpg"
    assert "images/1.jpg" == path_tail("data/images/1.jpg", pattern)
    assert "images/1.jpg" == path_tail("images/1.jpg", pattern)
    assert path_tail("data/other_images/1.jpg", pattern) is None
    assert path_tail("data/images/1.jpg.png", pattern) is None


def test_an_id_that_stands_twice_is_an_error():
    """The later prediction would silently replace the earlier one."""
    samples = [Sample(i, {}) for i in ("1", "2", "1")]
    with pytest.raises(DataError, match=r"okvqa_val: ids that stand once .* '1' found again"):
        list(unique(samples, "okvqa_val"))
    assert samples[:2] == list(unique(samples[:2], "okvqa_val"))


def answered(tmp_path, annotations):
    rows = ",".join(annotations)
    path = write(tmp_path / "annotations.json", f'{{"annotations": [{rows}]}}')
    question = Record({"question_id": 1, "question": "what?"}, "FILE")
    (sample,) = vqa_samples([(question, "x.jpg")], path)
    return sample.reference


def test_answers_stay_records_where_their_numbers_repeat(tmp_path):
    """The published scorer leaves out all records that are equal in every field, so they count."""
    human = '{"answer": "%s", "answer_id": %d, "deep": [1]}'
    row = '{"question_id": 1, "answers": [%s]}'
    distinct = [row % ", ".join(human % ("a", n) for n in (1, 2, 3))]
    expected = ["a", "a", "a"]
    assert expected == answered(tmp_path, distinct)
    repeated = [row % ", ".join(human % ("a", n) for n in (1, 2, 2))]
    expected = [{"answer": "a", "answer_id": n} for n in (1, 2, 2)]
    assert expected == answered(tmp_path, repeated)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "FILE: question_id '1' has no annotation in .*annotations.json"),
        (['{"question_id": 1, "answers": []}'], "at least one answer expected, none found"),
        (['{"question_id": 1, "answers": [{"answer": "a"}]}'] * 2, "'1' is annotated twice"),
        (['{"question_id": 1, "answers": ["a"]}'], r"answers\[0\] of annotations\[0\] of .* 'a'"),
    ],
)
def test_answers_that_do_not_fit_the_questions_are_errors(tmp_path, annotations, message):
    """A question without its answers is never scored as wrong."""
    with pytest.raises(DataError, match=message):
        answered(tmp_path, annotations)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"question_id": 42000, "answer": "yes"}]', [("42000", "yes")]),
        ('[{"questionId": 101, "answer": " May 3", "annotation": ["x"]}]', [("101", " May 3")]),
        ('[{"image_id": 42, "caption": "A goat."}]', [("42", "A goat.")]),
        ('[{"image": "VizWiz_1.jpg", "answer": ""}]', [("VizWiz_1.jpg", "")]),
        (
            '\n[{"image": 7, "answer": "é"},\n {"image": 8, "answer": "b"}]',
            [("7", "é"), ("8", "b")],
        ),
        (
            '{"image_id": 1, "caption": "a"}\n{"image_id": 1, "caption": "b"}',
            [("1", "a"), ("1", "b")],
        ),
    ],
)
def test_result_files_of_the_published_scripts_are_read(tmp_path, content, expected):
    """As a list and as lines, under each of their names for id and text, in the file's order."""
    assert expected == read_predictions(write(tmp_path / "result.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "result.json: predictions expected, none found"),
        ("[]", "result.json: predictions expected, none found"),
        ('{"question_id": 1, "answer": "a"}\n{"quest', "line 2 of .*result.json, character"),
        (
            '[{"image": 1, "answer": "a"}, {"answer": "a"}]',
            r"\[1\] of .*: one of the fields question_id, .* expected in every record or in none",
        ),
        ('[{"answer": "a"}, {"image": 1, "answer": "a"}]', r"\[1\] of .* or in none"),
        ('[{"image_id": 1}]', r"\[0\] of .*: one of the fields answer, caption expected"),
        ('[{"image_id": 1, "caption": 5}]', r"field 'caption': a string expected, 5 found"),
        ('[{"image_id": [1], "caption": "a"}]', "an identifier expected, a list of 1 found"),
        ("[1]", "an object expected, 1 found"),
        ("plain text", "not JSON"),
    ],
)
def test_a_malformed_result_file_is_a_prediction_error(tmp_path, content, message):
    """A result that cannot be read is never scored as a wrong answer."""
    with pytest.raises(PredictionError, match=message):
        read_predictions(write(tmp_path / "result.json", content))
    with pytest.raises(PredictionError, match="no such file"):
        read_predictions(tmp_path / "none.json")


FIELDS = st.dictionaries(
    st.sampled_from(["question_id", "image_id", "image", "answer", "caption"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.just([1]),
)


@given(content=st.binary() | st.lists(FIELDS).map(lambda rows: json.dumps(rows).encode()))
def test_any_result_file_is_read_or_a_prediction_error(tmp_path, content):
    """No file can cause a KeyError or a TypeError, nor an id or a text that is no string."""
    with suppress(PredictionError):
        found = read_predictions(write(tmp_path / "result.json", content))
        assert {str} == {type(text) for _, text in found}
        assert {type(sample_id) for sample_id, _ in found} in ({str}, {type(None)})


def test_answers_without_ids_keep_their_order(tmp_path):
    """ChartQA's result files hold an answer and the true one, in the order of the data."""
    path = write(tmp_path / "result.json", '[{"answer": "5", "annotation": "6"}, {"answer": ""}]')
    assert [(None, "5"), (None, "")] == read_predictions(path)


def test_a_list_of_objects_is_read_in_order(tmp_path):
    """Such as GRIT's samples; anything but a list is refused."""
    path = write(tmp_path / "rows.json", '[{"a": "x"}, {"a": "y"}]')
    expected = ["x", "y"]
    assert expected == [row.text("a") for row in read_list(path)]
    with pytest.raises(DataError, match="the file holds an object; it must be one list of records"):
        list(read_list(write(path, '{"a": "x"}')))
