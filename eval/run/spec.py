"""The specification of a task in a run: which samples, in which protocol, on which data.

A run goes on only where all of this is the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from eval.api import Generate, Nucleus, Rank
from eval.data import Pins, unique
from eval.data.declare import Sample, Task
from eval.data.examples import RULE
from eval.errors import DataError
from eval.protocols.qwen_vl import CHATML, PUBLISHED, SYSTEM, is_dialogue
from eval.storage.digests import sha256_file


@dataclass(frozen=True, slots=True)
class Spec:
    """How a task is evaluated, and on which samples.

    limit     only the first so many samples
    few_shot  examples of the training split before each question, drawn by `seed`
    seed      of all that is drawn: examples, and tokens where a task samples
    greedy    a task that samples takes the best token instead
    leaking   captions are drawn from the split itself, as the published script does
    left_out  ids of samples whose picture is missing
    faults    what keeps the data from being the official split's
    """

    limit: int | None = None
    protocol: str = PUBLISHED
    few_shot: int = 0
    seed: int = 0
    leaking: bool = False
    greedy: bool = False
    left_out: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Spec":
        """The specification in a manifest's entry of a task."""
        names = ("limit", "protocol", "few_shot", "seed", "leaking")
        fields: dict[str, Any] = {name: entry[name] for name in names if name in entry}
        fields |= {name: tuple(entry.get(name, ())) for name in ("left_out", "faults")}
        decode = entry.get("decode", {})
        fields |= {name: decode[name] for name in ("seed", "greedy") if name in decode}
        return cls(**fields)

    def decode(self, task: Task) -> Generate | None:
        """How a task that samples decodes; None for one that does not, which always does the same.

        A request's own seed is made from this one.
        """
        how = task.decode
        if not isinstance(how, Nucleus):
            return None
        if self.greedy:
            return Generate(how.max_new_tokens, how.min_new_tokens)
        return replace(how, seed=self.seed)


def read_samples(task: Task, data: Path, spec: Spec = Spec()) -> Iterator[Sample]:
    """The samples of the specification, in the official order, ids checked to be unique."""
    left_out = set(spec.left_out)
    for number, sample in enumerate(unique(task.layout(data).read(data), task.name)):
        if number == spec.limit:
            return
        if sample.id not in left_out:
            yield sample


def spec_entry(task: Task, data: Path, spec: Spec) -> dict[str, Any]:
    """A manifest's entry of a task: it shows whether two runs have the same requests.

    Raises DataError where a file is not the pinned one.
    """
    sources = list(task.layout(data).sources)
    if spec.few_shot and not spec.leaking:
        sources += task.examples(data).sources
    lock = Pins.read(data)
    digests: dict[str, str] = {}
    for source in sources:
        for file in source.files(data):
            path = file.relative_to(data).as_posix()
            digests[path] = sha256_file(file)
            pinned = source.sha256 or lock.digest(path)
            if pinned not in (None, digests[path]):
                raise DataError(
                    f"{task.name}: {file}: sha256 {pinned} expected, {digests[path]} found. Fetch "
                    f"it again from {source.origin or 'its source'}"
                )
    entry: dict[str, Any] = {
        "prompt": task.chat if spec.protocol == CHATML else task.prompt,
        "protocol": spec.protocol,
        "decode": _describe_decode(spec.decode(task) or task.decode),
        "size": task.size,
        "limit": spec.limit,
        "layout": task.layout(data).name,
        "sources": digests,
    }
    if is_dialogue(task, spec.protocol):
        entry["system"] = SYSTEM
    if spec.few_shot:
        entry |= {"few_shot": spec.few_shot, "seed": spec.seed, "leaking": spec.leaking}
    if spec.faults:
        entry |= {"faults": list(spec.faults), "left_out": list(spec.left_out)}
    return entry


def spec_digest(task: Task, entry: Mapping[str, Any]) -> str:
    """Twelve digits that identify the way to ask, from a manifest's entry of a task.

    They depend on the prompt's template, the protocol, a dialogue's system text, decoding, how
    options are appended, and the few-shot examples' number, seed and rule; not on which samples
    there are, nor on their data.
    """
    dialogue = is_dialogue(task, entry["protocol"])
    fields: dict[str, Any] = {name: entry[name] for name in ("prompt", "protocol", "decode")}
    if dialogue:
        fields["system"] = entry.get("system", SYSTEM)  # which earlier versions did not record
    if entry["decode"].get("rank"):
        fields["options"] = "stripped" if dialogue else "as they are"
    if entry.get("few_shot"):
        fields |= {name: entry.get(name) for name in ("few_shot", "seed", "leaking")}
        fields["examples"] = RULE
    content = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:12]


def _describe_decode(decode: Generate | type[Rank]) -> dict[str, Any]:
    if isinstance(decode, type):
        return {"rank": True}
    lengths = {
        "max_new_tokens": decode.max_new_tokens,
        "min_new_tokens": decode.min_new_tokens,
    }
    if isinstance(decode, Nucleus):
        return {"greedy": False, **lengths, "top_p": decode.top_p, "seed": decode.seed}
    return {"greedy": True, **lengths}
