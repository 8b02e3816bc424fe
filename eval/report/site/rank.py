"""Ranks with their uncertainty: figures are drawn again and again within their intervals.

Two models are compared by the benchmarks that both have a figure of, families with equal weight. A
model's rank is one more than the number of models ahead of it. Its interval reaches from the models
that are surely ahead to those that are surely behind: all of these comparisons hold at once in 95%
of the draws. Of a pair that shares no benchmark nothing can be told, which widens the interval.

The middle 95% of the places that a model takes in the draws would be narrower, and wrong where many
are close together: of 30 models the best one's then held its true place 65 times of 100.

A figure without an interval is a point. Draws of two models are independent, though both answered
the same questions: pairing them, as `compare` does, tells more, so these intervals are rather too
wide than too narrow.

Source  Mogstad, Romano, Shaikh and Wilhelm 2024, Inference for Ranks, for one model at a time
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 1000
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
    """Where a model may stand among `of`, 95%; middle: where it does on average over the draws."""

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
        self.value: Array = value  # (R, C)
        self.values: Array = value + np.where(drawn < 0, below, above) * drawn  # (D, R, C)

    def ranks(self, families: Sequence[Sequence[int]], at_least: int = 1) -> list[Rank | None]:
        """Of each model by these families of benchmarks; None where it has figures of too few.

        at_least  so many families a model needs
        """
        columns = [column for family in families for column in family]
        owner = np.repeat(np.arange(len(families)), [len(family) for family in families])
        known, value = self.known[:, columns], self.value[:, columns]
        values = self.values[:, :, columns]
        covered = [known[:, owner == family].any(axis=1) for family in range(len(families))]
        ranked = np.flatnonzero(np.sum(covered, axis=0) >= at_least)
        known, value = known[ranked], value[ranked]
        drawn = np.ascontiguousarray(values[:, ranked].transpose(1, 0, 2))  # (R, D, C)
        found: list[Rank | None] = [None] * len(self.known)
        for place, row in enumerate(ranked.tolist()):
            weights = _weights(known & known[place], owner)
            weights[place] = 0  # against itself
            lead = ((value[place] - value) * weights).sum(axis=1)
            leads = weights @ drawn[place].T - np.matmul(drawn, weights[:, :, None])[:, :, 0]
            found[row] = _rank(lead, leads, told=weights.sum(axis=1) > 0)
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


def _rank(lead: Array, leads: Array, told: Mask) -> Rank:
    """A model's rank among all, itself among them, of which nothing is told.

    lead (R,), leads (R, D): over each, by the figures and by the draws
    told (R,)                which of these mean anything
    """
    off = leads - lead[:, None]
    rising = off > 0
    below, above = _spread(off, ~rising), _spread(off, rising)
    scale = np.where(rising, above[:, None], below[:, None])
    apart = np.divide(np.abs(off), scale, out=np.zeros_like(off), where=scale > LEVEL)
    reach = float(np.quantile(apart.max(axis=0), CONFIDENCE))
    ahead = told & (lead + reach * above < -LEVEL)
    behind = told & (lead - reach * below > LEVEL)
    place = (leads < -LEVEL) + 0.5 * (np.abs(leads) <= LEVEL)  # a half where nothing is told
    middle = float(place.sum(axis=0).mean()) + 0.5  # itself is counted as a half
    return Rank(1 + int(ahead.sum()), len(lead) - int(behind.sum()), len(lead), middle)


def _spread(off: Array, where: Mask) -> Array:
    """Of each row the root of the mean square, where wanted."""
    squares = np.einsum("rd,rd,rd->r", off, off, where)
    spread: Array = np.sqrt(squares / np.maximum(where.sum(axis=1), 1))
    return spread
