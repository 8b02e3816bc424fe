"""The sample browser's files, without a browser: what they say, how large they grow, and that
nothing in them runs.
"""

import json
import random
import re
from itertools import pairwise
from types import SimpleNamespace

import orjson
import pytest
from PIL import Image
from typer.testing import CliRunner

from eval.api import Generate, Prediction, Rank
from eval.cli.main import app
from eval.data.declare import Corpus, Layout, Sample, Source, Task
from eval.data.records import MAX_ID_CHARACTERS
from eval.demo.data import demo_seeds
from eval.demo.referring import draw_refcoco
from eval.demo.writer import Writer
from eval.errors import DataError, RunError, UsageError
from eval.metrics.box import box_accuracy, has_box
from eval.metrics.exact import exact_match
from eval.plugins import find_tasks
from eval.report.browser import COPY, build_browser
from eval.report.browser.pages import AT_ONCE, LARGEST, LONGEST, write_task
from eval.report.browser.pictures import PagePictures
from eval.report.browser.rows import AnswerView, SampleView
from eval.run.files import PREDICTIONS
from eval.run.folder import RunFolder
from eval.run.journal import line
from eval.run.spec import Spec, spec_entry
from eval.scoring.score import score_run

STATEMENT = re.compile(r'\(window\.parts \?\?= \{\}\)\["([^"]+)"\] = (.*);\n', re.DOTALL)
LONG = "x" * 100_000
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '"><svg onload="window.hacked = 1">',
    "'; window.hacked = 1; //",
    "`${window.hacked = 1}`",
    '\\"; window.hacked = 1 //',
    "<!--<script>",
    "]]> --> */ {{7*7}} {% raw %}",
    "javascript:window.hacked=1",
    "\u202edesrever\u202c \u2066isolated\u2069 \u200f\u05d0\u05d1 \u0645\u0631\u062d\u0628\u0627",
    "line\u2028separator\u2029paragraph\x85next",
    "\x00\x01\x1b[31m\x7f\ufeff\ufffe",
    "Z\u0351\u036b\u0343\u036aa\u0363\u0348l\u0361g\u035fo" * 40,
    "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea",
    "__proto__",
    "",
    "   \n\n\t ",
    LONG,
    "<b>" * 33_334,
    "\u202e" * 100_000,
)


def read(file):
    """The name and the value that a script puts into the page's store."""
    content = file.read_text(encoding="utf-8")
    match = STATEMENT.fullmatch(content)
    assert match, content[:200]
    return match[1], json.loads(match[2])


def make_task(samples, name="shapes_val", **options):
    """A task whose samples are these."""
    settings = {
        "prompt": "<img>{image}</img>{question}",
        "decode": Generate(10),
        "metrics": {"exact_match": exact_match},
    }
    layout = Layout((Source("shapes.json"),), lambda root: iter(samples))
    return Task(name, None, (layout,), **settings | options)


def make_data(folder, paths=("a.png",), size=(200, 100)):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (128, 128, 128)).save(folder / path)
    (folder / "shapes.json").write_text("{}")
    return folder


def make_run(folder, data, answers, *, scored=True, asked=None):
    """A run of some tasks. answers: [(task, predictions)], each a text or a Prediction."""
    manifest = {
        "name": folder.name,
        "model": {"checkpoint": "none", "digest": "0" * 64, "dtype": "float32"},
        "tasks": {task.name: spec_entry(task, data, asked or Spec()) for task, _ in answers},
        "data": str(data),
    }
    run = RunFolder.start(folder, manifest)
    for task, texts in answers:
        samples = list(task.layout(data).read(data))
        (folder / task.name).mkdir()
        with (folder / task.name / PREDICTIONS).open("wb") as file:
            for sample, text in zip(samples, texts, strict=False):
                answer = text if isinstance(text, Prediction) else Prediction(sample.id, text)
                file.write(line(answer, "", losses=True))
        if scored:
            score_run(run, task, data)
    return run


def question(number, text="What is it?", reference="cat", image="a.png", **groups):
    return Sample(str(number), {"image": image, "question": text}, reference, groups=groups)


