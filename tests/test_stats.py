"""Intervals of a mean: by the formula's own values, by its symmetries, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from eval.stats import Interval, clustered_mean

REPETITIONS = 4000  # of a simulation: a coverage of 95% is then found to a third of a percent
unhurried = settings(deadline=None)
SCORES = st.integers(0, 40).map(lambda quarters: quarters / 4)
PAIRS = st.lists(st.tuples(SCORES, st.integers(0, 5)), min_size=1, max_size=30)


def naive(values):
    """The interval of values that are independent."""
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    reach = t.ppf(0.975, len(values) - 1) * error
    return mean - reach, mean + reach


@pytest.mark.parametrize(
    ("values", "clusters", "mean", "reach"),
    [
        # deviations add up to -2 and 2: sqrt(2/1 * 8) / 4 = 1, times t(1) = 12.7062047362
        ([1, 2, 3, 4], "aabb", 2.5, 12.7062047362),
        # -3, 0 and 3: sqrt(3/2 * 18) / 4 = 1.29903810568, times t(2) = 4.30265272975
        ([0, 3, 3, 6], "abbc", 3.0, 5.58930985190),
        # sizes 1, 2 and 3; -4.5, 1 and 3.5: sqrt(3/2 * 33.5) / 6 = 1.18145390656, times t(2)
        ([1, 4, 8, 4, 8, 8], "abbccc", 5.5, 5.083385876),
        # each cluster's deviations cancel out
        ([1, 3, 1, 3], "aabb", 2.0, 0.0),
        ([7, 7, 7], "aab", 7.0, 0.0),
    ],
)
def test_the_interval_by_hand(values, clusters, mean, reach):
    """Values that were worked out on paper."""
    found = clustered_mean(values, clusters)
    assert (mean, len(values), len(set(clusters))) == (found.mean, found.values, found.clusters)
    assert pytest.approx((mean - reach, mean + reach), rel=1e-8) == (found.low, found.high)


def test_another_confidence():
    """Of Student's t with one degree, 0.75 is one."""
    found = clustered_mean([1, 2, 3, 4], "aabb", confidence=0.5)
    assert pytest.approx((1.5, 3.5)) == (found.low, found.high)


@unhurried
@given(st.lists(SCORES, min_size=1, max_size=20))
def test_one_cluster_tells_no_interval(values):
    """However many values: nothing is known of how images differ."""
    found = clustered_mean(values, ["a"] * len(values))
    assert Interval(math.fsum(values) / len(values), None, None, len(values), 1) == found


def test_what_has_no_mean_is_refused():
    """No value, or clusters that do not belong to them."""
    with pytest.raises(ValueError, match="at least one value expected"):
        clustered_mean([], [])
    with pytest.raises(ValueError, match="shorter"):
        clustered_mean([1.0, 2.0], ["a"])


@unhurried
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_and_names_of_clusters_change_nothing(pairs, random):
    """To the last bit: figures of two runs are compared as texts."""
    expected = clustered_mean(*zip(*pairs, strict=True))
    shuffled = random.sample(pairs, len(pairs))
    assert expected == clustered_mean(*zip(*shuffled, strict=True))
    renamed = [(value, f"image {-cluster}.jpg") for value, cluster in pairs]
    assert expected == clustered_mean(*zip(*renamed, strict=True))


@unhurried
@given(PAIRS, st.integers(-20, 20), st.sampled_from([0.5, 2.0, 8.0]))
def test_another_scale_is_another_scale_of_the_interval(pairs, shift, scale):
    """Such as scores x 100."""
    values, clusters = zip(*pairs, strict=True)
    one = clustered_mean(values, clusters)
    other = clustered_mean([scale * value + shift for value in values], clusters)
    assert (one.values, one.clusters) == (other.values, other.clusters)
    for before, after in ((one.mean, other.mean), (one.low, other.low), (one.high, other.high)):
        assert (before is None) == (after is None)
        if before is not None:
            assert pytest.approx(scale * before + shift, abs=1e-9) == after


@unhurried
@given(st.lists(SCORES, min_size=2, max_size=30))
def test_clusters_of_one_value_have_the_naive_interval(values):
    """Independent values need no correction."""
    found = clustered_mean(values, range(len(values)))
    assert pytest.approx(naive(values), abs=1e-9) == (found.low, found.high)


@unhurried
@given(PAIRS)
def test_every_value_twice_is_no_more_knowledge(pairs):
    """As where a dialogue counts for one category twice."""
    once = clustered_mean(*zip(*pairs, strict=True))
    twice = clustered_mean(*zip(*pairs, *pairs, strict=True))
    assert (once.mean, once.clusters) == pytest.approx((twice.mean, twice.clusters))
    assert (once.low is None) == (twice.low is None)
    if once.low is not None:
        assert pytest.approx((once.low, once.high), abs=1e-9) == (twice.low, twice.high)


@pytest.mark.parametrize(
    "sizes",
    [[4] * 50, [1 + number % 7 for number in range(63)]],
    ids=["equal", "unequal"],
)
def test_intervals_cover_what_they_promise(sizes):
    """Questions about one image fare alike: 95% cover the truth, of the naive ones far fewer do."""
    random = np.random.default_rng(20230831)
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    images = random.normal(size=(REPETITIONS, len(sizes)))[:, clusters]
    drawn = 6.0 + images + 0.7 * random.normal(size=images.shape)
    names = clusters.tolist()
    found = [clustered_mean(values, names) for values in drawn.tolist()]
    covered = np.mean([each.low <= 6.0 <= each.high for each in found])
    assert 0.93 < covered < 0.97
    reach = t.ppf(0.975, drawn.shape[1] - 1) * drawn.std(axis=1, ddof=1) / drawn.shape[1] ** 0.5
    assert np.mean(np.abs(drawn.mean(axis=1) - 6.0) <= reach) < 0.9
