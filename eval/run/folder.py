"""A run is a folder: what is asked, what was answered, and what came of it.

The files' names and types are in eval.run.files. A journal grows by whole lines. They are merged by
sample and by what was asked: its prompt, decoding and the bytes of its images; what was asked
otherwise is asked again. Every other file is written beside its place and moved there.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from eval.api import Prediction, Request, Task
from eval.data import Examples
from eval.errors import RunError
from eval.protocols.qwen_vl import IMAGE
from eval.run import journal
from eval.run.files import (
    EXAMPLES,
    FORMAT,
    JOURNAL,
    JUDGEMENTS,
    LOSSES,
    PREDICTIONS,
    SERVER,
    SOURCES,
    SUBMISSION,
    WORK,
    Summary,
    check_agreement,
    read_manifest,
    read_scores,
    read_server,
    read_summary,
    source_digests,
)
from eval.run.files import MANIFEST as MANIFEST
from eval.run.files import SCORES as SCORES
from eval.run.files import SUMMARY as SUMMARY
from eval.run.spec import Asked, describe_task, read_samples, requests
from eval.storage.digests import Digests
from eval.storage.lock import Locked, locked
from eval.storage.reading import is_there, read_lines, reason
from eval.storage.writing import PRETTY, remove_leftovers, write_file, write_rows, writing

READERS = 8  # threads that read images for their digests
AT_ONCE = 256  # questions that are looked at together
REOPENED = "before"  # journal of what a task's predictions.jsonl held when it was opened again


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question without an answer.

    of     identity of what is asked: sixteen hexadecimal digits of the sha256 of prompt, decoding
           and the bytes of the images, whatever these are called
    group  what is asked together has the same: the digest of the first image (the path where it
           cannot be read), empty without one; or the name of a batch
    """

    request: Request
    of: str
    group: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run. Raises RunError where the folder holds none."""
        if not is_there(path / MANIFEST, RunError):
            raise RunError(f"{path}: not a run: it has no {MANIFEST}")
        told, manifest = read_manifest(path)
        if told.tasks is None:
            raise RunError(f"{path / MANIFEST}: 'tasks': missing; this is no run's manifest")
        return cls(path, manifest)

    @classmethod
    def start(cls, path: Path, manifest: Mapping[str, Any]) -> "RunFolder":
        """A new run, or the one in that folder if model and tasks agree, which then goes on.

        Raises RunError, naming what differs, where the folder holds another run.
        """
        form, tasks = FORMAT, manifest["tasks"]
        if not is_there(path / MANIFEST, RunError):
            _make(path)
        else:
            earlier = cls.open(path).manifest
            _refuse(path, _differing(earlier, manifest))
            form, tasks = earlier.get("format", 1), earlier["tasks"] | tasks
        merged = {**manifest, "format": form, "tasks": tasks}
        write_file(path / MANIFEST, orjson.dumps(merged, option=PRETTY))
        return cls(path, merged)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in the order they were asked for."""
        return tuple(self.manifest["tasks"])

    def work_file(self, name: str) -> Path:
        """Where a file lies that is of use only while the run is at work; its folder exists."""
        folder = self.path / WORK
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / name

    def digests(self, *, verify: bool = False) -> Digests:
        """Digests of the images, remembered in this run; with `verify` read again."""
        return Digests(self.path / WORK / "images.jsonl", verify=verify)

    def recorded(self, task: str) -> dict[str, Prediction]:
        """Predictions so far, by sample id: an answer rather than a failure, else the later."""
        found: dict[str, Prediction] = {}
        for file in self._files(task):
            for entry in self._entries(file):
                prediction = entry.prediction
                if not prediction.error or found.get(prediction.id, prediction).error:
                    found[prediction.id] = prediction
        return found

    def answers(self, task: str) -> Iterator[Prediction]:
        """All predictions of a finished task, one at a time, in dataset order."""
        return (entry.prediction for entry in self.finished(task))

    def finished(self, task: str) -> Iterator[journal.Entry]:
        """The same with what each answers. Raises RunError for a task that is not finished."""
        if not self.sealed(task):
            raise RunError(
                f"{self.path}: {task} is not finished ({len(self.recorded(task))} predictions in "
                "its journals). Run the same command again to go on"
            )
        return self._sealed(task)

    def predictions(self, task: str) -> dict[str, Prediction]:
        """All predictions of a finished task, by sample id, in dataset order."""
        return {prediction.id: prediction for prediction in self.answers(task)}

    def lacking(
        self,
        tasks: Sequence[Task],
        data: Path,
        asked: Mapping[str, Asked],
        digests: Digests,
        batch: int = 1,
    ) -> Iterator[Wanted]:
        """What has no answer yet, and has not failed either, in the order of tasks and samples.

        batch  where it is not 1, samples of a task are batches in their order, and a batch is
               asked again as a whole, so that no answer depends on where a run was stopped
        """
        for task in tasks:
            found = journal.Answers(self._files(task.name), self._entries)

            def lacks(wanted: Wanted, found: journal.Answers = found) -> bool:
                return found.place(_sample_id(wanted.request), wanted.of) is None

            questions = _wanted(task, data, asked[task.name], digests)
            if batch == 1:
                yield from filter(lacks, questions)
                continue
            number = 0
            while together := list(islice(questions, batch)):
                if any(map(lacks, together)):
                    yield from (replace(w, group=f"{task.name} {number}") for w in together)
                number += 1

    def open_task(self, task: Task, data: Path, asked: Asked) -> None:
        """Make a task's folder, and take up its answers where some are missing of a sealed one."""
        folder = self.path / task.name
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        if asked.few_shot and not is_there(folder / EXAMPLES, RunError):
            self._write_examples(task, data, asked)
        if self.sealed(task.name):
            self._write_journal(folder / JOURNAL.format(REOPENED), self._sealed(task.name))
        self._unseal(task.name)

    def journals(self, worker: int | str) -> "Journals":
        """Where a worker puts its answers down."""
        return Journals(self.path, str(worker), self._model())

    def failed(self, task: str) -> dict[str, str]:
        """Samples without an answer, and why, by id."""
        return {p.id: p.error for p in self.recorded(task).values() if p.error}

    def reopen(self, task: str) -> None:
        """Drop a task's failed predictions, so that their samples are asked again."""
        for file in self._files(task):
            sealed = file.name == PREDICTIONS
            entries = self._sealed(task) if sealed else self._entries(file)
            kept = [entry for entry in entries if not entry.prediction.error]
            name = JOURNAL.format(REOPENED) if sealed else file.name
            self._write_journal(file.with_name(name), kept)
        self._unseal(task)

    def _write_journal(self, file: Path, entries: Iterable[journal.Entry]) -> None:
        lines = (journal.line(entry.prediction, entry.of) for entry in entries)
        write_file(file, journal.header(self._model()) + b"".join(lines))

    def _model(self) -> journal.Identity:
        """What journals are to name as their model."""
        return journal.identity(self.manifest.get("model", {}))

    def _unseal(self, task: str) -> None:
        """Drop what says that a task is finished, and what follows from its predictions."""
        for name in (PREDICTIONS, LOSSES, SCORES, SUMMARY):
            with _writing(self.path / task / name):
                (self.path / task / name).unlink(missing_ok=True)

    def _write_examples(self, task: Task, data: Path, asked: Asked) -> None:
        """Which training samples stand before which question."""
        examples = Examples(task, data, leaking=asked.leaking)
        rows = (
            {
                "id": sample.id,
                "examples": [e.id for e in examples.draw(sample.id, asked.few_shot, asked.seed)],
            }
            for sample in read_samples(task, data, asked)
        )
        write_rows(self.path / task.name / EXAMPLES, rows)

    def seal(self, task: Task, data: Path, asked: Asked, digests: Digests) -> int:
        """Write predictions.jsonl in dataset order, unless some are missing; how many are.

        Losses lie in a file of their own: their last digits depend on what was computed together,
        and predictions are the same to the byte.
        """
        if self.sealed(task.name):
            return 0
        folder = self.path / task.name
        found = journal.Answers(self._files(task.name), self._entries)
        places: list[tuple[int, int]] = []
        missing = 0
        for wanted in _wanted(task, data, asked, digests):
            place = found.place(_sample_id(wanted.request), wanted.of)
            if place is None:
                missing += 1
            else:
                places.append(place)
        if missing:
            return missing
        losses: list[bytes] = []
        with found, writing(folder / PREDICTIONS) as file:
            for place in places:
                entry = found.entry(place)
                file.write(journal.line(entry.prediction, entry.of, losses=False))
                if told := journal.losses_of(entry.prediction):
                    row = {"id": entry.prediction.id, **told}
                    losses.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            if losses:
                write_file(folder / LOSSES, b"".join(losses))
        return 0

    def current(self, task: Task, data: Path, asked: Asked, digests: Digests) -> bool:
        """Whether predictions.jsonl answers what would be asked now, as a seal would write it.

        An image that was replaced and is back has its answers in the journals, and others there.
        """
        files = self._files(task.name)
        found = journal.Answers(files)
        places = (
            found.place(_sample_id(wanted.request), wanted.of)
            for wanted in _wanted(task, data, asked, digests)
        )
        return self.sealed(task.name) and all(
            place is not None and files[place[0]].name == PREDICTIONS for place in places
        )

    def sealed(self, task: str) -> bool:
        """Whether all of a task's predictions are there."""
        return is_there(self.path / task / PREDICTIONS, RunError)

    def _files(self, task: str) -> list[Path]:
        """Files that hold a task's answers, in an order that no file system decides."""
        folder = self.path / task
        try:
            found = [file for file in folder.iterdir() if file.match(JOURNAL.format("*"))]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunError(f"{folder}: cannot be read: {reason(error)}") from None
        return [*sorted(found), *([folder / PREDICTIONS] if self.sealed(task) else [])]

    def _entries(self, file: Path) -> Iterator[journal.Entry]:
        """Answers of one of these files; a journal must be of the run's model."""
        if file.name == PREDICTIONS:
            return journal.read(file, torn=True)
        named = self.manifest.get("format", 1) >= FORMAT
        return journal.read(file, torn=True, model=self._model(), named=named)

    def _sealed(self, task: str) -> Iterator[journal.Entry]:
        """Lines of predictions.jsonl, with what is in losses.jsonl, which has the same order."""
        folder = self.path / task
        file = folder / LOSSES
        rows = iter(read_lines(file, RunError) if is_there(file, RunError) else ())
        number, row = 0, None
        for entry in journal.read(folder / PREDICTIONS, torn=False):
            if row is None and (content := next(rows, None)):
                number += 1
                row = journal.parse_losses(content, f"{file}, line {number}")
            if row and row.id == entry.prediction.id:
                told = replace(entry.prediction, losses=row.losses, dtype_losses=row.dtype_losses)
                entry, row = replace(entry, prediction=told), None
            yield entry
        if row or next(rows, None):
            raise RunError(f"{file}, line {number}: not in the order of {PREDICTIONS}")

    def scored(self, task: str) -> bool:
        """Whether a task has its summary."""
        return is_there(self.path / task / SUMMARY, RunError)

    def summary(self, task: str) -> Summary:
        """A scored task's summary. Raises RunError where it does not agree with its files."""
        found = read_summary(self.path / task)
        check_agreement(self.path / task, found)
        return found

    def verify(self, task: str) -> str:
        """Compare a task's summary, if it has one, with the files that it was made from.

        Why that is impossible, or "". Raises RunError where they do not agree.
        """
        folder = self.path / task
        return check_agreement(folder, read_summary(folder)) if self.scored(task) else ""

    def check_tasks(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise RunError, naming what differs, where tasks are described otherwise than here."""
        _refuse(self.path, _differing_tasks(self.manifest["tasks"], entries))

    def refuse(self, differing: Iterable[str]) -> None:
        """Raise RunError where the run differs in anything from what is asked now."""
        _refuse(self.path, list(differing))

    def check_asked(self, task: str) -> None:
        """Raise RunError for a task that the run was not asked."""
        if task not in self.tasks:
            raise RunError(f"{self.path}: a run of {', '.join(self.tasks)}; {task} was not asked")

    def check_sources(self, task: Task, data: Path) -> dict[str, str]:
        """Digests of the task's files below `data`, by path.

        Raises RunError where they are not those that the run was asked from.
        """
        entry = self.manifest["tasks"][task.name]
        now: dict[str, str] = describe_task(task, data, Asked.of(entry))["sources"]
        for path, digest in entry["sources"].items():
            found = now.get(path)
            if found != digest:
                raise RunError(
                    f"{data / path}: not the file that the run was asked from (sha256 "
                    f"{found[:12] if found else 'not read'}, the run's {digest[:12]}); give the "
                    "right folder with --data"
                )
        return now

    def write_scores(
        self,
        task: str,
        rows: Iterable[Mapping[str, Any]],
        summary: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Write scores.jsonl row by row, then summary.json, which says that both are complete.

        summary  called when the last row was taken; what it gives is returned

        Where a row cannot be had, the earlier scores and their summary stay.
        """
        folder = self.path / task
        sources = source_digests(folder, tuple(name for name in SOURCES if name != SCORES))
        with writing(folder / SCORES) as file:
            for row in rows:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            (folder / SUMMARY).unlink(missing_ok=True)  # before the new scores take their place
        told = {**summary(), "digests": sources | source_digests(folder, (SCORES,))}
        write_file(folder / SUMMARY, orjson.dumps(told, option=PRETTY))
        return told

    def scores(self, task: str) -> Iterator[dict[str, Any]]:
        """A scored task's values, sample by sample in dataset order: see score.Scores.rows."""
        return read_scores(self.path / task)

    def submission_file(self, task: str, name: str) -> Path:
        """Where a task's submission file lies; its folder exists."""
        folder = self.path / task / SUBMISSION
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        return folder / name

    def write_server_scores(self, task: str, scores: Mapping[str, Any]) -> None:
        """Put down what a server gave, or a judge, for the predictions that are there now.

        scores  {"server": its name, "metrics": name -> figure}, and where they are known "samples":
                id -> its values, "by": group -> value -> figures, "judge": all else that it told,
                "doubts": what keeps the figures from being what the card has
        """
        told = {**scores, "predictions": self.predictions_digest(task)}
        write_file(self.path / task / SERVER, orjson.dumps(told, option=PRETTY))

    def write_judgements(self, task: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write down what a judge said of each answer."""
        write_rows(self.path / task / JUDGEMENTS, rows)

    def predictions_digest(self, task: str) -> str:
        """sha256 of a finished task's predictions.jsonl."""
        self.answers(task)  # refuses one that is not finished
        return source_digests(self.path / task, (PREDICTIONS,))[PREDICTIONS]

    def server_scores(self, task: str) -> dict[str, Any] | None:
        """What was put down of a server, or None; nothing where the predictions are others now."""
        file = self.path / task / SERVER
        if not is_there(file, RunError):
            return None
        scores = read_server(file)
        of = scores.get("predictions")  # not told by files of earlier versions
        return scores if of in (None, self.predictions_digest(task)) else None


class Journals:
    """A worker's journals, one a task.

    model  that gives the answers; it must be known when the first one is written
    """

    def __init__(self, run: Path, worker: str, model: journal.Identity | None = None) -> None:
        self.run = run
        self.worker = worker
        self.model = model
        self.open: dict[str, journal.Journal] = {}

    def answered_by(self, about: Mapping[str, Any]) -> None:
        """Name the model, as its back end describes it."""
        self.model = journal.identity(about)

    def write(self, answer: Prediction, of: str) -> str:
        """Put down the answer to a request; the task's name. Raises RunError on a full disk."""
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
def held(path: Path) -> Iterator[int]:
    """Hold a run's folder, which is made where there is none; the lock's file descriptor.

    Raises RunError where another process holds it, or the folder is of something else.
    """
    if not is_there(path / MANIFEST, RunError):
        _make(path)
    with _writing(path):
        (path / WORK).mkdir(exist_ok=True)
    try:
        with locked(path / WORK / "lock") as lock:
            remove_leftovers(path)
            yield lock
    except Locked as held_by:
        raise RunError(
            f"{path}: another run is at work in this folder ({held_by}). Wait for it, stop it, or "
            "give another folder with --out"
        ) from None


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise RunError for what the system refuses."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {reason(error)}") from None


def _make(path: Path) -> None:
    """Make a run's folder. Raises RunError where there is something else in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = [entry for entry in path.iterdir() if entry.name != WORK]
    except OSError as error:
        raise RunError(f"{path}: a folder for the run expected: {error.strerror}") from None
    if others:
        raise RunError(f"{path}: not empty and not a run; give another folder with --out")


def _wanted(task: Task, data: Path, asked: Asked, digests: Digests) -> Iterator[Wanted]:
    """Every question of a task, and its identity."""
    questions = (request for _, request in requests(task, data, asked))
    with ThreadPoolExecutor(READERS, "digest") as readers:
        while some := list(islice(questions, AT_ONCE)):
            paths = [IMAGE.findall(request.prompt) for request in some]
            new = list(dict.fromkeys(path for found in paths for path in found))
            told = readers.map(partial(_image, data=data, digests=digests), new)
            digest = dict(zip(new, told, strict=True))
            for request, found in zip(some, paths, strict=True):
                images = [digest[path] for path in found]
                yield Wanted(request, _identity(request, images), images[0] if images else "")


def _identity(request: Request, images: list[str]) -> str:
    """What is asked, wherever its images lie; see Wanted."""
    prompt = IMAGE.sub("<img></img>", request.prompt)
    told = orjson.dumps([prompt, repr(request.decode), request.chat, images])
    return hashlib.sha256(told).hexdigest()[:16]


def _image(path: str, data: Path, digests: Digests) -> str:
    """An image's digest, or where it cannot be read its path."""
    try:
        return digests.of(path, data / path)
    except (OSError, ValueError):
        return f"unreadable: {path}"


def _sample_id(request: Request) -> str:
    return request.id.partition("/")[2]


def _differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps two manifests from being one run: model settings, or a task asked otherwise."""
    models = [
        {**told["model"], "device": journal.identity(told["model"])["device"]}
        for told in (earlier, now)
    ]
    names = [
        f"model {key}"
        for key in {**models[0], **models[1]}
        if key != "checkpoint" and models[0].get(key) != models[1].get(key)
    ]
    return sorted(names) + _differing_tasks(earlier["tasks"], now["tasks"])


def _differing_tasks(
    earlier: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    return sorted(
        f"{task} {key}"
        for task in earlier.keys() & now.keys()
        for key in {*earlier[task], *now[task]}
        if earlier[task].get(key) != now[task].get(key)
    )


def _refuse(path: Path, differing: list[str]) -> None:
    if differing:
        raise RunError(
            f"{path}: holds a run that differs in {', '.join(differing)}. Its predictions are "
            "kept; give another folder with --out"
        )
