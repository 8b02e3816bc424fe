"""RefCOCO, RefCOCO+, RefCOCOg and, of what they share, GRIT: layouts agree, expectations hold.

Records are those of golden/prompts, written in each layout; pickles, JSON and parquet are real.
"""

import json
import pickle

import datasets
import pytest
from benchmark_data import RECORDED, SAMPLES, cases, picture, real, recorded, tasks_of, write

from benchmarks import grit, refcoco
from eval import Archive, Generate, Mirror, Sample
from eval.data import unique
from eval.data.paths import path_tail
from eval.data.verify import verify
from eval.errors import DataError
from eval.run.requests import render_request

TASKS = tasks_of(refcoco, grit)
REFCOCO = [task.name for task in refcoco.TASKS]

FIRST, SECOND = 42, 581282  # numbers of images
IMAGES = [
    {"id": SECOND, "file_name": f"COCO_train2014_{SECOND:012d}.jpg", "width": 333, "height": 500},
    {"id": FIRST, "file_name": f"COCO_train2014_{FIRST:012d}.jpg", "width": 640, "height": 480},
    {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "width": 1, "height": 1},
]
BOXES = [
    {"id": 77, "image_id": FIRST, "category_id": 1, "bbox": [10.0, 20.0, 100.5, 200.0]},
    {"id": 78, "image_id": SECOND, "category_id": 44, "bbox": [3.24, 159.31, 156.4, 312.81]},
    {"id": 79, "image_id": FIRST, "category_id": 1, "bbox": [0, 0, 640, 480]},
    {"id": 80, "image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]},
]


def ref(number, split, image, category, *phrases):
    """One of refer's references; its box has the number 70 + its own."""
    sentences = [{"sent_id": n, "raw": p.upper(), "sent": p} for n, p in enumerate(phrases)]
    return {
        "ref_id": number,
        "ann_id": 70 + number,
        "image_id": image,
        "category_id": category,
        "file_name": f"COCO_train2014_{image:012d}_{number}.jpg",
        "split": split,
        "sentences": sentences,
    }


def refs(split):
    """In the file's order: another split, one phrase, two phrases, an object without any, one."""
    return [
        ref(10, "train", 7, 1, "the dot"),
        ref(8, split, SECOND, 44, "striped cup"),
        ref(7, split, FIRST, 1, "man left", "man \u2014 left, in red"),
        ref(9, split, FIRST, 1),
    ]


def expected_samples(name, *, told=True):
    """What the references above are, by hand; box and size in pixels."""
    second = f"coco/train2014/COCO_train2014_{SECOND:012d}.jpg", (333, 500), "other"
    first = f"coco/train2014/COCO_train2014_{FIRST:012d}.jpg", (640, 480), "person"
    cup = [3.24, 159.31, 3.24 + 156.4, 159.31 + 312.81]
    man = [10.0, 20.0, 110.5, 220.0]
    rows = [
        (*second, "striped cup", cup),
        (*first, "man left", man),
        (*first, "man \u2014 left, in red", man),
    ]
    return [
        Sample(
            str(number),
            {"image": image, "expression": phrase},
            reference={"box": box, "width": size[0], "height": size[1]},
            groups={"object": kind} if told else {},
        )
        for number, (image, size, kind, phrase, box) in enumerate(rows)
    ]


def parts(name):
    """Task's set and split: refcoco+_val -> refcoco+, val."""
    return name.split("_")


def write_official(root, name, references=None, boxes=BOXES, images=IMAGES, protocol=2):
    folder, split = parts(name)
    by = "umd" if folder == "refcocog" else "unc"
    content = refs(split) if references is None else references
    instances = {"info": {}, "images": images, "annotations": boxes}
    references = pickle.dumps(content, protocol=protocol)
    write(root, {f"{folder}/refs({by}).p": references, f"{folder}/instances.json": instances})


def write_mirror(root, name, change=None):
    """The same objects as the hub's datasets have them; a row an object."""
    folder, split = parts(name)
    rows = []
    boxes = {row["id"]: row["bbox"] for row in BOXES}
    sizes = {row["id"]: (row["width"], row["height"]) for row in IMAGES}
    for row in refs(split)[1:]:
        rows.append(
            {
                "question_id": str(row["ref_id"]),
                "image": {"bytes": picture("teal", sizes[row["image_id"]], "JPEG"), "path": None},
                "question": "Please carefully observe the area circled in the image",
                "answer": [sentence["sent"] for sentence in row["sentences"]],
                "segmentation": [1.0, 2.0],
                "bbox": [float(side) for side in boxes[row["ann_id"]]],
                "iscrowd": 0,
                "file_name": row["file_name"],
            }
        )
    rows[0].update(change or {})
    text, numbers = datasets.Value("string"), datasets.Sequence(datasets.Value("float64"))
    features = datasets.Features(
        {
            "question_id": text,
            "image": datasets.Image(),
            "question": text,
            "answer": datasets.Sequence(text),
            "segmentation": numbers,
            "bbox": numbers,
            "iscrowd": datasets.Value("int64"),
            "file_name": text,
        }
    )
    path = root / folder / "mirror" / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet"
    path.parent.mkdir(parents=True)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows, features=features).to_parquet(path)


