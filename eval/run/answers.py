"""A task's answers in a run: the journals that grow, and the predictions that they become.

Journals are merged by sample and by the request's identity; a request that has changed since is
pending again. Losses lie in a file of their own: their last digits depend on what was computed
together, and predictions are the same to the byte.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from eval.api import Prediction
from eval.data import Examples
from eval.data.declare import Task
from eval.errors import RunError
from eval.run import journal
from eval.run.files import (
    EXAMPLES,
    JOURNAL,
    LOSSES,
    PREDICTIONS,
    SCORES,
    SUMMARY,
    source_digests,
)
from eval.run.requests import Identified, identified_requests
from eval.run.spec import Spec, read_samples
from eval.storage.digests import Digests
from eval.storage.reading import is_there, read_lines, reason
from eval.storage.writing import write_file, write_rows, writing

REOPENED = "before"  # journal of what a task's predictions.jsonl held when it was opened again


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """The answers in a task's folder.

    model  that every journal must name
    named  whether journals must name a model at all: those of older runs do not
    """

    folder: Path
    model: journal.Identity
    named: bool

    @property
    def task(self) -> str:
        """The task's name."""
        return self.folder.name

    @property
    def complete(self) -> bool:
        """Whether all of the task's predictions are there."""
        return is_there(self.folder / PREDICTIONS, RunError)

    def recorded(self) -> dict[str, Prediction]:
        """Predictions so far, by sample id: an answer rather than a failure, else the later."""
        merged: dict[str, Prediction] = {}
        for file in self._files():
            for entry in self._entries(file):
                prediction = entry.prediction
                if not prediction.error or merged.get(prediction.id, prediction).error:
                    merged[prediction.id] = prediction
        return merged

    def entries(self) -> Iterator[journal.Entry]:
        """All predictions in dataset order, each with its request's identity.

        Raises RunError where the task is not finished.
        """
        if not self.complete:
            raise RunError(
                f"{self.folder.parent}: {self.task} is not finished ({len(self.recorded())} "
                "predictions in its journals). Run the same command again to go on"
            )
        return self._final()

    def predictions(self) -> Iterator[Prediction]:
        """All predictions, one at a time, in dataset order. Raises RunError as `entries` does."""
        return (entry.prediction for entry in self.entries())

    def by_id(self) -> dict[str, Prediction]:
        """All predictions by sample id, in dataset order. Raises RunError as `entries` does."""
        return {prediction.id: prediction for prediction in self.predictions()}

    def failed(self) -> dict[str, str]:
        """Samples without an answer, and why, by id."""
        return {p.id: p.error for p in self.recorded().values() if p.error}

    def digest(self) -> str:
        """sha256 of predictions.jsonl. Raises RunError as `entries` does."""
        self.entries()
        return source_digests(self.folder, (PREDICTIONS,))[PREDICTIONS]

    def pending(
        self, task: Task, data: Path, spec: Spec, digests: Digests, batch: int = 1
    ) -> Iterator[Identified]:
        """Requests that have no answer yet, and have not failed either, in the samples' order.

        batch  where it is not 1, a batch that lacks an answer is pending as a whole, so that no
               answer depends on where a run was stopped
        """
        answers = journal.AnswerIndex(self._files(), self._entries)

        def is_pending(request: Identified) -> bool:
            return answers.place(request.sample_id, request.of) is None

        every = identified_requests(task, data, spec, digests)
        if batch == 1:
            yield from filter(is_pending, every)
            return
        number = 0
        while together := list(islice(every, batch)):
            if any(map(is_pending, together)):
                yield from (replace(each, group=f"{self.task} {number}") for each in together)
            number += 1

    def is_current(self, task: Task, data: Path, spec: Spec, digests: Digests) -> bool:
        """Whether predictions.jsonl answers today's requests, as `finalize` would write it.

        An image that was replaced and is back has its answers in the journals, and others there.
        """
        files = self._files()
        answers = journal.AnswerIndex(files)
        places = (
            answers.place(each.sample_id, each.of)
            for each in identified_requests(task, data, spec, digests)
        )
        return self.complete and all(
            place is not None and files[place[0]].name == PREDICTIONS for place in places
        )

    def open(self, task: Task, data: Path, spec: Spec) -> None:
        """Make the folder, and turn finished predictions back into a journal."""
        with refusals(self.folder):
            self.folder.mkdir(exist_ok=True)
        if spec.few_shot and not is_there(self.folder / EXAMPLES, RunError):
            self._write_examples(task, data, spec)
        if self.complete:
            self._write_journal(self.folder / JOURNAL.format(REOPENED), self._final())
        self._drop_results()

    def reopen(self) -> None:
        """Drop failed predictions, so that their requests are pending again."""
        for file in self._files():
            final = file.name == PREDICTIONS
            entries = self._final() if final else self._entries(file)
            kept = [entry for entry in entries if not entry.prediction.error]
            name = JOURNAL.format(REOPENED) if final else file.name
            self._write_journal(file.with_name(name), kept)
        self._drop_results()

    def finalize(self, task: Task, data: Path, spec: Spec, digests: Digests) -> int:
        """Write predictions.jsonl in dataset order, unless some are missing; how many are."""
        if self.complete:
            return 0
        answers = journal.AnswerIndex(self._files(), self._entries)
        places: list[tuple[int, int]] = []
        missing = 0
        for each in identified_requests(task, data, spec, digests):
            place = answers.place(each.sample_id, each.of)
            if place is None:
                missing += 1
            else:
                places.append(place)
        if missing:
            return missing
        losses: list[bytes] = []
        with answers, writing(self.folder / PREDICTIONS) as file:
            for place in places:
                entry = answers.entry(place)
                file.write(journal.line(entry.prediction, entry.of, losses=False))
                if of_options := journal.losses_of(entry.prediction):
                    row = {"id": entry.prediction.id, **of_options}
                    losses.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if losses:
                write_file(self.folder / LOSSES, b"".join(losses))
        return 0

    def _files(self) -> list[Path]:
        """Files that hold answers, in an order that no file system decides."""
        try:
            journals = [f for f in self.folder.iterdir() if f.match(JOURNAL.format("*"))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be read: {reason(error)}") from None
        return [*sorted(journals), *([self.folder / PREDICTIONS] if self.complete else [])]

    def _entries(self, file: Path) -> Iterator[journal.Entry]:
        """Answers of one of these files; a journal must be of the run's model."""
        if file.name == PREDICTIONS:
            return journal.read(file, torn=True)
        return journal.read(file, torn=True, model=self.model, named=self.named)

    def _final(self) -> Iterator[journal.Entry]:
        """Lines of predictions.jsonl, with what is in losses.jsonl, which has the same order."""
        file = self.folder / LOSSES
        rows = iter(read_lines(file, RunError) if is_there(file, RunError) else ())
        number, row = 0, None
        for entry in journal.read(self.folder / PREDICTIONS, torn=False):
            if row is None and (content := next(rows, None)):
                number += 1
                row = journal.parse_losses(content, f"{file}, line {number}")
            if row and row.id == entry.prediction.id:
                full = replace(entry.prediction, losses=row.losses, dtype_losses=row.dtype_losses)
                entry, row = replace(entry, prediction=full), None
            yield entry
        if row or next(rows, None):
            raise RunError(f"{file}, line {number}: not in the order of {PREDICTIONS}")

    def _write_journal(self, file: Path, entries: Iterable[journal.Entry]) -> None:
        lines = (journal.line(entry.prediction, entry.of) for entry in entries)
        write_file(file, journal.header(self.model) + b"".join(lines))

    def _drop_results(self) -> None:
        """Drop the file whose existence proves a task finished, and what follows from it."""
        for name in (PREDICTIONS, LOSSES, SCORES, SUMMARY):
            with refusals(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def _write_examples(self, task: Task, data: Path, spec: Spec) -> None:
        """Which training samples stand before which question."""
        examples = Examples(task, data, leaking=spec.leaking)
        rows = (
            {
                "id": sample.id,
                "examples": [e.id for e in examples.draw(sample.id, spec.few_shot, spec.seed)],
            }
            for sample in read_samples(task, data, spec)
        )
        write_rows(self.folder / EXAMPLES, rows)


class Journals:
    """A worker's journals, one for each task.

    model  whose answers these are; it must be known when the first one is written
    """

    def __init__(self, run: Path, worker: str, model: journal.Identity | None = None) -> None:
        self.run = run
        self.worker = worker
        self.model = model
        self.open: dict[str, journal.Journal] = {}

    def answered_by(self, about: Mapping[str, Any]) -> None:
        """Name the model, as its back end describes it."""
        self.model = journal.model_identity(about)

    def write(self, answer: Prediction, of: str) -> str:
        """Record the answer to a request; the task's name. Raises RunError on a full disk."""
        assert self.model is not None  # whoever answers says so first
        task, _, sample_id = answer.id.partition("/")
        if task not in self.open:
            file = self.run / task / JOURNAL.format(self.worker)
            self.open[task] = journal.Journal(file, self.model)
        self.open[task].write(replace(answer, id=sample_id), of)
        return task

    def close(self) -> None:
        """Bring all to the disk."""
        while self.open:
            self.open.popitem()[1].close()


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Raise RunError for what the system refuses."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {reason(error)}") from None
