"""Intervals, from the values of samples to a verdict beside the card."""

import json
import math
import tracemalloc
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from eval.api import Generate, Prediction
from eval.data.declare import Corpus, Sample, Task
from eval.errors import RunError
from eval.report.card import load_card
from eval.report.scores import RunScores, load_run
from eval.report.tables import build_tables
from eval.run.files import Published, Summary, SummaryInterval
from eval.run.folder import RunFolder
from eval.scoring.score import Scoring
from eval.scoring.stats import METHOD, Tally, holm, t_above, t_quantile

CARD = load_card()
COLUMNS = {task: c for table in CARD.tables for c in table.columns for task in c.tasks}


# Holm


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 * .01, then 2 * .03, and .04 no less
        ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]),
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.0, 1.0], [0.0, 1.0]),
        ([0.005, 0.011, 0.02, 0.04], [0.02, 0.033, 0.04, 0.04]),
    ],
)
def test_holm_by_hand(probabilities, expected):
    assert pytest.approx(expected) == holm(probabilities)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=25), st.floats(0, 1), st.randoms())
def test_holm_keeps_order_and_grows_with_tests(p_values, another, random):
    """No p-value falls, none is above 1, their order stays, and one more test lowers none."""
    adjusted = holm(p_values)
    assert all(before <= after <= 1.0 for before, after in zip(p_values, adjusted, strict=True))
    assert all(
        after <= min(len(p_values) * p, 1.0) for p, after in zip(p_values, adjusted, strict=True)
    )
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert sorted(adjusted) == [adjusted[number] for number in order]
    more = holm([*p_values, another])[:-1]
    assert all(before <= after for before, after in zip(adjusted, more, strict=True))
    places = random.sample(range(len(p_values)), len(p_values))
    assert [adjusted[number] for number in places] == holm([p_values[number] for number in places])


@given(st.floats(0.001, 0.999), st.integers(1, 10**5))
def test_student_s_t_is_scipy_s(probability, degrees):
    quantile = t_quantile(probability, degrees)
    assert pytest.approx(reference.t.ppf(probability, degrees), rel=1e-6, abs=1e-9) == quantile
    assert pytest.approx(1 - probability, rel=1e-6) == t_above(quantile, degrees)


def test_memory_grows_with_images_alone():
    """447,793 questions of a split are not kept: two numbers for each image are."""

    def held(questions):
        tracemalloc.start()
        tally = Tally()
        names = [f"{n}.jpg" for n in range(50)]
        before, _ = tracemalloc.get_traced_memory()
        for number in range(questions):
            tally.add(number % 7 / 7, names[number % 50])
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return after - before, tally.values

    few, many = held(100), held(20_000)
    assert (100, 20_000) == (few[1], many[1])
    assert many[0] < few[0] + 5_000


# Summaries


def scored(metrics, values, images, **more):
    """A task's summary: each sample's text is its value."""
    task = Task("okvqa_val", len(values), (), "", Generate(10), metrics)
    samples = [
        Sample(str(n), {"image": image} if image else {}, more.get("reference", "?"))
        for n, image in enumerate(images)
    ]
    answers = [
        Prediction(str(n), repr(value)) if value is not None else Prediction(str(n), "", error="x")
        for n, value in enumerate(values)
    ]
    scoring = Scoring(task, {}, {})
    rows = list(scoring.rows(samples, answers))
    return scoring.summary(), rows


def number(text, _):
    return float(text)


BINARY = [float(n % 3 > 0) for n in range(30)]
GRADED = [n % 4 / 3 for n in range(30)]


@pytest.mark.parametrize(
    ("values", "images"),
    [
        (BINARY, [f"{n}.jpg" for n in range(30)]),
        (BINARY, [f"{n // 2}.jpg" for n in range(30)]),
        (GRADED, [f"{n}.jpg" for n in range(30)]),
        (GRADED, [""] * 30),
        ([1.0] * 30, [f"{n // 3}.jpg" for n in range(30)]),
    ],
    ids=["binary", "binary, images shared", "graded", "without images", "all right"],
)
def test_a_summary_has_the_interval_of_each_score(values, images):
    """By image, and a sample without one by itself; the summary names the method and the range."""
    summary, rows = scored({"accuracy": number, "other": lambda text, _: 1.0}, values, images)
    expected = Tally.of(values, [image or str(n) for n, image in enumerate(images)]).interval()
    interval = summary["intervals"]["accuracy"]
    assert {"low": expected.low, "high": expected.high, "method": METHOD} == interval
    assert 0 <= interval["low"] <= summary["metrics"]["accuracy"] <= interval["high"] <= 1
    assert summary["intervals"].keys() == summary["metrics"].keys()
    kind = {"range": [0.0, 1.0], "mean": True}
    assert ({}, {"accuracy": kind, "other": kind}) == (
        summary["no_interval"],
        summary["metric_types"],
    )
    assert images == [row["image"] for row in rows]


