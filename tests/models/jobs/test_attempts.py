"""Claim, renew, retry, release and end jobs."""

import pytest

from models.jobs import attempts, outbox
from models.jobs.attempts import LEASE, MAX_BACKOFF, Ending
from models.jobs.catalogue import CATALOGUE
from models.jobs.jobs import NewJob, children
from models.journal.events import event
from models.platform.errors import Fenced


def test_a_due_job_is_claimed_once(job_store, account):
    job_id = job_store.enqueue(account)

    job = job_store.claim(job_id, "m1", "w1")

    assert job is not None
    assert (job.state, job.attempt, job.message_id, job.worker) == ("running", 1, "m1", "w1")
    assert job.lease_until is not None
    assert job.started_at is not None
    assert job_store.claim(job_id, "m2", "w2") is None
    assert job_store.claim(job_id, "m1", "w1") is None  # redelivered to the worker that is running it


def test_a_message_for_a_job_that_is_not_due_or_does_not_exist_is_dropped(job_store, account):
    job_id = job_store.enqueue(account)
    job_store.update(job_id, "run_at = now() + interval '1 hour'")

    assert job_store.claim(job_id) is None
    assert job_store.claim("job_nobody") is None
    assert job_store.job(job_id).attempt == 0


def test_a_redelivery_to_another_worker_starts_a_new_attempt_and_fences_the_first(job_store, account):
    first = job_store.start(account)

    second = job_store.claim(first.id, "message", "another worker")

    assert second is not None
    assert (second.attempt, second.failures) == (2, 1)
    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        attempts.end(connection, first, Ending("completed", []), [])
    assert job_store.job(first.id).state == "running"


def test_a_job_that_kills_its_workers_is_delayed_and_runs_out_of_attempts(job_store, account):
    """Each crash counts. From the second one on the job is delayed and runs alone."""
    job_id = job_store.enqueue(account)
    assert job_store.claim(job_id, "m0", "w0") is not None
    assert job_store.claim(job_id, "m0", "w1") is not None  # the first redelivery is claimed at once
    deaths = 1
    while True:
        assert job_store.claim(job_id, f"m{deaths - 1}", f"w{deaths + 1}") is None
        deaths += 1
        job = job_store.job(job_id)
        assert (job.state, job.failures, job.published_at, job.worker) == ("queued", deaths, None, None)
        job_store.update(job_id, "run_at = run_at - interval '200 seconds'")  # longer than any of the delays
        job = job_store.claim(job_id, f"m{deaths - 1}", f"w{deaths}")
        assert job is not None
        if job.failures >= CATALOGUE[job.kind].attempts:
            break
    assert deaths == 3


@pytest.mark.parametrize(("failures", "least", "most"), [(0, 0, 0), (1, 0.5, 1.5), (3, 2, 6), (20, 64, 192)])
def test_jobs_with_expired_leases_are_given_back_after_a_random_delay(job_store, account, failures, least, most):
    job = job_store.start(account)
    job_store.update(job.id, f"failures = {failures}, lease_until = now() - interval '1 second'")

    with job_store.database.transaction() as connection:
        outbox.requeue_lost(connection)
        delay = connection.execute(
            "SELECT extract(epoch FROM run_at - now())::float AS delay FROM jobs WHERE id = %s", (job.id,)
        ).fetchone()["delay"]

    assert least <= delay <= most
    assert job_store.job(job.id).failures == failures + 1


def test_backoff_doubles_with_jitter_up_to_its_maximum(job_store, account, monkeypatch):
    job = job_store.start(account, kind="test.other")
    monkeypatch.setattr("models.jobs.attempts.random.uniform", lambda low, high: 1.0)
    monkeypatch.setitem(CATALOGUE, "test.other", CATALOGUE["turn.run"])

    delays = []
    for failures in range(5):
        object.__setattr__(job, "failures", failures)
        delays.append(attempts.backoff(job))
    object.__setattr__(job, "failures", 1000)

    assert delays == [0.5, 1, 2, 4, 8]
    assert attempts.backoff(job) == MAX_BACKOFF


def test_a_retry_stores_the_error_and_the_traceback_and_delays_the_job(job_store, account):
    job = job_store.start(account)

    with job_store.database.transaction() as connection:
        attempts.retry(connection, job, {"code": "c", "message": "m"}, "Traceback …", [event(0, "test.said", {})])

    after = job_store.job(job.id)
    assert (after.state, after.failures, after.published_at, after.lease_until) == ("queued", 1, None, None)
    assert (after.error, after.traceback) == ({"code": "c", "message": "m"}, "Traceback …")
    assert job_store.claim(job.id) is None  # not due yet


