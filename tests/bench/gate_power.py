"""How often the gate alarms, and what it finds, at the sizes of the real benchmarks: by simulation.

    python tests/bench/gate_power.py [--quick]

Two checkpoints are drawn again and again: which samples change their value, and in which direction.
The per-image sums become the gate's own estimates, and its own functions judge them: Holm, the
p-values and the verdict are eval.report.gate's and eval.scoring.stats'. Only mean and error are
computed here for many images at a time, by Tally's formula, and compared with Tally's on every
benchmark.

Writes results/bench/gate.md. Exit status 1 where, beyond chance, more than 5% alarm, a drop of the
margin passes in more than 5%, or fewer than 90% find what `smallest` promises. With --quick few
repetitions, and nothing is written.
"""

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from eval import plugins
from eval.data.declare import Corpus
from eval.report.gate import (
    INCONCLUSIVE,
    LEVEL,
    MARGIN,
    PASS,
    POWER,
    REGRESSED,
    TaskComparison,
    give_verdicts,
    smallest_drop,
)
from eval.scoring.stats import MeanEstimate, Tally, t_quantile

PAGE = Path(__file__).resolve().parents[2] / "results" / "bench" / "gate.md"
SEED = 20230824
DROP = 2 * MARGIN
CHANGED, TOGETHER = 0.08, 0.05  # the assumption
SHARES, CORRELATIONS = (0.01, 0.02, 0.04, 0.08, 0.16), (0.0, 0.05, 0.1)
FOLLOWS = 0.7  # of changes, those that go where their image goes, as far as that can be
CAPTIONS_CHANGED, CAPTION_SD = 0.4, 0.5
RIGHT_WRONG = np.array([1.0])
VQA = np.array([0.3, 0.6, 0.9, 1.0])
CHANCE = 1e-4  # that a check fails though all is well
SAME, EQUAL, WORSE = "the same answers", "equally good", f"worse by {DROP:g} in every benchmark"
VERDICTS = (REGRESSED, INCONCLUSIVE, PASS)
SWEPT = ("chartqa_test_human", "scienceqa_test_img", "textvqa_val", "refcoco_val", "gqa_testdev")


