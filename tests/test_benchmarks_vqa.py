"""VQAv2, VizWiz, OK-VQA and TextVQA: every layout is one benchmark, asked as published."""

import copy
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from benchmark_data import RECORDED, SAMPLES, place, read, real, recorded, write
from vqa_data import CASES, IN_MIRROR, TASKS, TRAINING, mirror_tables

from benchmarks import okvqa, textvqa, vqav2
from eval import Archive, Download, Generate, Mirror, Sample
from eval.data import Examples, read_predictions, unique
from eval.data.verify import verify
from eval.demo.data import write_demo_data
from eval.errors import DataError
from eval.run.requests import render_request


@pytest.mark.parametrize(("name", "number"), CASES)
def test_every_layout_of_files_gives_the_recorded_samples(tmp_path, name, number):
    """The official files and the converted ones are one benchmark, record by record."""
    write(tmp_path, RECORDED[name]["layouts"][number])
    assert recorded(name) == read(TASKS[name], tmp_path)


@pytest.mark.parametrize("name", TASKS)
def test_every_mirror_gives_the_recorded_samples_and_pictures(tmp_path, name):
    """Real parquet; a mirror's picture is written once, where the official layout has it."""
    pictures = mirror_tables(tmp_path, name, lambda sample: Path(sample.images[0]).name)
    (layout,) = [each for each in TASKS[name].layouts if each.complete(tmp_path)]
    assert "mirror" == layout.name
    assert recorded(name) == read(TASKS[name], tmp_path)
    found = list(layout.pictures(tmp_path))
    assert pictures == dict(found)
    assert len(pictures) == len(found)


def test_an_okvqa_mirror_may_lose_the_names_of_its_pictures(tmp_path):
    """Their bytes name them then; questions, answers and numbers stay."""
    pictures = mirror_tables(tmp_path, "okvqa_val")
    (layout,) = [each for each in TASKS["okvqa_val"].layouts if each.complete(tmp_path)]
    found = dict(layout.pictures(tmp_path))
    for sample, expected in zip(
        read(TASKS["okvqa_val"], tmp_path), recorded("okvqa_val"), strict=True
    ):
        assert re.fullmatch(r"okvqa/mirror/[0-9a-f]{16}\.jpg", sample.images[0])
        assert pictures[expected.images[0]] == found[sample.images[0]]
        named = replace(sample, fields={**sample.fields, "image": expected.images[0]})
        assert expected == named
        assert TASKS["okvqa_val"].expect.each(sample) is None


def test_vizwiz_mirror_may_name_pictures_with_their_ending(tmp_path):
    """Its question_id is taken either way, so that no version of the mirror is another task."""
    mirror_tables(tmp_path, "vizwiz_val", question_id="VizWiz_val_00000007.jpg")
    assert recorded("vizwiz_val") == read(TASKS["vizwiz_val"], tmp_path)


@pytest.mark.parametrize("name", TASKS)
def test_every_layout_has_golden_files(name):
    """A layout without golden data would be read by nobody before a user does."""
    kinds = [layout.name for layout in TASKS[name].layouts]
    assert kinds == [kind for kind in ("official", "converted", "mirror") if kind in kinds]
    files = [layout for layout in TASKS[name].layouts if layout.name != "mirror"]
    expected = {frozenset(source.path for source in layout.sources) for layout in files}
    assert expected == {frozenset(written) for written in RECORDED[name]["layouts"]}


@pytest.mark.parametrize("name", TASKS)
def test_prompts_are_the_published_ones(name):
    """Byte for byte, in both protocols; a question's braces and marks stand as they are."""
    for sample in recorded(name):
        image, question = sample.fields["image"], sample.fields["question"]
        published = f"<img>{image}</img>{question} Answer:"
        assert published == render_request(TASKS[name], sample).prompt
        chat = render_request(TASKS[name], sample, "chatml")
        assert (True, f"Picture 1: <img>{image}</img>\n{question}") == (chat.chat, chat.prompt)
    assert RECORDED[name]["prompt"] == render_request(TASKS[name], recorded(name)[0]).prompt


