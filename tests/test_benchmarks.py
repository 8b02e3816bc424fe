"""Every layout of a benchmark gives the same samples, and every broken file an EvalError.

The data are those of golden/prompts, written below a temporary data root. What one benchmark alone
has, such as the tables of its mirrors, its own test file holds: test_benchmarks_<family>.py.
"""

import copy
import json
import pickle
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from benchmark_data import RECORDED, cases, read, write
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import ByHand, EvalError, Generate, Rank, Sample, Task
from eval.data import safe_path
from eval.errors import DataError
from eval.plugins import catalogue
from eval.run.requests import render_request

OFFERED = {
    name: each for name, each in catalogue().tasks.items() if each.origin.startswith("benchmarks.")
}
TASKS = {name: each.task for name, each in OFFERED.items()}
CASES = cases(RECORDED)
READERS = [  # of those that share a reader one is enough
    case for case in CASES if case[0] not in ("refcoco_testA", "refcoco_testB")
]


def told(sample, groups):
    """What must be equal: the groups too, where both the record and the layout tell them."""
    known = {name: value for name, value in groups.items() if name in sample.groups}
    return (sample.id, sample.fields, sample.reference, sample.options, known)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_every_layout_gives_the_recorded_samples(tmp_path, name, number):
    """The official files and each variant of the converted ones are one benchmark."""
    recorded, task = RECORDED[name], TASKS[name]
    write(tmp_path, recorded["layouts"][number])
    expected = [Sample(**{**row, "options": tuple(row["options"])}) for row in recorded["samples"]]
    actual = read(task, tmp_path)
    assert [told(e, a.groups) for e, a in zip(expected, actual, strict=True)] == [
        told(a, e.groups) for e, a in zip(expected, actual, strict=True)
    ]
    if number == 0 and "groups" in recorded["samples"][0]:  # the official files tell all groups
        assert [sample.groups for sample in expected] == [sample.groups for sample in actual]
    assert recorded["prompt"] == render_request(task, actual[0]).prompt
    if "chat" in recorded:
        assert recorded["chat"] == render_request(task, actual[0], "chatml").prompt


def test_every_task_is_recorded():
    """A task without golden data has a prompt that nothing holds to the published one."""
    assert set(TASKS) == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_every_layout_of_files_is_recorded(name):
    """A layout without golden data would be read by nobody before a user does.

    The tables of mirrors and pickles are no text: the benchmarks' own test files write them.
    """
    for layout in TASKS[name].layouts:
        sources = [source.path for source in layout.sources]
        if layout.name == "mirror" or any(source.endswith(".p") for source in sources):
            continue
        assert any(
            all(any(Path(file).match(source) for file in files) for source in sources)
            for files in RECORDED[name]["layouts"]
        ), sources


def test_prompts_and_decoding_are_the_published_ones():
    """Each byte of a prompt moves scores; this is the table of the published scripts."""
    caption = "<img>{image}</img>Describe the image in English:"
    question = "<img>{image}</img>{question} Answer:"
    choice = "<img>{image}</img>Context: {hint}\nQuestion: {question}\nOptions: {options}\nAnswer:"
    box = "<img>{image}</img><ref>{expression}</ref><box>"
    expected = {
        "flickr30k_test": (1000, caption, Generate(30, 8), ["cider"]),
        "nocaps_val": (4500, caption, Generate(30, 8), ["cider"]),
        "nocaps_test": (10600, caption, Generate(30, 8), ["cider"]),
        "gqa_testdev": (12578, question, Generate(10, 1), ["exact_match"]),
        "okvqa_val": (
            5046,
            question,
            Generate(10, 1),
            ["vqa_accuracy", "vqa_accuracy_official"],
        ),
        "textvqa_val": (
            5000,
            question,
            Generate(10, 1),
            ["vqa_accuracy", "vqa_accuracy_official"],
        ),
        "scienceqa_test_img": (2017, choice, Rank, ["accuracy"]),
        "refcoco_val": (10834, box, Generate(28, 10), ["accuracy"]),
        "refcoco_testA": (5657, box, Generate(28, 10), ["accuracy"]),
        "refcoco_testB": (5095, box, Generate(28, 10), ["accuracy"]),
    }
    actual = {n: (t.size, t.prompt, t.decode, list(t.metrics)) for n, t in TASKS.items()}
    assert expected.items() <= actual.items()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_sent_to_another_process(name):
    """Workers and scorers may run elsewhere; a lambda in a task would keep them from it."""
    again: Task = pickle.loads(pickle.dumps(TASKS[name]))
    assert TASKS[name].prompt == again.prompt
    assert TASKS[name].layouts[0].sources == again.layouts[0].sources


@pytest.mark.parametrize("name", TASKS)
def test_missing_files_are_all_named_with_where_to_get_them(tmp_path, name):
    """A user who lacks files learns in one go which, where they were sought, and who has them."""
    with pytest.raises(DataError) as error:
        TASKS[name].layout(tmp_path)
    for source in (s for layout in TASKS[name].layouts for s in layout.sources):
        assert f"missing: {tmp_path / source.path} (from {source.origin})" in str(error.value)
        assert "https://" in source.origin


def first_record(files, path):
    """The first record of a golden file that samples come from, to be changed in place."""
    content = files[path]
    if isinstance(content, list):
        return content[0]
    return content["questions" if "questions" in content else "data"][0]


