"""GRIT: its records are held to be whole, and its submission is what the server takes."""

import copy
import shutil

import pytest
from benchmark_data import RECORDED, SAMPLES, picture, real, tasks_of, write
from pydantic import TypeAdapter, ValidationError

from benchmarks import grit
from eval.data import read_json, unique
from eval.data.sizes import picture_size
from eval.errors import DataError
from eval.run.requests import render_request

TASKS = tasks_of(grit)


def read(name, root):
    return list(unique(TASKS[name].layout(root).read(root), name))


def grit_rows(subset):
    (rows,) = copy.deepcopy(RECORDED[f"grit_refexp_{subset}"]["layouts"][0]).values()
    return rows


def write_grit(root, subset, rows):
    write(root, {f"grit/GRIT/samples/{subset}/refexp.json": rows})


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"example_id": ""}, "field 'example_id': a string like"),
        (0, {"example_id": "refexp_2"}, "'refexp_2' found again"),
        (1, {"example_id": "refexp_3"}, r"\[2\] of .*the twin of 'refexp_2_dist' without '_dist'"),
        (1, {"image_id": "../../etc/passwd"}, "field 'image_id': a relative path below"),
        (1, {"image_id": "/etc/passwd"}, "field 'image_id': a relative path below"),
        (2, {"task_name": "vqa"}, "field 'task_name': a string like refexp"),
        (2, {"task_query": None}, "field 'task_query': a string expected, null found"),
    ],
)
def test_a_wrong_record_of_grit_is_an_error_that_names_it(tmp_path, number, change, message):
    """Ids are unique, twins are whole, and no image lies outside."""
    rows = grit_rows("test")
    rows[number].update(change)
    write_grit(tmp_path, "test", rows)
    with pytest.raises(DataError, match=message):
        read("grit_refexp_test", tmp_path)


def test_grits_coco_images_may_lie_where_grit_has_them(tmp_path):
    """As its own scripts unpack them; the folder that other benchmarks share comes first."""
    write_grit(tmp_path, "test", grit_rows("test"))
    image = "coco/train2014/COCO_train2014_000000000042.jpg"
    (tmp_path / grit.IMAGES / "coco" / "train2014").mkdir(parents=True)
    assert read("grit_refexp_test", tmp_path)[0].images == (f"{grit.IMAGES}/{image}",)
    (tmp_path / "coco" / "train2014").mkdir(parents=True)
    assert read("grit_refexp_test", tmp_path)[0].images == (image,)


def grit_root(root, subset):
    """Samples with pictures of 999 x 1998 pixels, so that the grid's numbers are seen in boxes."""
    write_grit(root, subset, grit_rows(subset))
    for sample in read(f"grit_refexp_{subset}", root):
        write(root, {sample.images[0]: picture("teal", (999, 1998), "JPEG")})


@pytest.mark.parametrize("subset", ["ablation", "test"])
@pytest.mark.parametrize(
    ("model", "millions"), [({}, 9600), ({"parameters": 4_799_872}, 5), ({"parameters": 9}, 1)]
)
def test_grits_submission_is_one_folder_of_two_files(tmp_path, subset, model, millions):
    """Each sample in the file's order; the first box, in whole pixels; none where none is told."""
    grit_root(tmp_path, subset)
    texts = {
        "refexp_1": "(10,20),(500,600) and (1,1),(2,2)",
        "refexp_2": "no box",
        "refexp_2_dist": "(0.4,0.5),(998.6,999)",
    }
    submission = TASKS[f"grit_refexp_{subset}"].submission
    actual = submission.build(tmp_path, texts, model)
    expected = {
        f"{subset}/params.json": {"params_in_millions": millions},
        f"{subset}/refexp.json": [
            {"example_id": "refexp_1", "confidence": 1.0, "bboxes": [[10, 40, 500, 1200]]},
            {"example_id": "refexp_2", "confidence": 1.0, "bboxes": []},
            {"example_id": "refexp_2_dist", "confidence": 1.0, "bboxes": [[0, 1, 999, 1998]]},
        ],
    }
    assert expected == actual
    assert submission.file == f"grit_refexp_{subset}.zip"
    adapter = TypeAdapter(submission.schema)
    adapter.validate_python(actual, strict=True)
    other = TypeAdapter(TASKS["grit_refexp_test"].submission.schema)
    if subset == "ablation":
        with pytest.raises(ValidationError):
            other.validate_python(actual, strict=True)


