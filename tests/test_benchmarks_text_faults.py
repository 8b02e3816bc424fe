"""DocVQA, ChartQA, AI2D and OCR-VQA: hostile files are refused, other splits are told apart."""

import pytest
from benchmark_data import RECORDED, picture, read, write
from text_data import TASKS, ai2d_tables, chartqa_tables, docvqa_tables, first, ocrvqa_tables

from eval.data.verify import verify
from eval.errors import DataError

OUTSIDE = "a relative path below the data root expected"
SECRET = "data/../../etc/1_1.png"


@pytest.mark.parametrize(
    ("name", "layout", "change", "message"),
    [
        ("docvqa_val", 0, {"image": SECRET}, rf"data\[0\] of .*val_v1\.0\.json: .*{OUTSIDE}"),
        ("docvqa_val", 0, {"image": "documents/x.jpg"}, "a path that ends like"),
        ("docvqa_val", 0, {"answers": []}, "'answers': at least one answer expected, none found"),
        ("docvqa_val", 0, {"answers": None}, "at least one answer expected, none found"),
        ("docvqa_val", 0, {"answers": "May 3"}, "'answers': a list expected, 'May 3' found"),
        ("docvqa_val", 0, {"answers": [3]}, "a list of strings expected, 3 found"),
        ("docvqa_val", 0, {"data_split": "test"}, "'data_split': a string like val expected"),
        ("docvqa_val", 0, {"questionId": 57}, "ids that stand once expected, '57' found again"),
        ("docvqa_val", 0, {"questionId": "057"}, "'questionId': a number like .*, '057' found"),
        ("docvqa_val", 0, {"questionId": "9" * 5000}, "'questionId': an identifier expected"),
        ("docvqa_val", 0, {"questionId": "9" * 50}, "'questionId': a number like"),
        ("docvqa_val", 0, {"questionId": True}, "an identifier expected, true found"),
        ("docvqa_val", 0, {"question_types": "form"}, "'question_types': a list expected"),
        ("docvqa_val", 1, {"data_split": "train"}, "spdocvqa_qas.*: field 'data_split'"),
        ("docvqa_val", 2, {"image": "/a/../1_1.png"}, rf"line 1 of .*{OUTSIDE}"),
        ("docvqa_val", 2, {"answer": []}, "'answer': at least one answer expected"),
        ("docvqa_test", 0, {"answers": ["x"]}, "none expected in test, 1 answers found"),
        ("docvqa_test", 0, {"data_split": "val"}, "'data_split': a string like test expected"),
        ("docvqa_test", 2, {"answer": ["x"]}, "none expected in test, 1 answers found"),
        ("docvqa_test", 2, {"answer": "x"}, "none expected in test, 1 answers found"),
        ("chartqa_test_human", 0, {"imgname": "../../1.png"}, r"\[0\] of .*'imgname': a string"),
        ("chartqa_test_human", 0, {"imgname": "a\\..\\1.png"}, "'imgname': a string like"),
        ("chartqa_test_human", 0, {"imgname": "x" * 999 + ".png"}, "'imgname': a string like"),
        ("chartqa_test_human", 0, {"label": 25.06}, "'label': a string expected, 25.06 found"),
        ("chartqa_test_human", 0, {"label": ["3"]}, "'label': a string expected, a list of 1"),
        ("chartqa_test_human", 0, {"query": None}, "'query': a string expected, null found"),
        ("chartqa_test_human", 1, {"image": SECRET}, rf"line 1 of .*{OUTSIDE}"),
        ("chartqa_test_human", 1, {"image": "x.jpg"}, "a path that ends like"),
        ("ai2d_test", 0, {"answerTexts": ["a"] * 3}, "'answerTexts': 4 options expected, 3 found"),
        ("ai2d_test", 0, {"answerTexts": ["a"] * 5}, "'answerTexts': 4 options expected, 5 found"),
        ("ai2d_test", 0, {"answerTexts": ["a", 1, "b", "c"]}, "a list of strings expected, 1 "),
        ("ai2d_test", 0, {"correctAnswer": 4}, "an answer below 4 expected, 4 found"),
        ("ai2d_test", 0, {"correctAnswer": -1}, "an integer from 0 expected, -1 found"),
        ("ai2d_test", 0, {"questionId": "12.png-1"}, "'12.png-1' found again"),
        ("ai2d_test", 0, {"abcLabel": 1}, "'abcLabel': true or false expected"),
        ("ai2d_test", 1, {"image": "../12.png"}, OUTSIDE),
        ("ai2d_test", 1, {"image": "x/y.png"}, "a path that ends like"),
        ("ai2d_test", 1, {"question_id": None}, "'question_id': an identifier expected, null"),
        ("ai2d_test_lettered", 0, {"abcLabel": None}, "'abcLabel': true or false expected"),
        ("ocrvqa_test", 0, {"split": 4}, "'split': 1, 2 or 3 expected, 4 found"),
        ("ocrvqa_test", 0, {"split": "3"}, "'split': an integer from 1 expected, '3' found"),
        ("ocrvqa_test", 0, {"answers": ["x"]}, "0123456789 in .*, 2 questions and 1 answers found"),
        ("ocrvqa_test", 0, {"questions": []}, "0 questions and 2 answers found"),
        ("ocrvqa_test", 0, {"answers": ["x", None]}, "a list of strings expected, null found"),
        ("ocrvqa_test", 0, {"imageURL": "http://x/1.j%2Fg"}, "an ending such as .jpg expected"),
        ("ocrvqa_test", 0, {"imageURL": "x.jpg?a=b"}, "an ending such as .jpg expected"),
        ("ocrvqa_test", 1, {"image": "images/../x.jpg"}, OUTSIDE),
        ("ocrvqa_test", 1, {"image": "covers/x.jpg"}, "a path that ends like images/"),
    ],
)
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, name, layout, change, message):
    """File, record, field, what was expected and what was found; no path leaves the data root."""
    files, record = first(name, layout)
    record.update(change)
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        read(TASKS[name], tmp_path)