@dataclass(frozen=True, slots=True)
class Size:
    """A benchmark that is scored here. steps: by which values change; images have these samples."""

    task: str
    images: NDArray[np.int64]
    steps: NDArray[np.float64]
    corpus: bool

    @property
    def samples(self) -> int:
        return int(self.images.sum())

    @property
    def span(self) -> float:
        """The largest difference, in points."""
        return 1000.0 if self.corpus else 100.0

    def estimate(self, mean: float, error: float) -> MeanEstimate:
        """As the gate has it."""
        effective = self.samples**2 / float((self.images.astype(float) ** 2).sum())
        ends = -self.span, self.span
        return MeanEstimate(mean, error, self.samples, len(self.images), effective, *ends, True)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A comparison of one benchmark, and how many of its samples rose and fell."""

    difference: MeanEstimate
    better: int
    worse: int


def sizes() -> list[Size]:
    """Official sizes and numbers of images. How many samples each image has is drawn: at least one.

    Not here: what a server or a judge scores, OCR-VQA, whose size nobody pinned, and AI2D's second
    task, which asks the same of the same diagrams. ScienceQA's images are not counted by its task:
    each question is taken to have its own.
    """
    random = np.random.default_rng(SEED)
    found = []
    for task in plugins.find_tasks(["all"]):
        elsewhere = task.judged or (task.submission is not None and task.submission.alone)
        if elsewhere or task.size is None or task.name == "ai2d_test_lettered":
            continue
        images = task.expect.images or task.size
        more = random.multinomial(task.size - images, np.full(images, 1 / images))
        metric, function = next(iter(task.metrics.items()))
        steps = VQA if metric == "vqa_accuracy" else RIGHT_WRONG
        found.append(Size(task.name, 1 + more, steps, isinstance(function, Corpus)))
    return found


def draw(
    random: np.random.Generator,
    size: Size,
    repetitions: int,
    drop: float = 0.0,
    changed: float = CHANGED,
    together: float = TOGETHER,
) -> list[Drawn]:
    """Comparisons of two checkpoints.

    drop      true difference, in points
    changed   share of samples whose value differs: as many for the better as for the worse, but for
              the drop; of captions CAPTIONS_CHANGED
    together  correlation of the differences of two questions about one image
    """
    groups, count = len(size.images), size.samples
    owner = np.repeat(np.arange(groups), size.images)
    if size.corpus:
        changed, step, squared = CAPTIONS_CHANGED, CAPTION_SD * (2 / np.pi) ** 0.5, CAPTION_SD**2
    else:
        step, squared = size.steps.mean(), (size.steps**2).mean()
    # A share of images is touched at all, and changes there follow the image's direction or their
    # own: so two differences correlate by follows^2 * changed / touched * step^2 / squared.
    most = changed * step**2 / squared
    touched = min(1.0, FOLLOWS**2 * most / together) if together else 1.0
    follows = (together * touched / most) ** 0.5
    up = (1 - drop / 100 / (changed * step)) / 2
    if up < 0:
        raise ValueError(f"{changed:.0%} of the samples cannot make a drop of {drop}")
    found = []
    for _ in range(repetitions):
        chance = np.where(random.random(groups) < touched, changed / touched, 0.0)
        moved = owner[random.random(count, dtype=np.float32) < chance[owner]]
        direction = np.where(random.random(groups) < up, 1.0, -1.0)[moved]
        own = np.where(random.random(len(moved)) < up, 1.0, -1.0)
        signs = np.where(random.random(len(moved)) < follows, direction, own)
        if size.corpus:
            values = 100 * signs * np.abs(random.normal(0, CAPTION_SD, len(moved)))
        else:
            values = 100 * signs * random.choice(size.steps, len(moved))
        sums = np.bincount(moved, values, groups)
        mean = float(sums.sum()) / count
        squares = float((((sums - size.images * mean) / (count - size.images)) ** 2).sum())
        error = ((groups - 1) / groups * squares) ** 0.5
        better = int((signs > 0).sum())
        found.append(Drawn(size.estimate(mean, error), better, len(moved) - better))
    check(size, sums, found[-1].difference)
    return found


def check(size: Size, sums: NDArray[np.float64], found: MeanEstimate) -> None:
    """What was computed for many images at a time is what Tally makes of the same sums."""
    tally = Tally()
    for image, (samples, total) in enumerate(zip(size.images.tolist(), sums.tolist(), strict=True)):
        tally.clusters[image] = [samples, total]
    told = tally.estimate(-size.span, size.span, difference=True)
    assert (told.values, told.clusters) == (found.values, found.clusters)
    pairs = ((told.mean, found.mean), (told.error, found.error), (told.effective, found.effective))
    assert np.allclose(*zip(*pairs, strict=True), rtol=1e-9, atol=1e-12)


def judged(drawn: Sequence[Drawn], margin: float = MARGIN) -> list[str]:
    """The gate's verdict of each benchmark of one comparison."""
    measured = [
        (TaskComparison(str(n), "", "", better=each.better, worse=each.worse), each.difference)
        for n, each in enumerate(drawn)
    ]
    return [each.verdict for each in give_verdicts(measured, margin)]


def whole(verdicts: Sequence[str]) -> str:
    """Of a comparison, as compare_runs puts it together."""
    return next(each for each in VERDICTS if each in verdicts)


def shares(verdicts: Sequence[str]) -> dict[str, float]:
    counted = Counter(verdicts)
    return {each: counted[each] / len(verdicts) for each in VERDICTS}


def at_most(found: float, of: int, share: float) -> bool:
    """Whether the share found in so many is at most another, but for chance."""
    return bool(round(found * of) <= binom.ppf(1 - CHANCE, of, share))


def prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False)


def percent(share: float) -> str:
    return f"{share:.1%}"


def smallest(drawn: Sequence[Drawn], tests: int) -> float:
    """The drop that the gate says would have been shown: the median."""
    return float(np.median([smallest_drop(each.difference, tests) or np.inf for each in drawn]))


