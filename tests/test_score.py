"""Scoring: what is not known is never made into a figure."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import make_data

from eval.api import Prediction
from eval.data.declare import Sample
from eval.errors import DataError, PredictionError
from eval.plugins import find_tasks
from eval.run.folder import RunFolder
from eval.run.spec import Spec, read_samples
from eval.scoring.score import AsPublished, Scoring, score, score_file

PROMPTS = Path(__file__).parent / "golden" / "prompts"


@pytest.fixture
def asked(tmp_path):
    (task,) = find_tasks(["okvqa_val"])
    samples = list(read_samples(task, make_data(tmp_path)))
    return task, samples, {sample.id: "red" for sample in samples}


def test_without_references_nothing_is_scored(asked):
    """A split that only a server can score has a summary without figures."""
    task, samples, answers = asked
    hidden = [replace(sample, reference=None) for sample in samples]
    found = score(task, hidden, answers)
    assert {} == found.summary["metrics"]
    assert "not scored" in found.summary["signature"]
    with pytest.raises(DataError, match="1 of 7 samples have no reference"):
        score(task, [*samples[1:], hidden[0]], answers)


@pytest.mark.parametrize(
    ("change", "said"), [("missing", "without a prediction"), ("x", "unknown")]
)
def test_every_sample_needs_exactly_one_prediction(asked, change, said):
    """A missing or an unknown prediction is named, and nothing is scored."""
    task, samples, answers = asked
    if change == "missing":
        del answers[samples[2].id]
    else:
        answers[change] = "red"
    with pytest.raises(PredictionError, match=said):
        score(task, samples, answers)


def test_order_of_predictions_changes_nothing(asked):
    """Rows stand in dataset order, whatever the order of the predictions."""
    task, samples, answers = asked
    backwards = dict(reversed(answers.items()))
    assert score(task, samples, answers) == score(task, samples, backwards)


def test_figures_are_broken_down_by_group(asked):
    """Each value of a group has its own mean and count, and together they are all samples."""
    task, samples, answers = asked
    kinds = ["yes/no", "other", "other", "number", "other", "other", "yes/no"]
    grouped = [
        replace(sample, groups={"answer_type": kind})
        for sample, kind in zip(samples, kinds, strict=True)
    ]
    answers[samples[1].id] = "blue"
    by = score(task, grouped, answers).summary["by"]["answer_type"]
    assert {"number": 1, "other": 4, "yes/no": 2} == {k: v["samples"] for k, v in by.items()}
    assert (0.75, 1.0) == (by["other"]["vqa_accuracy"], by["yes/no"]["vqa_accuracy"])


def test_a_corpus_metric_is_run_again_for_each_group():
    """CIDEr of a domain takes its document frequencies from that domain alone."""
    (task,) = find_tasks(["nocaps_val"])
    texts = [f"a {c} {a}" for c in ("red", "blue", "small") for a in ("cat", "dog", "bird")]
    samples = [
        Sample(str(n), {"image": f"{n}.jpg"}, [text], groups={"domain": "ab"[n % 2]})
        for n, text in enumerate(texts)
    ]
    answers = {str(n): text.replace("blue", "red") for n, text in enumerate(texts)}
    whole = score(task, samples, answers)
    alone = score(task, samples[::2], {sample.id: answers[sample.id] for sample in samples[::2]})
    found = whole.summary["by"]["domain"]["a"]["cider"]
    assert alone.summary["metrics"]["cider"] == found
    values = [row["cider"] for row in whole.rows]
    assert pytest.approx(sum(values) / len(values)) == whole.summary["metrics"]["cider"]
    assert abs(sum(values[::2]) / 5 - found) > 0.01


def test_faults_and_protocol_stand_in_the_summary(asked):
    """Data that are not the official split's are never called complete."""
    task, samples, answers = asked
    how = {"protocol": "chatml", "few_shot": 4, "seed": 7, "faults": ["images: 2 missing"]}
    summary = score(replace(task, size=7), samples, answers, entry=how).summary
    assert not summary["complete"]
    assert ["images: 2 missing"] == summary["faults"]
    assert "protocol=chatml few_shot=4 seed=7 faults=1" in summary["signature"]
    zero_shot = score(replace(task, size=7), samples, answers).summary
    assert zero_shot["complete"]
    assert "seed" not in zero_shot["signature"]


