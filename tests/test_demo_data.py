"""The demo's data are read by the real loaders, and its checkpoint by the real runtime."""

import base64
import io
import json
from pathlib import Path

import pandas
import pytest
from PIL import Image

from benchmarks import flickr30k, okvqa, scienceqa, textvqa
from eval import Build
from eval.data.verify import verify
from eval.demo import data
from eval.demo.data import demo_seeds, write_demo_data
from eval.demo.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS
from eval.demo.writer import SIZES
from eval.errors import DataError
from eval.plugins import find_tasks
from eval.report.card import card_columns, load_card

TASKS = {task.name: task for task in find_tasks(["all", "touchstone_cn"])}
CHECKPOINT = Path(data.__file__).parent / "checkpoint"


def draw_and_build(folder):
    """TouchStone's tables are drawn; its index and pictures are made of them, as of real ones."""
    write_demo_data(folder)
    for name in ("touchstone_en", "touchstone_cn"):
        for step in TASKS[name].steps:
            if isinstance(step, Build):
                step.make(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw_and_build(tmp_path_factory.mktemp("demo") / "data")


def samples(root, name):
    return list(TASKS[name].layout(root).read(root))


def test_every_column_of_the_card_is_drawn():
    """And every task that is offered is drawn too."""
    wanted = {task for column in card_columns(load_card()) for task in column.tasks}
    assert wanted <= SIZES.keys()
    assert TASKS.keys() == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_only_the_counts_are_not_the_official_split_s(root, name):
    """Every identity check of a benchmark holds on the drawn data, which thus exercise it."""
    converted = name.startswith("refcoco_")
    assert ("converted" if converted else "official") == TASKS[name].layout(root).name
    faults = [f for f in verify(TASKS[name], root).issues if "expected" not in f]
    assert faults == ["drawn by the demo"]


@pytest.mark.parametrize("name", SIZES)
def test_loaders_read_it(root, name):
    """The real loaders find as many samples as planned, unique ids, and images that open."""
    found = samples(root, name)
    assert len(found) == SIZES[name]
    assert len({sample.id for sample in found}) == len(found)
    for path in {path for sample in found for path in sample.images}:
        with Image.open(root / path) as image:
            image.load()
            assert image.mode == "RGB"


def test_written_twice_is_the_same_bytes(root, tmp_path):
    draw_and_build(tmp_path / "again")
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "again")
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    )
    for path in files:
        assert (root / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path


def test_complete_data_are_left_alone(root):
    """A second call does nothing: no file is touched."""
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_demo_data(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_data_of_another_seed_are_replaced(tmp_path):
    path = tmp_path / "d" / "refcoco" / "refcoco_val.jsonl"
    write_demo_data(tmp_path / "d", seed=2)
    before = path.read_bytes()
    write_demo_data(tmp_path / "d")
    assert path.read_bytes() != before
    assert json.loads((tmp_path / "d" / "demo.json").read_text())["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_real_data_are_never_touched(tmp_path):
    """A folder that holds anything else is refused: it may be somebody's data root."""
    (tmp_path / "okvqa").mkdir()
    with pytest.raises(DataError, match="a new or empty folder expected"):
        write_demo_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["okvqa"]


def test_seeds_are_held_out():
    """No data seed reaches into training's seeds, or those that training checks itself on."""
    checked = set(HELD_OUT_SEEDS[-data.CHECKED :])
    for seed in (0, 1, 498):
        seeds = set(demo_seeds(seed))
        assert seeds <= set(HELD_OUT_SEEDS)
        assert seeds.isdisjoint(checked)
        assert min(seeds) >= TRAINING_SEEDS.stop
    assert set(demo_seeds(0)).isdisjoint(demo_seeds(1))
    for seed in (-1, 499, 10**9):
        with pytest.raises(DataError, match="from 0 to 498"):
            demo_seeds(seed)


def test_okvqa_follows_the_official_shape(root):
    """Ten numbered answers; a question's id is its image's times ten plus a digit."""
    rows = json.loads((root / okvqa.ANSWERS.path).read_text())["annotations"]
    for row in rows:
        assert [answer["answer_id"] for answer in row["answers"]] == list(range(1, 11))
        assert row["question_id"] // 10 == row["image_id"]


def test_textvqa_ids_run_without_gap(root):
    rows = json.loads((root / textvqa.OFFICIAL.path).read_text())["data"]
    assert [row["question_id"] for row in rows] == list(range(34602, 34602 + len(rows)))
    assert all(len(row["answers"]) == 10 for row in rows)


def test_right_answers_are_most_of_the_ten(root):
    """At most three of ten humans differ, so a right answer scores full marks."""
    for name in ("okvqa_val", "textvqa_val"):
        for sample in samples(root, name):
            answers = sample.reference
            assert max(answers.count(answer) for answer in answers) >= 7


def test_scienceqa_has_problems_to_filter_out(root):
    problems = json.loads((root / scienceqa.PROBLEMS.path).read_text())
    assert any(row["image"] is None for row in problems.values())
    assert {row["split"] for row in problems.values()} == {"train", "val", "test"}
    splits = json.loads((root / scienceqa.SPLITS.path).read_text())
    assert sorted(pid for pids in splits.values() for pid in pids) == sorted(problems)


def test_flickr30k_has_other_splits_to_filter_out(root):
    images = json.loads((root / flickr30k.OFFICIAL.path).read_text())["images"]
    assert {row["split"] for row in images} == {"train", "val", "test"}
    ids = [number for row in images for number in row["sentids"]]
    assert ids == list(range(5 * len(images)))
    for row in images:
        assert len({s["raw"] for s in row["sentences"]}) == 5
        assert (root / "flickr30k/flickr30k-images" / row["filename"]).is_file()


@pytest.mark.parametrize(
    ("name", "rows"), [("touchstone_20230831", "touchstone_en"), ("touchstone_cn", "touchstone_cn")]
)
def test_touchstone_has_the_published_columns(root, name, rows):
    """All five categories, rows of two, pictures that several rows share, rows of two pictures."""
    table = pandas.read_csv(root / "touchstone" / f"{name}.tsv", sep="\t")
    assert list(table.columns) == [
        "index",
        "image",
        "question",
        "human_annotation",
        "gpt4_ha_answer",
        "category",
        "task_name",
    ]
    assert not table.isna().any().any()
    assert list(range(SIZES[rows])) == list(table["index"])
    categories = [part for cell in table["category"] for part in cell.split(",")]
    assert {
        "Basic Descriptive Ability",
        "Visual Recognition Ability",
        "Visual Comprehension Ability",
        "Visual Storytelling Ability",
        "Multi-image Analysis Ability",
    } == set(categories)
    assert len(categories) > len(table)
    assert table["image"].nunique() < len(table) - 2
    for cell, category in zip(table["image"], table["category"], strict=True):
        several = category == "Multi-image Analysis Ability"
        pictures = json.loads(cell) if several else [cell]
        assert (2 if several else 1) == len(pictures)
        for picture in pictures:
            with Image.open(io.BytesIO(base64.b64decode(picture, validate=True))) as image:
                assert image.mode == "RGB"


def test_touchstone_s_reference_answers_are_right(root):
    """Spot checks of sentences that are put together, against what was drawn."""
    table = pandas.read_csv(root / "touchstone" / "touchstone_20230831.tsv", sep="\t")
    for row in table.itertuples():
        told = row.human_annotation
        if row.question.startswith("What color is the"):
            shape, _, color = row.gpt4_ha_answer[4:-1].partition(" is ")
            assert f"{color} {shape}" in told or f"large {color} characters" in told
        elif row.question.startswith("Is there a "):
            yes = row.question[len("Is there a ") : -1] in told
            assert ("Yes" if yes else "No") == row.gpt4_ha_answer.partition(",")[0] or (
                "both" in row.question
            )
        elif row.question.startswith("what is the value"):
            color = row.question.split()[-2]
            value = row.gpt4_ha_answer.split()[-1]
            assert f"a {color} bar with the value {value.removesuffix('.')}" in told


@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_boxes_lie_inside_their_images(root, split):
    for sample in samples(root, f"refcoco_{split}"):
        box = sample.reference
        with Image.open(root / sample.images[0]) as image:
            assert image.size == (box["width"], box["height"])
        x1, y1, x2, y2 = box["box"]
        assert 0 <= x1 < x2 <= box["width"]
        assert 0 <= y1 < y2 <= box["height"]


def test_refcoco_splits_differ_by_kind_of_object(root):
    """As in the real data: testA refers to one kind of object, testB to the others."""
    last = {
        split: {s.fields["expression"].split()[-1] for s in samples(root, f"refcoco_{split}")}
        for split in ("val", "testA", "testB")
    }
    assert last["testA"].isdisjoint(last["testB"])
    assert last["testA"] | last["testB"] == last["val"]


def test_checkpoint_is_small_and_exactly_the_architecture():
    """At most 12 MB, published names and no others, two shards, and it answers."""
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    from eval.demo.scenes import draw_scene, make_scene
    from eval.runtime import QwenVL
    from eval.runtime.checkpoint import find_checkpoint

    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 12_000_000
    model = QwenVL.from_pretrained(CHECKPOINT)
    index = json.loads((CHECKPOINT / "model.safetensors.index.json").read_text())
    names = {name for name, _ in model.model.named_parameters()}
    assert set(index["weight_map"]) == names
    assert len(set(find_checkpoint(CHECKPOINT).weight_files().values())) == 2
    total = 0
    for shard in sorted(set(index["weight_map"].values())):
        with safe_open(CHECKPOINT / shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # a shard is no dict
                tensor = file.get_tensor(name)
                assert tensor.dtype == torch.bfloat16
                assert index["weight_map"][name] == shard
                total += tensor.nbytes
    assert index["metadata"]["total_size"] == total
    assert model.encode_images([draw_scene(make_scene(1, "shapes"))]).shape == (1, 256, 256)
