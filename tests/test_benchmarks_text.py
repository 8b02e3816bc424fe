"""DocVQA, ChartQA, AI2D and OCR-VQA: every layout is one benchmark, asked as published."""

import json
import re
import shutil
from pathlib import Path

import pytest
from benchmark_data import RECORDED, SAMPLES, picture, place, read, real, recorded, write
from pydantic import TypeAdapter, ValidationError
from text_data import (
    CASES,
    CHARTS,
    TASKS,
    ai2d_tables,
    chartqa_tables,
    docvqa_tables,
    first,
    ocrvqa_tables,
)

from benchmarks import ai2d, ocrvqa
from eval import ByHand, Generate, Mirror
from eval.data import read_predictions
from eval.data.mirrors import digest_name, distinct
from eval.data.records import Record
from eval.data.verify import verify
from eval.demo.data import SIZES, write_demo_data
from eval.errors import DataError
from eval.run.requests import render_request


@pytest.mark.parametrize(("name", "number"), CASES)
def test_every_layout_of_files_gives_the_recorded_samples(tmp_path, name, number):
    """The official files, later ones and the converted ones are one benchmark, record by record."""
    write(tmp_path, RECORDED[name]["layouts"][number])
    layout = TASKS[name].layout(tmp_path)
    assert layout.complete(tmp_path)
    assert recorded(name) == read(TASKS[name], tmp_path)


@pytest.mark.parametrize("name", TASKS)
def test_every_layout_but_the_mirrors_is_recorded(name):
    """A layout without golden data would be read by nobody before a user does."""
    files = [layout for layout in TASKS[name].layouts if layout.name != "mirror"]
    assert len(RECORDED[name]["layouts"]) == len(files)
    for layout, written in zip(files, RECORDED[name]["layouts"], strict=True):
        for source in layout.sources:
            assert any(Path(path).match(source.path) for path in written)


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_the_published_ones(name):
    """Byte for byte, in both protocols; the question stands as it is, braces and line feeds too."""
    first, *_ = recorded(name)
    task, image, question = TASKS[name], first.fields["image"], first.fields["question"]
    assert RECORDED[name]["prompt"] == render_request(task, first).prompt
    assert f"<img>{image}</img>{question} Answer:" == render_request(task, first).prompt
    chat = render_request(task, first, "chatml")
    assert (True, f"Picture 1: <img>{image}</img>\n{question}") == (chat.chat, chat.prompt)


def test_the_tasks_are_those_of_the_card():
    """Sizes, images, new tokens and metrics, as the published scripts and the sites have them."""
    relaxed = ["relaxed_accuracy", "relaxed_accuracy_official"]
    expected = {
        "docvqa_val": (5349, 1286, Generate(100, 1), ["anls"]),
        "docvqa_test": (5188, 1287, Generate(100, 1), ["anls"]),
        "chartqa_test_human": (1250, 625, Generate(100, 1), relaxed),
        "chartqa_test_augmented": (1250, 987, Generate(100, 1), relaxed),
        "ai2d_test": (3088, 982, Generate(10, 1), ["exact_match"]),
        "ai2d_test_lettered": (3088, None, Generate(10, 1), ["exact_match"]),
        "ocrvqa_val": (None, 20731, Generate(100, 1), ["exact_match"]),
        "ocrvqa_test": (None, 20796, Generate(100, 1), ["exact_match"]),
    }
    actual = {n: (t.size, t.expect.images, t.decode, list(t.metrics)) for n, t in TASKS.items()}
    assert expected == actual
    assert ["docvqa_test"] == [name for name, task in TASKS.items() if task.submission]


def test_chartqa_is_scored_by_both_rules():
    """A true 100 and an answer of 105.2: 5 % of the answer are enough, 5 % of the truth are not."""
    metrics = TASKS["chartqa_test_human"].metrics
    assert [1.0, 0.0] == [metric("105.2", "100") for metric in metrics.values()]