def test_leaked_examples_mark_a_figure_however_it_is_scored(asked):
    """Captions of the split itself were shown; scoring anew, by the right rules, undoes nothing."""
    task, samples, answers = asked
    how = {"few_shot": 4, "leaking": True}
    summary = score(replace(task, size=7), samples, answers, entry=how).summary
    assert not summary["complete"]
    assert ["few-shot examples of the split itself, as published"] == summary["faults"]
    assert "faults=1" in summary["signature"]


def test_as_published_drops_each_process_s_last_incomplete_batch():
    """On 8 GPUs in batches of 8 the published loader keeps 10,816 of RefCOCO val's 10,834."""
    assert 10816 == len(list(AsPublished(8, 8).kept(10834)))


@given(
    st.integers(min_value=0, max_value=300),
    st.integers(min_value=1, max_value=9),
    st.integers(min_value=1, max_value=9),
)
def test_what_is_kept_are_whole_batches_of_contiguous_shares(count, processes, batch):
    """As the authors' sampler shares samples out: the first `count mod processes` get one more."""
    shares = [count // processes + (rank < count % processes) for rank in range(processes)]
    expected, start = [], 0
    for share in shares:
        expected += list(range(start, start + share))[: share - share % batch]
        start += share
    assert expected == list(AsPublished(processes, batch).kept(count))


def test_boxes_as_published_lose_samples_and_say_so():
    (task, *_) = find_tasks(["refcoco_val"])
    box = {"box": [0.0, 0.0, 50.0, 50.0], "width": 100, "height": 100}
    samples = [Sample(str(n), {"image": "x.jpg"}, box) for n in range(7)]
    answers = {sample.id: "(0,0),(499,499)" for sample in samples} | {"3": "nothing"}
    right = score(task, samples, answers).summary
    published = score(task, samples, answers, as_published=AsPublished(2, 3)).summary
    assert (7, 6 / 7) == (right["samples"], right["metrics"]["accuracy"])
    assert (6, 1.0) == (published["samples"], published["metrics"]["accuracy"])
    assert {"processes": 2, "batch_size": 3} == published["as_published"]
    assert "as_published=2x3" in published["signature"]
    with pytest.raises(PredictionError, match="that the published loader keeps"):
        score(task, samples[:2], dict(list(answers.items())[:2]), as_published=AsPublished(1, 8))


def test_as_published_drops_no_sample_of_a_task_that_is_not_of_boxes(asked):
    """Only the published loader of boxes does."""
    task, samples, answers = asked
    published = score(task, samples, answers, as_published=AsPublished(8, 8)).summary
    assert len(samples) == published["samples"]


def test_a_server_s_figures_never_hide_our_own(asked):
    """What a server gave counts only where nothing can be scored here."""
    task, samples, answers = asked
    server = {"server": "EvalAI", "metrics": {"vqa_accuracy": 0.25}}

    def summary(rows):
        scoring = Scoring(task, {}, {})
        scoring.server = server
        list(scoring.rows(rows, [Prediction(*answer) for answer in answers.items()]))
        return scoring.summary()

    assert (1.0, False) == (
        summary(samples)["metrics"]["vqa_accuracy"],
        "scored_by" in summary(samples),
    )
    hidden = summary([replace(sample, reference=None) for sample in samples])
    assert ({"vqa_accuracy": 0.25}, "EvalAI") == (hidden["metrics"], hidden["scored_by"])


def test_a_result_file_without_ids_answers_in_order(asked, tmp_path):
    """One answer for each sample, or an error: a gap would shift all that follow."""
    task, samples, _ = asked
    texts = ["red", "blue", *["red"] * (len(samples) - 2)]
    file = tmp_path / "result.json"
    file.write_text(json.dumps([{"answer": text} for text in texts]), encoding="utf-8")
    found = score_file(file, task, tmp_path)
    assert [1.0, 0.0, *[1.0] * 5] == [row["vqa_accuracy"] for row in found.rows]
    assert "protocol=?" in found.summary["signature"]
    file.write_text(json.dumps([{"answer": text} for text in texts[1:]]), encoding="utf-8")
    with pytest.raises(PredictionError, match=r"one for each of the 7 samples .* 6 found"):
        score_file(file, task, tmp_path)


def test_a_result_file_with_ids_of_its_own_answers_in_order_where_its_task_says_so(asked, tmp_path):
    """VizWiz' and OCR-VQA's numbers are the converted files'; any known id makes all count."""
    task, samples, answers = asked
    file = tmp_path / "result.json"

    def found(task, ids):
        rows = [
            {"question_id": number, "answer": answers[sample.id]}
            for number, sample in zip(ids, samples, strict=True)
        ]
        file.write_text(json.dumps(rows), encoding="utf-8")
        return score_file(file, task, tmp_path).summary

    foreign = [f"x{number}" for number in range(len(samples))]
    with pytest.raises(PredictionError, match="7 samples without a prediction"):
        found(task, foreign)
    renumbered = replace(task, renumbered=True)
    by_order, by_id = found(renumbered, foreign), found(renumbered, [s.id for s in samples])
    assert by_id["metrics"] == by_order["metrics"]
    assert (False, True) == tuple("by_order" in s["signature"] for s in (by_id, by_order))
    with pytest.raises(PredictionError, match="6 samples without a prediction"):
        found(renumbered, [samples[0].id, *foreign[1:]])


def test_of_two_answers_in_a_result_file_the_last_wins(asked, tmp_path):
    """As in the published scripts, which put them into a dictionary."""
    task, samples, _ = asked
    rows = [{"question_id": int(sample.id), "answer": "red"} for sample in samples]
    file = tmp_path / "result.json"
    again = {"question_id": int(samples[0].id), "answer": "blue"}
    file.write_text(json.dumps([*rows, again]), encoding="utf-8")
    found = score_file(file, task, tmp_path)
    assert [0.0, *[1.0] * 6] == [row["vqa_accuracy"] for row in found.rows]


def test_the_benchmarks_whose_result_files_are_numbered_otherwise():
    """Their published files would else be refused as answers to unknown samples."""
    expected = {"ocrvqa_val", "ocrvqa_test", "vizwiz_val", "vizwiz_test"}
    assert expected == {task.name for task in find_tasks(["all"]) if task.renumbered}


def test_losses_outlive_a_task_that_is_opened_again(tmp_path):
    """A finished task with a changed image goes on with all that it had, losses too."""
    (task,) = find_tasks(["scienceqa_test_img"])
    folder = RunFolder(tmp_path, {})
    place = tmp_path / task.name
    place.mkdir()
    (place / "predictions.jsonl").write_text(
        '{"id":"1","text":"A","of":"a"}\n{"id":"2","text":"","error":"e","of":"b"}\n'
        '{"id":"3","text":"B","of":"c"}\n'
    )
    (place / "losses.jsonl").write_text(
        '{"id":"1","losses":[1.0,2.0]}\n{"id":"3","losses":[2.0,1.0]}\n'
    )
    expected = {"1": (1.0, 2.0), "2": (), "3": (2.0, 1.0)}
    assert expected == {p.id: p.losses for p in folder.answers(task.name).predictions()}
    folder.answers(task.name).open(task, tmp_path, Spec())
    assert not folder.answers(task.name).complete
    assert expected == {p.id: p.losses for p in folder.answers(task.name).recorded().values()}
    folder.answers(task.name).reopen()
    del expected["2"]
    assert expected == {p.id: p.losses for p in folder.answers(task.name).recorded().values()}
