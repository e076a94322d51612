"""Register workers, and release the jobs of dead ones."""

from models.jobs.windows import window_sizes
from models.jobs.workers import (
    delete_silent,
    forget_threads_of_dead,
    list_live,
    register,
    release_jobs_of_dead_worker,
    unregister,
)


def register_worker(job_store, name, pid=1, queues=("maintenance",)):
    with job_store.database.connection() as connection:
        register(connection, name, host="here", pid=pid, pools=["p"], threads=dict.fromkeys(queues, 2))


def test_live_workers_have_a_recent_heartbeat(empty_job_store):
    register_worker(empty_job_store, "w1")
    register_worker(empty_job_store, "w2")
    register_worker(empty_job_store, "w3")
    with empty_job_store.database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '31 seconds' WHERE name = 'w1'")
        connection.execute("UPDATE workers SET seen_at = now() - interval '301 seconds' WHERE name = 'w2'")
        unregister(connection, "w3")
        assert list_live(connection) == []
        register_worker(empty_job_store, "w1")
        assert [worker.name for worker in list_live(connection)] == ["w1"]
        delete_silent(connection)
        assert [row["name"] for row in connection.execute("SELECT name FROM workers").fetchall()] == ["w1"]


def test_jobs_of_a_dead_worker_are_given_back_and_unclaimed_messages_are_sent_again(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    register_worker(job_store, "dead", pid=7)
    register_worker(job_store, "alive", pid=8)
    lost, kept = (
        job_store.claim(job_store.enqueue(account), worker="dead"),
        job_store.claim(job_store.enqueue(account), worker="alive"),
    )
    unclaimed, elsewhere = job_store.enqueue(account), job_store.enqueue(account, kind="test.other")
    for job_id in (unclaimed, elsewhere):
        job_store.update(job_id, "published_at = now()")

    assert release_jobs_of_dead_worker(job_store.database, "here", 7).running == 1

    assert (job_store.job(lost.id).state, job_store.job(lost.id).failures) == ("queued", 1)
    assert job_store.claim(lost.id, "m2", "alive").attempt == 2
    assert job_store.job(kept.id).state == "running"
    assert job_store.job(unclaimed).published_at is None
    assert job_store.job(elsewhere).published_at is not None


def test_jobs_of_other_processes_are_not_released(empty_job_store):
    job_store = empty_job_store
    register_worker(job_store, "w", pid=7)
    job = job_store.claim(job_store.enqueue(job_store.create_account()), worker="w")

    assert release_jobs_of_dead_worker(job_store.database, "elsewhere", 7).running == 0
    assert release_jobs_of_dead_worker(job_store.database, "here", 9).running == 0
    assert job_store.job(job.id).state == "running"
    assert release_jobs_of_dead_worker(job_store.database, "here", 7).running == 1
    assert release_jobs_of_dead_worker(job_store.database, "here", 7).running == 0


def test_a_worker_counts_its_threads_by_queue(empty_job_store):
    with empty_job_store.database.connection() as connection:
        register(connection, "w", host="here", pid=1, pools=["p"], threads={"memory": 2, "memory_batch": 1, "other": 4})
        connection.execute(
            "INSERT INTO workers (name, host, pid, pools, queues, threads) VALUES ('old', 'h', 1, '{}', '{recall}', 6)"
        )
        new, old = sorted(list_live(connection), key=lambda worker: worker.name, reverse=True)

    assert new.threads_of(["memory", "memory_batch"]) == 3
    assert old.threads_of(["recall"]) == 6


def test_threads_of_dead_workers_of_the_host_do_not_count_for_the_windows(empty_job_store):
    # Given workers of this host, two of which are dead, and a worker elsewhere with the pid of a dead one
    register_worker(empty_job_store, "new", pid=1)
    register_worker(empty_job_store, "dead", pid=7)
    register_worker(empty_job_store, "also dead", pid=8, queues=("recall", "memory"))
    register_worker(empty_job_store, "alive", pid=9)
    with empty_job_store.database.connection() as connection:
        register(connection, "elsewhere", host="there", pid=7, pools=["p"], threads={"maintenance": 2})
        assert window_sizes(connection)["maintenance"] == 7

        # When one of them starts
        forgotten = forget_threads_of_dead(connection, "new", "here", lambda pid: pid == 9)

        # Then the threads of the dead ones do not count
        assert forgotten == 2
        assert window_sizes(connection)["maintenance"] == 5
        assert window_sizes(connection)["recall"] == 1
    # And those of a worker that lives nevertheless count again from its next heartbeat on
    register_worker(empty_job_store, "dead", pid=7)
    with empty_job_store.database.connection() as connection:
        assert window_sizes(connection)["maintenance"] == 7


def test_a_stopping_worker_puts_back_what_it_runs_by_the_rows_only(empty_job_store):
    """A failover has lost that the job ended, or was released, after the worker's last look at the rows."""
    job_store = empty_job_store
    account = job_store.create_account()
    register_worker(job_store, "stopping", pid=7)
    forgotten = job_store.claim(job_store.enqueue(account), worker="stopping")
    others = job_store.claim(job_store.enqueue(account), worker="other")

    with job_store.database.connection() as connection:
        unregister(connection, "stopping")

    after = job_store.job(forgotten.id)
    assert (after.state, after.failures, after.published_at) == ("queued", 0, None)
    assert job_store.job(others.id).state == "running"
    assert job_store.claim(forgotten.id, "m2", "other").attempt == 2
