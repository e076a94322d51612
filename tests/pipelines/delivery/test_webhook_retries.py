"""Attempts follow the times of the specification, with jitter."""

import pytest

from pipelines.delivery.webhook_retries import MAX_RETRY_AFTER, MAX_TRIES, TIMES, next_delay, parse_retry_after


def test_the_times_are_those_of_the_specification():
    hour = 3600
    assert (0, 5, 300, 1800, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour) == TIMES


@pytest.mark.parametrize("tries", range(1, MAX_TRIES))
def test_a_delay_has_a_jitter_around_its_time(tries):
    between = TIMES[tries] - TIMES[tries - 1]
    delays = {next_delay(tries) for _ in range(200)}
    assert between * 0.85 <= min(delays) < between < max(delays) <= between * 1.15
    assert len(delays) > 100


def test_there_is_no_attempt_after_the_last_one():
    assert next_delay(MAX_TRIES) is None
    assert next_delay(MAX_TRIES, retry_after=5) is None


def test_a_receiver_can_make_attempts_later_but_not_sooner_and_not_for_ever():
    assert next_delay(1, retry_after=100) == 100
    assert next_delay(3, retry_after=1) > 1000
    assert next_delay(1, retry_after=1e12) == MAX_RETRY_AFTER


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1.5", "١٢", "Thu, 99 Foo 2020 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"]
)
def test_what_is_not_a_time_to_come_is_ignored(text):
    assert parse_retry_after({"retry-after": text}) == 0
    assert parse_retry_after({}) == 0


def test_a_long_number_is_not_an_error():
    assert parse_retry_after({"retry-after": "9" * 5000}) == 999_999_999
