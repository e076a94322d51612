"""Given jobs of many accounts, when the relay asks what is due, then nobody stands in front of everybody."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.jobs.outbox import BATCH, SMALLEST_WINDOW, lock_due_jobs, mark_published, requeue_lost, windows
from models.jobs.workers import register
from models.platform.ids import new_id

WINDOWS = {"test.work": 4, "test.other": 4}


def publish(desk, given=WINDOWS):
    """One pass of a relay: the ids it published, in order."""
    with desk.database.transaction() as connection:
        found = lock_due_jobs(connection, given)
        mark_published(connection, found)
    return [job.id for job in found]


def test_two_hundred_jobs_of_one_account_do_not_delay_the_one_of_another(empty_desk):
    desk = empty_desk
    greedy, modest = desk.account(), desk.account()
    with desk.database.transaction() as connection:
        for _ in range(200):
            enqueue(connection, NewJob("test.work", greedy))
    first = publish(desk)
    assert len(first) == 4

    theirs = desk.enqueue(modest)

    assert publish(desk) == [theirs]


def test_each_end_makes_room_for_one_more(empty_desk):
    desk = empty_desk
    account = desk.account()
    for _ in range(6):
        desk.enqueue(account)
    published = publish(desk)

    job = desk.claim(published[0])
    assert publish(desk) == []  # it runs, so it still counts
    desk.set(job.id, "state = 'completed'")

    assert len(publish(desk)) == 1


def test_jobs_whose_workers_died_twice_run_one_at_a_time(empty_desk):
    """One of them may be what kills: it must not meet the same neighbours again and again."""
    desk = empty_desk
    suspects = [desk.enqueue(desk.account()) for _ in range(3)]
    for job_id in suspects:
        desk.set(job_id, "crashes = 2")
    fresh = desk.enqueue(desk.account())

    assert publish(desk) == [suspects[0], fresh]
    assert publish(desk) == []
    desk.set(desk.claim(suspects[0]).id, "state = 'completed'")

    assert publish(desk) == [suspects[1]]


def test_a_waiting_parent_takes_no_room(empty_desk):
    desk = empty_desk
    account = desk.account()
    for _ in range(5):
        desk.enqueue(account)
    parent = desk.claim(publish(desk)[0])
    desk.set(parent.id, "state = 'waiting', pending_children = 1")

    assert len(publish(desk)) == 1


def test_the_oldest_go_first_and_one_pass_has_an_end(empty_desk):
    desk = empty_desk
    jobs = [desk.enqueue(desk.account()) for _ in range(BATCH + 2)]
    desk.set(jobs[-1], "run_at = now() - interval '1 hour'")

    first = publish(desk)

    assert first[0] == jobs[-1]
    assert len(first) == BATCH
    assert {*first, *publish(desk)} == set(jobs)


def test_what_is_not_due_or_of_no_known_kind_stays(empty_desk):
    desk = empty_desk
    account = desk.account()
    later, strange = desk.enqueue(account), desk.enqueue(account)
    desk.set(later, "run_at = now() + interval '1 hour'")
    desk.set(strange, "kind = 'test.of_tomorrow'")  # another version's, in the middle of an update

    assert publish(desk) == []


def test_the_platforms_own_work_has_a_wide_window(empty_desk):
    desk = empty_desk
    for _ in range(20):
        desk.enqueue(PLATFORM_ACCOUNT)

    assert len(publish(desk, {"test.work": 1})) == 20


def test_serial_jobs_go_one_by_one_in_their_order(empty_desk):
    desk = empty_desk
    account, other = desk.account(), desk.account()
    first, second = desk.enqueue(account, serial_key="thread"), desk.enqueue(account, serial_key="thread")
    third = desk.enqueue(other, serial_key="thread", kind="test.other")
    order = []
    for _ in range(3):
        (job_id,) = publish(desk)
        order.append(job_id)
        assert publish(desk) == []
        assert desk.claim(job_id) is not None
        assert publish(desk) == []
        desk.set(job_id, "state = 'completed'")

    assert order == [first, second, third]


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_a_serial_job_waits_for_the_retries_and_children_of_the_one_before(empty_desk, state):
    desk = empty_desk
    account = desk.account()
    first = desk.enqueue(account, serial_key="thread")
    desk.enqueue(account, serial_key="thread")
    desk.set(first, f"state = '{state}', attempt = 1, run_at = now() + interval '1 hour'")

    assert publish(desk) == []


@pytest.mark.parametrize("state", ["queued", "running", "waiting"])
def test_a_serial_job_with_an_older_id_that_came_late_waits_too(empty_desk, state):
    """An id is made before its row is, so a job may find a younger one at work."""
    desk = empty_desk
    account = desk.account()
    late = new_id("job")
    young = desk.enqueue(account, serial_key="thread")
    desk.set(young, f"state = '{state}', published_at = now()")

    desk.enqueue(account, serial_key="thread", id=late)

    assert publish(desk) == []


def test_a_claim_out_of_turn_goes_back(empty_desk):
    """However its message came about: of two serial jobs only one runs."""
    desk = empty_desk
    account = desk.account()
    first, second = desk.enqueue(account, serial_key="thread"), desk.enqueue(account, serial_key="thread")
    desk.claim(first)
    desk.set(second, "published_at = now()")

    assert desk.claim(second) is None
    assert (desk.job(second).state, desk.job(second).published_at) == ("queued", None)
    desk.set(first, "state = 'completed'")
    assert publish(desk) == [second]


def test_two_relays_at_once_publish_nothing_twice(empty_desk):
    desk = empty_desk
    account = desk.account()
    for _ in range(4):
        desk.enqueue(account)
    found, inside, go = [], threading.Event(), threading.Event()

    def slow_relay():
        with desk.database.transaction() as connection:
            jobs = lock_due_jobs(connection, WINDOWS)
            inside.set()
            go.wait(20)
            mark_published(connection, jobs)
        found.extend(job.id for job in jobs)

    slow = threading.Thread(target=slow_relay)
    slow.start()
    assert inside.wait(20)
    fast = threading.Thread(target=lambda: found.extend(publish(desk)))
    fast.start()
    with desk.database.connection() as connection:
        waits = (
            "SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
        )
        wait_until(lambda: connection.execute(waits).fetchone() is not None)
    go.set()
    slow.join(20)
    fast.join(20)

    assert len(found) == len(set(found)) == 4


def test_the_mark_leaves_alone_what_has_moved_on(empty_desk):
    desk = empty_desk
    account = desk.account()
    claimed, back = desk.enqueue(account), desk.enqueue(account)
    with desk.database.transaction() as connection:
        found = lock_due_jobs(connection, WINDOWS)
        desk.claim(claimed)
        desk.claim(back)
        desk.set(back, "state = 'queued', published_at = NULL, run_at = now() + interval '1 hour'")
        mark_published(connection, found)

    assert desk.job(back).published_at is None
    assert desk.job(claimed).state == "running"


@pytest.mark.parametrize(
    ("since_due", "since_published", "lost"),
    [(40, 40, True), (20, 20, False), (70, 40, True), (200, 40, False), (200, 110, True), (90_000, 40_000, False)],
)
def test_a_lost_message_is_sent_again_at_doubling_intervals(empty_desk, since_due, since_published, lost):
    """At first after 30 s; then each wait is as long as all before it."""
    desk = empty_desk
    job_id = desk.enqueue(desk.account())
    desk.set(
        job_id,
        f"run_at = now() - interval '{since_due} seconds', published_at = now() - interval '{since_published} seconds'",
    )

    with desk.database.connection() as connection:
        assert requeue_lost(connection) == lost

    assert (desk.job(job_id).published_at is None) == lost


def test_a_lease_that_lives_is_left_alone(empty_desk):
    desk = empty_desk
    job = desk.started(desk.account())

    with desk.database.connection() as connection:
        assert requeue_lost(connection) == 0

    assert desk.job(job.id).state == "running"


def test_the_window_is_what_the_living_workers_can_do(empty_desk):
    with empty_desk.database.connection() as connection:
        assert windows(connection)["test.work"] == SMALLEST_WINDOW
        for name, threads in (("w1", 3), ("w2", 5), ("silent", 100)):
            register(connection, name, host="h", pid=1, pools=[], queues=["maintenance"], threads=threads)
        connection.execute("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'silent'")

        found = windows(connection)

    assert found["test.work"] == found["maintenance.prune"] == 8
    assert found["test.other"] == SMALLEST_WINDOW
