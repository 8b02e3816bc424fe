"""Samples and predictions in, a value per sample and the task's summary out. No model needed."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eval.api import Prediction, Rank
from eval.data import read_predictions
from eval.data.declare import Corpus, Metric, Sample, Task, is_mean, value_range
from eval.errors import DataError, PredictionError
from eval.run.folder import RunFolder
from eval.run.spec import Spec, read_samples, spec_entry
from eval.scoring.signature import file_facts, run_facts, signature
from eval.scoring.stats import METHOD, Tally
from eval.storage.digests import sha256_file

EXACT = "float32"  # the dtype in which the published choice of options is ours
SHOWN = 3  # how many ids a message about many samples names
LEAK = "few-shot examples of the split itself, as published"  # stays so, however it is scored
MOST_VALUES = 10  # of a group, up to which a corpus metric is run again for each


@dataclass(frozen=True, slots=True)
class AsPublished:
    """The published procedure where it departs from the rule: for comparison, never by default.

    Boxes: the loader drops each process's last incomplete batch. Ranked options: losses are
    computed in the model's dtype, so that in half precision near options tie and the first wins. In
    float32 this changes nothing.
    """

    processes: int
    batch_size: int

    def kept(self, count: int) -> Iterator[int]:
        """Which of so many samples are scored: of each process's share the whole batches.

        Shares are contiguous, the first `count mod processes` hold one more.
        """
        start = 0
        for process in range(self.processes):
            share = count // self.processes + (process < count % self.processes)
            yield from range(start, start + share // self.batch_size * self.batch_size)
            start += share


@dataclass(frozen=True, slots=True)
class Scores:
    """Values per sample, in dataset order, and what they come to.

    rows     {"id", "image", <metric>: value, ...}; values in [0, 1], CIDEr's in [0, 10]; the image
             is the sample's first, or "" without one. A metric that is not a mean has no values
    summary  what summary.json holds
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def score(
    task: Task,
    samples: Iterable[Sample],
    predictions: Mapping[str, str],
    facts: Mapping[str, str] | None = None,
    entry: Mapping[str, Any] | None = None,
    as_published: AsPublished | None = None,
) -> Scores:
    """Score the text predicted for each sample.

    predictions   sample id -> text; exactly one for every sample
    facts         what the signature says beside the counts: data, checkpoint, decoding
    entry         the manifest's entry of the task: protocol, few_shot, faults
    as_published  see AsPublished; ranked options stay as they are, for texts have no losses

    Where no sample has a reference, only a server can score: the summary's metrics stay empty.
    Raises PredictionError, naming ids, for a missing or an unknown prediction: a gap is never
    scored as a wrong answer.
    """
    scoring = Scoring(task, facts or {}, entry or {}, as_published)
    answers = (Prediction(sample_id, text) for sample_id, text in predictions.items())
    rows = list(scoring.rows(samples, answers))
    return Scores(rows, scoring.summary())


