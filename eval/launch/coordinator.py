"""Rounds: what the journals lack is planned, taken by workers, and looked for again.

Nobody keeps account of what a worker holds. When all groups of a round are taken and no worker
works any more, what is still missing in the journals was lost with a worker that died or hung, and
is the next round. That one is careful: each question a group of its own, one at a time, so that a
question that ends whoever is asked it is found out, and put down as failed the second time.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from eval.api import Prediction
from eval.errors import RunError
from eval.launch.plan import Plan
from eval.launch.queue import Order, Queue, Report
from eval.run.folder import RunFolder

LOG = logging.getLogger(__name__)
LEASE_S = 900.0  # without an answer, and what a worker holds is taken back
LOADING_S = 3600.0  # the same before a worker's first answer, for large models on slow disks
FAREWELL_S = 10.0  # for workers to end by themselves
LEAVING_S = 2.0  # for those that have said so to be gone; one that still loads is not needed
LOOK_S = 0.1
STRIKES = 2  # times that a worker may end on a question
FRUITLESS = 3  # ends of workers in a row, for each of them, without an answer in between
FRUITLESS_AT_WORK = 8  # the same in all, at least, of workers that were asked something


class Crew(Protocol):
    """Workers somewhere.

    Numbers count from 0 and are never used twice: each has its own journal.
    """

    size: int

    def start(self) -> list[int]:
        """Start all; their numbers."""
        ...

    def ended(self) -> Mapping[int, str]:
        """Workers that have ended since the last call, and how."""
        ...

    def replace(self, number: int) -> int | None:
        """Make sure that a worker has ended and start another in its place; None if it cannot."""
        ...

    def stop(self, patience_s: float) -> None:
        """End all: those that do not by themselves in time are made to."""
        ...


@dataclass(slots=True)
class Member:
    """A worker, as the coordinator sees it.

    moved      when its report last showed progress, on our clock
    described  whether its model was compared with the others'
    """

    report: Report = field(default_factory=Report)
    moved: float = field(default_factory=monotonic)
    described: bool = False
    lost: bool = False


class Coordinator:
    """Looks after the workers of one run.

    lease_s  seconds without an answer before a worker counts as lost
    """

    def __init__(
        self,
        queue: Queue,
        crew: Crew,
        *,
        lease_s: float = LEASE_S,
    ) -> None:
        self.queue = queue
        self.crew = crew
        self.lease_s = lease_s
        self.model: dict[str, Any] = {}
        self.strikes: dict[str, int] = {}
        self.fruitless = 0  # workers that ended since the last answer or failure
        self.struck = 0  # questions that were put down as failed since the last answer
        self.answered = 0
        self.members = {number: Member() for number in crew.start()}

    @property
    def size(self) -> int:
        """How many workers there are meant to be."""
        return self.crew.size

    @property
    def reports(self) -> dict[int, Report]:
        """The last report of each worker, also of those that have ended."""
        return {number: member.report for number, member in self.members.items()}

    def about(self) -> Mapping[str, Any]:
        """Wait for a worker to be ready; what it tells of its model.

        Raises RunError where none gets so far.
        """
        while not self.model:
            self._look(None, None)
            time.sleep(LOOK_S)
        return self.model

    def work(
        self,
        run: RunFolder,
        plan: Plan,
        order: Order,
        show: Callable[[Mapping[int, Report]], None],
    ) -> bool:
        """Have a round worked on until nobody does any more; whether a worker was lost in it.

        show  called with all reports a few times a second

        Raises RunError where no worker is left, or one is stopped by an error of the user's.
        """
        deaths = sum(member.lost for member in self.members.values())
        self.queue.publish(order)
        for member in self.members.values():
            member.moved = monotonic()
        while True:
            exhausted = self.queue.exhausted(order)  # before the reports: see Worker.drain
            self._look(run, plan if order.careful else None)
            show(self.reports)
            if exhausted and not any(self._works(m, order) for m in self.members.values()):
                return sum(member.lost for member in self.members.values()) > deaths
            time.sleep(LOOK_S)

    def stop(self, *, at_once: bool = False) -> None:
        """Let the workers end, or make them."""
        self.queue.stop()
        if not at_once:
            until = monotonic() + FAREWELL_S
            while monotonic() < until and any(
                not member.lost and self._refresh(number, member).state in ("idle", "ready")
                for number, member in self.members.items()
            ):
                time.sleep(LOOK_S)
        self.crew.stop(0.0 if at_once else LEAVING_S)

    def _works(self, member: Member, order: Order) -> bool:
        report = member.report
        return not member.lost and report.state == "working" and report.round == order.round

    def _refresh(self, number: int, member: Member) -> Report:
        report = self.queue.told(number)
        if report and (report.beat, report.state) != (member.report.beat, member.report.state):
            member.report, member.moved = report, monotonic()
        return member.report

    def _look(self, run: RunFolder | None, careful: Plan | None) -> None:
        """Read the reports; bury and replace who has ended or hangs."""
        for number, member in self.members.items():
            if not member.lost and self._refresh(number, member).state == "broken":
                raise RunError(member.report.message)
            if not member.described and (about := self.queue.about(number)):
                member.described = True
                self._compare(number, about)
        answered = sum(member.report.answered for member in self.members.values())
        if answered > self.answered:
            self.answered, self.fruitless, self.struck = answered, 0, 0
        for number, why in [*self.crew.ended().items(), *self._hanging()]:
            self._bury(number, why, run, careful)
        if all(member.lost for member in self.members.values()):
            raise RunError("no worker is left; what was answered is on disk")

    def _compare(self, number: int, about: dict[str, Any]) -> None:
        """All workers must have loaded the same: a path may mean other files elsewhere."""
        self.model = self.model or about
        for name in sorted(self.model.keys() | about.keys()):
            if self.model.get(name) != about.get(name):
                raise RunError(
                    f"worker {number} on {self.members[number].report.host} has another model: "
                    f"{name} {about.get(name)!r}, where the others have {self.model.get(name)!r}"
                )

    def _hanging(self) -> Iterator[tuple[int, str]]:
        now = monotonic()
        for number, member in self.members.items():
            lease_s = {"working": self.lease_s, "loading": max(LOADING_S, self.lease_s)}.get(
                member.report.state
            )
            if lease_s and not member.lost and now - member.moved > lease_s:
                yield number, f"it gave no sign of progress for {lease_s:.0f} s"

    def _bury(self, number: int, why: str, run: RunFolder | None, careful: Plan | None) -> None:
        member = self.members[number]
        if member.lost or member.report.state == "gone":
            return
        self._refresh(number, member)  # it may have reported in between
        if member.report.state == "broken":
            raise RunError(member.report.message)
        member.lost = True
        self.fruitless += 1
        LOG.warning("worker %d is lost: %s; what it held is asked again", number, why)
        if run and careful and member.report.state == "working":
            for group in member.report.held:
                self._strike(careful, group, why, run)
        most = FRUITLESS * self.crew.size
        if member.report.state == "working":  # one question after the other may be to blame
            most = max(most, FRUITLESS_AT_WORK)
        if self.fruitless >= most or self.struck >= FRUITLESS_AT_WORK:
            raise RunError(
                f"{max(self.fruitless, self.struck)} workers in a row ended without an answer, the "
                f"last because {why}"
            )
        successor = self.crew.replace(number)
        if successor is not None:
            self.members[successor] = Member()

    def _strike(self, plan: Plan, number: int, why: str, run: RunFolder) -> None:
        """Remember that a worker ended on these questions; the second time they have failed."""
        group = plan.group(number)
        journals = run.journals("lost")
        for request in group.requests:
            self.strikes[request.id] = self.strikes.get(request.id, 0) + 1
            if self.strikes[request.id] >= STRIKES:
                reason = f"each worker that was asked this was lost: {why}"
                journals.write(Prediction(request.id, "", error=reason), group.of[request.id])
                self.fruitless = 0
                self.struck += 1
        journals.close()


def rounds(
    write: Callable[[int, bool], Plan], work: Callable[[Plan, Order], bool], workers: int
) -> int:
    """Rounds until nothing is missing; how many there were.

    write  number of the round, and whether it is careful -> the plan of what is missing
    work   see Coordinator.work
    """
    number, careful, before = 0, False, -1
    while True:
        plan = write(number + 1, careful)
        try:
            if not plan.groups:
                return number
            questions = sum(plan.counts().values())
            if questions == before and not careful:
                raise RunError(
                    f"{questions:,} questions were asked and not answered: the back end leaves out "
                    "what it is asked"
                )
            number += 1
            lost = work(plan, Order(number, plan.path, plan.groups, workers, careful))
            before, careful = questions, lost
        finally:
            plan.close()
            plan.path.unlink(missing_ok=True)
