"""Multiple choice: options, the choice among losses, and letters as scored for ScienceQA."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval.api import Rank
from eval.errors import DataError, PredictionError
from eval.metrics.choice import choice_accuracy, option_tokens, options_text
from eval.runtime.generation import choice_losses


def pick(losses):
    """The index that a back end picks among options with these losses."""
    return Rank(tuple("ABCDE"[: len(losses)])).best(losses)


GOLDEN = Path(__file__).parent / "golden" / "metrics"
SHARED = Path(__file__).resolve().parents[2] / "shared"
RECORDED = json.loads((GOLDEN / "multiple_choice.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", RECORDED["prompts"], ids=lambda case: case["image"])
def test_options_stand_in_the_prompt_as_recorded(case):
    assert f"\nOptions: {options_text(case['choices'])}\nAnswer:" in case["prompt"]
    assert tuple(case["targets"]) == option_tokens(case["choices"])


def test_the_lowest_recorded_loss_is_picked():
    """Recorded with 8 decimals, so ties of the source's float32 stay ties."""
    cases = RECORDED["cases"]
    chosen = [pick(case["expected_losses"]) for case in cases]
    assert [case["expected_pred"] for case in cases] == chosen
    right = [
        choice_accuracy("ABCDE"[index], "ABCDE"[case["answer"]])
        for index, case in zip(chosen, cases, strict=True)
    ]
    assert [case["expected_correct"] for case in cases] == right
    assert RECORDED["accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-12)


class Toy(SimpleNamespace):
    """A model whose logits follow the recorded formula."""

    def __call__(self, ids, mask, features):
        row, place = torch.arange(len(ids))[:, None, None], torch.arange(ids.shape[1])[:, None]
        v, x = torch.arange(self.V), ids[:, :, None]
        whole = self.a * row + self.b * place + self.c * v * v + self.d * x * v + self.e
        return (whole % self.M).float() / self.k, None

    def lm_head(self, logits):
        return logits


def toy_losses(logits, rows, targets):
    longest, pad = max(map(len, rows)), RECORDED["pad_id"]
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    return choice_losses(Toy(**logits), ids, (ids != pad).long(), None, targets).exact


def test_toy_logits_give_the_recorded_losses():
    """The mean over a choice's own tokens, each told by the place before it."""
    for case in RECORDED["cases"]:
        choices = case["choice_tokens"]
        rows = [case["prompt_tokens"] + choice for choice in choices]
        losses = toy_losses(case["logits"], rows, [len(choice) for choice in choices])
        assert case["expected_losses"] == pytest.approx(losses, abs=1e-5), case["id"]
        assert case["expected_pred"] == pick(losses), case["id"]


@pytest.mark.parametrize("size", RECORDED["batching"]["results_by_batch_size"])
def test_questions_asked_together_choose_as_each_alone(size):
    batching = RECORDED["batching"]
    items, right = batching["items"], []
    for start in range(0, len(items), int(size)):
        batch = items[start : start + int(size)]
        rows = [row for item in batch for row in item["tokens"]]
        targets = [count for item in batch for count in item["target_lengths"]]
        losses = iter(toy_losses(batching["logits"], rows, targets))
        for item in batch:
            chosen = pick([next(losses) for _ in item["tokens"]])
            right.append(int(chosen == item["answer"]))
    assert batching["results_by_batch_size"][size] == right


@pytest.mark.parametrize("function", [options_text, option_tokens])
@pytest.mark.parametrize("choices", [["x"] * 6, [], "dog"])
def test_only_one_to_five_choices_have_letters(function, choices):
    assert "raises" in RECORDED["six_choices"]
    with pytest.raises(DataError, match=r"1 to 5 texts expected, for the letters A to E"):
        function(choices)


@pytest.mark.parametrize("losses", [[], [0.5, math.nan], [0.5, math.inf], [-math.inf, 0.5]])
def test_losses_that_are_no_numbers_are_refused(losses):
    with pytest.raises(PredictionError, match=r"a number for each of"):
        pick(losses)


@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.1, 0.2]])
def test_every_option_has_a_loss(losses):
    """One too few or too many would choose among other options than were asked."""
    with pytest.raises(PredictionError, match="a number for each of 2 options expected"):
        Rank((" A", " B")).best(losses)


def test_letters_are_compared_without_white_space():
    assert choice_accuracy(" B\n", "B") == 1
    assert choice_accuracy("b", "B") == 0
    assert choice_accuracy("", "B") == 0
    with pytest.raises(DataError, match="letter of the right choice expected, ' '"):
        choice_accuracy("", " ")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_the_first_of_equal_losses_wins(losses):
    assert losses.index(min(losses)) == pick(losses)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside this checkout")
def test_published_scienceqa_predictions_give_the_published_figures():
    recorded = json.loads((SHARED / "metrics" / "scienceqa_real.json").read_text())
    assert len(recorded["answer"]) == recorded["count"] == 4241
    kinds = list(zip(recorded["has_text"], recorded["has_image"], strict=True))
    columns = {
        "acc_has_text": [text == "1" for text, _ in kinds],
        "acc_has_image": [image == "1" for _, image in kinds],
        "acc_no_context": [kind == ("0", "0") for kind in kinds],
        "acc_average": [True] * len(kinds),
    }
    assert sum(columns["acc_has_image"]) == 2017
    for run in recorded["runs"].values():
        scores = list(map(choice_accuracy, run["predictions"], recorded["answer"]))
        assert run["correct_by_labels"] == sum(scores)
        for name, members in columns.items():
            chosen = [score for score, member in zip(scores, members, strict=True) if member]
            assert run["scores"][name] == f"{100 * sum(chosen) / len(chosen):.2f}"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real samples are not beside this checkout")
def test_llava_on_scienceqa_scores_as_published():
    folder = SHARED / "samples" / "scienceqa"
    lines = (folder / "llava-v1.5-13b_all4241.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["is_multimodal"]]
    scores = [choice_accuracy(row["official_parsed"], row["ground_truth"]) for row in rows]
    expected = json.loads((folder / "expected.json").read_text())["computed"]
    assert expected["n_img"] == len(scores)
    assert expected["img"] == pytest.approx(100 * sum(scores) / len(scores), abs=5e-5)
