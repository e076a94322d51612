"""Replay dead jobs in the order of a serial key."""

from models.jobs import dead_jobs
from models.jobs.attempts import Ending, end


def test_a_replayed_job_runs_after_the_queued_jobs_of_its_serial_key(empty_job_store):
    # Given a dead job and a later one of its serial key
    job_store = empty_job_store
    account = job_store.create_account()
    dead = job_store.enqueue(account, serial_key="thread")
    job_store.update(dead, "state = 'dead', finished_at = now()")
    second = job_store.enqueue(account, serial_key="thread")
    # When the first one is replayed
    with job_store.database.transaction() as connection:
        assert dead_jobs.replay(connection, [dead]) == [dead]
    # Then both run, one after the other
    assert job_store.publish() == [second]
    with job_store.database.transaction() as connection:
        end(connection, job_store.claim(second), Ending("completed", []), [])
    assert job_store.publish() == [dead]
