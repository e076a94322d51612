"""Given workers, when one dies and its supervisor saw it, then what it held comes back at once."""

from models.jobs.workers import delete_silent, list_live, register, release_jobs_of_dead_worker, unregister


def enlist(desk, name, pid=1, queues=("maintenance",)):
    with desk.database.connection() as connection:
        register(connection, name, host="here", pid=pid, pools=["p"], queues=queues, threads=2)


def test_the_living_are_those_that_were_heard_of_lately(empty_desk):
    enlist(empty_desk, "w1")
    enlist(empty_desk, "w2")
    enlist(empty_desk, "w3")
    with empty_desk.database.connection() as connection:
        connection.execute("UPDATE workers SET seen_at = now() - interval '31 seconds' WHERE name = 'w1'")
        connection.execute("UPDATE workers SET seen_at = now() - interval '301 seconds' WHERE name = 'w2'")
        unregister(connection, "w3")
        assert list_live(connection) == []
        enlist(empty_desk, "w1")
        assert [worker.name for worker in list_live(connection)] == ["w1"]
        delete_silent(connection)
        assert [row["name"] for row in connection.execute("SELECT name FROM workers").fetchall()] == ["w1"]


def test_burying_gives_back_what_ran_and_sends_again_what_was_on_its_way(empty_desk):
    desk = empty_desk
    account = desk.account()
    enlist(desk, "dead", pid=7)
    enlist(desk, "alive", pid=8)
    lost, kept = desk.claim(desk.enqueue(account), worker="dead"), desk.claim(desk.enqueue(account), worker="alive")
    on_its_way, elsewhere = desk.enqueue(account), desk.enqueue(account, kind="test.other")
    for job_id in (on_its_way, elsewhere):
        desk.set(job_id, "published_at = now()")

    assert release_jobs_of_dead_worker(desk.database, "here", 7) == 1

    assert (desk.job(lost.id).state, desk.job(lost.id).failures) == ("queued", 1)
    assert desk.claim(lost.id, "m2", "alive").attempt == 2
    assert desk.job(kept.id).state == "running"
    assert desk.job(on_its_way).published_at is None
    assert desk.job(elsewhere).published_at is not None


def test_strangers_are_not_buried(empty_desk):
    desk = empty_desk
    enlist(desk, "w", pid=7)
    job = desk.claim(desk.enqueue(desk.account()), worker="w")

    assert release_jobs_of_dead_worker(desk.database, "elsewhere", 7) == 0
    assert release_jobs_of_dead_worker(desk.database, "here", 9) == 0
    assert desk.job(job.id).state == "running"
    assert release_jobs_of_dead_worker(desk.database, "here", 7) == 1
    assert release_jobs_of_dead_worker(desk.database, "here", 7) == 0
