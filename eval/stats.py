"""Intervals over values that belong together: questions about one image are not independent."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it may lie.

    low, high  None where there are too few clusters to tell
    values     how many; clusters: of how many images
    """

    mean: float
    low: float | None
    high: float | None
    values: int
    clusters: int


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE
) -> Interval:
    """The mean of values and its cluster-robust interval: Student's t, clusters - 1 degrees.

    clusters  of each value, such as its image; clusters may differ in size

    The variance of the mean is G / (G - 1) * sum over clusters of (sum of their deviations)^2, over
    the squared number of values. Raises ValueError where there are no values.

    Source  Liang and Zeger 1986, for a mean; the small-sample factor is the usual one
    """
    if not values:
        raise ValueError("at least one value expected")
    count = len(values)
    mean = math.fsum(values) / count
    deviations: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        deviations.setdefault(cluster, []).append(value - mean)
    groups = len(deviations)
    if groups < 2:
        return Interval(mean, None, None, count, groups)
    from scipy.stats import t

    squares = math.fsum(math.fsum(each) ** 2 for each in deviations.values())
    error = math.sqrt(groups / (groups - 1) * squares) / count
    reach = float(t.ppf((1 + confidence) / 2, groups - 1)) * error
    return Interval(mean, mean - reach, mean + reach, count, groups)
