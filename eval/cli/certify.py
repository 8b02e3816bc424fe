"""Prints the invariance certificate."""

from rich.markup import escape
from rich.table import Table

from eval.certify import Certificate
from eval.cli.console import err, out


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