def values_of(texts, references):
    return [float(text) for text in texts]


def test_a_corpus_metric_that_is_a_mean_has_an_interval_in_its_range():
    """CIDEr's values go up to 10; the task's other metric has no values above 1."""
    values = [0.1 * (n % 10) ** 2 for n in range(40)]
    images = [f"{n}.jpg" for n in range(40)]
    metrics = {"cider": Corpus(values_of, mean=True), "length": number}
    summary, _ = scored(metrics, values, images)
    expected = Tally.of(values, images).interval(0.0, 10.0)
    interval = {"low": expected.low, "high": expected.high, "method": METHOD}
    assert {"cider": interval} == summary["intervals"]
    assert {"length": "values outside 0 to 1: no interval"} == summary["no_interval"]
    assert [0.0, 10.0] == summary["metric_types"]["cider"]["range"]


@pytest.mark.parametrize("corpus", [False, True])
@pytest.mark.parametrize("images", [1, 4])
def test_a_score_of_too_few_images_has_no_interval(corpus, images):
    """The summary says why, and counts the images."""
    metric = Corpus(values_of, mean=True) if corpus else number
    summary, _ = scored({"m": metric}, [0.25, 0.75] * 6, [f"{n % images}.jpg" for n in range(12)])
    assert ({}, {"m": 0.5}) == (summary["intervals"], summary["metrics"])
    assert {"m": f"too few images for an interval ({images})"} == summary["no_interval"]


def test_samples_without_an_answer_are_in_no_interval():
    """As in no figure; and where all failed there is neither."""
    images = [f"{n}.jpg" for n in range(30)]
    lost = [None if n % 5 == 0 else value for n, value in enumerate(GRADED)]
    summary, _ = scored({"m": number}, lost, images)
    kept = [(value, image) for value, image in zip(lost, images, strict=True) if value is not None]
    expected = Tally.of(*zip(*kept, strict=True)).interval()
    assert (6, expected.low) == (summary["failed"], summary["intervals"]["m"]["low"])
    summary, _ = scored({"m": number}, [None] * 30, images)
    assert ({}, {}) == (summary["intervals"], summary["metrics"])


def test_without_references_there_is_no_interval():
    summary, _ = scored({"m": number}, GRADED, ["a"] * 15 + ["b"] * 15, reference=None)
    assert ({}, {}) == (summary["intervals"], summary["metrics"])


# Beside the card


def summary_of(name, value=0.5, reach=0.01, samples=None, size=1000, **more):
    """A task's summary, whose interval reaches so far around the value."""
    samples = size if samples is None else samples
    metric = COLUMNS[name].metric
    intervals = {} if reach is None else {metric: SummaryInterval(value - reach, value + reach)}
    given_fields = {
        "complete": samples == size and not more.get("failed"),
        "protocol": "published",
        "metrics": {metric: value},
        "intervals": intervals,
    }
    return Summary(name, size, samples, images=900, **{**given_fields, **more})


def compared(*tasks):
    """Columns of the card that these tasks fill, and others, by their label."""
    run = RunScores("r", Path("r"), "raw", {task.task: task for task in tasks})
    tables = build_tables([run], CARD, all_tables=True)
    return {c.column: c for table in tables for each in table.compared for c in each.columns}


@pytest.mark.parametrize(
    ("value", "reach", "more", "verdict"),
    [
        (0.586, 0.01, {}, "reproduced"),
        (0.580, 0.01, {}, "reproduced"),
        (0.570, 0.01, {}, "outside"),
        (0.602, 0.01, {}, "outside"),
        (0.576, 0.01, {}, "reproduced"),  # the end itself, as printed
        (0.586, 0.01, {"samples": 999}, "incomplete"),
        (0.586, 0.01, {"failed": 1, "samples": 999}, "incomplete"),
        (0.586, 0.01, {"failed": 1}, "incomplete"),
        (0.586, 0.01, {"protocol": "chatml"}, "not comparable"),
        (0.586, 0.01, {"faults": ("images: 1 missing",), "complete": False}, "not comparable"),
        (0.586, 0.01, {"as_published": Published(8, 8)}, "not comparable"),
        (0.586, 0.01, {"doubts": ("another judge",)}, "not comparable"),
        (0.586, 0.01, {"size": None, "samples": 9, "complete": False}, "not comparable"),
        (0.586, None, {}, "no interval"),
        (0.586, None, {"samples": 999}, "incomplete"),
    ],
)
def test_each_figure_has_a_verdict(value, reach, more, verdict):
    """Beside 58.6, by the interval as it is printed."""
    column = compared(summary_of("okvqa_val", value, reach, **more))["OK-VQA"]
    assert ("58.6", verdict) == (column.card, column.verdict)
    if reach:
        assert f"{100 * (value - reach):.1f} to {100 * (value + reach):.1f}" == column.interval


