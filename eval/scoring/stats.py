"""Intervals and tests for means of values within a range, clustered by image.

Questions about one image are not independent, so images are counted. Values come one at a time;
only a sum for each image is kept.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FEWEST = 5  # images below which there is no interval; results/bench/coverage.md says why
METHOD = "score interval over images"
LARGEST_T = 1e6  # a larger quantile leaves nothing of the range out
SLACK = 1e-9  # beyond a range: rounding


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval.

    low, high  None where there is no interval; `reason` then says why
    values     number of values; clusters: number of images they belong to
    """

    mean: float
    low: float | None
    high: float | None
    values: int
    clusters: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """A mean of values within a range, and how uncertain it is.

    low, high   the range of the values
    error       standard error of the mean, by the jackknife over images; None for one image
    effective   number of images of equal size that would be as informative (Kish); there is one
                degree of freedom less
    difference  whether the values are differences, so that the middle of the range is no change

    The calculation uses the mean's position in its range, u from -1 to 1. If the true position were
    v, the standard error of u would be sqrt((1 - v^2) / size), where `size` is the effective sample
    size. The interval holds every v that is less than a quantile of Student's t such errors away
    from u. As the error vanishes at both ends of the range, the interval never reaches beyond them.

    Sources  Wilson 1927; Newcombe 1998 for the continuity correction; Korn and Graubard 1998 for
             clusters: the effective sample size and Student's t; Kish 1965
    """

    mean: float
    error: float | None
    values: int
    clusters: int
    effective: float
    low: float = 0.0
    high: float = 1.0
    difference: bool = False

    @property
    def degrees(self) -> float:
        """Degrees of freedom."""
        return self.effective - 1

    @property
    def dispersion(self) -> float:
        """Variance of the images' means as a share of the largest that their mean allows.

        A few images may agree by chance and would then seem to leave no doubt. So one more image is
        assumed, half of it at each end of the range. For a mean it is pooled with the others. Most
        differences are 0, in the middle of a wide range, where one such image outweighs the
        variance of a thousand others; there it only sets the minimum.
        """
        u = self._position
        images, assumed = self.effective * (1 - u * u), 1 + u * u
        if self.error is None or not images:
            return 1.0
        observed = (self.error / self._half * self.effective) ** 2 / images
        weight = assumed / (images + assumed)  # of the assumed image, whose dispersion is 1
        return max(observed, weight) if self.difference else observed + weight * (1 - observed)

    @property
    def size(self) -> float:
        """Effective sample size: the number of independent values, each at an end of the range,
        whose mean would be as uncertain.
        """
        return self.effective / self.dispersion

    @property
    def least_p(self) -> float:
        """The lowest p-value that so many images can give: all values at one end of the range."""
        alike = MeanEstimate(1.0, 0.0, self.values, self.clusters, self.effective, -1.0, 1.0)
        return alike.p_above(0.0)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The confidence interval of the mean; none of fewer than FEWEST images."""
        if self.clusters < FEWEST:
            reason = f"too few images for an interval ({self.clusters:,})"
            return Interval(self.mean, None, None, self.values, self.clusters, reason)
        quantile = t_quantile((1 + confidence) / 2, self.degrees)
        below, above = score_interval(self._position, self.size, quantile)
        middle = (self.low + self.high) / 2
        low = max(min(middle + self._half * below, self.mean), self.low)  # against rounding
        high = min(max(middle + self._half * above, self.mean), self.high)
        return Interval(self.mean, low, high, self.values, self.clusters)

    def p_above(self, bound: float) -> float:
        """Probability of so high a mean or a higher one if the true mean is at most `bound`."""
        return self._p(bound, 1)

    def p_below(self, bound: float) -> float:
        """Probability of so low a mean or a lower one if the true mean is at least `bound`."""
        return self._p(bound, -1)

    def _p(self, bound: float, side: int) -> float:
        """Never below the p-value of the sign test for so many images."""
        if self.error is None or not self.degrees:
            return 1.0
        v = self._place(bound)
        distance = side * (self._position - v) - 1 / self.size
        if abs(v) >= 1:  # the true mean cannot be beyond the range's ends
            return 0.5**self.clusters if distance > 0 else 1.0
        error = math.sqrt((1 - v * v) / self.size)
        return max(t_above(distance / error, self.degrees), 0.5**self.clusters)

    @property
    def _position(self) -> float:
        return min(max(self._place(self.mean), -1.0), 1.0)  # against rounding

    def _place(self, value: float) -> float:
        """Where in the range, whose ends are -1 and 1."""
        return (value - (self.low + self.high) / 2) / self._half

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2


class Tally:
    """Values, added up by cluster."""

    def __init__(self) -> None:
        self.clusters: dict[Hashable, list[float]] = {}  # -> how many, their sum
        self.least = math.inf
        self.most = -math.inf

    def add(self, value: float, cluster: Hashable) -> None:
        """Count a value. Clusters may differ in size."""
        total = self.clusters.get(cluster)
        if total is None:
            self.clusters[cluster] = [1, value]
        else:
            total[0] += 1
            total[1] += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)

    @classmethod
    def of(cls, values: Sequence[float], clusters: Sequence[Hashable]) -> "Tally":
        """A tally of these. Raises ValueError where their numbers differ."""
        tally = cls()
        for value, cluster in zip(values, clusters, strict=True):
            tally.add(value, cluster)
        return tally

    @property
    def values(self) -> int:
        """The number of values."""
        return int(sum(n for n, _ in self.clusters.values()))

    @property
    def mean(self) -> float:
        """Their mean. Raises ValueError where there are no values."""
        if not self.clusters:
            raise ValueError("at least one value expected")
        return math.fsum(total for _, total in self.clusters.values()) / self.values

    def within(self, low: float, high: float) -> bool:
        """Whether every value lies in this range."""
        return low - SLACK <= self.least and self.most <= high + SLACK

    def interval(self, low: float = 0.0, high: float = 1.0) -> Interval:
        """The confidence interval of a mean of values between `low` and `high`.

        There is none where a value lies outside: then this is not the range of the metric. Raises
        ValueError where there are no values.
        """
        mean = self.mean
        if self.within(low, high):
            return self.estimate(low, high).interval()
        reason = f"values outside {low:g} to {high:g}: no interval"
        return Interval(mean, None, None, self.values, len(self.clusters), reason)

    def estimate(
        self, low: float = 0.0, high: float = 1.0, *, difference: bool = False
    ) -> MeanEstimate:
        """The mean of values between `low` and `high`, and its error.

        With N values, n of them in an image where they add up to s, and mean m, the jackknife's
        variance of m is (G - 1) / G times the sum over the G images of ((s - n m) / (N - n))^2.

        Raises ValueError where there are no values or one lies outside the range.
        """
        parts, groups = self.clusters.values(), len(self.clusters)
        mean, count = self.mean, self.values
        if not self.within(low, high):
            raise ValueError(f"values outside {low:g} to {high:g}")
        effective = count**2 / math.fsum(n * n for n, _ in parts)
        error = None
        if groups > 1:
            squares = math.fsum(((total - n * mean) / (count - n)) ** 2 for n, total in parts)
            error = math.sqrt((groups - 1) / groups * squares)
        return MeanEstimate(mean, error, count, groups, effective, low, high, difference)


def score_interval(position: float, size: float, quantile: float) -> tuple[float, float]:
    """Both ends of Wilson's score interval with continuity correction, from -1 to 1.

    position  of the mean in its range, from -1 to 1
    size      effective sample size
    quantile  of the distribution of the standardised mean: Student's t or the normal one
    """
    if not quantile < LARGEST_T:
        return -1.0, 1.0
    squared = quantile * quantile

    def end(u: float, side: int) -> float:
        reach = quantile * math.sqrt(squared + size * (1 - u * u))
        return (size * u + side * reach) / (size + squared)

    step = 1 / size
    return end(max(position - step, -1.0), -1), end(min(position + step, 1.0), 1)


def holm(probabilities: Iterable[float]) -> list[float]:
    """The p-values adjusted for their number, in the order given.

    Source  Holm 1979
    """
    p_values = list(probabilities)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    so_far = 0.0
    for place, number in enumerate(order):
        so_far = max(so_far, min((len(p_values) - place) * p_values[number], 1.0))
        adjusted[number] = so_far
    return adjusted


def t_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t for a probability."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def t_above(value: float, degrees: float) -> float:
    """The probability that Student's t is above a value."""
    from scipy.special import stdtr

    return float(stdtr(degrees, -value))
