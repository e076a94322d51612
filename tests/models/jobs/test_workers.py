"""Given workers, when one dies and its supervisor saw it, then what it held comes back at once."""

from models.jobs.workers import delete_silent, list_live, register, release_jobs_of_dead_worker, unregister


def enlist(job_store, name, pid=1, queues=("maintenance",)):
    with job_store.database.connection() as connection:
        register(connection, name, host="here", pid=pid, pools=["p"], queues=queues, threads=2)


def test_the_living_are_those_that_were_heard_of_lately(empty_job_store):
    enlist(empty_job_store, "w1")
    enlist(empty_job_store, "w2")
    enlist(empty_job_store, "w3")
    with empty_job_store.database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '31 seconds' WHERE name = 'w1'")
        connection.execute("UPDATE workers SET seen_at = now() - interval '301 seconds' WHERE name = 'w2'")
        unregister(connection, "w3")
        assert list_live(connection) == []
        enlist(empty_job_store, "w1")
        assert [worker.name for worker in list_live(connection)] == ["w1"]
        delete_silent(connection)
        assert [row["name"] for row in connection.execute("SELECT name FROM workers").fetchall()] == ["w1"]


def test_burying_gives_back_what_ran_and_sends_again_what_was_on_its_way(empty_job_store):
    job_store = empty_job_store
    account = job_store.create_account()
    enlist(job_store, "dead", pid=7)
    enlist(job_store, "alive", pid=8)
    lost, kept = (
        job_store.claim(job_store.enqueue(account), worker="dead"),
        job_store.claim(job_store.enqueue(account), worker="alive"),
    )
    on_its_way, elsewhere = job_store.enqueue(account), job_store.enqueue(account, kind="test.other")
    for job_id in (on_its_way, elsewhere):
        job_store.update(job_id, "published_at = now()")

    assert release_jobs_of_dead_worker(job_store.database, "here", 7) == 1

    assert (job_store.job(lost.id).state, job_store.job(lost.id).failures) == ("queued", 1)
    assert job_store.claim(lost.id, "m2", "alive").attempt == 2
    assert job_store.job(kept.id).state == "running"
    assert job_store.job(on_its_way).published_at is None
    assert job_store.job(elsewhere).published_at is not None


def test_strangers_are_not_buried(empty_job_store):
    job_store = empty_job_store
    enlist(job_store, "w", pid=7)
    job = job_store.claim(job_store.enqueue(job_store.create_account()), worker="w")

    assert release_jobs_of_dead_worker(job_store.database, "elsewhere", 7) == 0
    assert release_jobs_of_dead_worker(job_store.database, "here", 9) == 0
    assert job_store.job(job.id).state == "running"
    assert release_jobs_of_dead_worker(job_store.database, "here", 7) == 1
    assert release_jobs_of_dead_worker(job_store.database, "here", 7) == 0
