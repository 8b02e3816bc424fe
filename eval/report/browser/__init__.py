"""Runs as a folder of pages in which every sample can be looked at, without a server or a network.

run folders, with the benchmarks' own files -> read_rows -> write_task -> a folder
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from eval.api import Corpus, Task
from eval.errors import RunError, UsageError
from eval.report.browser.pages import LONGEST, script, write_task
from eval.report.browser.pictures import Pictures
from eval.report.browser.rows import read_rows
from eval.report.compare import clean
from eval.report.gate import ASKED
from eval.run import RunFolder

ASSETS = Path(__file__).parent / "assets"
LINK, COPY = "link", "copy"
LISTING = "browser.json"  # names every file, so that nothing else is ever removed
MAKER = "qwen-vl-eval browse"
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
    place = out.resolve()
    _check_out(place, out)
    try:
        with _replacing(place) as beside:
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
    """
    entries = [folder.manifest["tasks"].get(task.name) for folder in folders]
    both = all(entries) and len(entries) > 1
    differ = [what for key, what in ASKED if both and len({repr(e.get(key)) for e in entries}) > 1]
    return {
        "graded": task.judged or any(isinstance(m, Corpus) for m in task.metrics.values()),
        "asked": [_asked(entry) if entry else "" for entry in entries],
        "differ": list(dict.fromkeys(differ)),
    }


def _asked(entry: Mapping[str, Any]) -> str:
    shots = entry.get("few_shot") or 0
    told = clean(str(entry.get("protocol", "")))
    return f"{told}, {shots}-shot" if shots else told


def _relative(data: Path, place: Path) -> str:
    """The data root as the page's address finds it."""
    return quote(Path(os.path.relpath(data.resolve(), place)).as_posix()) + "/"


def _check_out(place: Path, out: Path) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise UsageError(f"--out {out}: a folder expected, a file found")
    there = {file.relative_to(place).as_posix() for file in place.rglob("*") if not file.is_dir()}
    if foreign := sorted(there - _listed(place)):
        raise UsageError(
            f"--out {out}: an empty folder or an earlier one of 'browse' expected, "
            f"{foreign[0]!r:.80} found, which is not of one. Choose another folder"
        )


def _listed(place: Path) -> set[str]:
    """The files that an earlier call wrote there; none if it is none of ours."""
    try:
        listing = orjson.loads((place / LISTING).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return set()
    if not isinstance(listing, dict) or listing.get("maker") != MAKER:
        return set()
    files = listing.get("files")
    return {LISTING, *map(str, files)} if isinstance(files, list) else set()


@contextlib.contextmanager
def _replacing(place: Path) -> Iterator[Path]:
    """A folder beside the place, which takes it when all is written."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside, earlier = (place.with_name(f".{place.name}.{os.getpid()}.{n}") for n in ("new", "old"))
    try:
        beside.mkdir()
        yield beside
        files = sorted(f.relative_to(beside).as_posix() for f in beside.rglob("*") if f.is_file())
        content = {"maker": MAKER, "files": files}
        (beside / LISTING).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
        if place.exists():
            place.rename(earlier)
        try:
            beside.rename(place)
        except OSError:
            with contextlib.suppress(OSError):
                earlier.rename(place)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)
