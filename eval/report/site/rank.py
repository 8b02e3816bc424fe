"""Ranks with their uncertainty, by drawing scores many times within their intervals.

Two models are compared by the benchmarks that both have a score of, families with equal weight. A
model's rank is one more than the number of models ahead of it. The interval of a rank counts the
models surely ahead and surely behind: all these comparisons hold at once in 95% of the draws. A
pair without a common benchmark is undecided, which widens both intervals.

The middle 95% of a model's ranks in the draws would be narrower, and wrong where many models are
close together: of 30 models, the interval of the best one held its true rank 65 times in 100.

A score without an interval is a point. Draws of two models are independent, though both answered
the same questions: pairing them, as `compare` does, is more precise, so these intervals are too
wide rather than too narrow.

Source  Mogstad, Romano, Shaikh and Wilhelm 2024, Inference for Ranks, for one model at a time
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 1000
NORMAL = 1.959963984540054  # of the standard normal distribution: 95% lie within this of its mean
LEVEL = 1e-9  # means no further apart are equal: sums in another order

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoreInterval:
    """A score and both ends of its 95% interval, or the score itself three times."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The 95% interval of a model's rank among `of`; middle: the mean rank over the draws."""

    low: int
    high: int
    of: int
    middle: float


class Draws:
    """Scores of models (rows) and benchmarks (columns), drawn within their intervals.

    Each half of an interval is half a normal distribution, as intervals need not be symmetric.
    """

    def __init__(self, scores: Sequence[Sequence[ScoreInterval | None]], seed: int = 0) -> None:
        rows, columns = len(scores), len(scores[0]) if scores else 0
        self.known: Mask = np.array(
            [[score is not None for score in row] for row in scores], dtype=bool
        ).reshape(rows, columns)
        value, below, above = np.zeros((3, rows, columns))
        for y, row in enumerate(scores):
            for x, score in enumerate(row):
                if score is not None:
                    value[y, x] = score.value
                    below[y, x] = (score.value - score.low) / NORMAL
                    above[y, x] = (score.high - score.value) / NORMAL
        drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal((DRAWS, rows, columns))
        self.value: Array = value  # (R, C)
        self.values: Array = value + np.where(drawn < 0, below, above) * drawn  # (D, R, C)

    def ranks(self, families: Sequence[Sequence[int]], at_least: int = 1) -> list[Standing | None]:
        """Of each model by these families of benchmarks; None where it has scores of too few.

        at_least  families that a model needs
        """
        columns = [column for family in families for column in family]
        owner = np.repeat(np.arange(len(families)), [len(family) for family in families])
        known, value = self.known[:, columns], self.value[:, columns]
        values = self.values[:, :, columns]
        covered = [known[:, owner == family].any(axis=1) for family in range(len(families))]
        ranked = np.flatnonzero(np.sum(covered, axis=0) >= at_least)
        known, value = known[ranked], value[ranked]
        drawn = np.ascontiguousarray(values[:, ranked].transpose(1, 0, 2))  # (R, D, C)
        standings: list[Standing | None] = [None] * len(self.known)
        for place, row in enumerate(ranked.tolist()):
            weights = _weights(known & known[place], owner)
            weights[place] = 0  # against itself
            lead = ((value[place] - value) * weights).sum(axis=1)
            leads = weights @ drawn[place].T - np.matmul(drawn, weights[:, :, None])[:, :, 0]
            standings[row] = _standing(lead, leads, decided=weights.sum(axis=1) > 0)
        return standings


def _weights(shared: Mask, owner: NDArray[np.intp]) -> Array:
    """Weight of each benchmark (columns) in a comparison (rows); families weigh the same.

    shared  benchmarks that both models have; owner: the family of each benchmark
    """
    weights = np.zeros(shared.shape)
    counted = np.zeros(len(shared))
    for family in np.unique(owner):
        columns = owner == family
        counts = shared[:, columns].sum(axis=1)
        counted += counts > 0
        weights[:, columns] = shared[:, columns] / np.maximum(counts, 1)[:, None]
    return weights / np.maximum(counted, 1)[:, None]


def _standing(lead: Array, leads: Array, decided: Mask) -> Standing:
    """A model's rank among all, itself included.

    lead (R,), leads (R, D)  over each model, by the scores and by the draws
    decided (R,)             whether the two share a benchmark; not for the model itself
    """
    off = leads - lead[:, None]
    rising = off > 0
    below, above = _spread(off, ~rising), _spread(off, rising)
    scale = np.where(rising, above[:, None], below[:, None])
    apart = np.divide(np.abs(off), scale, out=np.zeros_like(off), where=scale > LEVEL)
    reach = float(np.quantile(apart.max(axis=0), CONFIDENCE))
    ahead = decided & (lead + reach * above < -LEVEL)
    behind = decided & (lead - reach * below > LEVEL)
    place = (leads < -LEVEL) + 0.5 * (np.abs(leads) <= LEVEL)  # a half if undecided
    middle = float(place.sum(axis=0).mean()) + 0.5  # the model itself counts as a half
    return Standing(1 + int(ahead.sum()), len(lead) - int(behind.sum()), len(lead), middle)


def _spread(off: Array, where: Mask) -> Array:
    """Root of the mean square of each row, over the places of the mask."""
    squares = np.einsum("rd,rd,rd->r", off, off, where)
    spread: Array = np.sqrt(squares / np.maximum(where.sum(axis=1), 1))
    return spread
