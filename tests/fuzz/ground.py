"""The clean inputs that cases are made from, made once by the commands themselves.

data/    the demo's drawn data
run/     a small finished run of a benchmark of each kind, judged and scored; other/ the same again
four/    OK-VQA, four questions on four pictures of data/
tiny/    small random checkpoints: single, sharded, bin
mirrors/ parquet of some benchmarks
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from fuzz.cases import Box, step
from fuzz.perform import Entry, environment, run_command
from fuzz.serving import replies, serving

TASKS = (  # one of each kind of metric and of decoding, without captions, which need Java
    "okvqa_val",
    "refcoco_val",
    "scienceqa_test_img",
    "gqa_testdev",
    "chartqa_test_human",
    "touchstone_en",
)
LIMIT = 4
TESTS = Path(__file__).parents[1]
CONFIG = TESTS.parent / "configs" / "demo.toml"
LIGHT = (  # what commands import, imported once before all forks
    "eval.cli.main", "pandas", "datasets", "matplotlib.pyplot", "openai", "scipy.stats",
    "encodings.unicode_escape", "encodings.idna", "encodings.utf_8_sig", "encodings.utf_16",
    "encodings.cp437", "encodings.ascii", "encodings.latin_1",
)  # fmt: skip
HEAVY = ("torch", "transformers", "eval.engine.shared", "eval.engine.plain")


def load(*, torch: bool, home: Path) -> Entry:
    """The console script's function, with what it imports imported.

    torch  whether a model will be loaded
    """
    import gc
    from importlib.metadata import entry_points

    os.environ.update(environment(home))
    (found,) = entry_points(group="console_scripts", name="qwen-vl-eval")
    loaded: Entry = found.load()
    for name in (*LIGHT, *(HEAVY if torch else ())):
        import_module(name)
    dict(import_module("eval.cli.main").Commands())
    if torch:
        import_module("torch").set_num_threads(1)
    gc.collect()
    gc.freeze()  # so that forks share these pages
    return loaded


def make_ground(folder: Path) -> Path:
    """The folder, with all clean inputs in it; made anew where the code is another.

    In a process of its own, since it loads models, which most cases need not. Raises SystemExit
    where another campaign uses the folder and its code is another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = os.open(folder.with_name("lock"), os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(used, fcntl.LOCK_SH)  # until this process ends
    done, digest = folder / "complete", code_digest()
    if done.exists() and done.read_text() == digest:
        return folder
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"{folder.parent}: another campaign is at work; choose --work") from None
    shutil.rmtree(folder)
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        try:
            _make(folder)
            done.write_text(digest)
        except SystemExit as end:
            print(end, file=sys.stderr)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    fcntl.flock(used, fcntl.LOCK_SH)
    if not done.exists():
        raise SystemExit(f"{folder}: the clean inputs could not be made")
    return folder


def _make(folder: Path) -> None:
    data, run = folder / "data", folder / "run"
    entry = load(torch=True, home=folder / "home")
    with _commands(folder, entry) as command:
        command("card", CONFIG, "--data", data, "--dry-run")
        common = ("--data", data, "--allow-partial", "--device", "cpu", "--model", "demo")
        command("run", *TASKS, *common, "--limit", LIMIT, "--out", run)
        command("run", "docvqa_test", *common, "--out", run)  # its server takes it whole
        command("submit", "docvqa_test", run)
        command("submit", "docvqa_test", run, "--scored", "65.1", "--on", "2026-01-31")
        with serving(replies(lambda request: "8 7")) as url:
            options = ("--allow-partial", "--no-anchors", "--base-url", url, "--judge", "rules")
            command("judge", run, *options)
    shutil.copytree(run, folder / "other")
    _four(folder)
    _tiny(folder / "tiny")
    import_module("fuzz.parquet").make_mirrors(folder / "mirrors")


@contextmanager
def _commands(folder: Path, entry: Entry) -> Iterator[Any]:
    """A function that runs a command; it ends the program where that fails."""
    box = Box(folder / "making", folder)

    def command(*arguments: object) -> None:
        came = run_command(step(arguments), box, entry, real=False)
        if came.exit:
            words = " ".join(map(str, arguments))
            raise SystemExit(f"{words}: ended with {came.exit}:\n{came.text[-2000:]}")

    yield command
    shutil.rmtree(box.root)


def _tiny(folder: Path) -> None:
    """The same random weights in a file, in shards, and as torch saves them."""
    import torch
    from safetensors.torch import load_file
    from small import make_checkpoint

    make_checkpoint(folder / "single", shards=1)
    make_checkpoint(folder / "sharded", shards=3)
    tensors = {}
    for file in sorted((folder / "sharded").glob("*.safetensors")):
        tensors |= load_file(file)
    (folder / "bin").mkdir()
    torch.save(tensors, folder / "bin" / "pytorch_model.bin")
    for name in ("config.json", "qwen.tiktoken"):
        shutil.copyfile(folder / "single" / name, folder / "bin" / name)


def _four(folder: Path) -> None:
    """The demo's OK-VQA, cut to a question on each of four pictures."""
    source, place = folder / "data" / "okvqa", folder / "four" / "okvqa"
    place.mkdir(parents=True)
    name = "OpenEnded_mscoco_val2014_questions.json"
    told = json.loads((source / name).read_text("utf-8"))
    kept: dict[int, dict[str, Any]] = {}
    for row in told["questions"]:
        kept.setdefault(row["image_id"], row)
    told["questions"] = list(kept.values())[:4]
    ids = {row["question_id"] for row in told["questions"]}
    (place / name).write_text(json.dumps(told), "utf-8")
    name = "mscoco_val2014_annotations.json"
    told_too = json.loads((source / name).read_text("utf-8"))
    answers = [row for row in told_too["annotations"] if row["question_id"] in ids]
    (place / name).write_text(json.dumps(told_too | {"annotations": answers}), "utf-8")
    for row in told["questions"]:
        picture = f"coco/val2014/COCO_val2014_{row['image_id']:012d}.jpg"
        (folder / "four" / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "data" / picture, folder / "four" / picture)


def code_digest(*more: str) -> str:
    """Of the commands' code, and of other folders': what other code made does not count."""
    root = TESTS.parent
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in ("eval", "benchmarks", "touchstone", *more):
        for path in sorted((root / name).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
