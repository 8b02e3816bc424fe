"""Intervals, from values to a verdict beside the card: Wilson, bootstrap, Holm, summaries."""

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from eval.api import Corpus, Generate, Prediction, Sample, Task
from eval.errors import RunError
from eval.report import build_tables, load_card, load_run
from eval.report.figures import RunFigures, TaskFigures
from eval.run import RunFolder
from eval.score import Scoring
from eval.stats import (
    BOOTSTRAP,
    WILSON,
    Difference,
    T,
    Tally,
    clustered_mean,
    holm,
    t_above,
    t_quantile,
    wilson,
)

CARD = load_card()
COLUMNS = {task: c for table in CARD.tables for c in table.columns for task in c.tasks}
unhurried = settings(deadline=None)
SCORES = st.integers(0, 40).map(lambda quarters: quarters / 4)
PAIRS = st.lists(st.tuples(SCORES, st.integers(0, 9)), min_size=1, max_size=40)


# Wilson


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3: score without correction
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_has_the_published_values(hits, count, low, high):
    assert pytest.approx((low, high), abs=5e-5) == wilson(hits, count)


@unhurried
@given(st.integers(1, 5000), st.integers(0, 5000), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipy_s(count, hits, confidence):
    hits = min(hits, count)
    expected = reference.binomtest(hits, count).proportion_ci(confidence, method="wilson")
    assert pytest.approx((expected.low, expected.high), abs=1e-9) == wilson(hits, count, confidence)


@unhurried
@given(st.integers(1, 400), st.integers(0, 400))
def test_wilson_keeps_within_0_and_1_and_is_never_without_width(count, hits):
    """It holds the share, is mirrored, and is narrower by less confidence or more samples."""
    hits = min(hits, count)
    low, high = wilson(hits, count)
    assert 0 <= low <= hits / count <= high <= 1
    assert low < high
    assert pytest.approx((1 - high, 1 - low), abs=1e-12) == wilson(count - hits, count)
    inner, outer = wilson(hits, count, 0.8), wilson(2 * hits, 2 * count)
    assert low <= inner[0] <= inner[1] <= high
    assert outer[1] - outer[0] < high - low


@unhurried
@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_right_and_wrong_of_an_image_each_are_wilson_s(hits):
    """One question an image: a proportion."""
    found = Tally.of([float(hit) for hit in hits], range(len(hits))).interval()
    assert (WILSON, wilson(sum(hits), len(hits))) == (found.method, (found.low, found.high))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_still_has_an_interval(value):
    """Of three images, whatever the number of questions: Student's t would have no width."""
    found = Tally.of([value] * 12, [n % 3 for n in range(12)]).interval()
    assert (WILSON, wilson(3 * value, 3)) == (found.method, (found.low, found.high))
    assert found.high - found.low > 0.5


@pytest.mark.parametrize(
    ("values", "clusters"),
    [([0.0, 1.0, 1.0, 0.0], "aabb"), ([0.0, 0.3, 1.0], "abc"), ([0.5, 0.5], "ab")],
    ids=["images shared", "graded", "graded, all alike"],
)
def test_all_else_is_student_s_t_over_images(values, clusters):
    found = Tally.of(values, clusters).interval()
    expected = clustered_mean(values, clusters)
    assert (T, expected.low, expected.high) == (found.method, found.low, found.high)


def test_no_image_but_one_tells_no_interval():
    """Of right and wrong Wilson tells something, of anything else nothing can be told."""
    assert Tally.of([0.25, 0.5], "aa").interval().low is None
    assert Tally.of([0.0, 1.0], "aa").interval().low is None
    assert Tally.of([0.25, 0.5], "aa").bootstrap().low is None
    with pytest.raises(ValueError, match="at least one value expected"):
        Tally().interval()
    with pytest.raises(ValueError, match="at least one value expected"):
        Tally().bootstrap()


@unhurried
@given(PAIRS, st.randoms(use_true_random=False))
def test_an_interval_holds_its_mean_and_order_changes_nothing(pairs, random):
    """By any of the methods, to the last bit."""
    tally = Tally.of(*zip(*pairs, strict=True))
    shuffled = Tally.of(*zip(*random.sample(pairs, len(pairs)), strict=True))
    assert tally.interval() == shuffled.interval()
    found = tally.interval()
    assert pytest.approx(math.fsum(v for v, _ in pairs) / len(pairs)) == found.mean
    if found.low is not None:
        assert found.low - 1e-12 <= found.mean <= found.high + 1e-12


# Bootstrap


@settings(deadline=None, max_examples=15)
@given(PAIRS, st.randoms(use_true_random=False))
def test_a_bootstrap_is_the_same_each_time_and_in_any_order(pairs, random):
    """Two runs with the same values have the same interval, to the last bit."""
    one = Tally.of(*zip(*pairs, strict=True)).bootstrap()
    again = Tally.of(*zip(*random.sample(pairs, len(pairs)), strict=True)).bootstrap()
    renamed = Tally.of([v for v, _ in pairs], [f"{-image}.jpg" for _, image in pairs]).bootstrap()
    assert one == again == renamed
    assert BOOTSTRAP == one.method
    if one.low is not None:
        values = [value for value, _ in pairs]
        assert min(values) <= one.low <= one.high <= max(values)


def test_another_seed_draws_other_images():
    values = np.random.default_rng(1).exponential(size=200).tolist()
    tally = Tally.of(values, range(200))
    assert tally.bootstrap(seed=0) == tally.bootstrap(seed=0)
    assert tally.bootstrap(seed=0) != tally.bootstrap(seed=1)


@pytest.mark.parametrize("questions", [1, 4])
def test_a_bootstrap_of_symmetric_values_is_near_student_s_t(questions):
    """Both are of images: what is drawn are whole ones."""
    random = np.random.default_rng(2)
    images = np.repeat(random.normal(size=500), questions)
    values = (3 + images + random.normal(0, 0.2, len(images))).tolist()
    names = np.repeat(np.arange(500), questions).tolist()
    drawn, expected = Tally.of(values, names).bootstrap(), clustered_mean(values, names)
    width = expected.high - expected.low
    assert expected.mean == drawn.mean
    assert pytest.approx(expected.low, abs=0.06 * width) == drawn.low
    assert pytest.approx(expected.high, abs=0.06 * width) == drawn.high
    alone = Tally.of(values, range(len(values))).bootstrap()
    if questions > 1:
        assert drawn.high - drawn.low > 1.6 * (alone.high - alone.low)


def test_a_bootstrap_of_skewed_values_leans_as_they_do():
    """CIDEr has many low values and few high ones: the upper end is farther off."""
    values = (np.random.default_rng(3).pareto(2.5, size=60) / 4).tolist()
    found = Tally.of(values, range(60)).bootstrap()
    assert found.high - found.mean > 1.1 * (found.mean - found.low)


@pytest.mark.parametrize("drawn", ["normal", "exponential"])
def test_bootstrap_intervals_cover_what_they_promise(drawn):
    """About 95%, of skewed values a little less; 120 times 60 images."""
    random = np.random.default_rng(20231107)
    values = getattr(random, drawn)(size=(120, 60))
    truth = 1.0 if drawn == "exponential" else 0.0
    intervals = [Tally.of(each, range(60)).bootstrap() for each in values.tolist()]
    assert 0.87 < np.mean([each.low <= truth <= each.high for each in intervals]) < 1


# Differences and Holm


@unhurried
@given(
    st.floats(-5, 5), st.floats(0.01, 5), st.integers(30, 5000), st.sampled_from([0.0, -0.5, 1.0])
)
def test_p_values_are_student_s(mean, error, clusters, bound):
    """Of clusters - 1 degrees; both sides together are certain."""
    found = Difference(mean, error, 3 * clusters, clusters)
    above = reference.t.sf((mean - bound) / error, clusters - 1)
    below = reference.t.cdf((mean - bound) / error, clusters - 1)
    assert pytest.approx(max(above, 0.5**clusters), rel=1e-7, abs=1e-15) == found.p_above(bound)
    assert pytest.approx(max(below, 0.5**clusters), rel=1e-7, abs=1e-15) == found.p_below(bound)
    low, high = found.interval(0.9)
    expected = reference.t.interval(0.9, clusters - 1, mean, error)
    assert pytest.approx(expected, rel=1e-7, abs=1e-9) == (low, high)
    margin = 1e-6 * error
    assert (found.p_above(low - margin) < 0.05, found.p_above(low + margin) < 0.05) == (True, False)


@pytest.mark.parametrize("clusters", [2, 3, 4, 5, 40])
@pytest.mark.parametrize("error", [0.0, 1e-15])
def test_images_that_all_fell_alike_are_as_sure_as_the_sign_test(clusters, error):
    """Student's t has no doubt of two images that fell alike; coins do so a quarter of the time."""
    found = Difference(-1.0, error, clusters, clusters)
    assert 0.5**clusters == found.p_below(0.0) == replace(found, mean=1.0).p_above(0.0)
    assert found.p_above(0.0) == pytest.approx(1.0)


def test_one_image_tells_nothing():
    found = Difference(-1.0, None, 9, 1)
    assert (None, 1.0, 1.0) == (found.interval(), found.p_below(0.0), found.p_above(0.0))


@unhurried
@given(PAIRS, st.sampled_from([-0.5, 0.0, 2.0]))
def test_p_values_change_sides_with_the_sign(pairs, bound):
    """Worse by so much one way round is better by so much the other."""
    values, clusters = zip(*pairs, strict=True)
    one = Tally.of(values, clusters).difference()
    other = Tally.of([-value for value in values], clusters).difference()
    assert one.p_above(bound) == other.p_below(-bound)
    assert one.p_below(bound) == other.p_above(-bound)


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


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=25), st.floats(0, 1), st.randoms())
def test_holm_keeps_order_and_grows_with_tests(found, another, random):
    """No p-value falls, none is above 1, their order stays, and one more test lowers none."""
    adjusted = holm(found)
    assert all(before <= after <= 1.0 for before, after in zip(found, adjusted, strict=True))
    assert all(after <= min(len(found) * p, 1.0) for p, after in zip(found, adjusted, strict=True))
    order = sorted(range(len(found)), key=found.__getitem__)
    assert sorted(adjusted) == [adjusted[number] for number in order]
    more = holm([*found, another])[:-1]
    assert all(before <= after for before, after in zip(adjusted, more, strict=True))
    places = random.sample(range(len(found)), len(found))
    assert [adjusted[number] for number in places] == holm([found[number] for number in places])


