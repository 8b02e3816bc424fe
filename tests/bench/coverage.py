"""Coverage of 95% intervals with few images and near the ends of a metric's range, by simulation.

    python tests/bench/coverage.py [--quick]

Values of samples are drawn again and again, clustered by image, from distributions whose mean is
known; counted is how often an interval holds it. Beside the method of eval.scoring.stats stand the
one it replaced and two others. For many draws at once the methods are written here in numpy; in
every scene one draw is compared with eval.scoring.stats itself.

Writes results/bench/coverage.md. Exit status 1 where our intervals leave the range or cover less
than LEAST, or where equally good runs alarm too often. With --quick few draws, and nothing is
written.
"""

import argparse
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri, stdtr, stdtrit

from eval.scoring.stats import CONFIDENCE, FEWEST, Tally, score_interval, t_quantile

PAGE = Path(__file__).resolve().parents[2] / "results" / "bench" / "coverage.md"
SEED = 20231107
DRAWS, QUICK = 1000, 200
LEAST = 0.93  # coverage that each scene must have, but for chance
LEVEL = 0.05  # share of equally good runs that may be called worse, but for chance,
FEW = 20  # with at most so many images
TAIL = (1 - CONFIDENCE) / 2
Z = float(ndtri(1 - TAIL))
IMAGES = (3, 4, 5, 6, 8, 10, 30, 100)
HEAVY = "one image has half"
CORRELATIONS = (0.0, 0.1, 0.4, 1.0)  # of two questions about one image
SIZES: dict[str, Callable[[int], list[int]]] = {
    "one question each": lambda images: [1] * images,
    "four questions each": lambda images: [4] * images,
    "1 to 7 questions": lambda images: [1 + 3 * n % 7 for n in range(images)],
    HEAVY: lambda images: [2 * images] + [2] * (images - 1),
}
MEANS = {  # metric -> shares of samples that are right, or for CIDEr and the judge the mean itself
    "right or wrong": (0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99),
    "VQA accuracy": (0.01, 0.03, 0.1, 0.5, 0.9, 0.97, 0.99),
    "ANLS": (0.03, 0.1, 0.5, 0.9, 0.97, 0.99),
    "CIDEr": (0.003, 0.01, 0.03, 0.1),
    "judge, 1 to 10": (0.03, 0.1, 0.5, 0.9, 0.97),
}
OURS, BEFORE, SURVEY, LOGIT = "score, t", "before", "Korn-Graubard", "logit, t"

Array = NDArray[np.float64]
Ends = tuple[Array, Array]


@dataclass(frozen=True, slots=True)
class Scene:
    """Where values come from. mean: as in MEANS."""

    metric: str
    sizes: str
    images: int
    correlation: float
    mean: float

    @property
    def questions(self) -> NDArray[np.int64]:
        """Of each image."""
        return np.array(SIZES[self.sizes](self.images))


@dataclass(frozen=True, slots=True)
class Found:
    """How often a method's intervals hold the mean, how wide they are, how many leave the range."""

    scene: Scene
    method: str
    coverage: float
    width: float
    outside: float


def scenes(images: Sequence[int]) -> Iterator[Scene]:
    """All combinations; without shared images there is no correlation."""
    for count, metric, sizes in itertools.product(images, MEANS, SIZES):
        shared = max(SIZES[sizes](count)) > 1
        for correlation in CORRELATIONS if shared else CORRELATIONS[:1]:
            for mean in MEANS[metric]:
                yield Scene(metric, sizes, count, correlation, mean)


def values(random: np.random.Generator, metric: str, chance: Array) -> Array:
    """A value from 0 to 1 for each question, by how good its image is."""
    if metric == "CIDEr":
        return np.minimum(chance * random.gamma(1.0, size=chance.shape), 1.0)
    if metric == "judge, 1 to 10":
        likely = np.clip(chance, 1e-6, 1 - 1e-6) * 6
        return np.round(9 * random.beta(likely, 6 - likely)) / 9
    right = random.random(chance.shape) < chance
    if metric == "VQA accuracy":
        high = random.choice([0.6, 0.9, 1.0, 1.0, 1.0], size=chance.shape)
        return np.where(right, high, random.choice([0.0, 0.0, 0.0, 0.0, 0.3], size=chance.shape))
    if metric == "ANLS":
        return np.where(right, 1 - 0.5 * random.beta(0.3, 2.0, size=chance.shape), 0.0)
    return right.astype(float)


