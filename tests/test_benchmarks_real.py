"""Real excerpts of the benchmarks are read, and give what is known of them."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import flickr30k, okvqa, refcoco, scienceqa, textvqa
from eval.data import read_json, read_predictions, unique

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"

pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason=f"real excerpts of the benchmarks are not at {SAMPLES}"
)


def place(root, source, path):
    """Put a real file where a task looks for it."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SAMPLES / source, target)


def test_flickr30k_layouts_agree_on_real_captions(tmp_path):
    """All 1,000 images in the converted layout; the 60 in Karpathy's are the same."""
    place(tmp_path, "flickr30k/dataset_flickr30k_first60test.json", flickr30k.OFFICIAL.path)
    place(tmp_path, "flickr30k/flickr30k_karpathy_test.json", flickr30k.CONVERTED.path)
    converted = list(unique(flickr30k.converted(tmp_path), "flickr30k_test"))
    official = list(unique(flickr30k.official(tmp_path), "flickr30k_test"))
    expected = (1000, 60, {5})
    assert expected == (len(converted), len(official), {len(s.reference) for s in converted})
    assert converted[:60] == official
    predicted = read_predictions(SAMPLES / "flickr30k/predictions_viecap_coco_train_1.json")
    assert [sample.id for sample in converted] == [sample_id for sample_id, _ in predicted]


def test_textvqa_val_is_read_whole(tmp_path):
    """All 5,000 questions, without a gap in their numbers, and a published model's answers."""
    place(tmp_path, "textvqa/TextVQA_0.5.1_val_compact.json", textvqa.OFFICIAL.path)
    samples = list(unique(textvqa.official(tmp_path), "textvqa_val"))
    assert [str(number) for number in range(34602, 39602)] == [sample.id for sample in samples]
    expected = ({10}, 3166)
    images = {sample.fields["image"] for sample in samples}
    assert expected == ({len(sample.reference) for sample in samples}, len(images))
    predicted = read_predictions(SAMPLES / "textvqa/predictions_llava-v1.5-13b.jsonl")
    assert [sample.id for sample in samples] == [sample_id for sample_id, _ in predicted]


def test_scienceqa_keeps_the_questions_with_an_image(tmp_path):
    """50 of the 70 real problems have one, and the answers agree with those of the test set."""
    place(tmp_path, "scienceqa/problems.json", scienceqa.PROBLEMS.path)
    place(tmp_path, "scienceqa/pid_splits.json", scienceqa.SPLITS.path)
    samples = list(unique(scienceqa.official(tmp_path), "scienceqa_test_img"))
    expected = 50
    assert expected == len(samples)
    for sample in samples:
        assert (SAMPLES / sample.images[0]).is_file()
    lines = (SAMPLES / "scienceqa/llava-v1.5-13b_all4241.jsonl").read_text().splitlines()
    truth = {row["question_id"]: row for row in map(json.loads, lines)}
    assert [truth[s.id]["ground_truth"] for s in samples] == [s.reference for s in samples]
    assert all(truth[sample.id]["is_multimodal"] for sample in samples)


@pytest.mark.parametrize("split", ["val", "testA", "testB"])
def test_refcoco_converted_records_are_the_official_ones(tmp_path, split):
    """The circulating variant ("hw", another folder) has the same phrases, boxes and sizes."""
    task = {task.name: task for task in refcoco.TASKS}[f"refcoco_{split}"]
    place(tmp_path, f"refcoco/qwen_format/refcoco_{split}.jsonl", f"refcoco/refcoco_{split}.jsonl")
    samples = list(unique(task.layout(tmp_path).read(tmp_path), task.name))
    lines = (SAMPLES / f"refcoco/REC_refcoco_unc_{split}_first150.jsonl").read_text().splitlines()
    expected = [
        (
            f"coco/train2014/{row['img_path']}",
            row["expression"],
            {"box": row["bbox"], "width": row["width"], "height": row["height"]},
        )
        for row in map(json.loads, lines[:50])
    ]
    assert expected == [(s.fields["image"], s.fields["expression"], s.reference) for s in samples]


def test_okvqa_questions_are_read_with_ten_answers_each(tmp_path):
    """The 606 real questions; the ten answers are put together from published soft labels."""
    place(tmp_path, "okvqa/OpenEnded_mscoco_val2014_questions_sample.json", okvqa.QUESTIONS.path)
    labels = json.loads((SAMPLES / "okvqa/soft_labels_lxmert.json").read_text())
    annotations = []
    for row in labels:
        texts = [text for text, share in row["label"].items() for _ in range(round(3 * share))]
        texts = (texts + ["something else"] * 10)[:10]
        answers = [{"answer": text, "answer_id": n} for n, text in enumerate(texts, 1)]
        annotations.append({"question_id": row["question_id"], "answers": answers})
    (tmp_path / okvqa.ANSWERS.path).write_text(json.dumps({"annotations": annotations}))
    samples = list(unique(okvqa.official(tmp_path), "okvqa_val"))
    assert (606, {10}) == (len(samples), {len(sample.reference) for sample in samples})
    for name in ("VinVLTag", "5GT"):
        predicted = read_predictions(SAMPLES / f"okvqa/predictions_pica_{name}.json")
        assert {sample.id for sample in samples} == {sample_id for sample_id, _ in predicted}
    images = {path.name for path in (SAMPLES / "okvqa/images").iterdir()}
    assert images <= {Path(sample.images[0]).name for sample in samples}
    stems = {f"coco/val2014/{row['img_id']}.jpg" for row in labels}
    assert stems == {sample.images[0] for sample in samples}


def test_a_phrase_of_grit_fits_the_refcoco_layout(tmp_path):
    """A user's own picture and phrase in a converted record: GRIT's published example."""
    (example,) = read_json(SAMPLES / "grit/examples/samples.json").records("refexp")
    row = {
        "image": f"data/grit/{example.record('input').text('image_path')}",
        "sent": example.record("input").text("task_query"),
        "bbox": example.record("gt").values["bboxes"][0],
        "hw": [480, 640],
    }
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco/refcoco_val.jsonl").write_text(json.dumps(row))
    (sample,) = refcoco.TASKS[0].layout(tmp_path).read(tmp_path)
    expected = "<img>grit/examples/images/refexp_1.png</img><ref>white cat</ref><box>"
    assert expected == refcoco.TASKS[0].request(sample).prompt
    assert (SAMPLES / sample.images[0]).is_file()
