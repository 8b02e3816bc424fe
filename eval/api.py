"""Requests, predictions, and the back ends between them.

A task knows no model and a back end knows no task. Standard library only: importing this module
never imports torch.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from eval.errors import PredictionError, UsageError


@dataclass(frozen=True, slots=True)
class Generate:
    """Greedy decoding: the best token at each step until `<|endoftext|>` or the maximum.

    min_new_tokens forbids `<|endoftext|>` for that many steps. Raises UsageError where it exceeds
    the maximum.
    """

    max_new_tokens: int
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UsageError(
                f"new tokens: a minimum of 0 to the maximum of {self.max_new_tokens} expected, "
                f"{self.min_new_tokens} found"
            )


@dataclass(frozen=True, slots=True)
class Nucleus(Generate):
    """Nucleus sampling at temperature 1: among the likeliest tokens that together reach top_p.

    seed  of a task's questions; a request has a seed of its own, made from it and the request's id,
          so that what is drawn depends on no other question

    Raises UsageError for a top_p that is not above 0 and at most 1, and for a seed below 0.
    """

    top_p: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        Generate.__post_init__(self)  # super() knows no class that was made anew for its slots
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p: above 0 and at most 1 expected, {self.top_p} found")
        if self.seed < 0:
            raise UsageError(f"seed: 0 or more expected, {self.seed} found")

    def drawn(self, request_id: str) -> "Nucleus":
        """The same with the request's own seed, below 2^63."""
        told = hashlib.sha256(f"{self.seed} {request_id}".encode()).digest()
        return replace(self, seed=int.from_bytes(told[:8], "big") >> 1)


@dataclass(frozen=True, slots=True)
class Rank:
    """No decoding: the option whose tokens are likeliest after the prompt wins, first on a tie.

    options  the texts appended to the prompt, such as (" A", " B"); the prediction's text is the
             winner, stripped
    """

    options: tuple[str, ...]

    def best(self, losses: Sequence[float]) -> int:
        """Index of the lowest loss, the first on a tie; nats, one for each option.

        Raises PredictionError for a loss that is not finite: half precision may overflow.

        Source   Qwen-VL, eval_mm/evaluate_multiple_choice.py; equal to it on every case of
                 tests/golden/metrics/multiple_choice.json
        """
        if len(losses) != len(self.options) or not losses or not all(map(math.isfinite, losses)):
            raise PredictionError(
                f"losses: a number for each of {len(self.options)} options expected, "
                f"{list(losses)} found"
            )
        return min(range(len(losses)), key=losses.__getitem__)


Decode = Generate | Rank


@dataclass(frozen=True, slots=True)
class Request:
    """What a back end is asked.

    id      <task>/<sample>, unique within a run
    prompt  Qwen-VL's notation; its image paths lie below the back end's image root
    chat    the prompt is the user's only turn in a ChatML dialogue, with the usual system text;
            the reply also ends at `<|im_end|>`
    """

    id: str
    prompt: str
    decode: Decode
    chat: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a back end answers.

    id      the request's
    text    decoded without special tokens and not stripped; for Rank the winning option, stripped
    tokens  the generated token ids, up to and with `<|endoftext|>`; empty for Rank
    losses  for Rank, each option's mean negative log-likelihood in float32, in nats
    error   why there is no answer, an unreadable image say; the text is then empty
    seed    of the draw, where the text was sampled
    dtype_losses  for Rank, the same losses computed in the model's dtype, as the original does;
            empty where that is float32, since they are equal then
    """

    id: str
    text: str
    tokens: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    error: str = ""
    seed: int | None = None
    dtype_losses: tuple[float, ...] = ()


@runtime_checkable
class Backend(Protocol):
    """Anything that answers requests: an engine, a server, a recording.

    Opened by an entry point of the group "eval.backends": a callable
    (checkpoint: str, *, image_root: Path, device: str, dtype: str, batch_size: int) -> Backend.
    Its module may also have `identify(checkpoint: str, revision: str | None) -> str`, the `digest`
    that describe() tells: a run whose answers are all there then loads no model; `GENERATION`, a
    number that describe() tells as `generation`, raised when the code answers otherwise;
    `footprint(checkpoint, revision, dtype) -> int`, bytes on a GPU; and `device_kind(device: str)
    -> str`, which of cpu and cuda the option --device comes to. `identify` and `footprint` take a
    keyword `weights`, like the callable itself, where --weights may choose among sets of weights in
    one folder. A back end may have an attribute `usage`, as eval.engine.usage.Usage, of which a run
    prints the main numbers. It should take requests when it has room for them: what it has taken no
    other worker can take.
    """

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield one prediction per request as each finishes; order is not promised.

        One that cannot be answered, for its image say, is a prediction with the reason in `error`.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """What a manifest must say about the model: name, digest, dtype, device, settings."""
        ...