def chances(random: np.random.Generator, scene: Scene, shape: tuple[int, int]) -> Array:
    """How good each image is: by a beta distribution, for CIDEr by a gamma distribution."""
    if scene.metric == "CIDEr":
        shared = random.gamma(1 / scene.correlation, size=shape) if scene.correlation else 1.0
        return np.broadcast_to(scene.mean * (scene.correlation or 1.0) * shared, shape)
    if scene.correlation == 1:
        return (random.random(shape) < scene.mean).astype(float)
    if not scene.correlation:
        return np.full(shape, scene.mean)
    both = (1 - scene.correlation) / scene.correlation
    return random.beta(scene.mean * both, (1 - scene.mean) * both, size=shape)


@cache
def true_mean(scene: Scene) -> float:
    """By formula; that of rounded scores from half a million draws."""
    if scene.metric == "VQA accuracy":
        return scene.mean * 0.9 + (1 - scene.mean) * 0.06
    if scene.metric == "ANLS":
        return scene.mean * (1 - 0.5 * 0.3 / 2.3)
    if scene.metric == "judge, 1 to 10":
        random = np.random.default_rng(SEED)
        return float(values(random, scene.metric, chances(random, scene, (500, 1000))).mean())
    return scene.mean


def draw(random: np.random.Generator, scene: Scene, draws: int) -> Array:
    """Sums of each image's values: (draws, images)."""
    owner = np.repeat(np.arange(scene.images), scene.questions)
    chance = chances(random, scene, (draws, scene.images))[:, owner]
    drawn = values(random, scene.metric, chance)
    starts = np.searchsorted(owner, np.arange(scene.images))
    found: Array = np.add.reduceat(drawn, starts, axis=1)
    return found


def wilson(p: Array, size: Array | float, quantile: float) -> Ends:
    """Wilson's interval without continuity correction."""
    h = quantile**2 / size
    reach = quantile / (1 + h) * np.sqrt(np.maximum(p * (1 - p), 0) / size + h / size / 4)
    return (p + h / 2) / (1 + h) - reach, (p + h / 2) / (1 + h) + reach


def clustered(sums: Array, questions: NDArray[np.int64]) -> tuple[Array, Array, Array, float]:
    """Mean, its variance by Liang and Zeger and by the jackknife, Kish's number of images."""
    count, images = questions.sum(), len(questions)
    p = sums.sum(axis=1) / count
    off = sums - questions * p[:, None]
    factor = images / (images - 1)
    usual = factor * (off**2).sum(axis=1) / count**2
    jackknife = ((off / (count - questions)) ** 2).sum(axis=1) / factor
    return p, usual, jackknife, float(count**2 / (questions**2).sum())


def dispersion(p: Array, variance: Array, images: float, *, difference: bool = False) -> Array:
    """As Estimate.dispersion has it, of values from 0 to 1."""
    u2 = (2 * p - 1) ** 2
    spread = images * (1 - u2)
    weight = (1 + u2) / (spread + 1 + u2)
    observed = np.where(spread > 1e-12, 4 * variance * images**2 / np.maximum(spread, 1e-12), 1.0)
    return np.maximum(observed, weight) if difference else observed + weight * (1 - observed)


def ours(sums: Array, questions: NDArray[np.int64]) -> Ends:
    """The method of eval.scoring.stats, whatever the number of images."""
    p, _, variance, images = clustered(sums, questions)
    size = images / dispersion(p, variance, images)
    quantile = stdtrit(images - 1, 1 - TAIL)
    low, _ = wilson(np.maximum(p - 0.5 / size, 0), size, quantile)
    _, high = wilson(np.minimum(p + 0.5 / size, 1), size, quantile)
    return low, high


def before(sums: Array, questions: NDArray[np.int64]) -> Ends:
    """Student's t over images; Wilson's interval for right and wrong of an image each, and where
    all values are equal.
    """
    p, variance, _, _ = clustered(sums, questions)
    images = len(questions)
    reach = stdtrit(images - 1, 1 - TAIL) * np.sqrt(variance)
    low, high = wilson(p, images, Z)
    binary = (sums == np.round(sums)).all(axis=1) & (questions == 1).all()
    equal = (p < 1e-12) | (p > 1 - 1e-12)
    return np.where(binary | equal, low, p - reach), np.where(binary | equal, high, p + reach)


