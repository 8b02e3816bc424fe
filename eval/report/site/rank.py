"""Ranks with their uncertainty: figures are drawn again and again within their intervals.

Two models are compared by the benchmarks that both have a figure of, each figure taken relative to
a reference, families with equal weight. A model's rank is one more than the number of models ahead
of it. Of a pair that shares no benchmark nothing can be told, which widens the interval.

A figure without an interval is a point. Draws of two models are independent, though both answered
the same questions: pairing them, as `compare` does, tells more, so these intervals are rather too
wide than too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2000
NORMAL = 1.959963984540054  # of the standard normal distribution: 95% lie within this of its mean
LEVEL = 1e-9  # two means that are no further apart are equal: sums in another order

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and both ends of its 95% interval, which are the figure where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a model stands among `of`, at least and at most; middle: on average over the draws."""

    low: int
    high: int
    of: int
    middle: float


class Draws:
    """Figures of models (rows) and benchmarks (columns), drawn within their intervals.

    Each half of an interval is half a normal distribution, as intervals need not be symmetric.
    """

    def __init__(self, figures: Sequence[Sequence[Figure | None]], seed: int = 0) -> None:
        rows, columns = len(figures), len(figures[0]) if figures else 0
        self.known: Mask = np.array(
            [[figure is not None for figure in row] for row in figures], dtype=bool
        ).reshape(rows, columns)
        value, below, above = np.zeros((3, rows, columns))
        for y, row in enumerate(figures):
            for x, figure in enumerate(row):
                if figure is not None:
                    value[y, x] = figure.value
                    below[y, x] = (figure.value - figure.low) / NORMAL
                    above[y, x] = (figure.high - figure.value) / NORMAL
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal((DRAWS, rows, columns))
        self.values: Array = value + np.where(drawn < 0, below, above) * drawn  # (D, R, C)

    def mean(self, row: int, columns: Sequence[int]) -> tuple[float, float] | None:
        """Both ends of the interval of a model's mean over benchmarks; None where it has none."""
        shared = [column for column in columns if self.known[row, column]]
        if not shared:
            return None
        means = self.values[:, row, shared].mean(axis=1)
        low, high = np.quantile(means, _tails()).tolist()
        return low, high

    def ranks(self, families: Sequence[Sequence[int]], at_least: int = 1) -> list[Rank | None]:
        """Of each model by these families of benchmarks; None where it has figures of too few.

        at_least  so many families a model needs
        """
        columns = [column for family in families for column in family]
        owner = np.repeat(np.arange(len(families)), [len(family) for family in families])
        known, values = self.known[:, columns], self.values[:, :, columns]
        covered = [known[:, owner == family].any(axis=1) for family in range(len(families))]
        ranked = np.flatnonzero(np.sum(covered, axis=0) >= at_least)
        known, values = known[ranked], values[:, ranked]
        found: list[Rank | None] = [None] * len(self.known)
        for place, row in enumerate(ranked.tolist()):
            others = np.arange(len(ranked)) != place
            weights = _weights(known[others] & known[place], owner)
            found[row] = _rank(values[:, place], values[:, others], weights)
        return found


def _weights(shared: Mask, owner: NDArray[np.intp]) -> Array:
    """Of each benchmark in a comparison (rows): those of a family weigh as much as another's.

    shared  which benchmarks (columns) there are of both models; owner: their families
    """
    weights = np.zeros(shared.shape)
    counted = np.zeros(len(shared))
    for family in np.unique(owner):
        columns = owner == family
        counts = shared[:, columns].sum(axis=1)
        counted += counts > 0
        weights[:, columns] = shared[:, columns] / np.maximum(counts, 1)[:, None]
    return weights / np.maximum(counted, 1)[:, None]


def _rank(own: Array, others: Array, weights: Array) -> Rank:
    """A model's rank among others.

    own (D, C), others (D, O, C): draws; weights (O, C): all 0 where nothing can be told
    """
    told = weights.any(axis=1)
    lead = own @ weights.T - np.einsum("doc,oc->do", others, weights)
    best = 1 + ((lead < -LEVEL) & told).sum(axis=1)  # (D,)
    worst = best + ((np.abs(lead) <= LEVEL) & told).sum(axis=1) + int((~told).sum())
    low, high = (
        int(np.quantile(ends, tail, method="inverted_cdf"))
        for ends, tail in zip((best, worst), _tails(), strict=True)
    )
    return Rank(low, high, len(weights) + 1, float((best.mean() + worst.mean()) / 2))


def _tails() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
