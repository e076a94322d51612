"""Handlers with a given outcome, and the events of their jobs."""

from dataclasses import replace

from models.jobs.attempt_context import Handler, plain_ending
from models.journal import journal
from models.journal.archive import read_archive


def completes(attempt):
    attempt.journal.write("test.written", {"attempt": attempt.job.attempt})
    return plain_ending(attempt, "completed", result={"attempt": attempt.job.attempt})


def raises(error):
    def run(attempt):
        attempt.journal.write("test.written", {"attempt": attempt.job.attempt})
        raise error

    return run


def handler(run, end=plain_ending):
    return Handler(run=run, end=end)


COMPLETES = handler(completes)


def event_types(runner, job_store, job_id):
    """Return the types of a journal's events, and check that Redis and the archive agree."""
    runner.writer.drain()
    with job_store.database.connection() as connection:
        archived = read_archive(connection, job_id).events
    recent = journal.read_events(runner.client, job_id)
    for event in recent:
        if event.sequence < len(archived):
            assert event == replace(archived[event.sequence], tokens=event.tokens)
    events = archived + [event for event in recent if event.sequence >= len(archived)]
    assert [event.sequence for event in events] == list(range(len(events)))
    return [event.type.decode() for event in events]


def make_due(job_store, job_id):
    job_store.update(job_id, "state = CASE state WHEN 'scheduled' THEN 'queued' ELSE state END, run_at = now()")
