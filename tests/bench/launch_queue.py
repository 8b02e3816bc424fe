"""The queue by itself: real workers, server, plan and journals, and answers that cost nothing.

`bench_launch.py` starts this anew for each measurement: see `measure` for its one argument.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from launch_data import nothing
from launch_worker import SIMULATED, Simulated, peak_bytes, times_file

from eval.launch.coordinator import Coordinator
from eval.launch.local import Processes
from eval.launch.plan import RoundPlan
from eval.launch.queue import Here, Order, Queue
from eval.launch.store import open_store
from eval.launch.worker import Worker
from eval.run import journal
from eval.run.folder import RunFolder

WORKER = (sys.executable, str(Path(__file__).with_name("launch_worker.py")))
# A worker's share of the cores is a setting of its own, which overrides OMP_NUM_THREADS; the limit
# holds for all.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
READY_S = 300.0  # for workers to load the demo's checkpoint on a busy machine


def measure(folder: str, groups: int, workers: int) -> dict[str, float]:
    """Of a new process, so that peaks are of this alone; `workers` 0 for this process."""
    run = new_run(Path(folder), SIMULATED)
    begun = monotonic()
    plan = RoundPlan.write(run.work_file("plan-1.sqlite"), nothing(groups))
    plan_s = monotonic() - begun
    assert plan.groups == groups
    order = Order(1, plan.path, groups, workers or 1)
    found = queue_here(run, order) if not workers else queue_served(run, plan, order)
    plan.close()
    peak = peak_bytes()
    begun = monotonic()
    files = sorted((run.path / SIMULATED).glob("*.jsonl"))
    answers = journal.AnswerIndex(files)
    looked_s = monotonic() - begun
    assert len(answers.answered) == groups
    looked = {"looked_s": looked_s, "looked_peak": peak_bytes()}
    return {"plan_s": plan_s, "peak": peak, **found, **looked}


def queue_here(run: RunFolder, order: Order) -> dict[str, float]:
    """One process, without a server."""
    worker = Worker(0, Queue(Here()), run.journals(0))
    worker.drain(order, Simulated())
    return {"work_s": worker.report.work_s}


def queue_served(run: RunFolder, plan: RoundPlan, order: Order) -> dict[str, float]:
    """Processes that take from the server of this one."""
    store, address = open_store()
    queue = Queue(store)
    started = workers(run, worker_settings(run, address, SIMULATED), order.workers)
    coordinator = Coordinator(queue, started)  # starts them
    try:
        wait_for(started, [queue] * order.workers, "ready")
        lost = coordinator.work(run, plan, order, lambda _: None)
        assert not lost
        reports = coordinator.reports.values()
        peaks = [peak_bytes(report.process) for report in reports]
    finally:
        coordinator.stop()
    check_journals(run, order.groups)
    times = worker_times(run, order.workers)
    work_s = max(ended for _, ended in times) - min(began for began, _ in times)
    return {"work_s": work_s, "worker_peak": max(peaks)}


def wait_for(started: Processes, queues: Sequence[Queue], state: str) -> None:
    """Wait until all workers are in a state."""
    until = monotonic() + READY_S
    while monotonic() < until:
        reports = [queue.report(number) for number, queue in enumerate(queues)]
        if all(report and report.state == state for report in reports):
            return
        if ended := started.ended():
            sys.exit(f"a worker has ended: {ended}")
        sleep(0.02)
    sys.exit(f"no {state} worker for {READY_S:.0f} s")


def new_run(path: Path, task: str) -> RunFolder:
    """A run's folder, with that of a task."""
    run = RunFolder.start(path, {"model": {}, "tasks": {}})
    (run.path / task).mkdir()
    return run


def worker_settings(
    run: RunFolder, address: str, backend: str, *, prefixed: bool = False
) -> dict[str, Any]:
    """See launch_worker.py."""
    return {"run": str(run.path), "store": address, "prefixed": prefixed, "backend": backend}


def workers(run: RunFolder, settings: Mapping[str, Any], count: int) -> Processes:
    """Processes of launch_worker.py, to be started."""
    return Processes(WORKER, settings, [ONE_THREAD] * count, run.work_file("worker-{}.log"))


def worker_times(run: RunFolder, count: int) -> list[tuple[float, float]]:
    """When each worker first claimed a group, and when it had no more to do.

    One that came when the others had done it all may be ended before it tells.
    """
    files = (times_file(run.path, number) for number in range(count))
    return [tuple(json.loads(file.read_text())) for file in files if file.is_file()]


def check_journals(run: RunFolder, questions: int) -> None:
    """Each question has one answer, or there is nothing to compare."""
    names = [
        entry.prediction.id
        for file in run.path.glob("*/journal-*.jsonl")
        for entry in journal.read(file, torn=False)
        if not entry.prediction.error
    ]
    assert len(names) == len(set(names)) == questions, (len(names), len(set(names)), questions)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
