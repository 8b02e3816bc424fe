"""TouchStone's tables: read as pandas reads them, pictures to files, and nothing hostile passes."""

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from small import answer_all, command
from web import Web

from eval.api import Prediction
from eval.data.declare import Expect
from eval.data.fetch import Fetcher
from eval.data.prepare import plan_steps, prepare
from eval.data.verify import verify
from eval.errors import DataError, EvalError, UsageError
from eval.plugins import find_tasks
from eval.run.check import check_data
from eval.run.folder import RunFolder
from eval.run.requests import render_request
from eval.run.spec import Spec, spec_entry
from eval.scoring.submission import write_submission
from touchstone.table import (
    ANSWERS,
    Dialogue,
    as_read_back,
    read_answers,
    read_index,
    write_answers,
    write_index,
)
from touchstone.tasks import TASKS, answered, dialogues

SHARED = Path(__file__).resolve().parents[2] / "shared"
COLUMNS = (
    "index",
    "image",
    "question",
    "human_annotation",
    "gpt4_ha_answer",
    "category",
    "task_name",
)
TABLE, INDEX = "touchstone/touchstone_20230831.tsv", "touchstone/touchstone_20230831.jsonl"
HEAD = "\t".join(ANSWERS) + "\n"
ROW = "7\ta\tb\tc\td\te\tf\n"
ENGLISH, CHINESE = TASKS


def picture(number, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(file, kind)
    return file.getvalue()


def encoded(number, kind="PNG"):
    return base64.b64encode(picture(number, kind)).decode()


def row(number, image=None, question="What is shown?", category="recognition", task="t1"):
    told = (question, f"annotation {number}", "A bus.", category, task)
    return (str(number), encoded(number) if image is None else image, *told)


def tabbed(rows, columns=COLUMNS):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()


def put(root, content):
    path = root / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def indexed(root, *rows):
    """What the index of a table with these rows gives back."""
    write_index(put(root, tabbed(rows)), root, INDEX)
    return list(read_index(root, INDEX, TABLE))


def make_dialogue(number, response, question="What?", annotation="A bus."):
    return Dialogue(str(number), question, annotation, "Yes.", "basic", "t1", (), response)


# Submissions

CELLS = st.text(max_size=12) | st.sampled_from(
    ["", "NA", "None", "null", "nan", "N/A", "3", "3.0", "True", '"', 'a "b" c', "\t", "a\nb", " x"]
)
WITHOUT_RETURN = CELLS.filter(lambda text: "\r" not in text)  # the csv module leaves it bare


@st.composite
def submissions(draw, cells=CELLS):
    responses = draw(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=6))
    return [
        make_dialogue(number, response, question, annotation)
        for number, (question, annotation, response) in enumerate(responses)
    ]


@given(submissions(WITHOUT_RETURN))
def test_what_is_read_back_is_pandas_own_round_trip(given):
    """Written and read by nothing but pandas' defaults, as the published scripts do."""
    frame = pandas.DataFrame(
        [
            (
                each.id,
                each.question,
                each.annotation,
                each.reference,
                each.category,
                each.task_name,
                each.response,
            )
            for each in given
        ],
        columns=ANSWERS,
    )
    text = frame.to_csv(sep="\t", index=False)
    assert text.encode() == write_answers(given)
    again = pandas.read_csv(io.BytesIO(text.encode()), sep="\t")
    expected = [tuple(f"{cell}" for cell in cells) for cells in again.itertuples(index=False)]
    found = [
        (d.id, d.question, d.annotation, d.reference, d.category, d.task_name, d.response)
        for d in as_read_back(given)
    ]
    assert expected == found


