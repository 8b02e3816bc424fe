"""One case, performed: its commands as processes with bounds, and what must hold for all of them.

A command is the console script's own function in a fork of this process, which has imported it
already, so that a case takes a fraction of the second that an interpreter takes to start. With
`real` it is the console script itself.
"""

import atexit
import ctypes
import fcntl
import fnmatch
import hashlib
import os
import resource
import signal
import stat
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fuzz.cases import Area, Box, Came, Case, Skip, Step
from fuzz.serving import Counter, Respond, serving

WALL_S = 90.0  # a command that takes longer hangs
CPU_S = 60
DATA_BYTES = 4 << 30  # of memory that a command may ask for
FILE_BYTES = 1 << 29
SHOWN_BYTES = 200_000  # of an output that is looked at
HASHED_BYTES = 1 << 22  # a larger file counts as unchanged by its size and time
PR_SET_PDEATHSIG = 1
LEFT_S = 5.0  # for processes that a command started to end after it
OK, WRONG, DEFECT, HANG, KILLED, SKIPPED = (
    "as expected",
    "wrong outcome",
    "exit 1",
    "hang",
    "killed",
    "skipped",
)
OTHERS_OWN = (  # what torch and the hub's libraries leave, whoever imports them
    "tmp/torchinductor_",
    "home/.cache",
)
NOT_OURS = ("Traceback (most recent call last)", "internal error", "Segmentation fault")
Entry = Callable[[], object]


@dataclass
class Result:
    """What a case came to; `outcome` is one of the words above.

    stdout  of a control's last command
    """

    id: str
    outcome: str = OK
    what: str = ""
    problem: str = ""
    exits: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    real: bool = False
    commands: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    stdout: str = ""


