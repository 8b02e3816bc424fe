"""Drawing of radar, intervals and flips; imports matplotlib when called."""

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eval.report.plots.data import Flips, Point, Radar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 36  # characters of a name in a legend
WIDTH = 3.5  # inches: a column of a paper
LINE = 0.17  # inches, of a legend
DPI = 300
PERCENT = 100  # columns with higher scores have an axis of their own
DAGGER = "†"
# Okabe and Ito's colours, which the colour-blind can tell apart too; each with its own marker.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
OWN_COLORS, OWN_MARKERS = ("#000000", "#777777"), ("*", "x")
BETTER, WORSE = COLORS[0], COLORS[1]
SETTINGS = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # names of runs are not formulas
    "svg.fonttype": "none",  # text can be searched and read aloud
    "svg.hashsalt": "qwen-vl-eval",
    "pdf.fonttype": 42,  # Type 3, the default, is refused by some publishers
}


def draw_radar(radar: Radar, form: str) -> bytes:
    """A spoke a family, a polygon a model, open where a family is missing."""
    from matplotlib.ticker import MaxNLocator

    with _settings():
        figure = _figure(WIDTH, 2.65 + LINE * len(radar.lines))
        axes = figure.add_subplot(projection="polar")
        around = [2 * math.pi * place / len(radar.families) for place in range(len(radar.families))]
        values = [value for line in radar.lines for value in line.values if value is not None]
        least = max(0, 10 * math.floor((min(*values, 100) - 15) / 10))
        most = 10 * math.ceil((max(*values, 100) + 1) / 10)
        looks = [_look(line.place, line.own) for line in radar.lines]
        for line, look in zip(radar.lines, looks, strict=True):
            spokes = [math.nan if value is None else value for value in line.values]
            style = "--" if line.own else "-"
            closed = [*spokes, spokes[0]]
            axes.plot([*around, around[0]], closed, linestyle=style, clip_on=False, **look)
        axes.set_theta_offset(math.pi / 2)  # type: ignore[attr-defined]  # of polar axes
        axes.set_theta_direction(-1)  # type: ignore[attr-defined]
        axes.set_rlabel_position(180 / len(radar.families))  # type: ignore[attr-defined]
        axes.set_ylim(least, most)
        titles = [textwrap.fill(title, 14) for title in radar.families]
        axes.set_xticks(around, titles)
        for angle, label in zip(around, axes.get_xticklabels(), strict=True):
            side = math.sin(angle)
            label.set_horizontalalignment(
                "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
            )
        axes.tick_params(axis="x", pad=1)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", labelsize=6, labelcolor="#444444")
        axes.grid(color="#c3c9cf", linewidth=0.5)
        axes.spines["polar"].set_color("#c3c9cf")
        _legend(
            figure, [line.name for line in radar.lines], looks, [line.own for line in radar.lines]
        )
        figure.suptitle("Percent of the card's own model", fontsize=7)
        lines = "; ".join(
            f"{line.name}: "
            + ", ".join(
                f"{family} {value:.1f}"
                for family, value in zip(radar.families, line.values, strict=True)
                if value is not None
            )
            for line in radar.lines
        )
        title = "Scores by family, in percent of the card's own model"
        return _saved(figure, form, title, f"Radar chart. {lines}")


def draw_intervals(points: Sequence[Point], form: str) -> bytes:
    """A row a benchmark, a marker a run; scores of more than 100 have an axis of their own."""
    with _settings():
        ordered = sorted(points, key=lambda point: point.place)
        looks = {point.run: _look(point.place) for point in ordered}
        names = list(looks)
        parts = [
            part
            for part in (
                [point for point in points if point.maximum <= PERCENT],
                [point for point in points if point.maximum > PERCENT],
            )
            if part
        ]
        rows = [list(dict.fromkeys(point.benchmark for point in part)) for part in parts]
        each = max(0.17, 0.085 * len(names))
        marked = not all(point.comparable for point in points)
        models = list(dict.fromkeys(point.card for point in points))
        notes = textwrap.wrap(_beside(points), 78)
        notes += [f"{DAGGER} and hollow: not comparable with the card"] if marked else []
        height = each * sum(map(len, rows)) + 0.45 * len(parts)
        height += LINE * len(names) + 0.1 * len(notes) + 0.2
        figure = _figure(WIDTH, height)
        grid = figure.subplots(len(parts), 1, squeeze=False, height_ratios=[len(r) for r in rows])
        for axes, part, benchmarks in zip(grid[:, 0], parts, rows, strict=True):
            _draw_part(axes, part, benchmarks, looks)
            highest = max(point.maximum for point in part)
            axes.set_xlabel(f"Run less card, points of {highest:,.0f}, with 95% intervals")
        figure.suptitle("\n".join(notes), fontsize=6, x=0.01, horizontalalignment="left")
        _legend(figure, names, list(looks.values()), [False] * len(names), joined=False)
        described = "; ".join(
            f"{p.run} less {p.card}, {p.benchmark}: {p.difference:+g}"
            + (f" ({p.low:+g} to {p.high:+g})" if p.low is not None else "")
            + ("" if p.comparable else f" {DAGGER}")
            for p in points
        )
        title = f"Figures less the card's: {', '.join(models)}"
        return _saved(figure, form, title, f"Interval plot, 0 is the card. {described}")


def _beside(points: Sequence[Point]) -> str:
    """The models of the card that are at 0; for all but the most frequent one, where."""
    where: dict[str, dict[str, None]] = {}
    for point in points:
        where.setdefault(point.card, {})[point.benchmark] = None
    most = max(where, key=lambda model: len(where[model]))
    others = [f"{model} in {', '.join(names)}" for model, names in where.items() if model != most]
    return f"0 is the card: {'; '.join([most, *others])}"


