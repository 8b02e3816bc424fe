"""The commands of finished runs: score again, and hand in to a benchmark's server."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from eval import plugins
from eval.cli.console import err, out, print_summary
from eval.cli.options import AsPublishedOption, as_published_option, folder_option
from eval.data.declare import Task
from eval.errors import UsageError
from eval.run.folder import RunFolder, held_run
from eval.scoring import submission
from eval.scoring.score import score_file, score_run
from eval.storage.digests import sha256_file
from eval.storage.writing import write_rows


def score_command(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="Folder of a finished run.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="With --predictions: the task they answer.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="A result file of the published scripts (JSON or JSON lines)."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files; default: the run's.")
    ] = None,
    per_sample: Annotated[
        Path | None, typer.Option(help="With --predictions: write each sample's value here.")
    ] = None,
    as_published: AsPublishedOption = None,
) -> None:
    """Score a run again, or a result file of the published scripts. Needs no model."""
    if (run_folder is None) == (predictions is None):
        raise UsageError("score: either a RUN folder or --predictions FILE expected")
    if predictions is not None:
        if not task or not data:
            raise UsageError("score --predictions: --task and --data are needed too")
        (chosen, *others) = plugins.find_tasks([task])
        if others:
            raise UsageError(f"--task {task}: one task expected, such as {chosen.name}")
        result = score_file(
            predictions,
            chosen,
            folder_option(data, "--data"),
            as_published=as_published_option(as_published),
        )
        if per_sample is not None:
            write_rows(per_sample, result.rows)
        print_summary(result.summary)
        return
    folder = RunFolder.open(run_folder)  # type: ignore[arg-type]  # checked above
    root = folder_option(data or Path(str(folder.manifest.get("data", ""))), "--data")
    how = as_published_option(as_published)
    with held_run(folder.path):
        for chosen in plugins.find_tasks(list(folder.tasks)):
            print_summary(score_run(folder, chosen, root, as_published=how))


def submit_task(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task that a server scores.")],
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files; default: the run's.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="What to write; default: in the run's folder.")
    ] = None,
    scored: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="The server's score as in the card's tables (78.81; write 0.65% below 1).",
        ),
    ] = None,
    on: Annotated[str, typer.Option(help="With --scored: the day, such as 2026-01-31.")] = "",
) -> None:
    """Write the file that a benchmark's server takes, or with --scored put down what it gave."""
    (chosen, *others) = plugins.find_tasks([task])
    if others:
        raise UsageError(f"{task}: one task expected, such as {chosen.name}")
    folder = RunFolder.open(run_folder)
    root = folder_option(data or Path(str(folder.manifest.get("data", ""))), "--data")
    if scored is not None:
        record_server_score(chosen, folder, root, submission.parse_percentage(scored, chosen), on)
        return
    written = submission.write_submission(chosen, folder, root, file)
    assert chosen.submission is not None  # submit() refuses a task without
    if written.is_file():
        out.print(f"{written}  sha256 {sha256_file(written)}", highlight=False, soft_wrap=True)
    err.print(f"for {escape(chosen.submission.server)}", highlight=False)
    if faults := folder.manifest["tasks"][chosen.name].get("faults"):
        print(
            f"warning: the run's data are not the official split's ({'; '.join(faults)}): the "
            "server will refuse the file, or score it as something else",
            file=sys.stderr,
        )


def record_server_score(task: Task, folder: RunFolder, data: Path, figure: float, day: str) -> None:
    """Put down a server's figure, given as tables show it, and score the task with it."""
    metric = next(iter(task.metrics))
    server = task.submission.server if task.submission else ""
    submission.record_server_scores(task, folder, {metric: figure / 100}, server, day, None)
    print_summary(score_run(folder, task, data))
