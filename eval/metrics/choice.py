"""Multiple choice by letter, as ScienceQA is asked: options in the prompt, a letter to answer."""

from collections.abc import Sequence

from eval.errors import DataError

LETTERS = "ABCDE"


def choice_accuracy(prediction: str, reference: str) -> float:
    """1.0 where the predicted letter is the right one, else 0.0.

    prediction, reference  a letter; white space at its ends does not matter

    Source   ScienceQA, evaluate_acc; equal to its totals over all 4,241 test questions
    """
    letter = reference.strip()
    if not letter:
        raise DataError(f"reference: the letter of the right choice expected, {reference!r} found")
    return float(prediction.strip() == letter)


def options_text(choices: Sequence[str]) -> str:
    r"""The options as a prompt lists them: `A. frog\nB. dog`."""
    letters = _letters(choices)
    return "\n".join(f"{letter}. {text}" for letter, text in zip(letters, choices, strict=True))


def option_tokens(choices: Sequence[str]) -> tuple[str, ...]:
    """What is appended to the prompt for each choice, (" A", " B"); the space belongs to it."""
    return tuple(f" {letter}" for letter in _letters(choices))


def _letters(choices: Sequence[str]) -> str:
    if isinstance(choices, str) or not 1 <= len(choices) <= len(LETTERS):
        raise DataError(
            f"choices: a list of 1 to {len(LETTERS)} texts expected, for the letters "
            f"{LETTERS[0]} to {LETTERS[-1]}, {choices!r} found"
        )
    return LETTERS[: len(choices)]
