"""Given jobs of many accounts, when the relay asks what is due, then nobody stands in front of everybody."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.outbox import BATCH, SMALLEST_WINDOW, lock_due_jobs, mark_published, requeue_lost, windows
from models.jobs.workers import register
from models.platform.ids import new_id

WINDOWS = {"test.work": 4, "test.other": 4}


def publish(job_store, given=WINDOWS):
    """One pass of a relay: the ids it published, in order."""
    with job_store.database.transaction() as connection:
        found = lock_due_jobs(connection, given)
        mark_published(connection, found)
    return [job.id for job in found]


def test_two_hundred_jobs_of_one_account_do_not_delay_the_one_of_another(empty_job_store):
    job_store = empty_job_store
    greedy, modest = job_store.create_account(), job_store.create_account()
    with job_store.database.transaction() as connection:
        for _ in range(200):
            enqueue(connection, NewJob("test.work", greedy))
    first = publish(job_store)
    assert len(first) == 4

    theirs = job_store.enqueue(modest)

    assert publish(job_store) == [theirs]


def test_each_end_makes_room_for_one_more(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(6):
        job_store.enqueue(account)
    published = publish(job_store)

    job = job_store.claim(published[0])
    assert publish(job_store) == []  # it runs, so it still counts
    job_store.update(job.id, "state = 'completed'")

    assert len(publish(job_store)) == 1


def test_jobs_whose_workers_died_twice_run_one_at_a_time(empty_job_store):
    """One of them may be what kills: it must not meet the same neighbours again and again."""
    job_store = empty_job_store
    suspects = [job_store.enqueue(job_store.create_account()) for _ in range(3)]
    for job_id in suspects:
        job_store.update(job_id, "crashes = 2")
    fresh = job_store.enqueue(job_store.create_account())

    assert publish(job_store) == [suspects[0], fresh]
    assert publish(job_store) == []
    job_store.update(job_store.claim(suspects[0]).id, "state = 'completed'")

    assert publish(job_store) == [suspects[1]]


def test_a_waiting_parent_takes_no_room(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(5):
        job_store.enqueue(account)
    parent = job_store.claim(publish(job_store)[0])
    job_store.update(parent.id, "state = 'waiting', pending_children = 1")

    assert len(publish(job_store)) == 1


def test_the_oldest_go_first_and_one_pass_has_an_end(empty_job_store):
    job_store = empty_job_store
    jobs = [job_store.enqueue(job_store.create_account()) for _ in range(BATCH + 2)]
    job_store.update(jobs[-1], "run_at = now() - interval '1 hour'")

    first = publish(job_store)

    assert first[0] == jobs[-1]
    assert len(first) == BATCH
    assert {*first, *publish(job_store)} == set(jobs)


def test_what_is_not_due_or_of_no_known_kind_stays(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    later, strange = job_store.enqueue(account), job_store.enqueue(account)
    job_store.update(later, "run_at = now() + interval '1 hour'")
    job_store.update(strange, "kind = 'test.of_tomorrow'")  # another version's, in the middle of an update

    assert publish(job_store) == []


def test_the_platforms_own_work_has_a_wide_window(empty_job_store):
    job_store = empty_job_store
    for _ in range(20):
        job_store.enqueue(PLATFORM_ACCOUNT)

    assert len(publish(job_store, {"test.work": 1})) == 20


def test_serial_jobs_go_one_by_one_in_their_order(empty_job_store):
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
def test_a_serial_job_waits_for_the_retries_and_children_of_the_one_before(empty_job_store, state):
    job_store = empty_job_store
    account = job_store.create_account()
    first = job_store.enqueue(account, serial_key="thread")
    job_store.enqueue(account, serial_key="thread")
    job_store.update(first, f"state = '{state}', attempt = 1, run_at = now() + interval '1 hour'")

    assert publish(job_store) == []


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_a_serial_job_with_an_older_id_that_came_late_waits_too(empty_job_store, state):
    """An id is made before its row is, so a job may find a younger one at work."""
    job_store = empty_job_store
    account = job_store.create_account()
    late = new_id("job")
    young = job_store.enqueue(account, serial_key="thread")
    job_store.update(young, f"state = '{state}', published_at = now()")

    job_store.enqueue(account, serial_key="thread", id=late)

    assert publish(job_store) == []


def test_a_claim_out_of_turn_goes_back(empty_job_store):
    """However its message came about: of two serial jobs only one runs."""
    job_store = empty_job_store
    account = job_store.create_account()
    first, second = job_store.enqueue(account, serial_key="thread"), job_store.enqueue(account, serial_key="thread")
    job_store.claim(first)
    job_store.update(second, "published_at = now()")

    assert job_store.claim(second) is None
    assert (job_store.job(second).state, job_store.job(second).published_at) == ("queued", None)
    job_store.update(first, "state = 'completed'")
    assert publish(job_store) == [second]


def test_two_relays_at_once_publish_nothing_twice(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    for _ in range(4):
        job_store.enqueue(account)
    found, inside, go = [], threading.Event(), threading.Event()

    def slow_relay():
        with job_store.database.transaction() as connection:
            jobs = lock_due_jobs(connection, WINDOWS)
            inside.set()
            go.wait(20)
            mark_published(connection, jobs)
        found.extend(job.id for job in jobs)

    slow = threading.Thread(target=slow_relay)
    slow.start()
    assert inside.wait(20)
    fast = threading.Thread(target=lambda: found.extend(publish(job_store)))
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

    assert len(found) == len(set(found)) == 4


def test_the_mark_leaves_alone_what_has_moved_on(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    claimed, back = job_store.enqueue(account), job_store.enqueue(account)
    with job_store.database.transaction() as connection:
        found = lock_due_jobs(connection, WINDOWS)
        job_store.claim(claimed)
        job_store.claim(back)
        job_store.update(back, "state = 'queued', published_at = NULL, run_at = now() + interval '1 hour'")
        mark_published(connection, found)

    assert job_store.job(back).published_at is None
    assert job_store.job(claimed).state == "running"


@pytest.mark.parametrize(
    ("since_due", "since_published", "lost"),
    [(40, 40, True), (20, 20, False), (70, 40, True), (200, 40, False), (200, 110, True), (90_000, 40_000, False)],
)
def test_a_lost_message_is_sent_again_at_doubling_intervals(empty_job_store, since_due, since_published, lost):
    """At first after 30 s; then each wait is as long as all before it."""
    job_store = empty_job_store
    job_id = job_store.enqueue(job_store.create_account())
    job_store.update(
        job_id,
        f"run_at = now() - interval '{since_due} seconds', published_at = now() - interval '{since_published} seconds'",
    )

    with job_store.database.connection() as connection:
        assert requeue_lost(connection) == lost

    assert (job_store.job(job_id).published_at is None) == lost


def test_a_lease_that_lives_is_left_alone(empty_job_store):
    job_store = empty_job_store
    job = job_store.start(job_store.create_account())

    with job_store.database.connection() as connection:
        assert requeue_lost(connection) == 0

    assert job_store.job(job.id).state == "running"


def test_the_window_is_what_the_living_workers_can_do(empty_job_store):
    with empty_job_store.database.connection() as connection:
        assert windows(connection)["test.work"] == SMALLEST_WINDOW
        for name, threads in (("w1", 3), ("w2", 5), ("silent", 100)):
            register(connection, name, host="h", pid=1, pools=[], queues=["maintenance"], threads=threads)
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'silent'")

        found = windows(connection)

    assert found["test.work"] == found["maintenance.prune"] == 8
    assert found["test.other"] == SMALLEST_WINDOW