@pytest.mark.parametrize(
    "text", ["(nan,0),(1,1)", "(0,0),(1e30,5)", "(0,0),(inf,5)", "(a,b),(c,d)"]
)
def test_a_box_that_no_integer_tells_counts_as_none(tmp_path, text):
    """The server takes whole pixels; none of these could have hit."""
    write(tmp_path, {"x.jpg": picture("teal", (100, 100), "JPEG")})
    assert [] == grit.boxes(text, tmp_path / "x.jpg")


def test_grits_submission_needs_every_picture(tmp_path):
    """A wrong size would move every box."""
    grit_root(tmp_path, "test")
    build = TASKS["grit_refexp_test"].submission.build
    texts = dict.fromkeys(("refexp_1", "refexp_2", "refexp_2_dist"), "(1,1),(2,2)")
    picture = tmp_path / "coco/train2014/COCO_train2014_000000000042.jpg"
    picture.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"COCO_train2014_000000000042\.jpg: a picture expected"):
        build(tmp_path, texts, {})
    picture.unlink()
    with pytest.raises(DataError, match=r"0042\.jpg: no such file"):
        build(tmp_path, texts, {})


def test_a_pictures_size_is_bounded(tmp_path):
    """Read from the header; one that claims more pixels than any picture has is refused."""
    content = picture("teal", (3, 2), "JPEG")
    write(tmp_path, {"x.jpg": content})
    assert (3, 2) == picture_size(tmp_path / "x.jpg") == picture_size(content, "here")
    with pytest.raises(DataError, match=r"here: .*DecompressionBomb"):
        picture_size(b"P6 20000 20000 255\n", "here")
    with pytest.raises(DataError, match="here: 65536 x 1: a side may have 65,535 pixels at most"):
        picture_size(b"P6 65536 1 255\n", "here")
    with pytest.raises(DataError, match="here: 1 x 65536: a side may have 65,535 pixels at most"):
        picture_size(b"P6 1 65536 255\n", "here")


@pytest.mark.parametrize("name", TASKS)
def test_half_an_overlap_is_no_hit_for_grit(name):
    """Unlike RefCOCO's rule, with which it shares prompt and boxes."""
    half = {"box": [0, 0, 999, 499.5], "width": 999, "height": 999}
    assert 0.0 == TASKS[name].metrics["accuracy"]("(0,0),(999,999)", half)


@real
def test_grits_published_example_becomes_a_sample_and_a_box(tmp_path):
    """Its phrase and picture, as the site shows them; the true box, told as a model would."""
    (example,) = read_json(SAMPLES / "grit/examples/samples.json").records("refexp")
    query = example.record("input").text("task_query")
    row = {"example_id": "refexp_1", "image_id": "refexp_1.png", "task_name": "refexp"}
    write_grit(tmp_path, "test", [{**row, "task_query": query}])
    (tmp_path / grit.IMAGES).mkdir()
    shutil.copyfile(
        SAMPLES / "grit/examples/images/refexp_1.png", tmp_path / grit.IMAGES / "refexp_1.png"
    )
    (sample,) = read("grit_refexp_test", tmp_path)
    width, height = picture_size(tmp_path / sample.images[0])
    (box,) = example.record("gt").values["bboxes"]
    x1, y1, x2, y2 = (
        999 * side / full for side, full in zip(box, (width, height) * 2, strict=True)
    )
    text = f"({x1},{y1}),({x2},{y2})"
    assert [box] == grit.boxes(text, tmp_path / sample.images[0])
    reference = {"box": box, "width": width, "height": height}
    assert TASKS["grit_refexp_test"].metrics["accuracy"](text, reference) == 1.0
    assert "<ref>white cat</ref><box>" in render_request(TASKS["grit_refexp_test"], sample).prompt