class Scoring:
    """Scores as they come: rows first, one after the other, then what they come to.

    Samples are not kept, but for the texts and references of tasks with a corpus metric.

    choose_anew  choose ranked options by their losses in the model's dtype
    """

    def __init__(
        self,
        task: Task,
        facts: Mapping[str, str],
        entry: Mapping[str, Any],
        as_published: AsPublished | None = None,
        *,
        choose_anew: bool = False,
    ) -> None:
        self.task, self.facts, self.spec = task, facts, Spec.of(entry)
        self.as_published = as_published
        self.choose_anew = choose_anew and task.decode is Rank
        self.functions = {n: m for n, m in task.metrics.items() if not isinstance(m, Corpus)}
        self.corpus = {n: m for n, m in task.metrics.items() if isinstance(m, Corpus)}
        self.all = Totals()
        self.tallies: dict[str, Tally] = {}  # of each metric, by image
        self.groups: dict[str, dict[str, Totals]] = {}
        self.images: set[str] = set()
        self.unreadable = self.unknown = 0
        self.failed = 0  # samples without an answer: left out, never scored as wrong
        self.texts: list[str] = []
        self.references: list[Any] = []
        self.caveats: list[str] = []  # why values of corpus metrics say nothing of the predictions
        self.server: Mapping[str, Any] = {}  # what a server scored, or a judge

    def rows(
        self, samples: Iterable[Sample], predictions: Iterable[Prediction]
    ) -> Iterator[dict[str, Any]]:
        """A row a sample, in the samples' order. Raises as `score` does, at the end if need be."""
        rows = self._score(self._answered(self._kept(self._joined(samples, predictions))))
        if self.corpus:
            rows = self._with_corpus(list(rows))
        yield from rows
        count = self.all.samples
        if not count and not self.failed:
            kept = " that the published loader keeps" if self.as_published else ""
            raise PredictionError(f"{self.task.name}: no samples to score{kept}")
        if 0 < self.unknown < count:
            raise DataError(
                f"{self.task.name}: {self.unknown} of {count} samples have no reference"
            )

    def summary(self) -> dict[str, Any]:
        """What summary.json holds, once all rows were taken."""
        task, server, count = self.task, self.server, self.all.samples
        faults = [*self.spec.faults, *([LEAK] if self.spec.leaking else [])]
        summary: dict[str, Any] = {
            "task": task.name,
            "size": task.size,
            "samples": count,
            "images": len(self.images),
            "complete": count == task.size and not faults and not self.failed,
            "protocol": self.spec.protocol,
            "few_shot": self.spec.few_shot,
            "faults": faults,
            "failed": self.failed,
            "metrics": self._means(self.all) or dict(server.get("metrics", {})),
            "metric_types": {name: metric_type(metric) for name, metric in task.metrics.items()},
            **self._intervals(),
            "by": {
                group: {
                    value: {"samples": part.samples, **self._means(part)}
                    for value, part in sorted(values.items())
                }
                for group, values in sorted(self.groups.items())
            },
            "unreadable": self.unreadable,
        }
        if server and not self._means(self.all):
            summary["scored_by"] = server["server"]
            summary["by"] = server.get("by", summary["by"])
            about = ("metric_types", "intervals", "no_interval")
            summary |= {name: server.get(name, {}) for name in about}
            summary |= {name: server[name] for name in ("judge", "doubts") if name in server}
        if self.caveats:
            summary["caveats"] = self.caveats
        if self.as_published:
            summary["as_published"] = asdict(self.as_published)
        summary["signature"] = signature(task, summary, self.facts, self.spec)
        return summary

    def _joined(
        self, samples: Iterable[Sample], predictions: Iterable[Prediction]
    ) -> Iterator[tuple[Sample, Prediction]]:
        """Each sample with its prediction; held are those that come before their samples."""
        waiting: dict[str, Prediction] = {}
        remaining = iter(predictions)
        missing: list[str] = []
        count = 0
        for sample in samples:
            count += 1  # needed after the loop, which may have no turn
            matched = waiting.pop(sample.id, None)
            while matched is None and (prediction := next(remaining, None)) is not None:
                if prediction.id == sample.id:
                    matched = prediction
                else:
                    waiting[prediction.id] = prediction
            if matched is None:
                missing.append(sample.id)
            elif not missing:
                yield sample, matched
        waiting.update((prediction.id, prediction) for prediction in remaining)
        for kind, ids in (("without a prediction", missing), ("unknown", sorted(waiting))):
            if ids and count:
                some = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
                raise PredictionError(
                    f"{self.task.name}: {len(ids)} samples {kind} ({some}); {count} samples and "
                    f"{count - len(missing) + len(waiting)} predictions found. Every sample needs "
                    "exactly one"
                )

    def _kept(
        self, pairs: Iterator[tuple[Sample, Prediction]]
    ) -> Iterable[tuple[Sample, Prediction]]:
        """Without what the published loader of boxes drops, where it is to be followed."""
        if self.as_published is None or not self.task.drops_last:
            return pairs
        known = list(pairs)
        return [known[index] for index in self.as_published.kept(len(known))]

    def _answered(
        self, pairs: Iterable[tuple[Sample, Prediction]]
    ) -> Iterator[tuple[Sample, Prediction]]:
        for sample, prediction in pairs:
            if prediction.error:
                self.failed += 1
            else:
                yield sample, prediction

    def _score(self, pairs: Iterable[tuple[Sample, Prediction]]) -> Iterator[dict[str, Any]]:
        """A row for each sample, but for the values of corpus metrics."""
        readable = self.task.readable
        given = self.server.get("samples", {})
        for sample, prediction in pairs:
            text = self._chosen(sample, prediction) if self.choose_anew else prediction.text
            self.images.update(sample.images)
            if readable and not readable(text):
                self.unreadable += 1
            row: dict[str, Any] = {"id": sample.id}
            if sample.reference is None:
                self.unknown += 1
            elif not self.unknown:
                for name, metric in self.functions.items():
                    row[name] = metric(text, sample.reference)
            if self.corpus:
                self.texts.append(text)
                self.references.append(sample.reference)
            self.all.add(row)
            for group, value in sample.groups.items():
                values = self.groups.setdefault(group, {})
                if (part := values.get(value)) is None:
                    part = values[value] = Totals()
                part.add(row, self.all.samples - 1 if self.corpus else None)
            image = sample.images[0] if sample.images else ""
            for name in self.functions:
                if name in row:
                    self.tallies.setdefault(name, Tally()).add(row[name], image or sample.id)
            yield {"id": sample.id, "image": image, **row, **given.get(sample.id, {})}

    def _chosen(self, sample: Sample, prediction: Prediction) -> str:
        """The option that the original chooses, by losses in the model's dtype."""
        where = f"{self.task.name}: sample {sample.id}"
        if not prediction.dtype_losses:
            raise PredictionError(
                f"{where}: losses.jsonl has no 'dtype_losses', the losses in the model's dtype, by "
                "which --as-published chooses options. Earlier versions did not record them: run "
                "the task again in another folder, or score without --as-published"
            )
        try:
            best = Rank(sample.options).best(prediction.dtype_losses)
        except PredictionError as error:
            raise PredictionError(f"{where}: {error}") from None
        return sample.options[best].strip()

    def _with_corpus(self, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows with the values of corpus metrics, in the order of the task's metrics."""
        if self.unknown or not rows:
            yield from rows
            return
        values_of = {name: self._corpus(name, range(len(rows)), name) for name in self.corpus}
        means = [name for name, metric in self.task.metrics.items() if is_mean(metric)]
        for name, each in values_of.items():
            self.all.totals[name] = plain_sum(each)
            tally = self.tallies[name] = Tally()
            for row, value in zip(rows, each, strict=True):
                tally.add(value, row["image"] or row["id"])
        for group, parts in self.groups.items():
            for label, part in parts.items() if len(parts) <= MOST_VALUES else ():
                for name in self.corpus:
                    of = f"{name} of {group} {label}"
                    part.totals[name] = plain_sum(self._corpus(name, part.numbers, of))
        for number, row in enumerate(rows):
            values = row | {name: values_of[name][number] for name in self.corpus}
            kept = {"id": row["id"], "image": row["image"]}
            yield kept | {name: values[name] for name in means}  # others have none of a sample

    def _corpus(self, name: str, numbers: Sequence[int], of: str) -> list[float]:
        """Values of some of the samples; `of` says in a caveat which."""
        metric = self.corpus[name]
        references = [self.references[number] for number in numbers]
        values = metric.function([self.texts[number] for number in numbers], references)
        caveat = metric.caveat(references, values) if metric.caveat else ""
        if caveat and not any(caveat in each for each in self.caveats):  # of a group again
            self.caveats.append(f"{of} {caveat}")
        return values

    def _intervals(self) -> dict[str, dict[str, Any]]:
        """The interval of each score that was computed here, or why it has none."""
        intervals: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for name in self._means(self.all):
            metric = self.task.metrics[name]
            if not is_mean(metric):
                reasons[name] = f"{name} is not a mean of per-sample values: no interval"
                continue
            interval = self.tallies[name].interval(*value_range(metric))
            if interval.low is None:
                reasons[name] = interval.reason
            else:
                intervals[name] = {"low": interval.low, "high": interval.high, "method": METHOD}
        return {"intervals": intervals, "no_interval": reasons}

    def _means(self, part: "Totals") -> dict[str, float]:
        totals = part.totals
        return {name: totals[name] / part.samples for name in self.task.metrics if name in totals}


@dataclass(slots=True)
class Totals:
    """Totals of some of the samples.

    numbers  of these samples among all, where a corpus metric has to see them again
    """

    samples: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], number: int | None = None) -> None:
        """Count a sample, by the values in its row."""
        self.samples += 1
        for name, value in row.items():
            if name != "id":
                self.totals[name] = self.totals.get(name, 0.0) + value
        if number is not None:
            self.numbers.append(number)


