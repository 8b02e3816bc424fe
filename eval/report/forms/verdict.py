"""A comparison of two runs as people and their CI read it: terminal, Markdown, JUnit XML, JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from eval.report.comparison import clean, printable
from eval.report.forms.grid import Field, Grid, GridColumn, Section, draw
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
    Benchmark,
    Comparison,
    Flip,
    RunId,
)

FLIPS_SHOWN = 10  # of a benchmark, in a terminal or a comment
NONE = "-"
STYLES = {PASS: "green", REGRESSED: "bold red", INCONCLUSIVE: "yellow", INVALID: "bold red"}
NARROW = ("Benchmark", "Verdict", "Base", "Now", "Change", "95% interval", "Samples")
HEADER = ("Benchmark", "Base", "Candidate", "Difference", "95% interval", "Samples", "Images")
JUNIT = {REGRESSED: "failure", INVALID: "error", LEFT_OUT: "skipped"}  # elements of a test case
JUNIT_INCONCLUSIVE = {ERROR: "error", FAIL: "failure", SKIP: "skipped"}
WEIGHTS_SHOWN = 12  # digits of a digest, where a person reads it
UNKNOWN = "unknown"
SAID = {
    PASS: "no benchmark is more than {margin} points below the base",
    REGRESSED: "at least one benchmark is below the base, and not within {margin} points",
    INCONCLUSIVE: "too few samples to tell whether the candidate is within {margin} points",
    INVALID: "the runs cannot be compared",
}


def headline(found: Comparison) -> str:
    """The verdict in a sentence."""
    said = SAID[found.verdict].format(margin=f"{found.margin:g}")
    faults = f": {'; '.join(found.faults)}" if found.faults else ""
    return f"{found.verdict}: {said}{faults}"


def render_comparison(found: Comparison, console: Console) -> None:
    """Print it, the worst benchmark first."""
    for line in draw(_grid(found, "-" if console.options.ascii_only else "─"), console.width):
        _print(console, line)
    told: dict[str, list[str]] = {}
    for each in found.benchmarks:
        if (said := verdict_of(each)) != each.verdict:
            told.setdefault(said, []).append(each.task)
    for said, tasks in told.items():
        _print(console, Text(f"{', '.join(tasks)}: {said}", style="dim"))
    for role, run in _runs(found):
        weights = run.weights[:WEIGHTS_SHOWN] or UNKNOWN
        _print(console, Text(f"{role}: {run.folder}, weights {weights}", style="dim"))
    for warning in found.warnings:
        _print(console, Text(f"warning: {warning}", style="yellow"))
    _print(console, Text(headline(found), style=STYLES[found.verdict]))
    for task, flips in _by_task(found.flips):
        if worst := [clean(flip.sample) for flip in flips[:FLIPS_SHOWN] if _worse(flip)]:
            _print(console, Text(f"{task}: {_counts(flips)}; the worst: {', '.join(worst)}"))


def _grid(found: Comparison, rule: str) -> Grid:
    rows = []
    for each in found.benchmarks:
        task, *figures, _images = cells(each)  # images stand in the other forms
        verdict = Field(each.verdict, style=STYLES.get(each.verdict, "dim"))
        rows.append((Field(task), verdict, *map(Field, figures)))
    columns = (
        GridColumn(NARROW[:1]),
        GridColumn(NARROW[1:2], fixed=True),
        *(GridColumn((name,), "right", fixed=True) for name in NARROW[2:]),
    )
    return Grid(columns, (Section("", tuple(rows)),), rule=rule)


def _print(console: Console, line: Text) -> None:
    line.plain = line.plain.encode(console.encoding, "replace").decode(console.encoding)
    console.print(line, soft_wrap=True)


def comparison_markdown(found: Comparison) -> str:
    """For a comment on a pull request."""
    lines = [
        f"### {escape(found.candidate.name)} beside {escape(found.base.name)}: **{found.verdict}**",
        "",
        escape(headline(found)),
        "",
        "| Run | Name | Folder | Weights (sha256) |",
        "| :--- | :--- | :--- | :--- |",
        *(_row(role, run.name, run.folder, run.weights or UNKNOWN) for role, run in _runs(found)),
        "",
        *(f"- warning: {escape(warning)}" for warning in found.warnings),
        *([""] if found.warnings else []),
        f"| {' | '.join((*HEADER, 'Verdict'))} |",
        f"| :--- | {' | '.join(['---:'] * (len(HEADER) - 1))} | :--- |",
    ]
    for each in found.benchmarks:
        lines.append(_row(*cells(each), verdict_of(each)))
    for task, flips in _by_task(found.flips):
        lines += ["", f"<details><summary>{escape(task)}: {_counts(flips)}</summary>", ""]
        for flip in flips[:FLIPS_SHOWN]:
            change = f"{flip.base:g} to {flip.candidate:g}"
            lines.append(f"- {escape(clean(flip.sample))}: {change}")
        if len(flips) > FLIPS_SHOWN:
            lines.append(f"- and {len(flips) - FLIPS_SHOWN:,} more")
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def comparison_junit(found: Comparison) -> bytes:
    """JUnit XML: a case for each benchmark; properties that identify both runs.

    Regressed is a failure, invalid an error, left out is skipped; an inconclusive benchmark is what
    the comparison counts it as, an error, a failure or skipped.
    """
    kinds = JUNIT | {INCONCLUSIVE: JUNIT_INCONCLUSIVE[found.inconclusive]}
    results = [kinds.get(each.verdict) for each in found.benchmarks]
    results += ["error"] if found.faults else []
    suite = ElementTree.Element(
        "testsuite",
        name=f"{found.candidate.name} beside {found.base.name}",
        tests=str(len(results)),
        failures=str(results.count("failure")),
        errors=str(results.count("error")),
        skipped=str(results.count("skipped")),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for role, run in _runs(found):
        for name, value in asdict(run).items():
            ElementTree.SubElement(properties, "property", name=f"{role}.{name}", value=value)
    for each, kind in zip(found.benchmarks, results, strict=False):
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name=each.task)
        if kind:
            told = verdict_of(each)
            if each.difference is not None:
                told += f": {', '.join(cells(each)[1:])}"
            told = printable(told)
            ElementTree.SubElement(case, kind, message=told, type=each.verdict)
    if found.faults:
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name="runs")
        told = printable("; ".join(found.faults))
        ElementTree.SubElement(case, "error", message=told, type=INVALID)
    ElementTree.indent(suite)
    content: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def comparison_json(found: Comparison) -> dict[str, Any]:
    """All of it, for programs."""
    names = {role: run.name for role, run in _runs(found)}
    runs = {role: asdict(run) for role, run in _runs(found)}
    return {**asdict(found), **names, "runs": runs, "exit_code": found.exit_code}


def _row(*texts: str) -> str:
    return f"| {' | '.join(map(escape, texts))} |"


def _runs(found: Comparison) -> tuple[tuple[str, RunId], ...]:
    return ("base", found.base), ("candidate", found.candidate)


def cells(each: Benchmark) -> list[str]:
    """A benchmark's figures as they are shown."""
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


def verdict_of(each: Benchmark) -> str:
    """A benchmark's verdict, and what there is to say of it."""
    said = each.reason or each.no_interval
    if each.verdict == INCONCLUSIVE:
        said = f"smallest detectable drop: {each.smallest or 0:.2f} points"
        if each.smallest is None:
            said = f"{each.images:,} images are too few to show any drop"
    return f"{each.verdict}: {said}" if said else each.verdict


def _by_task(flips: Sequence[Flip]) -> Iterable[tuple[str, list[Flip]]]:
    for task, found in groupby(flips, key=lambda flip: flip.task):
        yield task, list(found)


def _counts(flips: Sequence[Flip]) -> str:
    worse = sum(map(_worse, flips))
    return f"{worse:,} samples worse, {len(flips) - worse:,} better"


def _worse(flip: Flip) -> bool:
    return flip.candidate < flip.base
