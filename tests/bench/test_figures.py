"""Statistics of samples, and verdicts on goals."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench.figures import Figure, at_least, at_most, parts, quantile

SAMPLES = some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=50)


@given(SAMPLES)
def test_the_middle_quantile_is_the_median(samples):
    assert quantile(samples, 0.5) == pytest.approx(statistics.median(samples))


@given(SAMPLES)
def test_the_outer_quantiles_are_the_minimum_and_the_maximum(samples):
    assert (quantile(samples, 0), quantile(samples, 1)) == (min(samples), max(samples))


@given(some.lists(some.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_quantiles_equal_those_of_the_standard_library(samples):
    expected = statistics.quantiles(samples, n=100, method="inclusive")

    assert [quantile(samples, percent / 100) for percent in range(1, 100)] == pytest.approx(expected, abs=1e-6)


def test_a_quantile_of_no_samples_raises():
    with pytest.raises(statistics.StatisticsError):
        quantile([], 0.5)


@given(some.lists(some.integers()), some.integers(1, 9))
def test_parts_are_consecutive_and_never_empty(samples, count):
    cut = parts(samples, count)

    assert [sample for part in cut for sample in part] == samples
    assert all(cut)
    assert len(cut) == min(count, len(samples))


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [(at_most(10), 10, True), (at_most(10), 10.1, False), (at_least(0.95), 0.95, True), (at_least(0.95), 0.9, False)],
)
def test_a_value_at_the_limit_meets_the_goal(goal, value, met):
    assert Figure("a figure", "ms", [value], goal).met is met


def test_without_a_goal_there_is_no_verdict():
    assert Figure("a figure", "ms", [1.0]).met is None


def test_the_spread_of_a_median_is_from_the_10th_to_the_90th_percentile():
    assert Figure("a figure", "ms", range(101)).spread == (10, 90)


def test_the_spread_of_another_quantile_is_its_range_over_parts_of_the_run():
    figure = Figure("a figure", "ms", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], quantile=1)

    assert figure.value == 10
    assert figure.spread == (2, 10)
