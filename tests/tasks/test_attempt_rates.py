"""How long attempts take, and how many turns have ended."""

from types import SimpleNamespace

import pytest

from tasks.attempt_rates import WEIGHT, AttemptRates


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def job(queue="inference", kind="turn.run"):
    return SimpleNamespace(queue=queue, kind=kind)


def test_mean_follows_the_last_attempts(clock):
    rates = AttemptRates(clock=clock)
    for seconds in (10.0, 20.0):
        attempt = job()
        rates.begin(attempt)
        clock.now += seconds
        rates.finish(attempt)

    assert rates.mean_seconds() == {"inference": pytest.approx(10 + WEIGHT * 10)}


def test_a_first_attempt_counts_while_it_runs(clock):
    rates = AttemptRates(clock=clock)
    rates.begin(job())
    clock.now += 60

    assert rates.mean_seconds() == {"inference": 60.0}


def test_ended_turns_are_taken_once_by_queue(clock):
    rates = AttemptRates(clock=clock)
    for each in (job(), job(), job("upstream.groq"), job(kind="tokens.count")):
        rates.count_end(each)

    assert rates.take_ended() == {"inference": 2, "upstream.groq": 1}
    assert rates.take_ended() == {}


def test_turns_that_could_not_be_stored_count_later(clock):
    rates = AttemptRates(clock=clock)
    rates.count_end(job())
    rates.put_back(rates.take_ended())

    assert rates.take_ended() == {"inference": 1}
