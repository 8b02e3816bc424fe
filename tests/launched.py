"""Runs as processes of their own: started, watched, hurt, and cleared away to the last one."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from PIL import Image
from small import make_data

from eval.run.journal import HEADER

TASK = "okvqa_val"
PYTHON = (sys.executable, "-m", "eval.cli")
SCRIPT = Path(sys.executable).with_name("qwen-vl-eval")  # as a user starts it
QUESTIONS = "okvqa/OpenEnded_mscoco_val2014_questions.json"
PICTURE = "coco/val2014/COCO_val2014_{:012d}.jpg"
RESULTS = ("predictions.jsonl", "scores.jsonl", "summary.json")
MARK = "QWEN_VL_EVAL_LAUNCHED"  # in the environment of what a test starts, and of what that starts
TORCHRUN_TRACEBACK = re.compile(r'Traceback \(most.*\n  File ".*/bin/(torchrun|accelerate)", ')
PATIENCE_S = 120.0
LAUNCHERS = ("SLURM_", "RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "TORCHELASTIC_", "RAY_", "CUDA_")


def offer_fragile(folder):
    """tests/fragile.py as an installed package leaves it; the folder, for PYTHONPATH."""
    info = folder / "fragile-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[eval.backends]\nfragile = fragile:open_backend\n")
    shutil.copy(Path(__file__).with_name("fragile.py"), folder)
    return folder


def make_groups(folder, groups, each, *, poison=()):
    """OK-VQA's layout with so many pictures and so many questions on each, none on two in a row."""
    make_data(folder, groups * each)
    for number in range(groups):
        colour = (number * 7 % 256, number * 31 % 256, 40)
        Image.new("RGB", (60, 40), colour).save(folder / PICTURE.format(number))
    rows = json.loads((folder / QUESTIONS).read_text())["questions"]
    answers = folder / "okvqa" / "mscoco_val2014_annotations.json"
    annotations = json.loads(answers.read_text())["annotations"]
    for number, (row, annotation) in enumerate(zip(rows, annotations, strict=True)):
        row["image_id"] = annotation["image_id"] = number % groups
        if number in poison:
            row["question"] = f"Is number {number} poison?"
    (folder / QUESTIONS).write_text(json.dumps({"questions": rows}))
    answers.write_text(json.dumps({"annotations": annotations}))
    return folder


def shadowing(folder):
    """A folder with a user's own eval.py and benchmarks/, as training code has them."""
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / "__init__.py").write_text("raise ImportError('a user's benchmarks')\n")
    (folder / "eval.py").write_text("raise ImportError('a user's eval')\n")
    return folder


def asking(model, data, out, *more):
    """Arguments of a run of OK-VQA."""
    options = ("--model", model, "--data", data, "--out", out, "--allow-partial")
    return [str(part) for part in ("run", "okvqa", *options, *more)]


def asking_fragile(how, data, out, *more):
    """The same with the back end of tests/fragile.py."""
    return asking(how, data, out, "--backend", "fragile", *more)


class Launched:
    """A command in a process of its own, and all processes that come of it.

    site    put on PYTHONPATH
    more    environment
    limit   bytes that each file may have: a disk that is full, to those who write
    folder  in which it starts
    """

    def __init__(self, *command, site=None, more=None, limit=None, folder=None):
        self.mark = uuid.uuid4().hex
        environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
        if site:
            environment["PYTHONPATH"] = str(site)
        self.output = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self.meeting = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.output,
            cwd=folder,
            env={
                **environment,
                MARK: self.mark,
                "FRAGILE_MEETING": self.meeting.name,
                **(more or {}),
            },
            preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit,) * 2)),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while pids := self.processes():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
        self.process.wait()
        self.output.close()
        self.meeting.cleanup()

    @property
    def said(self):
        """What it has printed, but for its table."""
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0).decode()

    def processes(self):
        """Those that run now: number and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                        line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(entry.name)] = line.decode()
        return found

    def named(self, *parts):
        """Those of its processes that have one of these in their command line."""
        return {p: line for p, line in self.processes().items() if any(x in line for x in parts)}

    def writer(self, file):
        """The process that has a file open, once there is one."""

        def found():
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    for link in Path(f"/proc/{pid}/fd").iterdir():
                        with contextlib.suppress(OSError):
                            if link.readlink() == file.resolve():
                                return pid
            return None

        return self.until(found, f"{file.name} is written to")

    def until(self, condition, what, seconds=PATIENCE_S):
        """Wait until it is so; what it then is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.01)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.processes()}\n{self.said}")

    def until_answered(self, run, count, journals="*"):
        """Wait until so many lines are in a run's journals; fail where the process has ended."""

        def answered():
            assert self.process.poll() is None, self.said
            return answers(run, journals) >= count

        self.until(answered, f"{count} answers")

    def until_one_has_answered(self, run, count):
        """Wait until a worker has answered so many; its number and process."""

        def busy():
            assert self.process.poll() is None, self.said
            for file in journals(run):
                if file.read_bytes().count(b"\n") >= count:
                    return file
            return None

        file = self.until(busy, f"{count} answers of one worker")
        return int(file.stem.partition("-")[2]), self.writer(file)

    def ended(self, seconds=PATIENCE_S):
        """Wait for its end; the exit code and what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"runs after {seconds} s:\n{self.said}") from None
        assert "Traceback" not in TORCHRUN_TRACEBACK.sub("", self.said)
        return self.process.returncode, self.said

    def left(self, seconds=10.0):
        """Wait for the end of everything that it has started."""
        self.until(
            lambda: self.process.poll() is not None and not self.processes(), "gone", seconds
        )


def run(*arguments, **how):
    """A run to its end: exit code and what it said; nothing is left of it."""
    with Launched(*PYTHON, *arguments, **how) as launched:
        done = launched.ended()
        launched.left()
        return done


def journals(run):
    return sorted((run / TASK).glob("journal-*.jsonl"))


def answers(run, journal="*"):
    """Whole lines in the journals of a run, but for those that name the model."""
    found = [file.read_bytes() for file in (run / TASK).glob(f"journal-{journal}.jsonl")]
    return sum(content.count(b"\n") - content.count(HEADER) for content in found)


def asked_twice(run):
    """Samples that stand in the journals more than once."""
    rows = [json.loads(li) for f in journals(run) for li in f.read_text().splitlines()]
    ids = [row["id"] for row in rows if "journal" not in row]
    return sorted(name for name in set(ids) if ids.count(name) > 1)


def results(run):
    """The bytes that must be the same however a run went."""
    return {name: (run / TASK / name).read_bytes() for name in RESULTS}


def failed(run):
    """How many samples the summary tells of that have no answer."""
    return json.loads((run / TASK / "summary.json").read_text())["failed"]


def workers(run):
    """How many the manifest tells."""
    return json.loads((run / "manifest.json").read_text())["workers"]
