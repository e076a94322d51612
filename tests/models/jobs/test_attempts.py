"""Claim, retry, release and end jobs."""

from datetime import UTC, datetime, timedelta

import pytest

from models.jobs import attempts
from models.jobs.attempts import MAX_BACKOFF, Ending
from models.jobs.catalogue import CATALOGUE
from models.jobs.children import wait_for_children
from models.jobs.jobs import NewJob
from models.journal.archive import read_archive
from models.journal.events import event
from models.platform.errors import Fenced, Moved


def test_a_message_of_a_queue_that_the_job_has_left_is_dropped(job_store):
    job_id = job_store.enqueue(job_store.create_account())
    queue = job_store.job(job_id).queue
    with job_store.database.connection() as connection:
        assert attempts.claim(connection, job_id, message_id="m1", worker="w", queue="elsewhere") is None
        claimed = attempts.claim(connection, job_id, message_id="m2", worker="w", queue=queue)
    assert claimed is not None
    assert claimed.attempt == 1


def test_a_due_job_is_claimed_once(job_store, account):
    job_id = job_store.enqueue(account)

    job = job_store.claim(job_id, "m1", "w1")

    assert job is not None
    assert (job.state, job.attempt, job.message_id, job.worker) == ("running", 1, "m1", "w1")
    assert job.claim_id is not None
    assert job.started_at is not None
    assert job_store.claim(job_id, "m2", "w2") is None
    assert job_store.claim(job_id, "m1", "w1") is None  # redelivered to the worker that is running it


def test_a_claim_does_not_wait_for_the_disk_and_the_end_does(job_store, account):
    # Given a transaction, where the setting can be read
    job_id = job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        # When the job is claimed
        job = attempts.claim(connection, job_id, message_id="m", worker="w")
        # Then the commit returns before the claim is on the disk
        assert connection.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "off"}

    # When it ends, then the commit waits
    with job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])
        assert connection.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "on"}


def test_a_message_that_is_delivered_again_does_not_take_a_running_job(job_store, account):
    """A lost connection to the broker is enough for that; the worker goes on."""
    job = job_store.start(account)

    assert job_store.claim(job.id, "message", "another worker") is None
    assert job_store.claim(job.id, "message", "worker") is None

    assert (job_store.job(job.id).attempt, job_store.job(job.id).crashes) == (1, 0)
    with job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])


def test_a_worker_takes_its_own_claim_again_if_the_reply_was_lost(job_store, account):
    first = job_store.start(account)

    with job_store.database.connection() as connection:
        second = attempts.claim(connection, first.id, message_id="message", worker="worker", unsure=True)

    assert (second.attempt, second.failures) == (2, 0)
    assert second.claim_id != first.claim_id


@pytest.mark.parametrize(("message_id", "worker"), [("message", "another worker"), ("another message", "worker")])
def test_a_claim_of_another_worker_or_message_is_not_taken_again(job_store, account, message_id, worker):
    first = job_store.start(account)

    with job_store.database.connection() as connection:
        claimed = attempts.claim(connection, first.id, message_id=message_id, worker=worker, unsure=True)

    assert claimed is None
    assert job_store.job(first.id).claim_id == first.claim_id


def test_a_claim_with_the_same_number_is_refused_after_a_failover(job_store, account):
    """A promoted standby that lacks a claim gives its number to another one."""
    # Given a claim that a failover has lost, and another one with its number
    first = job_store.start(account)
    job_store.update(first.id, "state = 'queued', attempt = 0, claim_id = NULL, worker = NULL, message_id = NULL")
    second = job_store.claim(first.id, "another message", "another worker")
    assert (second.attempt, first.attempt) == (1, 1)
    # When the first attempt writes, then each statement refuses it
    statements = [
        lambda connection: attempts.end(connection, first, Ending("completed", []), []),
        lambda connection: attempts.retry(connection, first, {}, ""),
        lambda connection: attempts.release(connection, first),
        lambda connection: attempts.checkpoint(connection, first, [event(0, "test.said", {})]),
        lambda connection: attempts.store_progress(connection, first, {}),
        lambda connection: attempts.store_rewind(connection, first, 0),
        lambda connection: wait_for_children(connection, first, []),
    ]
    for statement in statements:
        with pytest.raises(Fenced), job_store.database.transaction() as connection:
            statement(connection)
    with job_store.database.connection() as connection:
        assert not attempts.is_current(connection, first.id, first.attempt, first.claim_id)
        assert not attempts.may_write(connection, first.id, first.attempt, first.claim_id)
        assert attempts.is_current(connection, second.id, second.attempt, second.claim_id)


