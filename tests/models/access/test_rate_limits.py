"""Draw from token buckets in Redis."""

from dataclasses import replace

import pytest

from models.access import rate_limits
from models.access.rate_limits import (
    PERIOD,
    Bucket,
    Rate,
    bucket_owners,
    correction_command,
    draw,
    token_draw_arguments,
)
from models.platform.ids import new_id


@pytest.fixture
def owner():
    return f"account {new_id('acct')}"


def test_an_empty_bucket_refuses_and_reports_the_wait(redis_client, owner):
    bucket = Bucket(owner, "requests", 3, 1)

    drawn = [draw(redis_client, [bucket]) for _ in range(4)]

    assert [draw.refused for draw in drawn] == [None, None, None, bucket]
    assert [draw.levels[0].remaining for draw in drawn] == [2, 1, 0, 0]
    assert PERIOD / 3 - 5 < drawn[3].wait <= PERIOD / 3
    assert PERIOD - 5 < drawn[3].levels[0].reset <= PERIOD


def test_a_refused_draw_leaves_the_other_buckets_unchanged(redis_client, owner):
    empty, full = Bucket(owner, "requests", 1, 1), Bucket(owner, "tokens", 100, 10)
    draw(redis_client, [empty])

    refused = draw(redis_client, [full, empty])

    assert refused.refused == empty
    assert redis_client.get(full.key) is None
    assert refused.levels[0].remaining == 100


def test_a_cost_above_the_limit_takes_the_whole_bucket(redis_client, owner):
    bucket = Bucket(owner, "tokens", 10, 1000)

    assert draw(redis_client, [bucket]).refused is None
    assert draw(redis_client, [bucket]).refused == bucket


def test_a_limit_of_zero_refuses(redis_client, owner):
    assert draw(redis_client, [Bucket(owner, "requests", 0, 1)]).refused is not None


def test_a_bucket_is_one_number_that_expires_when_it_is_full(redis_client, owner):
    bucket = Bucket(owner, "requests", 60, 1)
    for _ in range(30):
        draw(redis_client, [bucket])

    assert redis_client.type(bucket.key) == b"string"
    assert 0 < redis_client.pttl(bucket.key) <= 30_000


def test_large_limits_lose_nothing_to_rounding(redis_client, owner):
    bucket = Bucket(owner, "tokens", 60_000_000, 30_000_000)

    assert draw(redis_client, [bucket]).levels[0].remaining == pytest.approx(30_000_000, rel=0.01)
    assert draw(redis_client, [Bucket(owner, "tokens", 60_000_000, 40_000_000)]).refused is not None


@pytest.mark.parametrize(("used", "left"), [(40, 60), (10, 90), (0, 100)])
def test_an_estimate_is_corrected_to_the_used_tokens(redis_client, used, left):
    account, key = new_id("acct"), new_id("key")
    arguments = token_draw_arguments(key, 100, 10)
    draw(redis_client, [Bucket(owner, "tokens", 100, 10, group=account) for owner in bucket_owners(account, key)])

    command = correction_command(account, arguments, used)
    if command is not None:
        redis_client.execute_command(*command.arguments)

    for owner in bucket_owners(account, key):
        (level,) = draw(redis_client, [Bucket(owner, "tokens", 100, 0, group=account)]).levels
        assert left <= level.remaining <= left + 10  # it fills meanwhile


def test_an_overdrawn_bucket_refuses_until_it_has_refilled(redis_client):
    account = new_id("acct")

    redis_client.execute_command(*correction_command(account, token_draw_arguments(None, 100, 0), 200).arguments)

    refused = draw(redis_client, [Bucket(f"account {account}", "tokens", 100, 1, group=account)])
    assert refused.wait > PERIOD


def test_a_job_without_a_limit_is_not_corrected():
    assert correction_command("acct_x", token_draw_arguments(None, None, 10), 99) is None
    assert correction_command("acct_x", {}, 99) is None


def test_the_script_is_loaded_again_after_a_flush(redis_client, owner):
    redis_client.script_flush()

    assert draw(redis_client, [Bucket(owner, "requests", 1, 1)]).refused is None
    assert redis_client.script_exists(rate_limits.DRAW_SHA) == [True]


def test_a_bucket_fills_within_its_own_period(redis_client, owner):
    bucket = Bucket(owner, "attempts", 10, 10, period=600)
    draw(redis_client, [bucket])

    refused = draw(redis_client, [replace(bucket, cost=1)])

    assert 55 < refused.wait <= 60
    assert 595 < refused.levels[0].reset <= 600


def test_an_advisory_bucket_never_refuses_and_owes_nothing(redis_client, owner):
    bucket = Bucket(owner, "attempts", 2, 1, advisory=True)

    results = [draw(redis_client, [bucket]) for _ in range(5)]

    assert [result.refused for result in results] == [None] * 5
    assert [result.levels[0].remaining for result in results] == [1, 0, 0, 0, 0]
    assert 0 < redis_client.pttl(bucket.key) <= PERIOD * 1000


def test_a_bucket_has_its_reduced_rate_while_an_advisory_bucket_is_empty(redis_client, owner):
    advisory = Bucket(f"{owner}-all", "attempts", 1, 1, advisory=True)
    bucket = Bucket(owner, "attempts", 10, 1, period=150, reduced=Rate(1, 120))

    assert draw(redis_client, [bucket, advisory]).refused is None
    refused = draw(redis_client, [bucket, advisory])
    assert refused.refused == bucket
    assert 10 < refused.wait <= 15  # the first draw

    redis_client.delete(bucket.key)
    assert draw(redis_client, [bucket, advisory]).refused is None
    assert 115 < draw(redis_client, [bucket, advisory]).wait <= 120

    redis_client.delete(advisory.key)
    assert draw(redis_client, [bucket, advisory]).refused is None
