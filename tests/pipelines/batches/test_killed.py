"""A worker may be killed before any statement of a batch: each line is answered, billed and written once."""

import pytest

from pipelines.batches import begin_lines, end_lines, validate, write_files
from pipelines.files import store
from tests.pipelines.batches.test_run import count, recorded_events
from tests.pipelines.killer import Killed, Killer

LINES = 3


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(validate, "SET_LINES", 2)
    monkeypatch.setattr(begin_lines, "SET", 2)
    monkeypatch.setattr(begin_lines, "RUNNING", 2)
    monkeypatch.setattr(begin_lines, "LEAST_RUNNING", 2)
    monkeypatch.setattr(end_lines, "SET", 1)
    monkeypatch.setattr(write_files, "DELETED", 2)
    monkeypatch.setattr(store, "OBJECT_BYTES", 500)


def release(user_batches, batch):
    """Give the batch back, as when its worker has died."""
    with user_batches.database.connection() as connection:
        connection.execute(
            "UPDATE jobs SET state = 'queued', worker = NULL WHERE id = %s AND state = 'running'", (batch.job_id,)
        )


@pytest.mark.parametrize("first", range(1, 9))
def test_killed_before_any_statement(user_batches, monkeypatch, small_steps, first):
    killer = Killer(monkeypatch)
    number, killed = first, True
    while killed:
        # Given a batch, one of whose attempts is killed before its statement of that number, counted over all of them
        batch = user_batches.create(LINES)
        left, killed = number, False

        # When it goes on
        while not batch.ended:
            killer.left = left
            try:
                batch = user_batches.look(batch)
            except Killed:
                killed = True
            left, killer.left = killer.left, 0
            release(user_batches, batch)
            batch = user_batches.read(batch)
            for job in user_batches.line_jobs(batch):
                user_batches.answer(job)

        # Then each line has one answer, one bill, and the batch one event
        output = user_batches.content(batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"request-{line}" for line in range(1, LINES + 1)], number
        assert (batch.completed_lines, batch.failed_lines, batch.begun_lines) == (LINES, 0, LINES)
        assert (batch.output_tokens, batch.total_lines) == (2 * LINES, LINES)
        assert count(user_batches, "SELECT count(*) FROM batch_lines WHERE batch_id = %s", batch.id) == 0
        jobs = count(user_batches, "SELECT count(*) FROM jobs WHERE account_id = %s AND kind <> 'batch.run'",
                     batch.account_id)  # fmt: skip
        assert jobs == 0
        assert recorded_events(user_batches).count(("batch.completed", batch.id)) == 1
        number += 8
    bills = count(user_batches, "SELECT count(*) FROM usage_records WHERE account_id = %s", batch.account_id)
    batches = count(user_batches, "SELECT count(*) FROM batches WHERE account_id = %s", batch.account_id)
    assert bills == LINES * batches
