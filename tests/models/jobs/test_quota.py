"""Reserve and bill tokens, and limit unfinished jobs."""

import threading

import pytest

from models.accounts.plans import Limits
from models.jobs import quota, usage
from models.jobs.budgets import BudgetLimits, draw, open_budget, settle
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_quota, check_unfinished_jobs, max_prompt_tokens
from models.jobs.recent_counts import SECONDS_PER_JOB, RecentCounts
from models.jobs.usage import TokenUsage
from models.platform.errors import InsufficientQuota, LimitExceeded, TooLarge
from models.platform.ids import new_id

MONTHLY = Limits(tokens_per_month=100)


def reserve(database, account, tokens):
    with database.transaction() as connection:
        check_quota(connection, account, MONTHLY, tokens)
        enqueue(connection, NewJob("turn.run", account, reserved_tokens=tokens))


def usage_of(database, account):
    with database.connection() as connection:
        now = quota.monthly_usage(connection, account)
    return now.used, now.reserved


def bill(database, account, job_id, tokens):
    with database.transaction() as connection:
        usage.bill(connection, TokenUsage(tokens, 0, tokens), job_id=job_id, account_id=account, model="fake")


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "dead"])
def test_a_reservation_ends_with_its_job(database, account, state):
    reserve(database, account, 60)
    with pytest.raises(InsufficientQuota):
        reserve(database, account, 41)

    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = %s WHERE account_id = %s", (state, account))

    reserve(database, account, 100)
    assert usage_of(database, account) == (0, 100)


def test_a_replayed_job_is_billed_for_the_difference(database, account):
    job_id = new_id("job")
    for tokens in (10, 10, 15):
        bill(database, account, job_id, tokens)
    bill(database, account, new_id("job"), 5)

    assert usage_of(database, account) == (40, 0)


def test_billed_tokens_count_against_the_quota(database, account):
    bill(database, account, new_id("job"), 20)

    reserve(database, account, 60)
    with pytest.raises(InsufficientQuota):
        reserve(database, account, 1)


def test_concurrent_checks_do_not_exceed_the_quota(database, account):
    refused = []

    def ask():
        try:
            reserve(database, account, 30)
        except InsufficientQuota:
            refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(refused), usage_of(database, account)) == (5, (0, 90))


def test_an_account_without_a_monthly_limit_is_not_locked(database, account):
    with database.transaction() as holder:
        holder.execute(quota.LOCK, {"account_id": account})
        with database.transaction() as connection:
            check_quota(connection, account, Limits(), 10**9)


def test_unfinished_jobs_are_limited(database, account):
    limits = Limits(unfinished_jobs=2)
    with database.transaction() as connection:
        for _ in range(2):
            check_unfinished_jobs(connection, account, limits)
            enqueue(connection, NewJob("turn.run", account))
        with pytest.raises(LimitExceeded) as refusal:
            check_unfinished_jobs(connection, account, limits)
        connection.execute("UPDATE jobs SET state = 'completed' WHERE account_id = %s", (account,))
        check_unfinished_jobs(connection, account, limits)

    assert refusal.value.code == "too_many_jobs"


def sized_job(account, size):
    return NewJob("embedding.create", account, {"texts": ["x" * (size - len('{"texts":[""]}'))]})


@pytest.mark.parametrize("limit", [Limits(unfinished_bytes=1000), Limits(unfinished_bytes=1000, unfinished_jobs=20)])
def test_bytes_of_unfinished_jobs_are_limited(database, account, limit):
    """Given jobs of 900 bytes, when another one has 101, then it is refused until they end; one of 1,001 is refused."""
    with database.transaction() as connection:
        for size in (400, 500):
            check_unfinished_jobs(connection, account, limit, size=size)
            enqueue(connection, sized_job(account, size))
        check_unfinished_jobs(connection, account, limit, size=100)
        with pytest.raises(LimitExceeded) as refusal:
            check_unfinished_jobs(connection, account, limit, size=101)
        with pytest.raises(TooLarge) as too_large:
            check_unfinished_jobs(connection, account, limit, size=1001)
        connection.execute("UPDATE jobs SET state = 'completed' WHERE account_id = %s", (account,))
        check_unfinished_jobs(connection, account, limit, size=1000)

    assert (refusal.value.code, too_large.value.code) == ("too_many_job_bytes", "job_too_large")
    assert "unfinished_bytes" in str(refusal.value)


