"""The judge's command: answers in, judgements bought within a budget, TouchStone's figures out."""

import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eval import __version__, plugins
from eval.cli.console import PLAIN_LINE_S, err
from eval.cli.costs import agree_on_cost, say, shown_cost
from eval.cli.judged import print_figures
from eval.cli.judges import KEY, TIMEOUT_S, How, parse_parameters, read_judge
from eval.cli.options import folder_option
from eval.cli.report import print_report
from eval.data.declare import Task
from eval.errors import JudgeError, UsageError
from eval.run.folder import RunFolder, held
from eval.scoring.score import score_run
from eval.storage.reading import exists, is_folder
from touchstone import anchors
from touchstone.answers import Answers, answers_of, take_in
from touchstone.batch import work_batches
from touchstone.client import Client
from touchstone.cost import estimate
from touchstone.judging import CONCURRENCY, Asking, Occasion, Wanted
from touchstone.ledger import Ledger
from touchstone.prompt import OWN, JudgePrompt, read_prompt
from touchstone.result import result
from touchstone.tasks import SCRIPT

INCOMPLETE = 3  # exit code
LEDGER = "judge-ledger.jsonl"


def judge_command(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|TSV",
            help="A run's folder, or a table of any model's answers with a column 'response'.",
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="touchstone_en (the default for a table) or touchstone_cn.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the benchmarks' files; default: the run's. For a table they "
            "tell which dialogues are about one picture."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="For a table: folder of the run it becomes; TSV's name.judged."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--judge", metavar="MODEL", help="Who judges; gpt-4.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="URL of any server that speaks OpenAI's protocol, such as http://host:8000/v1 or "
            "https://NAME.openai.azure.com/openai/deployments/NAME?api-version=...; default: "
            "$OPENAI_BASE_URL, or OpenAI's. The key is $OPENAI_API_KEY.",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Extra request parameter, such as max_completion_tokens=64, which replaces "
            "max_tokens; null removes it. May be repeated.",
        ),
    ] = None,
    judge_prompt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The judge's prompt: .json, or the authors' script .py; "
            "default: as 'data prepare touchstone' fetched it.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="USD",
            help="Never spend more on these answers, what was spent on them before included.",
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="IN/OUT", help="USD for a million tokens; known for OpenAI's own."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Spend the estimate without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the requests and what they would cost.")
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="In the provider's batches, at half the price: hand in; the "
            "same command collects later.",
        ),
    ] = False,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Requests at a time; 48.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=86400, metavar="SECONDS", help="For a whole reply, from connecting; 60."
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Every judgement paid; default: judge-ledger.jsonl beside the run's folder.",
        ),
    ] = None,
    no_anchors: Annotated[
        bool,
        typer.Option("--no-anchors", help="Do not ask whether the judge has changed: 16 requests."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Ask failed judgements again; they are paid again."),
    ] = False,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Count scores outside 1 to 10, as the published script does; by default they "
            "count as failed.",
        ),
    ] = False,
    allow_partial: Annotated[
        bool, typer.Option(help="Judge what answers there are, and mark the figure.")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file, or the name of a file in configs/judge/; options override it."
        ),
    ] = None,
) -> None:
    """Have a judge score the answers to TouchStone, and print the card's tables."""
    who, told = read_judge(config, model, base_url, price, parse_parameters(parameter or ()))
    how = How(
        who,
        os.environ.get(KEY),
        judge_prompt,
        ledger,
        told.budget if budget is None else budget,
        concurrency or told.concurrency or CONCURRENCY,
        timeout or told.timeout_s or TIMEOUT_S,
        anchors=not no_anchors,
        batch=batch,
        yes=yes,
        dry_run=dry_run,
        retry_failed=retry_failed,
        allow_partial=allow_partial,
        as_published=as_published,
    )
    run, missing = judge(target, task, data, folder, how)
    if not dry_run and not missing.unjudged:
        print_report([run.path])
    if missing.unjudged or missing.failed:
        raise typer.Exit(INCOMPLETE)


@dataclass(frozen=True, slots=True)
class Missing:
    """unjudged: judgements that can still be had; failed: those that the judge did not give."""

    unjudged: int = 0
    failed: int = 0


