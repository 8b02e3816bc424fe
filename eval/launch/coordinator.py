"""Rounds: pending requests are planned, workers take them, and the journals show what is left.

Work in flight is not tracked. When all groups of a round are taken and no worker is working, the
requests that are still missing in the journals were lost with a worker that died or hung, and are
the next round. That round is an isolation retry: each request is a group of its own, and a worker
holds one at a time, so that a request that crashes workers is isolated. It fails on its second
crash.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from eval.api import Prediction
from eval.errors import RunError
from eval.launch.plan import RoundPlan
from eval.launch.queue import Order, Queue, Report
from eval.run.folder import RunFolder

LOG = logging.getLogger(__name__)
LEASE_S = 900.0  # without an answer, and what a worker holds is taken back
LOADING_S = 3600.0  # the same before a worker's first answer, for large models on slow disks
FAREWELL_S = 10.0  # for workers to end by themselves
LEAVING_S = 2.0  # for those that have said so to be gone; one that still loads is not needed
POLL_S = 0.1
MOST_CRASHES = 2  # crashes on a request, after which it fails
MOST_ENDS = 3  # ends of workers in a row, for each of them, without an answer in between
MOST_ENDS_AT_WORK = 8  # the same in all, at least, of workers that had a request


class WorkerProcesses(Protocol):
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
class Watched:
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
        processes: WorkerProcesses,
        *,
        lease_s: float = LEASE_S,
    ) -> None:
        self.queue = queue
        self.processes = processes
        self.lease_s = lease_s
        self.model: dict[str, Any] = {}
        self.crashes: dict[str, int] = {}
        self.ends_in_a_row = 0  # workers that ended since the last answer or failure
        self.failed_in_a_row = 0  # requests that failed since the last answer
        self.answered = 0
        self.workers = {number: Watched() for number in processes.start()}

    @property
    def size(self) -> int:
        """How many workers there are meant to be."""
        return self.processes.size

    @property
    def reports(self) -> dict[int, Report]:
        """The last report of each worker, also of those that have ended."""
        return {number: worker.report for number, worker in self.workers.items()}

    def about(self) -> Mapping[str, Any]:
        """Wait for a worker to be ready; what it tells of its model.

        Raises RunError where none gets so far.
        """
        while not self.model:
            self._poll(None, None)
            time.sleep(POLL_S)
        return self.model

    def work(
        self,
        run: RunFolder,
        plan: RoundPlan,
        order: Order,
        show: Callable[[Mapping[int, Report]], None],
    ) -> bool:
        """Have a round worked on until nobody does any more; whether a worker was lost in it.

        show  called with all reports a few times a second

        Raises RunError where no worker is left, or one is stopped by an error of the user's.
        """
        deaths = sum(worker.lost for worker in self.workers.values())
        self.queue.publish(order)
        for worker in self.workers.values():
            worker.moved = monotonic()
        while True:
            exhausted = self.queue.exhausted(order)  # before the reports: see Worker.drain
            self._poll(run, plan if order.isolated else None)
            show(self.reports)
            if exhausted and not any(self._works(m, order) for m in self.workers.values()):
                return sum(worker.lost for worker in self.workers.values()) > deaths
            time.sleep(POLL_S)

    def stop(self, *, at_once: bool = False) -> None:
        """Let the workers end, or make them."""
        self.queue.stop()
        if not at_once:
            until = monotonic() + FAREWELL_S
            while monotonic() < until and any(
                not worker.lost and self._refresh(number, worker).state in ("idle", "ready")
                for number, worker in self.workers.items()
            ):
                time.sleep(POLL_S)
        self.processes.stop(0.0 if at_once else LEAVING_S)

    def _works(self, worker: Watched, order: Order) -> bool:
        report = worker.report
        return not worker.lost and report.state == "working" and report.round == order.round

    def _refresh(self, number: int, worker: Watched) -> Report:
        report = self.queue.report(number)
        if report and (report.beat, report.state) != (worker.report.beat, worker.report.state):
            worker.report, worker.moved = report, monotonic()
        return worker.report

    def _poll(self, run: RunFolder | None, isolated: RoundPlan | None) -> None:
        """Read the reports; replace workers that have ended or hang."""
        for number, worker in self.workers.items():
            if not worker.lost and self._refresh(number, worker).state == "broken":
                raise RunError(worker.report.message)
            if not worker.described and (about := self.queue.about(number)):
                worker.described = True
                self._compare(number, about)
        answered = sum(worker.report.answered for worker in self.workers.values())
        if answered > self.answered:
            self.answered, self.ends_in_a_row, self.failed_in_a_row = answered, 0, 0
        for number, why in [*self.processes.ended().items(), *self._hanging()]:
            self._replace_lost(number, why, run, isolated)
        if all(worker.lost for worker in self.workers.values()):
            raise RunError("no worker is left; what was answered is on disk")

    def _compare(self, number: int, about: dict[str, Any]) -> None:
        """All workers must have loaded the same: a path may mean other files elsewhere."""
        self.model = self.model or about
        for name in sorted(self.model.keys() | about.keys()):
            if self.model.get(name) != about.get(name):
                raise RunError(
                    f"worker {number} on {self.workers[number].report.host} has another model: "
                    f"{name} {about.get(name)!r}, where the others have {self.model.get(name)!r}"
                )

    def _hanging(self) -> Iterator[tuple[int, str]]:
        now = monotonic()
        for number, worker in self.workers.items():
            lease_s = {"working": self.lease_s, "loading": max(LOADING_S, self.lease_s)}.get(
                worker.report.state
            )
            if lease_s and not worker.lost and now - worker.moved > lease_s:
                yield number, f"it gave no sign of progress for {lease_s:.0f} s"

    def _replace_lost(
        self, number: int, why: str, run: RunFolder | None, isolated: RoundPlan | None
    ) -> None:
        worker = self.workers[number]
        if worker.lost or worker.report.state == "gone":
            return
        self._refresh(number, worker)  # it may have reported in between
        if worker.report.state == "broken":
            raise RunError(worker.report.message)
        worker.lost = True
        self.ends_in_a_row += 1
        LOG.warning("worker %d is lost: %s; what it held is asked again", number, why)
        if run and isolated and worker.report.state == "working":
            for group in worker.report.held:
                self._count_crash(isolated, group, why, run)
        most = MOST_ENDS * self.processes.size
        if worker.report.state == "working":  # one question after the other may be to blame
            most = max(most, MOST_ENDS_AT_WORK)
        if self.ends_in_a_row >= most or self.failed_in_a_row >= MOST_ENDS_AT_WORK:
            raise RunError(
                f"{max(self.ends_in_a_row, self.failed_in_a_row)} workers in a row ended without "
                f"an answer, the last because {why}"
            )
        successor = self.processes.replace(number)
        if successor is not None:
            self.workers[successor] = Watched()

    def _count_crash(self, plan: RoundPlan, number: int, why: str, run: RunFolder) -> None:
        """Count a crash for each of these requests; they fail on their second."""
        group = plan.group(number)
        journals = run.journals("lost")
        for request in group.requests:
            self.crashes[request.id] = self.crashes.get(request.id, 0) + 1
            if self.crashes[request.id] >= MOST_CRASHES:
                reason = f"each worker that was asked this was lost: {why}"
                journals.write(Prediction(request.id, "", error=reason), group.of[request.id])
                self.ends_in_a_row = 0
                self.failed_in_a_row += 1
        journals.close()


def run_rounds(
    write: Callable[[int, bool], RoundPlan], work: Callable[[RoundPlan, Order], bool], workers: int
) -> int:
    """Rounds until nothing is missing; how many there were.

    write  number of the round, and whether it is an isolation retry -> plan of pending requests
    work   see Coordinator.work
    """
    number, isolated, before = 0, False, -1
    while True:
        plan = write(number + 1, isolated)
        try:
            if not plan.groups:
                return number
            questions = sum(plan.counts().values())
            if questions == before and not isolated:
                raise RunError(
                    f"{questions:,} questions were asked and not answered: the back end leaves out "
                    "what it is asked"
                )
            number += 1
            lost = work(plan, Order(number, plan.path, plan.groups, workers, isolated))
            before, isolated = questions, lost
        finally:
            plan.close()
            plan.path.unlink(missing_ok=True)
