"""A row of the card from one configuration: pending requests are answered, then tables printed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from eval import plugins
from eval.cli.console import REPORTING, err, out, print_evaluation, say
from eval.cli.judge import Terminal
from eval.cli.report import print_report, say_where
from eval.config import Config
from eval.demo import DEMO
from eval.errors import UsageError
from eval.pipeline import Place, evaluate
from eval.readiness import Readiness, readiness

INCOMPLETE = 3  # exit code
DEMO_DATA = Path("demo-data")


def data_folder(config: Config, data: Path | None) -> Path:
    """The data root; the demo's is drawn. Raises UsageError where none is given."""
    if config.model == DEMO:
        from eval.demo.steps import draw_demo

        data = data or DEMO_DATA
        say(f"demo data in {data}")
        draw_demo(data)
    if data is None:
        raise UsageError("--data: missing; the folder of the benchmarks' files is needed")
    return data


def run_card(config: Config, place: Place, *, dry_run: bool = False) -> None:
    """Run the configuration's tasks whose data are there; exit with 3 where some are missing."""
    place = replace(place, reporting=REPORTING)
    tasks = plugins.find_tasks(config.tasks)
    states = readiness(config, tasks, place)
    ready = [each.task for each in states if not each.problem]
    missing = [each.task.name for each in states if each.problem]
    if dry_run or missing:
        _print_states(states)
    if dry_run:
        raise typer.Exit(INCOMPLETE if missing else 0)
    complete = not missing
    if ready:
        evaluation = evaluate(config, ready, place)
        print_evaluation(evaluation)
        complete = complete and evaluation.complete
        if config.model == DEMO:
            from eval.demo.steps import judge_by_rules, submit_to_stand_ins

            submit_to_stand_ins(evaluation.run, ready, place.data)
            judge_by_rules(evaluation.run, ready, place.data, Terminal())
        print_report([place.out], all_tables=not missing and len(tasks) > 1)
        say_where(place.out)
    if config.model == DEMO:
        err.print(
            f"demo data: {escape(str(place.data))} (drawn scenes: no figure compares with the "
            "card's)",
            highlight=False,
        )
    if missing:
        say(
            f"incomplete: {', '.join(missing)} could not run. See: qwen-vl-eval data prepare, data "
            "verify"
        )
    if not complete:
        raise typer.Exit(INCOMPLETE)


def _print_states(states: Sequence[Readiness]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("task", "samples", "state", "data"):
        table.add_column(
            name, no_wrap=name == "task", justify="right" if name == "samples" else "left"
        )
    for each in states:
        size = f"{each.samples:,}" if each.samples else "?"
        table.add_row(each.task.name, size, each.state, escape(each.problem) or "found")
    out.print(table)
