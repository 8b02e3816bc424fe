"""The invariance certificate: what should change nothing is changed, and answers are compared.

Nothing but speed may depend on how many questions are answered at a time, in which order, by how
many workers, or whether a run was stopped and went on. In float32 no prediction may differ; in half
precision sums round differently, some close choices flip, and how many is said.
"""

import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from eval.api import Prediction
from eval.config import Config
from eval.data.declare import Task
from eval.errors import RunError, UsageError
from eval.launch import store
from eval.launch.process import devices
from eval.launch.workers import Launch
from eval.pipeline import Place, obtain_answers
from eval.run.folder import RunFolder
from eval.run.requests import Identified
from eval.storage.reading import exists, is_folder
from eval.storage.writing import PRETTY, remove_leftovers, write_file

CERTIFICATE = "certificate.json"
EXACT = "float32"
SHOWN = 3  # predictions that differ and are shown


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to answer the same questions.

    name    also of its folder
    says    what is changed
    batch   prompts of a batch, as the original made them
    stop    whether the run is killed in the middle and goes on
    """

    name: str
    says: str
    engine: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    batch: int = 1
    order: Callable[[Iterable[Identified]], Iterable[Identified]] = iter
    workers: int | None = None
    stop: bool = False


def _reversed(questions: Iterable[Identified]) -> Iterable[Identified]:
    return reversed(list(questions))


def _shuffled(questions: Iterable[Identified]) -> Iterable[Identified]:
    shuffled = list(questions)
    random.Random(0).shuffle(shuffled)
    return shuffled


ALONE = Variant("alone", "each question alone, nothing shared", backend="plain")
VARIANTS = (
    Variant("shared", "images and prefixes shared, as many at a time as fit"),
    Variant("rows-1", "one question at a time", {"sequences": 1}),
    Variant("rows-7", "seven questions at a time", {"sequences": 7}),
    Variant("batches-8", "padded batches of eight, as the original", backend="plain", batch=8),
    Variant("reversed", "in reverse order", order=_reversed),
    Variant("shuffled", "in random order", order=_shuffled),
    Variant("workers-2", "two workers", workers=2),
    Variant("workers-3", "three workers", workers=3),
    Variant("killed", "killed in the middle, then gone on", stop=True),
    Variant("killed-2", "the same with two workers, gone on with one", workers=2, stop=True),
)


@dataclass(frozen=True, slots=True)
class VariantOutcome:
    """What came of a variant.

    answers   how many there were
    differ    ids of predictions that differ from those of ALONE
    examples  the first of them, in words
    skipped   why the variant was left out, or ""
    """

    variant: Variant
    answers: int = 0
    differ: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The outcomes of all variants, and what a manifest says of the model."""

    model: Mapping[str, Any]
    answers: int
    outcomes: tuple[VariantOutcome, ...]

    @property
    def exact(self) -> bool:
        """Whether no prediction may differ: in half precision sums round differently."""
        return str(self.model.get("dtype")) == EXACT

    @property
    def holds(self) -> bool:
        """Whether no prediction differs that may not."""
        return not self.exact or not any(each.differ for each in self.outcomes)

    @property
    def most(self) -> float:
        """The largest share of the predictions that differ in a variant."""
        return max(len(each.differ) for each in self.outcomes) / self.answers


def certify(config: Config, tasks: Sequence[Task], place: Place) -> Certificate:
    """Answer the same requests in every way, and write certificate.json.

    place  its `out` gets a run for each way; one that is there goes on or is taken as it is

    Raises UsageError where `out` holds anything else.
    """
    _check_folder(place.out)
    truth, model = _answers(config, tasks, place, ALONE)
    room = len(devices()) if place.device != "cpu" else 0
    outcomes = tuple(_outcome(config, tasks, place, each, truth, room) for each in VARIANTS)
    facts = {name: model.get(name) for name in ("digest", "dtype", "device", "generation")}
    certificate = Certificate(facts, len(truth), outcomes)
    content = {
        "model": facts,
        "tasks": [task.name for task in tasks],
        "answers": len(truth),
        "holds": certificate.holds,
        "variants": [
            {"name": each.variant.name, "answers": each.answers, "differ": len(each.differ)}
            for each in outcomes
            if not each.skipped
        ],
    }
    write_file(place.out / CERTIFICATE, orjson.dumps(content, option=PRETTY))
    return certificate


