"""A batch whose job ends otherwise is ended with it, and erasing a user or an account leaves nothing of it."""

from datetime import UTC, datetime, timedelta

import pytest

from models.accounts.account_data import AccountData
from models.accounts.member_data import MemberData
from models.batches import batches, lines
from models.jobs import unclaimed_results
from models.turns import response_deletion
from pipelines.batches import run
from tests.pipelines.batches.conftest import request_line
from tests.pipelines.batches.test_run import count, recorded_events

ERROR = {"code": "server_error", "message": "It failed."}


@pytest.mark.parametrize(
    ("state", "error", "status"),
    [("dead", ERROR, "failed"), ("failed", ERROR, "failed"), ("cancelled", None, "cancelled")],
)
def test_batch_ends_with_its_job(user_batches, state, error, status):
    batch = user_batches.look(user_batches.create(2))
    attempt = user_batches.begin(batch.job_id)

    user_batches.settle(attempt, run.end(attempt, state, error))

    batch = user_batches.read(batch)
    assert (batch.status, batch.ended) == (status, True)
    assert [each["message"] for each in batch.errors] == ([ERROR["message"]] if error else [])
    assert recorded_events(user_batches) == [(f"batch.{status}", batch.id)]
    if state != "cancelled":  # a cancel of an account's job cancels its other jobs, too
        assert user_batches.line_jobs(batch) == []


def test_lines_of_a_batch_whose_job_is_dead_are_pruned_after_a_day(user_batches):
    batch = user_batches.look(user_batches.create(2))
    attempt = user_batches.begin(batch.job_id)
    user_batches.settle(attempt, run.end(attempt, "dead", ERROR))

    with user_batches.database.connection() as connection:
        assert lines.prune(connection, 100) == 0
        connection.execute("UPDATE batches SET ended_at = ended_at - interval '2 days' WHERE id = %s", (batch.id,))
        assert lines.prune(connection, 100) == 2
        connection.execute("UPDATE batches SET ended_at = ended_at - interval '366 days' WHERE id = %s", (batch.id,))
        assert batches.prune(connection, 100) == 1


@pytest.mark.parametrize("whole_account", [True, False])
def test_erasure_deletes_batches_and_lines(user_batches, make_batches, whole_account):
    others = make_batches()
    mine, theirs = user_batches.look(user_batches.create(2)), others.look(others.create(2))
    data = AccountData(mine.account_id) if whole_account else MemberData(mine.account_id, mine.user_id)

    with user_batches.database.transaction() as connection:
        for table in ("batch_lines", "batches"):
            while data.erase_batch(connection, table):
                pass

    for batch, expected in ((mine, 0), (theirs, 1)):
        assert count(user_batches, "SELECT count(*) FROM batches WHERE id = %s", batch.id) == expected
        found = count(user_batches, "SELECT count(*) FROM batch_lines WHERE batch_id = %s", batch.id)
        assert found == 2 * expected


def age(user_batches, job):
    ended = datetime.now(UTC) - timedelta(hours=1)
    with user_batches.database.connection() as connection:
        connection.execute("UPDATE jobs SET finished_at = %s WHERE id = %s", (ended, job["id"]))


def test_answers_wait_for_their_batch(user_batches):
    # Given answers that have ended an hour ago, since no worker has looked at their batches
    turns = user_batches.look(user_batches.create(1))
    content = request_line(1, url="/v1/embeddings", body={"input": "a"})
    vectors = user_batches.look(user_batches.create(content, endpoint="/v1/embeddings"))
    for batch in (turns, vectors):
        (job,) = user_batches.line_jobs(batch)
        user_batches.answer(job)
        age(user_batches, job)

    # When the sweeper deletes results that nobody has read
    with user_batches.database.connection() as connection:
        response_deletion.delete_expired(connection)
        unclaimed_results.delete_unclaimed(connection, limit=1000)

    # Then the batches have theirs
    assert user_batches.finish(turns).completed_lines == 1
    assert user_batches.finish(vectors).completed_lines == 1
