"""What is asked: which samples of a task, in which protocol, on which data.

The same questions are asked again where a run goes on, and only if all of this is the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from eval.api import CHATML, PUBLISHED, Generate, Nucleus, Rank, Request, Sample, Task
from eval.data import Examples, Lock, sha256_file, unique, verify
from eval.data.examples import RULE
from eval.errors import DataError
from eval.protocols.qwen_vl import SYSTEM
from eval.storage.tree import is_file


@dataclass(frozen=True, slots=True)
class Asked:
    """How a task's questions are asked, and of which samples.

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
    def of(cls, entry: Mapping[str, Any]) -> "Asked":
        """As a manifest's entry of a task tells it."""
        names = ("limit", "protocol", "few_shot", "seed", "leaking")
        told: dict[str, Any] = {name: entry[name] for name in names if name in entry}
        told |= {name: tuple(entry.get(name, ())) for name in ("left_out", "faults")}
        decode = entry.get("decode", {})
        told |= {name: decode[name] for name in ("seed", "greedy") if name in decode}
        return cls(**told)

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


def read_samples(task: Task, data: Path, asked: Asked = Asked()) -> Iterator[Sample]:
    """The samples that are asked, in the official order, ids checked to be unique."""
    left_out = set(asked.left_out)
    for number, sample in enumerate(unique(task.layout(data).read(data), task.name)):
        if number == asked.limit:
            return
        if sample.id not in left_out:
            yield sample


def check_data(
    task: Task, data: Path, asked: Asked, *, allow_partial: bool = False
) -> tuple[int, Asked]:
    """Verify a task's data but for the inside of pictures: how many samples are asked, and how.

    Raises DataError for what would stop a run hours later, a malformed record say, and for data
    that are not the official split's: with `allow_partial` these become faults that mark every
    figure, and samples without their picture are left out.
    """
    found = verify(task, data, limit=asked.limit)
    if not found.samples:
        raise DataError(f"{task.name}: its files below {data} hold no sample of this split")
    examples = Examples(task, data, leaking=asked.leaking) if asked.few_shot else None
    left_out: list[str] = []
    missing: set[str] = set()  # pictures of examples; those of samples were looked for already
    decode = asked.decode(task)
    for sample in read_samples(task, data, asked):
        shown = examples.draw(sample.id, asked.few_shot, asked.seed) if examples else ()
        task.request(sample, asked.protocol, shown, decode=decode)  # refuses what cannot be
        lacking = {p for example in shown for p in example.images if not is_file(data / p)}
        missing |= lacking
        if lacking or not all(is_file(data / path) for path in sample.images):
            left_out.append(sample.id)
    faults = list(found.faults)
    if missing:
        faults.append(
            f"{len(missing):,} images of few-shot examples are missing, such as {min(missing)}: "
            "they are fetched by 'data prepare --few-shot'"
        )
    if faults and not allow_partial:
        lines = "\n  ".join(faults)
        raise DataError(
            f"{task.name}: the data below {data} are not those that the card was measured on:\n"
            f"  {lines}\nqwen-vl-eval data prepare {task.name} --data {data} fetches what is "
            "missing; --allow-partial runs all the same and marks every figure"
        )
    if len(left_out) == found.samples:
        raise DataError(f"{task.name}: no sample has its picture below {data}")
    told = replace(asked, left_out=tuple(left_out), faults=tuple(faults))
    return found.samples - len(left_out), told


def requests(task: Task, data: Path, asked: Asked) -> Iterator[tuple[Sample, Request]]:
    """Each sample with what the model is asked about it."""
    decode = asked.decode(task)
    if not asked.few_shot:
        for sample in read_samples(task, data, asked):
            yield sample, task.request(sample, asked.protocol, decode=decode)
        return
    examples = Examples(task, data, leaking=asked.leaking)
    for sample in read_samples(task, data, asked):
        shown = examples.draw(sample.id, asked.few_shot, asked.seed)
        yield sample, task.request(sample, asked.protocol, shown, decode=decode)


def describe_task(task: Task, data: Path, asked: Asked) -> dict[str, Any]:
    """What a manifest says about a task: enough to tell whether two runs asked the same.

    Raises DataError where a file is not the pinned one.
    """
    sources = list(task.layout(data).sources)
    if asked.few_shot and not asked.leaking:
        sources += task.examples(data).sources
    lock = Lock.read(data)
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
        "prompt": task.chat if asked.protocol == CHATML else task.prompt,
        "protocol": asked.protocol,
        "decode": _describe_decode(asked.decode(task) or task.decode),
        "size": task.size,
        "limit": asked.limit,
        "layout": task.layout(data).name,
        "sources": digests,
    }
    if _is_dialogue(task, asked.protocol):
        entry["system"] = SYSTEM
    if asked.few_shot:
        entry |= {"few_shot": asked.few_shot, "seed": asked.seed, "leaking": asked.leaking}
    if asked.faults:
        entry |= {"faults": list(asked.faults), "left_out": list(asked.left_out)}
    return entry


def asked_digest(task: Task, entry: Mapping[str, Any]) -> str:
    """Twelve digits that tell one way to ask from another, of a manifest's entry of a task.

    They depend on the prompt's template, the protocol, a dialogue's system text, decoding, how
    options are appended, and the few-shot examples' number, seed and rule; not on which samples
    are asked, nor on their data.
    """
    dialogue = _is_dialogue(task, entry["protocol"])
    told: dict[str, Any] = {name: entry[name] for name in ("prompt", "protocol", "decode")}
    if dialogue:
        told["system"] = entry.get("system", SYSTEM)  # which earlier versions did not record
    if entry["decode"].get("rank"):
        told["options"] = "stripped" if dialogue else "as they are"
    if entry.get("few_shot"):
        told |= {name: entry.get(name) for name in ("few_shot", "seed", "leaking")}
        told["examples"] = RULE
    content = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:12]


def _is_dialogue(task: Task, protocol: str) -> bool:
    return protocol == CHATML or task.dialogue


def _describe_decode(decode: Generate | type[Rank]) -> dict[str, Any]:
    if isinstance(decode, type):
        return {"rank": True}
    told = {
        "max_new_tokens": decode.max_new_tokens,
        "min_new_tokens": decode.min_new_tokens,
    }
    if isinstance(decode, Nucleus):
        return {"greedy": False, **told, "top_p": decode.top_p, "seed": decode.seed}
    return {"greedy": True, **told}