def synthetic(count, seed=0):
    """Rows of two runs as a benchmark of this size has them."""
    draw = random.Random(seed)
    words = ["what", "color", "is", "the", "bus", "dog", "number", "on", "left", "sign"]
    for n in range(count):
        values = [float(draw.random() < 0.6) for _ in range(2)]
        answers = tuple(AnswerView(draw.choice(words), values={"vqa_accuracy": v}) for v in values)
        yield SampleView(
            str(n * 10 + 262144000),
            (("question", f"{' '.join(draw.choices(words, k=7))}?"),),
            f"<img>coco/val2014/COCO_val2014_{n // 3:012d}.jpg</img>What is it? Answer:",
            (f"coco/val2014/COCO_val2014_{n // 3:012d}.jpg",),
            ((draw.choice(words), 7), (draw.choice(words), 3)),
            (),
            {"answer_type": draw.choice(["yes/no", "number", "other"])},
            None,
            answers,
        )


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """RefCOCO as the demo draws it, and a run that answers every other sample rightly."""
    data = tmp_path_factory.mktemp("data")
    draw_refcoco(Writer(data, demo_seeds(0)), "val")
    (task,) = find_tasks(["refcoco_val"])
    texts = []
    for n, sample in enumerate(task.layout(data).read(data)):
        width, height = sample.reference["width"], sample.reference["height"]
        x1, y1, x2, y2 = sample.reference["box"]
        grid = [round(999 * part) for part in (x1 / width, y1 / height, x2 / width, y2 / height)]
        texts.append("({},{}),({},{})".format(*grid) if n % 2 == 0 else "(0,0),(9,9)")
    run = make_run(tmp_path_factory.mktemp("runs") / "boxes", data, [(task, texts)])
    return SimpleNamespace(data=data, task=task, run=run)


def test_a_box_lies_where_the_benchmark_and_the_answer_say(demo, tmp_path):
    """True boxes are the reference's pixels, predicted ones the text's grid, in parts of sides."""
    build_browser([demo.run], [demo.task], demo.data, tmp_path / "out")
    name, rows = read(tmp_path / "out/data/refcoco_val/chunk-0000.js")
    samples = list(demo.task.layout(demo.data).read(demo.data))
    assert "refcoco_val/0" == name
    assert len(samples) == len(rows)
    for n, (sample, row) in enumerate(zip(samples, rows, strict=True)):
        reference = sample.reference
        sides = [reference["width"], reference["height"]] * 2
        true = [side / of for side, of in zip(reference["box"], sides, strict=True)]
        assert pytest.approx(true, abs=1e-6) == row["box"]
        (answer,) = row["answers"]
        corners = [int(part) / 999 for part in re.findall(r"\d+", answer["text"])]
        assert pytest.approx(corners, abs=1e-6) == answer["box"]
        assert ([1.0] if n % 2 == 0 else [0.0]) == answer["values"]
        assert (answer["iou"] > 0.9) == (n % 2 == 0)
        x1, y1, x2, y2 = reference["box"]
        said = f"({x1:g},{y1:g}),({x2:g},{y2:g}) in {sides[0]:g} x {sides[1]:g} pixels"
        assert [[said, 1]] == row["references"]


def test_only_tasks_about_boxes_have_boxes(tmp_path):
    """An answer to a question that looks like a box is a text; without a reference it still is one
    where the task asks for boxes.
    """
    data = make_data(tmp_path / "data")
    text = "(0,0),(999,500)"
    plain = make_task([question(0)])
    grit = make_task([question(0, reference=None)], "grit_val", readable=has_box)
    run = make_run(tmp_path / "run", data, [(plain, [text]), (grit, [text])])
    build_browser([run], [plain, grit], data, tmp_path / "out")
    (answer,) = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1][0]["answers"]
    assert {"text": text, "values": [0.0]} == answer
    (answer,) = read(tmp_path / "out/data/grit_val/chunk-0000.js")[1][0]["answers"]
    assert {"text": text, "box": [0.0, 0.0, 1.0, 0.500501]} == answer


