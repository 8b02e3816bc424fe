"""Gets benchmarks' data: fetches what can be fetched and names what a person must bring.

A failed step does not stop the others, and received bytes are kept: the same command resumes.
Archives stay in the data root's folder `archives` until they are unpacked.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from eval.data.archives import unpack
from eval.data.declare import Archive, Build, ByHand, Download, Layout, Mirror, Pictures, Step, Task
from eval.data.fetch import PICTURES, Fetcher, ServerUnreachable
from eval.data.hub import fetch_mirror, mirror_is_there
from eval.data.paths import safe_path
from eval.data.pictures import in_threads, quiet_pillow
from eval.data.pins import Archived, Pinned, Pins, Unpacked
from eval.data.verify import SHOWN, verify
from eval.errors import DataError
from eval.storage.digests import sha256_file
from eval.storage.lock import locked
from eval.storage.picture import FILE_BYTES
from eval.storage.reading import reason
from eval.storage.tree import files_below, is_file
from eval.storage.writing import write_file

ARCHIVES = "archives"  # folder below the data root
ARCHIVE_BYTES = 100_000_000_000  # limit of one
GUARD = ".qwen-vl-eval.prepare"  # locked while a process prepares
THREADS = 8  # that fetch pictures; they mostly wait for a server
GIVE_UP = 32  # pictures in a row whose server cannot be reached
PINNED = 500  # pictures fetched between two writes of the pins


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A step that is still needed, and the tasks that need it."""

    step: Step
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """Where progress is reported.

    say       a line
    progress  (name, amount done, total or None, whether the unit is bytes)
    """

    say: Callable[[str], None]
    progress: Callable[[str, int, int | None, bool], None]


SILENT = Watch(lambda _line: None, lambda _name, _done, _total, _bytes: None)


def plan_steps(
    tasks: Iterable[Task], root: Path, *, mirror: bool = False, few_shot: bool = False
) -> list[PendingStep]:
    """The steps that tasks still need, in order.

    Includes what only scoring needs and, without `mirror`, what the training split needs.

    mirror    use a task's mirrors, if it has any, instead of its other steps
    few_shot  include the steps for few-shot examples, such as their pictures
    """
    pins = Pins.read(root)
    pending: dict[Step, list[Task]] = {}
    for task in tasks:
        complete = is_complete(task, root)
        trained = not task.train or any(layout.complete(root) for layout in task.train)
        shown = task.train_steps if few_shot else ()
        for step in task.later_steps:
            if not _is_there(step, (task,), root, pins):
                pending.setdefault(step, []).append(task)
        if complete and (trained or mirror) and not shown:
            continue
        for step in (*steps_of(task, mirror=mirror), *shown):
            told_by_task = isinstance(step, ByHand | Build | Mirror | Pictures)
            if not (told_by_task and complete and step not in shown) and not _is_there(
                step, (task,), root, pins
            ):
                pending.setdefault(step, []).append(task)
    return [PendingStep(step, tuple(needing)) for step, needing in pending.items()]


def steps_of(task: Task, *, mirror: bool = False) -> tuple[Step, ...]:
    """The mirrors if asked for and there are any, else all other steps."""
    mirrors = tuple(step for step in task.steps if isinstance(step, Mirror))
    if mirror and mirrors:
        return mirrors
    return tuple(step for step in task.steps if not isinstance(step, Mirror))


def is_complete(task: Task, root: Path) -> bool:
    """Whether the task's data are complete and the official split's; no picture is opened."""
    try:
        return not verify(task, root).issues
    except DataError:
        return False


