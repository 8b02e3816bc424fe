"""VQAv2 and VizWiz: the servers' files hold all that they take, and nothing else."""

import pytest
from benchmark_data import RECORDED, write
from pydantic import TypeAdapter, ValidationError
from vqa_data import TASKS

from eval.errors import DataError, PredictionError


def submit(root, name, answers):
    """What the server would take, checked as it is before it is written."""
    task = TASKS[name].submission
    rows = task.build(root, answers, {"name": "qwen-vl"})
    TypeAdapter(task.schema).validate_python(rows, strict=True)
    return rows


@pytest.fixture
def data(tmp_path):
    """A data root with the test splits' official files."""
    for name in ("vqav2_testdev", "vqav2_test", "vizwiz_test"):
        write(tmp_path, RECORDED[name]["layouts"][0])
    return tmp_path


def test_vqav2_sends_every_question_of_test(data):
    """In the order of test's file; what test-dev does not ask stays empty, and ids are numbers."""
    answers = {"581928001": " a phone\n", "16005": "red"}
    expected = [
        {"question_id": 1000, "answer": ""},
        {"question_id": 16005, "answer": "red"},
        {"question_id": 581928001, "answer": "a phone"},
        {"question_id": 16004, "answer": ""},
    ]
    assert expected == submit(data, "vqav2_testdev", answers)
    whole = answers | {"1000": "no", "16004": "nobody"}
    actual = submit(data, "vqav2_test", whole)
    assert ["no", "red", "a phone", "nobody"] == [row["answer"] for row in actual]
    assert [row["question_id"] for row in expected] == [row["question_id"] for row in actual]


def test_vqav2_refuses_what_the_server_would_misread(data):
    """An answer without a question, no file of test."""
    answers = {"581928001": "a phone", "16005": "red"}
    with pytest.raises(PredictionError, match="test2015 expected, 1 are to others, 42000 first"):
        submit(data, "vqav2_testdev", {**answers, "42000": "yes"})
    file = data / "vqav2/v2_OpenEnded_mscoco_test2015_questions.json"
    file.unlink()
    with pytest.raises(DataError, match="every question of test, also for test-dev") as error:
        submit(data, "vqav2_testdev", answers)
    assert f"missing: {file} (from https://" in str(error.value)


def test_vizwiz_sends_every_picture_by_its_name(data):
    """Without folder, in the samples' order, stripped."""
    answers = {"VizWiz_test_00007999.jpg": "soup", "VizWiz_test_00000000.jpg": " left "}
    expected = [
        {"image": "VizWiz_test_00007999.jpg", "answer": "soup"},
        {"image": "VizWiz_test_00000000.jpg", "answer": "left"},
    ]
    assert expected == submit(data, "vizwiz_test", answers)


@pytest.mark.parametrize("name", ["vqav2_testdev", "vqav2_test", "vizwiz_test"])
def test_a_servers_file_of_another_form_is_refused(name):
    """Ids as text, answers as lists or further fields would be scored as no answer at all."""
    key = "image" if "vizwiz" in name else "question_id"
    schema = TypeAdapter(TASKS[name].submission.schema)
    other = 7 if "vizwiz" in name else "42000"
    for row in ({key: other, "answer": "x"}, {key: other}, {"answer": "x"}):
        with pytest.raises(ValidationError):
            schema.validate_python([row], strict=True)