@pytest.mark.parametrize("text", ["(nan,0),(1,1)", "(inf,0),(5,5)", "no box", "(1,2),(3)"])
def test_what_cannot_be_drawn_is_no_box(tmp_path, text):
    """Corners that are no finite numbers are shown as text only, and JSON stays JSON."""
    data = make_data(tmp_path / "data")
    reference = {"box": [20.0, 10.0, 120.0, 60.0], "width": 200, "height": 100}
    task = make_task([question(0, reference=reference)], metrics={"accuracy": box_accuracy})
    run = make_run(tmp_path / "run", data, [(task, [text])])
    build_browser([run], [task], data, tmp_path / "out")
    row = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1][0]
    assert [0.1, 0.1, 0.6, 0.6] == row["box"]
    assert "box" not in row["answers"][0]


def test_two_runs_lie_side_by_side(tmp_path):
    """Each value under its run; None where a run has none, for it failed or was not asked."""
    data = make_data(tmp_path / "data")
    samples = [question(n, kind="even" if n % 2 == 0 else "odd") for n in range(4)]
    task, other = make_task(samples), make_task(samples[:1], "more_val")
    base = make_run(tmp_path / "base", data, [(task, ["cat", "dog", "cat", "cat"])])
    broken = Prediction("1", "", error="unreadable image")
    candidate = make_run(
        tmp_path / "candidate",
        data,
        [(task, ["dog", broken]), (other, ["cat"])],
        asked=Spec(limit=2),
    )
    build_browser([base, candidate], [task, other], data, tmp_path / "out")
    _, index = read(tmp_path / "out/data/shapes_val/index.js")
    assert ["0", "1", "2", "3"] == index["ids"]
    assert [[1.0, 0.0, 1.0, 1.0], [0.0, None, None, None]] == index["values"]
    assert [["kind", ["even", "odd"], [0, 1, 0, 1]]] == index["groups"]
    rows = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1]
    assert {"error": "unreadable image"} == rows[1]["answers"][1]
    assert rows[2]["answers"][1] is None
    _, head = read(tmp_path / "out/data/tasks.js")
    assert ["base", "candidate"] == head["runs"]
    first, second = head["tasks"]
    assert ["limits"] == first["differ"]
    assert ["published", "published"] == first["protocols"]
    assert ["", "published"] == second["protocols"]
    assert [[None], [1.0]] == read(tmp_path / "out/data/more_val/index.js")[1]["values"]


def test_references_come_from_the_data_and_never_from_a_run(tmp_path):
    """They are the benchmark's files'; a run whose scores claim others is refused."""
    data = make_data(tmp_path / "data")
    humans = ["no"] * 9 + ["yes"]
    task = make_task([question(0, reference=humans)], metrics={"any": lambda text, r: 1.0})
    run = make_run(tmp_path / "run", data, [(task, ["yes"])])
    scores = run.path / task.name / "scores.jsonl"
    whole = scores.read_text()
    scores.write_text(json.dumps({**json.loads(whole), "references": ["yes"]}) + "\n")
    with pytest.raises(RunError, match=r"scores\.jsonl, line 1: references: "):
        build_browser([run], [task], data, tmp_path / "out")
    scores.write_text(whole)
    build_browser([run], [task], data, tmp_path / "out")
    row = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1][0]
    assert [["no", 9], ["yes", 1]] == row["references"]


def test_other_data_and_other_samples_are_refused(tmp_path):
    """Where the files are not those that the run was asked from, or samples are gone or in another
    order, nothing is written.
    """
    data = make_data(tmp_path / "data")
    samples = [question(0), question(1)]
    task = make_task(samples)
    run = make_run(tmp_path / "run", data, [(task, ["cat", "dog"])])
    with pytest.raises(RunError, match="'1' has an answer and is not among them there"):
        build_browser([run], [make_task(samples[:1])], data, tmp_path / "out")
    with pytest.raises(RunError, match="'1' has an answer"):
        build_browser([run], [make_task(samples[::-1])], data, tmp_path / "out")
    (data / "shapes.json").write_text("[]")
    with pytest.raises(RunError, match="not the file that the run was asked from"):
        build_browser([run], [task], data, tmp_path / "out")
    assert {"data", "run"} == {path.name for path in tmp_path.iterdir()}


