"""A background turn that has waited for half of its completion window moves to the interactive queue."""

import pytest

from models.jobs import completion_windows
from models.jobs.usage import UsageSource
from models.platform.database import fetch_all


@pytest.fixture
def windowed(empty_job_store):
    """A background turn with a window of an hour."""
    store = empty_job_store
    job_id = store.enqueue(store.create_account(), "turn.run", batch=True, arguments={"service_class": "batch"})
    with store.database.transaction() as connection:
        completion_windows.insert(connection, job_id, 3600)
    return job_id


def let_pass(store, job_id, minutes):
    with store.database.connection() as connection:
        connection.execute(
            "UPDATE completion_windows SET promote_at = promote_at - make_interval(mins => %s) WHERE job_id = %s",
            (minutes, job_id),
        )


def promote(store):
    with store.database.transaction() as connection:
        return completion_windows.promote_late(connection)


def windows(store):
    with store.database.connection() as connection:
        return [row["job_id"] for row in fetch_all(connection, "SELECT job_id FROM completion_windows")]


def test_a_turn_leaves_the_queue_of_background_work_after_half_of_its_window(empty_job_store, windowed):
    let_pass(empty_job_store, windowed, 29)
    assert promote(empty_job_store) == 0

    let_pass(empty_job_store, windowed, 1)

    assert promote(empty_job_store) == 1
    job = empty_job_store.job(windowed)
    assert (job.queue, job.published_at) == ("inference", None)
    assert UsageSource.of_job(job).service_class == "batch"
    assert windows(empty_job_store) == []


def test_a_running_turn_is_promoted_only_if_it_waits_again(empty_job_store, windowed):
    assert empty_job_store.claim(windowed) is not None
    let_pass(empty_job_store, windowed, 60)

    assert promote(empty_job_store) == 0
    assert windows(empty_job_store) == [windowed]

    empty_job_store.update(windowed, "state = 'scheduled', run_at = now() + interval '1 second'")
    assert promote(empty_job_store) == 1


def test_the_window_of_a_turn_that_has_ended_is_deleted(empty_job_store, windowed):
    empty_job_store.update(windowed, "state = 'completed', finished_at = now()")
    let_pass(empty_job_store, windowed, 60)

    assert promote(empty_job_store) == 0
    assert windows(empty_job_store) == []