def test_docvqa_answers_are_scored_without_the_space_that_the_model_begins_with():
    """ANLS divides by the raw length, so space around "abc" would bring it nearer to "xyc"."""
    metric = TASKS["docvqa_val"].metrics["anls"]
    assert metric("abcd", ["abxy"]) == metric("  abcd\n", ["abxy"]) == 0.5
    assert metric("abc", ["xyc"]) == metric("  abc  ", ["xyc"]) == 0.0


def test_a_converted_docvqa_answer_may_be_a_string(tmp_path):
    """A question with one answer gives the same sample, whichever way its answer is written."""
    files, record = first("docvqa_val", 2)
    record["answer"] = "May 3"
    write(tmp_path, files)
    assert ["May 3"] == read(TASKS["docvqa_val"], tmp_path)[0].reference


@pytest.mark.parametrize("split", ["val", "test"])
def test_docvqa_mirror_gives_the_official_records_and_pages(tmp_path, split):
    """Numbers are strings there and the page's name is not told, but follows from two columns."""
    pages = docvqa_tables(tmp_path, split)
    task = TASKS[f"docvqa_{split}"]
    (layout,) = [each for each in task.layouts if each.complete(tmp_path)]
    actual = read(task, tmp_path)
    groups = {"question_type": "form + layout"} if split == "val" else {}
    for sample, expected in zip(actual, recorded(task.name), strict=True):
        assert (expected.id, expected.fields) == (sample.id, sample.fields)
        assert (expected.reference, groups) == (sample.reference, sample.groups)
    found = list(layout.pictures(tmp_path))
    assert pages == dict(found)
    assert len(found) == 2  # each page once, though three questions have one


@pytest.mark.parametrize("hub", ["lmms", "m4"])
@pytest.mark.parametrize("half", ["human", "augmented"])
def test_chartqa_mirrors_give_the_official_records(tmp_path, half, hub):
    """Each half's rows keep their order; charts are named by their bytes, each once."""
    charts = chartqa_tables(tmp_path, hub)
    task = TASKS[f"chartqa_test_{half}"]
    (layout,) = [each for each in task.layouts if each.complete(tmp_path)]
    pictures = list(layout.pictures(tmp_path))
    assert len(pictures) == len(set(charts.values())) == len(dict(pictures))
    found = dict(pictures)
    for sample, expected in zip(read(task, tmp_path), recorded(task.name), strict=True):
        assert (expected.id, expected.reference) == (sample.id, sample.reference)
        assert expected.fields["question"] == sample.fields["question"]
        assert charts[Path(expected.images[0]).name] == found[sample.images[0]]


def test_ai2d_mirror_gives_the_official_records_with_letters(tmp_path):
    """The options are glued as in the published file; the answer is an option, not its number."""
    images = ai2d_tables(tmp_path)
    task = TASKS["ai2d_test_lettered"]
    (layout,) = [each for each in task.layouts if each.complete(tmp_path)]
    pictures = dict(layout.pictures(tmp_path))
    samples = read(task, tmp_path)
    for sample, expected in zip(samples, recorded(task.name), strict=True):
        assert (expected.id, expected.reference) == (sample.id, sample.reference)
        assert expected.fields["question"] == sample.fields["question"]
    assert images == [pictures[sample.images[0]] for sample in samples]
    assert [".png", ".jpg"] == [Path(sample.images[0]).suffix for sample in samples]
    assert not TASKS["ai2d_test"].has_data(tmp_path)  # the mirror has no original diagrams


@pytest.mark.parametrize("split", ["val", "test"])
def test_ocrvqa_mirror_gives_the_official_records_and_covers(tmp_path, split):
    """A row for each cover, under the name that the official downloader would save it by."""
    covers = ocrvqa_tables(tmp_path, split)
    task = TASKS[f"ocrvqa_{split}"]
    (layout,) = [each for each in task.layouts if each.complete(tmp_path)]
    assert recorded(task.name) == read(task, tmp_path)
    assert covers == dict(layout.pictures(tmp_path))


