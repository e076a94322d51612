"""Tokens per second, measured from the announcements and streams of journals."""

from collections.abc import Iterator

import pytest
import redis

from models.journal import journal
from models.journal.events import Event, event
from models.journal.journal import Claim, Fence
from ops.top.token_rates import TokenRates


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(redis_client: redis.Redis, clock: Clock) -> Iterator[TokenRates]:
    """Rates in an empty Redis."""
    redis_client.flushall()
    return TokenRates(redis_client, clock)


def deltas(first: int, *tokens: int) -> list[Event]:
    return [event(first + number, "response.output_text.delta", {"delta": "x"}, count)
            for number, count in enumerate(tokens)]  # fmt: skip


def append(client: redis.Redis, job_id: str, events: list[Event]) -> None:
    claim = Claim(job_id, 1)
    assert journal.append(client, claim, events, Fence.TAKE).status == "ok"


def test_rate_has_the_tokens_since_the_last_look(redis_client: redis.Redis, rates: TokenRates, clock: Clock) -> None:
    # Given two jobs, of which one goes on after a look
    append(redis_client, "job_a", deltas(0, 0, 2, 3))
    append(redis_client, "job_b", deltas(0, 0, 1))
    clock.now += 2
    assert rates.look() == {"job_a": 2.5, "job_b": 0.5}
    # When it has generated more
    append(redis_client, "job_a", deltas(3, 4))
    append(redis_client, "job_a", deltas(4, 4))
    clock.now += 4
    # Then only that counts
    assert rates.look() == {"job_a": 2.0}


def test_tokens_before_the_first_look_do_not_count(redis_client: redis.Redis, clock: Clock) -> None:
    redis_client.flushall()
    append(redis_client, "job_a", deltas(0, 7))

    rates = TokenRates(redis_client, clock)
    clock.now += 1

    assert rates.look() == {}


def test_deleted_journal_counts_as_no_tokens(redis_client: redis.Redis, rates: TokenRates, clock: Clock) -> None:
    append(redis_client, "job_a", deltas(0, 0, 7))
    redis_client.delete(*redis_client.keys("sangha:events:*"))
    clock.now += 1

    assert rates.look() == {}