def test_no_text_ends_a_script(tmp_path):
    """Whatever an id, a question, an answer, a reference, a group or an error is: every script is
    one statement, and holds no tag, no entity and no line separator.
    """
    data = make_data(tmp_path / "data")
    samples = [
        Sample(
            text[:MAX_ID_CHARACTERS] or "(empty)",
            {"image": "a.png", "question": text},
            [text, text],
            groups={text: text},
        )
        for text in HOSTILE
    ]
    task = make_task(samples, metrics={"any": lambda text, reference: 1.0})
    texts = [Prediction(sample.id, sample.fields["question"]) for sample in samples]
    run = make_run(tmp_path / "run <script>\u202e", data, [(task, texts)])
    failed = [Prediction(s.id, "", error=s.fields["question"] or "none") for s in samples]
    other = make_run(tmp_path / "other", data, [(task, failed)], scored=False)
    build_browser([run, other], [task], data, tmp_path / "out")
    scripts = sorted((tmp_path / "out/data").rglob("*.js"))
    for file in scripts:
        content = file.read_text(encoding="utf-8")
        assert not set("<>&\u2028\u2029") & set(content)
        read(file)
    rows = [row for file in scripts if "chunk" in file.name for row in read(file)[1]]
    assert len(HOSTILE) == len(rows)
    for text, row in zip(HOSTILE, rows, strict=True):
        shown = row["answers"][0].get("text", "")
        assert text[:LONGEST] == shown[:LONGEST]
        assert len(shown) < LONGEST + 100
        assert len(text) <= LONGEST or shown.endswith("characters in all)")
    _, index = read(tmp_path / "out/data/shapes_val/index.js")
    assert [sample.id for sample in samples] == index["ids"]
    page = (tmp_path / "out/index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=|https?:", page)


def test_half_a_character_is_shown_as_none():
    """A lone surrogate, which no JSON can hold, does not stop the pages."""
    from eval.report.browser.pages import _text

    assert "a?b" == _text("a\ud800b")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", "c:\\x.png"])
def test_a_picture_lies_below_the_data_root(tmp_path, path):
    """A path that leaves it stops the pages."""
    data = make_data(tmp_path / "data")
    task = make_task([question(0, image=path)])
    run = make_run(tmp_path / "run", data, [(task, ["cat"])])
    with pytest.raises(DataError, match="a relative path below the data root expected"):
        build_browser([run], [task], data, tmp_path / "out")


def test_pictures_are_linked_or_copied(tmp_path):
    """Linked: relative to the page. Copied: the used ones, once, and missing ones are reported; the
    folder then needs nothing else.
    """
    odd = "some folder/50% #1 ü?.png"
    data = make_data(tmp_path / "the data", ("a.png", odd, "unused.png"))
    task = make_task(
        [question(0), question(1), question(2, image=odd), question(3, image="no.png")]
    )
    run = make_run(tmp_path / "run", data, [(task, ["cat"] * 4)])
    out = tmp_path / "deep" / "out"
    build_browser([run], [task], data, out)
    _, head = read(out / "data/tasks.js")
    assert "../../the%20data/" == head["pictures"]
    assert not (out / "pictures").exists()
    missing = []
    build_browser([run], [task], data, out, COPY, missing.append)
    assert "pictures/" == read(out / "data/tasks.js")[1]["pictures"]
    copied = {p.relative_to(out / "pictures").as_posix() for p in out.rglob("*.png")}
    assert {"a.png", odd} == copied
    assert (data / odd).read_bytes() == (out / "pictures" / odd).read_bytes()
    assert ["no.png"] == missing


