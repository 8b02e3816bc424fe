"""Data of benchmarks for tests: the records of golden/prompts as files, and real excerpts."""

import copy
import io
import json
import shutil
from pathlib import Path

import datasets
import pytest
from PIL import Image

from eval import Sample
from eval.data import unique

GOLDEN = Path(__file__).parent / "golden" / "prompts"
RECORDED = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted(GOLDEN.glob("*.json"))
}
SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
TEXT, NUMBER = datasets.Value("string"), datasets.Value("int64")
TEXTS = datasets.Sequence(TEXT)

real = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason=f"real excerpts of the benchmarks are not at {SAMPLES}"
)
datasets.disable_progress_bars()


def tasks_of(*modules):
    return {task.name: task for module in modules for task in module.TASKS}


def cases(names):
    """(task, number of a layout of files) for all that is recorded of the tasks."""
    return [(name, n) for name in names for n in range(len(RECORDED[name]["layouts"]))]


def write(root, files):
    """Write {path: content}: bytes as they are, a list as JSON lines where the path says so."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            rows = content if name.endswith(".jsonl") else [content]
            content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        path.write_bytes(content)


def place(root, source, path):
    """Put a real file where a task looks for it."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SAMPLES / source, target)


def read(task, root):
    return list(unique(task.layout(root).read(root), task.name))


def recorded(name, **changed):
    """The recorded samples, with other values in these of their fields."""
    rows = [{**row, **changed} for row in copy.deepcopy(RECORDED[name]["samples"])]
    return [Sample(**{**row, "options": tuple(row["options"])}) for row in rows]


def picture(color, size=(3, 2), kind="PNG"):
    """The bytes of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format=kind)
    return file.getvalue()


def tables(path, rows, **features):
    """Write rows as parquet with these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path)
