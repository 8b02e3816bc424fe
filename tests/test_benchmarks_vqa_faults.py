"""VQAv2, VizWiz, OK-VQA and TextVQA: other splits' data are faults, malformed ones errors."""

import copy
import re
from dataclasses import replace

import pytest
from benchmark_data import RECORDED, read, recorded, write
from hypothesis import given
from hypothesis import strategies as st
from vqa_data import TASKS, TRAINING, mirror_tables

from benchmarks import vqav2
from eval import Sample
from eval.data import Examples
from eval.data.verify import verify
from eval.errors import DataError


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("vqav2_val", {"id": "43000"}, "begins with its image's expected, the image is 0*42$"),
        ("vqav2_val", {"id": "420000"}, "begins with its image's"),
        ("vqav2_val", {"reference": ["yes"] * 9}, "10 answers expected, 9 found"),
        ("vqav2_testdev", {"id": "7"}, "begins with its image's"),
        ("vqav2_test", {"id": "²"}, "begins with its image's"),
        ("vizwiz_val", {"reference": ["yes"] * 11}, "10 answers expected, 11 found"),
        ("okvqa_val", {"fields": {"image": "coco/train2014/COCO_train2014_000000000042.jpg"}},
         "an image of val2014 expected, coco/train2014/.* found"),
        ("okvqa_val", {"reference": ["pony"]}, "10 answers expected, 1 found"),
        ("okvqa_val", {"reference": ["pony tail"] * 9 + ["poni tail"]},
         "release 1.1 .* expected, 'poni tail' is a stem of release 1.0"),
        ("okvqa_val", {"reference": [{"answer": "poni tail", "answer_id": 1}] * 10}, "release 1.0"),
        ("textvqa_val", {"id": "34601"}, "a number from 34602 to 39601 expected"),
        ("textvqa_val", {"id": "39602"}, "a number from"),
        ("textvqa_val", {"id": "9" * 5000}, "a number from"),
        ("textvqa_val", {"reference": []}, "10 answers expected, 0 found"),
    ],
)  # fmt: skip
def test_a_sample_of_other_data_is_a_fault(name, change, fault):
    """Each check finds what it is for, and nothing in the golden samples."""
    task, samples = TASKS[name], recorded(name)
    assert [None] * len(samples) == [task.expect.each(sample) for sample in samples]
    assert re.search(fault, task.expect.each(replace(samples[0], **change)))


@given(st.integers(0, 10**12 - 1), st.integers(0, 999))
def test_any_question_of_vqav2_belongs_to_its_image(image, number):
    """question_id // 1000 is the image's number, also where either is 0, and no other image's."""
    name = f"coco/val2014/COCO_val2014_{image:012d}.jpg"
    sample = Sample(str(image * 1000 + number), {"image": name})
    assert vqav2.of_its_image(sample) is None
    assert vqav2.of_its_image(replace(sample, id=str((image + 1) * 1000 + number)))


def test_verify_counts_what_is_missing(tmp_path):
    """Two invented records are not the 4,319 of val, and their pictures are nowhere."""
    write(tmp_path, RECORDED["vizwiz_val"]["layouts"][0])
    faults = " | ".join(verify(TASKS["vizwiz_val"], tmp_path).issues)
    assert "samples: 4,319 expected, 2 found | images: 4,319 expected, 2 found" in faults
    assert "answers: 43,190 expected, 20 found | 2 of 2 images are missing" in faults


def test_questions_of_vqav2_test_dev_are_some_of_test(tmp_path):
    """Test-dev of another release is found out, where the file of test is there to tell."""
    task = TASKS["vqav2_testdev"]
    files = copy.deepcopy(RECORDED["vqav2_testdev"]["layouts"][0])
    (content,) = files.values()
    first = content["questions"][0]
    first["question_id"] = first["image_id"] * 1000 + 999
    write(tmp_path, files)
    assert not any("part of" in fault for fault in verify(task, tmp_path).issues)
    write(tmp_path, RECORDED["vqav2_test"]["layouts"][0])
    expected = "1 samples are not of the split that this one is a part of: "
    assert f"{expected}{first['question_id']}" in verify(task, tmp_path).issues
    write(tmp_path, RECORDED["vqav2_testdev"]["layouts"][0])
    assert not any("part of" in fault for fault in verify(task, tmp_path).issues)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "vqav2_test"])