def test_equal_pictures_of_a_mirror_have_one_name():
    """The name is that of the bytes; what is neither PNG nor JPEG is not given a wrong ending."""
    row = Record({}, "row 0 of x")
    red, blue = picture("red"), picture("blue", kind="JPEG")
    names = [digest_name("x/mirror", row, each) for each in (red, blue, red)]
    assert names[0] == names[2] == "x/mirror/" + names[0][-20:-4] + ".png"
    assert names[1].endswith(".jpg")
    pairs = list(zip(names, (red, blue, b"later"), strict=True))
    assert pairs[:2] == list(distinct(pairs))
    with pytest.raises(DataError, match="row 0 of x: a PNG or JPEG picture expected, b'GIF89a'"):
        digest_name("x/mirror", row, b"GIF89a")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_docvqa_pages_lie_in_the_package_that_is_there(tmp_path, number):
    """The later package has all splits' pages in one folder; either goes with any questions."""
    write(tmp_path, RECORDED["docvqa_val"]["layouts"][number])
    (tmp_path / "docvqa/spdocvqa_images").mkdir(parents=True)
    task = TASKS["docvqa_val"]
    assert read(task, tmp_path)[0].images == ("docvqa/spdocvqa_images/abcd0001_3.png",)
    (tmp_path / "docvqa/val/documents").mkdir(parents=True)
    assert read(task, tmp_path)[0].images == ("docvqa/val/documents/abcd0001_3.png",)


def test_docvqa_tells_types_of_question_where_the_file_does(tmp_path):
    """Those of one question are joined in one order, so that figures add up to the whole."""
    files, record = first("docvqa_val", 1)
    record["question_types"] = ["table/list", "form"]
    write(tmp_path, files)
    expected = [{"question_type": "form + table/list"}, {}, {}]
    assert expected == [sample.groups for sample in read(TASKS["docvqa_val"], tmp_path)]


def test_ai2d_tells_questions_that_speak_of_letters(tmp_path):
    """They are what the card's figure and one with letters differ in."""
    write(tmp_path, RECORDED["ai2d_test_lettered"]["layouts"][0])
    expected = [{"abc_label": "yes"}, {"abc_label": "no"}]
    for name in ("ai2d_test", "ai2d_test_lettered"):
        assert expected == [sample.groups for sample in read(TASKS[name], tmp_path)]


@pytest.mark.parametrize("name", TASKS)
def test_few_shot_examples_come_from_the_training_split(tmp_path, name):
    """Their samples hold the answer to be shown; none of them is of the split that is asked."""
    page = {"image": "documents/abcd0001_3.png", "data_split": "train"}
    answers = ["3 May", "May 3", "May 3", "3 May"]  # as frequent: the first is shown
    write(
        tmp_path,
        {
            **RECORDED["ai2d_test_lettered"]["layouts"][0],
            **RECORDED["ocrvqa_test"]["layouts"][0],
            "docvqa/train/train_v1.0.json": {
                "data": [{"questionId": 1, "question": "When?", "answers": answers, **page}]
            },
            **{
                f"chartqa/ChartQA Dataset/train/train_{half}.json": [
                    {"imgname": "1.png", "query": f"A {half} chart?", "label": "Yes"}
                ]
                for half in ("human", "augmented")
            },
        },
    )
    task = TASKS[name]
    expected = {
        "docvqa": "<img>docvqa/train/documents/abcd0001_3.png</img>When? Answer: 3 May",
        "chartqa": f"<img>chartqa/ChartQA Dataset/train/png/1.png</img>A {name[13:]} chart? "
        "Answer: Yes",
        "ai2d": "<img>ai2d/images/13.png</img>Not of the test split?a\nb\nc\nd Answer: a",
        "ocrvqa": "<img>ocrvqa/images/2222222222.jpg</img>What is the title of this book? "
        "Answer: T",
    }[task.benchmark]
    (example,) = task.examples(tmp_path).read(tmp_path)
    asked = recorded(name)[0]
    assert (
        expected + render_request(task, asked).prompt
        == render_request(task, asked, examples=[example]).prompt
    )


