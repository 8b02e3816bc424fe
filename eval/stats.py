"""Intervals and tests over values that belong together.

Questions about one image are not independent, so what counts is images.
Values come one at a time; what is kept of them is a sum for each image.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
DRAWS = 2000  # of a bootstrap
BLOCK = 4_000_000  # numbers of it that are held at a time
T, WILSON, BOOTSTRAP = "t over images", "Wilson", "bootstrap over images"  # how an interval is made


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it may lie.

    low, high  None where there are too few clusters to tell
    values     how many; clusters: of how many images
    method     how it was made
    """

    mean: float
    low: float | None
    high: float | None
    values: int
    clusters: int
    method: str = T


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference and its standard error, cluster-robust.

    No p-value is below that of so many clusters all of one sign: where they agree by chance the
    error is next to nothing, and Student's t would be certain of two pictures.

    error  None where there are too few clusters to tell
    """

    mean: float
    error: float | None
    values: int
    clusters: int

    @property
    def degrees(self) -> int:
        """Of freedom."""
        return self.clusters - 1

    @property
    def least_p(self) -> float:
        """How likely so many clusters have one sign, were either as likely: the sign test's."""
        return 0.5**self.clusters

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Where the difference may lie, both ends."""
        if self.error is None:
            return None
        reach = t_quantile((1 + confidence) / 2, self.degrees) * self.error
        return self.mean - reach, self.mean + reach

    def p_above(self, bound: float) -> float:
        """How likely so high a mean would be, were the true difference at `bound` or below."""
        return self._p(self.mean - bound)

    def p_below(self, bound: float) -> float:
        """How likely so low a mean would be, were the true difference at `bound` or above."""
        return self._p(bound - self.mean)

    def _p(self, reach: float) -> float:
        if self.error is None:
            return 1.0
        if self.error == 0.0:
            return self.least_p if reach > 0 else 1.0
        return max(t_above(reach / self.error, self.degrees), self.least_p)


class Tally:
    """Values, added up by cluster."""

    def __init__(self) -> None:
        self.clusters: dict[Hashable, list[float]] = {}  # -> how many, their sum
        self.binary = True  # every value is 0 or 1

    def add(self, value: float, cluster: Hashable) -> None:
        """Count a value. Clusters may differ in size."""
        found = self.clusters.get(cluster)
        if found is None:
            self.clusters[cluster] = [1, value]
        else:
            found[0] += 1
            found[1] += value
        if value not in (0.0, 1.0):
            self.binary = False

    @classmethod
    def of(cls, values: Sequence[float], clusters: Sequence[Hashable]) -> "Tally":
        """All of these. Raises ValueError where their numbers differ."""
        tally = cls()
        for value, cluster in zip(values, clusters, strict=True):
            tally.add(value, cluster)
        return tally

    def difference(self) -> Difference:
        """The mean, which may be one of differences, and its cluster-robust standard error.

        The variance of the mean is G / (G - 1) * sum over clusters of (sum of their deviations)^2,
        over the squared number of values. Raises ValueError where there are no values.

        Source  Liang and Zeger 1986, for a mean; the small-sample factor is the usual one
        """
        if not self.clusters:
            raise ValueError("at least one value expected")
        count = int(sum(n for n, _ in self.clusters.values()))
        mean = math.fsum(total for _, total in self.clusters.values()) / count
        groups = len(self.clusters)
        if groups < 2:
            return Difference(mean, None, count, groups)
        squares = math.fsum((total - n * mean) ** 2 for n, total in self.clusters.values())
        return Difference(mean, math.sqrt(groups / (groups - 1) * squares) / count, count, groups)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Where the mean may lie: Student's t, clusters - 1 degrees; or Wilson's for proportions.

        Wilson's is taken where no two values share a cluster, and where all values are equal, of
        which Student's t would make an interval without width: then each cluster counts once.
        Raises ValueError where there are no values.
        """
        found = self.difference()
        count, groups = found.values, found.clusters
        if self.binary and (count == groups or found.mean in (0.0, 1.0)):
            low, high = wilson(found.mean * groups, groups, confidence)
            return Interval(found.mean, low, high, count, groups, WILSON)
        low_end, high_end = found.interval(confidence) or (None, None)
        return Interval(found.mean, low_end, high_end, count, groups)

    def bootstrap(self, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
        """Where the mean may lie, by drawing clusters again and again: percentiles.

        For corpus metrics, whose values are skewed. Equal values and seed give equal intervals.
        """
        found = self.difference()
        groups = found.clusters
        if groups < 2:
            return Interval(found.mean, None, None, found.values, groups, BOOTSTRAP)
        told = np.array(list(self.clusters.values()))  # (G, 2)
        told = told[np.lexsort((told[:, 0], told[:, 1]))]  # whatever order they came in
        draws = np.random.Generator(np.random.PCG64(seed))
        means: list[float] = []
        while len(means) < DRAWS:
            rows = min(DRAWS - len(means), max(BLOCK // groups, 1))
            weights = draws.multinomial(groups, np.full(groups, 1 / groups), size=rows)
            counts, sums = (weights @ told).T
            means += (sums / counts).tolist()
        tail = (1 - confidence) / 2
        low, high = np.quantile(np.array(means), [tail, 1 - tail]).tolist()
        return Interval(found.mean, low, high, found.values, groups, BOOTSTRAP)


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE
) -> Interval:
    """The mean of values and its cluster-robust interval: Student's t, clusters - 1 degrees.

    clusters  of each value, such as its image

    Raises ValueError where there are no values.
    """
    found = Tally.of(values, clusters).difference()
    low, high = found.interval(confidence) or (None, None)
    return Interval(found.mean, low, high, found.values, found.clusters)


def wilson(hits: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Where a proportion may lie; never beyond 0 and 1, and never without width.

    Source  Wilson 1927, without a continuity correction
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    share, squared = hits / count, z * z / count
    middle = (share + squared / 2) / (1 + squared)
    reach = z / (1 + squared) * math.sqrt(share * (1 - share) / count + squared / count / 4)
    low = 0.0 if hits == 0 else max(middle - reach, 0.0)
    return low, 1.0 if hits == count else min(middle + reach, 1.0)


def holm(probabilities: Iterable[float]) -> list[float]:
    """Each p-value as it counts among so many tests, in the order given.

    Source  Holm 1979
    """
    found = list(probabilities)
    order = sorted(range(len(found)), key=found.__getitem__)
    adjusted = [1.0] * len(found)
    so_far = 0.0
    for place, number in enumerate(order):
        so_far = max(so_far, min((len(found) - place) * found[number], 1.0))
        adjusted[number] = so_far
    return adjusted


def t_quantile(probability: float, degrees: float) -> float:
    """Student's t below which lies so much."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def t_above(value: float, degrees: float) -> float:
    """How much of Student's t lies above a value."""
    from scipy.special import stdtr

    return float(stdtr(degrees, -value))