def prepare(
    tasks: Sequence[Task],
    root: Path,
    *,
    mirror: bool = False,
    few_shot: bool = False,
    keep_archives: bool = False,
    watch: Watch = SILENT,
    fetcher: Fetcher | None = None,
) -> list[str]:
    """Take the steps that are still needed. Returns a line for each failed step.

    Files that a person must bring are no failure: `plan` names them. Waits for another process that
    prepares the same data root. Raises DataError for a malformed lock file or a root that cannot be
    written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{root}: cannot be made: {reason(error)}") from None
    failed: list[str] = []

    def waiting() -> None:
        watch.say(f"another process prepares {root}; waiting for it")

    with locked(root / GUARD, error=DataError, wait=True, waiting=waiting):
        work = _Work(root, Pins.read(root), fetcher or Fetcher(threads=THREADS), watch)
        needed = plan_steps(tasks, root, mirror=mirror, few_shot=few_shot)
        for pending in needed:
            try:
                work.take(pending, needed, keep_archives)
            except (DataError, OSError) as error:  # a full disk, a folder that may not be written
                failed.append(str(error))
                watch.say(f"failed: {error}")
    return failed


@dataclass(slots=True)
class _Work:
    """What all steps share."""

    root: Path
    pins: Pins
    fetcher: Fetcher
    watch: Watch

    def take(
        self, pending: PendingStep, needed: Sequence[PendingStep], keep_archives: bool
    ) -> None:
        """Take one step, unless earlier steps made it needless."""
        step = pending.step
        if _is_there(step, pending.tasks, self.root, self.pins):
            return
        if isinstance(step, Download):
            self._download(step)
        elif isinstance(step, Archive):
            others = [each.step for each in needed]
            parts = [each for each in others if isinstance(each, Archive) and each.url == step.url]
            self._unpack(step.url, parts, keep_archives)
        elif isinstance(step, Pictures):
            self._fetch_pictures(step, pending.tasks)
        elif isinstance(step, Mirror):
            self._mirror(step, pending.tasks)
        elif isinstance(step, Build):
            self.watch.say(f"making {step.what}")
            step.make(self.root)

    def _download(self, step: Download) -> None:
        path = safe_path(step.path, step.url)
        name = PurePosixPath(path).name
        self.watch.say(f"fetching {path}")

        def received(done: int, total: int | None) -> None:
            self.watch.progress(name, done, total, True)

        with quiet_pillow():
            digest = self.fetcher.fetch(
                step.url, self.root / path, sha256=self.pins.digest(path), progress=received
            )
        self.pins.pin({path: Pinned(digest, (self.root / path).stat().st_size, step.url)})

    def _unpack(self, url: str, parts: Sequence[Archive], keep_archives: bool) -> None:
        """Fetch an archive and unpack the members that its steps need."""
        name = PurePosixPath(urlsplit(url).path).name
        archive = self.root / ARCHIVES / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name}"
        pinned = self.pins.archives.get(url)
        known = pinned.sha256 if pinned else None

        def received(done: int, total: int | None) -> None:
            self.watch.progress(name, done, total, True)

        if is_file(archive):
            digest = sha256_file(archive, ARCHIVE_BYTES)
            if known not in (None, digest):
                archive.unlink()
        if not is_file(archive):
            self.watch.say(f"fetching {name}")
            digest = self.fetcher.fetch(
                url, archive, sha256=known, limit=ARCHIVE_BYTES, progress=received
            )

        def unpacked(done: int, total: int | None) -> None:
            self.watch.progress(f"unpacking {name}", done, total, False)

        size = archive.stat().st_size
        for part in parts:
            folder = self.root / part.into
            self.watch.say(f"unpacking {name} into {folder}")
            try:
                kept = unpack(archive, folder, part.keep, progress=unpacked)
            except DataError:
                if not known:  # perhaps damaged on the server: the next try fetches it again
                    archive.unlink()
                raise
            files = [path for path in kept if PurePosixPath(path).suffix.lower() not in PICTURES]
            self.pins.pin({f"{part.into}/{path}": _pinned(folder / path, url) for path in files})
            record = Unpacked(part.into, part.keep, len(kept))
            self.pins.pin_archive(url, Archived(digest, size, (record,)))
        if not keep_archives:
            archive.unlink()

    def _fetch_pictures(self, step: Pictures, tasks: Sequence[Task]) -> None:
        missing = list(_missing_pictures(step, self.root))
        name = f"pictures of {', '.join(task.name for task in tasks)}"
        self.watch.say(f"fetching {len(missing):,} {name}")
        failures: list[str] = []
        fetched: dict[str, Pinned] = {}
        unreachable = done = 0
        try:
            with quiet_pillow():
                for (url, path), outcome in in_threads(self._fetch_picture, missing, THREADS):
                    done += 1
                    self.watch.progress(name, done, len(missing), False)
                    if isinstance(outcome, Pinned):
                        fetched[path] = outcome
                        unreachable = 0
                    else:
                        failures.append(str(outcome))
                        unreachable = (
                            unreachable + 1 if isinstance(outcome, ServerUnreachable) else 0
                        )
                    if unreachable >= GIVE_UP:
                        rest = len(missing) - done
                        failures.append(f"{urlsplit(url).netloc} given up, {rest:,} not asked for")
                        break
                    if len(fetched) >= PINNED:
                        self.pins.pin(fetched)
                        fetched.clear()
        finally:
            self.pins.pin(fetched)
        if failures:
            count = len(missing) - done + len(failures)
            shown = "; ".join([*failures[:SHOWN], *failures[SHOWN:][-1:]])
            raise DataError(f"{name}: {count:,} could not be fetched: {shown}")

    def _fetch_picture(self, given: tuple[str, str]) -> Pinned | DataError | OSError:
        url, path = given
        place = self.root / path
        try:
            digest = self.fetcher.fetch(url, place, sha256=self.pins.digest(path), limit=FILE_BYTES)
            return Pinned(digest, place.stat().st_size, url)
        except (DataError, OSError) as error:
            return error

    def _mirror(self, step: Mirror, tasks: Sequence[Task]) -> None:
        def received(file: str, done: int, total: int) -> None:
            self.watch.progress(file, done, total, False)

        by_hand = step.into not in self.pins.mirrors and all(
            any(layout.complete(self.root) for layout in _mirrors(task.layouts, step))
            for task in tasks
        )
        if not by_hand and not mirror_is_there(step, self.root, self.pins):
            self.watch.say(f"fetching {step.into} from the model hub")
            fetch_mirror(step, self.root, self.pins, received)
        for layout in _mirrors(
            [each for task in tasks for each in (*task.layouts, *task.train)], step
        ):
            if layout.pictures and layout.complete(self.root):
                self._write_pictures(layout.pictures(self.root), f"pictures in {step.into}")

    def _write_pictures(self, pictures: Iterator[tuple[str, bytes]], name: str) -> None:
        self.watch.say(f"writing {name}")
        for number, (path, picture) in enumerate(pictures, 1):
            place = self.root / safe_path(path, name)
            if not is_file(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                write_file(place, picture, error=DataError, durable=False)
            self.watch.progress(name, number, None, False)


def _is_there(step: Step, tasks: Sequence[Task], root: Path, pins: Pins) -> bool:
    """Whether a step's files lie below `root`; False for a step that does not name its files."""
    if isinstance(step, Download):
        return is_file(root / step.path)
    if isinstance(step, Archive):
        return _was_unpacked(step, root, pins) or _has_members(step, tasks, root)
    if isinstance(step, Pictures):
        try:
            return not any(_missing_pictures(step, root))
        except DataError:  # the file that names them is missing
            return False
    return False


