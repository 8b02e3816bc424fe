"""A worker of `bench_launch.py`, as a process: the harness's own, which also keeps the time.

The first line of its input is its settings: number; store; prefixed, whether it has a queue of its
own in the store; run; backend, "simulated" or a checkpoint; images. It ends where its input does.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from eval.api import Backend, Prediction, Request
from eval.launch.queue import Order, Queue, Report, Store
from eval.launch.store import join_store
from eval.launch.worker import Worker
from eval.run.answers import Journals

WARMING = 8  # questions that are asked before the clock runs
SIMULATED = "simulated"


class Simulated:
    """Answers at once."""

    def answer(self, requests: Iterable[Request]) -> Iterator[Prediction]:
        """A short text."""
        for request in requests:
            yield Prediction(request.id, " yes", (9693, 151643))

    def describe(self) -> Mapping[str, Any]:
        """Nothing of interest."""
        return {"checkpoint": SIMULATED}


class Timed(Queue):
    """A queue that puts down when its worker first claimed from it, and when it had no more to do.

    On the clock that all processes of a machine share.
    """

    def __init__(self, store: Store, times: Path) -> None:
        super().__init__(store)
        self.times = times
        self.began = 0.0

    def claim(self, order: Order) -> int | None:
        """As ever."""
        self.began = self.began or monotonic()
        return super().claim(order)

    def write_report(self, worker: int, report: Report) -> None:
        """As ever, with the times before."""
        if report.state == "idle" and self.began:
            self.times.write_text(json.dumps([self.began, monotonic()]))
            self.began = 0.0
        super().write_report(worker, report)


def times_file(run: Path, number: int) -> Path:
    """Where a worker's times are put down."""
    return run / ".work" / f"times-{number}.json"


def open_warm(checkpoint: str, images: Path) -> Backend:
    """The shared engine, which has answered something already."""
    from launch_data import warming

    from eval.engine.shared import open_backend

    engine = open_backend(checkpoint, image_root=images)
    for answer in engine.answer(warming(images / f"warming-{os.getpid()}", WARMING)):
        assert not answer.error, answer.error
    return engine


def peak_bytes(process: int | str = "self") -> int:
    """Peak of the resident memory of a process since its program was started."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) << 10


def prefix_of(number: int) -> str:
    """Of the keys of a worker that has a queue of its own."""
    return f"part-{number}"


def own_queue(store: Any, number: int) -> Queue:
    """The queue of one worker, as who opened the store sees it."""
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # torch exports it

    return Queue(PrefixStore(prefix_of(number), store))


def main() -> None:
    """Serve one queue."""
    settings = json.loads(os.read(sys.stdin.fileno(), 4096))  # one write, and not long
    threading.Thread(target=end_with_the_input, daemon=True).start()
    number = settings["number"]
    prefix = prefix_of(number) if settings["prefixed"] else ""
    run = Path(settings["run"])
    queue = Timed(join_store(settings["store"], prefix=prefix), times_file(run, number))
    worker = Worker(number, queue, Journals(run, str(number)))
    if settings["backend"] == SIMULATED:
        backend: Backend = Simulated()
    else:
        backend = open_warm(settings["backend"], Path(settings["images"]))
    worker.serve(backend)


def end_with_the_input() -> None:
    """End this process when whoever started it ends."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(5)


if __name__ == "__main__":
    main()
