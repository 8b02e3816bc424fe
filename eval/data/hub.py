"""Fetches files of a dataset on the model hub, all at one commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from eval.data.declare import Mirror
from eval.data.paths import safe_path
from eval.data.pins import NAME, Mirrored, Pinned, Pins
from eval.errors import DataError
from eval.storage.digests import sha256_file
from eval.storage.tree import is_file


def fetch_mirror(
    mirror: Mirror, root: Path, pins: Pins, progress: Callable[[str, int, int], None]
) -> None:
    """Put the files of a mirror below `root`; pin the commit, then the files.

    progress  called with (file, number of files done, number of files)

    Takes the first repository that has such files, or the pinned one. An interrupted download
    resumes. Raises DataError for what the hub cannot provide.
    """
    pinned = pins.mirrors.get(mirror.into)
    dataset, digests = _find(mirror, pinned)
    pins.pin_mirror(mirror.into, dataset)  # before the first file: a second try takes this commit
    fetched: dict[str, Pinned] = {}
    for number, (file, stated) in enumerate(digests.items()):
        progress(file, number, len(digests))
        path = f"{mirror.into}/{file}"
        digest = _fetch(dataset, file, root / mirror.into)
        for expected, source in ((stated, "the hub tells"), (pins.digest(path), f"{NAME} has")):
            if expected not in (None, digest):
                (root / path).unlink()
                raise DataError(
                    f"{dataset.repo}: {file}: sha256 {expected} {source}, {digest} came; it was "
                    "not kept"
                )
        origin = f"https://huggingface.co/datasets/{dataset.repo}/resolve/{dataset.revision}/{file}"
        fetched[path] = Pinned(digest, (root / path).stat().st_size, origin)
        progress(file, number + 1, len(digests))
    pins.pin(fetched)  # all at once: pinned files prove that the mirror is whole


def mirror_is_there(mirror: Mirror, root: Path, pins: Pins) -> bool:
    """Whether all pinned files of a mirror lie below `root`; False if none is pinned."""
    folder = f"{mirror.into}/"
    paths = [
        path
        for path in pins.files
        if path.startswith(folder) and _matches(path.removeprefix(folder), mirror.files)
    ]
    return bool(paths) and all(is_file(root / path) for path in paths)


CONVERTED = "refs/convert/parquet"  # the hub's own parquet of other formats


def _find(mirror: Mirror, pinned: Mirrored | None) -> tuple[Mirrored, dict[str, str | None]]:
    """The pinned dataset, or the first with such files at its newest commit; path -> digest.

    A repository without such files may have parquet that the hub made of it. A digest is None where
    the hub gives none.
    """
    from huggingface_hub import HfApi

    refused = []
    places = [(repo, revision) for repo in mirror.repos for revision in (None, CONVERTED)]
    for repo, revision in [(pinned.repo, pinned.revision)] if pinned else places:
        try:
            with _reaching(repo):
                info = HfApi().dataset_info(repo, revision=revision, files_metadata=True)
        except DataError as error:
            refused.append(str(error))
            continue
        files = {
            safe_path(each.rfilename, repo): each.lfs.sha256 if each.lfs else None
            for each in info.siblings or ()
            if _matches(each.rfilename, mirror.files)
        }
        if files and info.sha:
            return Mirrored(repo, info.sha), dict(sorted(files.items()))
        refused.append(f"{repo}: files like {mirror.files} expected, none found")
    raise DataError("; ".join(refused))


def _fetch(mirror: Mirrored, file: str, folder: Path) -> str:
    """Download one file; its SHA-256."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented all the same
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    drawn = not are_progress_bars_disabled()
    disable_progress_bars()  # our caller shows its own
    try:
        with _reaching(mirror.repo):
            path = hf_hub_download(
                mirror.repo, file, repo_type="dataset", revision=mirror.revision, local_dir=folder
            )
    finally:
        if drawn:
            enable_progress_bars()
    return sha256_file(Path(path))


def _matches(file: str, pattern: str) -> bool:
    """Whether a path matches the pattern; a leading `**/` also matches no folder at all.

    Hidden files never match, as in eval.storage.tree.
    """
    hidden = any(part.startswith(".") for part in file.split("/"))
    return not hidden and (fnmatchcase(file, pattern) or fnmatchcase(f"/{file}", pattern))


@contextmanager
def _reaching(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (OSError, ValueError, HTTPError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DataError(f"{repo}: the model hub cannot provide it ({reason})") from error
