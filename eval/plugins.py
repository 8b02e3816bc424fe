"""Finds tasks, back ends and judges through entry points, our own like everybody's.

    [project.entry-points."eval.tasks"]     a module that holds TASKS, or a package of such modules
    my_lab = "my_lab.benchmarks"
    [project.entry-points."eval.backends"]  a callable that opens a back end: see eval.api.Backend
    my-server = "my_lab.server:open_backend"
    [project.entry-points."eval.judges"]    what a judged benchmark offers: eval.judging.task
    my-dialogues = "my_lab.judging"

What a package offers is checked when it is loaded. A package that breaks its promise stops only
those who ask for what it offers, or may offer; everybody else goes on.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from inspect import signature
from types import ModuleType
from typing import Any

from eval.api import Backend, Generate, Rank
from eval.data.declare import Corpus, Layout, Source, Task
from eval.errors import EvalError, PluginError, UsageError
from eval.storage.text import nearest

DISTRIBUTION = "qwen-vl-eval"
LISTING = "qwen-vl-eval list"  # the command that lists all tasks and back ends
TASKS = "eval.tasks"
BACKENDS = "eval.backends"
JUDGES = "eval.judges"
ALL = "all"

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*_[A-Za-z0-9][A-Za-z0-9_.-]*")
METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")
PLACE = re.compile(r"\{\w+\}")
SHA256 = re.compile(r"[0-9a-f]{64}")


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

    tasks    name -> task, in the order of packages, modules and declaration
    clashes  name -> error, for a name that two modules offer
    broken   one error for each module that could not be loaded or breaks its promise
    """

    tasks: Mapping[str, Registered]
    clashes: Mapping[str, PluginError]
    broken: tuple[PluginError, ...]


def catalogue() -> Catalogue:
    """Load what is offered. Raises UsageError where our own package is not installed."""
    offers: dict[str, list[Registered]] = {}
    broken: list[PluginError] = []
    loaded: set[str] = set()
    for entry in _entries(TASKS):
        for module in _modules(entry, broken):
            if module.__name__ in loaded:  # two entry points may lead to one module
                continue
            loaded.add(module.__name__)
            origin = f"{module.__name__} of {_distribution(entry)}"
            try:
                tasks = _checked(module, origin)
            except PluginError as error:
                broken.append(error)
                continue
            for task in tasks:
                offers.setdefault(task.name, []).append(Registered(task, origin))
    clashes = {
        name: PluginError(
            f"task {name!r} is offered twice, by {' and by '.join(one.origin for one in offered)}: "
            "uninstall one of them"
        )
        for name, offered in offers.items()
        if len(offered) > 1
    }
    tasks_once = {name: offered[0] for name, offered in offers.items() if name not in clashes}
    return Catalogue(tasks_once, clashes, tuple(broken))


def tasks() -> dict[str, Registered]:
    """Every task that can be run, by name; what is broken is left out."""
    return dict(catalogue().tasks)


def find_tasks(names: Iterable[str]) -> list[Task]:
    """The tasks of these names, each once: of a task, of a benchmark (its tasks), or "all".

    A task that is `by_name` is found by its own name alone.
    Raises UsageError, with the nearest name, for what nobody offers; PluginError, caused by the
    package's own error, for what a broken package offers or may offer.
    """
    offered = catalogue()
    chosen_tasks: dict[str, Task] = {}
    for name in names:
        for task, error in offered.clashes.items():
            if name in _names_of(task):
                raise error
        if name == ALL and offered.broken:
            raise offered.broken[0]
        chosen = [
            one.task
            for task, one in offered.tasks.items()
            if name == task or (name in _names_of(task) and not one.task.by_name)
        ]
        if not chosen:
            raise _unknown_task(name, offered)
        chosen_tasks.update((task.name, task) for task in chosen)
    return list(chosen_tasks.values())


def backend(name: str) -> Callable[..., Backend]:
    """What opens the back end of this name; see eval.api.Backend for its arguments.

    Raises UsageError, with the nearest name, for what nobody offers; PluginError for a name that
    two packages offer, or a package that cannot be loaded.
    """
    opener, origin = _load(BACKENDS, "back end", name)
    if not callable(opener):
        raise PluginError(f"{origin}: a callable that opens a back end expected, {opener!r} found")
    return opener  # type: ignore[no-any-return]  # what it returns shows when it is called