@unhurried
@given(st.floats(0.001, 0.999), st.integers(1, 10**5))
def test_student_s_t_is_scipy_s(probability, degrees):
    found = t_quantile(probability, degrees)
    assert pytest.approx(reference.t.ppf(probability, degrees), rel=1e-6, abs=1e-9) == found
    assert pytest.approx(1 - probability, rel=1e-6) == t_above(found, degrees)


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
        return after - before, tally.difference().values

    few, many = held(100), held(20_000)
    assert (100, 20_000) == (few[1], many[1])
    assert many[0] < few[0] + 5_000


def test_a_bootstrap_of_many_images_is_drawn_in_blocks():
    """2,000 draws of 447,793 images are not held at a time."""
    tally = Tally.of((np.arange(9_000) % 11 / 10).tolist(), range(9_000))
    tracemalloc.start()
    tally.bootstrap()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 90 * 2**20  # all at once: 137 MiB, and as much again


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
    ("values", "images", "method"),
    [
        (BINARY, [f"{n}.jpg" for n in range(30)], WILSON),
        (BINARY, [f"{n // 2}.jpg" for n in range(30)], T),
        (GRADED, [f"{n}.jpg" for n in range(30)], T),
        (GRADED, [""] * 30, T),
        ([1.0] * 30, [f"{n // 3}.jpg" for n in range(30)], WILSON),
    ],
    ids=["binary", "binary, images shared", "graded", "without images", "all right"],
)
def test_a_summary_tells_where_its_figure_may_lie(values, images, method):
    """By image, and a sample without one by itself; the figure lies between."""
    summary, rows = scored({"accuracy": number, "other": lambda text, _: 1.0}, values, images)
    expected = Tally.of(values, [image or str(n) for n, image in enumerate(images)]).interval()
    found = summary["intervals"]["accuracy"]
    assert {"low": expected.low, "high": expected.high, "method": method} == found
    assert found["low"] <= summary["metrics"]["accuracy"] <= found["high"]
    assert summary["intervals"].keys() == summary["metrics"].keys()
    assert images == [row["image"] for row in rows]


