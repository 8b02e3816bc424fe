"""From the command line on real records: official files, real pictures, real models' answers."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small import command, make_checkpoint

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(),
    reason="the real samples are not beside this checkout; they may not be committed",
)


def output_of(*arguments):
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(path):
    return json.loads((SAMPLES / path).read_text(encoding="utf-8"))


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder made of the samples that come with pictures."""
    root = tmp_path_factory.mktemp("data")
    images = root / "coco" / "val2014"
    shutil.copytree(SAMPLES / "okvqa" / "images", images)
    have = {int(path.stem.rpartition("_")[2]) for path in images.iterdir()}
    questions = read("okvqa/OpenEnded_mscoco_val2014_questions_sample.json")
    questions["questions"] = [q for q in questions["questions"] if q["image_id"] in have]
    write(root / "okvqa" / "OpenEnded_mscoco_val2014_questions.json", questions)
    labels = {r["question_id"]: r["label"] for r in read("okvqa/soft_labels_lxmert.json")}
    annotations = []  # the ten answers were not published there: thirds of a label, then filler
    for question in questions["questions"]:
        label = labels.get(question["question_id"], {})
        texts = [text for text, third in label.items() for _ in range(round(3 * third))]
        texts = (texts + ["unknown"] * 10)[:10]
        answers = [{"answer": text, "answer_id": n} for n, text in enumerate(texts, 1)]
        annotations.append({"question_id": question["question_id"], "answers": answers})
    write(root / "okvqa" / "mscoco_val2014_annotations.json", {"annotations": annotations})

    sample = read("grit/examples/samples.json")["refexp"][0]
    picture = SAMPLES / "grit" / sample["input"]["image_path"]
    (root / "grit").mkdir()
    shutil.copy(picture, root / "grit")
    with Image.open(picture) as image:
        width, height = image.size
    record = {
        "image": f"grit/{picture.name}",
        "sent": sample["input"]["task_query"],
        "bbox": sample["gt"]["bboxes"][0],
        "width": width,
        "height": height,
    }
    write(root / "refcoco" / "refcoco_val.jsonl", record)

    shutil.copytree(SAMPLES / "scienceqa" / "images", root / "scienceqa" / "images")
    for name in ("problems.json", "pid_splits.json"):
        shutil.copy(SAMPLES / "scienceqa" / name, root / "scienceqa")
    (root / "textvqa").mkdir()
    compact = SAMPLES / "textvqa" / "TextVQA_0.5.1_val_compact.json"
    shutil.copy(compact, root / "textvqa" / "TextVQA_0.5.1_val.json")
    (root / "flickr30k").mkdir()
    shutil.copy(SAMPLES / "flickr30k" / "flickr30k_karpathy_test.json", root / "flickr30k")
    return root


def test_run_on_real_records(data, tmp_path):
    """OK-VQA's questions on COCO photographs, GRIT's expression, ScienceQA: all are answered."""
    checkpoint = make_checkpoint(tmp_path / "small")
    tasks = {"okvqa_val": 6, "refcoco_val": 1, "scienceqa_test_img": 50}
    more = ["--model", checkpoint, "--data", data, "--allow-partial", "--out", tmp_path / "run"]
    out = output_of("run", *tasks, *more)
    for task, images in tasks.items():
        summary = json.loads((tmp_path / "run" / task / "summary.json").read_text())
        predictions = (tmp_path / "run" / task / "predictions.jsonl").read_text().splitlines()
        assert images == summary["images"]
        assert len(predictions) == summary["samples"] >= images
        assert f"n={summary['samples']} of=" in out


@pytest.mark.parametrize(
    ("task", "predictions", "figure", "digits"),
    [
        ("textvqa_val", "textvqa/predictions_llava-v1.5-13b.jsonl", 0.59176, 5),
        ("flickr30k_test", "flickr30k/predictions_viecap_coco_train_1.json", 0.3812, 4),
    ],
)
def test_score_real_predictions(data, task, predictions, figure, digits):
    """Real models' published answers get the figures that others computed for them."""
    out = output_of("score", "--task", task, "--data", data, "--predictions", SAMPLES / predictions)
    name, _, value = out.split()[1].partition("=")
    assert name in ("vqa_accuracy", "cider")
    assert figure == round(float(value), digits)