def test_bytes_of_a_long_queue_include_the_jobs_admitted_since_it_was_counted(database, account, monkeypatch):
    monkeypatch.setattr(quota, "_recent_counts", RecentCounts(clock=lambda: 100.0))
    limits = Limits(unfinished_jobs=1000, unfinished_bytes=6000)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue, job_bytes) SELECT %(id)s || n, %(id)s, 'turn.run', "
            "'inference', 10 FROM generate_series(1, 500) AS n", {"id": account},
        )  # fmt: skip
        check_unfinished_jobs(connection, account, limits, size=600)
        with pytest.raises(LimitExceeded) as refusal:
            check_unfinished_jobs(connection, account, limits, size=401)

    assert refusal.value.code == "too_many_job_bytes"


def test_long_queue_is_counted_again_only_after_some_time(database, account, monkeypatch):
    # Given an account with one job less than its limit
    now = [100.0]
    monkeypatch.setattr(quota, "_recent_counts", RecentCounts(clock=lambda: now[0]))
    limits = Limits(unfinished_jobs=600)
    with database.connection() as connection:
        connection.execute(
            "INSERT INTO jobs (id, account_id, kind, queue) SELECT %(id)s || n, %(id)s, 'turn.run', 'inference' "
            "FROM generate_series(1, 599) AS n", {"id": account},
        )  # fmt: skip
        # When another one is admitted
        check_unfinished_jobs(connection, account, limits)
        # Then the process counts that one without reading the queue
        connection.execute("UPDATE jobs SET state = 'completed' WHERE account_id = %s", (account,))
        with pytest.raises(LimitExceeded):
            check_unfinished_jobs(connection, account, limits)
        # And reads the queue again after a hundred times as long as the counting takes
        now[0] += 599 * SECONDS_PER_JOB
        check_unfinished_jobs(connection, account, limits)


@pytest.mark.parametrize("state", ["scheduled", "queued", "running", "waiting"])
def test_jobs_of_all_unfinished_states_count_and_reserve(database, account, state):
    reserve(database, account, 60)
    with database.connection() as connection:
        connection.execute("UPDATE jobs SET state = %s WHERE account_id = %s", (state, account))
        with pytest.raises(LimitExceeded):
            check_unfinished_jobs(connection, account, Limits(unfinished_jobs=1))

    assert usage_of(database, account) == (0, 60)


def test_tree_reserves_what_its_budget_has_left_and_what_its_jobs_have_drawn(database, account):
    # Given a root that reserves for a tree
    root, child = NewJob("turn.run", account, reserved_tokens=90), NewJob("turn.run", account, reserved_tokens=20)
    with database.transaction() as connection:
        enqueue(connection, root)
        open_budget(connection, root.id, account, BudgetLimits(tokens=1000))
    assert usage_of(database, account) == (0, 90)
    # When a child draws, then the reservation of the tree is the same
    with database.transaction() as connection:
        enqueue(connection, child)
        draw(connection, root.id, tokens=20)
    assert usage_of(database, account) == (0, 90)
    # When the child ends, having used less, then its use is billed and the rest is reserved
    bill(database, account, child.id, 5)
    with database.transaction() as connection:
        connection.execute("UPDATE jobs SET state = 'completed' WHERE id = %s", (child.id,))
        settle(connection, root.id, tokens=20 - 10)
    assert usage_of(database, account) == (10, 80)
    # And a tree that has used more than its root reserves, reserves nothing
    with database.transaction() as connection:
        settle(connection, root.id, tokens=-500)
    assert usage_of(database, account) == (10, 0)


def test_unfinished_turns_of_a_conversation_are_limited(database, account, monkeypatch):
    monkeypatch.setattr(quota, "MAX_THREAD_TURNS", 1)
    with database.transaction() as connection:
        enqueue(connection, NewJob("turn.run", account, serial_key=account))
        check_unfinished_jobs(connection, account, Limits(), "another")
        with pytest.raises(LimitExceeded) as refusal:
            check_unfinished_jobs(connection, account, Limits(), account)

    assert refusal.value.code == "conversation_full"


def test_a_prompt_has_a_token_per_byte_at_most_and_fits_the_context():
    assert max_prompt_tokens(100, 1, 4096) == 116
    assert max_prompt_tokens(5000, 1, 4096) == 4096
