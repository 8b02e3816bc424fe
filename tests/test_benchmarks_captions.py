"""NoCaps and Flickr30K: every layout is one benchmark, and what looks like it is not taken for it.

The records are those of golden/prompts; the tables of mirrors are real parquet.
"""

import copy
import json
from functools import partial
from pathlib import Path

import datasets
import pytest
from pydantic import TypeAdapter, ValidationError

from benchmarks import flickr30k, nocaps
from eval import Archive, ByHand, Download, Mirror, Pictures, Sample
from eval.data import Examples, unique, verify
from eval.demo.data import SIZES, write_demo_data
from eval.errors import DataError, PredictionError

GOLDEN = Path(__file__).parent / "golden" / "prompts"
TASKS = {task.name: task for module in (nocaps, flickr30k) for task in module.TASKS}
RECORDED = {name: json.loads((GOLDEN / f"{name}.json").read_text("utf-8")) for name in TASKS}
TEXTS = datasets.Sequence(datasets.Value("string"))
TEXT = datasets.Value("string")
FIRST, SECOND = "00ab00ab00ab00ab", "0123456789abcdef"  # the recorded images of NoCaps
PICTURES = {FIRST: b"\xff\xd8\xffgoat", SECOND: b"\xff\xd8\xffbus"}

datasets.disable_progress_bars()


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")


def tables(path, rows, **features):
    """Write rows as a hub has them, with a picture in the column `image`."""
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    kinds = datasets.Features({**features, "image": datasets.Image()})
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=kinds).to_parquet(path)


def recorded(name, groups=True):
    """The samples, or without what their groups are where a layout does not tell them."""
    rows = copy.deepcopy(RECORDED[name]["samples"])
    for row in rows:
        row["options"] = ()
        if not groups:
            row["groups"] = {}
    return [Sample(**row) for row in rows]


def official(name):
    """A fresh copy of the recorded official file: its path and content."""
    ((path, content),) = copy.deepcopy(RECORDED[name]["layouts"][0]).items()
    return path, content


def read(name, root):
    return list(unique(TASKS[name].layout(root).read(root), name))


def nocaps_rows(split):
    captions = {"val": {s.id: s.reference for s in recorded("nocaps_val")}, "test": {}}[split]
    _, content = official(f"nocaps_{split}")
    return [
        {
            "image": PICTURES[row["open_images_id"]],
            "image_id": row["id"],
            "image_open_images_id": row["open_images_id"],
            "image_file_name": row["file_name"],
            "annotations_captions": captions.get(str(row["id"]), []),
        }
        for row in content["images"]
    ]


NOCAPS_COLUMNS = {
    "image_id": datasets.Value("int64"),
    "image_open_images_id": TEXT,
    "image_file_name": TEXT,
    "annotations_captions": TEXTS,
}


def nocaps_tables(root, split, rows):
    part = {"val": "validation", "test": "test"}[split]
    tables(root / f"nocaps/mirror/data/{part}-00000-of-00001.parquet", rows, **NOCAPS_COLUMNS)


def flickr_rows():
    """The recorded images of all splits, each with its split, as nlphuji/flickr30k has them."""
    _, content = official("flickr30k_test")
    return [
        {
            "image": b"\xff\xd8\xff" + row["filename"].encode(),
            "caption": [sentence["raw"] for sentence in row["sentences"]],
            "split": row["split"],
            "filename": row["filename"],
        }
        for row in content["images"]
    ]


FLICKR_COLUMNS = {"caption": TEXTS, "split": TEXT, "filename": TEXT}


def flickr_tables(root, rows, columns=FLICKR_COLUMNS):
    rows = [{name: row[name] for name in (*columns, "image")} for row in rows]
    tables(root / "flickr30k/mirror/TEST/test/0000.parquet", rows, **columns)


def whole_tables(root):
    """lmms-lab/flickr30k: no column that tells the split."""
    columns = {name: kind for name, kind in FLICKR_COLUMNS.items() if name != "split"}
    flickr_tables(root, flickr_rows(), columns)


@pytest.mark.parametrize("split", ["val", "test"])
def test_nocaps_mirror_gives_the_official_samples_and_their_pictures(tmp_path, split):
    """Ids, captions, order and image names are equal; a mirror does not tell the domain."""
    nocaps_tables(tmp_path, split, nocaps_rows(split))
    name = f"nocaps_{split}"
    assert recorded(name, groups=False) == read(name, tmp_path)
    layout = TASKS[name].layout(tmp_path)
    expected = {f"nocaps/images/{key}.jpg": content for key, content in PICTURES.items()}
    assert expected == dict(layout.pictures(tmp_path))