def test_what_is_missing_is_never_reproduced():
    """Not run; answered, but scored elsewhere; half of a column; no row of the card."""
    columns = compared(
        summary_of("chartqa_test_human", 0.657),
        summary_of("vqav2_testdev", metrics={}, intervals={}),
        summary_of("okvqa_val", metrics={}, intervals={}, samples=0, failed=1000),
        summary_of("gqa_testdev", 0.593, few_shot=2),
    )
    assert {
        "TextVQA": "not run",
        "ChartQA": "not run",
        "chartqa_test_human relaxed_accuracy": "-",
        "VQAv2 dev": "incomplete",
        "OK-VQA": "incomplete",
        "gqa_testdev exact_match": "-",
    } == {
        name: columns[name].verdict
        for name in (
            "TextVQA",
            "ChartQA",
            "chartqa_test_human relaxed_accuracy",
            "VQAv2 dev",
            "OK-VQA",
            "gqa_testdev exact_match",
        )
    }


@settings(max_examples=150)
@given(
    st.just(0.586) | st.floats(0, 1),
    st.floats(0, 0.2) | st.none(),
    st.sampled_from([1000, 999, 0]),
    st.sampled_from([0, 0, 1]),
    st.booleans(),
    st.sampled_from(["okvqa_val", "vqav2_testdev", "ocrvqa_test", "nocaps_val"]),
)
@example(0.586, 0.0, 1000, 0, False, "okvqa_val")
@example(0.586, 0.0, 1000, 0, True, "okvqa_val")
def test_reproduced_means_whole_as_the_card_and_around_its_figure(
    value, reach, samples, failed, asked_otherwise, name
):
    """Whatever a summary says, no other figure is ever called that."""
    more = {"protocol": "chatml"} if asked_otherwise else {}
    task = summary_of(name, value, reach, samples, failed=failed, **more)
    column = compared(task)[COLUMNS[name].label]
    around = False
    if reach is not None:
        low, high = (float(end) for end in column.interval.split(" to "))
        around = low <= float(column.card) <= high
    whole = samples == 1000 and not failed and not asked_otherwise
    assert (whole and around) == (column.verdict == "reproduced")
    if samples < 1000 or failed:
        assert column.verdict == "incomplete"


def test_the_mean_of_two_tasks_has_the_interval_of_independent_errors():
    """ChartQA: half of the root of the squares, on each side by itself."""
    human, augmented = (
        summary_of("chartqa_test_human", 0.5),
        summary_of("chartqa_test_augmented", 0.8),
    )
    human = replace(human, intervals={"relaxed_accuracy": SummaryInterval(0.47, 0.54)})
    augmented = replace(augmented, intervals={"relaxed_accuracy": SummaryInterval(0.76, 0.83)})
    column = compared(human, augmented)["ChartQA"]
    below, above = math.hypot(0.03, 0.04) / 2, math.hypot(0.04, 0.03) / 2
    assert f"{65 - 100 * below:.1f} to {65 + 100 * above:.1f}" == column.interval == "62.5 to 67.5"
    assert "reproduced" == column.verdict
    for partial in (replace(human, intervals={}), replace(human, samples=999, complete=False)):
        assert compared(partial, augmented)["ChartQA"].verdict in ("no interval", "incomplete")


def test_a_mean_s_interval_covers_what_it_promises():
    """Of two tasks whose samples are independent, by simulation."""
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        tasks = []
        for name, truth in (("chartqa_test_human", 0.5), ("chartqa_test_augmented", 0.75)):
            values = (random.random(200) < truth).astype(float).tolist()
            mean = Tally.of(values, range(200)).interval()
            ends = {"relaxed_accuracy": SummaryInterval(mean.low, mean.high)}
            tasks.append(summary_of(name, mean.mean, intervals=ends))
        low, high = map(float, compared(*tasks)["ChartQA"].interval.split(" to "))
        covered += low <= 62.5 <= high
    assert 0.92 < covered / 400 < 0.985


# Read back


