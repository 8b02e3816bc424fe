"""Prints the invariance certificate."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from eval import plugins
from eval.certify import Certificate, certify
from eval.cli.card import INCOMPLETE, data_folder
from eval.cli.console import err, out
from eval.cli.options import Tasks, WeightsOption, folder_option, new_folder
from eval.cli.progress import REPORTING
from eval.config import DTYPES, Config
from eval.errors import UsageError
from eval.pipeline import Place
from eval.protocols.qwen_vl import PUBLISHED


def print_certificate(certificate: Certificate) -> None:
    """Print what was changed, how many predictions differ, and the verdict."""
    table = Table(box=None, pad_edge=False)
    for name in ("what is changed", "answers", "differ", "share"):
        table.add_column(name, justify="left" if name == "what is changed" else "right")
    outcomes = [each for each in certificate.outcomes if not each.skipped]
    for each in outcomes:
        count, differ = each.answers, len(each.differ)
        table.add_row(each.variant.says, f"{count:,}", f"{differ:,}", f"{differ / count:.2%}")
    out.print(table)
    for line in (line for each in outcomes for line in each.examples):
        err.print(escape(line), highlight=False, soft_wrap=True)
    verdict = f"at most {certificate.most:.2%} of the predictions flip"
    if certificate.exact:
        holds = certificate.holds
        verdict = "no prediction differs" if holds else "PREDICTIONS DIFFER, and none may"
    model = certificate.model
    line = f"{model['dtype']} ckpt={str(model['digest'])[:12]}: {verdict}"
    out.print(line, highlight=False, soft_wrap=True)


def certify_tasks(
    tasks: Tasks = None,
    model: Annotated[
        str, typer.Option(help="Checkpoint folder, hub id, or 'demo' for the bundled one.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the benchmarks' files; the demo draws its own."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder for the runs and certificate.json.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N samples of each task.")] = 100,
    protocol: Annotated[str, typer.Option(help="published or chatml.")] = PUBLISHED,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    weights: WeightsOption = None,
) -> None:
    """Show that answers depend on no batch size, order, number of workers, or crash."""
    if not tasks or not model or out_folder is None:
        raise UsageError("TASK, --model and --out are needed; see 'qwen-vl-eval certify --help'")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    config = Config(
        model,
        tuple(tasks),
        revision=revision,
        weights=weights,
        dtype=dtype,
        protocol=protocol,
        partial=True,
    )
    place = Place(
        folder_option(data_folder(config, data), "--data"),
        new_folder(out_folder),
        limit,
        device,
        reporting=REPORTING,
    )
    certificate = certify(config, plugins.find_tasks(tasks), place)
    print_certificate(certificate)
    if not certificate.holds:
        raise typer.Exit(INCOMPLETE)