def _outcome(
    config: Config,
    tasks: Sequence[Task],
    place: Place,
    variant: Variant,
    truth: Mapping[str, Prediction],
    room: int,
) -> VariantOutcome:
    """room: GPUs of this machine that may be used, 0 without any."""
    skipped = ""
    if room and (variant.workers or 1) > room:
        skipped = f"this machine has {room} GPU"
    elif variant.stop and not _stopped(config, tasks, place, variant):
        skipped = "the run ended before it could be killed; ask more samples with --limit"
    if skipped:
        place.reporting.say(f"{variant.name}: left out, {skipped}")
        return VariantOutcome(variant, skipped=skipped)
    answers, _ = _answers(config, tasks, place, variant)
    differ = tuple(name for name in truth if _content(truth[name]) != _content(answers[name]))
    examples = tuple(
        f"{variant.name}: {name}: {truth[name].text!r} alone, {answers[name].text!r} here"
        for name in differ[:SHOWN]
    )
    return VariantOutcome(variant, len(answers), differ, examples)


def _check_folder(out: Path) -> None:
    """Raise UsageError where the folder holds anything but an earlier certificate and its runs."""
    if not exists(out):
        return
    remove_leftovers(out)
    runs = {variant.name for variant in (ALONE, *VARIANTS)}
    entries = {entry.name: is_folder(entry) for entry in out.iterdir()}
    ours = {name for name, folder in entries.items() if folder and name in runs}
    if ours and not entries.get(CERTIFICATE, True):
        ours.add(CERTIFICATE)
    if foreign := sorted(entries.keys() - ours):
        raise UsageError(
            f"--out {out}: {foreign[0]!r:.80} in it is not of an earlier certificate. Give an "
            "empty or a new folder"
        )


def _content(prediction: Prediction) -> tuple[str, tuple[int, ...], bool]:
    return prediction.text, prediction.tokens, bool(prediction.error)


def _answers(
    config: Config, tasks: Sequence[Task], place: Place, variant: Variant
) -> tuple[dict[str, Prediction], Mapping[str, Any]]:
    """Predictions by task and sample, and what the manifest says of the model."""
    place.reporting.say(f"{variant.name}: {variant.says}")
    here = replace(
        place,
        out=place.out / variant.name,
        backend=variant.backend or place.backend,
        engine={**place.engine, **variant.engine},
        launch=Launch(None if variant.stop else variant.workers),
        order=variant.order,
    )
    run = obtain_answers(replace(config, batch_size=variant.batch), tasks, here)
    predictions = {
        f"{task.name}/{sample}": prediction
        for task in tasks
        for sample, prediction in run.answers(task.name).by_id().items()
    }
    return predictions, run.manifest["model"]


def _stopped(config: Config, tasks: Sequence[Task], place: Place, variant: Variant) -> bool:
    """Have a run killed in the middle, if that was not done before; whether it could be."""
    here = replace(place, out=place.out / variant.name, launch=Launch(variant.workers))
    if here.out.exists() or _kill_in_the_middle(config, tasks, here):
        return True
    shutil.rmtree(here.out)
    return False


def _kill_in_the_middle(config: Config, tasks: Sequence[Task], place: Place) -> bool:
    """Start the run as a process and kill it when it has some of its answers; whether it had."""
    command = [sys.executable, "-P", "-m", "eval.cli", "run", *(task.name for task in tasks)]
    command += ["--model", config.model, "--data", str(place.data), "--out", str(place.out)]
    command += ["--dtype", config.dtype, "--protocol", config.protocol, "--device", place.device]
    command += ["--memory", "1KiB"]  # slow enough to be met in the middle
    for name, value in (
        ("--limit", place.limit),
        ("--revision", config.revision),
        ("--weights", config.weights),
        ("--few-shot", config.few_shot or None),
        ("--seed", config.seed or None),
        ("--gpus", place.launch.gpus),
    ):
        command += [name, str(value)] if value is not None else []
    command += ["--allow-partial"] if config.partial else []
    command += ["--greedy"] if config.greedy else []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **store.ALONE},
    )
    assert process.stderr is not None  # as asked for
    try:
        while process.poll() is None:
            journals = list(place.out.glob("*/journal-*.jsonl"))
            if sum(file.stat().st_size for file in journals) > 1000:
                process.kill()
                process.wait()
                return not all(
                    RunFolder.open(place.out).answers(task.name).complete for task in tasks
                )
            time.sleep(0.01)
        if process.returncode:
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise RunError(f"{shlex.join(command)} failed: {said[-1] if said else ''}")
        return False
    finally:
        process.kill()
        process.communicate()