@given(submissions())
@example([make_dialogue(0, "a\rb"), make_dialogue(1, '\r\n"\r')])
def test_a_file_is_read_as_what_is_read_back(tmp_path_factory, given):
    """By one way or the other the judge is shown the same; and doing it again changes nothing.

    A column that has a text in it, that is: pandas' numbers need not stand two round trips.
    """
    given = [*given, make_dialogue("last", "a text", "a text", "a text")]
    path = tmp_path_factory.getbasetemp() / "answers.tsv"
    path.write_bytes(write_answers(given))
    once = as_read_back(given)
    assert once == read_answers(path)
    assert once == as_read_back(once)
    missing = pandas.isna(pandas.read_csv(path, sep="\t")["response"])
    kept = [(a.response, b.response) for a, b, m in zip(given, once, missing, strict=True) if not m]
    assert all(before == after for before, after in kept)


@given(submissions())
def test_dialogues_are_not_changed(given):
    """Reading back makes new ones."""
    before = list(given)
    as_read_back(given)
    assert before == given
    assert [] == as_read_back([])


def read(folder, content):
    path = folder / "answers.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_answers(path)


def test_recorded_table(golden, tmp_path):
    """Empty cells and words that stand for one are shown as `nan`, braces and quotes as such."""
    told = json.loads((golden / "metrics" / "touchstone_cases.json").read_text("utf-8"))["pipeline"]
    found = read(tmp_path, told["tsv"])
    assert [str(each["ques_id"]) for each in told["records"]] == [each.id for each in found]
    assert [each["category"] for each in told["records"]] == [each.category for each in found]
    responses = ["It is a bus", "nan", "nan", "A tab", "3.0", "nan"]
    assert responses == [each.response for each in found]
    assert ('Explain "why".', "Line1\nLine2") == (found[1].question, found[1].annotation)
    assert ("Q\twith tab", "nan") == (found[3].question, found[3].reference)
    assert found == as_read_back(found)


def test_columns_of_numbers_and_other_columns(tmp_path):
    """Numbers print as pandas infers them, ids as they stand; pictures are passed over."""
    columns = ("image", *ANSWERS, "model")
    rows = [("AAAA", "007", "a", "b", "c", "d", "e", answer, "x") for answer in ("1", "")]
    rows[1] = ("", "8", *rows[1][2:])
    found = read(tmp_path, tabbed(rows, columns))
    assert ([("007", "1.0"), ("8", "nan")]) == [(each.id, each.response) for each in found]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a table expected, nothing found"),
        ("\n\n", "a table expected, nothing found"),
        (HEAD, "at least one row expected, none found"),
        ("index\tquestion\n1\t2\n", "human_annotation, .*, response missing among index, question"),
        (HEAD.replace("\t", ","), "index, question, .* missing among index,question,"),
        (HEAD + ROW + ROW, "row 2, column 'index': .*'7' of row 1 found again"),
        (HEAD + ROW.replace("7", ""), "row 1, column 'index': a text expected, an empty cell"),
        (HEAD + ROW.replace("7", "NA"), "row 1, column 'index': a text expected, an empty cell"),
        (HEAD + ROW.replace("f", "f\tg"), "7 cells a row expected, as in the first line, more"),
        (HEAD + ROW + ROW.replace("f", "f\tg"), "Expected 7 fields in line 3, saw 8"),
        (HEAD + ROW.replace("a", '"a'), "quotes that close, expected; found: EOF inside string"),
        (
            HEAD.encode() + ROW.encode().replace(b"a", b"\xff"),
            "UTF-8 expected, the byte 0xff found",
        ),
        (HEAD.encode("utf-16"), "UTF-8 expected, the byte 0xff found"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "UTF-8 expected, the byte 0x89 found"),
        (bytes(1000), "missing among"),
    ],
)
def test_a_damaged_submission_is_refused(tmp_path, content, said):
    """With the file's name, what was expected and what was found; never read as something else."""
    with pytest.raises(DataError, match=rf"answers\.tsv: .*{said}"):
        read(tmp_path, content)


