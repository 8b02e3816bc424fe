"""A back end that answers from a recorded run: for tests, and to run a pipeline without a model."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.api import Prediction, Request
from eval.errors import RunError
from eval.run.folder import RunFolder


class Replay:
    """Looks up each request's prediction in a run folder."""

    def __init__(self, run: Path) -> None:
        self.run = RunFolder.open(run)
        self.recorded: dict[str, dict[str, Prediction]] = {}

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """Yield the recorded prediction of each request. Raises RunError where there is none."""
        for request in requests:
            task, _, sample = request.id.partition("/")
            if task not in self.recorded:
                self.recorded[task] = self.run.answers(task).by_id()
            if sample not in self.recorded[task]:
                raise RunError(f"{self.run.path}: no prediction recorded for {request.id}")
            yield replace(self.recorded[task][sample], id=request.id)

    def describe(self) -> Mapping[str, Any]:
        """The recorded model, and that it was replayed."""
        return {**self.run.manifest["model"], "engine": "replay"}


def open_backend(checkpoint: str, *, image_root: Path, **_: Any) -> Replay:
    """Open the run folder named as checkpoint; images and settings are not needed."""
    return Replay(Path(checkpoint))
