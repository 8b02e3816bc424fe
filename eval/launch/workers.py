"""Workers of a run: this process, processes of this machine, ranks of a launcher, or Ray actors."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from eval import plugins
from eval.api import Backend
from eval.errors import UsageError
from eval.launch import process as worker_process
from eval.launch.coordinator import LEASE_S, Coordinator, WorkerProcesses
from eval.launch.local import Processes, device_shares
from eval.launch.plan import RoundPlan
from eval.launch.queue import Here, Order, Queue, Report, Store
from eval.launch.ray import Actors
from eval.launch.store import LaunchedRank, open_store
from eval.launch.worker import Worker
from eval.run.folder import RunFolder

COMMAND = (sys.executable, "-P", "-c", "from eval.launch.process import main; main()")
CPU_PROCESSES = 8  # without a GPU, on any machine: the model is loaded by each
FITS = 0.85  # of a GPU's memory that weights may take
Show = Callable[[Mapping[int, Report]], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """How a run's work is spread.

    gpus      that are used, or without any so many processes; None for this process alone
    launcher  None, or "ray"
    address   of a Ray cluster that is there
    lease_s   seconds without an answer before a worker counts as lost
    """

    gpus: int | None = None
    launcher: str | None = None
    address: str | None = None
    lease_s: float = LEASE_S


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker must open.

    backend    its entry point's name
    arguments  of its opener, beside the checkpoint
    in_turn    see Worker
    """

    backend: str
    checkpoint: str
    arguments: Mapping[str, Any]
    in_turn: bool = False

    def open(self) -> Backend:
        """The back end, in this process."""
        return plugins.backend(self.backend)(self.checkpoint, **self.arguments)

    def settings(self, run: Path) -> dict[str, Any]:
        """What a worker's process receives; paths are the same wherever it runs."""
        paths = [name for name, value in self.arguments.items() if isinstance(value, Path)]
        arguments = {
            name: str(value.resolve()) if isinstance(value, Path) else value
            for name, value in self.arguments.items()
        }
        if arguments.get("device") == "cuda":
            arguments["device"] = "auto"  # a worker sees its own GPUs only, and may need several
        local = Path(self.checkpoint).expanduser()
        return {
            "run": str(run.resolve()),
            "backend": self.backend,
            "checkpoint": str(local.resolve()) if local.exists() else self.checkpoint,
            "arguments": arguments,
            "paths": paths,
            "in_turn": self.in_turn,
        }