def test_a_corpus_metric_s_interval_is_drawn():
    """CIDEr's values are skewed; the other metrics of the task keep theirs."""

    def corpus(texts, references):
        return [float(text) for text in texts]

    values = [0.1 * (n % 10) ** 2 for n in range(40)]
    images = [f"{n}.jpg" for n in range(40)]
    summary, _ = scored({"cider": Corpus(corpus), "length": number}, values, images)
    drawn, whole = Tally.of(values, images).bootstrap(), Tally.of(values, images).interval()
    assert {"low": drawn.low, "high": drawn.high, "method": BOOTSTRAP} == summary["intervals"][
        "cider"
    ]
    assert {"low": whole.low, "high": whole.high, "method": T} == summary["intervals"]["length"]


@pytest.mark.parametrize("corpus", [False, True])
def test_of_a_single_image_there_is_no_interval(corpus):
    """Nothing is known of how images differ; a figure there is all the same."""
    metric = Corpus(lambda texts, _: [float(text) for text in texts]) if corpus else number
    summary, _ = scored({"m": metric}, [0.25, 0.75], ["a.jpg", "a.jpg"])
    assert ({}, {"m": 0.5}) == (summary["intervals"], summary["metrics"])


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


def figures(name, value=0.5, reach=0.01, samples=None, size=1000, **more):
    """A task's figures, with the interval so far around."""
    samples = size if samples is None else samples
    metric = COLUMNS[name].metric
    intervals = {} if reach is None else {metric: (value - reach, value + reach)}
    given_fields = {
        "complete": samples == size and not more.get("failed"),
        "protocol": "published",
        "metrics": {metric: value},
        "intervals": intervals,
    }
    return TaskFigures(name, size, samples, images=900, **{**given_fields, **more})


