"""Cancel jobs and their subtrees, also during concurrent changes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import orjson

from bench.harness.waiting import wait_until
from models.jobs import attempts, leases, outbox, workers
from models.jobs.attempts import Ending
from models.jobs.cancellation import cancel, cancel_all
from models.jobs.children import wait_for_children
from models.jobs.jobs import ENDED, NewJob, children
from models.journal.archive import archive, read_archive
from models.journal.events import event
from models.platform.errors import Fenced


def cancel_job(job_store, job_id, account):
    with job_store.database.transaction() as connection:
        return cancel(connection, job_id, account)


def parent_with_children(job_store, account, count):
    """Enqueue children of a job that waits for them."""
    parent = job_store.start(account)
    new_jobs = [NewJob("test.other", account) for _ in range(count)]
    with job_store.database.transaction() as connection:
        wait_for_children(connection, parent, new_jobs)
    return parent, new_jobs


def test_a_job_without_an_attempt_ends_at_once_and_never_runs(job_store, account):
    opening = [event(0, "test.opened", {}), event(1, "test.opened", {})]
    job_id = job_store.enqueue(account, opening=opening)

    result = cancel_job(job_store, job_id, account)

    assert job_store.job(job_id).state == "cancelled"
    assert job_store.claim(job_id) is None
    assert (result.ended[job_id].sequence, result.ended[job_id].type) == (2, b"sangha:job.cancelled")
    with job_store.database.connection() as connection:
        assert read_archive(connection, job_id).events == [*opening, result.ended[job_id]]


def test_the_last_event_of_a_moved_turn_has_its_route(job_store, account):
    # Given a turn that waits for an endpoint, with the first event of its journal
    route = {"endpoint": "groq", "model": "llama", "reason": "queue_full", "moves": 1, "home": "inference"}
    job_id = job_store.enqueue(account, kind="turn.run", arguments={"route": route})
    with job_store.database.transaction() as connection:
        archive(connection, job_id, [event(0, "response.created", {"response": {"id": "resp", "status": "queued"}})])

        # When it is cancelled
        ended = cancel(connection, job_id, account).ended[job_id]

    # Then the response in its last event says where it was moved, and nothing that only operators may know
    shown = {"endpoint": "groq", "model": "llama", "reason": "queue_full", "moves": 1}
    assert orjson.loads(ended.data)["response"] == {
        "id": "resp", "status": "cancelled", "sangha": {"route": shown}
    }  # fmt: skip


def test_a_job_between_two_attempts_is_queued_at_once(job_store, account):
    """A worker ends it, with what is journalled so far."""
    job = job_store.start(account)
    with job_store.database.transaction() as connection:
        attempts.retry(connection, job, {}, "")

    result = cancel_job(job_store, job.id, account)

    assert (result.ended, result.running) == ({}, [])
    job_again = job_store.claim(job.id)
    assert job_again is not None
    assert job_again.cancel_requested_at is not None


def test_the_next_job_of_a_serial_key_is_unblocked_when_the_first_is_cancelled(job_store, account):
    key = f"thread {account}"
    first, second, third = (job_store.enqueue(account, serial_key=key) for _ in range(3))

    cancel_job(job_store, first, account)

    assert [job_store.job(job_id).blocked for job_id in (second, third)] == [False, True]


def test_a_cancel_returns_the_lanes_in_which_jobs_have_become_due(job_store, account):
    # Given a job that ends at once, the next one of its serial key, and one that waits for its next attempt
    key = f"thread {account}"
    first = job_store.enqueue(account, serial_key=key)
    job_store.enqueue(account, serial_key=key, lane="lane_of_next")
    waiting = job_store.start(account, lane="lane_of_waiting").id
    job_store.update(waiting, "state = 'waiting'")

    with job_store.database.transaction() as connection:
        cancellation = cancel_all(connection, [first, waiting], account)

    assert cancellation.lanes == {"lane_of_next", "lane_of_waiting"}


def test_a_running_job_continues_until_it_is_notified(job_store, account):
    job = job_store.start(account)

    assert cancel_job(job_store, job.id, account).running == [job.id]
    assert cancel_job(job_store, job.id, account).running == []  # it is flagged already
    assert job_store.job(job.id).state == "running"


def test_the_whole_subtree_is_cancelled(job_store, account):
    parent, new_jobs = parent_with_children(job_store, account, 3)
    running, grandparent_of = job_store.claim(new_jobs[0].id), job_store.claim(new_jobs[1].id)
    grandchild = NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        wait_for_children(connection, grandparent_of, [grandchild])

    result = cancel_job(job_store, parent.id, account)

    assert set(result.ended) == {grandchild.id, new_jobs[2].id}
    assert result.running == [running.id]
    states = {
        job.id: job.state for job in map(job_store.job, [parent.id, new_jobs[1].id, new_jobs[2].id, grandchild.id])
    }
    assert states == {
        parent.id: "queued",
        new_jobs[1].id: "queued",
        new_jobs[2].id: "cancelled",
        grandchild.id: "cancelled",
    }
    assert job_store.claim(parent.id).cancel_requested_at is not None


def test_a_cancelled_child_wakes_its_parent(job_store, account):
    parent, (child,) = parent_with_children(job_store, account, 1)

    cancel_job(job_store, child.id, account)

    assert (job_store.job(parent.id).state, job_store.job(parent.id).cancel_requested_at) == ("queued", None)


def test_ended_jobs_and_jobs_of_other_accounts_are_not_cancelled(job_store, account):
    job = job_store.start(account)
    assert cancel_job(job_store, job.id, job_store.create_account()).running == []
    with job_store.database.transaction() as connection:
        attempts.end(connection, job, Ending("completed", []), [])

    result = cancel_job(job_store, job.id, account)

    assert (result.ended, result.running) == ({}, [])
    assert job_store.job(job.id).cancel_requested_at is None


def test_children_enqueued_during_a_cancel_are_cancelled_too(job_store, account):
    """The parent commits its children while the cancel waits for its row."""
    parent, new_jobs = job_store.start(account), [NewJob("test.other", account) for _ in range(3)]
    with job_store.database.transaction() as connection:
        wait_for_children(connection, parent, new_jobs)
        other = threading.Thread(target=cancel_job, args=(job_store, parent.id, account))
        other.start()
        pid = connection.info.backend_pid
        with job_store.database.connection() as watching:
            blocked = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            wait_until(lambda: watching.execute(blocked, (pid,)).fetchone() is not None)
    other.join(20)

    assert {job_store.job(child.id).state for child in new_jobs} == {"cancelled"}
    assert job_store.job(parent.id).cancel_requested_at is not None


def test_concurrent_cancels_ends_heartbeats_and_sweeps_do_not_deadlock(job_store, account):
    """All statements that lock several jobs lock them in the same order or skip locked ones."""
    for name in ("worker", "another worker"):
        with job_store.database.connection() as connection:
            workers.register(connection, name, host="h", pid=1, pools=[], threads={"maintenance": 9})
    for _ in range(6):
        parent, new_jobs = parent_with_children(job_store, account, 10)
        running = [job_store.claim(child.id) for child in new_jobs[:6]]
        running.append(job_store.claim(new_jobs[6].id, worker="silent worker"))
        again = job_store.take_over(running[0])  # the first attempt of this job is superseded
        ending = Ending("completed", [])
        start = threading.Barrier(12)

        def end(job, start=start, ending=ending):
            start.wait(20)
            with suppress(Fenced), job_store.database.transaction() as connection:
                attempts.end(connection, job, ending, [])

        def beat(order, start=start, running=running):
            start.wait(20)
            with job_store.database.connection() as connection:
                leases.check_claims(connection, "worker", {job.id: job for job in running[::order]})

        def cancel_all(start=start, parent=parent):
            start.wait(20)
            cancel_job(job_store, parent.id, account)

        def sweep(start=start):
            start.wait(20)
            with job_store.database.connection() as connection:
                leases.give_back_of_silent(connection)
                outbox.promote_due(connection)
                outbox.unpublish_lost(connection)

        with ThreadPoolExecutor(12) as pool:
            work = [pool.submit(end, job) for job in [*running[:6], again]]
            work += [pool.submit(beat, 1), pool.submit(beat, -1), pool.submit(cancel_all), pool.submit(cancel_all)]
            work += [pool.submit(sweep)]
            for done in work:
                done.result(30)

        with job_store.database.connection() as connection:
            left = [child for child in children(connection, parent.id) if child.state not in ENDED]
        assert {job.id for job in left} <= {running[6].id}
        assert job_store.job(parent.id).state == "queued"


def test_two_children_that_end_at_the_same_time_wake_their_parent(job_store, account):
    for _ in range(20):
        parent, new_jobs = parent_with_children(job_store, account, 2)
        running = [job_store.claim(child.id) for child in new_jobs]
        start = threading.Barrier(2)

        def end(job, start=start):
            start.wait(20)
            with job_store.database.transaction() as connection:
                attempts.end(connection, job, Ending("completed", []), [])

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(end, running))

        assert (job_store.job(parent.id).state, job_store.job(parent.id).pending_children) == ("queued", 0)
