"""Scoring: what is not known is never made into a figure."""

from dataclasses import replace

import pytest
from small import make_data

from eval.errors import DataError, PredictionError
from eval.registry import find_tasks
from eval.asked import read_samples
from eval.score import score


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
