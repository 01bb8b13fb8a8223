"""Histograms beside plain lists of times."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.jobserver.histogram import BOUNDS, Histogram

seconds = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1.0), st.floats(0, 4000.0))
times = st.lists(seconds, max_size=50)


def filled(added: list[float]) -> Histogram:
    histogram = Histogram()
    for one in added:
        histogram.add(one)
    return histogram


def bucket(time: float) -> tuple[float, float]:
    """The bounds of the bucket that a time is in; above all bounds, that is known of it."""
    at = bisect_left(BOUNDS, time)
    lower = BOUNDS[at - 1] if at else 0.0
    return lower, BOUNDS[at] if at < len(BOUNDS) else lower


@given(times)
def test_each_time_is_in_the_bucket_of_the_first_bound_that_it_is_not_above(added: list[float]) -> None:
    histogram = filled(added)
    expected = [0] * (len(BOUNDS) + 1)
    for one in added:
        expected[bisect_left(BOUNDS, one)] += 1
    assert histogram.counts == expected
    assert histogram.count == len(added)
    assert histogram.sum == pytest.approx(sum(added))


@given(times, times)
def test_a_merged_one_is_one_of_all_times(these: list[float], others: list[float]) -> None:
    histogram, other = filled(these), filled(others)
    copied = histogram.copy()
    histogram.merge(other)
    assert histogram.counts == filled(these + others).counts
    assert histogram.sum == pytest.approx(sum(these + others))
    assert copied.counts == filled(these).counts, "a copy stays as it is"
    assert other.counts == filled(others).counts


@given(st.lists(seconds, min_size=1, max_size=50), st.floats(0.001, 1.0))
def test_a_quantile_is_in_the_bucket_of_the_true_one(added: list[float], q: float) -> None:
    histogram = filled(added)
    rank = q * len(added)
    true = sorted(added)[max(int(rank) + (rank > int(rank)), 1) - 1]
    lower, upper = bucket(true)
    assert lower <= histogram.quantile(q) <= upper
    assert histogram.quantile(q) <= histogram.quantile(1.0)


def test_quantiles_of_nothing_and_of_known_times() -> None:
    assert Histogram().quantile(0.5) == 0.0
    assert filled([0.4] * 4).quantile(0.5) == pytest.approx(0.25 + 0.25 / 2), "spread evenly in its bucket"
    assert filled([5000.0]).quantile(0.99) == BOUNDS[-1], "nothing more is known"
    assert filled([0.0005, 0.0005, 20.0, 20.0]).quantile(0.5) == 0.001
    assert filled([0.0]).quantile(0.0) == 0.0