class Workers(Protocol):
    """Workers of a run, and what each reported last."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    @property
    def reports(self) -> Mapping[int, Report]:
        """The last report of each."""
        ...

    def about(self) -> Mapping[str, Any]:
        """What a manifest says of the model, once one has loaded it."""
        ...

    def work(self, run: RunFolder, plan: RoundPlan, order: Order, show: Show) -> bool:
        """Answer a round; whether a worker was lost. `show` is called with the reports."""
        ...


class ThisProcess:
    """This process."""

    size = 1

    def __init__(self, backend: Backend, in_turn: bool) -> None:
        self.backend = backend
        self.in_turn = in_turn
        self.reports: dict[int, Report] = {}

    def about(self) -> Mapping[str, Any]:
        """What a manifest says of the model."""
        return self.backend.describe()

    def work(self, run: RunFolder, plan: RoundPlan, order: Order, show: Show) -> bool:
        """Answer a round."""

        def watch(report: Report) -> None:
            self.reports[0] = report
            show(self.reports)

        worker = Worker(0, Queue(Here()), run.journals(0), in_turn=self.in_turn, watch=watch)
        worker.drain(order, self.backend)
        return False


@contextmanager
def started_workers(
    job: Job,
    launch: Launch,
    run: Path,
    lock: int,
    meeting: tuple[LaunchedRank, Store] | None,
    say: Callable[[str], None],
) -> Iterator[Workers]:
    """Start the workers of a run; they are stopped at the end.

    lock     descriptor that keeps the run's folder: workers hold it too
    meeting  this process as one of many that a launcher has started, and where they meet

    Raises UsageError for what this machine or the launcher does not have.
    """
    if launch.gpus is None and launch.launcher is None and meeting is None:
        backend = job.open()
        device = str(job.arguments.get("device"))
        # a back end of no device needs no torch, which takes seconds to import
        if device in ("auto", "cuda") and plugins.device_kind(plugins.backend(job.backend), device):
            count = len(worker_process.devices())
            if count > 1:
                say(f"{count} GPUs are here; --gpus {count} uses them all")
        yield ThisProcess(backend, job.in_turn)
        return
    if meeting and launch.gpus not in (None, meeting[0].size):
        raise UsageError(
            f"--gpus {launch.gpus}: the launcher has started {meeting[0].size} processes, of which "
            "each is a worker; leave the option out"
        )
    store, processes = _processes(job, launch, run, lock, meeting, say)
    coordinator: Coordinator | None = None
    at_once = True
    try:
        coordinator = Coordinator(Queue(store), processes, lease_s=launch.lease_s)
        yield coordinator
        at_once = False
    finally:
        if coordinator:
            coordinator.stop(at_once=at_once)
        else:
            processes.stop(0.0)


def _processes(
    job: Job,
    launch: Launch,
    run: Path,
    lock: int,
    meeting: tuple[LaunchedRank, Store] | None,
    say: Callable[[str], None],
) -> tuple[Store, WorkerProcesses]:
    settings = job.settings(run)
    log = run / ".work" / "worker-{}.log"
    if launch.launcher == "ray":
        actors = Actors("eval.launch.process", "serve_as_worker", launch.gpus, launch.address)
        store, address = open_store(actors.host)
        actors.settings = {**settings, "store": address, "prefix": ""}
        return store, actors
    if meeting:
        rank, store = meeting
        others = range(1, rank.size)
        settings = {**settings, "store": rank.near, "prefix": rank.prefix}
        store.set(
            worker_process.SETTINGS, orjson.dumps({**settings, "lease_s": launch.lease_s}).decode()
        )
        places = [worker_process.share_of(rank)]
        return store, Processes(COMMAND, settings, places, log, kept=(lock,), others=others)
    assert launch.gpus is not None  # started() takes this process otherwise
    store, address = open_store()
    settings = {**settings, "store": address, "prefix": ""}
    return store, Processes(COMMAND, settings, _places(job, launch.gpus, say), log, kept=(lock,))


def _places(job: Job, gpus: int, say: Callable[[str], None]) -> list[dict[str, str]]:
    """What each worker sees of this machine: as many GPUs as a model needs."""
    device = str(job.arguments.get("device", "auto"))
    devices = [] if device == "cpu" else worker_process.devices()
    cores = len(os.sched_getaffinity(0))
    if device not in ("auto", "cuda", "cpu"):
        raise UsageError(f"--device {device}: with --gpus it is auto, cuda or cpu")
    lost = "" if device == "cpu" else _unseen(len(devices))
    if device == "cuda" and not devices:
        raise UsageError(f"--device cuda: this machine has no GPU{lost}")
    if not devices:
        most = max(CPU_PROCESSES, 2 * cores)
        if gpus > most:
            raise UsageError(
                f"--gpus {gpus}: no GPU is here, and at most {most} processes fit{lost}"
            )
        say(f"no GPU: {gpus} processes share {cores} cores{lost}")
        given = "OMP_NUM_THREADS" in os.environ
        return [{}] * gpus if given else device_shares(gpus, [], cores)
    if gpus > len(devices):
        raise UsageError(f"--gpus {gpus}: this machine has {len(devices)}{lost}")
    need = plugins.footprint(
        plugins.backend(job.backend),
        job.checkpoint,
        job.arguments.get("revision"),
        str(job.arguments.get("dtype", "auto")),
        weights=job.arguments.get("weights"),
    )
    return device_shares(model_replicas(gpus, need or 0, _gpu_bytes()), devices[:gpus], cores)


def _unseen(seen: int) -> str:
    """GPUs that CUDA_VISIBLE_DEVICES names and torch does not see, as a part of a sentence."""
    named = len(worker_process.named_devices())
    if named <= seen:
        return ""
    gpus = "1 GPU" if named == 1 else f"{named} GPUs"
    why = " (CPU build or driver)" if not seen else ""
    return f"; CUDA_VISIBLE_DEVICES names {gpus}, torch sees {seen or 'none'}{why}"


def model_replicas(gpus: int, need: int, each: int) -> int:
    """How many models of `need` bytes so many GPUs of `each` bytes hold: at least one."""
    per_model = max(-(-need // int(FITS * each)), 1)
    return max(gpus // per_model, 1)


def _gpu_bytes() -> int:
    import torch

    count = torch.cuda.device_count()
    return min(torch.cuda.get_device_properties(n).total_memory for n in range(count))
