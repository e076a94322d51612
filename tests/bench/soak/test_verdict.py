"""What counts as growth.

Given a series that was read each second of ten minutes with some pieces of work a second, when it is judged, then a
leak is found in any noise, and noise, steps, spikes and the teeth of a garbage collector are no leak.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bench.soak.verdict import ByUse, Flat, Point, Seen, judge

MIB = 2**20
SECONDS, RATE = 600, 20

#: As the memory of a process is judged.
MEMORY = Flat(least=4 * MIB, each=512, step=64 * MIB)


def series(value, seconds=SECONDS, rate=RATE):
    """A value a second, of the second and the pieces of work till then."""
    return [Point(second, second * rate, value(second, second * rate)) for second in range(seconds)]


def noise(seed, size):
    chance = random.Random(seed)
    return lambda: chance.gauss(0, size)


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 999), level=some.floats(10, 1000), size=some.floats(0, 4))
def test_a_flat_noisy_series_is_steady(seed, level, size):
    some_noise = noise(seed, size * MIB)

    judged = judge(series(lambda *_: level * MIB + some_noise()), MEMORY)

    assert judged.say == "steady"


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 999), size=some.floats(0, 1))
def test_a_kilobyte_a_turn_is_found(seed, size):
    some_noise = noise(seed, size * MIB)

    judged = judge(series(lambda _, work: 100 * MIB + 1024 * work + some_noise()), MEMORY)

    assert judged.say == "GROWING"
    assert judged.slope == pytest.approx(1024 * RATE, rel=0.5)
    assert judged.each == pytest.approx(1024, rel=0.3)


@given(when=some.integers(0, SECONDS), height=some.floats(1, 60))
@settings(max_examples=40, deadline=None)
def test_one_step_is_no_trend(when, height):
    judged = judge(series(lambda second, _: (100 + (height if second >= when else 0)) * MIB), MEMORY)

    assert judged.say in ("steady", "step")
    assert judged.slope == 0


def test_a_step_is_told():
    assert judge(series(lambda second, _: (100 + 30 * (second > 400)) * MIB), MEMORY).say == "step"


def test_a_step_that_is_too_high_is_growth():
    assert judge(series(lambda second, _: (100 + 80 * (second > 400)) * MIB), MEMORY).say == "GROWING"


@given(period=some.integers(2, 60), height=some.floats(0, 40))
@settings(max_examples=40, deadline=None)
def test_the_teeth_of_a_garbage_collector_are_steady(period, height):
    judged = judge(series(lambda second, _: (100 + height * (second % period) / period) * MIB), MEMORY)

    assert judged.say in ("steady", "step")


def test_a_staircase_is_growth():
    judged = judge(series(lambda second, _: 40 + second // 60 * 4), Flat(least=8))

    assert judged.say == "GROWING"


def test_the_warm_up_counts_for_nothing():
    judged = judge(series(lambda second, _: min(second, 190) * MIB), MEMORY)

    assert (judged.say, judged.start, judged.end) == ("steady", 190 * MIB, 190 * MIB)


def test_a_spike_counts_for_nothing():
    assert judge(series(lambda second, _: (100 + 500 * (second % 97 == 0)) * MIB), MEMORY).say == "steady"


def test_what_shrinks_does_not_grow():
    judged = judge(series(lambda second, _: (900 - second) * MIB), MEMORY)

    assert judged.say == "steady"
    assert judged.slope == -MIB


@given(seed=some.integers(0, 999), each=some.floats(0, 50_000))
@settings(max_examples=40, deadline=None)
def test_what_grows_with_the_work_grows_by_use(seed, each):
    some_noise = noise(seed, 0.02 * MIB)

    judged = judge(series(lambda _, work: 10 * MIB + each * work + some_noise()), ByUse(least=MIB))

    assert judged.say == "by use"


def test_more_work_is_no_faster_growth():
    # Given twice the work a second in the second half
    points = [Point(t, w := 20 * t + 20 * max(0, t - 300), 1000 * w) for t in range(SECONDS)]

    # When it is judged, then it grows by use all the same
    assert judge(points, ByUse(least=1000)).say == "by use"


def test_what_grows_faster_than_the_work_is_growth():
    assert judge(series(lambda _, work: work**2.5), ByUse(least=1000)).say == "GROWING"


def test_a_few_readings_are_too_short():
    assert judge(series(lambda *_: 1.0, seconds=4), MEMORY).say == "too short"
    assert judge([], MEMORY).say == "too short"


def test_what_is_only_seen_is_not_judged():
    assert judge(series(lambda second, _: second**3), Seen()).grows is False
