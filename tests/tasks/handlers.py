"""Handlers that do what a test tells them, and what is told of their jobs."""

from dataclasses import replace

from models.jobs.attempt_context import Handler, plain_ending
from models.journal import journal
from models.journal.archive import read_archive


def completes(attempt):
    attempt.journal.write("test.said", {"attempt": attempt.job.attempt})
    return plain_ending(attempt, "completed", result={"attempt": attempt.job.attempt})


def raises(error):
    def run(attempt):
        attempt.journal.write("test.said", {"attempt": attempt.job.attempt})
        raise error

    return run


def handler(run, end=plain_ending):
    return Handler(run=run, end=end)


COMPLETES = handler(completes)


def story(runner, desk, job_id):
    """The types of a journal's events; Redis and the archive tell the same as far as both know it."""
    runner.writer.drain()
    with desk.database.connection() as connection:
        archived = read_archive(connection, job_id).events
    recent = journal.read_events(runner.client, job_id)
    for event in recent:
        if event.sequence < len(archived):
            assert event == replace(archived[event.sequence], tokens=event.tokens)
    events = archived + [event for event in recent if event.sequence >= len(archived)]
    assert [event.sequence for event in events] == list(range(len(events)))
    return [event.type.decode() for event in events]


def due_again(desk, job_id):
    desk.set(job_id, "run_at = now()")