def test_what_is_no_file_is_refused(tmp_path):
    """A missing file, a folder, a pipe, a file that is too large; names tell pandas nothing."""
    with pytest.raises(DataError, match=r"gone\.tsv: no such file"):
        read_answers(tmp_path / "gone.tsv")
    with pytest.raises(DataError, match="a folder or a device found"):
        read_answers(tmp_path)
    os.mkfifo(tmp_path / "pipe.tsv")
    with pytest.raises(DataError, match="a folder or a device found"):
        read_answers(tmp_path / "pipe.tsv")
    with (tmp_path / "large.tsv").open("wb") as file:
        file.truncate(5_000_000_000)  # a hole
    with pytest.raises(DataError, match="5,000,000,000 bytes, more than the limit"):
        read_answers(tmp_path / "large.tsv")
    (tmp_path / "plain.tsv.gz").write_text(HEAD + ROW, encoding="utf-8")
    assert "f" == read_answers(tmp_path / "plain.tsv.gz")[0].response


@given(st.binary(max_size=60) | st.text(alphabet='\t\n\r"ab,1\0', max_size=80).map(str.encode))
def test_any_bytes_are_a_submission_or_refused(tmp_path_factory, tail):
    """Whatever stands behind a right beginning."""
    with contextlib.suppress(DataError):
        assert read(tmp_path_factory.getbasetemp(), HEAD.encode() + ROW.encode() + tail)


# The published table

TEXTS = st.text(max_size=30) | st.sampled_from(
    ['"', 'say "x"', "a\tb", "a\nb", "a\r\nb", "{question}", "{", "图一", "\ufeff", "'", "\\n"]
)
ABSENT = ("", "NA", "None", "null", "nan", "N/A")


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
def test_index_gives_back_what_the_table_holds(tmp_path_factory, given):
    """Whatever its texts are; where pandas finds none it prints `nan`."""
    root = tmp_path_factory.mktemp("index")
    rows = [(str(number), encoded(number), *texts) for number, texts in enumerate(given)]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL).writerows([COLUMNS, *rows])
    table = put(root, text.getvalue().encode())
    frame = pandas.read_csv(table, sep="\t", dtype=str)
    expected = [tuple(map(str, cells[2:])) for cells in frame.itertuples(index=False)]
    write_index(table, root, INDEX)
    found = list(read_index(root, INDEX, TABLE))
    assert expected == [
        (d.question, d.annotation, d.reference, d.category, d.task_name) for d in found
    ]
    for number, each in enumerate(found):
        assert (str(number), None) == (each.id, each.response)
        (path,) = each.images
        assert picture(number) == (root / path).read_bytes()


def test_missing_texts_are_null_in_the_index(tmp_path):
    """So that a reader can tell them from the word; read, they print as pandas prints them."""
    found = indexed(tmp_path, *(row(n, question=text) for n, text in enumerate(ABSENT)))
    assert {"nan"} == {each.question for each in found}
    head, *lines = (json.loads(line) for line in (tmp_path / INDEX).read_text("utf-8").splitlines())
    assert {None} == {line["question"] for line in lines}
    content = (tmp_path / TABLE).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    told = {"name": Path(TABLE).name, "bytes": len(content), "sha256": digest}
    assert {"table": told} == head


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_of_every_kind(tmp_path, kind):
    """Named by digest and kind; equal ones lie there once."""
    one, two = indexed(tmp_path, row(1, encoded(1, kind)), row(2, encoded(1, kind)))
    ending = {"JPEG": "jpg"}.get(kind, kind.lower())
    name = f"{hashlib.sha256(picture(1, kind)).hexdigest()[:16]}.{ending}"
    assert (f"touchstone/images/{name}",) == one.images == two.images
    assert [name] == [path.name for path in (tmp_path / "touchstone/images").iterdir()]


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps([encoded(1), encoded(2)]),
        repr([encoded(1), encoded(2)]),
        f"['{encoded(1)}',\n  \"data:image/png;base64,{encoded(2)}\"]",
    ],
)
def test_several_pictures(tmp_path, cell):
    """A list as JSON or Python writes it; the sample shows each in its order."""
    (found,) = indexed(tmp_path, row(1, cell))
    assert [picture(1), picture(2)] == [(tmp_path / path).read_bytes() for path in found.images]
    (sample,) = ENGLISH.layouts[0].read(tmp_path)
    assert found.images == sample.images
    one, two = found.images
    expected = f"Picture 1: <img>{one}</img>\nPicture 2: <img>{two}</img>\nWhat is shown?"
    assert expected == render_request(ENGLISH, sample).prompt


