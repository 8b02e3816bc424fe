"""Workers as actors of a Ray cluster, which may grow, shrink and lose nodes.

An actor that dies is replaced; a replacement waits until the cluster has room for it. Machines must
share the file system of the run, the data and the checkpoint.
"""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from eval.errors import UsageError


class Actors:
    """Workers that are actors.

    module    of the function that an actor runs, with its settings
    function  its name; imported by the actor, after the driver's working folder is off its path
    settings  of all workers; each is told its number beside
    size      how many; None for as many as the cluster has GPUs, or else cores
    address   of an existing cluster; None starts one on this machine
    gpus      that each takes, of a cluster that has some
    """

    def __init__(
        self,
        module: str,
        function: str,
        size: int | None,
        address: str | None,
        gpus: int = 1,
    ) -> None:
        ours = signal.getsignal(signal.SIGTERM)
        try:
            import ray
        except ImportError:
            raise UsageError(
                "--launcher ray: Ray is missing: pip install 'qwen-vl-eval[ray]'"
            ) from None
        self.ray: Any = ray  # its types say little
        self.module, self.function = module, function
        self.settings: Mapping[str, Any] = {}
        try:
            self.ray.init(
                address=address,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"--ray-address {address}: no cluster there: {error}") from None
        signal.signal(signal.SIGTERM, ours)  # Ray has put its own there, which ends with code 15
        resources = self.ray.cluster_resources()
        self.gpus = gpus if resources.get("GPU") else 0
        room = resources["GPU"] // gpus if self.gpus else resources.get("CPU", 1)
        self.size = size or max(int(room), 1)
        self.next = 0
        self.actors: dict[int, tuple[Any, Any]] = {}  # actor and what it will have returned

    @property
    def host(self) -> str:
        """This machine's address, as actors reach it."""
        return str(self.ray.util.get_node_ip_address())

    def start(self) -> list[int]:
        """Start all; their numbers."""
        return [self._start() for _ in range(self.size)]

    def ended(self) -> dict[int, str]:
        """Workers that have ended since the last call, and how."""
        by_result = {result: number for number, (_, result) in self.actors.items()}
        done, _ = self.ray.wait(list(by_result), num_returns=len(by_result), timeout=0)
        ended: dict[int, str] = {}
        for result in done:
            try:
                self.ray.get(result)
                ended[by_result[result]] = "it ended by itself"
            except self.ray.exceptions.RayError as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                ended[by_result[result]] = f"its actor died: {lines[-1].strip()}"
        return ended

    def replace(self, number: int) -> int | None:
        """Make sure that a worker has ended and start another in its place."""
        actor, _ = self.actors.pop(number)
        self.ray.kill(actor)
        return self._start()

    def stop(self, patience_s: float) -> None:
        """End all, and a cluster that was started here."""
        until = monotonic() + patience_s
        results = [result for _, result in self.actors.values()]
        if results and patience_s:
            self.ray.wait(results, num_returns=len(results), timeout=until - monotonic())
        for actor, _ in self.actors.values():
            self.ray.kill(actor)
        self.actors.clear()
        self.ray.shutdown()

    def _start(self) -> int:
        module, function, added = self.module, self.function, _added_paths()
        number, self.next = self.next, self.next + 1

        class Actor:
            def serve(self, settings: dict[str, Any]) -> None:
                import importlib
                import sys

                sys.path[:] = [path for path in sys.path if path not in added]
                getattr(importlib.import_module(module), function)(settings)

        remote = self.ray.remote(num_cpus=1, num_gpus=self.gpus, max_restarts=0)(Actor)
        actor = remote.remote()
        result = actor.serve.remote({**self.settings, "number": number})
        self.actors[number] = (actor, result)
        return number


def _added_paths() -> list[str]:
    """What Ray puts on an actor's path beyond ours: a file there could hide one of our packages."""
    return [path for path in (str(Path.cwd()), "") if path not in sys.path]
