"""The judge's command: options in, TouchStone's figures out."""

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eval.cli.console import PLAIN_LINE_S, err, say
from eval.cli.judged import print_scores
from eval.cli.options import folder_option
from eval.cli.report import print_report
from eval.client.server import Price
from eval.errors import JudgeError, UsageError
from eval.judging.asking import CONCURRENCY
from eval.judging.config import choose_server, read_config
from eval.judging.session import (
    TIMEOUT_S,
    Judging,
    Missing,
    Scored,
    judge_answer_table,
    judge_answers_of_run,
    judged_tasks,
)
from eval.run.folder import RunFolder
from eval.storage.reading import exists, is_folder

INCOMPLETE = 3  # exit code
TABLE_TASK = "touchstone_en"  # of a table, where no other is given
KEY, ADDRESS = "OPENAI_API_KEY", "OPENAI_BASE_URL"  # in the environment


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
    changes = _parse_parameters(parameter or ())
    settings = read_config(config)
    server = choose_server(
        settings,
        model=model,
        base_url=base_url,
        default_url=os.environ.get(ADDRESS),
        price=_parse_price(price) if price else None,
        parameters=changes,
    )
    how = Judging(
        server,
        os.environ.get(KEY),
        judge_prompt,
        ledger,
        settings.budget if budget is None else budget,
        concurrency or settings.concurrency or CONCURRENCY,
        timeout or settings.timeout_s or TIMEOUT_S,
        anchors=not no_anchors,
        batch=batch,
        dry_run=dry_run,
        retry_failed=retry_failed,
        allow_partial=allow_partial,
        as_published=as_published,
    )
    run, missing = _judge(target, task, data, folder, how, Terminal(yes, how.budget))
    if not dry_run and not missing.unjudged:
        print_report([run.path])
    if missing.unjudged or missing.failed:
        raise typer.Exit(INCOMPLETE)


def _judge(
    target: Path,
    task: str | None,
    data: Path | None,
    folder: Path | None,
    how: Judging,
    terminal: "Terminal",
) -> tuple[RunFolder, Missing]:
    root = folder_option(data, "--data") if data else None
    if is_folder(target):
        if folder is not None:
            raise UsageError("--out: only with a table of answers; a run is judged in its folder")
        run = RunFolder.open(target)
        chosen = judged_tasks(list(run.tasks), task, target)
        root = root or folder_option(Path(str(run.manifest.get("data", ""))), "--data")
        return run, judge_answers_of_run(run, chosen, root, how, terminal)
    if not exists(target):
        raise UsageError(f"{target!s:.200}: no such folder of a run or table of answers")
    (only, *others) = judged_tasks([], task or TABLE_TASK, target)
    if others:
        raise UsageError(f"--task {task}: one task expected, such as {only.name}")
    out = folder or target.with_suffix(".judged")
    command = shlex.join(["qwen-vl-eval", *sys.argv[1:]])
    return judge_answer_table(target, out, only, root, how, terminal, command=command)


def _parse_parameters(given: Iterable[str]) -> dict[str, Any]:
    """Parameters of a request from NAME=VALUE; a value that is no JSON is a text."""
    found: dict[str, Any] = {}
    for each in given:
        name, mark, text = each.partition("=")
        if not mark or not name.strip():
            raise UsageError(f"--parameter {each!r:.80}: write NAME=VALUE, such as temperature=0")
        try:
            found[name.strip()] = orjson.loads(text)
        except orjson.JSONDecodeError:
            found[name.strip()] = text
    return found


def _parse_price(text: str) -> Price:
    try:
        asked, replied = (float(part) for part in text.split("/"))
        return Price(asked, replied)
    except (ValueError, UsageError):
        raise UsageError(
            f"--price {text!r:.80}: write IN/OUT, USD for a million tokens, such as 30/60"
        ) from None


@dataclass(frozen=True, slots=True)
class Terminal:
    """A judging session in a terminal: JSON lines on standard output, the rest beside it.

    yes  ask nobody whether the estimate may be spent
    """

    yes: bool = False
    budget: float | None = None

    def say(self, text: str) -> None:
        """Print a line on standard error, as it is."""
        say(text)

    def confirm(self, question: str) -> None:
        """Ask a person; where there is none, a budget or --yes must have said it."""
        if self.yes:
            return
        if sys.stdin.isatty():
            agreed = False
            with suppress(typer.Abort):  # the end of the input is no
                agreed = typer.confirm(question, err=True)
            if not agreed:
                raise JudgeError("not agreed to. Nothing was asked")
        elif self.budget is None:
            raise UsageError(
                f"{question} Nobody can be asked here: give --budget USD or --yes, and --price "
                "where it is not known. Nothing was asked"
            )

    def show_request(self, request: Mapping[str, Any]) -> None:
        """Print a line of JSON."""
        sys.stdout.write(orjson.dumps(request).decode() + "\n")

    def show_scores(self, scored: Scored) -> None:
        """Print a table and its remarks."""
        print_scores(scored)

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int], None]]:
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
        said = monotonic()

        def line(done: int) -> None:
            nonlocal said
            if monotonic() - said >= PLAIN_LINE_S:
                said = monotonic()
                print(f"judged {done:,}/{total:,}", file=sys.stderr, flush=True)

        yield line
