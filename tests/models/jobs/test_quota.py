"""Reserve and bill tokens, and limit unfinished jobs."""

import threading

import pytest

from models.accounts.plans import Limits
from models.jobs import quota, usage
from models.jobs.jobs import NewJob, enqueue
from models.jobs.quota import check_quota, check_unfinished_jobs, max_billable_tokens
from models.jobs.usage import TokenUsage
from models.platform.errors import InsufficientQuota, LimitExceeded
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


def test_unfinished_turns_of_a_conversation_are_limited(database, account, monkeypatch):
    monkeypatch.setattr(quota, "MAX_THREAD_TURNS", 1)
    with database.transaction() as connection:
        enqueue(connection, NewJob("turn.run", account, serial_key=account))
        check_unfinished_jobs(connection, account, Limits(), "another")
        with pytest.raises(LimitExceeded) as refusal:
            check_unfinished_jobs(connection, account, Limits(), account)

    assert refusal.value.code == "conversation_full"


@pytest.mark.parametrize(
    ("output", "history", "expected"), [(10, False, 126), (None, False, 4096), (10, True, 4096), (5000, False, 4096)]
)
def test_billable_tokens_are_limited_by_the_context(output, history, expected):
    assert max_billable_tokens(100, 1, output=output, context=4096, history=history) == expected
