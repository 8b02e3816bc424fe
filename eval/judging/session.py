"""Judging a run's answers: judgements bought within a budget, and the scores that come of them."""

import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from eval import __version__, plugins
from eval.client.client import Client
from eval.client.ledger import Ledger
from eval.client.sending import Sender
from eval.client.server import Server
from eval.data.declare import Task
from eval.errors import JudgeError, UsageError
from eval.judging.answers import answers_in_run, import_answer_table
from eval.judging.asking import CONCURRENCY, Asking
from eval.judging.batch import work_batches
from eval.judging.cost import Estimate, agree_on_cost, estimate
from eval.judging.drift import judge_drift
from eval.judging.occasion import JudgeRequest, Occasion
from eval.judging.task import JudgedTask, Judgements, judged_task, judgement_failure
from eval.run.folder import RunFolder, held_run
from eval.scoring.score import score_run
from eval.storage.reading import exists

LEDGER = "judge-ledger.jsonl"  # beside a run's folder
TIMEOUT_S = 60.0
LIBRARIES = ("openai", "pandas")  # whose versions the manifest of a judged table records


@dataclass(frozen=True, slots=True)
class Judging:
    """How answers are judged.

    key           of the server's account
    prompt        a file with the judge's prompt; None for the benchmark's
    ledger        default: beside the run's folder
    budget        USD, all that these judgements have cost before included
    anchors       judge the anchors too
    batch         in the provider's batches
    dry_run       show the requests and what they would cost, and send nothing
    as_published  count scores outside the scale
    """

    server: Server
    key: str | None = field(repr=False)
    prompt: Path | None = None
    ledger: Path | None = None
    budget: float | None = None
    concurrency: int = CONCURRENCY
    timeout_s: float = TIMEOUT_S
    anchors: bool = True
    batch: bool = False
    dry_run: bool = False
    retry_failed: bool = False
    allow_partial: bool = False
    as_published: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """unjudged: judgements that can still be had; failed: those that the judge did not give."""

    unjudged: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Scored:
    """A task's scores by a judge.

    summary   see eval.run.files.Summary
    remarks   what they are worth, a line each
    drift     see eval.judging.drift; None where no anchors were judged
    failures  (sample and round, why its reply does not count)
    usd       spent on these answers; None where prices are not known
    ledger    file with every reply
    """

    task: Task
    summary: Mapping[str, Any]
    remarks: Sequence[str]
    drift: Mapping[str, Any] | None
    failures: Sequence[tuple[str, str]]
    usd: float | None
    ledger: Path


class Front(Protocol):
    """Whoever a session reports to, a terminal say."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def confirm(self, question: str) -> None:
        """Have a person agree; raises JudgeError or UsageError where nobody does."""

    def show_request(self, request: Mapping[str, Any]) -> None:
        """Show a request that would be sent: its body, key, and what it is about."""

    def progress(self, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """While so many judgements are asked for: a function that is called with how many came."""

    def show_scores(self, scored: Scored) -> None:
        """Show a task's scores."""


def judge_answers_of_run(
    run: RunFolder, tasks: Sequence[Task], data: Path, how: Judging, front: Front
) -> Missing:
    """Judge the answers of a finished run's tasks, and record their scores.

    data  folder of the benchmarks' files

    Raises JudgeError where the judge cannot be asked, or the budget forbids it; what was paid is in
    the ledger. Raises UsageError, RunError, DataError for what cannot be judged.
    """
    prompts: dict[str, Any] = {}
    sessions = []
    for task in tasks:
        benchmark = task.name.partition("_")[0]
        judged = judged_task(task)
        if benchmark not in prompts:
            prompts[benchmark], remark = judged.read_prompt(how.prompt, data)
            if remark:
                front.say(remark)
        occasion = _occasion(run, task, judged, data, prompts[benchmark], how)
        sessions.append(_Session(run, task, data, occasion, how, front))
    names = [session.occasion.name for session in sessions]
    found = [session.run_within(names) for session in sessions]
    return Missing(sum(each.unjudged for each in found), sum(each.failed for each in found))