def environment(home: Path) -> dict[str, str]:
    """What a command's environment holds in every case."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "sk-none",
    }


def perform(
    area: Area, key: str, seed: int, folder: Path, ground: Path, entry: Entry, *, real: bool = False
) -> Result:
    """Make a case in a new folder and run its commands."""
    result = Result(f"{area.name}/{key}", real=real)
    folder.mkdir(parents=True)
    counter = Counter()
    with ExitStack() as servers:

        def serve(respond: Respond) -> str:
            return servers.enter_context(serving(respond, counter))

        def control(name: str) -> Path:
            return _control(area, name, seed, folder, ground, entry)

        box = Box(folder, ground, serve, control)
        try:
            case = area.make(key, seed, box)
        except Skip as reason:
            result.outcome, result.problem = SKIPPED, str(reason)
            return result
        result.what = case.what
        try:
            came = _run(case, box, result, entry, counter, real)
            result.stdout = came.stdout if key in area.controls else ""
        except Skip as reason:
            result.outcome, result.problem = SKIPPED, str(reason)
            return result
    return result


def _run(case: Case, box: Box, result: Result, entry: Entry, counter: Counter, real: bool) -> Came:
    """Run the commands in turn and put down what is wrong; what came of the last."""
    problems: list[tuple[str, str]] = []
    for number, step in enumerate(case.steps):
        if real and step.uid:
            raise Skip("another user may not read the interpreter")
        before = snapshot(box.root)
        came = run_command(step, box, entry, real=real)
        came = replace(came, asked=counter.value)
        result.exits.append(came.exit)
        result.cpu_s += came.cpu_s
        result.wall_s += came.wall_s
        result.peak_mb = max(result.peak_mb, came.peak_mb)
        result.commands.append(" ".join(step.argv))
        result.says.append(came.stderr.strip()[-600:] or came.stdout.strip()[-300:])
        for kind, problem in judge(step, came, before, snapshot(box.root)):
            problems.append((kind, f"command {number + 1}: {problem}"))
    if case.check and not problems and (fault := case.check()):
        problems.append((WRONG, fault))
    for kind in (DEFECT, HANG, KILLED, WRONG):
        if any(kind == found for found, _ in problems):
            result.outcome = kind
            result.problem = "; ".join(problem for _, problem in problems)
            break
    return came


def judge(
    step: Step, came: Came, before: dict[str, str], after: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """What is wrong with what came: (kind, problem)."""
    if came.timed_out:
        yield HANG, f"no end after {came.wall_s:.0f} s"
        return
    if came.signal:
        yield KILLED, f"ended by signal {came.signal} after {came.cpu_s:.0f} s of CPU"
        return
    if came.exit == 1:
        yield DEFECT, f"exit 1: {came.stderr.strip()[-400:]}"
    for text in NOT_OURS:
        if text in came.text and came.exit != 1:
            yield DEFECT, f"the output holds {text!r}"
    if came.exit and not came.text.strip():
        yield WRONG, f"exit {came.exit} without a word"
    if step.expect and all(wrong := [each.wrong(came) for each in step.expect]):
        said = came.stderr.strip()[-300:] or came.stdout.strip()[-200:]
        yield WRONG, f"expected {', or '.join(wrong)}; came exit {came.exit}: {said}"
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path) or _may_write(path, step):
            continue
        how = "left" if path not in before else "removed" if path not in after else "changed"
        yield WRONG, f"{path} was {how}"
    for path in after:
        name = path.rpartition("/")[2]
        if path not in before and name.startswith(".") and name.rpartition(".")[2].isdigit():
            yield WRONG, f"{path} was left: a temporary file"


def _may_write(path: str, step: Step) -> bool:
    if path.startswith(OTHERS_OWN):
        return True
    patterns = [*(f"here/{pattern}" for pattern in step.writes), *step.writes]
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def snapshot(root: Path) -> dict[str, str]:
    """Every file below a folder, and what it holds; of folders only that they exist."""
    found: dict[str, str] = {}
    for at, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(at, name)
            with suppress(OSError):  # a file that goes while we look
                found[path.relative_to(root).as_posix()] = _state(path)
    return found


def _state(path: Path) -> str:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        return f"link {path.readlink()}"
    if kind != stat.S_IFREG:
        return f"{kind:o}"
    if status.st_nlink > 1 or status.st_size > HASHED_BYTES:
        return f"file {status.st_size} {status.st_mtime_ns}"
    return f"file {hashlib.sha256(path.read_bytes()).hexdigest()}"


def run_command(step: Step, box: Box, entry: Entry, *, real: bool) -> Came:
    """Run a command in a process of its own group, until it ends or its time is up."""
    outputs = [box.root.parent / f"{box.root.name}.{name}" for name in ("stdout", "stderr")]
    env = environment(box.root / "home") | {"TMPDIR": str(box.root / "tmp")} | dict(step.env)
    if step.uid:
        _give_away(box.root, step.uid)
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            _prepare(step, box, env, outputs)
            if real:
                script = str(Path(sys.executable).with_name("qwen-vl-eval"))
                os.execve(script, [script, *step.argv], env)
            _call(step, entry)
        finally:
            os._exit(99)
    limit = step.wall_s or WALL_S
    code, usage, timed_out = _wait(pid, begun + limit)
    wall_s = time.monotonic() - begun
    _end_group(pid)
    texts = []
    for output in outputs:
        with output.open("rb") as file:
            texts.append(file.read(SHOWN_BYTES).decode("utf-8", "replace"))
        output.unlink()
    return Came(
        exit=os.WEXITSTATUS(code) if os.WIFEXITED(code) else -1,
        stdout=texts[0],
        stderr=texts[1],
        kept=box.root,
        signal=os.WTERMSIG(code) if os.WIFSIGNALED(code) and not timed_out else 0,
        timed_out=timed_out,
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=wall_s,
        peak_mb=usage.ru_maxrss / 1000,
    )


def _prepare(step: Step, box: Box, env: dict[str, str], outputs: list[Path]) -> None:
    """In the command's process: its bounds, its folder, its environment."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it does not outlive the campaign
    for number, (path, flags) in enumerate(
        [
            ("/dev/null", os.O_RDONLY),
            *((path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in outputs),
        ]
    ):
        descriptor = os.open(path, flags, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(box.here)
    os.umask(0o022)
    for bound, most in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_DATA, DATA_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(bound, (most, most))
    if step.uid:
        os.setgroups([])
        os.setgid(step.uid)
        os.setuid(step.uid)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    time.tzset()
    sys.path[:0] = [each for each in env.get("PYTHONPATH", "").split(":") if each]


def _call(step: Step, entry: Entry) -> None:
    """Call the console script's function as the interpreter would, and end as it would."""
    sys.argv = ["qwen-vl-eval", *step.argv]
    code: Any = 0
    try:
        entry()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


def _wait(pid: int, until: float) -> tuple[int, Any, bool]:
    """Status and use of a process, and whether its time was up."""
    pause = 0.002
    while True:
        found, code, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return code, usage, False
        if time.monotonic() > until:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, code, usage = os.wait4(pid, 0)
            return code, usage, True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _end_group(pid: int) -> None:
    """End what a command left running."""
    until = time.monotonic() + LEFT_S
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < until:
            os.killpg(pid, 0)
            time.sleep(0.02)
        os.killpg(pid, signal.SIGKILL)


def _give_away(root: Path, uid: int) -> None:
    """Make all of the case's files those of another user, but for what nobody may read."""
    if os.getuid() != 0:
        raise Skip("only root can act as another user")
    for path in (root, *root.rglob("*")):
        if path.lstat().st_nlink == 1 or path.is_dir():
            os.chown(path, uid, uid, follow_symlinks=False)


def _control(area: Area, name: str, seed: int, folder: Path, ground: Path, entry: Entry) -> Path:
    """What a control left; performed by whoever needs it first, while others wait."""
    place = ground / "controls" / area.name / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            beside = folder.with_name(f"{folder.name}.{name}")
            result = perform(area, name, seed, beside, ground, entry)
            if result.outcome != OK:
                raise RuntimeError(f"the control {name}: {result.problem}")
            (beside / "stdout").write_text(result.stdout)
            (beside / "root").write_text(str(beside))
            beside.rename(place)
    return place
