"""Replay dead jobs, and those that failed because nobody knows whether a call has happened."""

import pytest

from models.jobs import dead_jobs, effects
from models.jobs.attempts import Ending, end
from models.jobs.jobs import NewJob, enqueue
from models.journal.archive import read_archive

UNKNOWN = {"code": "effect_unknown", "message": "Step 'charge' may or may not have had its effect."}


@pytest.fixture
def failed_job(job_store, account):
    """A job that has made one call, does not know about a second one, and failed because of that."""
    job = job_store.start(account, serial_key=f"thread {account}")
    with job_store.database.transaction() as connection:
        for step in ("reserve", "charge"):
            effects.declare(connection, job, step, {"amount": 12})
        effects.record_done(connection, job.id, "reserve", {"id": "r_1"})
        effects.record_unknown(connection, job.id, "charge")
        end(connection, job, Ending("failed", [], error=UNKNOWN), [])
    return job.id


def replay(job_store, *job_ids):
    with job_store.database.transaction() as connection:
        return dead_jobs.replay(connection, job_ids)


def states_of_effects(job_store, job_id):
    with job_store.database.connection() as connection:
        return [effects.read(connection, job_id, step).state for step in ("reserve", "charge")]


def test_a_job_that_failed_because_of_an_unknown_effect_is_replayed_once(job_store, failed_job):
    assert dead_jobs.can_be_replayed(job_store.job(failed_job))

    assert replay(job_store, failed_job, failed_job) == [failed_job]

    job = job_store.job(failed_job)
    assert (job.state, job.failures, job.error, job.finished_at, job.published_at) == ("queued", 0, None, None, None)
    assert not dead_jobs.can_be_replayed(job)
    with job_store.database.connection() as connection:
        assert [event.type.decode() for event in read_archive(connection, failed_job).events] == ["sangha:job.replayed"]


@pytest.mark.parametrize("decision", ["done", "failed", None])
def test_a_replayed_job_finds_its_effects_as_they_were_decided(job_store, failed_job, decision):
    # Given a decision of an operator, before or after which the job is replayed
    with job_store.database.transaction() as connection:
        if decision:
            assert effects.resolve(connection, failed_job, "charge", decision, {"code": "no", "message": "no"})
    assert replay(job_store, failed_job) == [failed_job]
    again = job_store.claim(failed_job, "m2")
    # When the next attempt declares its steps again
    with job_store.database.transaction() as connection:
        declared = [effects.declare(connection, again, step, {"amount": 12}) for step in ("reserve", "charge")]
    # Then none is new, so no call is made without a look at its outcome
    assert [effect.is_new for effect in declared] == [False, False]
    assert [effect.state for effect in declared] == ["done", decision or "unknown"]


def test_an_unknown_effect_is_decided_while_the_replayed_job_runs(job_store, failed_job):
    replay(job_store, failed_job)
    job_store.claim(failed_job, "m2")

    with job_store.database.transaction() as connection:
        assert effects.resolve(connection, failed_job, "charge", "done", {"id": "ch_1"})
        assert not effects.resolve(connection, failed_job, "charge", "failed", UNKNOWN)

    assert states_of_effects(job_store, failed_job) == ["done", "done"]


def test_the_effects_of_a_job_that_can_be_replayed_are_kept(job_store, failed_job):
    """Its first step would otherwise be repeated by a replay."""
    with job_store.database.transaction() as connection:
        connection.execute("UPDATE effects SET updated_at = now() - interval '1 year' WHERE job_id = %s", (failed_job,))
        effects.prune(connection, 1000)

    assert states_of_effects(job_store, failed_job) == ["done", "unknown"]


@pytest.mark.parametrize(
    "assignments",
    ['error = \'{"code": "server_error"}\'', "error = NULL", "state = 'completed'", "state = 'cancelled'"],
)
def test_other_ended_jobs_are_not_replayed(job_store, failed_job, assignments):
    job_store.update(failed_job, assignments)

    assert replay(job_store, failed_job) == []
    assert not dead_jobs.can_be_replayed(job_store.job(failed_job))


def test_a_child_is_not_replayed(job_store, account, failed_job):
    """Its parent has continued without it."""
    parent, child = job_store.start(account), NewJob("test.work", account)
    with job_store.database.transaction() as connection:
        enqueue(connection, child, parent=parent)
    job_store.update(child.id, "state = 'dead', finished_at = now()")

    assert replay(job_store, child.id, failed_job) == [failed_job]


def test_a_job_that_failed_because_of_an_unknown_effect_is_not_discarded(job_store, failed_job):
    with job_store.database.transaction() as connection:
        assert dead_jobs.discard(connection, [failed_job]) == []
    assert dead_jobs.can_be_replayed(job_store.job(failed_job))


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