def read(name, root):
    return list(unique(TASKS[name].layout(root).read(root), name))


def test_prompts_decoding_and_sizes_are_the_published_ones():
    """Each byte of a prompt moves scores; GRIT takes RefCOCO's."""
    counts = {
        "refcoco_val": (10834, 1500), "refcoco_testA": (5657, 750), "refcoco_testB": (5095, 750),
        "refcoco+_val": (10758, 1500), "refcoco+_testA": (5726, 750),
        "refcoco+_testB": (4889, 750),
        "refcocog_val": (4896, 1300), "refcocog_test": (9602, 2600),
        "grit_refexp_ablation": (None, None), "grit_refexp_test": (None, None),
    }  # fmt: skip
    assert counts == {name: (task.size, task.expect.images) for name, task in TASKS.items()}
    phrase = "<ref>{expression}</ref><box>"
    for task in TASKS.values():
        assert task.prompt == f"<img>{{image}}</img>{phrase}"
        assert task.chat == f"Picture 1: <img>{{image}}</img>\n{phrase}"
        assert task.decode == Generate(max_new_tokens=28, min_new_tokens=10)
        assert list(task.metrics) == ["accuracy"]


CASES = cases(TASKS)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_each_recorded_layout_gives_the_recorded_samples_and_prompt(tmp_path, name, number):
    """The golden files of the published forms: both sizes, both folders, GRIT's own records."""
    task = TASKS[name]
    write(tmp_path, RECORDED[name]["layouts"][number])
    actual = read(name, tmp_path)
    assert recorded(name) == actual
    assert RECORDED[name]["prompt"] == render_request(task, actual[0]).prompt


@pytest.mark.parametrize("name", REFCOCO)
def test_refers_own_files_are_read_by_sentence(tmp_path, name):
    """In the pickle's order, numbered within the split, boxes turned from x y w h to corners."""
    write_official(tmp_path, name)
    assert TASKS[name].layout(tmp_path).name == "official"
    assert expected_samples(name) == read(name, tmp_path)


@pytest.mark.parametrize("protocol", [0, 1, 4])
def test_refers_files_may_be_saved_anew(tmp_path, protocol):
    """Copies are in other protocols than Python 2 wrote."""
    write_official(tmp_path, "refcoco_val", protocol=protocol)
    assert expected_samples("refcoco_val") == read("refcoco_val", tmp_path)


@pytest.mark.parametrize("name", REFCOCO)
def test_converted_and_mirror_give_the_official_samples(tmp_path, name):
    """Record by record; only refer's file tells the kind of object."""
    folder, split = parts(name)
    expected = expected_samples(name, told=False)
    lines = "".join(
        json.dumps(
            {
                "image": f"data/{sample.images[0]}",
                "sent": sample.fields["expression"],
                "bbox": sample.reference["box"],
                "width": sample.reference["width"],
                "height": sample.reference["height"],
            }
        )
        + "\n"
        for sample in expected
    )
    write(tmp_path / "converted", {f"{folder}/{folder}_{split}.jsonl": lines.encode()})
    write_mirror(tmp_path / "mirror", name)
    for layout in ("converted", "mirror"):
        assert TASKS[name].layout(tmp_path / layout).name == layout
        assert expected == read(name, tmp_path / layout)


