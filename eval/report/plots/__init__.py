"""Scores as pictures for papers and pull requests: radar, intervals, flips.

runs -> data.py, which uses the report's own numbers -> draw.py

A missing score is not drawn, never as 0. Equal input gives equal bytes with one version of
matplotlib, which only the drawing functions import, as that takes time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.errors import RunError, UsageError
from eval.report.card import Card
from eval.report.folder import PagesFolder
from eval.report.plots.data import flip_data, interval_data, radar_data
from eval.report.plots.draw import draw_flips, draw_intervals, draw_radar
from eval.report.scores import RunScores

RADAR, INTERVALS, FLIPS = "radar", "intervals", "flips"
FOLDER = PagesFolder("qwen-vl-eval plot", "plots.json", "an earlier plot")
FORMATS = ("svg", "png", "pdf")
MOST = 12  # runs that a reader can tell apart


@dataclass(frozen=True, slots=True)
class Plots:
    """Pictures by name, and why others are missing."""

    pictures: Mapping[str, bytes]
    absent: Mapping[str, str]


def build_plots(
    runs: Sequence[RunScores], card: Card, row: str | None = None, form: str = FORMATS[0]
) -> Plots:
    """The pictures of these runs; flips need exactly two.

    row  the card's model to compare with; default: its own Chat or base one, like the run

    Raises UsageError for an unknown format or row, a run given twice, or more runs than a reader
    can tell apart, and RunError where there is no score to draw.
    """
    if form not in FORMATS:
        raise UsageError(f"--format {form!r}: {', '.join(FORMATS[:-1])} or {FORMATS[-1]} expected")
    if len(runs) > MOST:
        raise UsageError(f"{len(runs)} runs are too many for one picture: give at most {MOST}")
    points = interval_data(runs, card, row)
    radar = radar_data(runs, card, row)
    pictures: dict[str, bytes] = {}
    absent: dict[str, str] = {}
    if radar:
        pictures[RADAR] = draw_radar(radar, form)
    else:
        absent[RADAR] = "no run has a figure that is comparable with the card"
    if points:
        pictures[INTERVALS] = draw_intervals(points, form)
    else:
        absent[INTERVALS] = "no run has a figure where the card has one"
    if len(runs) == 2:
        try:
            flips = flip_data(runs[0], runs[1], card)
        except RunError as error:
            absent[FLIPS] = str(error)
        else:
            if flips.benchmarks:
                pictures[FLIPS] = draw_flips(flips, form)
            else:
                absent[FLIPS] = "no benchmark can be compared; see qwen-vl-eval compare"
    if not pictures:
        why = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        raise RunError(f"no figure to draw: {why}")
    return Plots(pictures, absent)
