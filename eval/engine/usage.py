"""What an engine did, since it was made."""

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """Images that went through the vision tower, tokens that went through the language model.

    prefix     shared tokens, computed once for all their rows
    suffix     tokens of prompts and options behind them
    decoded    generated tokens that were read again
    answers    predictions, `failed` ones among them
    waited_s   seconds in which the model waited for a picture
    elapsed_s  seconds until each last prediction, its requests' planning among them
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