def test_a_mirrors_pictures_are_written_where_samples_look_for_them(tmp_path):
    """Two objects of one picture: it is given once, byte for byte."""
    write_mirror(tmp_path, "refcocog_test")
    layout = TASKS["refcocog_test"].layout(tmp_path)
    pictures = list(layout.pictures(tmp_path))
    expected = [picture("teal", size, "JPEG") for size in ((333, 500), (640, 480))]
    assert expected == [content for _, content in pictures]
    used = dict.fromkeys(s.images[0] for s in read("refcocog_test", tmp_path))
    assert list(used) == [path for path, _ in pictures]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1.0, 2.0, -3.0, 4.0]}, "field 'bbox': x y width height expected"),
        ({"bbox": [1.0, 2.0, 3.0]}, "field 'bbox': 4 numbers expected"),
        ({"file_name": "../x.jpg"}, "field 'file_name': a string like COCO_train2014"),
        ({"image": {"bytes": b"no picture", "path": None}}, "a picture expected, b'no pictu'"),
    ],
)
def test_a_wrong_row_of_a_mirror_is_an_error_that_names_it(tmp_path, change, message):
    """Row, field, what was expected and what was found."""
    write_mirror(tmp_path, "refcoco_testB", change)
    with pytest.raises(DataError, match=rf"row 0 of .*testB-\*\.parquet.*{message}"):
        read("refcoco_testB", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": 5}, "field 'ann_id': one of .*instances.json expected, 5 found"),
        ({"image_id": 5}, "field 'image_id': one of .*instances.json expected, 5 found"),
        ({"ann_id": 77}, f"its box is of another image, {FIRST}"),
        ({"file_name": "/etc/passwd"}, "field 'file_name': a string like COCO_train2014"),
        ({"split": 3}, "field 'split': a string expected, 3 found"),
        ({"category_id": None}, "field 'category_id': an integer from 0 expected, null"),
        ({"sentences": [{"raw": "x"}]}, r"sentences\[0\] of .*: field 'sent': a string expected"),
    ],
)
def test_a_wrong_reference_is_an_error_that_names_it(tmp_path, change, message):
    """The number in refer's list stands in the message, counted from 0."""
    references = refs("val")
    references[1].update(change)
    write_official(tmp_path, "refcoco+_val", references)
    with pytest.raises(DataError, match=rf"\[1\] of .*refs\(unc\)\.p: .*{message}|{message}"):
        read("refcoco+_val", tmp_path)


def test_refers_file_must_hold_a_list(tmp_path):
    """Such as an instances.json that was pickled."""
    write_official(tmp_path, "refcoco_val", {"refs": []})
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: a list of references expected"):
        read("refcoco_val", tmp_path)


def test_googles_split_of_refcocog_is_refused(tmp_path):
    """It goes by object, so an image stands in several splits; UMD's never does."""
    references = [*refs("val"), ref(7, "test", FIRST, 1, "man")]
    write_official(tmp_path, "refcocog_val", references)
    with pytest.raises(
        DataError, match=rf"\[4\] of .*: image {FIRST} in one split .* val and test"
    ):
        read("refcocog_val", tmp_path)
    write_official(tmp_path, "refcoco_val", references)  # UNC is told by its counts
    assert expected_samples("refcoco_val") == read("refcoco_val", tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [
        ("refcoco_testA", "other", True),
        ("refcoco_testA", "person", False),
        ("refcoco+_testB", "person", True),
        ("refcoco+_testB", "other", False),
        ("refcoco_val", "person", False),
        ("refcocog_test", "other", False),
    ],
)
def test_test_a_is_people_and_test_b_is_not(name, kind, wrong):
    """What the two splits are made for; a swap of their files would be seen at the first record."""
    reference = {"box": [0.0, 0.0, 5.0, 5.0], "width": 640, "height": 480}
    sample = Sample("0", {}, reference=reference, groups={"object": kind})
    assert wrong == (TASKS[name].expect.each(sample) is not None)
    assert TASKS[name].expect.each(Sample("0", {}, reference=reference)) is None


@pytest.mark.parametrize(
    ("box", "wrong"),
    [
        ([0.0, 0.0, 640.0, 480.0], False),
        ([-1.0, -1.0, 641.0, 481.0], False),
        ([-1.1, 0.0, 640.0, 480.0], True),
        ([0.0, -1.1, 640.0, 480.0], True),
        ([0.0, 0.0, 641.1, 480.0], True),
        ([0.0, 0.0, 640.0, 481.1], True),
    ],
)
def test_a_box_lies_in_its_image(box, wrong):
    """Else x y w h were taken for corners, or width for height; a pixel of rounding is let pass."""
    sample = Sample("0", {}, reference={"box": box, "width": 640, "height": 480})
    assert wrong == (TASKS["refcoco_val"].expect.each(sample) is not None)


