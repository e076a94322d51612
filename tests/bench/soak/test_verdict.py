"""Given a series read each second of ten minutes, when it is judged, then a leak is found in any noise.

Noise, steps, spikes and the sawtooth of a garbage collector are no leak.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bench.soak.verdict import Flat, Point, Proportional, ShownOnly, judge

MIB = 2**20
SECONDS, RATE = 600, 20

#: The rule of a process's memory.
MEMORY = Flat(least=4 * MIB, each=512, step=64 * MIB)


def series(value, seconds=SECONDS, rate=RATE):
    """Return a value each second, computed from the second and the operations until then."""
    return [Point(second, second * rate, value(second, second * rate)) for second in range(seconds)]


def noise(seed, size):
    rng = random.Random(seed)
    return lambda: rng.gauss(0, size)


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 999), level=some.floats(10, 1000), size=some.floats(0, 4))
def test_a_flat_noisy_series_is_steady(seed, level, size):
    some_noise = noise(seed, size * MIB)

    judged = judge(series(lambda *_: level * MIB + some_noise()), MEMORY)

    assert judged.conclusion == "steady"


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 999), size=some.floats(0, 1))
def test_a_leak_of_a_kilobyte_an_operation_is_found(seed, size):
    some_noise = noise(seed, size * MIB)

    judged = judge(series(lambda _, operations: 100 * MIB + 1024 * operations + some_noise()), MEMORY)

    assert judged.conclusion == "GROWING"
    assert judged.slope == pytest.approx(1024 * RATE, rel=0.5)
    assert judged.each == pytest.approx(1024, rel=0.3)


@given(when=some.integers(0, SECONDS), height=some.floats(1, 60))
@settings(max_examples=40, deadline=None)
def test_one_step_is_no_trend(when, height):
    judged = judge(series(lambda second, _: (100 + (height if second >= when else 0)) * MIB), MEMORY)

    assert judged.conclusion in ("steady", "step")
    assert judged.slope == 0


def test_a_step_is_reported():
    assert judge(series(lambda second, _: (100 + 30 * (second > 400)) * MIB), MEMORY).conclusion == "step"


def test_a_step_that_is_too_high_is_growth():
    assert judge(series(lambda second, _: (100 + 80 * (second > 400)) * MIB), MEMORY).conclusion == "GROWING"


@given(period=some.integers(2, 60), height=some.floats(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_sawtooth_is_steady(period, height):
    judged = judge(series(lambda second, _: (100 + height * (second % period) / period) * MIB), MEMORY)

    assert judged.conclusion in ("steady", "step")


def test_a_staircase_is_growth():
    judged = judge(series(lambda second, _: 40 + second // 60 * 4), Flat(least=8))

    assert judged.conclusion == "GROWING"


def test_the_warm_up_is_ignored():
    judged = judge(series(lambda second, _: min(second, 190) * MIB), MEMORY)

    assert (judged.conclusion, judged.start, judged.end) == ("steady", 190 * MIB, 190 * MIB)


def test_spikes_are_ignored():
    assert judge(series(lambda second, _: (100 + 500 * (second % 97 == 0)) * MIB), MEMORY).conclusion == "steady"


def test_a_shrinking_series_is_steady():
    judged = judge(series(lambda second, _: (900 - second) * MIB), MEMORY)

    assert judged.conclusion == "steady"
    assert judged.slope == -MIB


@given(seed=some.integers(0, 999), each=some.floats(0, 50_000))
@settings(max_examples=40, deadline=None)
def test_a_series_that_grows_with_the_operations_is_proportional(seed, each):
    some_noise = noise(seed, 0.02 * MIB)

    judged = judge(series(lambda _, operations: 10 * MIB + each * operations + some_noise()), Proportional(least=MIB))

    assert judged.conclusion == "proportional"


def test_more_operations_are_no_faster_growth():
    # Given twice the operations a second in the second half
    points = [Point(t, w := 20 * t + 20 * max(0, t - 300), 1000 * w) for t in range(SECONDS)]

    # When it is judged, then it is still proportional
    assert judge(points, Proportional(least=1000)).conclusion == "proportional"


def test_growth_faster_than_the_operations_is_growth():
    assert judge(series(lambda _, operations: operations**2.5), Proportional(least=1000)).conclusion == "GROWING"


def test_few_readings_are_too_short():
    assert judge(series(lambda *_: 1.0, seconds=4), MEMORY).conclusion == "too short"
    assert judge([], MEMORY).conclusion == "too short"


def test_a_series_that_is_only_shown_is_not_judged():
    assert judge(series(lambda second, _: second**3), ShownOnly()).grows is False
