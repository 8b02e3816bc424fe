"""TouchStone's figures: what is made of judgements, whatever a judge says, and never of none."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge_server import FaultyJudge
from small import command

from eval.client.ledger import Ledger
from eval.client.server import Reply, Server
from eval.judging.answers import import_answer_table
from eval.judging.drift import judge_drift
from eval.judging.occasion import Occasion
from eval.plugins import find_tasks
from eval.report.scores import load_run
from eval.scoring.score import score_run
from eval.scoring.stats import Tally
from touchstone import judging as touchstone
from touchstone.anchors import ANCHORS
from touchstone.prompt import OWN
from touchstone.score import METRIC, Judged, Round, published_means, touchstone_scores
from touchstone.table import Dialogue, write_answers

TASK = "touchstone_en"
NAN, INF = math.nan, math.inf
HALVES = st.integers(2, 20).map(lambda points: points / 2)
ODD = st.floats() | st.sampled_from([NAN, INF, -INF, 1e200, -1e200, 1e308, -1e308, -3.0, 0.0, 11.0])
CATEGORIES = st.sampled_from(["a", "b", "a,b", "a, b", "a,a", "", ",", "b,", " a", "c"])


def rounds_of(scores):
    """Rounds of which some failed; these have scores of 0, as the published script gives them."""
    failed = st.just(Round(0.0, 0.0, failed=True))
    return st.builds(Round, scores, scores) | failed


def judgements(scores=HALVES, **bounds):
    """Dialogues on a few pictures, and some on none."""
    one = st.builds(
        Judged,
        CATEGORIES,
        st.tuples(rounds_of(scores), rounds_of(scores)),
        task_name=st.sampled_from(["t1", "t2", ""]),
        image=st.sampled_from(["1.jpg", "2.jpg", "3.jpg", ""]),
    )
    return st.lists(one, **bounds).map(
        lambda found: [replace(each, id=str(number)) for number, each in enumerate(found)]
    )


def dialogue(number, response="a bus"):
    texts = (f"What is it, {number}?", f"A red bus {number}.", "A red bus.", "a", "t1")
    return Dialogue(str(number), *texts, (), response)


def judged(*pairs, category="a", name="0", image=""):
    """A dialogue of two rounds; each is the reference's score and the assessed one, or None."""
    rounds = [Round(0.0, 0.0, failed=True) if pair is None else Round(*pair) for pair in pairs]
    return Judged(category, tuple(rounds), name, "t1", image)


# What is made of judgements


@given(judgements(max_size=12))
def test_the_figures_are_the_published_ones(found):
    """The mean is the published script's, overall and by category; failed rounds are left out."""
    told = touchstone_scores(found)
    overall, by_category = published_means(found)
    if overall.assessed is None:
        assert ({}, {}, None) == (told["metrics"], told["samples"], told["judge"]["reference"])
    else:
        assert overall.assessed / 100 == told["metrics"][METRIC]
        assert overall.reference / 100 == told["judge"]["reference"]
    expected = {name: m.assessed / 100 for name, m in by_category.items() if m.assessed is not None}
    by = told["by"]["category"]
    assert pytest.approx(expected, abs=1e-12) == {name: each[METRIC] for name, each in by.items()}
    members = {name: {one.id for one in found if name in one.category.split(",")} for name in by}
    assert {name: len(ids) for name, ids in members.items()} == {
        name: each["samples"] for name, each in by.items()
    }


@given(judgements(max_size=12))
def test_intervals_are_of_all_rounds_by_picture(found):
    """A dialogue without a picture is on its own; both its rounds belong together."""
    told = touchstone_scores(found)["judge"]
    scored = [(one, each) for one in found for each in one.rounds if not each.failed]
    if not scored:
        assert (None, 0) == (told["interval"], told["images"])
        return
    names = [one.image or one.id for one, _ in scored]
    expected = Tally.of([each.assessed for _, each in scored], names).interval(1.0, 10.0)
    assert (expected.clusters, expected.reason) == (told["images"], told["no_interval"])
    assert told["interval"] == (None if expected.low is None else [expected.low, expected.high])
    for group, values in told["intervals"].items():
        for value, ends in values.items():
            reason = told["no_intervals"][group].get(value, "")
            assert (ends is None) == reason.startswith("too few images for an interval (")
            assert ends is None or 1 <= ends[0] < ends[1] <= 10


