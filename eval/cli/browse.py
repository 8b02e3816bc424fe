"""The sample browser's command: runs in, a folder of pages out."""

from pathlib import Path
from typing import Annotated

import typer

from eval import plugins
from eval.cli.console import err, out
from eval.cli.options import folder_option
from eval.errors import UsageError
from eval.report.browser import COPY, LINK, build_browser
from eval.run.folder import RunFolder


def browse_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="OTHER", help="Another, to be laid beside it.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task or benchmark; may be given more than once."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the benchmarks' files; default: the run's.")
    ] = None,
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder of the pages; an earlier one is replaced.")
    ] = Path("browser"),
    images: Annotated[
        str,
        typer.Option(
            help=f"{LINK}: pictures stay where they are; {COPY}: those used come into the folder, "
            "which can be moved then."
        ),
    ] = LINK,
) -> None:
    """Write pages in which every sample of a run, or of two, can be looked at without a network."""
    if images not in (LINK, COPY):
        raise UsageError(f"--images {images!r}: {LINK} or {COPY} expected")
    if other is not None and run.resolve() == other.resolve():
        raise UsageError(f"{other}: another run than the first expected")
    folders = [RunFolder.open(path) for path in (run, other) if path is not None]
    told = data or folders[0].manifest.get("data")
    if not told:
        raise UsageError(f"--data: missing; {run} does not tell where its data were")
    root = folder_option(Path(told), "--data")
    names = list(dict.fromkeys(name for folder in folders for name in folder.tasks))
    ready = [
        name
        for name in names
        if all(folder.answers(name).complete for folder in folders if name in folder.tasks)
    ]
    wanted = [found.name for found in plugins.find_tasks(task)] if task else names
    if task and not set(wanted) & set(names):
        raise UsageError(f"--task {', '.join(task)}: a run of {', '.join(names)}")
    for name in [each for each in wanted if each in names and each not in ready]:
        _warn(f"{name} is not finished, and is left out")
    chosen = [name for name in wanted if name in ready]
    if not chosen:
        raise UsageError(f"{run}: no task is finished yet. Run the same command again to go on")
    missing: list[str] = []
    page = build_browser(
        folders, plugins.find_tasks(chosen), root, out_folder, images, missing.append
    )
    if missing:
        _warn(f"{len(missing):,} pictures are not below {root}, such as {missing[0]}")
    out.print(str(page), highlight=False, soft_wrap=True, markup=False)
    err.print("open it in a browser; it needs no server", highlight=False)


def _warn(text: str) -> None:
    err.print(f"warning: {text}", highlight=False, soft_wrap=True, markup=False)
