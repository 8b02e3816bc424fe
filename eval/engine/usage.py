"""Counts of the work that an engine has done since it was made."""

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """Images through the vision tower, tokens through the language model, seconds.

    prefix     shared tokens, computed once for all sequences that share them
    suffix     tokens of prompts and options behind them
    decoded    generated tokens that the model read
    answers    predictions, `failed` ones among them
    waited_s   seconds in which the model waited for a picture
    elapsed_s  seconds until the last prediction of each call, with the planning of its requests
    """

    images: int = 0
    prefix: int = 0
    suffix: int = 0
    decoded: int = 0
    steps: int = 0
    prefills: int = 0
    answers: int = 0
    failed: int = 0
    waited_s: float = 0.0
    elapsed_s: float = 0.0
