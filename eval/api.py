"""The two seams: a Task says what is asked and how it is scored, a Backend answers.

A task knows no model and a back end knows no task. Between them travel requests and predictions.
Standard library only: importing this module never imports torch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from eval import prompt as notation
from eval.errors import DataError, PredictionError


@dataclass(frozen=True, slots=True)
class Generate:
    """Greedy decoding: the best token at each step until `<|endoftext|>` or the maximum.

    min_new_tokens forbids `<|endoftext|>` for that many steps.
    """

    max_new_tokens: int
    min_new_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Rank:
    """No decoding: the option whose tokens are likeliest after the prompt wins, first on a tie.

    options  the texts appended to the prompt, such as (" A", " B"); the prediction's text is the
             winner, stripped
    """

    options: tuple[str, ...]

    def best(self, losses: Sequence[float]) -> int:
        """Index of the lowest loss, the first on a tie; nats, one for each option.

        Raises PredictionError for a loss that is no number: half precision may overflow.

        Source   Qwen-VL, eval_mm/evaluate_multiple_choice.py; equal to it on every case of
                 tests/golden/metrics/multiple_choice.json
        """
        if len(losses) != len(self.options) or not losses or any(map(math.isnan, losses)):
            raise PredictionError(
                f"losses: a number for each of {len(self.options)} options expected, "
                f"{list(losses)} found"
            )
        return min(range(len(losses)), key=losses.__getitem__)


Decode = Generate | Rank


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a task reads.

    path    below the data root, with forward slashes
    sha256  pinned digest, or None while it is unknown; a mismatch stops the run
    origin  what provides it, said to a user who lacks it
    """

    path: str
    sha256: str | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question.

    id         unique within the task, and the same in every layout of the data
    fields     what the prompt is filled with; `image` is a path below the data root
    reference  what the metrics compare with; None where only a server knows it
    options    for ranked tasks, the texts that are appended to the prompt: (" A", " B")
    """

    id: str
    fields: Mapping[str, str]
    reference: Any = None
    options: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the sample's pictures, below the data root."""
        image = self.fields.get("image")
        return (image,) if image else ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a benchmark's data lie on disk; every layout gives the same samples.

    read  data root -> samples, in the order of the official file
    """

    sources: tuple[Source, ...]
    read: Callable[[Path], Iterator[Sample]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A metric whose value for one sample depends on all of them, such as CIDEr.

    function  (predictions, references) -> one value per sample
    """

    function: Callable[[Sequence[str], Sequence[Any]], list[float]]


Metric = Callable[[str, Any], float] | Corpus


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark's split: data, prompt, decoding, metrics.

    name      <benchmark>_<split>
    size      samples in the official split, or None where it is not known
    layouts   tried in turn; the first whose sources all exist is read
    prompt    Qwen-VL's notation with {field} places
    decode    a Generate for all samples, or Rank: the options are then each sample's own
    metrics   name -> metric; the first is the one that tables show; a summary is the mean over
              samples, and a metric's values stay in [0, 1] (CIDEr: [0, 10])
    readable  text -> whether it can be parsed at all; the others score 0 and are counted
    pictures  what provides the images, said to a user who lacks them
    """

    name: str
    size: int | None
    layouts: tuple[Layout, ...]
    prompt: str
    decode: Generate | type[Rank]
    metrics: Mapping[str, Metric]
    readable: Callable[[str], bool] | None = None
    pictures: str = ""

    @property
    def benchmark(self) -> str:
        """The part of the name before the split."""
        return self.name.partition("_")[0]

    def layout(self, root: Path) -> Layout:
        """The first layout whose files all lie below `root`.

        Raises DataError, naming each layout's missing files and what provides them.
        """
        lines = [f"{self.name}: its data are not below {root}. Any one of these would do:"]
        for number, layout in enumerate(self.layouts, 1):
            missing = [s for s in layout.sources if not (root / s.path).is_file()]
            if not missing:
                return layout
            for source in layout.sources:
                state = "missing" if source in missing else "found"
                origin = f" (from {source.origin})" if source.origin and source in missing else ""
                lines.append(f"  {number}. {state}: {root / source.path}{origin}")
        raise DataError("\n".join(lines))

    def has_data(self, root: Path) -> bool:
        """Whether one of the layouts is complete below `root`."""
        return any(
            all((root / source.path).is_file() for source in layout.sources)
            for layout in self.layouts
        )

    def request(self, sample: Sample) -> "Request":
        """What the model is asked about one sample; the reference stays behind."""
        decode = self.decode if isinstance(self.decode, Generate) else Rank(sample.options)
        prompt = notation.fill(self.prompt, sample.fields)
        return Request(f"{self.name}/{sample.id}", prompt, decode)


@dataclass(frozen=True, slots=True)
class Request:
    """What a back end is asked.

    id      <task>/<sample>, unique within a run
    prompt  Qwen-VL's notation; its image paths lie below the back end's image root
    """

    id: str
    prompt: str
    decode: Decode


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a back end answers.

    id      the request's
    text    decoded without special tokens and not stripped; for Rank the winning option, stripped
    tokens  the generated token ids, up to and with `<|endoftext|>`; empty for Rank
    losses  for Rank, each option's mean negative log-likelihood, in nats
    """

    id: str
    text: str
    tokens: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()


@runtime_checkable
class Backend(Protocol):
    """Anything that answers requests: an engine, a server, a recording.

    Opened by an entry point of the group "eval.backends": a callable
    (checkpoint: str, *, image_root: Path, device: str, dtype: str, batch_size: int) -> Backend.
    """

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield one prediction per request as each finishes; order is not promised."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What a manifest must say about the model: name, digest, dtype, device, settings."""
        ...
