"""Pickles that hold plain values only, read without the standard library's unpickler.

A pickle is a program that may call any function. The files that refer publishes need a few of its
instructions; all others are refused.

The values are also limited to what JSON can hold: names of fields are unique strings; numbers are
finite, integers have 64 bits; no text holds a lone surrogate; nothing contains itself, is nested
deeply, or is shared so often that a walk through all of it would not end.
"""

import math
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.data.files import read_bytes
from eval.data.records import describe
from eval.errors import DataError

MAX_PICKLE_BYTES = 200_000_000  # the largest of refer's has some 40 MB
MAX_DEPTH = 100
MAX_CONTAINERS = 3_000_000  # refer's largest has some 500,000
MAX_VALUES = 30_000_000  # instructions; values, a shared one counted each time


def read_pickle(path: Path) -> Any:
    """What a pickle of any protocol holds: dict, list, tuple, str, int, float, bool and None.

    Byte strings of Python 2 are read as UTF-8. Raises DataError, naming the byte and the
    instruction, for anything else; nothing that the pickle names is imported.
    """
    content, machine, place = read_bytes(path, MAX_PICKLE_BYTES), _Machine(), 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown escape in a string
            for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):
                place = position or 0
                if opcode.name == "STOP":
                    break
                step = STEPS.get(opcode.name)
                if step is None:
                    instruction = " ".join([opcode.name, *machine.operands(argument)])
                    raise DataError(
                        f"{path}, byte {place}: plain values expected, {instruction} found. What a "
                        "pickle would import or call is never run: is this the published file?"
                    )
                if number >= MAX_VALUES:
                    raise ValueError(f"more than {MAX_VALUES:,} instructions")
                step(machine, argument)
            (value,) = machine.stack
            if machine.marks:
                raise ValueError("a container that is not closed")
    except (ValueError, LookupError, Warning) as error:
        raise DataError(
            f"{path}: a pickle of plain values, as the standard library writes it, expected; at "
            f"byte {place} or the next: {type(error).__name__}: {error}"
        ) from None
    return value


class _Machine:
    """The stack that a pickle works on.

    stack   values; above a mark, those of the next container
    marks   the stacks below each mark
    memo    number -> value that can be pushed again
    sizes   id of a container -> its depth, and the number of values in it
    placed  ids of containers inside another: they no longer change, so none can contain itself

    Every value that was ever on the stack stays alive, so ids are unique.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.placed: set[int] = set()

    def mark(self, _: object) -> None:
        if len(self.marks) == MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels")
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def make(self, container: Any, values: list[Any]) -> None:
        """Put a new container, which holds the values, on the stack."""
        if len(self.sizes) == MAX_CONTAINERS:  # each takes far more memory than in the file
            raise ValueError(f"more than {MAX_CONTAINERS:,} containers")
        self.sizes[id(container)] = (1, 1)
        self.hold(container, values)
        self.stack.append(container)

    def hold(self, container: Any, values: list[Any]) -> None:
        """Count the values as part of the container."""
        depth, count = self.sizes[id(container)]
        count += len(values)
        for value in values:
            if isinstance(value, list | dict | tuple):
                self.placed.add(id(value))
                below, inside = self.sizes[id(value)]
                depth, count = max(depth, below + 1), count + inside
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(
                f"{depth} levels of {count:,} values, more than {MAX_DEPTH} or {MAX_VALUES:,}"
            )
        self.sizes[id(container)] = (depth, count)

    def open(self, kind: type) -> Any:
        """The container on top of the stack, which is of this kind and may still change."""
        container = self.stack[-1]
        if not isinstance(container, kind) or id(container) in self.placed:
            raise ValueError(f"a {kind.__name__} that is still being filled expected")
        return container

    def append(self, values: list[Any]) -> None:
        self.hold(self.open(list), values)
        self.open(list).extend(values)  # an error here if it now contains itself

    def set_items(self, values: list[Any]) -> None:
        names, held = values[::2], values[1::2]
        if len(names) != len(held):
            raise ValueError("a field without a value")
        self.hold(self.open(dict), held)
        fields = self.open(dict)
        for name, value in zip(names, held, strict=True):
            if not isinstance(name, str) or name in fields:
                raise ValueError(f"fields named by strings, each once, expected, {_shown(name)}")
            fields[name] = value

    def make_list(self, values: list[Any]) -> None:
        self.make(values, values)

    def make_tuple(self, values: list[Any]) -> None:
        self.make(tuple(values), values)

    def make_dict(self, values: list[Any]) -> None:
        self.make({}, [])
        self.set_items(values)

    def pop(self, count: int) -> list[Any]:
        """Pop `count` values off the stack."""
        if len(self.stack) < count:
            raise ValueError("an empty stack")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def operands(self, argument: object) -> list[str]:
        """What a refused instruction names, in its argument or on the stack."""
        parts = (*self.stack[-2:], argument)
        return [_shown(part) for part in parts if part is not None]


def _shown(value: object) -> str:
    return describe(list(value) if isinstance(value, tuple) else value)  # never its inside


def _bytes_text(value: str) -> str:
    """pickletools shows bytes as the Latin-1 characters of the same numbers."""
    return value if value.isascii() else value.encode("latin-1").decode("utf-8")


def _text(value: str) -> str:
    value.encode()  # half a surrogate pair is an error
    return value


def _integer(value: int) -> int:
    if not -(2**63) <= value < 2**64:
        raise ValueError("an integer of more than 64 bits")
    return value


def _float(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the number {value}")
    return value


Step = Callable[[_Machine, Any], None]


def _pushing(names: str, value: Callable[[Any], Any]) -> dict[str, Step]:
    def step(machine: _Machine, argument: Any) -> None:
        machine.stack.append(value(argument))

    return dict.fromkeys(names.split(), step)


STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    **_pushing("STRING BINSTRING SHORT_BINSTRING", _bytes_text),
    **_pushing("UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8", _text),
    **_pushing("INT BININT BININT1 BININT2 LONG LONG1 LONG4", _integer),
    **_pushing("FLOAT BINFLOAT", _float),
    **_pushing("NONE", lambda _: None),
    **_pushing("NEWTRUE", lambda _: True),
    **_pushing("NEWFALSE", lambda _: False),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "MEMOIZE": _Machine.memoize,
    "MARK": _Machine.mark,
    "EMPTY_LIST": lambda machine, _: machine.make([], []),
    "EMPTY_DICT": lambda machine, _: machine.make({}, []),
    "EMPTY_TUPLE": lambda machine, _: machine.make((), []),
    "LIST": lambda machine, _: machine.make_list(machine.since_mark()),
    "DICT": lambda machine, _: machine.make_dict(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.make_tuple(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.make_tuple(machine.pop(1)),
    "TUPLE2": lambda machine, _: machine.make_tuple(machine.pop(2)),
    "TUPLE3": lambda machine, _: machine.make_tuple(machine.pop(3)),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
}