def test_a_message_for_a_job_that_is_not_due_or_does_not_exist_is_dropped(job_store, account):
    job_id = job_store.enqueue(account)
    job_store.update(job_id, "run_at = now() + interval '1 hour'")

    assert job_store.claim(job_id) is None
    assert job_store.claim("job_nobody") is None
    assert job_store.job(job_id).attempt == 0


def test_a_message_that_a_failover_did_not_lose_does_not_claim_a_blocked_job(empty_job_store):
    """The end of the job before was lost, and with it the order in which the message was published."""
    # Given two jobs of a serial key, of which the first will run again, and a message of the second
    job_store = empty_job_store
    account = job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    job_store.update(second, "published_at = now()")
    # When the message is delivered before and after the end of the first
    early = job_store.claim(second)
    unpublished = job_store.job(second).published_at is None
    with job_store.database.transaction() as connection:
        attempts.end(connection, job_store.claim(first), Ending("completed", []), [])
    late = job_store.claim(second)
    # Then it claims the second job only after the end
    assert (early, unpublished) == (None, True)
    assert (late.state, late.blocked) == ("running", False)


def test_a_job_that_the_previous_version_left_blocked_is_claimed(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    job_store.update(first, "state = 'completed'")

    assert job_store.claim(second) is not None


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
    assert (after.state, after.failures, after.published_at) == ("scheduled", 1, None)
    assert (after.error, after.traceback) == ({"code": "c", "message": "m"}, "Traceback …")
    assert job_store.claim(job.id) is None  # not due yet


def test_a_retry_waits_as_long_as_another_server_asks_for(job_store, account):
    job = job_store.start(account)

    with job_store.database.transaction() as connection:
        attempts.retry(connection, job, {}, "", retry_after=120)

    assert job_store.job(job.id).run_at > datetime.now(UTC) + timedelta(seconds=100)


def test_a_release_counts_no_failure_and_may_delay_the_job(job_store, account):
    job = job_store.start(account)

    with job_store.database.transaction() as connection:
        attempts.release(connection, job, delay=3600)

    assert (job_store.job(job.id).state, job_store.job(job.id).failures) == ("scheduled", 0)
    assert job_store.claim(job.id) is None


@pytest.mark.parametrize(("advanced", "left"), [(True, 0), (False, 39)])
def test_a_release_after_progress_forgets_earlier_failures(job_store, account, advanced, left):
    # Given a job that was put back for as many crashes as it may have, but for one
    job = job_store.start(account)
    job_store.update(job.id, "failures = 39, crashes = 39")
    # When an attempt returns it to the queue
    with job_store.database.transaction() as connection:
        attempts.release(connection, job, advanced=advanced)
    # Then they no longer count if it has advanced
    released = job_store.job(job.id)
    assert (released.failures, released.crashes) == (left, left)


def test_a_moved_job_keeps_its_place_and_counts_no_failure(job_store, account):
    # Given a job that was due before it ran
    job = job_store.start(account, arguments={"n": 1, "route": {"moves": 1}})
    events = [event(0, "test.said", {})]

    # When it moves
    with job_store.database.transaction() as connection:
        attempts.move(connection, job, Moved("a test", queue="elsewhere", route={"moves": 2}), events)

    # Then it is due in the other queue since the same time, with its events
    after = job_store.job(job.id)
    assert (after.state, after.queue, after.failures, after.published_at) == ("queued", "elsewhere", 0, None)
    assert after.run_at == job.run_at
    assert after.arguments == {"n": 1, "route": {"moves": 2}}
    with job_store.database.connection() as connection:
        assert read_archive(connection, job.id).events == events


def test_a_move_without_a_route_keeps_the_arguments(job_store, account):
    job = job_store.start(account, arguments={"n": 1})

    with job_store.database.transaction() as connection:
        attempts.move(connection, job, Moved("a test", queue="elsewhere", delay=3600))

    after = job_store.job(job.id)
    assert (after.state, after.arguments) == ("scheduled", {"n": 1})
    assert job_store.claim(job.id) is None


def test_what_belongs_to_a_move_is_written_in_its_transaction(job_store, account):
    job = job_store.start(account)

    def fail(connection):
        raise ValueError("cannot be written")

    with pytest.raises(ValueError, match="cannot be written"), job_store.database.transaction() as connection:
        attempts.move(connection, job, Moved("a test", queue="elsewhere", record=fail))

    assert (job_store.job(job.id).state, job_store.job(job.id).queue) == ("running", job.queue)


def test_an_attempt_that_was_superseded_moves_nothing(job_store, account):
    first = job_store.start(account)
    job_store.take_over(first)

    with pytest.raises(Fenced), job_store.database.transaction() as connection:
        attempts.move(connection, first, Moved("a test", queue="elsewhere"))

    assert job_store.job(first.id).queue == first.queue


def test_only_the_attempt_that_ended_a_job_has_ended_it(job_store, account):
    first = job_store.start(account)
    second = job_store.take_over(first)

    with job_store.database.transaction() as connection:
        attempts.end(connection, second, Ending("completed", [], result={"n": 1}), [])

    with job_store.database.connection() as connection:
        assert attempts.has_ended(connection, second)
        assert not attempts.has_ended(connection, first)
        assert not attempts.is_current(connection, second.id, second.attempt, second.claim_id)
        assert attempts.may_write(connection, second.id, second.attempt, second.claim_id)
        assert not attempts.may_write(connection, second.id, first.attempt, first.claim_id)


def test_end_returns_the_lanes_in_which_the_relay_has_work(job_store, account):
    """The window has room for a queued job of the same lane, or the parent was woken."""
    first, parent = job_store.start(account), job_store.start(account, kind="test.other", lane="lane_of_parent")
    child = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        wait_for_children(connection, parent, [child])
    ending = Ending("completed", [])

    running_child = job_store.claim(child.id)
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, running_child, ending, []) == {"lane_of_parent"}  # the parent was woken
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, first, ending, []) == set()
    assert (job_store.job(parent.id).state, job_store.job(parent.id).published_at) == ("queued", None)
    last, queued = job_store.start(account), job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, last, ending, []) == {account}  # a job is queued
    last = job_store.claim(queued)
    following = Ending("completed", [], follow_ups=[NewJob("test.work", account, lane="lane_of_follow_up")])
    with job_store.database.transaction() as connection:
        assert attempts.end(connection, last, following, []) == {"lane_of_follow_up"}


@pytest.mark.parametrize(
    ("options", "lane"), [({"lane": "another lane"}, "another lane"), ({"kind": "test.other"}, None)]
)
def test_end_returns_the_lane_of_the_next_job_of_the_serial_key(job_store, account, options, lane):
    """It may be in another lane, or in another queue."""
    key = f"thread {account}"
    first = job_store.start(account, serial_key=key)
    job_store.enqueue(account, serial_key=key, **options)

    with job_store.database.transaction() as connection:
        assert attempts.end(connection, first, Ending("completed", []), []) == {lane or account}


def test_only_the_current_attempt_stores_progress_and_rewinds(job_store, account):
    first = job_store.start(account)
    with job_store.database.connection() as connection:
        attempts.store_progress(connection, first, {"done": 3})
        attempts.store_rewind(connection, first, 7)
        attempts.store_rewind(connection, first, 9)
    job_store.take_over(first)

    with job_store.database.connection() as connection:
        with pytest.raises(Fenced):
            attempts.store_progress(connection, first, {"done": 4})
        with pytest.raises(Fenced):
            attempts.store_rewind(connection, first, 1)

    assert (job_store.job(first.id).progress, job_store.job(first.id).rewound_at) == ({"done": 3}, 7)
