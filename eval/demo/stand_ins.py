"""What the demo does beside its run: draws its data, and stands in for servers and a judge."""

from collections.abc import Sequence
from pathlib import Path

from eval import plugins
from eval.client.server import Server
from eval.data.declare import Build, Task
from eval.demo.judge import MODEL, JudgeServer
from eval.demo.server import score_submission
from eval.errors import UsageError
from eval.judging.session import LEDGER, Front, Judging, judge_answers_of_run
from eval.run.folder import RunFolder
from eval.scoring import submission
from eval.scoring.score import score_run
from eval.storage.reading import reason

REQUESTS = 8  # to the judge at a time


def draw_demo(data: Path) -> None:
    """Draw the demo's data where they are not there yet."""
    from eval.demo.data import write_demo_data

    try:
        write_demo_data(data)
        for one in plugins.tasks().values():
            for step in one.task.steps if not one.task.has_data(data) else ():
                if isinstance(step, Build):
                    step.make(data)
    except OSError as error:
        raise UsageError(f"--data {data}: cannot be written: {reason(error)}") from None


def submit_to_stand_ins(run: RunFolder, tasks: Sequence[Task], data: Path) -> None:
    """Submit what only a server scores to the demo's stand-ins, which know the drawn answers."""
    for task in tasks:
        if not (task.submission and task.submission.alone) or run.scores(task.name).server():
            continue
        written = submission.write_submission(task, run, data, None)
        metrics = score_submission(data, task.name, written)
        submission.record_server_scores(task, run, metrics, "the demo's stand-in", "", written)
        score_run(run, task, data)


def judge_by_rules(run: RunFolder, tasks: Sequence[Task], data: Path, front: Front) -> None:
    """Have a judge of rules score what a judge scores: a server on loopback, while it is needed."""
    judged = [task for task in tasks if task.judged and not run.scores(task.name).server()]
    if not judged:
        return
    with JudgeServer() as server:
        how = Judging(
            Server(MODEL, server.url),
            key="none",
            ledger=run.work_file(LEDGER),
            concurrency=REQUESTS,
        )
        judge_answers_of_run(run, judged, data, how, front)
