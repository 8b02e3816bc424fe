"""Starts qwen-vl-eval, once it is certain that the packages which Python finds are its own.

The console script imports this file under a name that nobody else uses: the top-level names `eval`
and `benchmarks` are common, and the working folder, PYTHONPATH or another distribution may hold
files of that name. Only the standard library is imported before they are checked.
"""

import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "qwen-vl-eval"
PACKAGES = ("eval", "benchmarks", "touchstone")
AGAIN = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"


def main() -> None:
    """Console script."""
    here = Path(__file__).resolve().parent
    found = next(iter(Distribution.discover(name=DISTRIBUTION, path=[str(here)])), None)
    start(_root(found, here), found)


def start(root: Path, installed: Distribution | None = None) -> None:
    """Run the command line from the packages below `root`; end with 2 where others shadow them.

    installed  our distribution, if its own files are to be checked too
    """
    fault = next(_shadowing(root), None) or (next(_overwritten(installed), None))
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    from eval.cli import main

    main()


def _root(installed: Distribution | None, here: Path) -> Path:
    """The folder of our packages: that of this file, or of the sources in an editable install."""
    told = (installed and installed.read_text("direct_url.json")) or "{}"
    direct = json.loads(told)
    if not direct.get("dir_info", {}).get("editable"):
        return here
    return Path(unquote(urlsplit(direct["url"]).path))


def _shadowing(root: Path) -> Iterator[str]:
    """What is wrong with each package that Python would not import from below the root."""
    for name in PACKAGES:
        ours = root / name / "__init__.py"
        if not ours.is_file():
            yield f"{ours} is missing: {AGAIN}"
            continue
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin is not None and Path(spec.origin).exists():
            if not ours.samefile(spec.origin):
                yield _remedy(spec.origin, name, ours)
        elif spec is not None and spec.submodule_search_locations:  # a folder without __init__.py
            yield _remedy(next(iter(spec.submodule_search_locations), "?"), name, ours)
        else:
            yield f"Python does not find the package {name!r} of {DISTRIBUTION}, {ours}: {AGAIN}"


def _remedy(other: str, name: str, ours: Path) -> str:
    return (
        f"{other} hides the package {name!r} of {DISTRIBUTION}, which is {ours.parent}. Its folder "
        "comes first on Python's path: unset PYTHONPATH, or rename the file, or uninstall the "
        "package that it belongs to, or start from another folder"
    )


def _overwritten(installed: Distribution | None) -> Iterator[str]:
    """What is wrong with each of our packages that another distribution has written over."""
    for file in (installed and installed.files) or ():
        if str(file) not in {f"{name}/__init__.py" for name in PACKAGES} or not file.hash:
            continue
        place = Path(str(file.locate()))
        digest = urlsafe_b64encode(sha256(place.read_bytes()).digest()).rstrip(b"=").decode()
        if digest == file.hash.value:
            continue
        others = {
            other.metadata["Name"]
            for other in distributions(path=[str(place.parents[1])])
            if other.metadata["Name"] != DISTRIBUTION and file in (other.files or ())
        }
        if others:  # else somebody has edited it, who knows why
            yield (
                f"{place} is not the file of {DISTRIBUTION}: {' and '.join(sorted(others))} has "
                f"written over it. Install them in different environments, or {AGAIN}"
            )
