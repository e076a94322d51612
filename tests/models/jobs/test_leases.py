"""Leases of workers, and the jobs of those that died or are silent."""

import pytest

from models.jobs import attempts, leases
from models.jobs.attempts import Ending
from models.jobs.catalogue import CATALOGUE
from models.jobs.leases import LEASE
from models.jobs.workers import list_live, register
from models.platform.errors import Fenced


def live_worker(job_store, name, *, silent_for=0.0):
    with job_store.database.connection() as connection:
        register(connection, name, host="h", pid=1, pools=[], threads={"maintenance": 1})
        connection.execute(
            "UPDATE workers SET seen_at = now() - make_interval(secs => %s) WHERE name = %s", (silent_for, name)
        )


def give_back(job_store):
    with job_store.database.connection() as connection:
        return leases.give_back_of_silent(connection)


def test_the_jobs_of_a_live_worker_are_kept(empty_job_store):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())
    live_worker(job_store, "worker", silent_for=LEASE - 3)

    assert give_back(job_store) == 0
    assert job_store.job(job.id).state == "running"


def test_the_jobs_of_a_silent_worker_are_given_back_and_its_writes_are_fenced(empty_job_store):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())
    live_worker(job_store, "worker", silent_for=LEASE + 1)

    assert give_back(job_store) == 1

    after = job_store.job(job.id)
    assert (after.state, after.failures, after.crashes) == ("queued", 1, 1)
    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])


def test_a_worker_whose_registration_a_failover_has_lost_gets_a_lease(empty_job_store):
    """It lives, and has claimed a job since the failover, but has not renewed its lease yet."""
    # Given a job of a worker that is not registered
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())
    # When the sweeper looks, twice
    assert (give_back(job_store), give_back(job_store)) == (0, 0)
    # Then the job is kept, and the worker counts only when it registers itself, with all that is known of it
    assert job_store.job(job.id).state == "running"
    with job_store.database.connection() as connection:
        assert list_live(connection) == []
    live_worker(job_store, "worker")
    with job_store.database.connection() as connection:
        [worker] = list_live(connection)
    assert (worker.host, worker.pid, worker.queues, worker.threads) == ("h", 1, ["maintenance"], 1)
    # And if it never does, the job is given back after the lease
    live_worker(job_store, "worker", silent_for=LEASE + 1)
    assert give_back(job_store) == 1


@pytest.mark.parametrize(("failures", "least", "most"), [(0, 0, 0), (1, 0.5, 1.5), (3, 2, 6), (20, 64, 192)])
def test_jobs_are_given_back_after_a_random_delay(empty_job_store, failures, least, most):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())
    job_store.update(job.id, f"failures = {failures}")
    live_worker(job_store, "worker", silent_for=LEASE + 1)

    with job_store.database.transaction() as connection:
        leases.give_back_of_silent(connection)
        delay = connection.execute(
            "SELECT extract(epoch FROM run_at - now())::float AS delay FROM jobs WHERE id = %s", (job.id,)
        ).fetchone()["delay"]

    assert least <= delay <= most
    after = job_store.job(job.id)
    assert (after.state, after.failures) == ("queued" if failures == 0 else "scheduled", failures + 1)


def test_a_job_that_kills_its_workers_runs_out_of_attempts(empty_job_store):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())
    live_worker(job_store, "worker", silent_for=LEASE + 1)
    crashes = 0
    while job.failures < CATALOGUE[job.kind].attempts:
        assert give_back(job_store) == 1
        crashes += 1
        job_store.update(job.id, "state = 'queued', run_at = now()")
        job = job_store.claim(job.id, f"m{crashes}")

    assert (crashes, job.crashes) == (3, 3)


def test_a_worker_learns_which_of_its_claims_are_current_or_cancelled(empty_job_store):
    job_store, account = empty_job_store, empty_job_store.create_account()
    held, cancelled, lost = (job_store.start(account, kind="test.other") for _ in range(3))
    job_store.update(cancelled.id, "cancel_requested_at = now()")
    job_store.take_over(lost)

    with job_store.database.connection() as connection:
        claims = leases.check_claims(connection, "worker", {job.id: job for job in (held, cancelled, lost)})

    assert claims.current == {held.id: False, cancelled.id: True}
    assert claims.unknown == {}


def test_a_claim_that_the_worker_does_not_know_of_is_put_back_without_a_failure(empty_job_store):
    """The reply to the claim was lost, or a failover lost the commit that ended it."""
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())

    with job_store.database.connection() as connection:
        claims = leases.check_claims(connection, "worker", {})
        assert claims.unknown == {job.id: (1, job.claim_id)}
        leases.release_unknown(connection, job.id, *claims.unknown[job.id])

    after = job_store.job(job.id)
    assert (after.state, after.failures, after.published_at) == ("queued", 0, None)


def test_putting_back_an_unknown_claim_does_not_touch_a_later_one(job_store, account):
    first = job_store.start(account)
    second = job_store.take_over(first)

    with job_store.database.connection() as connection:
        leases.release_unknown(connection, first.id, first.attempt, first.claim_id)

    assert job_store.job(first.id).attempt == second.attempt
    assert job_store.job(first.id).state == "running"


def test_an_abandoned_attempt_counts_as_a_failure_and_is_fenced(job_store, account):
    job = job_store.start(account)

    with job_store.database.connection() as connection:
        leases.abandon(connection, job)

    after = job_store.job(job.id)
    assert (after.state, after.failures, after.crashes) == ("queued", 1, 0)
    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])


def test_a_job_whose_claim_a_crash_of_postgres_has_lost_is_published_again(empty_job_store):
    # Given a job that a worker has claimed, and whose row knows nothing of it
    job_store = empty_job_store
    account = job_store.create_account()
    lost, kept = job_store.start(account), job_store.start(account)
    forget = "state = 'queued', attempt = 0, claim_id = NULL, worker = NULL, published_at = now()"
    job_store.update(lost.id, forget)
    # And one that has been put back and published again since
    released = job_store.start(account)
    job_store.update(released.id, "state = 'queued', claim_id = NULL, worker = NULL, published_at = now()")

    # When their worker looks for what has become of its claims
    with job_store.database.connection() as connection:
        resent = leases.resend_forgotten(connection, [lost, kept, released])

    # Then the lost one gets another message, and no other
    assert resent == 1
    assert job_store.job(lost.id).published_at is None
    assert job_store.job(released.id).published_at is not None
    assert job_store.job(kept.id).state == "running"
