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
from rich.markup import escape
from rich.table import Table

from eval.api import Prediction
from eval.cli.console import err, out
from eval.cli.options import new_folder
from eval.config import Config
from eval.data.declare import Task
from eval.errors import RunError, UsageError
from eval.launch import store
from eval.launch.process import devices
from eval.launch.workers import Launch
from eval.pipeline import Place, obtain
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
    Variant("rows-1", "one question at a time", {"rows": 1}),
    Variant("rows-7", "seven questions at a time", {"rows": 7}),
    Variant("batches-8", "padded batches of eight, as the original", backend="plain", batch=8),
    Variant("reversed", "in reverse order", order=_reversed),
    Variant("shuffled", "in random order", order=_shuffled),
    Variant("workers-2", "two workers", workers=2),
    Variant("workers-3", "three workers", workers=3),
    Variant("killed", "killed in the middle, then gone on", stop=True),
    Variant("killed-2", "the same with two workers, gone on with one", workers=2, stop=True),
)


def certify(config: Config, tasks: Sequence[Task], place: Place) -> bool:
    """Answer the questions in every way, print and write the certificate; whether it holds.

    place  its `out` gets a run for each way; one that is there goes on or is taken as it is

    Raises UsageError where `out` holds anything else.
    """
    _check_folder(place.out)
    truth, model = _answers(config, tasks, place, ALONE)
    table = Table(box=None, pad_edge=False)
    for name in ("what is changed", "answers", "differ", "share"):
        table.add_column(name, justify="left" if name == "what is changed" else "right")
    rows: list[dict[str, Any]] = []
    examples: list[str] = []
    room = len(devices()) if place.device != "cpu" else 0
    for variant in VARIANTS:
        if room and (variant.workers or 1) > room:
            err.print(f"{variant.name}: left out, this machine has {room} GPU", highlight=False)
            continue
        if variant.stop and not _stopped(config, tasks, place, variant):
            err.print(
                f"{variant.name}: left out, the run ended before it could be killed; ask more "
                "samples with --limit",
                highlight=False,
            )
            continue
        found, _ = _answers(config, tasks, place, variant)
        differ = [name for name in truth if _told(truth[name]) != _told(found[name])]
        rows.append({"name": variant.name, "answers": len(found), "differ": len(differ)})
        table.add_row(
            variant.says, f"{len(found):,}", f"{len(differ):,}", f"{len(differ) / len(found):.2%}"
        )
        examples += [
            f"{variant.name}: {name}: {truth[name].text!r} alone, {found[name].text!r} here"
            for name in differ[:SHOWN]
        ]
    exact = str(model.get("dtype")) == EXACT
    holds = not exact or not any(row["differ"] for row in rows)
    facts = {name: model.get(name) for name in ("digest", "dtype", "device", "generation")}
    told = {
        "model": facts,
        "tasks": [task.name for task in tasks],
        "answers": len(truth),
        "holds": holds,
        "variants": rows,
    }
    write_file(place.out / CERTIFICATE, orjson.dumps(told, option=PRETTY))
    out.print(table)
    for line in examples:
        err.print(escape(line), highlight=False, soft_wrap=True)
    most = max(row["differ"] for row in rows) / len(truth)
    verdict = (
        ("no prediction differs" if holds else "PREDICTIONS DIFFER, and none may")
        if exact
        else f"at most {most:.2%} of the predictions flip"
    )
    digest = str(facts["digest"])[:12]
    out.print(f"{facts['dtype']} ckpt={digest}: {verdict}", highlight=False, soft_wrap=True)
    return holds


def _check_folder(out: Path) -> None:
    """Raise UsageError where the folder holds anything but an earlier certificate and its runs."""
    if not exists(new_folder(out)):
        return
    remove_leftovers(out)
    runs = {variant.name for variant in (ALONE, *VARIANTS)}
    found = {entry.name: is_folder(entry) for entry in out.iterdir()}
    ours = {name for name, folder in found.items() if folder and name in runs}
    if ours and not found.get(CERTIFICATE, True):
        ours.add(CERTIFICATE)
    if foreign := sorted(found.keys() - ours):
        raise UsageError(
            f"--out {out}: {foreign[0]!r:.80} in it is not of an earlier certificate. Give an "
            "empty or a new folder"
        )


def _told(prediction: Prediction) -> tuple[str, tuple[int, ...], bool]:
    return prediction.text, prediction.tokens, bool(prediction.error)


def _answers(
    config: Config, tasks: Sequence[Task], place: Place, variant: Variant
) -> tuple[dict[str, Prediction], Mapping[str, Any]]:
    """Predictions by task and sample, and what the manifest says of the model."""
    err.print(f"{variant.name}: {variant.says}", highlight=False)
    here = replace(
        place,
        out=place.out / variant.name,
        backend=variant.backend or place.backend,
        engine={**place.engine, **variant.engine},
        launch=Launch(None if variant.stop else variant.workers),
        order=variant.order,
    )
    folder = obtain(replace(config, batch_size=variant.batch), tasks, here)
    found = {
        f"{task.name}/{sample}": prediction
        for task in tasks
        for sample, prediction in folder.answers(task.name).by_id().items()
    }
    return found, folder.manifest["model"]


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