def judge(benchmark: str, kind: type) -> Any:
    """What a benchmark offers for judging.

    kind  the protocol whose parts it must have

    Raises UsageError, with the nearest name, for what nobody offers; PluginError for a benchmark
    that two packages offer, or what lacks a part of the protocol.
    """
    found, origin = _load(JUDGES, "judge of a benchmark", benchmark)
    parts = {
        name
        for base in kind.__mro__
        for name in (*vars(base), *vars(base).get("__annotations__", ()))
        if not name.startswith("_")
    }
    if missing := sorted(name for name in parts if not hasattr(found, name)):
        raise PluginError(f"{origin}: {found!r} lacks {', '.join(missing)}")
    return found


def _load(group: str, what: str, name: str) -> tuple[Any, str]:
    """What the entry point of a group and name leads to, and who offers it."""
    entries = _entries(group)
    named = [entry for entry in entries if entry.name == name]
    if not named:
        known = sorted({entry.name for entry in entries})
        raise UsageError(f"no {what} is called {name!r}{nearest(name, known, LISTING)}")
    if len(named) > 1:
        owners = " and by ".join(f"{entry.value} of {_distribution(entry)}" for entry in named)
        raise PluginError(f"{what} {name!r} is offered twice, by {owners}: uninstall one of them")
    origin = f"{named[0].value} of {_distribution(named[0])}"
    try:
        return named[0].load(), origin
    except EvalError:
        raise
    except (Exception, SystemExit) as error:
        raise _cannot_load(origin, error) from error


def identify(
    opener: Callable[..., Backend],
    checkpoint: str,
    revision: str | None,
    *,
    weights: str | None = None,
    verify: bool = False,
) -> str | None:
    """The digest of what a back end would load, or None where it cannot tell without loading.

    verify  read the files again, whatever is remembered of them
    """
    function = _beside(opener, "identify")
    if function is None:
        return None
    known = signature(function).parameters
    more = {"weights": weights, "verify": verify}
    more = {name: value for name, value in more.items() if value and name in known}
    digest: str = function(checkpoint, revision, **more)
    return digest


def footprint(
    opener: Callable[..., Backend],
    checkpoint: str,
    revision: str | None,
    dtype: str,
    *,
    weights: str | None = None,
) -> int | None:
    """Bytes that a back end's model takes, or None where it cannot tell without loading."""
    function = _beside(opener, "footprint")
    if function is None:
        return None
    chosen = {"weights": weights} if weights else {}
    size: int = function(checkpoint, revision, dtype, **chosen)
    return size


def device_kind(opener: Callable[..., Backend], device: str) -> str | None:
    """What the option --device comes to here, cpu or cuda; None for a back end of no device."""
    function = _beside(opener, "device_kind")
    return function(device) if function else None


def generation(opener: Callable[..., Backend]) -> int | None:
    """Version of the code behind a back end that decides what is answered, if it has one."""
    return getattr(importlib.import_module(opener.__module__), "GENERATION", None)


def _beside(opener: Callable[..., Backend], name: str) -> Callable[..., Any] | None:
    """A function of the module that a back end is opened by."""
    function = getattr(importlib.import_module(opener.__module__), name, None)
    return function if callable(function) else None


def _entries(group: str) -> list[EntryPoint]:
    """Entry points in an order that no file system decides."""
    try:
        distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise UsageError(
            f"{DISTRIBUTION} is not installed in this Python, so neither its tasks nor its back "
            "ends can be found: run 'pip install -e .' in its source folder"
        ) from None
    return sorted(entry_points(group=group), key=lambda entry: (_distribution(entry), entry.name))