@dataclass(frozen=True, slots=True)
class Row:
    """A benchmark. Keys of `smallest` and `found`: among how many it was looked for.

    most  of the samples that may change, for a drop to be found as often as wanted
    """

    size: Size
    smallest: dict[int, float]
    found: dict[int, float]
    stopped: float
    alarms: float
    equal_passes: float
    margin_passes: float

    @property
    def task(self) -> str:
        return self.size.task

    def cells(self) -> list[str]:
        share = CAPTIONS_CHANGED if self.size.corpus else CHANGED
        most = [share * (DROP / drop) ** 2 for drop in self.smallest.values()]
        return [
            self.task,
            f"{self.size.samples:,}",
            f"{len(self.size.images):,}",
            *(f"{drop:.2f}" for drop in self.smallest.values()),
            *map(percent, self.found.values()),
            *map(percent, (self.stopped, self.alarms, self.equal_passes, self.margin_passes)),
            *(f"{p * self.size.samples:,.0f} ({p:.1%})" if p < 1 else "all" for p in most),
        ]


@dataclass(frozen=True, slots=True)
class Simulated:
    """Shares of verdicts: of the suite by scene, of equal candidates by margin; by benchmark."""

    suite: dict[str, dict[str, float]]
    margins: list[tuple[float, dict[str, float]]]
    benchmarks: list[Row]
    failures: list[str]


def simulate(repetitions: int) -> Simulated:
    """All under the assumption, and what fails of what is promised."""
    random = np.random.default_rng(SEED)
    suite, failures = sizes(), []
    drawn = {
        drop: [draw(random, size, repetitions, drop) for size in suite]
        for drop in (0.0, MARGIN, DROP)
    }
    together = {drop: list(zip(*found, strict=True)) for drop, found in drawn.items()}
    nothing = [Drawn(s.estimate(0.0, 0.0), 0, 0) for s in suite]
    verdicts = {
        SAME: [whole(judged(nothing))],
        EQUAL: [whole(judged(each)) for each in together[0.0]],
        WORSE: [whole(judged(each)) for each in together[DROP]],
    }
    totals = {scene: shares(found) for scene, found in verdicts.items()}
    if totals[SAME][PASS] < 1:
        failures.append("the same answers do not pass")
    if not at_most(totals[EQUAL][REGRESSED], repetitions, LEVEL):
        failures.append(f"alarms: {totals[EQUAL][REGRESSED]:.1%}")
    if not at_most(1 - totals[WORSE][REGRESSED], repetitions, 1 - POWER):
        failures.append(f"a drop in every benchmark: {totals[WORSE][REGRESSED]:.1%} found")
    margins = [
        (margin, shares([whole(judged(each, margin)) for each in together[0.0]]))
        for margin in (MARGIN, 1.0, 2.0, 3.0, 4.0)
    ]
    rows = []
    for number, size in enumerate(suite):
        equal, edge, lower = (
            shares([judged([each])[0] for each in found[number]]) for found in drawn.values()
        )
        among = [
            judged([*each[:number], worse, *each[number + 1 :]])[number] == REGRESSED
            for each, worse in zip(together[0.0], drawn[DROP][number], strict=True)
        ]
        row = Row(
            size,
            {n: smallest(drawn[DROP][number], n) for n in (1, len(suite))},
            {1: lower[REGRESSED], len(suite): float(np.mean(among))},
            stopped=1 - lower[PASS],
            alarms=equal[REGRESSED],
            equal_passes=equal[PASS],
            margin_passes=edge[PASS],
        )
        rows.append(row)
        for tests, share in row.found.items():
            promised = row.smallest[tests] < 0.97 * DROP
            if promised and not at_most(1 - share, repetitions, 1 - POWER):
                failures.append(f"{size.task} of {tests}: {share:.1%} found")
        for name, share in (("alarms", row.alarms), ("margin passes", row.margin_passes)):
            if not at_most(share, repetitions, LEVEL):
                failures.append(f"{size.task}: {name} {share:.1%}")
    return Simulated(totals, margins, rows, failures)