def metric_type(metric: Metric) -> dict[str, Any]:
    """What a summary says of a metric, for programs that do not load the task."""
    return {"range": list(value_range(metric)), "mean": is_mean(metric)}


def plain_sum(values: Iterable[float]) -> float:
    """Addition from left to right: sum() compensates from Python 3.12 on and moves last digits."""
    total = 0.0
    for value in values:
        total += value
    return total


def score_run(
    folder: RunFolder, task: Task, data: Path, as_published: AsPublished | None = None
) -> dict[str, Any]:
    """Score one finished task of a run; write its scores, then its summary, which is returned.

    Raises RunError where the data are not those that the run was asked from.
    """
    entry = folder.manifest["tasks"][task.name]
    sources = folder.check_sources(task, data)
    model = folder.manifest["model"]
    facts = run_facts(task, entry, model, sources)
    # a model without a dtype has no losses: its answers come from a file
    anew = as_published is not None and model.get("dtype", EXACT) != EXACT
    scoring = Scoring(task, facts, entry, as_published, choose_anew=anew)
    scoring.server = folder.scores(task.name).server() or {}
    samples = read_samples(task, data, Spec.of(entry))
    questions = hashlib.sha256()

    def answers() -> Iterator[Prediction]:
        for answer in folder.answers(task.name).entries():
            questions.update(f"{answer.prediction.id} {answer.of}\n".encode())
            yield answer.prediction

    def summary() -> dict[str, Any]:
        facts["questions"] = questions.hexdigest()[:12]
        return scoring.summary()

    return folder.scores(task.name).write(scoring.rows(samples, answers()), summary)