def _distribution(entry: EntryPoint) -> str:
    """Such as "my-lab 0.1"."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"


def _modules(entry: EntryPoint, broken: list[PluginError]) -> Iterator[ModuleType]:
    """The modules with TASKS that an entry point leads to; what fails is added to `broken`."""
    origin = f"{entry.value} of {_distribution(entry)}"
    names, held, failed = [entry.value], 0, len(broken)
    while names:
        name = names.pop(0)
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            broken.append(_cannot_load(f"{name} of {_distribution(entry)}", error))
            continue
        if hasattr(module, "TASKS"):
            held += 1
            yield module
        elif hasattr(module, "__path__"):
            inner = sorted(each.name for each in pkgutil.iter_modules(module.__path__))
            names += [f"{name}.{each}" for each in inner if not each.startswith("_")]
    if not held and len(broken) == failed:
        broken.append(PluginError(f"{origin}: a module that holds TASKS expected, none found"))


def _checked(module: ModuleType, origin: str) -> list[Task]:
    """The module's tasks. Raises PluginError for what is none."""
    tasks = module.TASKS
    if not isinstance(tasks, tuple | list):
        raise PluginError(f"{origin}: TASKS: a tuple of tasks expected, {tasks!r} found")
    for task in tasks:
        if not isinstance(task, Task):
            raise PluginError(f"{origin}: TASKS: an eval.Task expected, {task!r} found")
        for field, expected in _faults(task):
            value = getattr(task, field)
            raise PluginError(
                f"{origin}: task {task.name!r}: {field}: {expected} expected, {value!r} found"
            )
    return list(tasks)


def _faults(task: Task) -> Iterator[tuple[str, str]]:
    """(field, what was expected) of each field that no task may have so: types are not trusted."""
    if not _matches(TASK_NAME, task.name) or task.name.startswith(f"{ALL}_"):
        yield "name", "<benchmark>_<split>, such as okvqa_val,"
    if task.size is not None and not _is_count(task.size, 1):
        yield "size", "a positive integer or None"
    if not _are(task.layouts, Layout) or not all(_is_layout(each) for each in task.layouts):
        yield "layouts", "a tuple of Layout, each with a reader and safe, relative sources,"
    prompt: Any = task.prompt
    if not isinstance(prompt, str) or not PLACE.search(prompt):
        yield "prompt", "a text with a {field}"
    elif prompt.count("{image}") != prompt.count("<img>{image}</img>"):
        yield "prompt", "<img>{image}</img> around the image's path"
    decode: Any = task.decode
    if isinstance(decode, Generate):
        most, least = decode.max_new_tokens, decode.min_new_tokens
        if not _is_count(most, 1) or not _is_count(least, 0) or least > most:
            yield "decode", "at least one new token, and no more at least than at most,"
    elif decode is not Rank:
        yield "decode", "a Generate, or the class Rank,"
    metrics: Any = task.metrics
    if not isinstance(metrics, Mapping) or not metrics:
        yield "metrics", "name -> metric, at least one,"
    elif not all(_matches(METRIC_NAME, name) and _is_metric(metrics[name]) for name in metrics):
        yield "metrics", "names in snake_case, and functions or Corpus,"
    if task.readable is not None and not callable(task.readable):
        yield "readable", "a function or None"


def _is_layout(layout: Layout) -> bool:
    return (
        callable(layout.read)
        and _are(layout.sources, Source)
        and all(_is_source(source) for source in layout.sources)
    )


def _is_source(source: Source) -> bool:
    path: Any = source.path
    return (
        isinstance(path, str)
        and not re.search(r"^/|\\|:", path)
        and all(part.strip(". ") for part in path.split("/"))
        and (source.sha256 is None or _matches(SHA256, source.sha256))
        and isinstance(source.origin, str)
    )


def _is_metric(metric: Any) -> bool:
    if isinstance(metric, Corpus):
        return callable(metric.function) and isinstance(metric.mean, bool)
    return callable(metric)


def _is_count(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _are(values: Any, kind: type) -> bool:
    """Whether it is a non-empty tuple or list of such."""
    return (
        isinstance(values, tuple | list)
        and len(values) > 0
        and all(isinstance(value, kind) for value in values)
    )


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _cannot_load(origin: str, cause: BaseException) -> PluginError:
    error = PluginError(f"{origin}: cannot be loaded: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return error


def _names_of(task: str) -> tuple[str, str, str]:
    """What a task may be asked for by: its own name, its benchmark's, or all."""
    return task, task.partition("_")[0], ALL


def _unknown_task(name: str, offered: Catalogue) -> EvalError:
    known = {
        each: None
        for task, one in offered.tasks.items()
        for each in ((task,) if one.task.by_name else _names_of(task))
    }
    text = f"no task or benchmark is called {name!r}{nearest(name, known, LISTING)}"
    if not offered.broken:
        return UsageError(text)
    broken = "; ".join(str(error) for error in offered.broken)
    error = PluginError(f"{text}. It may be offered by what is broken here: {broken}")
    error.__cause__ = offered.broken[0]
    return error