def sweep(repetitions: int) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Other assumptions: alarms of the suite, and what is found in some benchmarks alone."""
    random = np.random.default_rng(SEED + 1)
    suite, alarms, failures = sizes(), [], []
    for together in CORRELATIONS:
        row = [f"{together:g}"]
        for changed in SHARES:
            drawn = [
                draw(random, size, repetitions, changed=changed, together=together)
                for size in suite
            ]
            found = [whole(judged(each)) for each in zip(*drawn, strict=True)].count(REGRESSED)
            if not at_most(found / repetitions, repetitions, LEVEL):
                failures.append(f"alarms: {found / repetitions:.1%} at {changed}, {together}")
            row.append(percent(found / repetitions))
        alarms.append(row)
    power = []
    for size in (each for each in suite if each.task in SWEPT):
        for together in CORRELATIONS:
            row = [size.task, f"{together:g}"]
            for changed in SHARES:
                if changed * size.steps.mean() * 100 < DROP:
                    row.append("-")
                    continue
                drawn = draw(random, size, repetitions, DROP, changed, together)
                found = [judged([each])[0] for each in drawn].count(REGRESSED)
                row.append(percent(found / repetitions))
            power.append(row)
    return alarms, power, failures


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> list[str]:
    marks = ["---"] * texts + ["---:"] * (len(header) - texts)
    return [f"| {' | '.join(row)} |" for row in (header, marks, *rows)]


def pages(found: Simulated, repetitions: int) -> list[str]:
    """What was simulated, in words and tables."""
    tests = len(found.benchmarks)
    alarms, worse = (found.suite[scene][REGRESSED] for scene in (EQUAL, WORSE))
    reach = {n: t_quantile(1 - LEVEL / n, 1e6) + t_quantile(POWER, 1e6) for n in (1, tests)}
    per = {n: 100 * value / DROP for n, value in reach.items()}  # samples for a change to be found
    lists = {n: [row.task for row in found.benchmarks if row.found[n] >= POWER] for n in reach}
    known = [196 * (share * (1 - share) / repetitions) ** 0.5 for share in (0.05, 0.9)]
    steps = ", ".join(f"{step:g}" for step in VQA[:-1])
    quiet = np.log(LEVEL) / np.log(1 - MARGIN / 100)  # images without a change
    return [
        "# What the gate alarms at, and what it finds",
        "",
        "    python tests/bench/gate_power.py",
        "",
        prose(f"""Made by this command, from {repetitions:,} simulated comparisons of each kind: a
          share of 5% is known to {known[0]:.1f} points, one of 90% to {known[1]:.1f}. The verdicts
          are the gate's own, `eval.report.gate`, at its margin of {MARGIN:g} points."""),
        "",
        "## What is assumed",
        "",
        prose(f"""Samples and images are the official ones of every task that is scored here, of
          ScienceQA an image a question; OCR-VQA is not among them, as nobody pinned its size.
          Between two checkpoints of equal quality {CHANGED:.0%} of the samples change their value,
          as many for the better as for the worse, and the differences of two questions about one
          image correlate by {TOGETHER:g}. Values of VQA accuracy change by {steps} or
          {VQA[-1]:g}, all others by 1, also ANLS. Of captions {CAPTIONS_CHANGED:.0%} change, by a
          normal CIDEr of deviation {CAPTION_SD:g}. In a worse checkpoint as many samples change,
          and more of them for the worse. **None of this was measured:** no two real checkpoints
          were at hand. The last section has other assumptions."""),
        "",
        "## All benchmarks at once",
        "",
        *table(
            ("candidate", *VERDICTS),
            [[scene, *map(percent, each.values())] for scene, each in found.suite.items()],
        ),
        "",
        prose(f"""At most {LEVEL:.0%} alarms are wanted and {alarms:.1%} were found; the same
          answers never alarm. A drop of {DROP:g} in every benchmark is to be found in at least
          {POWER:.0%}, and was in {worse:.1%}. Two runs without one changed value pass by
          definition, however short: that none of n images changed excludes, at {LEVEL:.0%}, a drop
          in more than about 3 / n of them, so that of fewer than {quiet:,.0f} images it shows less
          than the margin."""),
        "",
        prose(f"""**Of equally good candidates {found.suite[EQUAL][PASS]:.1%} pass.** For that each
          of {tests} benchmarks must be shown to be within the margin, and for {MARGIN:g} most are
          too small (*equal passes* below): such a candidate ends as inconclusive. A wider margin
          lets it pass, or fewer and larger benchmarks, or answers of which fewer change:"""),
        "",
        *table(
            ("margin, equally good", *VERDICTS),
            [[f"{margin:g}", *map(percent, each.values())] for margin, each in found.margins],
        ),
        "",
        "## Each benchmark",
        "",
        prose(f"""*Alone*: compared by itself; *of all*: as one of the suite, of which it alone is
          worse, so that Holm takes {tests} p-values. *Smallest*: the drop that the gate says would
          have been shown, the median. *Found*: a drop of {DROP:g} is called regressed. *Stopped*:
          it does not pass. *Alarms*, *equal passes*: an equally good candidate, alone, is called
          regressed, passes. *Margin passes*: one that is worse by just {MARGIN:g} passes. *Changes
          at most*: with so many changed samples a drop of {DROP:g} is found in {POWER:.0%}."""),
        "",
        *table(HEADER, [row.cells() for row in found.benchmarks]),
        "",
        prose(f"""**A drop of {DROP:g} is found in {POWER:.0%}** in {len(lists[1])} of {tests}
          benchmarks alone: {", ".join(lists[1])}; of all in {len(lists[tests])}:
          {", ".join(lists[tests])}."""),
        "",
        prose(f"""In the others it is not. What decides is how many samples changed. Where each of n
          samples has its own image, and of k that changed as many rose as fell, the error is
          100 sqrt(k) / n points. A drop is found in {POWER:.0%} where it is {reach[1]:.2f} errors,
          of {tests} benchmarks {reach[tests]:.2f}: for {DROP:g} k must not exceed
          (n / {per[1]:.0f})², of all (n / {per[tests]:.0f})². Of 2,000 samples these are
          {(2000 / per[1]) ** 2:.0f} and {(2000 / per[tests]) ** 2:.0f}, or
          {(2000 / per[1]) ** 2 / 2000:.1%} and {(2000 / per[tests]) ** 2 / 2000:.1%}; with
          {CHANGED:.0%} changed, n must be {CHANGED * per[1] ** 2:,.0f} and
          {CHANGED * per[tests] ** 2:,.0f}. Questions that share images tell less. What is not
          found is seldom let through: it is inconclusive, and the exit code says so."""),
    ]