@pytest.mark.parametrize("key", ["../0123", "a b", "", "0" * 33, "a/b", "é"])
def test_an_ocrvqa_cover_has_a_plain_key(tmp_path, key):
    """The key becomes a file name."""
    files, record = first("ocrvqa_test", 0)
    files["ocrvqa/dataset.json"][key] = record
    write(tmp_path, files)
    with pytest.raises(DataError, match="a key like"):
        read(TASKS["ocrvqa_test"], tmp_path)


@pytest.mark.parametrize("line", ["../12", "12.png.json", "x", "12,13", "9" * 10, "１２"])
def test_ai2d_lists_plain_numbers(tmp_path, line):
    """A listed diagram becomes a file name."""
    files = RECORDED["ai2d_test"]["layouts"][0]
    write(tmp_path, files | {"ai2d/ai2d_test_ids.csv": f"12\n{line}\n".encode()})
    with pytest.raises(DataError, match=r"line 2 of .*ai2d_test_ids\.csv: a number expected"):
        read(TASKS["ai2d_test"], tmp_path)


def test_ai2d_diagrams_come_in_the_lists_order_and_each_once(tmp_path):
    """With or without .png; a diagram listed twice would be asked about twice."""
    files = RECORDED["ai2d_test"]["layouts"][0]
    write(tmp_path, files | {"ai2d/ai2d_test_ids.csv": b"13.png\r\n\r\n12\r\n"})
    expected = ["13.png-0", "12.png-0", "12.png-1"]
    assert expected == [sample.id for sample in read(TASKS["ai2d_test"], tmp_path)]
    write(tmp_path, {"ai2d/ai2d_test_ids.csv": b"12\n13\n12\n"})
    with pytest.raises(DataError, match=r"'12\.png-0' found again"):
        read(TASKS["ai2d_test"], tmp_path)
    write(tmp_path, {"ai2d/ai2d_test_ids.csv": b"14\n"})
    with pytest.raises(DataError, match=r"14\.png\.json: no such file"):
        read(TASKS["ai2d_test"], tmp_path)