def test_how_a_camera_was_held_is_told(tmp_path):
    """Browsers turn such pictures and the model does not; what is no picture is upright."""
    data = make_data(tmp_path / "data", ("a.png", "plain.jpg"))
    for turned in range(10):
        exif = Image.Exif()
        exif[0x0112] = turned
        Image.new("RGB", (20, 10)).save(data / f"{turned}.jpg", exif=exif)
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe1 Exif and no more")
    missing = []
    pictures = PagePictures(data, None, missing.append)
    orientations = [pictures.turned(f"{turned}.jpg") for turned in range(10)]
    assert [1, *range(1, 9), 1] == orientations
    assert [1, 1, 1, 1] == [
        pictures.turned(path) for path in ("a.png", "plain.jpg", "broken.jpg", "none.jpg")
    ]
    assert ["none.jpg"] == missing
    task = make_task([question(0, image="6.jpg"), question(1)])
    run = make_run(tmp_path / "run", data, [(task, ["cat", "cat"])])
    build_browser([run], [task], data, tmp_path / "out")
    first, second = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1]
    assert [6] == first["turned"]
    assert "turned" not in second


def test_the_same_runs_give_the_same_bytes(demo, tmp_path):
    """Pages are replaced as a whole, and depend on nothing but the runs and the data."""

    def files():
        return {
            p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()
        }

    out = tmp_path / "out"
    build_browser([demo.run], [demo.task], demo.data, out)
    first = files()
    (out / "data/refcoco_val/index.js").unlink()
    build_browser([demo.run], [demo.task], demo.data, out)
    assert first == files()
    assert [out] == list(tmp_path.iterdir())


def test_nothing_else_is_ever_removed(demo, tmp_path):
    """A folder that holds one file that is not of the pages stays as it is."""
    out = tmp_path / "out"
    build_browser([demo.run], [demo.task], demo.data, out)
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(
        UsageError, match=r"'thesis.txt' in it is not of an earlier one of 'browse'"
    ):
        build_browser([demo.run], [demo.task], demo.data, out)
    assert "mine" == (out / "thesis.txt").read_text()
    with pytest.raises(UsageError, match="this is a file; give a folder"):
        build_browser([demo.run], [demo.task], demo.data, out / "thesis.txt")


def test_ranked_options_few_shot_and_corpus_metrics_are_told(tmp_path):
    """Losses by option, how many examples stood before a question, and that 1 is not the most."""
    data = make_data(tmp_path / "data")
    sample = Sample("0", {"image": "a.png", "question": "Which?"}, "B", options=(" A", " B"))
    ranked = make_task([sample], decode=Rank)
    cider = make_task(
        [question(0)], "caps_val", metrics={"cider": Corpus(lambda t, r: [3.5], mean=True)}
    )
    answer = Prediction("0", "B", losses=(2.5, 1.25))
    run = make_run(tmp_path / "run", data, [(ranked, [answer]), (cider, ["cat"])])
    run.manifest["tasks"]["caps_val"] |= {"few_shot": 4, "seed": 0, "leaking": True}
    build_browser([run], [ranked, cider], data, tmp_path / "out")
    row = read(tmp_path / "out/data/shapes_val/chunk-0000.js")[1][0]
    assert [" A", " B"] == row["options"]
    assert [2.5, 1.25] == row["answers"][0]["losses"]
    first, second = read(tmp_path / "out/data/tasks.js")[1]["tasks"]
    assert (False, True) == (first["graded"], second["graded"])
    assert ["published, 4-shot"] == second["protocols"]
    assert [[3.5]] == read(tmp_path / "out/data/caps_val/index.js")[1]["values"]


def test_a_metric_that_is_not_a_mean_has_no_values_to_show(tmp_path):
    """Its function repeats the score for each sample, which says nothing of the sample."""
    data = make_data(tmp_path / "data")
    task = make_task([question(0)], metrics={"f1": Corpus(lambda texts, references: [0.75])})
    run = make_run(tmp_path / "run", data, [(task, ["cat"])])
    build_browser([run], [task], data, tmp_path / "out")
    assert [[None]] == read(tmp_path / "out/data/shapes_val/index.js")[1]["values"]