def compared(*tasks):
    """Columns of the card that these tasks fill, and others, by their label."""
    run = RunFigures("r", Path("r"), "raw", {task.task: task for task in tasks})
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
        (0.586, 0.01, {"as_published": (8, 8)}, "not comparable"),
        (0.586, 0.01, {"doubts": ("another judge",)}, "not comparable"),
        (0.586, 0.01, {"size": None, "samples": 9, "complete": False}, "not comparable"),
        (0.586, None, {}, "no interval"),
        (0.586, None, {"samples": 999}, "incomplete"),
    ],
)
def test_each_figure_has_a_verdict(value, reach, more, verdict):
    """Beside 58.6, by the interval as it is printed."""
    found = compared(figures("okvqa_val", value, reach, **more))["OK-VQA"]
    assert ("58.6", verdict) == (found.card, found.verdict)
    if reach:
        assert f"{100 * (value - reach):.1f} to {100 * (value + reach):.1f}" == found.interval


def test_what_is_missing_is_never_reproduced():
    """Not run; answered, but scored elsewhere; half of a column; no row of the card."""
    found = compared(
        figures("chartqa_test_human", 0.657),
        figures("vqav2_testdev", metrics={}, intervals={}),
        figures("okvqa_val", metrics={}, intervals={}, samples=0, failed=1000),
        figures("gqa_testdev", 0.593, few_shot=2),
    )
    assert {
        "TextVQA": "not run",
        "ChartQA": "not run",
        "chartqa_test_human relaxed_accuracy": "-",
        "VQAv2 dev": "incomplete",
        "OK-VQA": "incomplete",
        "gqa_testdev exact_match": "-",
    } == {
        name: found[name].verdict
        for name in (
            "TextVQA",
            "ChartQA",
            "chartqa_test_human relaxed_accuracy",
            "VQAv2 dev",
            "OK-VQA",
            "gqa_testdev exact_match",
        )
    }


@settings(deadline=None, max_examples=150)
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
    task = figures(name, value, reach, samples, failed=failed, **more)
    found = compared(task)[COLUMNS[name].label]
    around = False
    if reach is not None:
        low, high = (float(end) for end in found.interval.split(" to "))
        around = low <= float(found.card) <= high
    whole = samples == 1000 and not failed and not asked_otherwise
    assert (whole and around) == (found.verdict == "reproduced")
    if samples < 1000 or failed:
        assert found.verdict == "incomplete"