def test_nocaps_official_layout_tells_the_domains(tmp_path):
    """Val's figure is broken down by them; the annotations of the two images stand mixed."""
    write(tmp_path, dict([official("nocaps_val")]))
    assert recorded("nocaps_val") == read("nocaps_val", tmp_path)
    expected = {"domain": {"in-domain": 648, "near-domain": 2938, "out-domain": 914}}
    assert expected == TASKS["nocaps_val"].expect.groups
    assert TASKS["nocaps_val"].size == sum(expected["domain"].values())
    test = TASKS["nocaps_test"]
    assert test.size == sum(test.expect.groups["domain"].values())


def test_nocaps_pictures_come_one_by_one_from_where_the_file_says(tmp_path):
    """There is no archive: each image has its own address."""
    write(tmp_path, dict([official("nocaps_val")]))
    (step,) = [each for each in TASKS["nocaps_val"].steps if isinstance(each, Pictures)]
    expected = [
        (f"https://s3.example/nocaps/{key}.jpg", f"nocaps/images/{key}.jpg") for key in PICTURES
    ]
    assert expected == list(step.urls(tmp_path))
    path, content = official("nocaps_val")
    content["images"][1]["coco_url"] = "file:///etc/passwd"
    write(tmp_path, {path: content})
    with pytest.raises(DataError, match=r"images\[1\] of .*: field 'coco_url': a string like http"):
        list(step.urls(tmp_path))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_flickr30k_is_karpathys_test_split_in_every_layout_of_files(tmp_path, number):
    """Two of the four recorded images are test's; each has its own five captions."""
    write(tmp_path, RECORDED["flickr30k_test"]["layouts"][number])
    found = read("flickr30k_test", tmp_path)
    assert recorded("flickr30k_test") == found
    assert [5, 5] == [len(sample.reference) for sample in found]


def test_flickr30k_mirror_is_filtered_by_its_column_split(tmp_path):
    """nlphuji/flickr30k calls all images test; its column holds Karpathy's splits."""
    flickr_tables(tmp_path, flickr_rows())
    assert recorded("flickr30k_test") == read("flickr30k_test", tmp_path)
    layout = TASKS["flickr30k_test"].layout(tmp_path)
    expected = {
        f"flickr30k/flickr30k-images/{n}.jpg": f"\xff\xd8\xff{n}.jpg".encode("latin-1")
        for n in ("1234567890", "42")
    }
    assert expected == dict(layout.pictures(tmp_path))


def test_flickr30k_mirror_without_splits_is_refused(tmp_path):
    """All 31,783 images of lmms-lab/flickr30k would be another benchmark."""
    whole_tables(tmp_path)
    with pytest.raises(DataError, match=r"columns .*split.*Is it lmms-lab/flickr30k\?.*31,783"):
        read("flickr30k_test", tmp_path)
    layout = TASKS["flickr30k_test"].layout(tmp_path)
    with pytest.raises(DataError, match=r"Is it lmms-lab/flickr30k\?"):
        list(layout.pictures(tmp_path))


@pytest.mark.parametrize("number", [0, 1])
def test_flickr30k_mirror_without_splits_serves_beside_the_names(tmp_path, number):
    """With Karpathy's file names the same mirror gives the pictures of test, and those only."""
    write(tmp_path, RECORDED["flickr30k_test"]["layouts"][number])
    whole_tables(tmp_path)
    layout = next(
        each
        for each in TASKS["flickr30k_test"].layouts
        if each.name == "mirror" and each.complete(tmp_path)
    )
    assert recorded("flickr30k_test") == list(layout.read(tmp_path))
    expected = [sample.fields["image"] for sample in recorded("flickr30k_test")]
    assert expected == [path for path, _ in layout.pictures(tmp_path)]


def flickr_training(root, layout):
    """Two training images with two captions each, as a layout has them."""
    captions = {"555.jpg": ["A dog.", "The dog."], "7.jpg": ["A cat.", "Two cats?"]}
    if layout == "official":
        path, content = official("flickr30k_test")
        content["images"][:1] = [
            {"filename": name, "split": "train", "sentences": [{"raw": text} for text in texts]}
            for name, texts in captions.items()
        ]
        write(root, {path: content})
    elif layout == "converted":
        rows = [
            {"image": f"data/flickr/flickr30k-images/{name}", "caption": text}
            for name, texts in captions.items()
            for text in texts
        ]
        content = {"images": [], "annotations": rows}
        write(root, {"flickr30k/flickr30k_karpathy_train.json": content})
    else:
        flickr_tables(
            root,
            flickr_rows()[1:]
            + [
                {"filename": name, "split": "train", "caption": texts, "image": b"\xff\xd8\xff"}
                for name, texts in captions.items()
            ],
        )


