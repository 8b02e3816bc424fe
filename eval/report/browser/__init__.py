"""Runs as a folder of pages in which every sample can be looked at, without a server or a network.

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
from eval.report.browser.pages import LONGEST, script, write_task
from eval.report.browser.pictures import Pictures
from eval.report.browser.rows import read_rows
from eval.report.comparison import clean
from eval.report.folder import PagesFolder
from eval.report.gate import ASKED
from eval.run.folder import RunFolder

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

    The same runs give the same bytes. Pages that are there already are replaced as a whole.

    images   LINK: pictures stay where they are, and are found relative to `out`; COPY: those that
             are used lie in it too (as hard links where the disk has them), and it can be moved
    missing  is told the path of each picture that is not there

    Raises UsageError where `out` holds anything else, RunError where nothing can be written, and
    what read_rows raises.
    """
    place = FOLDER.check(out)
    try:
        with FOLDER.replacing(place) as beside:
            found = Pictures(data, beside / PICTURES if images == COPY else None, missing)
            told = []
            for task in tasks:
                rows = read_rows(task, data, folders)
                entry = write_task(beside / "data" / task.name, task.name, rows, found.turned)
                told.append(entry | _about(task, folders))
            head = {
                "runs": [clean(str(folder.manifest.get("name", ""))) for folder in folders],
                "pictures": f"{PICTURES}/" if images == COPY else _relative(data, place),
                "longest": LONGEST,
                "tasks": told,
            }
            (beside / "data").mkdir(exist_ok=True)
            (beside / "data" / "tasks.js").write_bytes(script("tasks", head))
            for file in sorted(ASSETS.iterdir()):
                shutil.copyfile(file, beside / file.name)
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return out / "index.html"


def _about(task: Task, folders: Sequence[RunFolder]) -> dict[str, Any]:
    """What else the page says of a task.

    graded  a value of 1 is not the best there is
    asked   of each run: how, or "" where it was not
    differ  what two runs were not asked alike in
    unverified  of each run: why its values cannot be compared with its summary, "" where they agree
    """
    entries = [folder.manifest["tasks"].get(task.name) for folder in folders]
    both = all(entries) and len(entries) > 1
    differ = [what for key, what in ASKED if both and len({repr(e.get(key)) for e in entries}) > 1]
    return {
        "graded": task.judged or any(isinstance(m, Corpus) for m in task.metrics.values()),
        "asked": [_asked(entry) if entry else "" for entry in entries],
        "differ": list(dict.fromkeys(differ)),
        "unverified": [
            folder.scores(task.name).verify() if entry else ""
            for folder, entry in zip(folders, entries, strict=True)
        ],
    }


def _asked(entry: Mapping[str, Any]) -> str:
    shots = entry.get("few_shot") or 0
    told = clean(str(entry.get("protocol", "")))
    return f"{told}, {shots}-shot" if shots else told


def _relative(data: Path, place: Path) -> str:
    """The data root as the page's address finds it."""
    return quote(Path(os.path.relpath(data.resolve(), place)).as_posix()) + "/"
