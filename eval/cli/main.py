"""The command line: which command is in which module; process.py says what exit codes mean."""

import math
from collections.abc import Iterator, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from eval import __version__
from eval.cli.process import run_process
from eval.errors import UsageError
from eval.storage.reading import MAX_INTEGER, check_path

COMMANDS = {  # in the order of --help: name -> module and function, or the app of several
    "judge": "judge:judge_command",
    "compare": "compare:compare_command",
    "browse": "browse:browse_command",
    "leaderboard": "leaderboard:leaderboard_command",
    "plot": "plot:plot_command",
    "list": "tasks:list_tasks",
    "run": "run:run_tasks",
    "certify": "certify:certify_tasks",
    "score": "score:score_command",
    "submit": "score:submit_task",
    "report": "report:report_runs",
    "card": "card:run_card",
    "demo": "card:run_demo",
    "data": "data:app",
}


class Commands(Mapping[str, Any]):
    """Commands by name. A command's module is imported when the command is looked up.

    All modules together take a second to import, and one command needs few of their libraries.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            module, _, member = COMMANDS[name].partition(":")
            found = getattr(import_module(f"eval.cli.{module}"), member)
            if not isinstance(found, typer.Typer):
                function, found = found, typer.Typer(add_completion=False, rich_markup_mode=None)
                found.command(name)(function)
            self.loaded[name] = typer.main.get_command(found)
            self.loaded[name].name = name
            check_values(self.loaded[name])
        return self.loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Group(TyperGroup):
    """The group of all commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = Commands()  # type: ignore[assignment]  # nobody adds a command later


app = typer.Typer(
    name="qwen-vl-eval",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Every command takes --debug, which shows the traceback of an error.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"qwen-vl-eval {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print it and stop."
        ),
    ] = False,
) -> None:
    """Evaluate Qwen-VL and Qwen-VL-Chat checkpoints on the benchmarks of their model card."""


def check_values(command: Any) -> None:
    """Have all commands check their values before they run: numbers and paths that nothing takes.

    command  typer's, a group or one that runs
    """
    for each in getattr(command, "commands", {}).values():
        check_values(each)
    run, names = command.callback, {each.name: each for each in command.params}

    @wraps(run)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            parameter = names.get(name)
            if parameter is not None:
                argument = parameter.param_type_name == "argument"
                _check(parameter.metavar or name if argument else parameter.opts[0], value)
        return run(**values)

    command.callback = checked


def _check(name: str, value: Any) -> None:
    """Raise UsageError, naming the option or argument, for a value that no command can take."""
    if isinstance(value, list | tuple):
        for each in value:
            _check(name, each)
    elif isinstance(value, Path):
        check_path(name, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} {value}: give a finite number")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UsageError(f"{name}: {len(str(abs(value)))} digits are more than a number may have")


def main() -> None:
    """Console script."""
    command = typer.main.get_command(app)
    run_process(lambda arguments: command(arguments, prog_name="qwen-vl-eval"))
