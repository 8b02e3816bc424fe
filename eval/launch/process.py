"""A worker's process: settings in, answers into its journals.

It opens the back end that it is told and serves the queue. How it was started does not matter: by
a coordinator as a process or an actor, or by a launcher as one of many ranks.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from itertools import takewhile
from pathlib import Path
from typing import Any

from eval import plugins
from eval.errors import EvalError
from eval.launch.local import device_shares
from eval.launch.queue import Queue, Store
from eval.launch.store import LaunchedRank, join_store
from eval.launch.worker import Worker
from eval.run.answers import Journals

ORPHANED = 5  # exit code of a worker whose coordinator has ended
LAUNCHED: list[LaunchedRank] = []  # this process among those started for one command
MEETING: list[tuple[LaunchedRank, Store]] = []  # where it meets the others, once it does
PATIENCE_S = 10.0  # for rank 0 to answer before a rank says that it waits
SETTINGS = "settings"  # key under which a rank finds what it is to do


def serve_as_worker(settings: dict[str, Any], queue: Queue | None = None) -> None:
    """Answer orders until there are no more.

    settings  number, store and prefix, run, backend, checkpoint, arguments of the back end (those
              in `paths` are paths), in_turn, and lease_s for a worker that nobody else can end
    """
    queue = queue or Queue(join_store(settings["store"], prefix=settings["prefix"]))
    journals = Journals(Path(settings["run"]), str(settings["number"]))
    worker = Worker(settings["number"], queue, journals, in_turn=settings["in_turn"])
    if settings.get("lease_s"):
        _give_up_when_stuck(worker, settings["lease_s"])
    try:
        backend = plugins.backend(settings["backend"])(
            settings["checkpoint"],
            **{
                name: Path(value) if name in settings["paths"] else value
                for name, value in settings["arguments"].items()
            },
        )
        worker.serve(backend)
    except EvalError as error:
        worker.broken(str(error))
        raise


def serve_rank(rank: LaunchedRank) -> int:
    """Be a launcher's worker: wait for what rank 0 has to do; the exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # one line of ours is enough
    import torch
    from torch.distributed import DistError

    share = share_of(rank)
    os.environ.update(share)
    if threads := share.get("OMP_NUM_THREADS"):  # read when torch was imported, to count GPUs
        torch.set_num_threads(int(threads))
    waits = threading.Timer(PATIENCE_S, _say_that_it_waits, (rank,))
    waits.daemon = True
    waits.start()
    store = rank.meet()
    waits.cancel()
    try:
        while not store.check([SETTINGS]):
            time.sleep(0.2)
        settings = json.loads(store.get(SETTINGS))
        store.add("seen", 1)
        if settings is not None:
            serve_as_worker({**settings, "number": rank.number}, Queue(store))
    except EvalError:
        return 2  # rank 0 was told, and says it
    except DistError:
        print(f"worker {rank.number}: rank 0 does not answer any more", file=sys.stderr)
        return ORPHANED
    return 0


def _say_that_it_waits(rank: LaunchedRank) -> None:
    print(
        f"rank {rank.number} of {rank.size} waits for rank 0 at {rank.store}, as the launcher's "
        "variables have it",
        file=sys.stderr,
        flush=True,
    )


def launch_meeting() -> tuple[LaunchedRank, Store] | None:
    """This process as the first of many that a launcher has started, and where they meet.

    None where it is alone, or the command takes no part in a launch.
    """
    if not LAUNCHED:
        return None
    if not MEETING:
        MEETING.append((LAUNCHED[0], LAUNCHED[0].meet()))
    return MEETING[0]


def dismiss_ranks(patience_s: float = 10.0) -> None:
    """Let the other ranks end, where they were not told what to do."""
    from torch.distributed import DistError

    with contextlib.suppress(DistError, EvalError):
        met = launch_meeting()
        if met is None:
            return
        rank, store = met
        if store.check([SETTINGS]):
            return
        store.set(SETTINGS, "null")
        until = time.monotonic() + patience_s
        while store.add("seen", 0) < rank.size - 1 and time.monotonic() < until:
            time.sleep(0.1)


def devices() -> list[str]:
    """GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them: indices, or GPU- and MIG- names."""
    import torch

    count = torch.cuda.device_count()
    return (named_devices() or [str(number) for number in range(count)])[:count]


def named_devices() -> list[str]:
    """GPUs that CUDA_VISIBLE_DEVICES names; as CUDA has it, none from the first bad index on."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return list(takewhile(lambda name: name and not name.startswith("-"), names))


def share_of(rank: LaunchedRank) -> dict[str, str]:
    """Environment of a rank, as far as its launcher leaves that to us."""
    seen = devices()
    if seen and len(seen) < rank.local_size:
        return {}  # it was given GPUs of its own
    share = device_shares(rank.local_size, seen, len(os.sched_getaffinity(0)))[rank.local]
    return {name: value for name, value in share.items() if seen or name not in os.environ}


def _give_up_when_stuck(worker: Worker, lease_s: float) -> None:
    """End this process where it makes no progress: nobody else can, and others have its work.

    With code 0, since a launcher takes any other for the end of all its processes.
    """

    def watch() -> None:
        while True:
            time.sleep(min(lease_s / 4, 10.0))
            if worker.report.state == "working" and time.monotonic() - worker.moved > lease_s:
                print(
                    f"worker {worker.number} made no progress for {lease_s:.0f} s and gives up; "
                    "others take what it held",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _end_with_the_input() -> None:
    """End this process when whoever started it ends, however that happens."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, daemon=True).start()


def _first_line() -> bytes:
    """Byte by byte: what is read ahead would not be seen by who watches the input's end."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte
    return line


def main() -> None:
    """A worker that a coordinator has started: see eval.launch.local."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all; the coordinator decides
    settings = json.loads(_first_line())
    _end_with_the_input()
    try:
        serve_as_worker(settings)
    except EvalError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is on disk; to take torch down in order takes a second
