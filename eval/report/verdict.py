"""A comparison of two runs as people and their CI read it: terminal, Markdown, JUnit XML, JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.text import Text

from eval.report.compare import clean
from eval.report.gate import (
    INCONCLUSIVE,
    INVALID,
    LEFT_OUT,
    PASS,
    REGRESSED,
    Benchmark,
    Comparison,
    Flip,
)
from eval.report.grid import Field, Grid, GridColumn, Section, draw
from eval.report.markdown import escape

FLIPS_SHOWN = 10  # of a benchmark, in a terminal or a comment
NONE = "-"
STYLES = {PASS: "green", REGRESSED: "bold red", INCONCLUSIVE: "yellow", INVALID: "bold red"}
NARROW = ("Benchmark", "Verdict", "Base", "Now", "Change", "95% interval", "Samples")
HEADER = ("Benchmark", "Base", "Candidate", "Difference", "95% interval", "Samples", "Images")
SAID = {
    PASS: "no benchmark is more than {margin} points below the base",
    REGRESSED: "at least one benchmark is below the base, and not within {margin} points",
    INCONCLUSIVE: "so many samples cannot tell whether the candidate is within {margin} points",
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
        f"### {escape(found.candidate)} beside {escape(found.base)}: **{found.verdict}**",
        "",
        escape(headline(found)),
        "",
        f"| {' | '.join((*HEADER, 'Verdict'))} |",
        f"| :--- | {' | '.join(['---:'] * (len(HEADER) - 1))} | :--- |",
    ]
    for each in found.benchmarks:
        told = [*map(escape, cells(each)), escape(verdict_of(each))]
        lines.append(f"| {' | '.join(told)} |")
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
    """JUnit XML: a case a benchmark; regressed is a failure, inconclusive and invalid an error."""
    errors = sum(each.verdict in (INVALID, INCONCLUSIVE) for each in found.benchmarks)
    suite = ElementTree.Element(
        "testsuite",
        name=f"{found.candidate} beside {found.base}",
        tests=str(len(found.benchmarks) + bool(found.faults)),
        failures=str(sum(each.verdict == REGRESSED for each in found.benchmarks)),
        errors=str(errors + bool(found.faults)),
        skipped=str(sum(each.verdict == LEFT_OUT for each in found.benchmarks)),
    )
    kinds = {REGRESSED: "failure", INVALID: "error", INCONCLUSIVE: "error", LEFT_OUT: "skipped"}
    for each in found.benchmarks:
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name=each.task)
        if each.verdict in kinds:
            told = f"{verdict_of(each)}: {', '.join(cells(each)[1:])}"
            ElementTree.SubElement(case, kinds[each.verdict], message=_xml(told), type=each.verdict)
    if found.faults:
        case = ElementTree.SubElement(suite, "testcase", classname="qwen-vl-eval", name="runs")
        ElementTree.SubElement(case, "error", message=_xml("; ".join(found.faults)), type=INVALID)
    ElementTree.indent(suite)
    content: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def comparison_json(found: Comparison) -> dict[str, Any]:
    """All of it, for programs."""
    return {**asdict(found), "exit_code": found.exit_code}


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
    if each.reason:
        return f"{each.verdict}: {each.reason}"
    if each.verdict == INCONCLUSIVE:
        if each.smallest is None:
            return f"{each.verdict}: {each.images:,} images are too few to show any drop"
        return f"{each.verdict}: a drop of {each.smallest:.2f} would have been shown"
    return each.verdict


def _by_task(flips: Sequence[Flip]) -> Iterable[tuple[str, list[Flip]]]:
    for task, found in groupby(flips, key=lambda flip: flip.task):
        yield task, list(found)


def _counts(flips: Sequence[Flip]) -> str:
    worse = sum(map(_worse, flips))
    return f"{worse:,} samples worse, {len(flips) - worse:,} better"


def _worse(flip: Flip) -> bool:
    return flip.candidate < flip.base


def _xml(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in text)