@pytest.mark.parametrize("name", TASKS)
def test_mirrors_are_fetched_to_where_a_layout_reads_them(tmp_path, name):
    """What the step names, at the place it names, completes the layout; else it is fetched idly."""
    task = TASKS[name]
    for step in (step for step in task.steps if isinstance(step, Mirror)):
        assert step.repos[-1] in "".join(s.origin for each in task.layouts for s in each.sources)
        path = f"{step.into}/{step.files}".replace("**", "data").replace("-*", "-0-of-1")
        write(tmp_path, {path: b""})
        assert ["mirror"] == [each.name for each in task.layouts if each.complete(tmp_path)]
    for step in (step for step in task.steps if isinstance(step, ByHand)):
        assert step.where.startswith("https://")


def test_cover_urls_are_of_the_split_and_of_the_web(tmp_path):
    """Saved by the cover's key, as the official downloader does; no other scheme is opened."""
    files, record = first("ocrvqa_test", 0)
    write(tmp_path, files)
    expected = [
        ("http://images.invalid/I/51x.jpg", "ocrvqa/images/0123456789.jpg"),
        ("http://images.invalid/I/53x.gif", "ocrvqa/images/014214141X.gif"),
    ]
    assert expected == list(ocrvqa.cover_urls("test", tmp_path))
    record["imageURL"] = "file:///etc/passwd.jpg"
    write(tmp_path, files)
    with pytest.raises(DataError, match="field 'imageURL': a string like"):
        list(ocrvqa.cover_urls("test", tmp_path))


def test_docvqa_submission_answers_every_question_in_order(tmp_path):
    """Numbers, not strings, and stripped answers; an empty answer is one."""
    write(tmp_path, RECORDED["docvqa_test"]["layouts"][0])
    task = TASKS["docvqa_test"]
    answers = {"101": " May 3", "57": "", "102": " A. Writer\n"}
    expected = [
        {"questionId": 101, "answer": "May 3"},
        {"questionId": 57, "answer": ""},
        {"questionId": 102, "answer": "A. Writer"},
    ]
    found = task.submission.build(tmp_path, answers, {})
    assert expected == found
    schema = TypeAdapter(task.submission.schema)
    assert expected == schema.validate_python(found, strict=True)
    with pytest.raises(ValidationError):
        schema.validate_python([{"questionId": "101", "answer": "May 3"}], strict=True)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(folder)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_the_demo_is_read_by_the_official_layout(demo, name):
    """As many samples as planned, and pictures that are there."""
    task = TASKS[name]
    assert task.layout(demo) is task.layouts[0]
    found = verify(task, demo)
    assert SIZES[name] == found.samples
    assert not [fault for fault in found.issues if "missing" in fault or "not of" in fault]
    samples = read(task, demo)
    assert samples == read(task, demo)
    if name == "docvqa_test":
        assert {None} == {sample.reference for sample in samples}
    else:
        assert all(sample.reference for sample in samples)


@real
@pytest.mark.parametrize(
    ("model", "expected"), [("qwen2_vl_7b_instruct", 92.7868), ("llama_maverick", 93.8518)]
)
def test_real_docvqa_answers_score_as_computed_by_the_reference(tmp_path, model, expected):
    """200 real questions, two models' answers, and the scores that the reference scorer gave."""
    place(tmp_path, "docvqa/val_v1.0_subset.json", "docvqa/val/val_v1.0.json")
    task = TASKS["docvqa_val"]
    samples = read(task, tmp_path)
    predicted = dict(read_predictions(SAMPLES / f"docvqa/predictions_{model}.json"))
    scores = [task.metrics["anls"](predicted[each.id], each.reference) for each in samples]
    assert len(scores) == 200
    assert pytest.approx(expected, abs=5e-5) == 100 * sum(scores) / len(scores)