def test_the_tasks_are_those_of_the_card():
    """Samples, images, human answers: what tells the official splits from others' files."""
    expected = {
        "vqav2_val": (214354, 40504, 2143540),
        "vqav2_testdev": (107394, 36807, None),
        "vqav2_test": (447793, 81434, None),
        "vizwiz_val": (4319, 4319, 43190),
        "vizwiz_test": (8000, 8000, None),
        "okvqa_val": (5046, 5033, 50460),
        "textvqa_val": (5000, 3166, 50000),
    }
    actual = {n: (t.size, t.expect.images, t.expect.answers) for n, t in TASKS.items()}
    assert expected == actual
    for task in TASKS.values():
        assert Generate(max_new_tokens=10, min_new_tokens=1) == task.decode
        assert ["vqa_accuracy", "vqa_accuracy_official"] == list(task.metrics)
    served = [name for name, task in TASKS.items() if task.submission]
    assert ["vqav2_testdev", "vqav2_test", "vizwiz_test"] == served


def test_both_rules_of_scoring_are_told_apart():
    """Humans' "Two" is never met by the published rules and is by the official ones."""
    for task in TASKS.values():
        values = [metric("2", ["Two"] * 9 + ["3"]) for metric in task.metrics.values()]
        assert [0.0, 1.0] == values


def test_vizwiz_tells_which_questions_can_be_answered(tmp_path):
    """As text, for figures by group; a file without it has no such group."""
    files = copy.deepcopy(RECORDED["vizwiz_val"]["layouts"][0])
    for row, value in zip(files["vizwiz/val.json"], (1, 0), strict=True):
        row["answerable"] = value
    write(tmp_path, files)
    actual = [sample.groups["answerable"] for sample in read(TASKS["vizwiz_val"], tmp_path)]
    assert ["1", "0"] == actual


def test_steps_keep_the_files_that_the_layouts_read():
    """Each official file is the end of what one step keeps or fetches, and the mirror's too."""
    for task in TASKS.values():
        official, *_, mirror = task.layouts
        archives = [step for step in task.steps if isinstance(step, Archive)]
        for source in official.sources:
            kept = [
                step
                for step in archives
                if re.fullmatch(step.keep, source.path.removeprefix(f"{step.into}/"))
            ]
            fetched = [
                step
                for step in task.steps
                if isinstance(step, Download) and step.path == source.path
            ]
            assert 1 == len(kept) + len(fetched), source.path
        image = recorded(task.name)[0].images[0]
        (archive,) = [
            step
            for step in task.steps
            if isinstance(step, Archive)
            and re.fullmatch(step.keep, image.removeprefix(f"{step.into}/"))
        ]
        assert archive.gb > 1
        (step,) = [step for step in task.steps if isinstance(step, Mirror)]
        part = f"{IN_MIRROR[task.name][0]}-00000-of-00001.parquet"
        assert Path(part).match(step.files.removeprefix("**/"))
        assert mirror.sources[0].path == f"{step.into}/{step.files}"


@pytest.mark.parametrize("name", TRAINING)
def test_examples_show_one_answer(tmp_path, name):
    """The one that the file prefers, else the most frequent, the first among equals."""
    files, lines, (number, image, question, answer) = TRAINING[name]
    expected = [Sample(number, {"image": image, "question": question, "answer": answer})]
    write(tmp_path / "official", files)
    assert expected == Examples(TASKS[name], tmp_path / "official").samples
    row = {"image": f"data/{image}", "question": question, "question_id": number, "answer": answer}
    write(tmp_path / "converted", {lines: [row]})
    assert expected == Examples(TASKS[name], tmp_path / "converted").samples
    shot = render_request(TASKS[name], recorded(name)[0], examples=expected).prompt
    assert f"<img>{image}</img>{question} Answer: {answer}{RECORDED[name]['prompt']}" == shot