def _draw_part(
    axes: "Axes",
    points: Sequence[Point],
    benchmarks: Sequence[str],
    looks: Mapping[str, Mapping[str, Any]],
) -> None:
    names = list(looks)
    step = 0.7 / max(len(names), 1)
    axes.axvline(0, color="#000000", linewidth=0.8, zorder=1)
    for point in points:
        y = benchmarks.index(point.benchmark)
        y_off = y + (names.index(point.run) - (len(names) - 1) / 2) * step
        look = dict(looks[point.run])
        if not point.comparable:
            look |= {"markerfacecolor": "white"}
        error = None
        if point.low is not None and point.high is not None:
            below, above = point.difference - point.low, point.high - point.difference
            error = [[max(below, 0.0)], [max(above, 0.0)]]
        axes.errorbar(
            [point.difference], [y_off], xerr=error, linestyle="none", capsize=1.5, **look
        )
    marked = {point.benchmark for point in points if not point.comparable}
    labels = [f"{name} {DAGGER}" if name in marked else name for name in benchmarks]
    axes.set_yticks(range(len(benchmarks)), labels)
    axes.set_ylim(len(benchmarks) - 0.5, -0.5)
    axes.margins(x=0.08)
    _plain(axes)


def draw_flips(flips: Flips, form: str) -> bytes:
    """Bars from 0, in percent of the samples: worse to the left, better to the right."""
    with _settings():
        benchmarks = flips.benchmarks
        figure = _figure(WIDTH, 0.2 * len(benchmarks) + 1.0)
        axes = figure.add_subplot()
        places = range(len(benchmarks))
        for sign, counts, color, hatch in (
            (-1, [each.worse for each in benchmarks], WORSE, "////"),
            (1, [each.better for each in benchmarks], BETTER, ""),
        ):
            shares = [
                sign * 100 * count / each.samples
                for count, each in zip(counts, benchmarks, strict=True)
            ]
            axes.barh(places, shares, color=color, height=0.7, hatch=hatch, edgecolor="white")
            for place, share, count in zip(places, shares, counts, strict=True):
                axes.annotate(
                    f"{count:,}",
                    (share, place),
                    (sign * 2, 0),
                    textcoords="offset points",
                    horizontalalignment="left" if sign > 0 else "right",
                    verticalalignment="center_baseline",
                    fontsize=6,
                )
        axes.axvline(0, color="#000000", linewidth=0.8)
        axes.set_yticks(places, [each.task for each in benchmarks])
        axes.set_ylim(len(benchmarks) - 0.5, -0.5)
        reach = max(100 * max(each.better, each.worse) / each.samples for each in benchmarks) or 1.0
        axes.set_xlim(-1.25 * reach, 1.25 * reach)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}%")
        left_out = f"; {flips.left_out} not compared" if flips.left_out else ""
        axes.set_xlabel(f"Share of a benchmark's samples that changed{left_out}")
        axes.set_title("← worse", loc="left", color="#A34700")
        axes.set_title("better →", loc="right", color=BETTER)
        names = f"{_short(flips.base)} → {_short(flips.candidate)}"
        figure.suptitle(textwrap.fill(names, 60), fontsize=7)
        _plain(axes)
        described = "; ".join(
            f"{each.task}: {each.worse:,} worse, {each.better:,} better of {each.samples:,}"
            for each in benchmarks
        )
        title = f"Samples that changed from {flips.base} to {flips.candidate}"
        return _saved(figure, form, title, f"Bar chart. {described}")


def _settings() -> Any:
    """Ours on matplotlib's defaults: a user's settings would change the bytes."""
    from matplotlib import style

    return style.context(["default", SETTINGS])


def _figure(width: float, height: float) -> "Figure":
    """Without a window, and outside pyplot's list of figures."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: "Axes") -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dde1e5", linewidth=0.5)
    axes.set_axisbelow(True)


def _look(place: int, own: bool = False) -> dict[str, Any]:
    """A colour and a marker; the card's are black and grey."""
    colors, markers = (OWN_COLORS, OWN_MARKERS) if own else (COLORS, MARKERS)
    return {"color": colors[place % len(colors)], "marker": markers[place % len(markers)]}


def _legend(
    figure: "Figure",
    names: Sequence[str],
    looks: Sequence[Mapping[str, Any]],
    own: Sequence[bool],
    joined: bool = True,
) -> None:
    """Texts are set afterwards: matplotlib would leave out a name that begins with "_"."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle=("--" if each else "-") if joined else "none", **look)
        for each, look in zip(own, looks, strict=True)
    ]
    labels = [str(place) for place in range(len(names))]
    legend = figure.legend(handles, labels, loc="outside lower center", frameon=False)
    taken: set[str] = set()
    for text, name in zip(legend.get_texts(), names, strict=True):
        shown = _short(name)
        while shown in taken:
            shown += "'"
        taken.add(shown)
        text.set_text(shown)


def _short(name: str) -> str:
    """A long name without its middle, since checkpoints of one model differ at the end."""
    if len(name) <= LONGEST:
        return name
    half = (LONGEST - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _saved(figure: "Figure", form: str, title: str, text: str) -> bytes:
    """With a title and a description, and without dates."""
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": "qwen-vl-eval", "Title": title, "Description": text},
        "png": {"Software": "qwen-vl-eval", "Title": title, "Description": text},
        "pdf": {"CreationDate": None, "Creator": "qwen-vl-eval", "Title": title, "Subject": text},
    }
    file = io.BytesIO()
    with warnings.catch_warnings():  # a letter missing from all fonts is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format=form, dpi=DPI, metadata=metadata[form])
    return file.getvalue()
