"""GQA and ScienceQA: every layout is one benchmark, and what looks like it is not taken for it.

The records are those of golden/prompts; the tables of mirrors are real parquet.
"""

import copy
import hashlib
from pathlib import Path

import datasets
import pytest
from benchmark_data import RECORDED, TEXT, TEXTS, picture, read, recorded, tables, tasks_of, write

from benchmarks import gqa, scienceqa
from eval import Archive, Download, Generate, Mirror, Rank, Sample
from eval.data import Examples
from eval.data.verify import verify
from eval.errors import DataError, UsageError
from eval.run.requests import render_request

TASKS = tasks_of(gqa, scienceqa)
GQA, SCIENCE = TASKS["gqa_testdev"], TASKS["scienceqa_test_img"]
JPEG = b"\xff\xd8\xff"  # how a JPEG begins
PARTS = {  # where the tables of each mirror of ScienceQA lie
    "lmms-lab/ScienceQA": "scienceqa/mirror/ScienceQA-IMG/test-00000-of-00001.parquet",
    "derek-thomas/ScienceQA": "scienceqa/mirror/data/test-00000-of-00001-ad4a.parquet",
}


def files(name, layout=0):
    """A fresh copy of the recorded files of one layout."""
    return copy.deepcopy(RECORDED[name]["layouts"][layout])


def gqa_rows():
    (content,) = files("gqa_testdev").values()
    keep = ("imageId", "question", "answer", "fullAnswer", "isBalanced", "types")
    return [{"id": n, **{name: row[name] for name in keep}} for n, row in content.items()]


def gqa_tables(root, rows, images=("2375429", "n1613")):
    types = dict.fromkeys(("structural", "semantic", "detailed"), TEXT)
    folder = root / "gqa/mirror"
    tables(
        folder / "testdev_balanced_instructions/testdev-00000-of-00001.parquet",
        rows,
        **dict.fromkeys(("id", "imageId", "question", "answer", "fullAnswer"), TEXT),
        isBalanced=datasets.Value("bool"),
        types=types,
    )
    tables(
        folder / "testdev_balanced_images/testdev-00000-of-00001.parquet",
        [{"id": i, "image": {"bytes": JPEG + i.encode(), "path": None}} for i in images],
        id=TEXT,
        image=datasets.Image(),
    )


def science_rows():
    """All problems of the recorded test split, those without an image too, as mirrors have them."""
    problems, splits = files("scienceqa_test_img").values()
    rows = []
    for number in splits["test"]:
        row = dict(problems[number])
        row["image"] = {"bytes": picture("white"), "path": None} if row["image"] else None
        rows.append(row)
    return rows


def science_tables(root, hub, rows):
    columns = ("question", "hint", "task", "grade", "subject", "topic", "category")
    kinds = dict.fromkeys(columns, TEXT)
    kinds |= {"choices": TEXTS, "answer": datasets.Value("int8"), "image": datasets.Image()}
    tables(root / PARTS[hub], [{name: row[name] for name in kinds} for row in rows], **kinds)


def test_gqa_official_layout_tells_the_types(tmp_path):
    """Figures are broken down by structure and meaning of the question."""
    write(tmp_path, files("gqa_testdev"))
    assert recorded("gqa_testdev") == read(GQA, tmp_path)
    expected = [("verify", "global"), ("query", "rel"), ("query", "rel")]
    found = [(s.groups["structural"], s.groups["semantic"]) for s in read(GQA, tmp_path)]
    assert expected == found


def test_gqa_mirror_gives_the_official_samples_and_each_picture_once(tmp_path):
    """Two tables joined by the image's number: ids, questions, types and image names are equal."""
    gqa_tables(tmp_path, gqa_rows())
    assert recorded("gqa_testdev") == read(GQA, tmp_path)
    expected = [(f"gqa/images/{n}.jpg", JPEG + n.encode()) for n in ("2375429", "n1613")]
    assert expected == list(GQA.layout(tmp_path).pictures(tmp_path))