def _was_unpacked(step: Archive, root: Path, pins: Pins) -> bool:
    """Whether it was unpacked here and all members are still there."""
    archive = pins.archives.get(step.url)
    for one in archive.unpacked if archive else ():
        if (one.into, one.keep) == (step.into, step.keep):
            return one.members <= sum(1 for _ in _files_like(root / step.into, step.keep))
    return False


def _files_like(folder: Path, keep: str) -> Iterator[str]:
    """Paths of files, below a folder, that the pattern matches as a whole."""
    pattern = re.compile(keep, re.ASCII)
    return (path for path in files_below(folder) if pattern.fullmatch(path))


def _has_members(step: Archive, tasks: Sequence[Task], root: Path) -> bool:
    """Whether all members that the tasks read, at least one, are there without a pinned archive.

    Pictures are known only if the files that name them are there.
    """
    pattern = re.compile(step.keep, re.ASCII)
    folder = f"{step.into}/"
    try:
        members = {
            path
            for task in tasks
            for path in _paths_read(task, root)
            if path.startswith(folder) and pattern.fullmatch(path.removeprefix(folder))
        }
    except DataError:
        return False
    return bool(members) and all(is_file(root / path) for path in members)


def _paths_read(task: Task, root: Path) -> Iterator[str]:
    for layouts in (task.layouts, task.train):
        for layout in layouts:
            yield from (source.path for source in layout.sources)
        ready = [layout for layout in layouts if layout.complete(root)]
        for sample in ready[0].read(root) if ready else ():
            yield from sample.images


def _missing_pictures(step: Pictures, root: Path) -> Iterator[tuple[str, str]]:
    """(URL, path) of each missing picture. Raises DataError if they are not known yet."""
    seen: set[str] = set()
    for url, named in step.urls(root):
        path = safe_path(named, url)
        if path not in seen and not is_file(root / path):
            yield url, path
        seen.add(path)


def _mirrors(layouts: Iterable[Layout], step: Mirror) -> list[Layout]:
    """The layouts that read a mirror's files."""
    return [
        layout
        for layout in layouts
        if any(source.path.startswith(f"{step.into}/") for source in layout.sources)
    ]


def _pinned(file: Path, url: str) -> Pinned:
    return Pinned(sha256_file(file), file.stat().st_size, url)
