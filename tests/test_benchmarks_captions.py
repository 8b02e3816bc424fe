"""NoCaps and Flickr30K: every layout is one benchmark, and what looks like it is not taken for it.

The broken records are in test_benchmarks_captions_faults.py.
"""

from pathlib import Path

import pytest
from benchmark_data import RECORDED, recorded, write
from caption_data import (
    PICTURES,
    TASKS,
    flickr_rows,
    flickr_tables,
    nocaps_rows,
    nocaps_tables,
    official,
    read,
    whole_tables,
)
from pydantic import TypeAdapter, ValidationError

from benchmarks import flickr30k
from eval import Archive, ByHand, Download, Mirror, Pictures
from eval.data import Examples
from eval.data.verify import verify
from eval.demo.data import write_demo_data
from eval.errors import DataError
from eval.run.requests import render_request


@pytest.mark.parametrize("split", ["val", "test"])
def test_nocaps_mirror_gives_the_official_samples_and_their_pictures(tmp_path, split):
    """Ids, captions, order and image names are equal; a mirror does not tell the domain."""
    nocaps_tables(tmp_path, split, nocaps_rows(split))
    name = f"nocaps_{split}"
    assert recorded(name, groups={}) == read(name, tmp_path)
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


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4])
def test_flickr30k_is_karpathys_test_split_in_every_layout_of_files(tmp_path, number):
    """Two of the four recorded images are test's; each has its own five captions."""
    write(tmp_path, RECORDED["flickr30k_test"]["layouts"][number])
    found = read("flickr30k_test", tmp_path)
    assert recorded("flickr30k_test") == found
    assert [5, 5] == [len(sample.reference) for sample in found]


def test_flickr30k_may_lie_in_either_folder_of_the_authors(tmp_path):
    """Their instructions say data/flickr and their scripts data/flickr30k, or the reverse."""
    files = RECORDED["flickr30k_test"]["layouts"][1]
    write(
        tmp_path, {path.replace("flickr30k/", "flickr/", 1): each for path, each in files.items()}
    )
    assert recorded("flickr30k_test") == read("flickr30k_test", tmp_path)
    (tmp_path / "flickr/flickr30k-images").mkdir()
    expected = "flickr/flickr30k-images/1234567890.jpg"
    assert expected == read("flickr30k_test", tmp_path)[0].fields["image"]
    (tmp_path / "flickr30k/flickr30k-images").mkdir(parents=True)
    assert recorded("flickr30k_test") == read("flickr30k_test", tmp_path)


def test_flickr30k_is_asked_alike_in_a_dialogue():
    """The picture is numbered, as the Chat model was taught; the sentence stays."""
    asked = render_request(TASKS["flickr30k_test"], recorded("flickr30k_test")[1], "chatml")
    expected = (
        "Picture 1: <img>flickr30k/flickr30k-images/42.jpg</img>\nDescribe the image in English:"
    )
    assert expected == asked.prompt


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
    assert recorded("flickr30k_test") == read("flickr30k_test", tmp_path)
    layout = TASKS["flickr30k_test"].layouts[-1]
    assert layout.complete(tmp_path)
    expected = [sample.fields["image"] for sample in recorded("flickr30k_test")]
    assert expected == [path for path, _ in layout.pictures(tmp_path)]


def test_flickr30k_pictures_of_the_training_split_are_its_own(tmp_path):
    """Few-shot examples need them; no picture of test is among them."""
    write(tmp_path, RECORDED["flickr30k_test"]["layouts"][0])
    whole_tables(tmp_path)
    pictures = TASKS["flickr30k_test"].train[-1].pictures
    expected = ["flickr30k/flickr30k-images/555.jpg"]
    assert expected == [path for path, _ in pictures(tmp_path)]
    (tmp_path / flickr30k.OFFICIAL.path).unlink()
    flickr_tables(tmp_path, flickr_rows())
    assert expected == [path for path, _ in pictures(tmp_path)]


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
    shown = render_request(task, recorded("flickr30k_test")[0], examples=found[:1]).prompt
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
    assert expected in verify(TASKS[name], tmp_path).issues


@pytest.mark.parametrize("name", TASKS)
def test_the_split_itself_has_no_fault_but_its_size(tmp_path, name):
    """The per-sample checks let the recorded samples pass; missing pictures are named."""
    write(tmp_path, dict([official(name)]))
    found = verify(TASKS[name], tmp_path, limit=2)
    expected = f"2 of 2 images are missing: {', '.join(s.images[0] for s in recorded(name))}"
    assert (expected,) == found.issues


def test_the_file_for_the_server_holds_a_caption_of_every_image(tmp_path):
    """EvalAI's format: integers and stripped captions, in the order of the images."""
    write(tmp_path, dict([official("nocaps_test")]))
    submission = TASKS["nocaps_test"].submission
    built = submission.build(tmp_path, {"0": "A goat.", "7": " A bus.\n"}, {})
    expected = [{"image_id": 0, "caption": "A goat."}, {"image_id": 7, "caption": "A bus."}]
    assert expected == built
    schema = TypeAdapter(submission.schema)
    assert expected == schema.validate_python(built, strict=True)
    with pytest.raises(ValidationError):
        schema.validate_python([{"image_id": "0", "caption": "A goat."}], strict=True)
    assert ("nocaps_test.json", True) == (submission.file, "challenge 355" in submission.server)


def test_nocaps_server_takes_both_splits_and_alone_knows_test_s_captions():
    """Val's figure is computed here; its file has the same format."""
    served = {name: task.submission for name, task in TASKS.items() if task.submission}
    expected = {"nocaps_val": ("nocaps_val.json", False), "nocaps_test": ("nocaps_test.json", True)}
    assert expected == {name: (each.file, each.alone) for name, each in served.items()}


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


def test_drawn_captions_can_be_shown_as_examples(demo):
    """Six drawn images are Karpathy's training split, each with five captions."""
    found = Examples(TASKS["flickr30k_test"], demo).samples
    asked = {sample.images for sample in TASKS["flickr30k_test"].layout(demo).read(demo)}
    assert (30, 6) == (len(found), len({sample.images for sample in found} - asked))