def judge(
    target: Path, task: str | None, data: Path | None, folder: Path | None, how: How
) -> tuple[RunFolder, Missing]:
    """Judge a run's answers, or a file's; the run, and which judgements it lacks.

    target  a run's folder, or a table of answers
    folder  of the run that a table is made into
    """
    root = folder_option(data, "--data") if data else None
    if is_folder(target):
        if folder is not None:
            raise UsageError("--out: only with a table of answers; a run is judged in its folder")
        run = RunFolder.open(target)
        chosen = _judged_tasks(list(run.tasks), task, target)
        root = root or folder_option(Path(str(run.manifest.get("data", ""))), "--data")
        return run, judge_run(run, chosen, root, how)
    if not exists(target):
        raise UsageError(f"{target!s:.200}: no such folder of a run or table of answers")
    (only, *others) = _judged_tasks([], task or "touchstone_en", target)
    if others:
        raise UsageError(f"--task {task}: one task expected, such as {only.name}")
    place = folder or target.with_suffix(".judged")
    how = replace(how, ledger=how.ledger or place.resolve().parent / LEDGER)
    with tempfile.TemporaryDirectory() if how.dry_run else nullcontext(place) as where:
        run, root = take_in(
            target, Path(where), only, root, allow_partial=how.allow_partial, about=_about()
        )
        return run, judge_run(run, [only], root, how)


def judge_run(run: RunFolder, tasks: Sequence[Task], root: Path, how: How) -> Missing:
    """Judge the answers of a finished run's tasks, and put down their figures."""
    prompt = _prompt(how, root)
    asked = [(task, *_occasion(run, task, root, prompt, how)) for task in tasks]
    names = [occasion.name for _, _, occasion in asked]
    found = [_judge_task(run, root, *each, names, how) for each in asked]
    return Missing(sum(each.unjudged for each in found), sum(each.failed for each in found))


def _judged_tasks(names: Sequence[str], wanted: str | None, target: Path) -> list[Task]:
    found = [t for t in plugins.find_tasks([wanted] if wanted else names) if t.judged]
    if not found:
        raise UsageError(
            f"{target}: no task in it is scored by a judge; it has {', '.join(names)}"
            if not wanted
            else f"--task {wanted}: one that a judge scores expected, such as touchstone_en"
        )
    return found


def _occasion(
    run: RunFolder, task: Task, root: Path, prompt: JudgePrompt, how: How
) -> tuple[Answers, Occasion]:
    answers = answers_of(run, task, root)
    if answers.without and not how.allow_partial:
        raise UsageError(
            f"{run.path}: {task.name}: {answers.without:,} samples have no answer. Ask them again "
            "with 'run --retry-failed', or judge the others with --allow-partial; nothing was asked"
        )
    fixed = anchors.ANCHORS if how.anchors else ()
    return answers, Occasion.of(task.name, answers.dialogues, how.judge, prompt, fixed)


def _judge_task(
    run: RunFolder,
    root: Path,
    task: Task,
    answers: Answers,
    occasion: Occasion,
    names: Sequence[str],
    how: How,
) -> Missing:
    """names: of all occasions that share the budget."""
    place = how.ledger or run.path.resolve().parent / LEDGER
    if how.dry_run:
        if exists(place):
            with Ledger.held(place) as ledger:
                return _show(occasion.open(ledger), how)
        return _show(_unique(occasion), how)
    with Ledger.held(place) as ledger:
        others = {*names} - {occasion.name}
        how = replace(how, beside=sum(ledger.spent(name) for name in others))
        return _with_ledger(run, task, root, answers, occasion, ledger, how)


def _unique(occasion: Occasion) -> list[Wanted]:
    return list({w.ask.key: w for w in (*occasion.wanted, *occasion.anchors)}.values())


def _show(wanted: Sequence[Wanted], how: How) -> Missing:
    """Print the requests, a JSON line each, and on standard error what they would cost."""
    for each in wanted:
        told = {"key": each.ask.key, **each.ask.about, **how.judge.request(each.messages)}
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
    say(f"{shown_cost(estimate(how.judge, wanted, batch=how.batch), how)}; nothing was asked")
    return Missing()


def _with_ledger(
    run: RunFolder,
    task: Task,
    root: Path,
    answers: Answers,
    occasion: Occasion,
    ledger: Ledger,
    how: How,
) -> Missing:
    if how.retry_failed:
        keys = [w.ask.key for w in (*occasion.wanted, *occasion.anchors)]
        ledger.again(keys, as_published=how.as_published)
    open_now = occasion.open(ledger)
    handed_in = {key for batch in ledger.batches.values() for key in batch.keys}
    fresh = [each for each in open_now if each.ask.key not in handed_in]
    if len(fresh) < len(open_now) and not how.batch:
        raise JudgeError(
            f"{len(open_now) - len(fresh):,} of these judgements were handed in as a batch, and "
            "would be paid twice: collect them with --batch"
        )
    stopped = ""
    if open_now:
        client = Client(how.judge, how.key, how.timeout_s)
        try:
            if len(fresh) == len(open_now):  # else what is under way is collected first
                cost = estimate(how.judge, fresh, batch=how.batch)
                agree_on_cost(cost, occasion, ledger, how)
            if how.batch:
                stopped = _in_batches(client, ledger, occasion, how)
            else:
                stopped = _at_once(client, ledger, occasion, open_now, how)
        except JudgeError as error:
            raise JudgeError(f"{error}{_spent(occasion, ledger)}") from None
        finally:
            client.close()
    missing = len(occasion.open(ledger))
    if missing:
        reason = stopped or "interrupted"
        say(
            f"{task.name}: {missing:,} of {len(_unique(occasion)):,} judgements are missing "
            f"({reason}). All others are in {ledger.path}; the same command goes on"
            f"{_spent(occasion, ledger)}"
        )
        return Missing(unjudged=missing)
    if stopped:
        say(f"{task.name}: {stopped}")
    summary = _score(run, task, root, answers, occasion, ledger, how)
    print_figures(task, summary, occasion, ledger)
    none = summary["judge"]["published"] is None if how.as_published else not summary["metrics"]
    if none:
        say(f"{task.name}: these judgements give no score: {'; '.join(summary['doubts'])}")
    return Missing(failed=summary["judge"]["failed"] or int(none))