@pytest.mark.parametrize("cut", ["\n", " \r\n", "\t"])
def test_white_space_and_a_data_url_within_base64(tmp_path, cut):
    """Encoders break lines; browsers put the kind before."""
    text = encoded(1)
    (found,) = indexed(tmp_path, row(1, f"data:image/png;base64,{text[:40]}{cut}{text[40:]}{cut}"))
    assert picture(1) == (tmp_path / found.images[0]).read_bytes()


def bomb():
    """A PNG whose header tells 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = (60_000).to_bytes(4, "big")
    header = chunk(b"IHDR", size + size + bytes([8, 0, 0, 0, 0]))
    rest = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + rest).decode()


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "a picture in base64 expected, an empty cell found"),
        ("NA", "a picture in base64 expected, an empty cell found"),
        ("[]", "a picture in base64 expected, an empty cell found"),
        ('["", 1]', "a picture in base64 expected, an empty cell found"),
        ("[" * 5000, "a list of pictures expected, .* found"),
        ("[__import__('os')]", "a list of pictures expected, .* found"),
        ("!!!!", "a picture in base64 expected, '!!!!'"),
        (encoded(1)[:-1], "a picture in base64 expected, .*padding"),
        (encoded(1) + "é", "a picture in base64 expected"),
        (
            base64.b64encode(b"<html>gone").decode(),
            "JPEG, PNG, WEBP, GIF or BMP expected, b'<html>",
        ),
        (base64.b64encode(picture(1)[:45]).decode(), "can be shown to a model expected, "),
        (base64.b64encode(b"BM" + bytes(90)).decode(), "can be shown to a model expected, "),
        (bomb(), "can be shown to a model expected, .*60000"),
        (encoded(1, "TIFF"), "JPEG, PNG, WEBP, GIF or BMP expected"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, cell, said):
    """With file, row, index and what to do; neither an index nor the picture is left behind."""
    where = r"touchstone_20230831\.tsv: row 2 \(index '5'\), column 'image': "
    with pytest.raises(DataError, match=f"{where}.*{said}.* Delete the table and prepare"):
        indexed(tmp_path, row(1), row(5, cell))
    assert not (tmp_path / INDEX).exists()
    left = {path.name for path in (tmp_path / "touchstone").rglob("*") if path.is_file()}
    name = hashlib.sha256(picture(1)).hexdigest()[:16]
    assert {Path(TABLE).name, f"{name}.png"} == left


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a table expected, nothing found"),
        (tabbed([]), "at least one row expected, none found"),
        (tabbed([row(1)[:2]], COLUMNS[:2]), "question, .*, task_name missing among index, image"),
        (tabbed([row(1), row(1)]), "row 2, column 'index': .*'1' of row 1 found again"),
        (tabbed([row(1), row("", encoded(2))]), "row 2, column 'index': a text expected"),
        (tabbed([(*row(1), "more")]), "7 cells a row expected, as in the first line, more found"),
        (tabbed([row(1), (*row(2), "more")]), "Expected 7 fields in line 3, saw 8"),
        (tabbed([row(1)]) + b'2\t"', "quotes that close, expected; found: EOF inside string"),
        (tabbed([row(1), row(2)]).replace(b"A bus.", b"A b\xfc."), "UTF-8 expected, the byte 0xfc"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, content, said):
    """And leaves no index, nor takes away the one that was there."""
    indexed(tmp_path, row(8))
    before = (tmp_path / INDEX).read_bytes()
    with pytest.raises(DataError, match=rf"touchstone_20230831\.tsv: .*{said}"):
        write_index(put(tmp_path, content), tmp_path, INDEX)
    assert before == (tmp_path / INDEX).read_bytes()
    assert not [p for p in (tmp_path / "touchstone").rglob(".*") if p.is_file()]
    with pytest.raises(DataError, match="no such file"):
        write_index(tmp_path / "gone.tsv", tmp_path, INDEX)


def test_pictures_that_are_there_are_not_written_again(tmp_path):
    """But one that was damaged since is."""
    indexed(tmp_path, row(1), row(2))
    one, two = sorted((tmp_path / "touchstone/images").iterdir())
    before, whole = one.stat().st_ino, two.read_bytes()
    two.write_bytes(b"damaged")
    indexed(tmp_path, row(1), row(2))
    assert (before, whole) == (one.stat().st_ino, two.read_bytes())


def test_index_is_the_same_wherever_it_is_made(tmp_path):
    """It tells no times: a run's digest of the data depends on the table alone."""
    rows = [row(n) for n in range(3)]
    indexed(tmp_path / "one", *rows)
    os.utime(put(tmp_path / "two", tabbed(rows)), (1, 1))
    write_index(tmp_path / "two" / TABLE, tmp_path / "two", INDEX)
    one, two = ((tmp_path / name / INDEX).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_table_that_was_changed_since_is_noticed(tmp_path):
    """Of another size, or newer and other; a copy with another time is no change, nor none."""
    indexed(tmp_path, row(1), row(2))
    table = tmp_path / TABLE
    os.utime(table)
    assert 2 == len(list(read_index(tmp_path, INDEX, TABLE)))
    content = table.read_bytes()
    table.write_bytes(content.replace(b"A bus.", b"A car."))
    said = "was changed since. 'qwen-vl-eval data prepare touchstone_en' makes the index again"
    with pytest.raises(DataError, match=said):
        list(dialogues(tmp_path, "touchstone_en"))
    table.write_bytes(content + b"x")
    os.utime(table, (1, 1))
    with pytest.raises(DataError, match=said):
        list(read_index(tmp_path, INDEX, TABLE))
    table.unlink()
    assert 2 == len(list(read_index(tmp_path, INDEX, TABLE)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [], "a first line that tells the table expected, none found"),
        (lambda lines: lines[1:], "a first line that tells the table expected, none found"),
        (lambda lines: [b"{}", *lines], "a first line that tells the table expected, none found"),
        (lambda lines: [b"[" * 5000, *lines], "line 1 of .*a list begins here"),
        (lambda lines: [lines[0].replace(b"sha256", b"sha"), lines[1]], "field 'sha256'"),
        (lambda lines: [lines[0], lines[1][:-9]], "line 2 of .*not JSON"),
        (lambda lines: [lines[0], lines[1].replace(b"touchstone/images", b"../../x")], "line 2 of"),
        (lambda lines: [lines[0], lines[1].replace(b'"touchstone/images', b'"/etc')], "line 2 of"),
        (lambda lines: [lines[0], lines[1].replace(b'"id":"1"', b'"id":1')], "line 2 .*'id'"),
        (lambda lines: [lines[0], lines[1].replace(b'"A bus."', b"[]")], "line 2 .*a string"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, change, said):
    """Not least one that names a file outside of the data root."""
    indexed(tmp_path, row(1))
    lines = (tmp_path / INDEX).read_bytes().splitlines()
    (tmp_path / INDEX).write_bytes(b"\n".join(change(lines)))
    with pytest.raises(DataError, match=said):
        list(read_index(tmp_path, INDEX, TABLE))


MEMORY = """
import resource, sys
from pathlib import Path
import pandas
from touchstone.table import write_index
root, limit = Path(sys.argv[1]), int(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    write_index(root / sys.argv[3], root, sys.argv[4])
except Exception as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def grown_kb(root):
    arguments = [sys.executable, "-c", MEMORY, str(root), "0", TABLE, INDEX]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    *said, grown = told.splitlines()
    return " ".join(said), int(grown)


def test_memory_does_not_grow_with_the_table(tmp_path):
    """A table of 60 MB in rows of 1 MB takes what a few of them do."""
    path = tmp_path / TABLE
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(tabbed([]))
        for number in range(60):
            noise = hashlib.shake_256(str(number).encode()).digest(3 * 500 * 500)
            picture = io.BytesIO()
            Image.frombytes("RGB", (500, 500), noise).save(picture, "BMP")
            line = row(number, base64.b64encode(picture.getvalue()).decode())
            file.write("\t".join(line).encode() + b"\n")
    assert path.stat().st_size > 55_000_000
    said, grown = grown_kb(tmp_path)
    assert ("", True) == (said, grown < 40_000), grown
    assert 60 == len(list(read_index(tmp_path, INDEX, TABLE)))


def test_a_lost_quote_takes_no_more_than_a_row(tmp_path):
    """Else the rest of the table, a gigabyte, would be one cell."""
    path = tmp_path / TABLE
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(tabbed([row(1)]) + b'2\t"')
        for _ in range(100):
            file.write(b"A" * 1_000_000)
    said, grown = grown_kb(tmp_path)
    assert "row 2: at most 80,000,000 characters expected, more found. Is a quote lost?" in said
    assert grown < 300_000


# The tasks


def test_both_tasks_are_offered():
    """The Chinese one only to those who name it: it was never published."""
    assert ["touchstone_en"] == [task.name for task in find_tasks(["touchstone"])]
    assert ["touchstone_cn"] == [task.name for task in find_tasks(["touchstone_cn"])]
    assert "touchstone_cn" not in {task.name for task in find_tasks(["all"])}
    with pytest.raises(UsageError, match="one of touchstone_en, touchstone_cn expected"):
        dialogues(Path(), "touchstone_fr")
    with pytest.raises(EvalError, match="qwen-vl-eval judge RUN"):
        ENGLISH.metrics["touchstone_score"]("a", None)


def test_a_sample_tells_the_model_nothing_that_the_judge_is_told(tmp_path):
    """Neither description nor reference answer is in it."""
    indexed(tmp_path, row(3, category="recognition,comprehension"))
    (sample,) = ENGLISH.layouts[0].read(tmp_path)
    assert {"category": "recognition,comprehension", "task_name": "t1"} == sample.groups
    assert ({"image", "question"}, None) == (set(sample.fields), sample.reference)
    request = render_request(ENGLISH, sample)
    assert (True, 512, 0.3) == (request.chat, request.decode.max_new_tokens, request.decode.top_p)
    assert "annotation" not in repr(request)


def test_answered(tmp_path):
    """Those that have an answer, which is stripped as the Chat model's own method strips it."""
    indexed(tmp_path, row(1), row(2), row(3))
    found = answered(tmp_path, "touchstone_en", {"3": " c \n", "1": "a"})
    assert [("1", "a"), ("3", "c")] == [(each.id, each.response) for each in found]


@pytest.fixture(scope="module")
def server():
    web = Web()
    yield web
    web.close()


def test_data_are_prepared_from_a_server(server, tmp_path):
    """Table and script are fetched, pictures and index made; changed or lost, they are again."""
    content = tabbed([row(n) for n in range(3)])
    steps = (
        replace(ENGLISH.steps[0], url=server.page("table.tsv", content)),
        ENGLISH.steps[1],
    )
    later = (replace(ENGLISH.later_steps[0], url=server.page("eval.py", b"print(1)\n")),)
    expect = Expect(distinct={"task_name": 1})
    task = replace(ENGLISH, size=3, expect=expect, steps=steps, later_steps=later)

    def get():
        return prepare([task], tmp_path, fetcher=Fetcher(backoff_s=0))

    assert 3 == len(plan_steps([task], tmp_path))
    assert ([], []) == (get(), plan_steps([task], tmp_path))
    assert () == verify(task, tmp_path, open_pictures=True, digests=True).issues
    assert b"print(1)\n" == (tmp_path / "touchstone/eval.py").read_bytes()
    before = (tmp_path / INDEX).stat().st_ino
    assert ([], before) == (get(), (tmp_path / INDEX).stat().st_ino)

    lost = next((tmp_path / "touchstone/images").iterdir())
    lost.unlink()
    assert ([], True) == (get(), lost.is_file())
    (tmp_path / TABLE).unlink()  # all is there without it
    assert ([], 1) == (get(), len(server.asked("table.tsv")))
    lost.unlink()  # now it is needed
    assert ([], 2) == (get(), len(server.asked("table.tsv")))
    assert () == verify(task, tmp_path, open_pictures=True, digests=True).issues


def test_a_table_that_cannot_be_had_stops_no_other_step(server, tmp_path):
    """The one failure is told once; nothing is made of nothing."""
    steps = (replace(ENGLISH.steps[0], url=server.url("gone.tsv")), ENGLISH.steps[1])
    later = (replace(ENGLISH.later_steps[0], url=server.page("eval.py", b"print(1)\n")),)
    task = replace(ENGLISH, steps=steps, later_steps=later)
    (failed,) = prepare([task], tmp_path, fetcher=Fetcher(backoff_s=0))
    assert "404" in failed
    assert (tmp_path / "touchstone/eval.py").is_file()


def test_the_command_prepares_tables_that_were_brought(tmp_path):
    """908 rows of 27 kinds are the English split; a Chinese table may have any number."""
    put(tmp_path, tabbed([row(n, task=f"t{n % 27}") for n in range(908)]))
    (tmp_path / "touchstone/eval.py").write_text("print(1)\n", encoding="utf-8")
    said = command("data", "prepare", "touchstone", "--data", tmp_path)
    made = "making TouchStone's pictures and index\n"
    assert (0, made) == (said.returncode, said.stderr), said
    said = command("data", "prepare", "touchstone", "--data", tmp_path)
    assert (0, "") == (said.returncode, said.stderr), said
    said = command("data", "prepare", "touchstone_cn", "--data", tmp_path)
    assert 3 == said.returncode
    assert "never published" in said.stdout
    chinese = [row(n, question="图中有什么？") for n in range(5)]
    (tmp_path / "touchstone/touchstone_cn.tsv").write_bytes(tabbed(chinese))
    said = command("data", "prepare", "touchstone_cn", "--data", tmp_path)
    assert (0, made) == (said.returncode, said.stderr), said
    found = list(dialogues(tmp_path, "touchstone_cn"))
    assert ["图中有什么？"] * 5 == [each.question for each in found]


class Echo:
    """Answers with what a table may trip over."""

    def answer(self, requests):
        for request in requests:
            yield Prediction(request.id, ' a "b"\tc\nd ')

    def describe(self):
        return {"checkpoint": "echo", "digest": "0" * 64, "dtype": "float32"}


def test_submission_is_the_published_table_with_responses(tmp_path):
    """A table, not JSON; what is read of it is what the run's answers are to the judge."""
    expect = Expect(distinct={"task_name": 1})
    data, task = tmp_path / "data", replace(ENGLISH, size=3, expect=expect)
    indexed(data, *(row(n) for n in range(3)))
    _, asked = check_data(task, data, Spec())
    entries = {task.name: spec_entry(task, data, asked)}
    manifest = {"name": "x", "model": Echo().describe(), "tasks": entries, "data": str(data)}
    folder = RunFolder.start(tmp_path / "run", manifest)
    answer_all(folder, [task], data, {task.name: asked}, Echo())
    assert 0 == folder.answers(task.name).finalize(task, data, asked, folder.digests())
    written = write_submission(task, folder, data)
    assert "touchstone_en.tsv" == written.name
    assert HEAD.encode() == written.read_bytes().splitlines(keepends=True)[0]
    found = read_answers(written)
    assert {'a "b"\tc\nd'} == {each.response for each in found}
    answers = {each.id: ' a "b"\tc\nd ' for each in found}
    assert as_read_back(answered(data, task.name, answers)) == found
    with pytest.raises(UsageError, match=r"a name that ends in \.tsv expected"):
        write_submission(task, folder, data, tmp_path / "x.json")
