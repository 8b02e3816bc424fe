"""AI2D's letters are painted into the diagrams that questions need with them, and nothing else."""

import json

import pytest
from benchmark_data import RECORDED, picture, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from text_data import TASKS

from benchmarks import ai2d
from eval.data.verify import verify
from eval.errors import DataError

GROUND = (10, 120, 200)
BOX = (20, 30, 60, 60)


def letters(root, rectangle=((20, 30), (60, 60)), size=(100, 80)):
    """A diagram with one word that has a letter and one that has none."""
    texts = {
        "T0": {"id": "T0", "rectangle": rectangle, "replacementText": "A", "value": "leaf"},
        "T1": {"id": "T1", "rectangle": [[0, 0], [9, 9]], "replacementText": "", "value": "x"},
        "T2": {"id": "T2", "rectangle": [[70, 0], [79, 9]], "value": "a title"},
    }
    files = RECORDED["ai2d_test_lettered"]["layouts"][0]
    annotations = {"ai2d/annotations/12.png.json": {"imageName": "12.png", "text": texts}}
    write(root, files | annotations | {"ai2d/images/12.png": picture(GROUND, size)})


def pixels(path):
    with Image.open(path) as image:
        return {
            (x, y): image.getpixel((x, y)) for x in range(image.width) for y in range(image.height)
        }


def inside(place, box=BOX):
    return box[0] <= place[0] <= box[2] and box[1] <= place[1] <= box[3]


def test_letters_are_painted_where_words_are_replaced(tmp_path):
    """The box is white with a dark letter in its middle; the rest of the diagram is untouched."""
    letters(tmp_path)
    ai2d.lettered_pictures(tmp_path)
    found = pixels(tmp_path / "ai2d/images_lettered/12.png")
    assert {GROUND} == {value for place, value in found.items() if not inside(place)}
    box = {place: value for place, value in found.items() if inside(place)}
    border = {v for (x, y), v in box.items() if x in (BOX[0], BOX[2]) or y in (BOX[1], BOX[3])}
    assert {(255, 255, 255)} == border
    dark = [place for place, value in box.items() if max(value) < 64]
    assert 20 < len(dark) < len(box) / 2
    for side, middle in ((0, 40), (1, 45)):
        places = [place[side] for place in dark]
        assert abs((min(places) + max(places)) / 2 - middle) <= 3
    assert {GROUND} == set(pixels(tmp_path / "ai2d/images/12.png").values())
    faults = verify(TASKS["ai2d_test_lettered"], tmp_path).issues
    assert not [fault for fault in faults if "missing" in fault]


def test_painting_again_does_nothing_and_gives_the_same_bytes(tmp_path):
    """The step is repeatable, and two machines make one file."""
    target = tmp_path / "ai2d/images_lettered/12.png"
    letters(tmp_path, rectangle=[[60, 60], [20, 30]])  # corners in either order
    ai2d.lettered_pictures(tmp_path)
    made = target.read_bytes()
    target.write_bytes(b"ours")
    ai2d.lettered_pictures(tmp_path)
    assert target.read_bytes() == b"ours"
    target.unlink()
    letters(tmp_path)
    ai2d.lettered_pictures(tmp_path)
    assert made == target.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rectangle": [[1, 2]]}, "T0 in text in .*12.png.json: field 'rectangle': two corners"),
        ({"rectangle": [[1, 2], [3]]}, "field 'second corner': 2 numbers expected"),
        ({"rectangle": [["1", 2], [3, 4]]}, "field 'first corner': 2 numbers expected"),
        ({"replacementText": ["A"]}, "field 'replacementText': a string expected"),
        ({"replacementText": "A\nB"}, "field 'replacementText': a string like"),
    ],
)
def test_malformed_letters_are_errors(tmp_path, change, message):
    """No picture is left behind half painted."""
    letters(tmp_path)
    path = tmp_path / "ai2d/annotations/12.png.json"
    content = json.loads(path.read_text())
    content["text"]["T0"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        ai2d.lettered_pictures(tmp_path)
    assert not (tmp_path / "ai2d/images_lettered/12.png").exists()


def test_diagrams_that_cannot_be_read_are_errors(tmp_path):
    """Missing, or not a picture."""
    letters(tmp_path)
    path = tmp_path / "ai2d/images/12.png"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"12\.png: a picture expected, Unidentified"):
        ai2d.lettered_pictures(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"12\.png: a picture expected, no file found"):
        ai2d.lettered_pictures(tmp_path)


@settings(max_examples=40)
@given(
    box=st.tuples(*[st.floats(-1e9, 1e9) | st.integers(-20, 120)] * 4),
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20),
)
def test_any_box_and_letter_can_be_painted(tmp_path_factory, box, text):
    """Boxes outside the picture, of no size, letters of any script: a picture of the same size."""
    folder = tmp_path_factory.mktemp("paint")
    (folder / "in.png").write_bytes(picture(GROUND, (100, 80)))
    x1, y1, x2, y2 = box
    sides = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
    ai2d.paint(folder / "in.png", [(sides, text)], folder / "out.png")
    with Image.open(folder / "out.png") as image:
        assert image.size == (100, 80)
        if not text:
            assert image.getcolors() == [(8000, GROUND)]
