"""Runs as a folder of pages that show every sample, without a server or a network.

run folders, with the benchmarks' own files -> read_rows -> write_task -> a folder
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eval.data.declare import Corpus, Task
from eval.errors import RunError
from eval.report.browser.pages import LONGEST, sample_data_script, write_task
from eval.report.browser.pictures import PagePictures
from eval.report.browser.rows import read_rows
from eval.report.folder import PagesFolder
from eval.report.pairing import SPEC
from eval.run.folder import RunFolder
from eval.storage.text import clean

ASSETS = Path(__file__).parent / "assets"
LINK, COPY = "link", "copy"
FOLDER = PagesFolder("qwen-vl-eval browse", "browser.json", "an earlier one of 'browse'")
PICTURES = "pictures"  # folder of copies, in that of the pages

__all__ = ["COPY", "LINK", "build_browser"]


def build_browser(
    folders: Sequence[RunFolder],
    tasks: Sequence[Task],
    data: Path,
    out: Path,
    images: str = LINK,
    missing: Callable[[str], object] = lambda path: None,
) -> Path:
    """Write the pages of one run, or of two side by side; the path of the page to open.

    The same runs give the same bytes. Earlier pages are replaced as a whole.

    images   LINK: pages refer to pictures relative to `out`; COPY: the pictures are copied there
             (as hard links where the disk has them), so that the folder can be moved
    missing  called with the path of each missing picture

    Raises UsageError where `out` holds anything else, RunError where nothing can be written, and
    what read_rows raises.
    """
    place = FOLDER.check(out)
    try:
        with FOLDER.replacing(place) as beside:
            pictures = PagePictures(data, beside / PICTURES if images == COPY else None, missing)
            entries = []
            for task in tasks:
                rows = read_rows(task, data, folders)
                entry = write_task(beside / "data" / task.name, task.name, rows, pictures.turned)
                entries.append(entry | _about(task, folders))
            head = {
                "runs": [clean(str(folder.manifest.get("name", ""))) for folder in folders],
                "pictures": f"{PICTURES}/" if images == COPY else _relative(data, place),
                "longest": LONGEST,
                "tasks": entries,
            }
            (beside / "data").mkdir(exist_ok=True)
            (beside / "data" / "tasks.js").write_bytes(sample_data_script("tasks", head))
            for file in sorted(ASSETS.iterdir()):
                shutil.copyfile(file, beside / file.name)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return out / "index.html"


def _about(task: Task, folders: Sequence[RunFolder]) -> dict[str, Any]:
    """What else tasks.js says of a task.

    graded      a value of 1 is not the best
    protocols   of each run: its protocol, or "" without the task
    differ      what differs between the requests of two runs
    unverified  of each run: why its values cannot be compared with its summary, "" where they agree
    """
    entries = [folder.manifest["tasks"].get(task.name) for folder in folders]
    both = all(entries) and len(entries) > 1
    differ = [what for key, what in SPEC if both and len({repr(e.get(key)) for e in entries}) > 1]
    return {
        "graded": task.judged or any(isinstance(m, Corpus) for m in task.metrics.values()),
        "protocols": [_protocol(entry) if entry else "" for entry in entries],
        "differ": list(dict.fromkeys(differ)),
        "unverified": [
            folder.scores(task.name).verify() if entry else ""
            for folder, entry in zip(folders, entries, strict=True)
        ],
    }


def _protocol(entry: Mapping[str, Any]) -> str:
    shots = entry.get("few_shot") or 0
    protocol = clean(str(entry.get("protocol", "")))
    return f"{protocol}, {shots}-shot" if shots else protocol


def _relative(data: Path, place: Path) -> str:
    """The data root relative to the page, as a URL."""
    return quote(Path(os.path.relpath(data.resolve(), place)).as_posix()) + "/"
