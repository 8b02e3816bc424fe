"""Real excerpts of the benchmarks are read, and give what is known of them."""

import json
from pathlib import Path

import pytest
from benchmark_data import SAMPLES, place, real

from benchmarks import flickr30k, gqa, nocaps, okvqa, refcoco, scienceqa, textvqa
from eval.data import coco_captions, read_json, read_predictions, unique
from eval.data.verify import verify
from eval.run.requests import render_request

pytestmark = real


def test_flickr30k_layouts_agree_on_real_captions(tmp_path):
    """All 1,000 images in the converted layout; the 60 in Karpathy's are the same."""
    place(tmp_path, "flickr30k/dataset_flickr30k_first60test.json", flickr30k.OFFICIAL.path)
    source = flickr30k.CONVERTED[0]
    place(tmp_path, "flickr30k/flickr30k_karpathy_test.json", source.path)
    converted = list(unique(flickr30k.converted(source, tmp_path), "flickr30k_test"))
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


def test_nocaps_in_domain_is_read_with_ten_captions_each(tmp_path):
    """417 real images; a model's published captions name the same ones, in the same order."""
    place(tmp_path, "nocaps/nocaps_val_in_domain.json", nocaps.OFFICIAL["val"].path)
    task = nocaps.TASKS[0]
    samples = list(unique(task.layout(tmp_path).read(tmp_path), task.name))
    assert (417, {10}) == (len(samples), {len(sample.reference) for sample in samples})
    assert [{"domain": "in-domain"}] * 417 == [sample.groups for sample in samples]
    assert "nocaps/images/0013ea2087020901.jpg" == samples[0].fields["image"]
    assert "A baby is standing in front of a house." == samples[0].reference[0]
    file = "nocaps/predictions_viecap_coco_train_1_in_domain.json"
    predicted = read_predictions(SAMPLES / file)
    assert [sample.id for sample in samples] == [sample_id for sample_id, _ in predicted]


def test_nocaps_in_domain_alone_is_not_val(tmp_path):
    """A part that a paper may well call val is told from the whole, by each of its counts."""
    place(tmp_path, "nocaps/nocaps_val_in_domain.json", nocaps.OFFICIAL["val"].path)
    expected = [
        "samples: 4,500 expected, 417 found",
        "images: 4,500 expected, 417 found",
        "answers: 45,000 expected, 4,170 found",
        "domain 'in-domain': 648 expected, 417 found",
        "domain 'near-domain': 2,938 expected, 0 found",
        "domain 'out-domain': 914 expected, 0 found",
    ]
    assert expected == list(verify(nocaps.TASKS[0], tmp_path).issues[:-1])


def test_coco_captions_are_those_of_the_images_that_are_named():
    """500 real images, 2,501 captions; two models' published captions name the same images."""
    file = read_json(SAMPLES / "coco_caption/captions_karpathy_test_subset.json")
    captions = coco_captions(file)
    assert (500, 2501) == (len(captions), sum(map(len, captions.values())))
    assert {row.id("id") for row in file.records("images")} == set(captions)
    expected = "A man with a red helmet on a small moped on a dirt road. "
    assert expected == captions["391895"][0]
    for name in ("vinvl_base", "viecap_coco_train_1"):
        predicted = read_predictions(SAMPLES / f"coco_caption/predictions_{name}.json")
        assert set(captions) == {sample_id for sample_id, _ in predicted}


def test_gqa_official_records_are_read_with_their_types(tmp_path):
    """Two complete records, and their images under the names that the records give."""
    place(tmp_path, "gqa/questions_sample.json", gqa.OFFICIAL.path)
    task = gqa.TASKS[0]
    found = list(task.layout(tmp_path).read(tmp_path))
    expected = [
        ("202218649", "gqa/images/n578564.jpg", "What is hanging above the chalkboard?", "picture"),
        ("02930152", "gqa/images/2354786.jpg", "Is the sky dark?", "yes"),
    ]
    assert expected == [(s.id, s.fields["image"], s.fields["question"], s.reference) for s in found]
    assert all(set(sample.groups) == {"structural", "semantic"} for sample in found)
    assert all((SAMPLES / sample.images[0]).is_file() for sample in found)


def test_gqa_real_questions_fit_the_converted_layout(tmp_path):
    """800 questions of testdev, their numbers and images; the answers stand for those not here."""
    file = SAMPLES / "gqa/testdev_balanced_llava-v1.5-13b_first800.jsonl"
    rows = list(map(json.loads, file.read_text().splitlines()))
    path = tmp_path / gqa.CONVERTED.path
    path.parent.mkdir()
    lines = [
        {**row, "image": f"data/gqa/images/{row['image']}", "answer": row["prediction"].lower()}
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = gqa.TASKS[0]
    samples = list(unique(task.layout(tmp_path).read(tmp_path), task.name))
    expected = [(row["question_id"], f"gqa/images/{row['image']}") for row in rows]
    assert expected == [(sample.id, sample.images[0]) for sample in samples]
    assert 800 == len(samples)


def test_scienceqa_groups_are_the_real_subjects_and_grades(tmp_path):
    """Figures by subject and grade are what the paper reports; every problem tells both."""
    place(tmp_path, "scienceqa/problems.json", scienceqa.PROBLEMS.path)
    place(tmp_path, "scienceqa/pid_splits.json", scienceqa.SPLITS.path)
    samples = list(scienceqa.official(tmp_path))
    subjects = {"natural science", "social science", "language science"}
    assert subjects >= {sample.groups["subject"] for sample in samples}
    grades = {f"grade{number}" for number in range(1, 13)}
    assert grades >= {sample.groups["grade"] for sample in samples}


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
    assert expected == render_request(refcoco.TASKS[0], sample).prompt
    assert (SAMPLES / sample.images[0]).is_file()
