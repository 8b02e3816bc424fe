"""Finds tasks and back ends through entry points, our own like everybody's.

    [project.entry-points."eval.tasks"]       a module that holds TASKS, or a package of such modules
    my_lab = "my_lab.benchmarks"
    [project.entry-points."eval.backends"]    a callable that opens a back end: see eval.api.Backend
    my-server = "my_lab.server:open_backend"

What a package offers is checked when it is loaded. A package that breaks its promise stops only
those who ask for what it offers, or may offer; everybody else goes on.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from types import ModuleType
from typing import Any

from eval.api import Backend, Corpus, Generate, Layout, Rank, Source, Task
from eval.errors import PluginError, UsageError
from eval.prompt import IMAGE, PLACE

DISTRIBUTION = "qwen-vl-eval"
TASKS = "eval.tasks"
BACKENDS = "eval.backends"
ALL = "all"

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*_[A-Za-z0-9][A-Za-z0-9_.-]*")
METRIC = re.compile(r"[a-z][a-z0-9_]*")
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Registered:
    """A task and who offers it.

    origin  such as "benchmarks.okvqa of qwen-vl-eval 0.1.0"
    """

    task: Task
    origin: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that the installed packages offer.

    tasks   in the order of packages, modules and declaration
    errors  of modules that could not be loaded, or offer what is no task, or a name twice
    """

    tasks: Mapping[str, Registered]
    errors: tuple[PluginError, ...]

    @classmethod
    def load(cls) -> "Catalogue":
        """Load every module that is offered. Raises UsageError where not even ours are."""
        offers: dict[str, list[Registered]] = {}
        errors: list[PluginError] = []
        for name, origin in _modules(errors):
            try:
                tasks = _tasks(importlib.import_module(name), origin)
            except PluginError as error:
                errors.append(error)
            except (Exception, SystemExit) as error:  # a stranger's code may raise anything
                errors.append(_broken(origin, error))
            else:
                for task in tasks:
                    offers.setdefault(task.name, []).append(Registered(task, origin))
        for name, offered in offers.items():
            if len(offered) > 1:
                origins = " and ".join(each.origin for each in offered)
                errors.append(
                    PluginError(f"task {name!r} is offered twice, by {origins}; uninstall one")
                )
        return cls({name: one for name, (one, *more) in offers.items() if not more}, tuple(errors))


def find_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of these names, each once: of a task, of a benchmark (all its tasks), or "all".

    Raises UsageError, with the nearest name, for one that nobody offers; PluginError, its cause
    the package's own error, for one that a broken package offers or may offer.
    """
    catalogue = Catalogue.load()
    found: dict[str, Task] = {}
    for name in names:
        tasks = [one.task for one in catalogue.tasks.values() if _is_called(one.task, name)]
        errors = [error for error in catalogue.errors if _is_touched(name, error, bool(tasks))]
        if errors:
            raise errors[0]
        if not tasks:
            raise _unknown("task or benchmark", name, [ALL, *_names(catalogue)])
        found.update((task.name, task) for task in tasks)
    return list(found.values())