def test_gqa_mirror_needs_both_tables(tmp_path):
    """A question whose image the second table lacks could never be asked."""
    gqa_tables(tmp_path, gqa_rows(), images=("n1613",))
    message = r"row 1 of .*instructions/.*: field 'imageId': one of the second table expected, '23"
    with pytest.raises(DataError, match=message):
        read(GQA, tmp_path)
    (pictures,) = (tmp_path / "gqa/mirror/testdev_balanced_images").iterdir()
    pictures.unlink()
    with pytest.raises(DataError, match=r"found: .*instructions/.*\n.*missing: .*balanced_images"):
        read(GQA, tmp_path)


def test_a_mirror_without_one_of_its_parts_is_refused(tmp_path):
    """Its rows would be missing in silence, and so would those whose picture is."""
    gqa_tables(tmp_path, gqa_rows())
    (table,) = (tmp_path / "gqa/mirror/testdev_balanced_instructions").iterdir()
    table.rename(table.with_name("testdev-00000-of-00002.parquet"))
    with pytest.raises(DataError, match=r"instructions/\*\.parquet: 2 parts expected, 1 found"):
        read(GQA, tmp_path)
    images = tmp_path / "gqa/mirror/testdev_balanced_images/testdev-00000-of-00001.parquet"
    tables(images, [{"id": "n1613", "image": None}], id=TEXT, image=datasets.Image())
    with pytest.raises(DataError, match=r"row 0 of .*: column 'image': a picture expected, none"):
        list(GQA.layout(tmp_path).pictures(tmp_path))


def test_gqa_is_scored_by_its_clean_up():
    """The published figure is of answers from which articles and verbs are cut, also in words."""
    assert ["exact_match"] == list(GQA.metrics)
    metric = GQA.metrics["exact_match"]
    assert (1.0, 1.0, 0.0) == (
        metric("It is a Dog.", "dog"),
        metric("Pizza slice", "slice"),
        metric("Pizza slice", "pizza slice"),
    )
    assert Generate(max_new_tokens=10, min_new_tokens=1) == GQA.decode


@pytest.mark.parametrize("file", ["train_balanced_questions.json", "train", "train_balanced"])
def test_gqa_examples_are_of_the_training_split(tmp_path, file):
    """The instructions and the script name the converted training file differently: both do."""
    official, converted = files("gqa_testdev"), files("gqa_testdev", 1)
    rows = official.popitem()[1] if file.endswith(".json") else converted.popitem()[1]
    write(tmp_path, {f"gqa/{file}" if file.endswith(".json") else f"gqa/{file}.jsonl": rows})
    expected = [(s.id, s.fields | {"answer": s.reference}) for s in recorded("gqa_testdev")]
    found = Examples(GQA, tmp_path).samples
    assert expected == [(sample.id, sample.fields) for sample in found]
    shown = render_request(GQA, recorded("gqa_testdev")[1], examples=found[:1]).prompt
    assert shown.startswith("<img>gqa/images/n1613.jpg</img>Is it overcast? Answer: no<img>gqa/im")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_scienceqa_is_the_questions_with_an_image_in_every_layout_of_files(tmp_path, number):
    """Of the recorded problems one has no image and one is of the training split."""
    write(tmp_path, files("scienceqa_test_img", number))
    found = read(SCIENCE, tmp_path)
    assert ["17", "5"] == [sample.id for sample in found]
    assert [s.fields for s in recorded(SCIENCE.name)] == [s.fields for s in found]
    groups = {"subject": "natural science", "grade": "grade4"} if number == 0 else {}
    assert [groups, groups] == [sample.groups for sample in found]


@pytest.mark.parametrize("hub", PARTS)
def test_scienceqa_mirrors_ask_what_the_official_files_ask(tmp_path, hub):
    """They hold neither the numbers nor the image names; all else is equal, groups too."""
    science_tables(tmp_path, hub, science_rows())
    write(tmp_path / "official", files("scienceqa_test_img"))
    official, found = read(SCIENCE, tmp_path / "official"), read(SCIENCE, tmp_path)
    name = f"scienceqa/mirror/{hashlib.sha256(picture('white')).hexdigest()[:16]}.png"
    expected = [
        Sample(f"row-{n}", {**s.fields, "image": name}, s.reference, s.options, s.groups)
        for n, s in enumerate(official)
    ]
    assert expected == found
    assert [(name, picture("white"))] == list(SCIENCE.layout(tmp_path).pictures(tmp_path))


