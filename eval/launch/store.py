"""Where workers of several processes meet: torch's key-value server, or a launcher's own.

No process group is made and nothing is collective: a worker that is lost keeps nobody waiting.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from eval.errors import RunError, UsageError
from eval.launch.queue import Store

JOIN_S = 300.0  # for the server to be there
PORT = 20_000  # under Slurm: this and the job's number modulo itself, unless MASTER_PORT says more
MOST_PORTS = 1 << 16
HERE = "127.0.0.1"
TORCHRUN: tuple[str, ...] = (  # what torchrun and accelerate launch tell each process
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
SLURM: tuple[str, ...] = (  # what srun tells each process
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
)
ALONE = {"WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "1"}  # in the environment: no launch


def open_store(host: str = HERE) -> tuple[Store, str]:
    """A server that listens on one address of this machine, and `host:port`."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it

    listening = socket.create_server((host, 0), backlog=4096)
    address = f"{host}:{listening.getsockname()[1]}"
    store = TCPStore(
        host,
        listening.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    return store, address


def join_store(address: str, *, prefix: str = "", serve: bool = False) -> Store:
    """The server at `host:port`, which with `serve` is opened. Raises RunError where there is none.

    prefix  of all keys
    """
    from torch.distributed import (  # type: ignore[attr-defined]  # torch exports them
        DistError,
        PrefixStore,
        TCPStore,
    )

    host, _, port = address.rpartition(":")
    try:
        store = TCPStore(
            HERE if serve else host,  # it listens everywhere; its own name may not resolve yet
            int(port),
            is_master=serve,
            wait_for_workers=False,
            timeout=timedelta(seconds=JOIN_S),
        )
        return PrefixStore(prefix, store) if prefix else store
    except (DistError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(
            f"{host}:{port}: rank 0 does not answer there: {reason}. Where no launcher has started "
            f"this process: unset {TORCHRUN[0]} {TORCHRUN[1]} {SLURM[0]}"
        ) from None


@dataclass(frozen=True, slots=True)
class LaunchedRank:
    """One of the processes that a launcher has started with the same command.

    number      from 0, of `size`
    local       from 0, of `local_size` on this machine
    store       where they meet, `host:port`; `ours` where it is for number 0 to open it
    generation  how often the launcher has started them again
    """

    number: int
    size: int
    local: int
    local_size: int
    store: str
    ours: bool
    generation: int = 0

    @property
    def prefix(self) -> str:
        """Of all keys: a launcher's own server outlives its processes."""
        return f"qwen-vl-eval/{self.generation}"

    @property
    def near(self) -> str:
        """The store's address for processes on the machine of number 0."""
        return f"{HERE}:{self.store.rpartition(':')[2]}" if self.ours else self.store

    def meet(self) -> Store:
        """The store that all of them share. Raises RunError where it cannot be reached."""
        serve = self.ours and not self.number
        return join_store(self.store, prefix=self.prefix, serve=serve)


def rank_of(environ: Mapping[str, str]) -> LaunchedRank | None:
    """This process's rank, as torchrun, accelerate launch or srun tell it; None where it is alone.

    A world of one process is no launch, whatever else is set; nor is a batch script under Slurm. An
    empty variable counts as unset. Raises UsageError, naming the variables to unset, where they
    are incomplete or contradict themselves.
    """
    environ = {name: value.strip() for name, value in environ.items() if value.strip()}
    if "RANK" in environ and "WORLD_SIZE" in environ:
        make, names = _of_torchrun, TORCHRUN
        alone = environ["WORLD_SIZE"] == "1"
    else:
        make, names = _of_slurm, SLURM
        alone = "SLURM_PROCID" not in environ or environ.get("SLURM_STEP_NUM_TASKS", "1") == "1"
    if alone:
        return None
    try:
        rank = make(environ)
        if not 0 <= rank.number < rank.size or not 0 <= rank.local < rank.local_size:
            raise ValueError(f"rank {rank.number} of {rank.size} does not exist")
        if not 0 < int(rank.store.rpartition(":")[2]) < MOST_PORTS:
            raise ValueError(f"there is no port {rank.store.rpartition(':')[2]}")
    except (KeyError, ValueError, IndexError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        given = " ".join(name for name in names if name in environ)
        raise UsageError(
            f"the environment says that a launcher has started this process, but {what:.200}. "
            f"Start it with torchrun or srun, or alone after: unset {given}"
        ) from None
    return rank


def _of_torchrun(environ: Mapping[str, str]) -> LaunchedRank:
    """One process a machine unless the launcher says more, as Kubeflow starts one in each pod."""
    local, of = environ.get("LOCAL_RANK", "0"), environ.get("LOCAL_WORLD_SIZE", "1")
    for name, one in (("LOCAL_RANK", of == "1"), ("LOCAL_WORLD_SIZE", local == "0")):
        if name not in environ and not one:
            raise KeyError(name)
    return LaunchedRank(
        int(environ["RANK"]),
        int(environ["WORLD_SIZE"]),
        int(local),
        int(of),
        f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}",
        environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        int(environ.get("TORCHELASTIC_RESTART_COUNT", 0)),
    )


def _of_slurm(environ: Mapping[str, str]) -> LaunchedRank:
    size = int(environ["SLURM_STEP_NUM_TASKS"])
    job = int(environ["SLURM_JOB_ID"]) + int(environ.get("SLURM_STEP_ID", 0))
    host = environ.get("MASTER_ADDR") or first_host(environ["SLURM_STEP_NODELIST"])
    return LaunchedRank(
        int(environ["SLURM_PROCID"]),
        size,
        int(environ["SLURM_LOCALID"]),
        _tasks_of(
            environ.get("SLURM_STEP_TASKS_PER_NODE", str(size)), int(environ["SLURM_NODEID"])
        ),
        f"{host}:{environ.get('MASTER_PORT') or PORT + job % PORT}",
        True,
        int(environ.get("SLURM_RESTART_COUNT", 0)),
    )


def first_host(nodes: str) -> str:
    """The first of Slurm's compressed list: a003 of `a[003-007,9],b1`."""
    match = re.match(r"([^\[,]+)(?:\[(\w+))?", nodes)
    if not match:
        raise ValueError(f"SLURM_STEP_NODELIST={nodes!r}")
    return match[1] + (match[2] or "")


def _tasks_of(counts: str, node: int) -> int:
    """Tasks of a node, of Slurm's compressed list: `8(x2),4` is 8, 8, 4."""
    before = 0
    for match in re.finditer(r"(\d+)(?:\(x(\d+)\))?", counts):
        before += int(match[2] or 1)
        if 0 <= node < before:
            return int(match[1])
    raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={counts!r} names no node {node}")