@pytest.mark.parametrize(
    ("name", "layout", "path", "change", "message"),
    [
        ("okvqa_val", 0, "OpenEnded_mscoco_val2014_questions.json", {"question": 3},
         r"questions\[0\] of .*questions.json: field 'question': a string expected, 3 found"),
        ("okvqa_val", 0, "OpenEnded_mscoco_val2014_questions.json", {"question_id": 3397615},
         "question_id '3397615' stands for a second question"),
        ("okvqa_val", 0, "OpenEnded_mscoco_val2014_questions.json", {"image_id": -1},
         "field 'image_id': an integer from 0 expected, -1 found"),
        ("okvqa_val", 0, "OpenEnded_mscoco_val2014_questions.json", {"question_id": 7},
         r"question_id '7' has no annotation in .*mscoco_val2014_annotations\.json"),
        ("okvqa_val", 1, "okvqa_val.jsonl", {"image": "data/../../etc/passwd"},
         r"line 1 of .*: field 'image': a relative path below the data root expected, 'data/\.\."),
        ("okvqa_val", 1, "okvqa_val.jsonl", {"image": "data/coco/val2014/other.jpg"},
         "field 'image': a path that ends like val2014/COCO"),
        ("textvqa_val", 0, "TextVQA_0.5.1_val.json", {"image_id": "../../../x"},
         r"data\[0\] of .*: field 'image_id': a string like .* expected, '\.\./"),
        ("textvqa_val", 0, "TextVQA_0.5.1_val.json", {"answers": []}, "at least one answer"),
        ("refcoco_val", 0, "refcoco_val.jsonl", {"bbox": [100, 20, 10, 220]},
         "field 'bbox': x1 y1 x2 y2 expected"),
        ("refcoco_val", 0, "refcoco_val.jsonl", {"bbox": [1, 2, 3]}, "4 numbers expected"),
        ("refcoco_val", 0, "refcoco_val.jsonl", {"width": 0}, "an integer from 1 expected, 0"),
        ("refcoco_val", 2, "refcoco_val.jsonl", {"hw": [480]}, "field 'hw': 2 integers"),
        ("refcoco_val", 2, "refcoco_val.jsonl", {"image": "/data/x.jpg"}, "field 'image'"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, name, layout, path, change, message):
    """File, record, field, what was expected and what was found."""
    files = copy.deepcopy(RECORDED[name]["layouts"][layout])
    (full,) = [each for each in files if each.endswith(f"/{path}")]
    first_record(files, full).update(change)
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        read(TASKS[name], tmp_path)


def test_an_image_of_the_users_own_lies_where_its_path_says(tmp_path):
    """Phrases on other pictures, such as GRIT's, are asked through the same task."""
    files = copy.deepcopy(RECORDED["refcoco_val"]["layouts"][0])
    (rows,) = files.values()
    rows[0]["image"], rows[1]["image"] = "grit/refexp_1.png", "data/grit/refexp_2.png"
    write(tmp_path, files)
    expected = ["grit/refexp_1.png", "grit/refexp_2.png"]
    assert expected == [s.fields["image"] for s in read(TASKS["refcoco_val"], tmp_path)]


def test_a_question_cannot_name_an_image_of_its_own(tmp_path):
    """A question with an image tag would make the engine open a file that the data name."""
    files = copy.deepcopy(RECORDED["textvqa_val"]["layouts"][0])
    (content,) = files.values()
    content["data"][0]["question"] = "what is in <img>/etc/passwd</img>?"
    write(tmp_path, files)
    task = TASKS["textvqa_val"]
    with pytest.raises(DataError, match="holds the image tag"):
        render_request(task, read(task, tmp_path)[0])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True)
    | st.text(max_size=6)
    | st.sampled_from(["../x.jpg", "/x", "data/coco/train2014/x.jpg", "<img>x</img>", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def places(value, path=()):
    """The paths to everything inside a JSON value."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    for key, child in value.items():
        yield (*path, key)
        yield from places(child, (*path, key))


def mutated(data, files):
    """Files of which one value, drawn anywhere, is replaced or removed, or some bytes are."""
    files = copy.deepcopy(files)
    kind = data.draw(st.sampled_from(["replace", "remove", "bytes"]))
    if kind == "bytes":
        name = data.draw(st.sampled_from(sorted(files)))
        rows = files[name] if name.endswith(".jsonl") else [files[name]]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        files[name] = content[:start] + data.draw(st.binary(max_size=8)) + content[end:]
        return files
    *above, last = data.draw(st.sampled_from([p for p in places(files) if len(p) > 1]))
    parent = files
    for key in above:
        parent = parent[key]
    if kind == "replace":
        parent[last] = data.draw(JSON)
    else:
        del parent[last]
    return files


@pytest.mark.parametrize(("name", "number"), READERS)
@settings(max_examples=60)
@given(data=st.data())
def test_broken_files_give_samples_or_an_eval_error(name, number, data):
    """No file can cause a KeyError or a TypeError, nor a sample that is malformed or escapes."""
    task = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), mutated(data, RECORDED[name]["layouts"][number]))
        with suppress(EvalError):
            for sample in read(task, Path(folder)):
                assert isinstance(sample.id, str)
                assert all(isinstance(value, str) for value in sample.fields.values())
                assert [safe_path(image, name) for image in sample.images] == list(sample.images)
                render_request(task, sample).prompt.encode()


@pytest.mark.parametrize("name", TASKS)
def test_what_a_person_must_fetch_has_an_address(name):
    """A user without it reads where to get it, which must be a page of the web."""
    steps = [*TASKS[name].steps, *TASKS[name].train_steps, *TASKS[name].later_steps]
    assert all(step.where.startswith("https://") for step in steps if isinstance(step, ByHand))


def test_importing_the_benchmarks_loads_no_torch():
    """Listing tasks and scoring recorded answers must start fast, and where no torch is."""
    names = ", ".join({each.origin.partition(" ")[0]: None for each in OFFERED.values()})
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