def judge_answer_table(
    file: Path,
    out: Path,
    task: Task,
    data: Path | None,
    how: Judging,
    front: Front,
    *,
    command: str,
) -> tuple[RunFolder, Missing]:
    """Judge a table of any model's answers, in a run that is made of it; raises as judge_run.

    out      folder of that run; with a dry run it is temporary
    data     folder of the benchmarks' files, with which the table must agree, or None
    command  for the manifest
    """
    how = replace(how, ledger=how.ledger or out.resolve().parent / LEDGER)
    about = {
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "qwen-vl-eval": __version__,
            **{name: version(name) for name in LIBRARIES},
        },
    }
    with tempfile.TemporaryDirectory() if how.dry_run else nullcontext(out) as place:
        run, root = import_answer_table(
            file,
            Path(place),
            task,
            judged_task(task),
            data,
            allow_partial=how.allow_partial,
            about=about,
        )
        return run, judge_answers_of_run(run, [task], root, how, front)


def judged_tasks(names: Sequence[str], chosen: str | None, target: Path) -> list[Task]:
    """The tasks that a judge scores: of these names, or those of one chosen task or benchmark.

    target  as an error names it

    Raises UsageError where there is none.
    """
    found = [t for t in plugins.find_tasks([chosen] if chosen else names) if t.judged]
    if not found:
        raise UsageError(
            f"{target}: no task in it is scored by a judge; it has {', '.join(names)}"
            if not chosen
            else f"--task {chosen}: one that a judge scores expected{_example()}"
        )
    return found


def _example() -> str:
    offered = (name for name, one in plugins.tasks().items() if one.task.judged)
    first = next(offered, None)
    return f", such as {first}" if first else ""


def _occasion(
    run: RunFolder, task: Task, judged: JudgedTask, data: Path, prompt: Any, how: Judging
) -> Occasion:
    answers = answers_in_run(run, task, judged, data)
    if answers.without and not how.allow_partial:
        raise UsageError(
            f"{run.path}: {task.name}: {answers.without:,} samples have no answer. Ask them again "
            "with 'run --retry-failed', or judge the others with --allow-partial; nothing was asked"
        )
    return Occasion.of(judged, task.name, answers.items, how.server, prompt, anchors=how.anchors)