def test_rows_of_mirrors_are_checked_likewise(tmp_path):
    """Parquet has types, but neither paths nor numbers are sound for that."""
    ai2d_tables(tmp_path, answer="4")
    with pytest.raises(DataError, match=r"row 0 of .*parquet: an answer below 4 expected, 4 found"):
        read(TASKS["ai2d_test_lettered"], tmp_path)
    ai2d_tables(tmp_path, answer="root")
    with pytest.raises(DataError, match=r"field 'answer': a string like .* 'root' found"):
        read(TASKS["ai2d_test_lettered"], tmp_path)
    for change, message in (
        ({"image_id": "../x"}, "field 'image_id': a string like"),
        ({"image_url": "http://x/a.b/../c.d e"}, "an ending such as .jpg expected"),
        ({"answers": ["x"]}, "2 questions and 1 answers found"),
        ({"set_name": "train"}, "field 'set_name'"),
    ):
        ocrvqa_tables(tmp_path, "test", **change)
        with pytest.raises(DataError, match=message):
            read(TASKS["ocrvqa_test"], tmp_path)
    docvqa_tables(tmp_path, "val", data_split="train")
    with pytest.raises(DataError, match="field 'data_split': a string like val"):
        read(TASKS["docvqa_val"], tmp_path)
    chartqa_tables(tmp_path, "m4", label=["Yes", "No"])
    with pytest.raises(DataError, match="field 'label': one answer expected, 2 found"):
        read(TASKS["chartqa_test_human"], tmp_path)


def faults(name, root):
    """Without those on counts, which files of a few records always have."""
    return [
        fault for fault in verify(TASKS[name], root).issues if not fault.startswith(("samp", "ima"))
    ]


def test_verify_tells_a_split_that_is_not_the_official_one(tmp_path):
    """Counts of samples and images."""
    write(tmp_path, RECORDED["docvqa_val"]["layouts"][0])
    found = verify(TASKS["docvqa_val"], tmp_path).issues
    assert "samples: 5,349 expected, 3 found" in found
    assert "images: 1,286 expected, 2 found" in found
    write(tmp_path, RECORDED["ocrvqa_test"]["layouts"][0])
    found = verify(TASKS["ocrvqa_test"], tmp_path).issues
    assert "images: 20,796 expected, 2 found" in found
    assert not [fault for fault in found if fault.startswith("samples:")]  # how many is not known


def test_verify_names_covers_that_are_gone(tmp_path):
    """They are reported, not left out."""
    files = RECORDED["ocrvqa_test"]["layouts"][0]
    write(tmp_path, files | {"ocrvqa/images/014214141X.gif": picture("red", kind="GIF")})
    (gone,) = faults("ocrvqa_test", tmp_path)
    assert "1 of 2 images are missing: ocrvqa/images/0123456789.jpg" == gone


def test_verify_names_ai2d_questions_without_four_options_or_the_answer(tmp_path):
    """The converted file has them in the question's text alone."""
    files, record = first("ai2d_test", 1)
    write(tmp_path, files | {"ai2d/images/12.png": picture("red")})
    assert [] == faults("ai2d_test", tmp_path)
    for question, message in (
        ("What is C?leaf\nroot\nstem", "sample 12.png-0: 4 options expected, 3 found"),
        ("What is C?leaf\nstalk\nstem\nseed", "one of the options expected as answer, 'root' f"),
        ("Is a root C?leaf\nstalk\nstem\nseed", "one of the options expected as answer, 'root' f"),
    ):
        record["question"] = question
        write(tmp_path, files)
        (fault,) = faults("ai2d_test", tmp_path)
        assert message in fault
    for question in (
        "What is C?root\nleaf\nstem\nseed",  # the option glued to the question
        "Look at C.\nWhat is it?leaf\nroot\nstem\nseed",
    ):
        record["question"] = question
        write(tmp_path, files)
        assert [] == faults("ai2d_test", tmp_path)