def test_verify_tells_the_hubs_val_from_the_cards(tmp_path):
    """Too few samples and images, missing pictures: each is a fault, none an error."""
    write_mirror(tmp_path, "refcoco_val")
    faults = verify(TASKS["refcoco_val"], tmp_path).issues
    assert faults[:2] == (
        "samples: 10,834 expected, 3 found",
        "images: 1,500 expected, 2 found",
    )
    assert "2 of 2 images are missing" in faults[2]
    assert len(faults) == 3


MEMBERS = {  # as the archives have them
    "refcoco.zip": ["refcoco/refs(unc).p", "refcoco/instances.json"],
    "refcoco+.zip": ["refcoco+/refs(unc).p", "refcoco+/instances.json"],
    "refcocog.zip": ["refcocog/refs(umd).p", "refcocog/instances.json"],
    "train2014.zip": ["train2014/COCO_train2014_000000000042.jpg"],
    "test2015.zip": ["test2015/COCO_test2015_000000000042.jpg"],
    "grit_data.zip": ["GRIT/samples/ablation/refexp.json", "GRIT/samples/test/refexp.json"],
    "saiapr_tc-12.zip": ["saiapr_tc-12/00/images/25.jpg"],
    "distortions.tar.gz": ["distortions/a/b.npy"],
}
PLACES = {
    "refs(unc).p", "refs(umd).p", "instances.json", *(m[0] for m in MEMBERS.values()),
    "GRIT/samples/test/refexp.json",
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_archives_keep_what_the_loaders_read(name):
    """And not Google's split, whose file lies beside UMD's."""
    task = TASKS[name]
    kept = []
    for step in task.steps:
        if isinstance(step, Archive):
            for member in MEMBERS[step.url.rpartition("/")[2]]:
                tail = path_tail(member, step.keep)
                assert tail in PLACES
                kept.append(f"{step.into}/{tail}")
            assert path_tail(f"{name}/refs(google).p", step.keep) is None
    for source in task.layouts[0].sources:
        assert source.path in kept
    mirrors = [step for step in task.steps if isinstance(step, Mirror)]
    for step, layout in zip(mirrors, [x for x in task.layouts if x.name == "mirror"], strict=True):
        assert layout.sources[0].path == f"{step.into}/{step.files}"


@real
@pytest.mark.parametrize("name", REFCOCO)
def test_real_excerpts_are_read_alike_from_refers_form_and_the_converted(tmp_path, name):
    """Fifty real expressions of each split, with their boxes and sizes, in both forms."""
    folder, split = parts(name)
    by = "umd" if folder == "refcocog" else "unc"
    path = f"{folder}/{folder}_{split}.jsonl"
    converted = (SAMPLES / f"refcoco/qwen_format/{name}.jsonl").read_bytes()
    write(tmp_path / "converted", {path: converted})
    lines = (SAMPLES / f"refcoco/REC_{folder}_{by}_{split}_first150.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in lines.splitlines()][:50]
    references, boxes, images = [], [], {}
    for number, row in enumerate(rows, 1):
        x1, y1, x2, y2 = row["bbox"]
        image = row["image_id"]
        box = [x1, y1, x2 - x1, y2 - y1]
        category = 44 if split == "testB" else 1
        boxes.append({"id": 70 + number, "image_id": image, "bbox": box})
        references.append(ref(number, split, image, category, row["expression"]))
        images[image] = {"id": image, "width": row["width"], "height": row["height"]}
    write_official(tmp_path / "official", name, references, boxes, list(images.values()))
    converted, official = (read(name, tmp_path / each) for each in ("converted", "official"))
    assert [s.fields for s in converted] == [s.fields for s in official]
    assert [str(number) for number in range(50)] == [s.id for s in converted]
    for mine, theirs in zip(official, converted, strict=True):
        assert mine.reference["box"] == pytest.approx(theirs.reference["box"], abs=1e-9)
        assert mine.reference["width"] == theirs.reference["width"]
        assert TASKS[name].expect.each(theirs) is None
        assert TASKS[name].expect.each(mine) is None