@dataclass(slots=True)
class _Session:
    """Judging of one task's answers.

    beside  USD of the budget that the run's other tasks have cost
    """

    run: RunFolder
    task: Task
    data: Path
    occasion: Occasion
    how: Judging
    front: Front
    beside: float = 0.0

    def run_within(self, names: Sequence[str]) -> Missing:
        """Judge; names: of all occasions that share the budget."""
        place = self.how.ledger or self.run.path.resolve().parent / LEDGER
        if self.how.dry_run and not exists(place):
            return self._show(list(self.occasion.by_key.values()))
        with Ledger.held(place, self.occasion.task) as ledger:
            if self.how.dry_run:
                return self._show(self.occasion.pending(ledger))
            others = {*names} - {self.occasion.name}
            self.beside = sum(ledger.account.spent(name) for name in others)
            return self._judge(ledger)

    def _show(self, pending: Sequence[JudgeRequest]) -> Missing:
        for each in pending:
            body = self.how.server.request(each.messages)
            self.front.show_request({"key": each.key, **each.about, **body})
        self.front.say(f"{self._estimate(pending)}; nothing was asked")
        return Missing()

    def _judge(self, ledger: Ledger) -> Missing:
        occasion, how = self.occasion, self.how
        if how.retry_failed:
            ledger.again(occasion.by_key, as_published=how.as_published)
        stopped = self._ask(ledger, pending) if (pending := occasion.pending(ledger)) else ""
        if missing := len(occasion.pending(ledger)):
            self.front.say(
                f"{self.task.name}: {missing:,} of {len(occasion.by_key):,} judgements are missing "
                f"({stopped or 'interrupted'}). All others are in {ledger.file.path}; the same "
                f"command goes on{self._spent(ledger)}"
            )
            return Missing(unjudged=missing)
        if stopped:
            self.front.say(f"{self.task.name}: {stopped}")
        return self._score(ledger)

    def _ask(self, ledger: Ledger, pending: Sequence[JudgeRequest]) -> str:
        """Ask; why something is missing, or nothing."""
        how = self.how
        handed_in = {key for batch in ledger.account.batches.values() for key in batch.keys}
        under_way = sum(each.key in handed_in for each in pending)
        if under_way and not how.batch:
            raise JudgeError(
                f"{under_way:,} of these judgements were handed in as a batch, and "
                "would be paid twice: collect them with --batch"
            )
        client = Client(how.server, how.key, how.timeout_s)
        try:
            if not under_way:  # else what is under way is collected first
                cost = self._estimate(pending)
                self.front.say(str(cost))
                agree_on_cost(cost, self._total(ledger), how.budget, self.front.confirm)
            ask = self._in_batches if how.batch else self._at_once
            return ask(client, ledger, pending)
        except JudgeError as error:
            raise JudgeError(f"{error}{self._spent(ledger)}") from None
        finally:
            client.close()

    def _at_once(self, client: Client, ledger: Ledger, pending: Sequence[JudgeRequest]) -> str:
        how, front = self.how, self.front
        with front.progress(len(pending)) as watch:
            sender = Sender(client, ledger, self._left, tell=front.say)
            asking = Asking(sender, self.occasion.task, how.concurrency, watch)
            asking.as_published = how.as_published
            asking.proven = any(
                ledger.account.usable(key, as_published=how.as_published)
                for key in self.occasion.by_key
            )
            outcome = asking.ask(pending)
        if outcome.halted:
            return outcome.halted
        if outcome.over_budget:
            return (
                f"the budget of ${how.budget:,.2f} would be exceeded; at most "
                f"${self._total(ledger):,.2f} is spent"
            )
        if outcome.unanswered:
            return f"{outcome.unanswered:,} got no answer, the last: {outcome.reason}"
        return ""

    def _in_batches(self, client: Client, ledger: Ledger, _: Sequence[JudgeRequest]) -> str:
        """Hand in or take over; what there is to wait for."""
        how = self.how
        outcome = work_batches(
            client,
            ledger,
            self.occasion,
            self._left,
            give_up=how.retry_failed,
            as_published=how.as_published,
        )
        for line in outcome.said:
            self.front.say(line)
        if outcome.halted:
            return outcome.halted
        if outcome.waiting:
            return f"{outcome.waiting:,} are in a batch; collect them later"
        if outcome.over_budget:
            return f"{outcome.over_budget:,} would exceed the budget of ${how.budget:,.2f}"
        return ""

    def _score(self, ledger: Ledger) -> Missing:
        """Record what the ledger has of these answers, and show the scores."""
        occasion, how, task = self.occasion, self.how, self.occasion.task
        lines: dict[str, list[Any]] = {}
        failures = []
        for request in occasion.requests:
            line = ledger.line(request.key)
            assert line is not None, "a settled request has a line"
            lines.setdefault(request.item.id, []).append(line)
            if fault := judgement_failure(line, task.scale_fault, as_published=how.as_published):
                failures.append((f"{request.item.id} round {request.round}", fault))
        changed = judge_drift(occasion, ledger)
        rows, scores = task.result(
            Judgements(
                how.server, occasion.prompt, occasion.items, lines, changed, how.as_published
            )
        )
        with held_run(self.run.path):
            folder = self.run.scores(self.task.name)
            folder.write_judgements(rows)
            folder.write_server(scores)
            summary = score_run(self.run, self.task, self.data)
        judged = summary["judge"]
        usd = ledger.account.spent(occasion.name) if how.server.price else None
        self.front.show_scores(
            Scored(
                self.task,
                summary,
                list(task.remarks(judged)),
                changed,
                failures,
                usd,
                ledger.file.path,
            )
        )
        none = judged["published"] is None if how.as_published else not summary["metrics"]
        if none:
            self.front.say(
                f"{self.task.name}: these judgements give no score: {'; '.join(summary['doubts'])}"
            )
        return Missing(failed=judged["failed"] or int(none))

    def _estimate(self, pending: Sequence[JudgeRequest]) -> Estimate:
        return estimate(self.how.server, pending, batch=self.how.batch)

    @property
    def _left(self) -> float | None:
        """USD of the budget that this task may spend."""
        return None if self.how.budget is None else self.how.budget - self.beside

    def _total(self, ledger: Ledger) -> float:
        """USD of the budget that is spent."""
        return ledger.account.spent(self.occasion.name) + self.beside

    def _spent(self, ledger: Ledger) -> str:
        spent = ledger.account.spent(self.occasion.name)
        return f". ${spent:,.2f} spent on these answers" if spent else ""
