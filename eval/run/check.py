"""Checks a task's data before a model is loaded."""

from dataclasses import replace
from pathlib import Path

from eval.data import Examples
from eval.data.declare import Task
from eval.data.verify import verify
from eval.errors import DataError
from eval.run.requests import render_request
from eval.run.spec import Spec, read_samples
from eval.storage.tree import is_file


def check_data(
    task: Task, data: Path, spec: Spec, *, allow_partial: bool = False
) -> tuple[int, Spec]:
    """Verify a task's data but for the inside of pictures.

    Returns the number of samples, and the specification with what the data lack.

    Raises DataError for what would stop a run hours later, a malformed record say, and for data
    that are not the official split's: with `allow_partial` these become issues that mark every
    figure, and samples without their picture are left out.
    """
    verified = verify(task, data, limit=spec.limit)
    if not verified.samples:
        raise DataError(f"{task.name}: its files below {data} hold no sample of this split")
    examples = Examples(task, data, leaking=spec.leaking) if spec.few_shot else None
    left_out: list[str] = []
    missing: set[str] = set()  # pictures of examples; those of samples were looked for already
    decode = spec.decode(task)
    for sample in read_samples(task, data, spec):
        shown = examples.draw(sample.id, spec.few_shot, spec.seed) if examples else ()
        render_request(task, sample, spec.protocol, shown, decode=decode)  # refuses what cannot be
        absent = {p for example in shown for p in example.images if not is_file(data / p)}
        missing |= absent
        if absent or not all(is_file(data / path) for path in sample.images):
            left_out.append(sample.id)
    issues = list(verified.issues)
    if missing:
        issues.append(
            f"{len(missing):,} images of few-shot examples are missing, such as {min(missing)}: "
            "they are fetched by 'data prepare --few-shot'"
        )
    if issues and not allow_partial:
        lines = "\n  ".join(issues)
        raise DataError(
            f"{task.name}: the data below {data} are not those that the card was measured on:\n"
            f"  {lines}\nqwen-vl-eval data prepare {task.name} --data {data} fetches what is "
            "missing; --allow-partial runs all the same and marks every figure"
        )
    if len(left_out) == verified.samples:
        raise DataError(f"{task.name}: no sample has its picture below {data}")
    complete = replace(spec, left_out=tuple(left_out), faults=tuple(issues))
    return verified.samples - len(left_out), complete