def bootstrap(sums: Array, questions: NDArray[np.int64]) -> Ends:
    """Percentiles of 500 draws of images: what CIDEr had before, there with 2,000."""
    random, images = np.random.default_rng(SEED), len(questions)
    weights = random.multinomial(images, np.full(images, 1 / images), size=500)
    means = sums @ weights.T / (weights @ questions)
    low, high = np.quantile(means, [TAIL, 1 - TAIL], axis=1)
    return low, high


def korn_graubard(sums: Array, questions: NDArray[np.int64]) -> Ends:
    """Clopper and Pearson's interval with an effective sample size, as surveys use it."""
    p, variance, _, _ = clustered(sums, questions)
    equal = (p < 1e-12) | (p > 1 - 1e-12)
    shrunk = (Z / stdtrit(len(questions) - 1, 1 - TAIL)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(variance > 1e-18, p * (1 - p) / variance, np.inf)
    size = np.where(equal, len(questions), np.minimum(size * shrunk, questions.sum()))
    hits = p * size
    low = betaincinv(np.maximum(hits, 1e-12), size - hits + 1, TAIL)
    high = betaincinv(hits + 1, np.maximum(size - hits, 1e-12), 1 - TAIL)
    return np.where(hits > 1e-12, low, 0.0), np.where(hits < size - 1e-12, high, 1.0)


def logit(sums: Array, questions: NDArray[np.int64]) -> Ends:
    """Student's t around the logarithm of the odds, half an image added to either side."""
    p, _, variance, images = clustered(sums, questions)
    shrunk = (images * p + 0.5) / (images + 1)
    least = (p**2 + (1 - p) ** 2) / 2 / (images * (images + 1))
    error = np.sqrt(np.maximum(variance, least)) / (shrunk * (1 - shrunk))
    middle, quantile = np.log(shrunk / (1 - shrunk)), stdtrit(images - 1, 1 - TAIL)
    with np.errstate(over="ignore"):
        low, high = (1 / (1 + np.exp(-(middle + s * quantile * error))) for s in (-1, 1))
    return low, high


METHODS = {OURS: ours, BEFORE: before, SURVEY: korn_graubard, LOGIT: logit}


def check(scene: Scene, sums: Array, ends: Ends) -> None:
    """What was computed for many draws at once is what eval.scoring.stats makes of the first."""
    tally = Tally()
    tally.clusters = {
        image: [int(count), float(total)]
        for image, (count, total) in enumerate(zip(scene.questions, sums[0], strict=True))
    }
    estimate = tally.estimate()
    found = estimate.interval()
    if scene.images < FEWEST:
        assert (None, None) == (found.low, found.high)
        quantile = t_quantile(1 - TAIL, estimate.degrees)
        told = score_interval(2 * estimate.mean - 1, estimate.size, quantile)
        expected = (told[0] + 1) / 2, (told[1] + 1) / 2
    else:
        assert found.low is not None
        assert found.high is not None
        expected = found.low, found.high
    assert np.allclose(expected, (ends[0][0], ends[1][0]), atol=1e-6), (scene, expected)


def simulate(wanted: Iterable[Scene], draws: int) -> list[Found]:
    """Every scene by every method."""
    random = np.random.default_rng(SEED)
    found = []
    for scene in wanted:
        sums, truth = draw(random, scene, draws), true_mean(scene)
        for name, method in METHODS.items():
            if name == BEFORE and scene.metric == "CIDEr":
                method = bootstrap
            low, high = method(sums, scene.questions)
            if name == OURS:
                check(scene, sums, (low, high))
            held = (low <= truth + 1e-9) & (truth - 1e-9 <= high)
            width = np.minimum(high, 1) - np.maximum(low, 0)
            outside = (low < -1e-9) | (high > 1 + 1e-9)
            numbers = (float(each.mean()) for each in (held, width, outside))
            found.append(Found(scene, name, *numbers))
    return found


def differences(random: np.random.Generator, kind: str, draws: int, images: int) -> Array:
    """Sums of differences of two equally good runs, four questions an image: their mean is 0."""
    shape = (draws, images)
    match kind:
        case "8% of samples flip":
            return random.choice([-1, 0, 1], p=[0.04, 0.92, 0.04], size=(*shape, 4)).sum(axis=2)
        case "8% of images flip":
            return 4 * random.choice([-1.0, 0, 1], p=[0.04, 0.92, 0.04], size=shape)
        case "rare rises, many small falls":
            return 4 * random.choice([1, 0, -0.1], p=[0.03, 0.67, 0.3], size=shape)
        case _:
            return 4 * random.choice([1, -0.01], p=[0.01 / 1.01, 1 / 1.01], size=shape)


KINDS = (
    "8% of samples flip",
    "8% of images flip",
    "rare rises, many small falls",
    "a rare rise, all else falls alike",
)


def alarms(kind: str, images: int, draws: int) -> tuple[float, float]:
    """How often such runs are called worse at 5%: before, and now."""
    sums = differences(np.random.default_rng(SEED), kind, draws, images)
    questions = np.full(images, 4)
    mean, variance, _, _ = clustered(sums, questions)
    sign = 0.5**images
    with np.errstate(divide="ignore", invalid="ignore"):
        usual = stdtr(images - 1, mean / np.sqrt(variance))
    usual = np.where(variance > 1e-18, usual, np.where(mean < 0, 0.0, 1.0))
    p, _, variance, effective = clustered((sums + questions) / 2, questions)
    size = effective / dispersion(p, variance, effective, difference=True)
    score = stdtr(effective - 1, -(0.5 - p - 0.5 / size) / np.sqrt(0.25 / size))
    tally = Tally()
    tally.clusters = {n: [4, float(total)] for n, total in enumerate(sums[0])}
    told = tally.estimate(-1.0, 1.0, difference=True).p_below(0.0)
    assert np.isclose(told, max(score[0], sign)), (kind, images)
    return tuple(float((np.maximum(each, sign) < 0.05).mean()) for each in (usual, score))  # type: ignore[return-value]


def failures(found: Sequence[Found], images: Sequence[int], draws: int) -> Iterator[str]:
    """What our intervals and p-values promise and do not keep, but for chance."""
    slack = 4 * (0.05 * 0.95 / draws) ** 0.5
    for each in found:
        if each.method == OURS and (each.outside or each.coverage < LEAST - slack):
            yield f"{each.scene}: {each.coverage:.1%} covered, {each.outside:.1%} outside"
    few = [count for count in images if FEWEST <= count <= FEW]
    for kind, count in itertools.product(KINDS, few):
        if (share := alarms(kind, count, draws)[1]) > LEVEL + slack:
            yield f"{kind}, {count} images: {share:.1%} alarms"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return ["", *(f"| {' | '.join(row)} |" for row in (header, marks, *rows)), ""]


def prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False)


