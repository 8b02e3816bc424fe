"""Workers as processes of this machine, each with its share of the GPUs or of the cores."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

TAIL = 300  # characters of a log that are told


class Processes:
    """Workers that are processes, started anew where one ends.

    command   starts a worker, which reads its settings from the first line of its input and ends
              where the input does: it never outlives this process
    settings  of all workers; each is told its number beside
    places    environment of each worker: the devices that it sees
    log       number -> file for what a worker prints
    kept      file descriptors that workers hold too: the run's lock
    others    numbers of workers that were started by somebody else, and are watched only
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, Any],
        places: Sequence[Mapping[str, str]],
        log: Path,
        *,
        kept: Sequence[int] = (),
        others: Sequence[int] = (),
    ) -> None:
        self.command = command
        self.settings = settings
        self.places = places
        self.log = log
        self.kept = kept
        self.others = others
        self.size = len(places) + len(others)
        self.next = self.size
        self.running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}  # place and process

    def start(self) -> list[int]:
        """Start all; their numbers."""
        free = [number for number in range(self.size) if number not in self.others]
        for place, number in enumerate(free):
            self._start(number, place)
        return list(range(self.size))

    def ended(self) -> dict[int, str]:
        """Workers that have ended since the last call, and how."""
        ended: dict[int, str] = {}
        for number, (_, process) in self.running.items():
            code = process.poll()
            if code is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                ended[number] = f"it ended with {how}{self._last_words(number)}"
        return ended

    def replace(self, number: int) -> int | None:
        """Make sure that a worker has ended and start another in its place."""
        if number not in self.running:
            return None
        place, process = self.running.pop(number)
        _kill(process)
        successor, self.next = self.next, self.next + 1
        self._start(successor, place)
        return successor

    def stop(self, patience_s: float) -> None:
        """End all: those that do not by themselves in time are killed."""
        until = monotonic() + patience_s
        for _, process in self.running.values():
            while process.poll() is None and monotonic() < until:
                sleep(0.02)
            _kill(process)
        self.running.clear()

    def _start(self, number: int, place: int) -> None:
        with self._log(number).open("wb") as log:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.places[place]},
                pass_fds=self.kept,
            )
        assert process.stdin is not None  # as asked for
        try:
            process.stdin.write(json.dumps({**self.settings, "number": number}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended already, which is found out soon
        self.running[number] = (place, process)

    def _log(self, number: int) -> Path:
        return self.log.with_name(self.log.name.format(number))

    def _last_words(self, number: int) -> str:
        """The last line of a worker's log."""
        lines = self._log(number).read_text(encoding="utf-8", errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" after: {words[:TAIL]} (see {self._log(number)})" if words else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)  # also ends one that was stopped
    process.wait()
    if process.stdin:
        process.stdin.close()


def device_shares(workers: int, devices: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Environment of each worker: its part of the GPUs, or of the cores where there are none.

    devices  as in CUDA_VISIBLE_DEVICES; a worker gets the same number of them as every other
    """
    if not devices:
        return [{"OMP_NUM_THREADS": str(max(cores // workers, 1))} for _ in range(workers)]
    each = len(devices) // workers
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(devices[n * each : (n + 1) * each])}
        for n in range(workers)
    ]