def _spent(occasion: Occasion, ledger: Ledger) -> str:
    spent = ledger.spent(occasion.name)
    return f". ${spent:,.2f} spent on these answers" if spent else ""


def _at_once(
    client: Client, ledger: Ledger, occasion: Occasion, open_now: Sequence[Wanted], how: How
) -> str:
    """Ask now; why something is missing, or nothing."""
    known = [w.ask.key for w in (*occasion.wanted, *occasion.anchors)]
    with _progress(len(open_now)) as show:
        asking = Asking(client, ledger, how.left, how.concurrency, show, say)
        asking.as_published = how.as_published
        asking.proven = any(ledger.usable(key, as_published=how.as_published) for key in known)
        outcome = asking.ask(open_now)
    if outcome.halted:
        return outcome.halted
    if outcome.over_budget:
        spent = ledger.spent(occasion.name) + how.beside
        return f"the budget of ${how.budget:,.2f} would be exceeded; at most ${spent:,.2f} is spent"
    if outcome.unanswered:
        return f"{outcome.unanswered:,} got no answer, the last: {outcome.reason}"
    return ""


def _in_batches(client: Client, ledger: Ledger, occasion: Occasion, how: How) -> str:
    """Hand in or take over; what there is to wait for."""
    outcome = work_batches(
        client,
        ledger,
        occasion,
        how.left,
        give_up=how.retry_failed,
        as_published=how.as_published,
    )
    for line in outcome.said:
        say(line)
    if outcome.halted:
        return outcome.halted
    if outcome.waiting:
        return f"{outcome.waiting:,} are in a batch; collect them later"
    if outcome.over_budget:
        return f"{outcome.over_budget:,} would exceed the budget of ${how.budget:,.2f}"
    return ""


def _score(
    run: RunFolder,
    task: Task,
    root: Path,
    answers: Answers,
    occasion: Occasion,
    ledger: Ledger,
    how: How,
) -> dict[str, Any]:
    """Write down what the ledger has of these answers; the task's summary."""
    rows, scores = result(occasion, answers.dialogues, ledger, as_published=how.as_published)
    with held(run.path):
        run.scores(task.name).write_judgements(rows)
        run.scores(task.name).write_server(scores)
        return score_run(run, task, root)


def _prompt(how: How, root: Path) -> JudgePrompt:
    """The judge's words: given by hand, or the authors' if their script lies with the data."""
    if how.prompt is not None:
        found = read_prompt(how.prompt)
    elif (root / SCRIPT.path).is_file():
        found = read_prompt(root / SCRIPT.path)
    else:
        say(
            "the benchmark's judge prompt is not here, so ours serves, and no figure compares with "
            "the card's: 'qwen-vl-eval data prepare touchstone' fetches it, --judge-prompt gives it"
        )
        return OWN
    if not found.published:
        say("the judge's prompt is not the benchmark's: no figure compares with the card's")
    return found


def _about() -> dict[str, Any]:
    names = ("openai", "pandas")
    return {
        "command": shlex.join(["qwen-vl-eval", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "qwen-vl-eval": __version__,
            **{name: version(name) for name in names},
        },
    }


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal, elsewhere a line every few seconds."""
    if err.is_terminal:
        columns = (
            TextColumn("judging"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=err) as drawn:
            bar = drawn.add_task("judging", total=total)
            yield lambda done: drawn.update(bar, completed=done)
        return
    from time import monotonic

    said = monotonic()

    def line(done: int) -> None:
        nonlocal said
        if monotonic() - said >= PLAIN_LINE_S:
            said = monotonic()
            print(f"judged {done:,}/{total:,}", file=sys.stderr, flush=True)

    yield line