@pytest.mark.parametrize("layout", ["official", "converted", "mirror"])
def test_flickr30k_examples_are_captions_of_the_training_split(tmp_path, layout):
    """The published script draws them from the test split itself; ours cannot leak."""
    flickr_training(tmp_path, layout)
    expected = [
        ("555/0", "flickr30k/flickr30k-images/555.jpg", "A dog."),
        ("555/1", "flickr30k/flickr30k-images/555.jpg", "The dog."),
        ("7/0", "flickr30k/flickr30k-images/7.jpg", "A cat."),
        ("7/1", "flickr30k/flickr30k-images/7.jpg", "Two cats?"),
    ]
    task = TASKS["flickr30k_test"]
    found = Examples(task, tmp_path).samples
    assert expected == [(s.id, s.fields["image"], s.fields["answer"]) for s in found]
    shown = task.request(recorded("flickr30k_test")[0], examples=found[:1]).prompt
    expected = (
        "<img>flickr30k/flickr30k-images/555.jpg</img>Describe the image in English: A dog."
        "<img>flickr30k/flickr30k-images/1234567890.jpg</img>Describe the image in English:"
    )
    assert expected == shown


def last_caption_gone(content):
    content["annotations"].pop()


def one_domain(content):
    content["images"][1]["domain"] = "near-domain"


def four_sentences(content):
    content["images"][1]["sentences"].pop()


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("nocaps_val", last_caption_gone,
         "1 samples are not of this split: sample 0: 10 captions expected, 9 found"),
        ("nocaps_val", last_caption_gone, "answers: 45,000 expected, 19 found"),
        ("nocaps_val", one_domain, "domain 'near-domain': 2,938 expected, 2 found"),
        ("nocaps_val", one_domain, "domain 'in-domain': 648 expected, 0 found"),
        ("nocaps_val", one_domain, "samples: 4,500 expected, 2 found"),
        ("nocaps_val", one_domain, "images: 4,500 expected, 2 found"),
        ("nocaps_test", one_domain, "samples: 10,600 expected, 2 found"),
        ("nocaps_test", one_domain, "images: 10,600 expected, 2 found"),
        ("nocaps_test", one_domain, "domain 'out-domain': 1,883 expected, 0 found"),
        ("flickr30k_test", four_sentences,
         "1 samples are not of this split: sample 1234567890: 5 captions expected, 4 found"),
        ("flickr30k_test", four_sentences, "samples: 1,000 expected, 2 found"),
        ("flickr30k_test", four_sentences, "images: 1,000 expected, 2 found"),
        ("flickr30k_test", four_sentences, "answers: 5,000 expected, 9 found"),
    ],
)  # fmt: skip
def test_what_only_looks_like_the_split_is_told(tmp_path, name, change, expected):
    """Each expectation has its own line, with what was expected and what was found."""
    path, content = official(name)
    change(content)
    write(tmp_path, {path: content})
    assert expected in verify(TASKS[name], tmp_path).faults


@pytest.mark.parametrize("name", TASKS)
def test_the_split_itself_has_no_fault_but_its_size(tmp_path, name):
    """The per-sample checks let the recorded samples pass; missing pictures are named."""
    write(tmp_path, dict([official(name)]))
    found = verify(TASKS[name], tmp_path, limit=2)
    expected = f"2 of 2 images are missing: {', '.join(s.images[0] for s in recorded(name))}"
    assert (expected,) == found.faults


def image(**change):
    return lambda content: content["images"][1].update(change)


def annotation(**change):
    return lambda content: content["annotations"][-1].update(change)


def only_one_image_annotated(content):
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] == 7]


