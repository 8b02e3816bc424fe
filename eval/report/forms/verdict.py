"""A comparison of two runs for people and a CI: terminal, Markdown, JUnit XML, JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from eval.report.forms.grid import Field, Grid, GridColumn, Section, draw_grid
from eval.report.forms.markdown import escape
from eval.report.gate import (
    ERROR,
    FAIL,
    INCONCLUSIVE,
    INVALID,
    LEFT_OUT,
    PASS,
    REGRESSED,
    SKIP,
    RunComparison,
    RunId,
    TaskComparison,
)
from eval.report.pairing import Flip
from eval.storage.text import clean, printable

FLIPS_SHOWN = 10  # of a benchmark, in a terminal or a comment
NONE = "-"
STYLES = {PASS: "green", REGRESSED: "bold red", INCONCLUSIVE: "yellow", INVALID: "bold red"}
NARROW = ("Benchmark", "Verdict", "Base", "Now", "Change", "95% interval", "Samples")
HEADER = ("Benchmark", "Base", "Candidate", "Difference", "95% interval", "Samples", "Images")
JUNIT = {REGRESSED: "failure", INVALID: "error", LEFT_OUT: "skipped"}  # elements of a test case
JUNIT_INCONCLUSIVE = {ERROR: "error", FAIL: "failure", SKIP: "skipped"}
WEIGHTS_SHOWN = 12  # digits of a digest, where a person reads it
UNKNOWN = "unknown"
SENTENCES = {
    PASS: "no benchmark is more than {margin} points below the base",
    REGRESSED: "at least one benchmark is below the base, and not within {margin} points",
    INCONCLUSIVE: "too few samples to tell whether the candidate is within {margin} points",
    INVALID: "the runs cannot be compared",
}


def headline(comparison: RunComparison) -> str:
    """The verdict in a sentence."""
    sentence = SENTENCES[comparison.verdict].format(margin=f"{comparison.margin:g}")
    faults = f": {'; '.join(comparison.faults)}" if comparison.faults else ""
    return f"{comparison.verdict}: {sentence}{faults}"


def render_comparison(comparison: RunComparison, console: Console) -> None:
    """Print it, the worst benchmark first."""
    for line in draw_grid(
        _grid(comparison, "-" if console.options.ascii_only else "─"), console.width
    ):
        _print(console, line)
    reasons: dict[str, list[str]] = {}
    for each in comparison.benchmarks:
        if (reason := verdict_of(each)) != each.verdict:
            reasons.setdefault(reason, []).append(each.task)
    for reason, tasks in reasons.items():
        _print(console, Text(f"{', '.join(tasks)}: {reason}", style="dim"))
    for role, run in _runs(comparison):
        weights = run.weights[:WEIGHTS_SHOWN] or UNKNOWN
        _print(console, Text(f"{role}: {run.folder}, weights {weights}", style="dim"))
    for warning in comparison.warnings:
        _print(console, Text(f"warning: {warning}", style="yellow"))
    _print(console, Text(headline(comparison), style=STYLES[comparison.verdict]))
    for task, flips in _by_task(comparison.flips):
        if worst := [clean(flip.sample) for flip in flips[:FLIPS_SHOWN] if _worse(flip)]:
            _print(console, Text(f"{task}: {_counts(flips)}; the worst: {', '.join(worst)}"))


def _grid(comparison: RunComparison, rule: str) -> Grid:
    rows = []
    for each in comparison.benchmarks:
        task, *values, _images = cells(each)  # images are in the other forms
        verdict = Field(each.verdict, style=STYLES.get(each.verdict, "dim"))
        rows.append((Field(task), verdict, *map(Field, values)))
    columns = (
        GridColumn(NARROW[:1]),
        GridColumn(NARROW[1:2], fixed=True),
        *(GridColumn((name,), "right", fixed=True) for name in NARROW[2:]),
    )
    return Grid(columns, (Section("", tuple(rows)),), rule=rule)


def _print(console: Console, line: Text) -> None:
    line.plain = line.plain.encode(console.encoding, "replace").decode(console.encoding)
    console.print(line, soft_wrap=True)


def comparison_markdown(comparison: RunComparison) -> str:
    """For a comment on a pull request."""
    base, candidate = comparison.base, comparison.candidate
    lines = [
        f"### {escape(candidate.name)} beside {escape(base.name)}: **{comparison.verdict}**",
        "",
        escape(headline(comparison)),
        "",
        "| Run | Name | Folder | Weights (sha256) |",
        "| :--- | :--- | :--- | :--- |",
        *(
            _row(role, run.name, run.folder, run.weights or UNKNOWN)
            for role, run in _runs(comparison)
        ),
        "",
        *(f"- warning: {escape(warning)}" for warning in comparison.warnings),
        *([""] if comparison.warnings else []),
        f"| {' | '.join((*HEADER, 'Verdict'))} |",
        f"| :--- | {' | '.join(['---:'] * (len(HEADER) - 1))} | :--- |",
    ]
    for each in comparison.benchmarks:
        lines.append(_row(*cells(each), verdict_of(each)))
    for task, flips in _by_task(comparison.flips):
        lines += ["", f"<details><summary>{escape(task)}: {_counts(flips)}</summary>", ""]
        for flip in flips[:FLIPS_SHOWN]:
            change = f"{flip.base:g} to {flip.candidate:g}"
            lines.append(f"- {escape(clean(flip.sample))}: {change}")
        if len(flips) > FLIPS_SHOWN:
            lines.append(f"- and {len(flips) - FLIPS_SHOWN:,} more")
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def comparison_junit(comparison: RunComparison) -> bytes:
    """JUnit XML: a case for each benchmark; properties that identify both runs.

    Regressed is a failure, invalid an error, left out is skipped; `inconclusive` of the comparison
    says which of these an inconclusive benchmark is.
    """
    kinds = JUNIT | {INCONCLUSIVE: JUNIT_INCONCLUSIVE[comparison.inconclusive]}
    results = [kinds.get(each.verdict) for each in comparison.benchmarks]
    results += ["error"] if comparison.faults else []
    suite = ElementTree.Element(
        "testsuite",
        name=f"{comparison.candidate.name} beside {comparison.base.name}",
        tests=str(len(results)),
        failures=str(results.count("failure")),
        errors=str(results.count("error")),
        skipped=str(results.count("skipped")),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for role, run in _runs(comparison):
        for name, value in asdict(run).items():
            ElementTree.SubElement(properties, "property", name=f"{role}.{name}", value=value)
    for each, kind in zip(comparison.benchmarks, results, strict=False):
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name=each.task)
        if kind:
            message = verdict_of(each)
            if each.difference is not None:
                message += f": {', '.join(cells(each)[1:])}"
            ElementTree.SubElement(case, kind, message=printable(message), type=each.verdict)
    if comparison.faults:
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name="runs")
        message = printable("; ".join(comparison.faults))
        ElementTree.SubElement(case, "error", message=message, type=INVALID)
    ElementTree.indent(suite)
    content: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """All of it, for programs."""
    names = {role: run.name for role, run in _runs(comparison)}
    runs = {role: asdict(run) for role, run in _runs(comparison)}
    return {**asdict(comparison), **names, "runs": runs, "exit_code": comparison.exit_code}


def _row(*texts: str) -> str:
    return f"| {' | '.join(map(escape, texts))} |"


def _runs(comparison: RunComparison) -> tuple[tuple[str, RunId], ...]:
    return ("base", comparison.base), ("candidate", comparison.candidate)


def cells(each: TaskComparison) -> list[str]:
    """A benchmark's row of the table."""
    if each.difference is None:
        return [each.task, *[NONE] * (len(HEADER) - 1)]
    ends = f"{each.low:+.2f} to {each.high:+.2f}" if each.low is not None else NONE
    return [
        each.task,
        f"{each.base:.2f}",
        f"{each.candidate:.2f}",
        f"{each.difference:+.2f}",
        ends,
        f"{each.samples:,}",
        f"{each.images:,}",
    ]


def verdict_of(each: TaskComparison) -> str:
    """A benchmark's verdict, and its reason where there is one."""
    reason = each.reason or each.no_interval
    if each.verdict == INCONCLUSIVE:
        reason = f"smallest detectable drop: {each.smallest or 0:.2f} points"
        if each.smallest is None:
            reason = f"{each.images:,} images are too few to show any drop"
    return f"{each.verdict}: {reason}" if reason else each.verdict


def _by_task(flips: Sequence[Flip]) -> Iterable[tuple[str, list[Flip]]]:
    for task, group in groupby(flips, key=lambda flip: flip.task):
        yield task, list(group)


def _counts(flips: Sequence[Flip]) -> str:
    worse = sum(map(_worse, flips))
    return f"{worse:,} samples worse, {len(flips) - worse:,} better"


def _worse(flip: Flip) -> bool:
    return flip.candidate < flip.base