@pytest.fixture
def run(tmp_path):
    """A run of one task with its summary as scoring writes it."""
    summary, rows = scored({"vqa_accuracy": number}, GRADED, [f"{n // 2}.jpg" for n in range(30)])
    manifest = {"name": "r", "model": {"digest": "0"}, "tasks": {}}
    folder = RunFolder.start(tmp_path / "run", manifest)
    (tmp_path / "run" / "okvqa_val").mkdir()
    folder.scores("okvqa_val").write(rows, lambda: summary)
    return tmp_path / "run"


def test_an_interval_is_read_as_it_was_written(run):
    written = json.loads((run / "okvqa_val" / "summary.json").read_bytes())["intervals"]
    interval = load_run(run).tasks["okvqa_val"].intervals["vqa_accuracy"]
    assert written == {"vqa_accuracy": asdict(interval)}


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ({"vqa_accuracy": {"low": 0.9, "high": 0.95}}, "its figure is not between"),
        ({"vqa_accuracy": {"low": 0.1, "high": 0.2}}, "its figure is not between"),
        ({"vqa_accuracy": {"low": 0.9, "high": 0.1}}, "its figure is not between"),
        ({"anls": {"low": 0.1, "high": 0.9}}, "'anls'"),
        ({"vqa_accuracy": {"low": 0.1}}, "intervals.vqa_accuracy.high: field required"),
        (
            {"vqa_accuracy": {"low": "0.1", "high": 0.9}},
            "intervals.vqa_accuracy.low: input should be a valid number, '0.1' found",
        ),
        (
            {"vqa_accuracy": {"low": None, "high": 0.9}},
            "intervals.vqa_accuracy.low: input should be a valid number, None found",
        ),
        ({"vqa_accuracy": [0.1, 0.9]}, "intervals.vqa_accuracy: input should be an object"),
        ([0.1, 0.9], "intervals: input should be an object"),
    ],
)
def test_an_interval_that_is_not_around_its_figure_is_refused(run, intervals, said):
    """It would make a verdict beside the card; the file and the key are said."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes()) | {"intervals": intervals}
    file.write_text(json.dumps(summary), "utf-8")
    with pytest.raises(RunError) as error:
        load_run(run)
    assert str(file) in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("end", [{"high": 1.015}, {"low": -0.015}, {"high": 2e6}])
def test_an_interval_that_leaves_the_range_is_refused(run, end):
    """No method of ours makes one: the file is damaged."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes())
    summary["intervals"]["vqa_accuracy"] |= end
    file.write_text(json.dumps(summary), "utf-8")
    with pytest.raises(RunError, match=r"vqa_accuracy.* outside the metric's range, 0 to 1"):
        load_run(run)


def test_an_earlier_version_s_interval_beyond_the_range_is_not_shown(run):
    """It was made by Student's t; what to do stands beside the score. Others are shown."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes())
    del summary["metric_types"], summary["no_interval"]
    file.write_text(json.dumps(summary), "utf-8")
    assert load_run(run).tasks["okvqa_val"].intervals.keys() == {"vqa_accuracy"}
    summary["intervals"]["vqa_accuracy"]["high"] = 1.015
    file.write_text(json.dumps(summary), "utf-8")
    summary_read = load_run(run).tasks["okvqa_val"]
    assert {} == summary_read.intervals
    (compared,) = (
        column
        for table in build_tables([load_run(run)], CARD)
        for each in table.compared
        for column in each.columns
        if column.score != "-"
    )
    assert "-" == compared.interval
    assert "beyond 0 to 1, is left out. Make another: qwen-vl-eval score" in compared.remark


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ({"vqa_accuracy": {"range": [1, 0], "mean": True}}, "1 is not below 0"),
        ({"vqa_accuracy": {"range": [0], "mean": True}}, "vqa_accuracy.range.1: field required"),
        (
            {"vqa_accuracy": {"range": [0, 1e308], "mean": True}},
            "vqa_accuracy.range.1: input should be",
        ),
        (
            {"vqa_accuracy": {"range": [0, 1], "mean": 1}},
            "vqa_accuracy.mean: input should be a valid boolean",
        ),
        ({"vqa_accuracy": {"range": [0, 1]}}, "vqa_accuracy.mean: field required"),
        ([], "metric_types: input should be an object"),
    ],
)
def test_a_damaged_type_of_a_metric_is_refused(run, types, said):
    """It decides what may be compared."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes()) | {"metric_types": types}
    file.write_text(json.dumps(summary), "utf-8")
    with pytest.raises(RunError) as error:
        load_run(run)
    assert str(file) in str(error.value)
    assert said in str(error.value)


def test_a_summary_of_before_has_no_interval(run):
    """It is read all the same, and no verdict is made of it."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes())
    del summary["intervals"]
    file.write_text(json.dumps(summary), "utf-8")
    assert {} == load_run(run).tasks["okvqa_val"].intervals
