"""The window of a lane leaves a thread to others, and a long job learns whether others wait for its thread."""

import pytest

from models.jobs.catalogue import CATALOGUE, SHARED_QUEUES, JobKind
from models.jobs.windows import SMALLEST_WINDOW, others_wait, window_sizes
from models.jobs.workers import register


def test_the_window_leaves_one_of_the_threads_that_serve_the_queue_to_others(empty_job_store):
    with empty_job_store.database.connection() as connection:
        assert window_sizes(connection)["maintenance"] == SMALLEST_WINDOW
        for name, threads in (("w1", {"maintenance": 3, "memory": 7}), ("w2", {"maintenance": 5})):
            register(connection, name, host="h", pid=1, pools=[], threads=threads)
        register(connection, "silent", host="h", pid=1, pools=[], threads={"maintenance": 100})
        connection.execute("UPDATE workers SET seen_at = now() - interval '8 seconds' WHERE name = 'silent'")
        # A worker of the previous version serves each of its queues with all threads.
        connection.execute(
            "INSERT INTO workers (name, host, pid, pools, queues, threads) VALUES ('old', 'h', 1, '{}', '{recall}', 6)"
        )

        sizes = window_sizes(connection)

    assert (sizes["maintenance"], sizes["memory"], sizes["recall"]) == (7, 6, 5)
    assert sizes["inference"] == SMALLEST_WINDOW


def test_calls_of_tools_leave_most_threads_to_others(empty_job_store):
    with empty_job_store.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], threads={"tools": 32})

        assert window_sizes(connection)["tools"] == 8


def test_endpoints_of_webhooks_use_few_threads_and_failing_ones_fewer(empty_job_store):
    with empty_job_store.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], threads={"webhooks": 32, "webhooks_batch": 32})

        assert (window_sizes(connection)["webhooks"], window_sizes(connection)["webhooks_batch"]) == (4, 2)


def test_a_lane_may_use_all_slots_of_an_engine(empty_job_store):
    with empty_job_store.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], threads={"inference": 2, "inference_batch": 1})

        assert (window_sizes(connection)["inference"], window_sizes(connection)["inference_batch"]) == (2, 1)


@pytest.mark.parametrize("queue", sorted(SHARED_QUEUES))
def test_twenty_jobs_of_one_account_leave_a_thread_of_each_pool_to_another(empty_job_store, monkeypatch, queue):
    # Given a pool with two threads, and an account with 20 jobs
    job_store = empty_job_store
    monkeypatch.setitem(CATALOGUE, "test.work", JobKind(queue=queue))
    busy, other = job_store.create_account(), job_store.create_account()
    with job_store.database.connection() as connection:
        register(connection, "w", host="h", pid=1, pools=[], threads={queue: 2})
        sizes = window_sizes(connection)
    for _ in range(20):
        job_store.enqueue(busy)
    running = job_store.publish(sizes)
    assert [job_store.claim(job_id) is not None for job_id in running] == [True]

    # When another account has one
    job_id = job_store.enqueue(other)

    # Then it is published at once, to the other thread
    assert job_store.publish(sizes) == [job_id]


def test_others_wait_for_a_thread_once_their_message_was_not_taken_at_once(empty_job_store):
    job_store = empty_job_store
    long_job = job_store.start(job_store.create_account())
    waiting = job_store.enqueue(job_store.create_account())

    def waits():
        with job_store.database.connection() as connection:
            return others_wait(connection, long_job)

    assert not waits()  # not published
    job_store.publish()
    assert not waits()  # on its way to a thread
    job_store.update(waiting, "published_at = now() - interval '1 second'")
    assert waits()
    job_store.claim(waiting)
    assert not waits()


def test_jobs_of_the_same_lane_do_not_wait_for_its_thread(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    long_job = job_store.start(account)
    job_store.update(job_store.enqueue(account), "published_at = now() - interval '1 second'")

    with job_store.database.connection() as connection:
        assert not others_wait(connection, long_job)