def width(found: Sequence[Found], images: int, method: str) -> float:
    """The mean, where no image has half of the questions."""
    told = [e for e in found if e.scene.images == images and e.scene.sizes != HEAVY]
    return float(np.mean([each.width for each in told if each.method == method]))


def by_images(found: Sequence[Found], images: Sequence[int]) -> Iterator[list[str]]:
    for count, name in itertools.product(images, METHODS):
        told = [each for each in found if each.scene.images == count and each.method == name]
        coverage = np.array([each.coverage for each in told])
        yield [
            f"{count}",
            name,
            f"{coverage.mean():.1%}",
            f"{coverage.min():.1%}",
            f"{np.mean(coverage < LEAST):.0%}",
            f"{width(found, count, name):.2f}",
            f"{np.mean([each.outside for each in told]):.1%}",
        ]


def least(found: Sequence[Found], wanted: Callable[[Scene], bool]) -> str:
    """The least coverage of both methods among such scenes."""
    lowest = {
        name: min(
            (each.coverage for each in found if each.method == name and wanted(each.scene)),
            default=None,
        )
        for name in (BEFORE, OURS)
    }
    return " / ".join("-" if each is None else f"{each:.0%}" for each in lowest.values())


def page(found: Sequence[Found], images: Sequence[int], draws: int) -> list[str]:
    """All of it, in words and tables."""
    counted = [f"{count} images" for count in images]
    means = sorted({mean for each in MEANS.values() for mean in each})
    few = [count for count in images if count < FEWEST]
    told = ", ".join(f"{width(found, count, OURS):.0%} with {count}" for count in few)
    lines = [
        "# What 95% intervals cover",
        "",
        "    python tests/bench/coverage.py",
        "",
        prose(f"""Made by this command (seed {SEED}), from {draws:,} draws of each scene: a coverage
          of 95% is known to {196 * (0.05 * 0.95 / draws) ** 0.5:.1f} points. A scene is a metric, a
          mean, a number of images, of questions about each, and how much questions about one image
          agree (correlations {", ".join(f"{each:g}" for each in CORRELATIONS)}). Values of VQA
          accuracy are 0, 0.3, 0.6, 0.9 and 1; of ANLS 0, or 0.5 to 1; those of CIDEr and of a judge
          are skewed. Images have one question each, four each, or 1 to 7, or one image has half of
          all questions."""),
        "",
        prose(f"""*{OURS}* is the method of `eval/scoring/stats.py`: Wilson's score interval with
          continuity correction, an effective sample size, and Student's t, each by image, with one
          image assumed that is half right and half wrong. *{BEFORE}* is what it replaced: Student's
          t over images, Wilson's interval for proportions and equal values, a bootstrap for CIDEr.
          *{SURVEY}* is Clopper and Pearson's interval as surveys use it; *{LOGIT}* is Student's t
          around the logarithm of the odds."""),
        "",
        "## By number of images",
        "",
        prose(f"""Over all scenes with so many images: coverage on average and in the worst scene,
          the share of scenes with less than {LEAST:.0%}, the width inside the range as a part of
          it (where no image has half of the questions), and the share of intervals that leave the
          range."""),
        *table(
            ("images", "method", "coverage", "worst", f"< {LEAST:.0%}", "width", "outside"),
            list(by_images(found, images)),
        ),
        prose(f"""With fewer than {FEWEST} images no interval is printed, but "too few images for an
          interval". What covers 95% there takes most of the range ({told}) and says nothing; the
          narrower ones of other methods do not cover 95%."""),
        "",
        "## Near the ends of the range",
        "",
        prose(f"""The worst coverage of any metric, correlation and number of questions, {BEFORE} /
          {OURS}, by the share of right answers (for CIDEr and a judge: the mean as a part of the
          range)."""),
        *table(
            ("share", *counted),
            [
                [
                    f"{mean:g}",
                    *(
                        least(found, lambda s, m=mean, c=count: (s.mean, s.images) == (m, c))  # type: ignore[misc]
                        for count in images
                    ),
                ]
                for mean in means
            ],
        ),
        "## By metric",
        "",
        f"The same by metric, {BEFORE} / {OURS}:",
        *table(
            ("metric", *counted),
            [
                [
                    metric,
                    *(
                        least(found, lambda s, m=metric, c=count: (s.metric, s.images) == (m, c))  # type: ignore[misc]
                        for count in images
                    ),
                ]
                for metric in MEANS
            ],
        ),
        "## Alarms of the gate",
        "",
        prose("""How often a candidate that is as good as the baseline has a p-value below 5% for
          being worse, before / now, with four questions about each image. Before, the p-value of
          equal differences was the sign test's. That tests the median: it takes no account of a
          rare rise that a few images do not show. A rise so rare that even a hundred images hardly
          show it still alarms too often, as with any method that takes the variance from them; no
          benchmark's values are known to differ like that."""),
        *table(
            ("differences", *counted[2:]),
            [
                [
                    kind,
                    *(" / ".join(f"{a:.1%}" for a in alarms(kind, n, draws)) for n in images[2:]),
                ]
                for kind in KINDS
            ],
        ),
    ]
    return lines[:-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few draws; writes nothing")
    quick = parser.parse_args().quick
    draws, images = (QUICK, IMAGES[:6]) if quick else (DRAWS, IMAGES)
    found = simulate(scenes(images), draws)
    lines = page(found, images, draws)
    print("\n".join(lines))
    if not quick:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    failed = list(failures(found, images, draws))
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