def test_values_that_a_judge_gave_are_shown(tmp_path):
    """As for a dialogue, where no metric of ours has one; a server that tells a mean alone leaves
    the samples without values.
    """
    data = make_data(tmp_path / "data")
    samples = [question(n, reference=None) for n in range(2)]
    judged = make_task(samples, "dialogue_en", metrics={"rating": exact_match}, judged=True)
    server = make_task(samples, "hidden_test")
    answers = [(judged, ["a cat", "a dog"]), (server, ["cat", "dog"])]
    run = make_run(tmp_path / "run", data, answers, scored=False)
    ratings = {"0": {"rating": 7.5}, "1": {"rating": 0.5}}
    scores = {"server": "a judge", "metrics": {"rating": 4.0}}
    run.scores("dialogue_en").write_server(scores | {"samples": ratings})
    run.scores("hidden_test").write_server({"server": "a server", "metrics": {"exact_match": 0.5}})
    for task in (judged, server):
        score_run(run, task, data)
    build_browser([run], [judged, server], data, tmp_path / "out")
    assert [[7.5, 0.5]] == read(tmp_path / "out/data/dialogue_en/index.js")[1]["values"]
    assert [[None, None]] == read(tmp_path / "out/data/hidden_test/index.js")[1]["values"]
    first, second = read(tmp_path / "out/data/tasks.js")[1]["tasks"]
    assert (True, ["rating"]) == (first["graded"], first["metrics"])
    assert (False, []) == (second["graded"], second["metrics"])


def test_chunks_are_bounded_by_samples_and_by_bytes(tmp_path):
    """The index has the start of each chunk, so that any sample loads without the others."""
    rows = [*synthetic(AT_ONCE + 3)]
    long = SampleView(
        "long", (("question", "y" * LONGEST),), "", (), (), (), {}, None, (None, None)
    )
    write_task(tmp_path / "task", "task_val", [*rows, *[long] * 250])
    _, index = read(tmp_path / "task/index.js")
    starts = [*index["starts"], len(index["ids"])]
    assert [0, AT_ONCE] == starts[:2]
    for number, (start, end) in enumerate(pairwise(starts)):
        name, chunk = read(tmp_path / f"task/chunk-{number:04}.js")
        assert f"task_val/{number}" == name
        assert end - start == len(chunk)
        size = (tmp_path / f"task/chunk-{number:04}.js").stat().st_size
        assert size < LARGEST + LONGEST + 1000
    assert len(starts) > 4


def test_two_hundred_thousand_samples_stay_small(tmp_path):
    """What must be read before the list opens is a few megabytes, each part less than one."""
    entry = write_task(tmp_path / "task", "vqav2_val", synthetic(200_000))
    assert {"name": "vqav2_val", "samples": 200_000, "metrics": ["vqa_accuracy"]} == entry
    sizes = [file.stat().st_size for file in (tmp_path / "task").glob("chunk-*.js")]
    assert 400 == len(sizes)
    assert max(sizes) < 300_000
    assert (tmp_path / "task/index.js").stat().st_size < 6_000_000


def test_the_command_writes_pages_of_what_is_finished(demo, tmp_path):
    """It says where they are; tasks that are not finished are left out and named."""
    out = tmp_path / "out"

    def browse(*arguments):
        return CliRunner().invoke(app, ["browse", str(demo.run.path), *map(str, arguments)])

    done = browse("--out", out, "--images", "copy")
    assert (0, f"{out / 'index.html'}\n") == (done.exit_code, done.stdout)
    assert any((out / "pictures").rglob("*.jpg"))
    tasks = demo.run.manifest["tasks"]
    tasks |= {"okvqa_val": {**tasks["refcoco_val"], "sources": {}}}
    (demo.run.path / "manifest.json").write_bytes(orjson.dumps(demo.run.manifest))
    done = browse("--out", out)
    assert (0, True) == (done.exit_code, "okvqa_val is not finished" in done.stderr)
    for arguments, message in (
        (["--task", "gqa"], "--task gqa: a run of refcoco_val, okvqa_val"),
        (["--task", "okvqa_val"], "no task is finished yet"),
        ([demo.run.path], "another run than the first expected"),
        (["--images", "embed"], "link or copy expected"),
        (["--data", tmp_path / "nowhere"], "no such folder"),
    ):
        done = browse(*arguments, "--out", out)
        assert isinstance(done.exception, UsageError)
        assert message in str(done.exception)
