"""Large counts are used again for a time that is in proportion to their size; small ones are not."""

import pytest

from models.jobs.recent_counts import MIN_COUNT, SECONDS_PER_JOB, RecentCounts, UnfinishedCount


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(clock: Clock) -> RecentCounts:
    return RecentCounts(clock=clock)


def test_large_count_includes_the_jobs_admitted_since(counts: RecentCounts) -> None:
    assert counts.put("acct_1", UnfinishedCount(1000, 5000), 1) == UnfinishedCount(1000, 5000)
    taken = [counts.take("acct_1", size) for size in (20, 300, 0)]
    assert taken == [UnfinishedCount(1001, 5001), UnfinishedCount(1002, 5021), UnfinishedCount(1003, 5321)]
    assert counts.take("acct_2") is None


def test_count_expires_after_a_time_in_proportion_to_it(counts: RecentCounts, clock: Clock) -> None:
    counts.put("acct_1", UnfinishedCount(20_000))
    clock.now += 20_000 * SECONDS_PER_JOB - 0.001
    assert counts.take("acct_1") is not None
    clock.now += 0.001
    assert counts.take("acct_1") is None


def test_small_count_is_not_used_again(counts: RecentCounts) -> None:
    assert counts.put("acct_1", UnfinishedCount(MIN_COUNT - 1)).jobs == MIN_COUNT - 1
    assert counts.take("acct_1") is None


def test_expired_counts_are_forgotten(counts: RecentCounts, clock: Clock) -> None:
    for number in range(100):
        counts.put(f"acct_{number}", UnfinishedCount(1000))
        clock.now += 1
    assert len(counts._entries) == 1
