"""Given a job and what it has started, when somebody cancels, then all of it ends, whatever happens meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from bench.harness.waiting import wait_until
from models.jobs import attempts, outbox
from models.jobs.attempts import Ending
from models.jobs.cancellation import cancel
from models.jobs.jobs import ENDED, NewJob, children
from models.journal.archive import read_archive
from models.journal.events import event
from models.platform.errors import Fenced


def cancelled(job_store, job_id, account):
    with job_store.database.transaction() as connection:
        return cancel(connection, job_id, account)


def family(job_store, account, count):
    """A waiting parent and its children."""
    parent = job_store.start(account)
    born = [NewJob("test.other", account) for _ in range(count)]
    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, born)
    return parent, born


def test_an_untouched_job_ends_on_the_spot_and_never_runs(job_store, account):
    opening = [event(0, "test.opened", {}), event(1, "test.opened", {})]
    job_id = job_store.enqueue(account, opening=opening)

    done = cancelled(job_store, job_id, account)

    assert job_store.job(job_id).state == "cancelled"
    assert job_store.claim(job_id) is None
    assert (done.ended[job_id].sequence, done.ended[job_id].type) == (2, b"sangha:job.cancelled")
    with job_store.database.connection() as connection:
        assert read_archive(connection, job_id).events == [*opening, done.ended[job_id]]


def test_a_job_between_two_attempts_goes_to_a_worker_at_once(job_store, account):
    """What it has said so far is for a worker to settle."""
    job = job_store.start(account)
    with job_store.database.transaction() as connection:
        attempts.retry(connection, job, {}, "")

    done = cancelled(job_store, job.id, account)

    assert (done.ended, done.running) == ({}, [])
    again = job_store.claim(job.id)
    assert again is not None
    assert again.cancel_requested_at is not None


def test_a_running_job_goes_on_until_it_is_told(job_store, account):
    job = job_store.start(account)

    assert cancelled(job_store, job.id, account).running == [job.id]
    assert cancelled(job_store, job.id, account).running == []  # it has been told
    assert job_store.job(job.id).state == "running"


def test_the_whole_subtree_is_cancelled(job_store, account):
    parent, born = family(job_store, account, 3)
    running, grandparent_of = job_store.claim(born[0].id), job_store.claim(born[1].id)
    grandchild = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, grandparent_of, [grandchild])

    done = cancelled(job_store, parent.id, account)

    assert set(done.ended) == {grandchild.id, born[2].id}
    assert done.running == [running.id]
    states = {job.id: job.state for job in map(job_store.job, [parent.id, born[1].id, born[2].id, grandchild.id])}
    assert states == {parent.id: "queued", born[1].id: "queued", born[2].id: "cancelled", grandchild.id: "cancelled"}
    assert job_store.claim(parent.id).cancel_requested_at is not None


def test_a_cancelled_child_wakes_its_parent(job_store, account):
    parent, (child,) = family(job_store, account, 1)

    cancelled(job_store, child.id, account)

    assert (job_store.job(parent.id).state, job_store.job(parent.id).cancel_requested_at) == ("queued", None)


def test_what_has_ended_stays_and_strangers_cancel_nothing(job_store, account):
    job = job_store.start(account)
    assert cancelled(job_store, job.id, job_store.create_account()).running == []
    with job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])

    done = cancelled(job_store, job.id, account)

    assert (done.ended, done.running) == ({}, [])
    assert job_store.job(job.id).cancel_requested_at is None


def test_children_that_are_born_during_a_cancel_are_cancelled_too(job_store, account):
    """A parent commits its children while the cancel waits for its row."""
    parent, born = job_store.start(account), [NewJob("test.other", account) for _ in range(3)]
    with job_store.database.transaction() as connection:
        attempts.wait_for_children(connection, parent, born)
        other = threading.Thread(target=cancelled, args=(job_store, parent.id, account))
        other.start()
        pid = connection.info.backend_pid
        with job_store.database.connection() as watching:
            blocked = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            wait_until(lambda: watching.execute(blocked, (pid,)).fetchone() is not None)
    other.join(20)

    assert {job_store.job(child.id).state for child in born} == {"cancelled"}
    assert job_store.job(parent.id).cancel_requested_at is not None


def test_cancels_ends_heartbeats_and_sweeps_at_the_same_time_do_not_deadlock(job_store, account):
    """Every statement that locks more than one row locks them in the same order, or none that somebody else holds."""
    for _ in range(6):
        parent, born = family(job_store, account, 10)
        running = [job_store.claim(child.id) for child in born[:7]]
        again = job_store.claim(running[0].id, "message", "another worker")  # its zombie will try too
        ending = Ending("completed", [])
        start = threading.Barrier(12)

        def end(job, start=start, ending=ending):
            start.wait(20)
            with suppress(Fenced), job_store.database.transaction() as connection:
                attempts.end(connection, job, ending, [])

        def renew(order, start=start, running=running):
            start.wait(20)
            with job_store.database.connection() as connection:
                attempts.renew_leases(connection, {job.id: job.attempt for job in running[::order]})

        def cancel_all(start=start, parent=parent):
            start.wait(20)
            cancelled(job_store, parent.id, account)

        def sweep(start=start):
            start.wait(20)
            with job_store.database.connection() as connection:
                outbox.requeue_lost(connection)

        job_store.update(running[6].id, "lease_until = now() - interval '1 second'")
        with ThreadPoolExecutor(12) as pool:
            work = [pool.submit(end, job) for job in [*running[:6], again]]
            work += [pool.submit(renew, 1), pool.submit(renew, -1), pool.submit(cancel_all), pool.submit(cancel_all)]
            work += [pool.submit(sweep)]
            for done in work:
                done.result(30)

        with job_store.database.connection() as connection:
            left = [child for child in children(connection, parent.id) if child.state not in ENDED]
        assert {job.id for job in left} <= {running[6].id}
        assert job_store.job(parent.id).state == "queued"


def test_the_last_two_children_to_end_at_once_wake_their_parent(job_store, account):
    for _ in range(20):
        parent, born = family(job_store, account, 2)
        running = [job_store.claim(child.id) for child in born]
        start = threading.Barrier(2)

        def end(job, start=start):
            start.wait(20)
            with job_store.database.transaction() as connection:
                attempts.end(connection, job, Ending("completed", []), [])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(end, running))

        assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("queued", 0)
