"""Select due jobs fairly, and recover lost ones."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.outbox import BATCH, SMALLEST_WINDOW, lock_due_jobs, mark_published, requeue_lost, windows
from models.jobs.workers import register
from models.platform.ids import new_id

WINDOWS = {"test.work": 4, "test.other": 4}


def publish(job_store, window_sizes=WINDOWS):
    """Publish once like a relay. Returns the ids published, in order."""
    with job_store.database.transaction() as connection:
        due = lock_due_jobs(connection, window_sizes)
        mark_published(connection, due)
    return [job.id for job in due]


def test_two_hundred_jobs_of_one_account_do_not_delay_another_account(empty_job_store):
    job_store = empty_job_store
    greedy, modest = job_store.create_account(), job_store.create_account()
    with job_store.database.transaction() as connection:
        for _ in range(200):
            enqueue(connection, NewJob("test.work", greedy))
    first = publish(job_store)
    assert len(first) == 4

    other_job = job_store.enqueue(modest)

    assert publish(job_store) == [other_job]


def test_each_end_lets_one_more_job_be_published(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(6):
        job_store.enqueue(account)
    published = publish(job_store)

    job = job_store.claim(published[0])
    assert publish(job_store) == []  # a running job still counts
    job_store.update(job.id, "state = 'completed'")

    assert len(publish(job_store)) == 1


def test_suspects_run_one_at_a_time(empty_job_store):
    """A job that kills its process must not run beside the same jobs again and again."""
    job_store = empty_job_store
    suspects = [job_store.enqueue(job_store.create_account()) for _ in range(3)]
    for job_id in suspects:
        job_store.update(job_id, "crashes = 2")
    fresh = job_store.enqueue(job_store.create_account())

    assert publish(job_store) == [suspects[0], fresh]
    assert publish(job_store) == []
    job_store.update(job_store.claim(suspects[0]).id, "state = 'completed'")

    assert publish(job_store) == [suspects[1]]


def test_a_waiting_parent_does_not_count(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(5):
        job_store.enqueue(account)
    parent = job_store.claim(publish(job_store)[0])
    job_store.update(parent.id, "state = 'waiting', pending_children = 1")

    assert len(publish(job_store)) == 1


def test_the_longest_due_are_published_first_and_a_pass_is_limited(empty_job_store):
    job_store = empty_job_store
    jobs = [job_store.enqueue(job_store.create_account()) for _ in range(BATCH + 2)]
    job_store.update(jobs[-1], "run_at = now() - interval '1 hour'")

    first = publish(job_store)

    assert first[0] == jobs[-1]
    assert len(first) == BATCH
    assert {*first, *publish(job_store)} == set(jobs)


def test_jobs_that_are_not_due_or_of_an_unknown_kind_are_not_published(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    later, strange = job_store.enqueue(account), job_store.enqueue(account)
    job_store.update(later, "run_at = now() + interval '1 hour'")
    job_store.update(strange, "kind = 'test.of_tomorrow'")  # of another version, during an upgrade

    assert publish(job_store) == []


def test_the_platforms_own_jobs_have_a_wide_window(empty_job_store):
    job_store = empty_job_store
    for _ in range(20):
        job_store.enqueue(PLATFORM_ACCOUNT)

    assert len(publish(job_store, {"test.work": 1})) == 20


def test_jobs_with_a_serial_key_run_one_by_one_in_order(empty_job_store):
    job_store = empty_job_store
    account, other = job_store.create_account(), job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    third = job_store.enqueue(other, serial_key="thread", kind="test.other")
    order = []
    for _ in range(3):
        (job_id,) = publish(job_store)
        order.append(job_id)
        assert publish(job_store) == []
        assert job_store.claim(job_id) is not None
        assert publish(job_store) == []
        job_store.update(job_id, "state = 'completed'")

    assert order == [first, second, third]


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_a_serial_job_waits_for_retries_and_children_of_the_one_before(empty_job_store, state):
    job_store = empty_job_store
    account = job_store.create_account()
    first = job_store.enqueue(account, serial_key="thread")
    job_store.enqueue(account, serial_key="thread")
    job_store.update(first, f"state = '{state}', attempt = 1, run_at = now() + interval '1 hour'")

    assert publish(job_store) == []


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_a_serial_job_that_was_inserted_late_waits_for_a_younger_one(empty_job_store, state):
    """An id is generated before its row is inserted, so a younger job may run already."""
    job_store = empty_job_store
    account = job_store.create_account()
    late = new_id("job")
    young = job_store.enqueue(account, serial_key="thread")
    job_store.update(young, f"state = '{state}', published_at = now()")

    job_store.enqueue(account, serial_key="thread", id=late)

    assert publish(job_store) == []


def test_a_claim_out_of_order_is_given_back(empty_job_store):
    """Of two serial jobs only one runs, whatever messages exist."""
    job_store = empty_job_store
    account = job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    job_store.claim(first)
    job_store.update(second, "published_at = now()")

    assert job_store.claim(second) is None
    assert (job_store.job(second).state, job_store.job(second).published_at) == ("queued", None)
    job_store.update(first, "state = 'completed'")
    assert publish(job_store) == [second]


def test_two_concurrent_relays_publish_each_job_once(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(4):
        job_store.enqueue(account)
    published_ids, inside, go = [], threading.Event(), threading.Event()

    def slow_relay():
        with job_store.database.transaction() as connection:
            jobs = lock_due_jobs(connection, WINDOWS)
            inside.set()
            go.wait(20)
            mark_published(connection, jobs)
        published_ids.extend(job.id for job in jobs)

    slow = threading.Thread(target=slow_relay)
    slow.start()
    assert inside.wait(20)
    fast = threading.Thread(target=lambda: published_ids.extend(publish(job_store)))
    fast.start()
    with job_store.database.connection() as connection:
        waits = (
            "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        wait_until(lambda: connection.execute(waits).fetchone() is not None)
    go.set()
    slow.join(20)
    fast.join(20)

    assert len(published_ids) == len(set(published_ids)) == 4


def test_marking_skips_jobs_whose_state_has_changed(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    claimed, back = job_store.enqueue(account), job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        due = lock_due_jobs(connection, WINDOWS)
        job_store.claim(claimed)
        job_store.claim(back)
        job_store.update(back, "state = 'queued', published_at = NULL, run_at = now() + interval '1 hour'")
        mark_published(connection, due)

    assert job_store.job(back).published_at is None
    assert job_store.job(claimed).state == "running"


@pytest.mark.parametrize(
    ("since_due", "since_published", "lost"),
    [(40, 40, True), (20, 20, False), (70, 40, True), (200, 40, False), (200, 110, True), (90_000, 40_000, False)],
)
def test_a_lost_message_is_sent_again_at_doubling_intervals(empty_job_store, since_due, since_published, lost):
    """First after 30 s; then each wait equals the time since the job was due."""
    job_store = empty_job_store
    job_id = job_store.enqueue(job_store.create_account())
    job_store.update(
        job_id,
        f"run_at = now() - interval '{since_due} seconds', published_at = now() - interval '{since_published} seconds'",
    )

    with job_store.database.connection() as connection:
        assert requeue_lost(connection) == lost

    assert (job_store.job(job_id).published_at is None) == lost


def test_a_valid_lease_is_kept(empty_job_store):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())

    with job_store.database.connection() as connection:
        assert requeue_lost(connection) == 0

    assert job_store.job(job.id).state == "running"


def test_the_window_is_the_number_of_threads_of_live_workers(empty_job_store):
    with empty_job_store.database.connection() as connection:
        assert windows(connection)["test.work"] == SMALLEST_WINDOW
        for name, threads in (("w1", 3), ("w2", 5), ("silent", 100)):
            register(connection, name, host="h", pid=1, pools=[], queues=["maintenance"], threads=threads)
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'silent'")

        sizes = windows(connection)

    assert sizes["test.work"] == sizes["maintenance.prune"] == 8
    assert sizes["test.other"] == SMALLEST_WINDOW
