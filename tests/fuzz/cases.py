"""A case: inputs in a folder of its own, the commands that meet them, and what may come of it.

What may come is stated where the input is made, from what was done to it, never from what the
commands print. What holds for every command, such as "never exit code 1", is in perform.py.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz.serving import Respond

COMPLETE, WRONG_INPUT, INCOMPLETE = 0, 2, 3  # exit codes, as EVALUATION.md lists them
REGRESSED, INCONCLUSIVE, INVALID = 10, 11, 12
NOBODY = 65534
Says = str | tuple[str, ...]


@dataclass(frozen=True)
class Came:
    """What came of a command.

    kept  the folder of the case as the command left it
    asked  requests that the case's server received, or none
    """

    exit: int
    stdout: str
    stderr: str
    kept: Path
    signal: int = 0
    timed_out: bool = False
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    asked: int = 0

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


@dataclass(frozen=True)
class Expect:
    """One outcome that is right.

    says   texts that the output holds; of a tuple any
    check  returns what is wrong with what came, or ""
    """

    exits: tuple[int, ...]
    says: tuple[Says, ...] = ()
    check: Callable[[Came], str] | None = None
    what: str = ""

    def wrong(self, came: Came) -> str:
        """Why this is not what came, or ""."""
        if came.exit not in self.exits:
            return f"exit {' or '.join(map(str, self.exits))}"
        flat = "".join(came.text.split())  # a table may break a line anywhere
        for each in self.says:
            any_of = (each,) if isinstance(each, str) else each
            if not any("".join(text.split()) in flat for text in any_of):
                return f"exit {came.exit} and a message that names {' or '.join(any_of)}"
        if self.check and (fault := self.check(came)):
            return f"{self.what or 'the right files'}, but {fault}"
        return ""


def refused(*says: Says) -> Expect:
    """Exit code 2 and a message that names the culprit."""
    return Expect((WRONG_INPUT,), says)


def incomplete(*says: Says) -> Expect:
    """Exit code 3 and a message that names the culprit."""
    return Expect((INCOMPLETE,), says)


def invalid(*says: Says) -> Expect:
    """The gate's exit code 12."""
    return Expect((INVALID,), says)


def works(check: Callable[[Came], str] | None = None, *says: Says) -> Expect:
    """Exit code 0."""
    return Expect((COMPLETE,), says, check)


@dataclass(frozen=True)
class Step:
    """A command and the outcomes of which one is right.

    writes  patterns of paths that it may write, below `here` or the case's folder
    uid     whose process it is; 0 is that of the campaign
    """

    argv: tuple[str, ...]
    expect: tuple[Expect, ...]
    writes: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    uid: int = 0
    wall_s: float = 0.0


@dataclass(frozen=True)
class Case:
    """What was done to the input, in words, and the commands that meet it.

    check  looks at the folder after the last command, and returns what is wrong, or ""
    """

    what: str
    steps: tuple[Step, ...]
    check: Callable[[], str] | None = None


class Skip(Exception):
    """The case cannot be made on this machine; says why."""


def as_nobody() -> int:
    """The uid of a user who may read little. Raises Skip where we cannot be that user."""
    if os.getuid() != 0:
        raise Skip("only root can act as another user")
    return NOBODY


def step(argv: Iterable[object], *expect: Expect, **more: object) -> Step:
    """A step from arguments of any type."""
    return Step(tuple(map(str, argv)), expect, **more)  # type: ignore[arg-type]


class Box:
    """The folder of a case: `here` is where its commands run, beside a home and a place for
    temporary files.

    ground   clean inputs, which are only read
    serve    starts a server that answers as a function says; its URL
    control  folder with what a control of the case's area left, `here` and `stdout`
    """

    def __init__(
        self,
        root: Path,
        ground: Path,
        serve: Callable[[Respond], str] = lambda _: "",
        control: Callable[[str], Path] = Path,
    ) -> None:
        self.root, self.ground, self.serve, self.control = root, ground, serve, control
        self.here = root / "here"
        for folder in (self.here, self.root / "home", self.root / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: bytes | str) -> Path:
        """A file below `here`."""
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            path.unlink()
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def copy(self, source: str | Path, name: str) -> Path:
        """A copy of a clean file or folder that may be changed."""
        found, path = self.ground / source, self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, path, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(found, path)
        return path

    def link(self, source: str, name: str) -> Path:
        """The same without copying bytes: for large files that no command writes in place."""
        found, path = self.ground / source, self.here / name
        if found.is_dir():
            shutil.copytree(found, path, copy_function=os.link, dirs_exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(found, path)
        return path


Make = Callable[[Box, Random], Case]


@dataclass(frozen=True)
class Area:
    """Kinds of cases that belong together.

    makers  are taken in turn, so that case n is of kind n modulo their number; one that stands
            twice is taken twice as often
    count   cases of a whole campaign
    torch   whether most commands load a model
    waits   whether most of the time is spent waiting
    controls  cases whose output others are compared with, made when one is
    """

    name: str
    makers: tuple[Make, ...]
    count: int
    torch: bool = False
    waits: bool = False
    controls: Mapping[str, Make] = field(default_factory=dict)

    def make(self, key: str, seed: int, box: Box) -> Case:
        """Case number `key`, or the control of that name: the same for the same seed."""
        rng = Random(f"{seed}/{self.name}/{key}")
        if key in self.controls:
            return self.controls[key](box, rng)
        return self.makers[int(key) % len(self.makers)](box, rng)


def clean(text: str, root: Path) -> str:
    """Output without what differs between two folders."""
    return text.replace(str(root), "ROOT")


def same_output(control: Path) -> Callable[[Came], str]:
    """Standard output is that of the control."""

    def check(came: Came) -> str:
        expected = (control / "stdout").read_bytes().decode()
        root = (control / "root").read_text()
        if clean(came.stdout, came.kept) == clean(expected, Path(root)):
            return ""
        return "its output is not that of the clean input"

    return check