def test_scienceqa_all_questions_in_a_mirror_are_passed_over(tmp_path):
    """lmms-lab's configuration with all 4,241 questions is another benchmark."""
    science_tables(tmp_path, "lmms-lab/ScienceQA", science_rows())
    path = tmp_path / PARTS["lmms-lab/ScienceQA"]
    path.parent.rename(path.parent.with_name("ScienceQA-FULL"))
    assert not SCIENCE.has_data(tmp_path)


def test_scienceqa_ranks_as_many_letters_as_there_are_choices():
    """Nothing is generated: a space and a letter are appended; without the space in a dialogue."""
    two, five = recorded("scienceqa_test_img")
    assert Rank((" A", " B")) == render_request(SCIENCE, two).decode
    assert Rank((" A", " B", " C", " D", " E")) == render_request(SCIENCE, five).decode
    asked = render_request(SCIENCE, two, "chatml")
    expected = (
        "Picture 1: <img>scienceqa/images/test/17/image.png</img>\nContext: N/A\n"
        "Question: Which is magnetic?\nOptions: A. a nail\nB. a cup\nAnswer:"
    )
    assert (expected, Rank(("A", "B"))) == (asked.prompt, asked.decode)
    with pytest.raises(UsageError, match="has no training split"):
        SCIENCE.examples(Path())


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (GQA, ["samples: 12,578 expected, 3 found", "images: 398 expected, 2 found"]),
        (SCIENCE, ["samples: 2,017 expected, 2 found"]),
    ],
    ids=["gqa", "scienceqa"],
)
def test_what_only_looks_like_the_split_is_told(tmp_path, task, expected):
    """Each expectation has its own line; the pictures that are missing follow."""
    write(tmp_path, files(task.name))
    *found, missing = verify(task, tmp_path).issues
    assert expected == found
    assert missing.startswith("2 of 2 images are missing: ")


def test_scienceqa_pictures_that_stand_twice_are_no_fault(tmp_path):
    """In a mirror equal pictures are one file, so the number of files tells nothing."""
    science_tables(tmp_path, "lmms-lab/ScienceQA", science_rows())
    found = verify(SCIENCE, tmp_path)
    assert (2, 1) == (found.samples, found.images)
    assert not [fault for fault in found.issues if fault.startswith("images:")]


def question(**change):
    return lambda content: content["gqa/testdev_balanced_questions.json"]["20123"].update(change)


def line(**change):
    return lambda content: content["gqa/testdev_balanced.jsonl"][0].update(change)


def problem(**change):
    return lambda content: content["scienceqa/problems.json"]["17"].update(change)


def split(*numbers):
    return lambda content: content["scienceqa/pid_splits.json"].update(test=list(numbers))


def converted(**change):
    return lambda content: content["scienceqa/scienceqa_test_img.jsonl"][0].update(change)


