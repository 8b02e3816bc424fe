"""A campaign of damaged and hostile inputs against the commands, each in a process with bounds.

    python tests/fuzz/campaign.py --work FOLDER            all cases; goes on where it was stopped
    python tests/fuzz/campaign.py --case run_folders/123   one case again, whose folder is kept

Every case is made from the seed and its name alone. Finished cases stand in FOLDER/journal.jsonl, a
line each, and are not run again. What may come of a case is stated where it is made; for all of
them: no exit code 1, no traceback, no signal, an end within a minute and a half and 4 GiB, a
message where the exit code is not 0, no file changed or left but those that the command writes.

Exit status 1 where a case came out otherwise.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zlib import crc32

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from fuzz.cases import Area
from fuzz.ground import code_digest, load, make_ground
from fuzz.perform import (
    DEFECT,
    HANG,
    KILLED,
    OK,
    SKIPPED,
    WALL_S,
    WRONG,
    Entry,
    Result,
    perform,
)

ROOT = Path(__file__).parents[2]
WORK = ROOT / "runs" / "fuzz"
REAL_EVERY = 40  # one case in so many is also run as the console script itself
CASE_S = 900  # for all commands of a case
WAITING = 12  # cases at a time that mostly wait
SHOWN = 20
OUTCOMES = (OK, WRONG, DEFECT, HANG, KILLED, SKIPPED)


@dataclass(frozen=True)
class Campaign:
    """Which cases of a seed are run, where, and by what function.

    entry  the console script's function; by default the installed one
    """

    areas: Sequence[Area]
    seed: int
    work: Path
    jobs: int = 2
    share: float = 1.0  # of each area's cases
    real_every: int = REAL_EVERY
    entry: Entry | None = None
    code: str = field(default_factory=lambda: code_digest("tests/fuzz"))

    @property
    def journal(self) -> Path:
        return self.work / "journal.jsonl"

    def ids(self, area: Area) -> list[str]:
        """The keys of an area's cases."""
        count = max(1, round(area.count * self.share)) if area.count else 0
        return list(map(str, range(count)))

    def finished(self) -> dict[str, Result]:
        """Results in the journal, by id. A torn last line is none."""
        found: dict[str, Result] = {}
        if self.journal.exists():
            for line in self.journal.read_text("utf-8").splitlines():
                try:
                    told = json.loads(line)
                except ValueError:
                    continue
                if (told.pop("seed"), told.pop("code", "")) == (self.seed, self.code):
                    found[told["id"]] = Result(**told)
        return found

    def run(self) -> dict[str, Result]:
        """Run what is not finished; all results."""
        self.work.mkdir(parents=True, exist_ok=True)
        results = self.finished()
        if self.journal.exists() and not self.journal.read_bytes().endswith(b"\n"):
            with self.journal.open("a") as file:  # a torn line ends here
                file.write("\n")
        for area in sorted(self.areas, key=lambda area: area.torch):
            keys = self.ids(area)
            open_now = [key for key in keys if f"{area.name}/{key}" not in results]
            entry = self._load(area) if open_now else None
            for result in self._area(area, open_now, entry):
                self._write(result)
                results[result.id] = result
            wanted = [results[f"{area.name}/{key}"] for key in keys]
            _say(f"{area.name}: {_counts(wanted)}")
        return {key: found for key, found in results.items() if self._chosen(key)}

    def _chosen(self, key: str) -> bool:
        name, _, number = key.partition("/")
        return any(area.name == name and number in self.ids(area) for area in self.areas)

    def _load(self, area: Area) -> Entry:
        """Import what the area's commands import, once, before all forks."""
        return self.entry or load(torch=area.torch, home=self.work / "ground" / "home")

    def _area(self, area: Area, keys: Sequence[str], entry: Entry | None) -> Iterator[Result]:
        """Run cases, some at a time, each in a process of its own; results as they come."""
        waiting = iter(keys)
        most = WAITING if area.waits else self.jobs
        running: dict[int, tuple[str, Path]] = {}
        try:
            while True:
                while len(running) < most and (key := next(waiting, None)) is not None:
                    place = self.work / "cases" / f"{area.name}-{key}"
                    assert entry
                    running[self._start(area, key, place, entry)] = key, place
                if not running:
                    return
                pid, _ = os.wait()
                if pid in running:
                    yield self._collect(area, *running.pop(pid))
        finally:
            for pid in running:
                os.killpg(pid, signal.SIGKILL)

    def _start(self, area: Area, key: str, place: Path, entry: Entry) -> int:
        for left in place.parent.glob(f"{place.name}*"):
            _remove(left)
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            signal.alarm(CASE_S)
            ground = self.work / "ground"
            result = perform(area, key, self.seed, place, ground, entry)
            if self._real(area, key, result):
                again = place.with_name(f"{place.name}.real")
                other = perform(area, key, self.seed, again, ground, entry, real=True)
                _agree(result, other)
            place.with_name(f"{place.name}.json").write_text(json.dumps(asdict(result)))
        except BaseException as error:
            place.with_name(f"{place.name}.error").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)

    def _real(self, area: Area, key: str, result: Result) -> bool:
        drawn = crc32(f"{self.seed}/{area.name}/{key}".encode())
        return self.real_every > 0 and result.outcome == OK and drawn % self.real_every == 0

    def _collect(self, area: Area, key: str, place: Path) -> Result:
        told = place.with_name(f"{place.name}.json")
        if told.exists():
            result = Result(**json.loads(told.read_text()))
        else:
            error = place.with_name(f"{place.name}.error")
            reason = error.read_text() if error.exists() else "its process is gone"
            result = Result(f"{area.name}/{key}", WRONG, problem=f"the case broke: {reason}")
        if result.outcome not in (OK, SKIPPED):
            _say(f"{result.outcome}: {result.id}: {result.what}: {result.problem}")
        for left in place.parent.glob(f"{place.name}*"):
            if left.name == place.name or left.name.startswith(f"{place.name}."):
                _remove(left)
        return result

    def _write(self, result: Result) -> None:
        line = json.dumps({"seed": self.seed, "code": self.code, **asdict(result)})
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _agree(result: Result, other: Result) -> None:
    """The console script itself must do what its function did."""
    if other.outcome == SKIPPED:
        return
    result.real = True
    if (other.outcome, other.exits) != (result.outcome, result.exits):
        result.outcome = other.outcome if other.outcome != OK else WRONG
        result.problem = (
            f"exits {result.exits} in a fork, {other.exits} as a process: {other.problem}"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _counts(results: Iterable[Result]) -> str:
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{counts[name]:,} {name}" for name in OUTCOMES if counts[name])


def _say(text: str) -> None:
    print(text, flush=True)


def table(campaign: Campaign, results: dict[str, Result]) -> str:
    """The figures, as Markdown."""
    areas: dict[str, list[Result]] = defaultdict(list)
    for key, result in results.items():
        areas[key.partition("/")[0]].append(result)
    lines = ["| area | inputs | as expected | wrong outcome | exit 1 | hang | killed | skipped |"]
    lines += ["| --- |" + " ---: |" * 7]
    for name, found in [*areas.items(), ("all", list(results.values()))]:
        counts = Counter(result.outcome for result in found)
        figures = " | ".join(f"{counts[outcome]:,}" for outcome in OUTCOMES)
        lines.append(f"| {name} | {len(found):,} | {figures} |")
    everything = list(results.values())
    exits = Counter(code for result in everything for code in result.exits)
    slowest = max(everything, key=lambda result: result.cpu_s)
    largest = max(everything, key=lambda result: result.peak_mb)
    real = [result for result in everything if result.real]
    lines += [
        "",
        "| | |",
        "| --- | ---: |",
        f"| commands run | {sum(exits.values()):,} |",
        *(f"| of them exit {code} | {exits[code]:,} |" for code in sorted(exits)),
        f"| cases run as the console script itself too | {len(real):,} |",
        f"| CPU seconds in all | {sum(result.cpu_s for result in everything):,.0f} |",
        f"| CPU seconds of the slowest case, {slowest.id} | {slowest.cpu_s:.1f} |",
        f"| most memory, MB, {largest.id} | {largest.peak_mb:,.0f} |",
    ]
    return "\n".join(lines)


HEADER = """# Damaged and hostile inputs

Every case makes an input from the seed and its own number, states what may come of it from what was
done to it, and runs commands on it, each in a process with bounds on time and memory. For all of
them: no exit code 1, no traceback, no signal, an end within {wall:.0f} seconds, a message where the
exit code is not 0, no file changed or left but those that the command writes. `make fuzz` does it
again; `tests/fuzz/` holds the cases.

    {command}

{cores} cores, {machine}, Python {python}.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    from fuzz.areas import AREAS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder of inputs and journal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="areas, with commas")
    parser.add_argument("--inputs", type=int, help="cases in all; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--real-every",
        type=int,
        default=REAL_EVERY,
        metavar="N",
        help="one case in N is also run as the console script itself; 0: none",
    )
    parser.add_argument("--case", help="run one case and keep its folder, such as pictures/17")
    parser.add_argument("--real", action="store_true", help="with --case: the console script")
    parser.add_argument("--write", type=Path, help="write the figures there")
    chosen = parser.parse_args(arguments)
    names = (chosen.only or chosen.case or "").split("/")[0].split(",")
    areas = [area for area in AREAS if not names[0] or area.name in names]
    if not areas:
        parser.error(f"no such area; there are {', '.join(area.name for area in AREAS)}")
    total = sum(area.count for area in areas)
    share = min(1.0, chosen.inputs / total) if chosen.inputs else 1.0
    campaign = Campaign(
        areas, chosen.seed, chosen.work.resolve(), chosen.jobs, share, chosen.real_every
    )
    make_ground(campaign.work / "ground")
    if chosen.case:
        return one_case(campaign, chosen.case, chosen.real)
    begun = time.monotonic()
    results = campaign.run()
    bad = [result for result in results.values() if result.outcome not in (OK, SKIPPED)]
    for result in bad[:SHOWN]:
        _say(f"\n{result.outcome}: {result.id}\n  {result.what}\n  {result.commands}")
        _say(f"  {result.problem}")
    text = table(campaign, results)
    _say(f"\n{text}\n\n{time.monotonic() - begun:.0f} s")
    if chosen.write:
        command = f"python tests/fuzz/campaign.py --seed {chosen.seed}"
        header = HEADER.format(
            wall=WALL_S,
            command=command,
            cores=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
        )
        chosen.write.write_text(f"{header}{text}\n", "utf-8")
    return 1 if bad else 0


def one_case(campaign: Campaign, case: str, real: bool) -> int:
    """Run one case and print all of it; its folder is kept."""
    (area,) = campaign.areas
    _, _, key = case.partition("/")
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{area.name}-{key}-")) / "case"
    entry = campaign._load(area)
    ground = campaign.work / "ground"
    result = perform(area, key, campaign.seed, folder, ground, entry, real=real)
    for name, value in asdict(result).items():
        _say(f"{name}: {value}")
    _say(f"folder: {folder}")
    return 0 if result.outcome == OK else 1


if __name__ == "__main__":
    sys.exit(main())