@pytest.mark.parametrize(
    ("name", "layout", "change", "message"),
    [
        ("nocaps_val", 0, image(id="x"),
         r"images\[1\] of .*4500_captions\.json: field 'id': an integer from 0 expected, 'x' found"),
        ("nocaps_val", 0, image(id=0), "'0' found again at sample 1"),
        ("nocaps_val", 0, image(open_images_id="../../etc/passwd"),
         "field 'open_images_id': a string like"),
        ("nocaps_val", 0, image(domain="test"), "field 'domain': a string like"),
        ("nocaps_val", 0, annotation(caption=3),
         r"annotations\[19\] of .*: field 'caption': a string expected, 3 found"),
        ("nocaps_val", 0, annotation(image_id=None), "field 'image_id': an identifier expected"),
        ("nocaps_val", 0, only_one_image_annotated,
         r"images\[0\] of .*: captions expected, none found"),
        ("nocaps_val", 0, lambda content: content.pop("annotations"),
         "field 'annotations': a list expected, nothing found"),
        ("nocaps_val", 1, image(image="/abs/0123456789abcdef.jpg"),
         r"images\[1\] of .*nocaps_val\.json: field 'image': a relative path"),
        ("nocaps_val", 1, image(image="data/nocaps/images/1.jpg"), "a path that ends like"),
        ("nocaps_test", 0, image(open_images_id=7), "field 'open_images_id': a string expected"),
        ("flickr30k_test", 0, image(filename="../1.jpg"),
         r"images\[1\] of .*flickr30k\.json: field 'filename': a string like"),
        ("flickr30k_test", 0, image(filename="42.jpg"), "'42' found again at sample 1"),
        ("flickr30k_test", 0, image(sentences=[]), "captions expected, none found"),
        ("flickr30k_test", 0, image(sentences=[{"raw": 1}]), "field 'raw': a string expected"),
        ("flickr30k_test", 0, image(split=None), "field 'split': a string expected, null found"),
        ("flickr30k_test", 1, image(id=1234567890),
         "field 'id': the number of its image expected, 1234567890 found"),
        ("flickr30k_test", 1, image(image="flickr30k/1.jpg"), "a path that ends like flickr30k-im"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, name, layout, change, message):
    """File, record, field, what was expected and what was found."""
    files = copy.deepcopy(RECORDED[name]["layouts"][layout])
    (content,) = files.values()
    change(content)
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        read(name, tmp_path)


def test_a_wrong_row_of_a_mirror_is_an_error_that_names_it(tmp_path):
    """Tables are checked like files: the number of the row stands in the message."""
    rows = nocaps_rows("val")
    rows[1]["image_open_images_id"] = "short"
    nocaps_tables(tmp_path, "val", rows)
    with pytest.raises(DataError, match=r"row 1 of .*validation-\*\.parquet: field 'image_open_im"):
        read("nocaps_val", tmp_path)
    rows = flickr_rows()
    rows[1]["filename"] = "a/../1.jpg"
    flickr_tables(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 1 of .*parquet: field 'filename'"):
        read("flickr30k_test", tmp_path)


def test_the_file_for_the_server_holds_a_caption_of_every_image(tmp_path):
    """EvalAI's format: integers and stripped captions, in the order of the images."""
    write(tmp_path, dict([official("nocaps_test")]))
    submission = TASKS["nocaps_test"].submission
    built = submission.build(tmp_path, {"7": " A bus.\n", "0": "A goat."}, {})
    expected = [{"image_id": 0, "caption": "A goat."}, {"image_id": 7, "caption": "A bus."}]
    assert expected == built
    schema = TypeAdapter(submission.schema)
    assert expected == schema.validate_python(built, strict=True)
    with pytest.raises(ValidationError):
        schema.validate_python([{"image_id": "0", "caption": "A goat."}], strict=True)
    assert ("nocaps_test.json", True) == (submission.file, "challenge 355" in submission.server)


def test_a_submission_with_gaps_is_not_written(tmp_path):
    """The server refuses it; the message says how many are missing and which is first."""
    write(tmp_path, dict([official("nocaps_test")]))
    build = partial(TASKS["nocaps_test"].submission.build, tmp_path)
    message = "of each of 2 images expected, 1 have none, 7 first"
    with pytest.raises(PredictionError, match=message):
        build({"0": "A goat."}, {})


def test_only_what_a_server_alone_can_score_is_submitted():
    """Val has its captions here, so its figure is computed and not asked for."""
    assert ["nocaps_test"] == [name for name, task in TASKS.items() if task.submission]


def test_the_steps_lead_to_the_files_that_are_read():
    """What is fetched lies where a layout looks for it; the photographs of Flickr need a form."""
    for name in ("nocaps_val", "nocaps_test"):
        first, _, mirror = TASKS[name].steps
        assert isinstance(first, Download)
        assert TASKS[name].layouts[0].sources[0].path == first.path
        assert first.url.endswith(Path(first.path).name)
        assert isinstance(mirror, Mirror)
    archive, form, _ = TASKS["flickr30k_test"].steps
    assert (Archive, ByHand) == (type(archive), type(form))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_drawn_data_are_read_by_the_official_layout(demo, name):
    """The demo writes the official formats, pictures too; it differs in nothing but its size."""
    task = TASKS[name]
    assert task.layouts[0] == task.layout(demo)
    found = verify(task, demo)
    assert (SIZES[name], SIZES[name]) == (found.samples, found.images)
    assert all(" expected, " in fault and "sample " not in fault for fault in found.faults)


def test_drawn_captions_can_be_shown_as_examples(demo):
    """Six drawn images are Karpathy's training split, each with five captions."""
    found = Examples(TASKS["flickr30k_test"], demo).samples
    asked = {sample.images for sample in TASKS["flickr30k_test"].layout(demo).read(demo)}
    assert (30, 6) == (len(found), len({sample.images for sample in found} - asked))