@pytest.mark.parametrize(
    ("task", "layout", "change", "message"),
    [
        (GQA, 0, question(isBalanced=False),
         r"20123 in .*questions\.json: field 'isBalanced': true expected.*file that of all quest"),
        (GQA, 0, lambda c: c["gqa/testdev_balanced_questions.json"]["20123"].pop("isBalanced"),
         "field 'isBalanced': true expected"),
        (GQA, 0, lambda c: c["gqa/testdev_balanced_questions.json"]["20123"].pop("answer"),
         "field 'answer': a string expected, nothing found"),  # as in the balanced test file
        (GQA, 0, question(imageId="../n1"), "field 'imageId': a string like"),
        (GQA, 0, question(imageId=1613), "field 'imageId': a string expected, 1613 found"),
        (GQA, 0, question(types="verify"), r"types in 20123 in .*: an object expected"),
        (GQA, 0, question(types={"semantic": 3}), "field 'semantic': a string expected"),
        (GQA, 0, lambda c: c["gqa/testdev_balanced_questions.json"].update(x=[]),
         r"x in .*questions\.json: an object expected, a list of 0 found"),
        (GQA, 1, line(image="data/gqa/../n1.jpg"),
         r"line 1 of .*balanced\.jsonl: field 'image': a relative path"),
        (GQA, 1, line(image="data/gqa/n1613.jpg"), "a path that ends like images/"),
        (GQA, 1, line(question_id="20124"), "'20124' found again"),
        (GQA, 1, line(question_id=None), "field 'question_id': an identifier expected"),
        (SCIENCE, 0, problem(answer=2),
         r"17 in .*problems\.json: field 'answer': below 2 expected, 2 found"),
        (SCIENCE, 0, problem(answer=-1), "field 'answer': an integer from 0 expected, -1 found"),
        (SCIENCE, 0, problem(choices=list("abcdef")),
         "field 'choices': 2 to 5 expected, 6 found"),
        (SCIENCE, 0, problem(choices=["a"]), "field 'choices': 2 to 5 expected, 1 found"),
        (SCIENCE, 0, problem(choices=["a", 2]), "field 'choices': a list of strings expected"),
        (SCIENCE, 0, problem(image="../x.png"), "field 'image': a string like"),
        (SCIENCE, 0, problem(hint=3), "field 'hint': a string expected, 3 found"),
        (SCIENCE, 0, split("../17"), "field 'test': a list of strings like"),
        (SCIENCE, 0, split("17", "17"), "'17' found again at sample 1"),
        (SCIENCE, 0, split("18"), r"18 in .*problems\.json: an object expected, nothing found"),
        (SCIENCE, 1, converted(image="17.png"),
         r"line 1 of .*test_img\.jsonl: field 'image': a path that ends like images/test/"),
        (SCIENCE, 1, converted(answer="A"), "field 'answer': an integer from 0 expected, 'A'"),
    ],
)  # fmt: skip
def test_a_wrong_record_is_an_error_that_names_it(tmp_path, task, layout, change, message):
    """File, record, field, what was expected and what was found."""
    content = files(task.name, layout)
    change(content)
    write(tmp_path, content)
    with pytest.raises(DataError, match=message):
        read(task, tmp_path)


def test_a_wrong_row_of_a_mirror_is_an_error_that_names_it(tmp_path):
    """Tables are checked like files: the number of the row stands in the message."""
    rows = gqa_rows()
    rows[2]["isBalanced"] = False
    gqa_tables(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 2 of .*instructions/.*: field 'isBalanced'"):
        read(GQA, tmp_path)
    rows = science_rows()
    rows[1]["answer"] = 2
    science_tables(tmp_path, "derek-thomas/ScienceQA", rows)
    with pytest.raises(DataError, match=r"row 1 of .*data/test-.*: field 'answer': below 2"):
        read(SCIENCE, tmp_path)
    rows[1] = science_rows()[1] | {"image": {"bytes": b"GIF89a", "path": None}}
    science_tables(tmp_path, "derek-thomas/ScienceQA", rows)
    with pytest.raises(DataError, match=r"row 1 of .*: a PNG or JPEG picture expected, b'GIF89a'"):
        read(SCIENCE, tmp_path)


def test_the_steps_lead_to_the_files_that_are_read():
    """What is fetched lies where a layout looks for it."""
    questions, images, mirror = GQA.steps
    assert (Archive, Archive, Mirror) == (type(questions), type(images), type(mirror))
    expected = [source.path for source in SCIENCE.layouts[0].sources]
    assert expected == [step.path for step in SCIENCE.steps if isinstance(step, Download)]
    for task, path in (
        (GQA, "testdev_balanced_images/testdev-00000-of-00001.parquet"),
        (GQA, "testdev_balanced_instructions/testdev-00000-of-00001.parquet"),
        (SCIENCE, "ScienceQA-IMG/test-00000-of-00001.parquet"),
    ):
        wanted = task.steps[-1]
        assert Path(path).match(wanted.files)
        fetched = Path(wanted.into) / path
        sources = [s.path for each in task.layouts if each.name == "mirror" for s in each.sources]
        assert any(fetched.match(source.replace("**/", "")) for source in sources)