def main() -> int:
    """Simulate, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, nothing written")
    quick = parser.parse_args().quick
    repetitions = 120 if quick else 4000
    found = simulate(repetitions)
    told, failures = pages(found, repetitions), found.failures
    if not quick:
        alarms, power, more = sweep(repetitions // 4)
        failures += more
        header = [f"{share:.0%}" for share in SHARES]
        told += ["", "## Other assumptions", ""]
        told.append(
            prose(f"""So many samples change, of captions always {CAPTIONS_CHANGED:.0%}, and so much
                do questions of an image correlate; {repetitions // 4:,} comparisons each. Alarms of
                the suite where the candidate is equally good:""")
        )
        told += ["", *table(("correlation", *header), alarms)]
        told += ["", f"A drop of {DROP:g} found in a benchmark alone:", ""]
        told += table(("benchmark", "correlation", *header), power, 2)
        PAGE.write_text("\n".join(told) + "\n", encoding="utf-8")
    print("\n".join(told))
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failures))


HEADER = (
    "benchmark",
    "samples",
    "images",
    "smallest, alone",
    "of all",
    "found, alone",
    "of all",
    "stopped, alone",
    "alarms",
    "equal passes",
    "margin passes",
    "changes at most, alone",
    "of all",
)

if __name__ == "__main__":
    sys.exit(main())
