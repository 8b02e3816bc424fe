"""A worker: a back end that takes groups while it has room for more, and its journals.

It knows no other worker. What it holds near the end of a round is bounded by its share of what is
left, so that no group waits in one worker while another is idle.
"""

import contextlib
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic

from eval.api import Backend, Prediction, Request
from eval.launch.plan import RequestGroup, RoundPlan
from eval.launch.queue import Order, Queue, Report
from eval.run.answers import Journals

REPORT_S = 0.5  # between two reports of a worker that works
SHARE = 2  # a worker holds at most one part in so many of its share of what is left


class Worker:
    """Answers orders.

    number    tells it from the others of this run
    in_turn   groups are asked one after the other: batches must not run into each other
    watch      called with each report
    """

    def __init__(
        self,
        number: int,
        queue: Queue,
        journals: Journals,
        *,
        in_turn: bool = False,
        watch: Callable[[Report], None] | None = None,
    ) -> None:
        self.number = number
        self.queue = queue
        self.journals = journals
        self.in_turn = in_turn
        self.watch = watch
        self.lock, self.over = threading.Lock(), threading.Event()
        self.report = Report(host=socket.gethostname(), process=os.getpid())
        self.reported = 0.0
        self.moved = monotonic()  # when there was progress last
        self.report_state("loading")

    def serve(self, backend: Backend) -> None:
        """Take one order after the other until there is no more to do."""
        about = backend.describe()
        self.journals.answered_by(about)
        self.queue.describe(self.number, about)
        self.report_state("ready")
        pulse = threading.Thread(target=self._feel_pulse, args=(backend,), daemon=True)
        pulse.start()
        while order := self._next_order():
            self.drain(order, backend)
        self.over.set()
        pulse.join()  # the interpreter must not end beneath a call of torch
        self.report_state("gone")

    def drain(self, order: Order, backend: Backend) -> None:
        """Take groups of a round until all are taken, and answer them."""
        self.report.round = order.round
        self.report_state("working")
        if self.queue.exhausted(order):  # it may be over, and its plan gone; else it waits for us
            self.report_state("idle")
            return
        begun = monotonic()
        plan = RoundPlan(order.plan)
        taking = _Taking(plan, order, self.in_turn, self._claim)
        before = self.report.work_s
        try:
            while not taking.exhausted:
                for answer in map(_finite, backend.answer(taking.requests())):
                    task = self.journals.write(answer, taking.answered(answer))
                    with self.lock:
                        self.report.answers[task] = self.report.answers.get(task, 0) + 1
                        self.report.failed += bool(answer.error)
                        self.report.held = taking.held
                        self.report.work_s = before + monotonic() - begun
                        self._look_at(backend)
                    self.beat()
        finally:
            plan.close()
            self.journals.close()
        self.report.work_s = before + monotonic() - begun
        self.report.held = []
        self.report_state("idle")

    def broken(self, message: str) -> None:
        """Tell that it cannot go on."""
        self.report.message = message
        self.report_state("broken")

    def report_state(self, state: str) -> None:
        """Report, with a new state."""
        self.report.state = state
        self.reported = 0.0
        self.beat()

    def beat(self) -> None:
        """There was progress; it is reported now and then."""
        with self.lock:
            self.report.beat += 1
            self.moved = now = monotonic()
            if now - self.reported >= REPORT_S:
                self.reported = now
                self.queue.write_report(self.number, self.report)
                if self.watch:
                    self.watch(self.report)

    def _feel_pulse(self, backend: Backend) -> None:
        """Beat as long as the engine counts on: from one answer to the next it may be long."""
        before = None
        with contextlib.suppress(RuntimeError):  # the store is gone, as the others will notice too
            while not self.over.wait(REPORT_S):
                if (now := repr(getattr(backend, "usage", None))) != before:
                    before = now
                    self.beat()

    def _claim(self, order: Order) -> int | None:
        number = self.queue.claim(order)
        if order.isolated and number is not None:
            self.report.held = [number]
            self.report_state("working")
        return number

    def _next_order(self) -> Order | None:
        begun, before = monotonic(), self.report.queue_wait_s

        def waiting() -> None:
            if self.report.round:
                self.report.queue_wait_s = before + monotonic() - begun
            self.beat()

        return self.queue.next_order(self.report.round, waiting)

    def _look_at(self, backend: Backend) -> None:
        usage = getattr(backend, "usage", None)
        if usage is not None:
            self.report.images = usage.images
            self.report.image_wait_s = usage.waited_s


def _finite(answer: Prediction) -> Prediction:
    """The answer; a failure where a back end gives losses that are no numbers: JSON has none."""
    if all(map(math.isfinite, (*answer.losses, *answer.dtype_losses))):
        return answer
    return Prediction(answer.id, "", error="the back end's losses are NaN or infinite")


class _Taking:
    """The groups that a worker holds."""

    def __init__(
        self, plan: RoundPlan, order: Order, in_turn: bool, claim: Callable[[Order], int | None]
    ) -> None:
        self.plan = plan
        self.order = order
        self.one_at_a_time = in_turn or order.isolated
        self.claim = claim
        self.exhausted = False
        self.open: dict[str, RequestGroup] = {}  # by the id of each request without an answer
        self.unanswered: dict[int, int] = {}  # requests of each group that is held
        self.work = 0  # of the groups that are held

    @property
    def held(self) -> list[int]:
        """Numbers of the groups that are held."""
        return list(self.unanswered)

    def requests(self) -> Iterator[Request]:
        """Requests as long as this worker should take more; at least one group's, or none left."""
        while True:
            number = self.claim(self.order)
            if number is None:
                self.exhausted = True
                return
            group = self.plan.group(number)
            self.unanswered[number] = len(group.requests)
            self.work += group.work
            self.open |= dict.fromkeys(group.of, group)
            yield from group.requests
            if self.one_at_a_time or (
                self.order.workers > 1 and self.work > group.left / (SHARE * self.order.workers)
            ):
                return

    def answered(self, answer: Prediction) -> str:
        """The identity of what was asked; its group is free when all of it is answered."""
        group = self.open.pop(answer.id)
        self.unanswered[group.number] -= 1
        if not self.unanswered[group.number]:
            del self.unanswered[group.number]
            self.work -= group.work
        return group.of[answer.id]