def test_a_release_counts_no_failure_and_may_delay_the_job(job_store, account):
    job = job_store.start(account)

    with job_store.database.transaction() as connection:
        attempts.release(connection, job, delay=3600)

    assert job_store.job(job.id).failures == 0
    assert job_store.claim(job.id) is None


def test_renewal_returns_the_current_attempts_and_whether_they_are_cancelled(job_store, account):
    held, cancelled, lost = job_store.start(account), job_store.start(account), job_store.start(account)
    job_store.update(cancelled.id, "cancel_requested_at = now()")
    job_store.update(held.id, "lease_until = now()")
    job_store.claim(lost.id, "message", "another worker")

    with job_store.database.connection() as connection:
        renewed = attempts.renew_leases(connection, {held.id: 1, cancelled.id: 1, lost.id: 1, "job_gone": 1})
        remaining = connection.execute(
            "SELECT extract(epoch FROM lease_until - now())::float AS left FROM jobs WHERE id = %s", (held.id,)
        ).fetchone()["left"]

    assert renewed == {held.id: False, cancelled.id: True}
    assert LEASE - 2 < remaining <= LEASE


def test_only_the_attempt_that_ended_a_job_has_ended_it(job_store, account):
    first = job_store.start(account)
    second = job_store.claim(first.id, "message", "another worker")

    with job_store.database.transaction() as connection:
        attempts.end(connection, second, Ending("completed", [], result={"n": 1}), [])

    with job_store.database.connection() as connection:
        assert attempts.has_ended(connection, second)
        assert not attempts.has_ended(connection, first)
        assert not attempts.is_current(connection, second.id, second.attempt)
        assert attempts.may_write(connection, second.id, second.attempt)
        assert not attempts.may_write(connection, second.id, first.attempt)


def test_end_returns_whether_the_relay_has_work(job_store, account):
    """The window has room for a queued job of the same kind, or the parent was woken."""
    first, parent = job_store.start(account), job_store.start(account, kind="test.other")
    child = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, [child])
    ending = Ending("completed", [])

    running_child = job_store.claim(child.id)
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, running_child, ending, [])  # the parent was woken
    with job_store.database.transaction() as connection:
        assert not attempts.end(connection, first, ending, [])
    assert (job_store.job(parent.id).state, job_store.job(parent.id).published_at) == ("queued", None)
    last, _ = job_store.start(account), job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, last, ending, [])  # a job is queued


def test_children_are_returned_in_the_order_of_their_creation(job_store, account):
    parent = job_store.start(account)
    new_jobs = [NewJob("test.work", account, {"n": n}) for n in range(5)]

    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, new_jobs)

    with job_store.database.connection() as connection:
        assert [child.arguments["n"] for child in children(connection, parent.id)] == [0, 1, 2, 3, 4]
    assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("waiting", 5)


def test_existing_children_are_not_waited_for(job_store, account):
    job_store.enqueue(account, unique_key=f"once {account}")
    parent = job_store.start(account)
    double = NewJob("test.work", account, unique_key=f"once {account}", opening=[event(0, "test.said", {})])

    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, [double])

    assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("queued", 0)


def test_a_cancelled_job_enqueues_no_children(job_store, account):
    parent = job_store.start(account)
    job_store.update(parent.id, "cancel_requested_at = now()")

    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, [NewJob("test.work", account)])

    with job_store.database.connection() as connection:
        assert children(connection, parent.id) == []


def test_only_the_current_attempt_stores_progress_and_rewinds(job_store, account):
    first = job_store.start(account)
    with job_store.database.connection() as connection:
        attempts.store_progress(connection, first, {"done": 3})
        attempts.store_rewind(connection, first, 7)
        attempts.store_rewind(connection, first, 9)
    job_store.claim(first.id, "message", "another worker")

    with job_store.database.connection() as connection:
        with pytest.raises(Fenced):
            attempts.store_progress(connection, first, {"done": 4})
        with pytest.raises(Fenced):
            attempts.store_rewind(connection, first, 1)

    assert (job_store.job(first.id).progress, job_store.job(first.id).rewound_at) == ({"done": 3}, 7)
