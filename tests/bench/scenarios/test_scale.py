"""The ratios and loads of the scenario `scale`."""

from bench.scenarios.scale import loads, ratios


def test_a_ratio_is_relative_to_the_median_with_an_empty_table():
    assert ratios([20.0] * 5 + [40.0] * 5, [9.0, 10.0, 50.0]) == [2.0, 2.0, 3.0, 4.0, 4.0]


def test_a_full_run_has_more_loads():
    assert len(loads(full=True)) == len(loads(full=False)) + 1