@given(judgements(min_size=1, max_size=12))
def test_bounds_are_the_worst_and_the_best_that_failed_rounds_can_make(found):
    """The mean of the others lies between them; where none failed they are the mean."""
    told = touchstone_scores(found)
    rounds = [each for one in found for each in one.rounds]
    failed = sum(each.failed for each in rounds)
    assert (len(rounds) - failed, failed) == (told["judge"]["judgements"], told["judge"]["failed"])
    low, high = told["judge"]["bounds"]
    mean = told["metrics"].get(METRIC, low)
    assert 1 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 10
    assert pytest.approx(9 * failed / len(rounds)) == high - low
    for bound, score in ((low, 1.0), (high, 10.0)):
        made = [r if not r.failed else Round(0.0, score) for r in rounds]
        assert pytest.approx(sum(each.assessed for each in made) / len(made)) == bound
    said = f"{failed:,} of {len(rounds):,} judgements failed and are left out"
    assert ([said] if failed else []) == told["faults"]


@given(judgements(max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_dialogues_changes_nothing(found, random):
    """But for the order of samples; half points add up without rounding."""
    told, other = touchstone_scores(found), touchstone_scores(random.sample(found, len(found)))
    assert list(told["samples"]) == [
        one.id for one in found if any(not r.failed for r in one.rounds)
    ]
    assert told == other


def test_a_category_counts_for_each_of_its_parts_as_published():
    """Neither stripped nor taken once: "a,a" counts its dialogue twice, " b" is not "b"."""
    found = [
        judged((5, 2), (5, 3), category="a,a", name="1"),
        judged((5, 8), (5, 9), category="a, b", name="2"),
        judged((5, 4), None, category="", name="3"),
        judged((5, 6), None, category="b", name="4"),
        judged(None, None, category="c,b", name="5"),
    ]
    by = touchstone_scores(found)["by"]["category"]
    expected = {
        "": {"samples": 1, METRIC: 4.0},
        " b": {"samples": 1, METRIC: 8.5},
        "a": {"samples": 2, METRIC: (2 * (2 + 3) + 8 + 9) / 6},
        "b": {"samples": 2, METRIC: 6.0},
    }
    assert expected == by
    assert list(expected) == list(by)


def test_rounds_that_agree_and_dialogues_that_are_won():
    """By hand: only dialogues with two scored rounds tell whether the order of answers matters."""
    told = touchstone_scores(
        [
            judged((5, 7), (6, 7), name="won in both"),
            judged((7, 5), (5, 6), name="lost, for one and by more"),
            judged((4, 6), (8, 6), name="alike in sum"),
            judged((6, 6), (3, 3), name="alike in both"),
            judged((9, 2), None, name="lost in the only one"),
            judged(None, None, name="not judged"),
            judged((NAN, 9), (1, 9), name="no number"),
        ]
    )
    assert {"win": 1, "tie": 2, "loss": 2} == told["judge"]["against_reference"]
    # the reference stands first in round 1: +(5-7) +(7-5) +(4-6) +0, then the assessed one does:
    # +(7-6) +(6-5) +(6-8) +0
    expected = {"dialogues": 4, "same_winner": 2, "difference": 4 / 4, "first_preferred": -2 / 8}
    assert expected == told["judge"]["rounds"]


@pytest.mark.parametrize("bias", [-1.0, 0.0, 0.5])
def test_a_judge_that_prefers_what_stands_first_is_told(bias):
    """By how much, whatever the answers are worth."""
    pairs = [(5, 6), (7.5, 2), (4, 4)]
    found = [
        judged((one + bias, two), (one, two + bias), name=str(number))
        for number, (one, two) in enumerate(pairs)
    ]
    assert bias == touchstone_scores(found)["judge"]["rounds"]["first_preferred"]


def test_nothing_judged_gives_no_figure():
    """No rounds, or none with scores."""
    for found in ([], [judged(None, None)]):
        told = touchstone_scores(found)
        agreement = {"dialogues": 0, "same_winner": 0, "difference": None, "first_preferred": None}
        assert ({}, {}) == (told["metrics"], told["samples"])
        assert agreement == told["judge"]["rounds"]
        assert ([1.0, 10.0] if found else None) == told["judge"]["bounds"]


# Scores that are none


@pytest.mark.parametrize("odd", [NAN, INF, -INF, -300.0, 1e50, 1e200, -1e308])
def test_scores_of_which_no_mean_can_be_told_give_no_figure_and_say_so(odd):
    """A number that Python reads is a score, as published; what comes of it may be none."""
    found = [judged((5, 6), (5, 6), name="1"), judged((5, odd), (5, odd), name="2", category="b")]
    told = touchstone_scores(found)
    assert {} == told["metrics"]
    count, said = told["faults"]
    assert "2 judgements are not from 1 to 10, and count as they are" == count
    assert said.startswith("their mean is ")
    assert said.endswith(", so there is no figure")
    assert {"a"} == told["by"]["category"].keys()


def test_scores_beside_the_scale_count_as_they_are():
    """As published, as long as their mean can be shown; it is said."""
    told = touchstone_scores(
        [judged((5, 11), (5, 0.5), name="1"), judged((5, 6), (5, 6), name="2")]
    )
    assert (11 + 0.5 + 12) / 4 == told["metrics"][METRIC]
    assert ["2 judgements are not from 1 to 10, and count as they are"] == told["faults"]


@pytest.mark.parametrize("odd", [NAN, INF, 1e200, 1e308])
def test_a_reference_without_a_number_keeps_no_figure_from_the_answers(odd):
    """Their scores are whole; who won against it is not known."""
    told = touchstone_scores(
        [judged((odd, 7), (odd, 8), name="1"), judged((5, 6), (5, 7), name="2")]
    )
    assert (7.0, {METRIC: 7.5}) == (told["metrics"][METRIC], told["samples"]["1"])
    assert (None, []) == (told["judge"]["reference"], told["faults"])
    assert {"win": 1, "tie": 0, "loss": 0} == told["judge"]["against_reference"]
    assert 1 == told["judge"]["rounds"]["dialogues"]


@given(judgements(HALVES | ODD, max_size=8))
@example([judged((1e200, 1e200), (-1e200, 1e200))])
@example([judged((1e308, -1e308), (1e308, -1e308)), judged((1e308, 1e308), (1e308, 1e308))])
def test_every_number_in_a_figure_is_one(found):
    """Whatever a judge says: JSON has no nan, and a table would show it."""

    def check(told):
        if isinstance(told, float):
            assert math.isfinite(told)
        elif isinstance(told, dict | list):
            for each in told.values() if isinstance(told, dict) else told:
                check(each)

    told = touchstone_scores(found)
    check(told)
    overall, _ = published_means(found)
    if overall.assessed is not None and 0 <= overall.assessed / 100 <= 10:
        assert overall.assessed / 100 == told["metrics"][METRIC]
    elif overall.assessed is not None:
        assert any("there is no figure" in fault for fault in told["faults"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose answers are to be judged."""
    root = tmp_path_factory.mktemp("run")
    file = root / "answers.tsv"
    file.write_bytes(write_answers([dialogue(number) for number in range(8)]))
    (task,) = find_tasks([TASK])
    return *import_answer_table(
        file, root / "run", task, touchstone, None, allow_partial=True, about={}
    ), task


@settings(max_examples=25)
@given(judgements(HALVES | ODD, min_size=8, max_size=8))
def test_whatever_a_judge_says_the_run_can_be_read(run, found):
    """A summary that a report refuses could never be put right: its judgements are paid."""
    folder, data, task = run
    told = touchstone_scores(found)
    about = {"model": "m", "reported": [], "prompt": {"digest": "d"}}
    scores = {**told, "server": "m at h", "judge": told["judge"] | about, "doubts": told["faults"]}
    folder.scores(task.name).write_server(scores)
    score_run(folder, task, data)
    read = load_run(folder.path).tasks[task.name]
    assert (told["metrics"], told["by"]) == (read.metrics, read.by)
    assert tuple(told["faults"]) == read.doubts


@pytest.mark.parametrize(
    ("says", "metric", "doubt"),
    [
        ("7 7", 7.0, None),
        ("nan 5", None, "their mean is nan"),
        ("5 inf", None, "their mean is inf"),
        ("-3 -3", None, "their mean is -3"),
        ("11 12", None, "their mean is 11.5"),
        ("1e200 1e200", None, "their mean is 1e+200"),
        ("1e308 -1e308", 0.0, "8 judgements are not from 1 to 10"),
        ("0 0", 0.0, "8 judgements are not from 1 to 10"),
    ],
)
def test_a_judge_with_a_scale_of_its_own(tmp_path, monkeypatch, says, metric, doubt):
    """As published: the script's score, where there is one, and a run that can be shown."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    file = tmp_path / "answers.tsv"
    file.write_bytes(write_answers([dialogue(number) for number in range(4)]))
    with FaultyJudge(says=says) as server:
        told = judge(file, server, "--no-anchors", "--as-published")
    assert (0 if metric is not None or "1150.0" in told.stdout else 3) == told.returncode
    read = load_run(tmp_path / "answers.judged").tasks[TASK]
    assert ({} if metric is None else {METRIC: metric}) == read.metrics
    assert doubt is None or any(doubt in each for each in read.doubts)
    assert says.startswith("7") or "not from 1 to 10" in str(read.doubts)


def judge(file, server, *options):
    arguments = (file, "--judge", server.model, "--base-url", server.url, "--allow-partial")
    return command("judge", *arguments, *options)


# Anchors


class Occasions:
    """A ledger into which occasions are written, each with other answers."""

    def __init__(self, folder):
        self.path = folder / "ledger.jsonl"
        self.server = Server("m", "http://127.0.0.1/v1")

    def judge_anchors(self, response, tell, *, prompt=OWN, reported="m-1", model="m"):
        """Judge the anchors; `tell` says what is replied to an anchor's number and a round."""
        server = replace(self.server, model=model)
        items = [dialogue(1, response)]
        occasion = Occasion.of(touchstone, TASK, items, server, prompt, anchors=True)
        with Ledger.held(self.path, touchstone) as ledger:
            for request in occasion.anchors:
                number = 1 + [anchor.id for anchor in ANCHORS].index(request.item.id)
                text = tell(number, request.round)
                while text is not None and not ledger.account.settled(request.key):
                    ledger.asked(request, None)
                    ledger.judged(request, Reply(text, reported), None, {})
        return occasion

    def drift(self, occasion):
        with Ledger.held(self.path, touchstone) as ledger:
            return judge_drift(occasion, ledger)


@pytest.fixture
def occasions(tmp_path):
    return Occasions(tmp_path)


def fair(number, order):
    """The assessed answer gets the anchor's number, the reference 9.5."""
    return f"9.5 {number}" if order == 1 else f"{number} 9.5"


def less(number, order):
    """As fair, but for the last anchor, of which the assessed answer gets 4 less in round 2."""
    return "4 9.5" if (number, order) == (8, 2) else fair(number, order)


def test_no_anchors_tell_nothing(occasions):
    """Neither where none were asked, nor where none was answered."""
    assert occasions.drift(occasions.judge_anchors("a", lambda _number, _order: None)) is None
    assert occasions.drift(occasions.judge_anchors("b", lambda _number, _order: "no")) is None


def test_the_first_occasion_is_what_later_ones_are_compared_with(occasions):
    """Also on the tenth, and the first when it is looked at again."""
    first = occasions.judge_anchors("a", fair)
    told = occasions.drift(first)
    day = told.pop("recorded_on")
    expected = {"judgements": 16, "mean": 4.5, "recorded": 4.5, "reported": "m-1", "changed": 0}
    assert expected | {"first": True} == told
    later = occasions.judge_anchors("b", less, reported="m-2")
    told = occasions.drift(later)
    assert day == told.pop("recorded_on")
    assert expected | {"mean": 4.25, "changed": 1, "first": False} == told
    last = occasions.judge_anchors("c", less, reported="m-3")
    assert 4.5 == occasions.drift(last)["recorded"]
    assert occasions.drift(first)["first"]


def test_the_day_is_that_of_the_earlier_judgements(occasions):
    """As their lines have it."""
    occasions.judge_anchors("a", fair)
    lines = [json.loads(line) for line in occasions.path.read_text("utf-8").splitlines()]
    moved = [json.dumps(line | {"time": "2023-08-31T12:00:00+00:00"}) + "\n" for line in lines]
    occasions.path.write_text("".join(moved), "utf-8")
    assert "2023-08-31" == occasions.drift(occasions.judge_anchors("b", fair))["recorded_on"]


def test_anchors_that_fail_are_left_out_of_both_means(occasions):
    """Replies without scores, or with no number: the others are compared."""
    occasions.judge_anchors("a", fair)
    for response, failing in (("b", "sorry"), ("c", "nan nan"), ("d", None)):
        odd = occasions.judge_anchors(
            response, lambda n, order, said=failing: said if n == 8 else fair(n, order)
        )
        told = occasions.drift(odd)
        assert (14, 4.0, 4.0, False) == tuple(
            told[name] for name in ("judgements", "mean", "recorded", "first")
        )


def test_an_occasion_that_was_interrupted_is_no_measure_for_a_whole_one(occasions):
    """Before its anchors were complete; once it is, it is the earliest again."""
    half = occasions.judge_anchors("a", lambda n, order: fair(n, order) if n < 5 else None)
    assert (8, 2.5) == tuple(occasions.drift(half)[name] for name in ("judgements", "mean"))
    whole = occasions.judge_anchors("b", less)
    told = occasions.drift(whole)
    assert (True, 16, 4.25) == (told["first"], told["judgements"], told["recorded"])
    third = occasions.judge_anchors("c", fair)
    assert (4.25, 1) == tuple(occasions.drift(third)[name] for name in ("recorded", "changed"))
    occasions.judge_anchors("a", fair)
    assert (4.5, 0) == tuple(occasions.drift(third)[name] for name in ("recorded", "changed"))


def test_anchors_of_another_judge_or_prompt_are_no_measure(occasions):
    """Other words make other scores."""
    occasions.judge_anchors("a", fair)
    for changed in ({"model": "n"}, {"prompt": replace(OWN, system="Grade.")}):
        assert occasions.drift(occasions.judge_anchors("a", less, **changed))["first"]


@given(st.lists(st.lists(HALVES, min_size=16, max_size=16), min_size=1, max_size=3))
@settings(max_examples=15)
def test_drift_is_the_distance_from_the_first_occasion(tmp_path_factory, given_scores):
    """Whatever the scores."""
    occasions = Occasions(tmp_path_factory.mktemp("anchors"))
    first = given_scores[0]
    for number, scores in enumerate(given_scores):

        def tell(anchor, order, scores=scores):
            points = scores[2 * anchor + order - 3]
            return f"1 {points}" if order == 1 else f"{points} 1"

        told = occasions.drift(occasions.judge_anchors(str(number), tell))
        assert pytest.approx((sum(scores) / 16, sum(first) / 16)) == (
            told["mean"],
            told["recorded"],
        )
        assert sum(a != b for a, b in zip(scores, first, strict=True)) == told["changed"]
        assert (number == 0) == told["first"]


def test_a_judge_that_became_stricter_is_found_by_the_command(tmp_path, monkeypatch):
    """Other answers, the same ledger, half a point less."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    said = []
    with FaultyJudge() as server:
        for name in ("one", "two"):
            file = tmp_path / f"{name}.tsv"
            file.write_bytes(write_answers([dialogue(1, name)]))
            told = judge(file, server, "--as-published")
            assert 0 == told.returncode, told.stderr
            summary = tmp_path / f"{name}.judged" / TASK / "summary.json"
            said.append(json.loads(summary.read_text("utf-8"))["judge"]["anchors"])
            server.drift = -0.5
    first, second = said
    assert (True, 0) == (first["first"], first["changed"])
    assert (False, 16) == (second["first"], second["changed"])
    assert pytest.approx(-0.5) == second["mean"] - second["recorded"]
    assert "drift -50.0, 16 differ" in told.stdout
