"""Each way in which data on disk are not the official split's is found, and said."""

import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from eval.api import Generate
from eval.data.declare import Expect, Layout, Sample, Source, Task
from eval.data.pins import Pinned, Pins
from eval.data.verify import pin_sources, verify
from eval.errors import DataError


def picture():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


def read(root):
    for number in json.loads((root / "toy.json").read_text()):
        yield Sample(
            str(number), {"image": f"{number}.png"}, ["a", "b"], groups={"kind": f"k{number % 2}"}
        )


TASK = Task(
    name="toy_val",
    size=3,
    layouts=(Layout((Source("toy.json"),), read),),
    prompt="{image}",
    decode=Generate(1),
    metrics={},
    expect=Expect(
        images=3,
        answers=6,
        groups={"kind": {"k0": 1, "k1": 2}},
        each=lambda sample: "9 is no digit here" if sample.id == "9" else None,
    ),
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "toy.json").write_text("[1, 2, 3]")
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(picture())
    return tmp_path


def faults(root, **options):
    return verify(TASK, root, **options).issues


def test_right_data(root):
    """Counts are told, and no fault."""
    found = verify(TASK, root, open_pictures=True, digests=True)
    assert (3, 3, 6, (), "official") == (
        found.samples,
        found.images,
        found.answers,
        found.issues,
        found.layout,
    )


def test_counts_and_identity(root):
    """Samples, images, answers, groups and each sample's own check."""
    (root / "toy.json").write_text("[1, 9]")
    (root / "9.png").write_bytes(picture())
    assert (
        "samples: 3 expected, 2 found",
        "images: 3 expected, 2 found",
        "answers: 6 expected, 4 found",
        "kind 'k0': 1 expected, 0 found",
        "1 samples are not of this split: sample 9: 9 is no digit here",
    ) == faults(root)


def test_limit_compares_no_counts(root):
    """A run of the first samples is not a run of a wrong split."""
    (root / "3.png").unlink()
    assert () == faults(root, limit=2)
    assert 2 == verify(TASK, root, limit=2).samples


def test_ids_stand_once(root):
    """The same id twice is an error."""
    (root / "toy.json").write_text("[1, 1]")
    with pytest.raises(DataError, match="'1' found again"):
        faults(root)


def test_missing_and_damaged_pictures(root):
    """A missing one is always found, a damaged one when pictures are opened."""
    (root / "1.png").unlink()
    (root / "2.png").write_bytes(picture()[:-30])
    (missing,) = faults(root)
    assert "1 of 3 images are missing: 1.png" == missing
    assert missing == faults(root, open_pictures=True)[0]
    assert "1 images cannot be shown to a model: 2.png (" in faults(root, open_pictures=True)[1]


def test_pinned_files(root):
    """Files that a person brought are pinned once; a change is then a fault."""
    assert (1, 0) == (pin_sources(TASK, root), pin_sources(TASK, root))
    assert {"toy.json"} == Pins.read(root).files.keys()
    (root / "toy.json").write_text("[3, 2, 1]")
    (fault,) = faults(root, digests=True)
    assert fault.startswith("toy.json: sha256 ")
    assert () == faults(root)


def test_pinned_pictures(root):
    """A picture that was fetched singly is compared when it is opened."""
    Pins.read(root).pin({"2.png": Pinned("0" * 64, 1)})
    (fault,) = faults(root, open_pictures=True, digests=True)
    assert "2.png (not the file that is pinned in qwen-vl-eval.lock.json)" in fault


def test_a_group_has_as_many_values_as_it_should(tmp_path):
    """TouchStone has 27 kinds of task: another number is another set."""
    rows = [Sample(str(n), {"question": "?"}, groups={"kind": f"{n % 3}"}) for n in range(6)]
    layout = Layout((), lambda _root: iter(rows))
    for expected, faults in ((3, ()), (4, ("values of kind: 4 expected, 3 found",))):
        expect = Expect(distinct={"kind": expected})
        task = replace(TASK, layouts=(layout,), size=6, expect=expect)
        assert faults == verify(task, tmp_path).issues
