"""Data as people have them on disk: reported cases, and what else is of their kinds."""

import contextlib
import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from small import command

from eval.data import read_json, read_jsonl, read_list, read_parquet
from eval.data.declare import Source
from eval.data.files import PIECE_BYTES, read_records
from eval.data.pictures import picture_fault
from eval.data.pins import NAME, Pins
from eval.data.sizes import picture_size
from eval.data.verify import verify
from eval.demo.data import write_demo_data
from eval.errors import DataError
from eval.metrics.caption import why_cider_is_zero
from eval.plugins import find_tasks
from eval.runtime.image import load_image
from eval.storage.digests import sha256_file
from eval.storage.tree import files_below, files_like

BOM = b"\xef\xbb\xbf"
COVER = {
    "questions": ["Who wrote this book?", "What is the title?"],
    "answers": ["A. Writer", "T"],
    "split": 3,
}


def task(name):
    (found,) = find_tasks([name])
    return found


def write(root, path, content):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    file.write_bytes(content)
    return file


def picture(colour, kind="PNG", size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def covers(root, ending, *keys):
    rows = {key: COVER | {"imageURL": f"http://example.org/51x{ending}"} for key in keys}
    write(root, "ocrvqa/dataset.json", rows)


def animation():
    """A GIF of two frames whose palette has a transparent colour."""
    frames = [Image.new("P", (30, 40), number) for number in (1, 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        frame.putpixel((3, 4), 0)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], transparency=0)
    return file.getvalue()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases") / "data"
    write_demo_data(folder)
    return folder


@pytest.mark.case("answers-and-data/20")
def test_a_gif_cover_is_official_and_its_name_changes_no_answer(tmp_path):
    """Hundreds of OCR-VQA's covers are GIFs; people rename them all to .jpg."""
    found = []
    for ending, name in ((".gif", "0123456789.gif"), (".gif", "0123456789.jpg")):
        root = tmp_path / name
        covers(root, ending, "0123456789")
        write(root, f"ocrvqa/images/{name}", animation())
        done = command(
            *("run", "ocrvqa_test", "--limit", 2, "--model", "demo", "--device", "cpu"),
            *("--data", root, "--out", root / "run"),
        )
        assert 0 == done.returncode, done.stderr
        found.append((root / "run/ocrvqa_test/predictions.jsonl").read_bytes())
    assert found[0] == found[1]


@pytest.mark.case("answers-and-data/21")
@pytest.mark.parametrize(
    ("ending", "kept"),
    [(".gif", ".jpg"), (".jpg", ".gif"), (".jpg", ".png"), (".gif", ".JPG"), ("", ".jpg")],
)
def test_a_cover_is_found_under_another_ending(tmp_path, ending, kept):
    """Its URL's ending is the official one; an official file goes before others."""
    covers(tmp_path, ending, "0123456789")
    write(tmp_path, f"ocrvqa/images/0123456789{kept}", picture("red", "GIF"))
    done = command("data", "verify", "ocrvqa_test", "--data", tmp_path)
    assert (3, False) == (done.returncode, "missing" in done.stdout)
    lines = [{"image": f"x/images/0123456789{ending}", "question": "?", "answer": "T"}]
    write(tmp_path, "ocrvqa/ocrvqa_test.jsonl", "\n".join(map(json.dumps, lines)))
    for layout in task("ocrvqa_test").layouts[:2]:
        images = {image for sample in layout.read(tmp_path) for image in sample.images}
        assert {f"ocrvqa/images/0123456789{kept}"} == images
    write(tmp_path, f"ocrvqa/images/0123456789{ending}", picture("blue"))
    sample = next(task("ocrvqa_test").layouts[0].read(tmp_path))
    assert (f"ocrvqa/images/0123456789{ending}",) == sample.images


@pytest.mark.parametrize("name", ["a.gif", "a.jpg"])
def test_of_an_animation_the_first_frame_is_read_whatever_its_name(tmp_path, name):
    """As the published loader does: Image.open(...).convert("RGB")."""
    file = write(tmp_path, name, animation())
    with Image.open(io.BytesIO(animation())) as image:
        expected = image.convert("RGB")
    assert expected.tobytes() == load_image(file).tobytes()
    assert (None, expected.size) == (picture_fault(file), picture_size(file))


def test_verify_names_placeholders(tmp_path):
    """A shop sends one page, or a pixel, for every cover that is gone: few are a note, many not."""
    keys = [f"{number:010d}" for number in range(30)]
    covers(tmp_path, ".jpg", *keys)
    gone, pixel = picture("white", "JPEG"), picture("white", "GIF", (1, 1))
    for number, key in enumerate(keys):
        other = picture((number * 8, 0, 0), "JPEG")
        content = gone if number < 3 else pixel if number == 3 else other
        write(tmp_path, f"ocrvqa/images/{key}.jpg", content)
    done = command("data", "verify", "ocrvqa_test", "--data", tmp_path)
    first = ", ".join(f"ocrvqa/images/{key}.jpg" for key in keys[:3])
    hint = "a placeholder for pictures that are gone?"
    for line in (
        f"note: ocrvqa_test: 3 images are one file, byte for byte: {first}: {hint}",
        f"note: ocrvqa_test: 1 images are a single pixel: ocrvqa/images/{keys[3]}.jpg: {hint}",
    ):
        assert line in done.stdout
    assert "1 fault" in done.stdout  # the count of images
    for key in keys[:10]:
        write(tmp_path, f"ocrvqa/images/{key}.jpg", pixel)
    found = verify(task("ocrvqa_test"), tmp_path, open_pictures=True)
    assert ((), True) == (found.notes, "10 images are a single pixel" in found.issues[-1])


def test_the_converted_ai2d_reader_keeps_the_folder(tmp_path):
    """abc_images/437.png has letters in place of images/437.png's words."""
    rows = [
        {"image": f"data/ai2diagram/{path}", "question": "?", "answer": "a"}
        for path in ("ai2d/abc_images/437.png", "ai2d/images/437.png", "AI2D_TEST/438.png")
    ]
    write(tmp_path, "ai2diagram/test.jsonl", "\n".join(map(json.dumps, rows)))
    expected = ["ai2d/abc_images/437.png", "ai2d/images/437.png", "ai2d/images/438.png"]
    layout = task("ai2d_test").layout(tmp_path)
    assert expected == [sample.fields["image"] for sample in layout.read(tmp_path)]


@pytest.mark.parametrize(
    ("name", "file", "paths"),
    [
        ("ai2d_test", "ai2diagram/test.jsonl", ["a/437.png", "b/437.png"]),
        ("chartqa_test_human", "chartqa/test_human.jsonl", ["test/png/7.png", "train/x/7.png"]),
    ],
)
def test_two_folders_pictures_do_not_become_one(tmp_path, name, file, paths):
    """Readers that keep only a picture's name refuse a file in which that is not enough."""
    rows = [{"image": path, "question": "?", "answer": "a"} for path in paths]
    write(tmp_path, file, "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"line 2 of .*: field 'image': .* for one in '\w+', which"):
        list(task(name).layout(tmp_path).read(tmp_path))


def parquet(file, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file


def chart_table(file):
    image = [{"bytes": picture("red"), "path": None}]
    return parquet(file, type=["human_test"], question=["?"], answer=["5"], image=image)


@pytest.mark.case("answers-and-data/23")
@pytest.mark.parametrize("link", ["chartqa", "chartqa/mirror", "chartqa/mirror/data", "file"])
def test_a_mirror_below_a_linked_folder_is_found(tmp_path, link):
    """A hub's cache is linked into the data, at any level; `**` of pathlib follows no link."""
    name = "test-00000-of-00001.parquet"
    path = f"chartqa/mirror/data/{name}" if link == "file" else link
    target = tmp_path / "elsewhere" / path
    chart_table(tmp_path / "elsewhere/chartqa/mirror/data" / name)
    place = tmp_path / "root" / path
    place.parent.mkdir(parents=True)
    place.symlink_to(target)
    done = command("data", "verify", "chartqa_test_human", "--data", tmp_path / "root")
    assert (3, True) == (done.returncode, "mirror  1 " in done.stdout), done.stderr


def test_hidden_files_are_no_data(tmp_path):
    """macOS puts `._x` beside `x` on a disk of another system."""
    name = "test-00000-of-00001.parquet"
    folder = chart_table(tmp_path / "chartqa/mirror/data" / name).parent
    write(folder, f"._{name}", b"\0\5\26\7")
    write(folder.parent, f".cache/huggingface/{name}", b"")
    (found,) = task("chartqa_test_human").layouts[2].sources[0].files(tmp_path)
    assert folder / name == found
    write(tmp_path, "ai2d/questions/._1.png.json", b"\0\5\26\7")
    write(tmp_path, "ai2d/questions/1.png.json", {"questions": {}})
    write(tmp_path, "ai2d/ai2d_test_ids.csv", "2\n")
    assert [] == list(task("ai2d_test").examples(tmp_path).read(tmp_path))


def test_links_in_a_circle_end(tmp_path):
    """Each folder is entered once, by a way without links if there is one."""
    for path in ("a/real/x-1.json", "a/real/deep/x-2.json", "z/x-3.json"):
        write(tmp_path, path, "{}")
    (tmp_path / "a/real/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/again").symlink_to("real")
    (tmp_path / "a/away").symlink_to(tmp_path / "z")
    (tmp_path / "a/self").symlink_to("self")
    os.mkfifo(tmp_path / "a/x-4.json")
    expected = ["away/x-3.json", "real/deep/x-2.json", "real/x-1.json"]
    found = files_like(tmp_path, "a/**/x-*.json")
    assert expected == [path.relative_to(tmp_path / "a").as_posix() for path in found]
    assert sorted(expected) == sorted(files_below(tmp_path / "a"))
    assert [tmp_path / "a/real/x-1.json"] == files_like(tmp_path, "a/*/x-1.json")
    assert [] == Source("a/self").files(tmp_path) == files_like(tmp_path, "a/x-*.json")


READERS = {
    "rows.json": (read_list, [{"a": 1}, {"a": 2}]),
    "field.json": (lambda path: read_records(path, "rows"), {"rows": [{"a": 1}, {"a": 2}]}),
    "late.json": (
        lambda path: read_records(path, "rows"),
        {"b": "[", "rows": [{"a": 1}, {"a": 2}]},
    ),
    "rows.jsonl": (read_jsonl, '{"a": 1}\r\n\r\n{"a": 2}\r\n'),
    "whole.json": (lambda path: read_json(path).records("rows"), {"rows": [{"a": 1}, {"a": 2}]}),
}


@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_is_skipped_and_utf_16_named(tmp_path, name):
    """PowerShell and Notepad write both."""
    reader, content = READERS[name]
    plain = write(tmp_path, name, content).read_bytes().decode()
    write(tmp_path, name, BOM + plain.encode())
    assert [1, 2] == [row.integer("a") for row in reader(tmp_path / name)]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        write(tmp_path, name, plain.encode(encoding))
        with pytest.raises(DataError, match=f"{name}: this is UTF-16; save it as UTF-8"):
            list(reader(tmp_path / name))


@pytest.mark.parametrize(("mark", "code"), [(BOM, 0), (b"\xff\xfe", 2)])
def test_answers_lists_of_ids_and_the_lock_file_may_have_a_mark(tmp_path, demo, mark, code):
    """Every file that a person may have saved with an editor."""
    ids = [sample.id for sample in task("gqa_testdev").layout(demo).read(demo)]
    rows = json.dumps([{"questionId": each, "answer": "yes"} for each in ids])
    text = rows.encode() if mark == BOM else rows.encode("utf-16-le")
    file = write(tmp_path, "answers.json", mark + text)
    done = command("score", "--task", "gqa_testdev", "--data", demo, "--predictions", file)
    assert code == done.returncode, done.stderr
    lock = write(tmp_path, NAME, {"format": 1, "files": {}, "archives": {}, "mirrors": {}})
    lock.write_bytes(mark + lock.read_bytes())
    write(tmp_path, "ai2d/ai2d_test_ids.csv", mark + b"1\n")
    write(tmp_path, "ai2d/questions/1.png.json", {"questions": {}})
    readers = (Pins.read, lambda root: list(task("ai2d_test").layouts[0].read(root)))
    for reader in readers:
        if code:
            with pytest.raises(DataError, match="this is UTF-16"):
                reader(tmp_path)
        else:
            reader(tmp_path)


def test_a_key_that_stands_twice_is_found(tmp_path):
    """Parsers keep the last value, so that a record would be lost: in whole files and in pieces."""
    twice = '{"a": 1, "b": {"c": 1, "c": 2}}'
    many = [{"a": number, "text": "x" * 100} for number in range(PIECE_BYTES // 50)]
    rows = json.dumps(many)[:-1]
    for name, content in (
        ("rows.json", f"{rows}, {twice}]"),
        ("rows.json", f"[{twice}, {rows[1:]}]"),
        ("field.json", f'{{"rows": {rows}, {twice}]}}'),
        ("rows.jsonl", f'{{"a": 1}}\n{twice}\n'),
        ("whole.json", twice),
    ):
        path = write(tmp_path, name, content)
        with pytest.raises(DataError, match=rf"{name}: an object has two keys .c. at line \d"):
            list(READERS[name][0](path))
    write(tmp_path, NAME, '{"format": 1, "files": {}, "files": {}, "archives": {}, "mirrors": {}}')
    with pytest.raises(DataError, match=r"an object has two keys .files."):
        Pins.read(tmp_path)
    covers(tmp_path, ".jpg", "1", "2")
    path = tmp_path / "ocrvqa/dataset.json"
    path.write_text(path.read_text().replace('"2"', '"1"'))
    done = command("run", "ocrvqa_test", "--model", "demo", "--data", tmp_path, "--out", "x")
    assert (2, True) == (done.returncode, f'{path}: an object has two keys "1"' in done.stderr)


@pytest.mark.case("answers-and-data/26")
@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("docvqa_val", "docvqa/val/val_v1.0.json", [{"questionId": 1}], '"data": [...]}'),
        ("gqa_testdev", "gqa/testdev_balanced_questions.json", [{}], '{"<question>": {...}}'),
        ("vizwiz_val", "vizwiz/val.json", {"data": []}, "it must be one list of records"),
        ("chartqa_test_human", "chartqa/test_human.jsonl", [{}], "each line must be one object"),
        ("textvqa_val", "textvqa/TextVQA_0.5.1_val.json", [{}], '"data": [...]}'),
        ("nocaps_val", "nocaps/nocaps_val_4500_captions.json", [], '"annotations": [...]}'),
    ],
)
def test_a_reader_says_which_form_it_expects(tmp_path, name, file, content, message):
    """People cut a file to its list, or save JSON lines as one list."""
    write(tmp_path, file, content)
    done = command("data", "verify", name, "--data", tmp_path)
    assert (3, True, True) == (done.returncode, "malformed" in done.stdout, message in done.stdout)


@pytest.mark.case("answers-and-data/25")
def test_cider_of_one_image_says_why_it_is_0(tmp_path, demo):
    """pycocoevalcap gives 0 too; people have searched for their mistake for years."""
    rows = {"image_id": 0, "caption": "a dog runs"}
    images = [{"id": 0, "open_images_id": "0" * 16}]
    captions = {"images": images, "annotations": [rows]}
    write(tmp_path, "nocaps/nocaps_val_4500_captions.json", captions)
    file = write(tmp_path, "p.json", [rows])
    done = command("score", "--task", "nocaps_val", "--data", tmp_path, "--predictions", file)
    why = "note: nocaps_val: cider is 0 for any caption of a single image"
    assert (0, True) == (done.returncode, "cider=0.000000" in done.stdout), done.stderr
    assert 1 == done.stderr.count(why) == done.stderr.count("note:")
    done = command(
        *("run", "nocaps_val", "--limit", 1, "--model", "demo", "--device", "cpu"),
        *("--data", demo, "--out", tmp_path / "run", "--allow-partial"),
    )
    summary = json.loads((tmp_path / "run/nocaps_val/summary.json").read_bytes())
    assert (0, True) == (done.returncode, why in done.stderr), done.stderr
    assert "cider is 0 for any caption of a single image" in summary["caveats"][0]


def test_why_cider_is_0_is_said_only_where_no_caption_could_help():
    """Images whose references have the same words; not captions that are merely wrong."""
    same, other = ["A dog runs", "a dog"], ["a cat"]
    assert "same words" in why_cider_is_zero([same, same[::-1]], [0.0, 0.0])
    assert why_cider_is_zero([same, other], [0.0, 0.0]) == "" == why_cider_is_zero([same], [0.5])


@pytest.mark.parametrize(
    ("scored", "code", "told"),
    [
        ("0.651", 2, "write 0.651% for the first, 65.1 for the second"),
        ("1", 2, "write 1% for the first, 100 for the second"),
        ("0.651%", 0, "anls=0.006510"),
        ("65.1", 0, "anls=0.651000"),
        (" 65.1 %", 0, "anls=0.651000"),
        ("0", 0, "anls=0.000000"),
        ("651", 2, "a figure from 0 to 100 expected"),
        *((text, 2, "this is no figure") for text in ("nan", "inf", "-5", "65,1", "1e1", "٦٥")),
        ("9" * 5000, 2, "this is no figure"),
    ],
)
@pytest.mark.case("answers-and-data/28")
def test_a_fraction_is_not_taken_for_a_percentage(served, demo, scored, code, told):
    """Servers give fractions, tables show percentages; the sign says what is meant."""
    done = command("submit", "docvqa_test", served, "--data", demo, "--scored", scored)
    assert (code, True) == (done.returncode, told in done.stdout + done.stderr), done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory, demo):
    from test_submit import make_run

    folder = tmp_path_factory.mktemp("served") / "run"
    make_run(folder, task("docvqa_test"), demo)
    return folder


def test_a_fraction_of_cider_is_up_to_10():
    """Its tables show 121.4 for 1.214."""
    from eval.scoring.submission import parse_percentage

    assert 121.4 == parse_percentage("121.4", task("nocaps_test"))
    with pytest.raises(Exception, match=r"write 1\.214% for the first, 121\.4 for the second"):
        parse_percentage("1.214", task("nocaps_test"))


HOSTILE = {
    "deep": b"[" * 100_000,
    "nan": b'[{"questionId": NaN, "answer": "a"}]',
    "large id": b'[{"questionId": 123456789012345678901234, "answer": "a"}]',
    "negative id": b'[{"questionId": -1, "answer": "a"}]',
    "long id": b'[{"questionId": "%s", "answer": "a"}]' % (b"x" * 5000),
    "object": b'{"questionId": {}, "answer": "a"}',
    "text": b'[{"questionId": "1", "answer": {"a": 1}}]',
    "twice": b'[{"questionId": "1", "answer": "a", "answer": "b"}]',
    "binary": bytes(range(256)),
    "numbers": b"[1, 2]",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_of_answers_is_named(tmp_path, demo, content):
    """Exit code 2 and the file's name, whatever is in it."""
    file = write(tmp_path, "p.json", content)
    done = command("score", "--task", "gqa_testdev", "--data", demo, "--predictions", file)
    assert (2, True) == (done.returncode, str(file) in done.stderr), done.stderr


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "long", "gone"])
def test_what_is_no_file_is_named(tmp_path, demo, kind):
    """A pipe is not waited for, and a link in a circle is not followed for ever."""
    file = tmp_path / ("x" * 300 if kind == "long" else "p.json")
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    done = command("score", "--task", "gqa_testdev", "--data", demo, "--predictions", file)
    assert (2, True) == (done.returncode, str(file)[:200] in done.stderr), done.stderr


@pytest.mark.parametrize("kind", ["below a file", "long", "pipe", "not writable"])
def test_a_root_that_cannot_be_prepared_is_named(tmp_path, kind):
    """Exit code 2 before anything is fetched; a pipe in place of the guard is not waited for."""
    root, file = tmp_path / "root", write(tmp_path, "file", "")
    if kind == "pipe":
        root.mkdir()
        os.mkfifo(root / ".qwen-vl-eval.prepare")
    roots = {"below a file": file / "root", "long": tmp_path / ("x" * 300), "pipe": root}
    root = roots.get(kind, Path("/proc/root-of-data"))
    done = command("data", "prepare", "chartqa", "--data", root)
    assert (2, True) == (done.returncode, str(root)[:120] in done.stderr), done.stderr


@pytest.mark.parametrize(
    ("name", "file", "row", "message"),
    [
        (
            "refcoco_val",
            "refcoco/refcoco_val.jsonl",
            {"image": f"{'x' * 300}.jpg", "sent": "x", "height": 1, "width": 1, "bbox": [0] * 4},
            "a relative path below the data root",
        ),
        (
            "refcoco_val",
            "refcoco/refcoco_val.jsonl",
            {"image": "x.jpg", "sent": "x", "height": 2**63, "width": 1, "bbox": [0] * 4},
            "field 'height': an integer from 1 expected",
        ),
        (
            "chartqa_test_human",
            "chartqa/test_human.jsonl",
            {"image": "../../etc/passwd.png", "question": "?", "answer": "a"},
            "a relative path below the data root",
        ),
    ],
)
def test_a_hostile_record_is_named(tmp_path, name, file, row, message):
    """File, line and field: over-long and climbing paths, numbers beyond 64 bits."""
    write(tmp_path, file, row)
    done = command("run", name, "--model", "demo", "--data", tmp_path, "--out", tmp_path / "out")
    assert 2 == done.returncode, done.stderr
    assert f"line 1 of {tmp_path / file}" in done.stderr
    assert message in done.stderr


def test_an_empty_id_is_no_id(tmp_path):
    """An object's key names a question of GQA, and may be anything."""
    write(tmp_path, "gqa/testdev_balanced_questions.json", {"": {}})
    row = {"isBalanced": True, "imageId": "1", "question": "?", "answer": "a"}
    write(tmp_path, "gqa/testdev_balanced_questions.json", {"": row})
    with pytest.raises(DataError, match=r"sample 0 .* has the id ''"):
        verify(task("gqa_testdev"), tmp_path)


MIRROR = Source("m/**/val-*.parquet")


def rows(root, *columns):
    return [row.values for row in read_parquet(root, MIRROR, columns)]


def test_a_damaged_part_of_a_mirror_is_named(tmp_path):
    """The part, not only the pattern; other columns are passed over."""
    first = parquet(tmp_path / "m/val-00000-of-00002.parquet", a=[1, 2], b=[[1], None])
    second = parquet(tmp_path / "m/val-00001-of-00002.parquet", a=[3], b=[[4]])
    assert [{"a": 1}, {"a": 2}, {"a": 3}] == rows(tmp_path, "a")
    with pytest.raises(DataError, match=rf"{first}: columns a, c expected, c missing among 'a, b'"):
        rows(tmp_path, "a", "c")
    content = second.read_bytes()
    for damaged in (b"", b"PAR1", content[:-9], content[:4] + bytes(40) + content[44:]):
        second.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{second}: cannot be read as parquet"):
            rows(tmp_path, "a")


def test_damaged_sizes_of_a_column_are_an_error(tmp_path):
    """Asked for such a column's sizes pyarrow would end the process, without an exception."""
    file = tmp_path / "m/val-0.parquet"
    file.parent.mkdir()
    table = pyarrow.table({"a": [["x", "y"]] * 50})
    pyarrow.parquet.write_table(table, file, compression="none")
    content = file.read_bytes()
    start = len(content) - int.from_bytes(content[-8:-4], "little") - 8
    for place in range(start, start + 60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with contextlib.suppress(DataError):
            rows(tmp_path, "a")


def test_a_folder_whose_name_is_a_pattern_is_read(tmp_path):
    """What reads the tables takes a path for a pattern, and would find no row of `m/a[b]`."""
    parquet(tmp_path / "m/a[b]*/val-0.parquet", a=[1, 2])
    assert [{"a": 1}, {"a": 2}] == rows(tmp_path, "a")


def test_values_of_other_types_are_named(tmp_path):
    """Nested, binary, of a day, and NaN, which JSON could not hold."""
    nested = [{"x": [[1]]}]
    parquet(
        tmp_path / "m/val-0.parquet", nested=nested, raw=[b"x" * 9000], box=[[1.0, float("nan")]]
    )
    (row,) = read_parquet(tmp_path, MIRROR, ("nested", "raw", "box"))
    for fetch, message in (
        (lambda: row.text("nested"), "a string expected, an object found"),
        (lambda: row.integer("raw"), "an integer from 0 expected, b'xxx"),
        (lambda: row.numbers("box", 2), "2 numbers expected"),
    ):
        with pytest.raises(DataError, match=rf"row 0 of .*: {message}") as error:
            fetch()
        assert len(str(error.value)) < 500


def test_a_bomb_of_a_mirror_is_not_unpacked(tmp_path):
    """Eleven million equal values take some kilobytes in a file."""
    file = tmp_path / "m/val-0.parquet"
    file.parent.mkdir()
    table = pyarrow.table({"a": pyarrow.nulls(11_000_000)})
    pyarrow.parquet.write_table(table, file, row_group_size=60_000_000)
    assert file.stat().st_size < 1_000_000
    with pytest.raises(DataError, match=r"11,000,000 rows; .* a decompression bomb\?"):
        rows(tmp_path, "a")


def test_a_digest_may_be_of_a_file_larger_than_any_that_is_parsed(tmp_path):
    """COCO's archives have 13 GB; the bound is the caller's."""
    file = write(tmp_path, "a", b"12345")
    assert sha256_file(file, 5)
    with pytest.raises(DataError, match="5 bytes, more than the limit of 4"):
        sha256_file(file, 4)
