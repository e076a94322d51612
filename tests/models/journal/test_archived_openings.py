"""Journals of large new jobs, whose first events only the archive has."""

from uuid import uuid4

from models.jobs.attempt_context import open_attempt
from models.jobs.attempts import claim as claim_job
from models.jobs.jobs import NewJob, enqueue
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim, Fence
from models.journal.keys import stream_key
from models.journal.writer import JournalWriter
from models.platform.ids import new_id


def test_journal_whose_opening_events_only_the_archive_has_is_continued(redis_client, database, account):
    """Given a large new job, whose opening events Redis does not get, when its attempt begins, then it continues them
    without a rewind, and Redis has only its own events.
    """
    opening = [event(0, "response.created", {"text": "x" * 1000}), event(1, "response.queued", {})]
    job = NewJob("turn.run", account, opening=opening)
    with database.transaction() as connection:
        enqueue(connection, job)
    journal.open_archived(redis_client, job.id, opening)
    assert redis_client.exists(stream_key(job.id)) == 0
    assert journal.last_sequence(redis_client, job.id) == 1
    with database.connection() as connection:
        claimed = claim_job(connection, job.id, message_id="m", worker="w")

    writer = JournalWriter(redis_client, lambda *claim: False)
    attempt = open_attempt(claimed, database, redis_client, writer)
    attempt.journal.write("test.written", {})
    attempt.journal.write("test.written", {})
    assert writer.drain()
    writer.stop()

    assert not attempt.journal.fenced
    recent = journal.read_events(redis_client, job.id)
    assert [(event.sequence, event.type) for event in recent] == [(2, b"test.written"), (3, b"test.written")]


def test_journal_is_lost_when_its_stream_is_evicted_after_an_archived_opening(redis_client):
    opening = [event(0, "response.created", {}), event(1, "response.queued", {})]
    claim = Claim(new_id("job"), 1, uuid4())
    journal.open_archived(redis_client, claim.job_id, opening)
    journal.append(redis_client, claim, [event(2, "test.written", {})])

    redis_client.delete(stream_key(claim.job_id))

    assert journal.append(redis_client, claim, [event(3, "test.written", {})], Fence.HELD).status == "lost"


def test_archived_opening_does_not_touch_the_journal_of_an_attempt_that_has_begun(redis_client):
    opening = [event(0, "response.created", {}), event(1, "response.queued", {})]
    claim = Claim(new_id("job"), 1, uuid4())
    journal.append(redis_client, claim, [*opening, event(2, "test.written", {})])

    journal.open_archived(redis_client, claim.job_id, opening)

    assert [event.sequence for event in journal.read_events(redis_client, claim.job_id)] == [0, 1, 2]
    assert journal.append(redis_client, claim, [event(3, "test.written", {})], Fence.HELD).status == "ok"