@real
@pytest.mark.parametrize(("half", "size"), [("human", 40), ("augmented", 22)])
def test_real_charts_are_read(tmp_path, half, size):
    """Real questions, whose charts are all there."""
    target = tmp_path / CHARTS
    shutil.copytree(SAMPLES / "chartqa/test", target)
    task = TASKS[f"chartqa_test_{half}"]
    samples = read(task, tmp_path)
    rows = json.loads((SAMPLES / f"chartqa/test/test_{half}.json").read_text("utf-8"))
    assert size == len(samples) == len(rows)
    expected = [(row["query"], row["label"]) for row in rows]
    assert expected == [(each.fields["question"], each.reference) for each in samples]
    for sample in samples:
        assert (tmp_path / sample.images[0]).is_file()


@real
def test_real_ai2d_records_agree_with_anothers_copy(tmp_path):
    """217 real questions: options and answers are those that another project asks by letter."""
    files = sorted((SAMPLES / "ai2d/questions").iterdir())
    for path in files:
        place(tmp_path, f"ai2d/questions/{path.name}", f"ai2d/questions/{path.name}")
    ids = "".join(f"{path.name.removesuffix('.json')}\n" for path in files)
    write(tmp_path, {"ai2d/ai2d_test_ids.csv": ids.encode()})
    found = {}
    for sample in read(TASKS["ai2d_test"], tmp_path):
        assert TASKS["ai2d_test"].expect.each(sample) is None
        lines = sample.fields["question"].split("\n")
        found[Path(sample.images[0]).name, "\n".join(lines)] = sample.reference
    assert len(found) == 217
    lines = (SAMPLES / "ai2d/test_subset.jsonl").read_text("utf-8").splitlines()
    matched = 0
    for row in map(json.loads, lines):
        question, _, rest = row["question"].removeprefix("Question: ").partition("\nOptions: ")
        options = re.split("(?:^| )[A-D][.] ", rest)[1:]
        key = Path(row["image"]).name, question + "\n".join(options)
        assert options["ABCD".index(row["answer"])] == found[key]
        matched += 1
    assert matched == 217


@real
def test_anothers_ai2d_file_is_not_taken_for_the_converted_one(tmp_path):
    """It is read, its questions numbered as it has no ids; but letters are another protocol."""
    place(tmp_path, "ai2d/test_subset.jsonl", ai2d.CONVERTED.path)
    samples = read(TASKS["ai2d_test"], tmp_path)
    assert [str(number) for number in range(217)] == [each.id for each in samples]
    (fault,) = (f for f in verify(TASKS["ai2d_test"], tmp_path).issues if "this split" in f)
    assert fault.startswith("217 samples are not of this split: sample 0: 4 options expected")


@real
def test_real_books_are_read(tmp_path):
    """30 questions on 20 books, told apart by split."""
    place(tmp_path, "ocrvqa/dataset.json", "ocrvqa/dataset.json")
    books = json.loads((SAMPLES / "ocrvqa/dataset.json").read_text("utf-8"))
    for name, number in (("ocrvqa_val", 2), ("ocrvqa_test", 3)):
        expected = [
            (f"{key}_{n}", question, answer)
            for key, book in books.items()
            if book["split"] == number
            for n, (question, answer) in enumerate(
                zip(book["questions"], book["answers"], strict=True)
            )
        ]
        samples = read(TASKS[name], tmp_path)
        assert expected == [(s.id, s.fields["question"], s.reference) for s in samples]
    assert sum(len(book["questions"]) for book in books.values()) == 30