@pytest.mark.parametrize("extra", [{"image": "../x.jpg"}, {"image": 3}])
def test_a_converted_record_cannot_name_a_picture_elsewhere(tmp_path, name, extra):
    """Only the tail that the benchmark itself uses is believed."""
    files = copy.deepcopy(RECORDED[name]["layouts"][-1])
    next(rows for path, rows in files.items() if path.endswith(".jsonl"))[0].update(extra)
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"line 1 of .*\.jsonl: field 'image'"):
        read(TASKS[name], tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vqav2_val", {"image_id": "42"}, r"questions\[0\] of .*'image_id': an integer from 0"),
        ("vqav2_val", {"question_id": 8}, "question_id '8' has no annotation in .*annotations"),
        ("vqav2_val", {"question": None}, "field 'question': a string expected, null found"),
        ("vqav2_testdev", {"question_id": "x"}, "field 'question_id': an integer from 0 expected"),
        ("vqav2_test", {"question": 1}, "field 'question': a string expected, 1 found"),
        ("vizwiz_val", {"answers": []}, r"\[0\] of .*val.json: field 'answers': at least one"),
        ("vizwiz_val", {"answers": "soup"}, "field 'answers': a list expected"),
        ("vizwiz_val", {"answer_type": 3}, "field 'answer_type': a string expected, 3 found"),
        ("vizwiz_val", {"image": "VizWiz_test_00000007.jpg"},
         r"field 'image': a path that ends like VizWiz_val_\[0-9\]\{8\}"),
        ("vizwiz_val", {"image": "VizWiz_val_000000028000.jpg"},
         "a name of eight digits expected, 'VizWiz_val_000000028000.jpg' found. The file is of the "
         "old release.*https://"),
        ("vizwiz_test", {"image": "VizWiz_test_000000020000.jpg"}, "the old release"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, name, change, message):
    """File, record, field, what was expected and what was found."""
    files = copy.deepcopy(RECORDED[name]["layouts"][0])
    content = next(iter(files.values()))
    (content if isinstance(content, list) else content["questions"])[0].update(change)
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        read(TASKS[name], tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vqav2_val", {"answers": []}, "row 0 of .*field 'answers': at least one answer expected"),
        ("vizwiz_val", {"answers": []}, "row 0 of .*field 'answers': at least one answer expected"),
        ("okvqa_val", {"answers": []}, "row 0 of .*field 'answers': at least one answer expected"),
        ("textvqa_val", {"answers": []}, "row 0 of .*field 'answers': at least one answer"),
        ("textvqa_val", {"image_id": "../x"}, "row 0 of .*field 'image_id': a string like"),
        ("vizwiz_val", {"question_id": "7"}, "row 0 of .*field 'question_id': a path that ends"),
        ("vizwiz_test", {"question_id": "VizWiz_test_000000020000"}, "the old release"),
    ],
)  # fmt: skip
def test_a_wrong_row_of_a_mirror_is_an_error_that_names_it(tmp_path, name, change, message):
    """Parquet is not believed more than JSON is."""
    mirror_tables(tmp_path, name, **change)
    with pytest.raises(DataError, match=message):
        read(TASKS[name], tmp_path)


def test_okvqa_mirrors_picture_of_another_split_is_found_out(tmp_path):
    """A name of train2014 is kept, so that verify can tell."""
    mirror_tables(tmp_path, "okvqa_val", lambda _: "x/COCO_train2014_000000000042.jpg")
    first, _ = read(TASKS["okvqa_val"], tmp_path)
    assert "coco/train2014/COCO_train2014_000000000042.jpg" == first.images[0]
    assert TASKS["okvqa_val"].expect.each(first)


def test_an_example_without_an_annotation_is_an_error(tmp_path):
    """Else a question would stand before another with no answer."""
    files = copy.deepcopy(TRAINING["vqav2_val"][0])
    files["vqav2/v2_mscoco_train2014_annotations.json"]["annotations"] = []
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"questions\[0\] of .*'9000' has no annotation in vqav2/"):
        Examples(TASKS["vqav2_test"], tmp_path)
