"""Arguments that several commands take."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.errors import UsageError
from eval.launch.workers import Launch
from eval.scoring.score import AsPublished
from eval.storage.reading import MAX_INTEGER, exists, is_folder, shown_path

Tasks = Annotated[
    list[str] | None,
    typer.Argument(help="Task (okvqa_val), benchmark (refcoco) or 'all'; see 'list'."),
]
AsPublishedOption = Annotated[
    str | None,
    typer.Option(
        "--as-published",
        metavar="PROCESSESxBATCH",
        help="Reproduce the published procedure where it is known to be wrong, for so many "
        "processes and batches of that size, such as 8x8.",
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory for keys and values, such as 8GiB; by default a part of what is free. It "
        "decides how many questions are answered at a time, never what is answered.",
    ),
]
FeaturesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep what the vision tower makes of images in this folder (at most 20 GiB), and take "
        "it from there: for many runs over the same images.",
    ),
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Ask samples again that have no answer.")
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Number of GPUs of this machine to use, a worker on each (a model that needs "
        "several gets them); without a GPU so many processes. Under torchrun or srun leave it out.",
    ),
]
LauncherOption = Annotated[
    str | None,
    typer.Option(help="ray: workers are actors of a Ray cluster, of one GPU each."),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Of a Ray cluster, or auto; else one is started here."),
]
LeaseOption = Annotated[
    float,
    typer.Option(
        "--lease",
        min=1,
        metavar="SECONDS",
        help="A worker without an answer for so long is given up, and what it held asked again.",
    ),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read checkpoint and images again, instead of trusting digests of files whose size "
        "and times have not changed.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File or index of the weights to read, where the checkpoint has several sets.",
    ),
]
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def engine_settings(memory: str | None, features: Path | None) -> dict[str, Any]:
    """Settings of an engine, as far as they are given. Raises UsageError for no size."""
    settings: dict[str, Any] = {}
    if memory is not None:
        number = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
        match = re.fullmatch(rf"{number}\s*([KMGT]?)(?:i?B)?", memory, re.IGNORECASE)
        size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
        if not 1 <= size <= MAX_INTEGER:
            raise UsageError(
                f"--memory {memory!r:.80}: give a size such as 8GiB or 512MiB, below 8,388,608 TiB"
            )
        settings["memory"] = size
    if features is not None:
        settings["features"] = features
    return settings


def launch_options(
    gpus: int | None, launcher: str | None, address: str | None, lease: float
) -> Launch:
    """How the work is spread. Raises UsageError for a launcher that there is not."""
    if launcher not in (None, "ray"):
        raise UsageError(f"--launcher {launcher!r}: only ray is known; torchrun and srun start us")
    if address and not launcher:
        raise UsageError("--ray-address: only with --launcher ray")
    return Launch(gpus, launcher, address, lease)


def as_published_option(text: str | None) -> AsPublished | None:
    """8x8: eight processes, batches of eight."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if not match:
        raise UsageError(f"--as-published {text!r}: PROCESSESxBATCH expected, such as 8x8")
    return AsPublished(int(match[1]), int(match[2]))


def folder_option(path: Path, option: str) -> Path:
    """The folder. Raises UsageError, naming the option, where there is none."""
    if not is_folder(path):
        what = "a file, not a folder" if exists(path) else "no such folder"
        raise UsageError(f"{option} {shown_path(path)}: {what}")
    return path


def new_folder(path: Path, option: str = "--out") -> Path:
    """A folder that may be there or not. Raises UsageError, naming the option, for a file."""
    if exists(path) and not is_folder(path):
        raise UsageError(f"{option} {shown_path(path)}: this is a file; give a folder")
    return path