def test_an_example_of_vqav2_may_prefer_no_answer(tmp_path):
    """Then it is the most frequent, the first among equals, not the first of all."""
    files = copy.deepcopy(TRAINING["vqav2_val"][0])
    (row,) = files["vqav2/v2_mscoco_train2014_annotations.json"]["annotations"]
    del row["multiple_choice_answer"]
    row["answers"] = [{"answer": text} for text in ("5", "four", "four", "4", "4")]
    write(tmp_path, files)
    (example,) = Examples(TASKS["vqav2_val"], tmp_path).samples
    assert "four" == example.fields["answer"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo_data(root)
    return root


@pytest.mark.parametrize("name", TRAINING)
def test_the_demos_examples_are_read(demo, name):
    """OK-VQA's and VizWiz's few-shot runs find their training split, pictures and all."""
    if name not in ("okvqa_val", "vizwiz_val"):
        assert not any(layout.complete(demo) for layout in TASKS[name].train)
        return
    found = Examples(TASKS[name], demo).samples
    assert [] == [path for sample in found for path in sample.images if not (demo / path).is_file()]
    assert 24 == len(found)


@real
def test_real_questions_of_vqav2_have_ten_answers_and_their_images_number(tmp_path):
    """Three of train2014, which name no preferred answer: the most frequent is shown."""
    kinds = {"questions": "OpenEnded_mscoco_train2014_questions"}
    kinds["annotations"] = "mscoco_train2014_annotations"
    for name in kinds.values():
        place(tmp_path, f"vqav2/v2_{name}_sample.json", f"vqav2/v2_{name}.json")
    asked, annotations = (f"vqav2/v2_{name}.json" for name in kinds.values())
    questions = partial(vqav2.official, "train", asked)
    source = vqav2.annotations_of("train")
    assert annotations == source.path
    samples = list(unique(vqav2.answered(questions, source, tmp_path), "train"))
    assert [None] * 3 == [vqav2.of_its_image(sample) for sample in samples]
    assert (SAMPLES / "vqav2/images" / Path(samples[0].images[0]).name).is_file()
    shown = Examples(TASKS["vqav2_val"], tmp_path).samples
    assert ["net", "pitcher", "orange"] == [sample.fields["answer"] for sample in shown]


@real
def test_real_questions_of_vizwiz_are_scored_as_recorded(tmp_path):
    """300 of val whose answers carry no number: counted as numbered they give the known figure."""
    place(tmp_path, "vizwiz/val_current_release_subset.json", "vizwiz/val.json")
    task = TASKS["vizwiz_val"]
    samples = {sample.id: sample for sample in read(task, tmp_path)}
    assert [None] * 300 == [task.expect.each(sample) for sample in samples.values()]
    predicted = dict(read_predictions(SAMPLES / "vizwiz/predictions_clip_multimodal.json"))
    assert set(samples) == set(predicted)
    metric = task.metrics["vqa_accuracy_official"]
    scores = [metric(text, samples[name].reference) for name, text in predicted.items()]
    recorded = json.loads((SAMPLES / "vizwiz/expected.json").read_text("utf-8"))["computed"]
    expected = recorded["clip_multimodal"]["official_VQAEval"]
    assert expected == round(100 * sum(scores) / 300, 2)


@real
def test_the_old_release_of_vizwiz_is_refused(tmp_path):
    """Its 500 real records have other questions under names that look alike."""
    place(tmp_path, "vizwiz/val_2019release_first500.json", "vizwiz/val.json")
    with pytest.raises(DataError, match=r"\[0\] of .*of the old release, whose questions"):
        read(TASKS["vizwiz_val"], tmp_path)


@real
def test_real_textvqa_passes_every_check_but_its_pictures(tmp_path):
    """Counts, numbers and ten answers each of all 5,000 questions."""
    place(tmp_path, "textvqa/TextVQA_0.5.1_val_compact.json", textvqa.OFFICIAL.path)
    (fault,) = verify(TASKS["textvqa_val"], tmp_path).issues
    assert fault.startswith("3,166 of 3,166 images are missing")


@real
def test_real_okvqa_images_are_of_val2014(tmp_path):
    """The 606 real questions, asked about pictures of which six are here."""
    place(tmp_path, "okvqa/OpenEnded_mscoco_val2014_questions_sample.json", okvqa.QUESTIONS.path)
    rows = json.loads((tmp_path / okvqa.QUESTIONS.path).read_text("utf-8"))["questions"]
    answers = [{"answer": "pony", "answer_id": number} for number in range(10)]
    annotations = [{"question_id": row["question_id"], "answers": answers} for row in rows]
    write(tmp_path, {okvqa.ANSWERS.path: {"annotations": annotations}})
    samples = read(TASKS["okvqa_val"], tmp_path)
    assert [None] * 606 == [okvqa.of_the_split(sample) for sample in samples]
    names = {Path(sample.images[0]).name for sample in samples}
    assert {path.name for path in (SAMPLES / "okvqa/images").iterdir()} <= names