def score_file(
    predictions: Path, task: Task, data: Path, as_published: AsPublished | None = None
) -> Scores:
    """Score a result file of the published scripts; of two answers to a sample the last wins.

    How they were asked for is not known, and the signature says so. Answers without ids, such as
    ChartQA's, belong to the samples in their order; so do those of a task that is `renumbered`,
    where no sample has one of their ids.
    """
    sources = spec_entry(task, data, Spec())["sources"]
    facts = file_facts(sources, sha256_file(predictions))
    samples: Iterable[Sample] = read_samples(task, data)
    pairs = read_predictions(predictions)
    answers = {sample_id: text for sample_id, text in pairs if sample_id is not None}
    if task.renumbered or not answers:
        samples = list(samples)
        if not answers.keys().isdisjoint(sample.id for sample in samples):
            return score(task, samples, answers, facts, as_published=as_published)
        if len(samples) != len(pairs):
            raise PredictionError(
                f"{predictions}: its answers have {'other' if answers else 'no'} ids, so one for "
                f"each of the {len(samples)} samples of {task.name} expected, in their order; "
                f"{len(pairs)} found"
            )
        facts["matched"] = "by_order"
        answers = {sample.id: text for sample, (_, text) in zip(samples, pairs, strict=True)}
    return score(task, samples, answers, facts, as_published=as_published)
