"""The queue: who takes which group next, and what each worker reports.

It stands on a store of keys and values whose `add` is atomic: torch's TCPStore between processes
and machines, a dictionary in one process. A claim is one `add`; nothing waits for anybody, and
nothing is lost with a worker: what it claimed and did not answer is missing in the journals, and
the next round asks it again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from eval.errors import RunError
from eval.storage.reading import Schema

STOP = b'"stop"'
POLL_S = 0.1


class Store(Protocol):
    """What torch.distributed's stores offer; an absent key counts 0 for `add`."""

    def add(self, key: str, amount: int, /) -> int: ...  # noqa: D102
    def set(self, key: str, value: str, /) -> None: ...  # noqa: D102
    def get(self, key: str, /) -> bytes: ...  # noqa: D102
    def check(self, keys: list[str], /) -> bool: ...  # noqa: D102


class Here:
    """A store for one process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def add(self, key: str, amount: int, /) -> int:
        """Add to a number; what it is then."""
        total = int(self.values.get(key, b"0")) + amount
        self.values[key] = str(total).encode()
        return total

    def set(self, key: str, value: str, /) -> None:
        """Record a value."""
        self.values[key] = value.encode()

    def get(self, key: str, /) -> bytes:
        """A value."""
        return self.values[key]

    def check(self, keys: list[str], /) -> bool:
        """Whether all of the keys are there."""
        return all(key in self.values for key in keys)


@dataclass(frozen=True, slots=True)
class Order:
    """A round: what workers are to do until its plan is exhausted.

    round    counted from 1
    plan     file of the groups
    groups   how many there are
    workers  how many take from it, about
    isolated  whether it is an isolation retry: a worker holds one group at a time, so that it is
              known which one crashed it
    """

    round: int
    plan: Path
    groups: int
    workers: int
    isolated: bool = False


@dataclass(slots=True)
class Report:
    """A worker's report on itself.

    state          loading, ready, working, idle, gone, or broken by an error of the user's
    round          of the order that it works on
    beat           grows with every sign of progress
    answers        by task
    images         that it encoded, where its back end counts them
    held           groups that it has claimed and not answered
    image_wait_s   time in which its model waited for image files
    queue_wait_s   time in which it waited for an order, after its first
    message        why it is broken
    """

    state: str = "loading"
    round: int = 0
    beat: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    images: int | None = None
    held: list[int] = field(default_factory=list)
    image_wait_s: float = 0.0
    queue_wait_s: float = 0.0
    work_s: float = 0.0
    host: str = ""
    process: int = 0
    message: str = ""

    @property
    def answered(self) -> int:
        """Answers of all tasks."""
        return sum(self.answers.values())


_ORDER: Schema[Order] = Schema(Order)
_REPORT: Schema[Report] = Schema(Report)
_ABOUT: Schema[dict[str, Any]] = Schema(dict[str, Any])


class Queue:
    """Claims, orders and reports, on a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def claim(self, order: Order) -> int | None:
        """The next group of a round, or None where all are taken."""
        number = self.store.add(f"taken/{order.round}", 1) - 1
        return number if number < order.groups else None

    def exhausted(self, order: Order) -> bool:
        """Whether all groups of a round are taken."""
        return self.store.add(f"taken/{order.round}", 0) >= order.groups

    def publish(self, order: Order) -> None:
        """Begin a round."""
        content = {**asdict(order), "plan": str(order.plan)}
        self.store.set("order", orjson.dumps(content).decode())

    def stop(self) -> None:
        """Let workers end."""
        self.store.set("order", STOP.decode())

    def next_order(self, after: int, waiting: Callable[[], None]) -> Order | None:
        """Wait for a round later than `after`; None when there is no more to do.

        waiting  called again and again meanwhile
        """
        while True:
            if self.store.check(["order"]):
                content = self.store.get("order")
                if content == STOP:
                    return None
                order = _ORDER.parse(content, "an order", RunError)
                if order.round > after:
                    return order
            waiting()
            time.sleep(POLL_S)

    def describe(self, worker: int, about: Mapping[str, Any]) -> None:
        """Record what a worker's back end says of itself."""
        self.store.set(f"about/{worker}", orjson.dumps(about).decode())

    def about(self, worker: int) -> dict[str, Any] | None:
        """What a worker's back end says of itself, once it is open."""
        key = f"about/{worker}"
        if not self.store.check([key]):
            return None
        return _ABOUT.parse(self.store.get(key), f"worker {worker}'s model", RunError)

    def write_report(self, worker: int, report: Report) -> None:
        """Record a worker's report."""
        self.store.set(f"worker/{worker}", orjson.dumps(asdict(report)).decode())

    def report(self, worker: int) -> Report | None:
        """A worker's last report, or None before its first."""
        key = f"worker/{worker}"
        if not self.store.check([key]):
            return None
        return _REPORT.parse(self.store.get(key), f"worker {worker}'s report", RunError)
