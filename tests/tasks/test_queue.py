"""Given a door, when it has committed, then the queue is told; and nothing that fails there fails the caller."""

import pytest

from models.jobs.cancellation import cancel
from models.journal import journal
from models.journal.events import event
from models.platform.redis_client import connect
from tasks.queue import Queue
from tests.waiting import eventually

OPENING = [event(0, "test.opened", {}), event(1, "test.opened", {})]


@pytest.fixture
def queue(settings, desk, redis_client, broker):
    queue = Queue(settings, desk.database, redis_client)
    yield queue
    queue.close()


def test_an_enqueued_job_is_published_and_its_journal_begun(queue, desk, account, redis_client):
    job_id = desk.enqueue(account, opening=OPENING)

    queue.announce_job(job_id, OPENING)

    assert journal.read_events(redis_client, job_id) == OPENING
    eventually(lambda: desk.job(job_id).published_at)


def test_a_cancel_ends_the_journal_of_what_never_ran(queue, desk, account, redis_client):
    job_id = desk.enqueue(account, opening=OPENING)
    queue.announce_job(job_id, OPENING)
    with desk.database.transaction() as connection:
        done = cancel(connection, job_id, account)

    queue.announce_cancellation(done)

    found = journal.read_events(redis_client, job_id)
    assert [event.sequence for event in found] == [0, 1, 2]
    assert found[-1].ends


def test_a_deleted_job_is_forgotten(queue, desk, account, redis_client):
    job_id = desk.enqueue(account)
    queue.announce_job(job_id, OPENING)

    queue.forget_journal(job_id)

    assert journal.read_events(redis_client, job_id) == []


def test_without_redis_a_door_goes_on(settings, desk, account, broker, tmp_path):
    queue = Queue(settings, desk.database, connect(f"unix://{tmp_path}/nothing.sock"))
    job_id = desk.enqueue(account)

    queue.announce_job(job_id, OPENING)
    with desk.database.transaction() as connection:
        queue.announce_cancellation(cancel(connection, job_id, account))
    queue.forget_journal(job_id)
    queue.check()

    queue.close()