def test_the_mean_of_two_tasks_has_the_interval_of_independent_errors():
    """ChartQA: half of the root of the squares, on each side by itself."""
    human, augmented = figures("chartqa_test_human", 0.5), figures("chartqa_test_augmented", 0.8)
    human = replace(human, intervals={"relaxed_accuracy": (0.47, 0.54)})
    augmented = replace(augmented, intervals={"relaxed_accuracy": (0.76, 0.83)})
    found = compared(human, augmented)["ChartQA"]
    below, above = math.hypot(0.03, 0.04) / 2, math.hypot(0.04, 0.03) / 2
    assert f"{65 - 100 * below:.1f} to {65 + 100 * above:.1f}" == found.interval == "62.5 to 67.5"
    assert "reproduced" == found.verdict
    for lacking in (replace(human, intervals={}), replace(human, samples=999, complete=False)):
        assert compared(lacking, augmented)["ChartQA"].verdict in ("no interval", "incomplete")


def test_a_mean_s_interval_covers_what_it_promises():
    """Of two tasks whose samples are independent, by simulation."""
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        tasks = []
        for name, truth in (("chartqa_test_human", 0.5), ("chartqa_test_augmented", 0.75)):
            values = (random.random(200) < truth).astype(float).tolist()
            told = Tally.of(values, range(200)).interval()
            ends = {"relaxed_accuracy": (told.low, told.high)}
            tasks.append(figures(name, told.mean, intervals=ends))
        low, high = map(float, compared(*tasks)["ChartQA"].interval.split(" to "))
        covered += low <= 62.5 <= high
    assert 0.92 < covered / 400 < 0.985


# Read back


@pytest.fixture
def run(tmp_path):
    """A run of one task with its summary as scoring writes it."""
    summary, rows = scored({"vqa_accuracy": number}, GRADED, [f"{n // 2}.jpg" for n in range(30)])
    manifest = {"name": "r", "model": {"digest": "0"}, "tasks": {"okvqa_val": {}}}
    folder = RunFolder.start(tmp_path / "run", manifest)
    (tmp_path / "run" / "okvqa_val").mkdir()
    folder.write_scores("okvqa_val", rows, lambda: summary)
    return tmp_path / "run"


def test_an_interval_is_read_as_it_was_written(run):
    told = json.loads((run / "okvqa_val" / "summary.json").read_bytes())["intervals"]
    found = load_run(run).tasks["okvqa_val"].intervals
    assert {"vqa_accuracy": (told["vqa_accuracy"]["low"], told["vqa_accuracy"]["high"])} == found


@pytest.mark.parametrize(
    ("intervals", "said"),
    [
        ({"vqa_accuracy": {"low": 0.9, "high": 0.95}}, "its figure is not between"),
        ({"vqa_accuracy": {"low": 0.1, "high": 0.2}}, "its figure is not between"),
        ({"vqa_accuracy": {"low": 0.9, "high": 0.1}}, "its figure is not between"),
        ({"anls": {"low": 0.1, "high": 0.9}}, "'anls'"),
        ({"vqa_accuracy": {"low": 0.1}}, "'high': a number expected, nothing found"),
        ({"vqa_accuracy": {"low": "0.1", "high": 0.9}}, "'low': a number expected, '0.1' found"),
        ({"vqa_accuracy": {"low": None, "high": 0.9}}, "'low': a number expected, None found"),
        ({"vqa_accuracy": [0.1, 0.9]}, "'vqa_accuracy': 'low' and 'high' expected"),
        ([0.1, 0.9], "'intervals': metric -> interval expected"),
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


def test_a_summary_of_before_has_no_interval(run):
    """It is read all the same, and no verdict is made of it."""
    file = run / "okvqa_val" / "summary.json"
    summary = json.loads(file.read_bytes())
    del summary["intervals"]
    file.write_text(json.dumps(summary), "utf-8")
    assert {} == load_run(run).tasks["okvqa_val"].intervals
