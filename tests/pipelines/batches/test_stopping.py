"""A batch that is cancelled, or whose window is over, keeps the answers that it has."""

import pytest

from models.accounts.ownership import Access
from models.platform.errors import Conflict, NotFound
from models.platform.ids import new_id
from pipelines.batches import begin_lines
from pipelines.batches.requested_batches import batch_object, cancel_batch
from tests.pipelines.batches.test_run import recorded_events


@pytest.fixture
def half_done(user_batches, monkeypatch):
    """A batch of six lines: one has ended, one runs, one waits for a worker, three have not begun."""
    monkeypatch.setattr(begin_lines, "RUNNING", 3)
    monkeypatch.setattr(begin_lines, "LEAST_RUNNING", 3)
    batch = user_batches.look(user_batches.create(6))
    first, second, _ = user_batches.line_jobs(batch)
    user_batches.answer(first)
    user_batches.begin(second["id"])
    return batch


def cancel(user_batches, batch):
    return cancel_batch(user_batches.database, batch.id, Access.own(user_batches.caller))


def expire(user_batches, batch):
    with user_batches.database.connection() as connection:
        connection.execute("UPDATE batches SET expires_at = now() WHERE id = %s", (batch.id,))


def end_running(user_batches, batch):
    """Let the attempt at the second line notice that it was cancelled."""
    with user_batches.database.connection() as connection:
        job = connection.execute(
            "SELECT id, kind FROM jobs WHERE account_id = %s AND kind = 'turn.run' AND state = 'running'"
            " AND cancel_requested_at IS NOT NULL",
            (batch.account_id,),
        ).fetchone()
        connection.execute("UPDATE jobs SET state = 'queued' WHERE id = %s", (job["id"],))
    user_batches.answer(job)


def assert_stopped(user_batches, batch, code):
    assert (batch.total_lines, batch.completed_lines, batch.failed_lines) == (6, 1, 5)
    assert [line["custom_id"] for line in user_batches.content(batch.output_file_id)] == ["request-1"]
    errors = user_batches.content(batch.error_file_id)
    assert [line["custom_id"] for line in errors] == [f"request-{number}" for number in range(2, 7)]
    assert {line["error"]["code"] for line in errors} == {code}
    assert {line["response"] for line in errors} == {None}


def test_cancelled_batch_ends_when_its_running_lines_have(user_batches, half_done):
    # When it is cancelled
    shown = cancel(user_batches, half_done)
    assert (shown.status, batch_object(shown)["cancelling_at"] is None) == ("cancelling", False)
    batch = user_batches.look(half_done)

    # Then what waits ends at once, and the batch when the line that runs has ended
    assert batch.status == "cancelling"
    assert user_batches.line_jobs(batch) == []
    end_running(user_batches, batch)
    batch = user_batches.look(batch)
    assert batch.status == "cancelled"
    assert_stopped(user_batches, batch, "batch_cancelled")
    assert recorded_events(user_batches) == [("batch.cancelled", batch.id)]


def test_expired_batch_has_an_error_for_each_line_that_has_not_ended(user_batches, half_done):
    expire(user_batches, half_done)

    assert user_batches.look(half_done).status == "finalizing"
    end_running(user_batches, half_done)
    batch = user_batches.look(half_done)

    assert batch.status == "expired"
    assert_stopped(user_batches, batch, "batch_expired")
    assert recorded_events(user_batches) == [("batch.expired", batch.id)]
    assert batch_object(batch)["expired_at"] is not None


def test_batch_that_is_cancelled_while_it_is_validated_runs_nothing(user_batches):
    batch = user_batches.create(3)
    cancel(user_batches, batch)

    batch = user_batches.look(batch)

    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
    assert recorded_events(user_batches) == [("batch.cancelled", batch.id)]


def test_batch_whose_lines_have_all_ended_does_not_expire(user_batches):
    batch = user_batches.look(user_batches.create(2))
    for job in user_batches.line_jobs(batch):
        user_batches.answer(job)
    expire(user_batches, batch)

    # Their answers were there in time, but were not looked at
    batch = user_batches.finish(batch)

    assert (batch.completed_lines, batch.failed_lines) == (2, 0)


def test_cancelling_again_is_accepted_and_an_ended_batch_cannot_be_cancelled(user_batches, half_done):
    cancel(user_batches, half_done)
    assert cancel(user_batches, half_done).status == "cancelling"
    completed = user_batches.finish(user_batches.create(1))

    with pytest.raises(Conflict):
        cancel(user_batches, completed)


def test_batch_of_others_cannot_be_cancelled(user_batches, make_batches, half_done):
    with pytest.raises(NotFound):
        cancel(make_batches(), half_done)
    with pytest.raises(NotFound):
        cancel_batch(user_batches.database, new_id("batch"), Access.own(user_batches.caller))
    assert user_batches.read(half_done).status == "in_progress"


def test_batch_of_a_user_who_has_left_the_account_stops(user_batches, half_done):
    with user_batches.database.connection() as connection:
        connection.execute("DELETE FROM memberships WHERE user_id = %s", (half_done.user_id,))

    user_batches.look(half_done)
    end_running(user_batches, half_done)
    batch = user_batches.look(half_done)

    assert (batch.status, batch.completed_lines) == ("failed", 1)
    assert batch.errors[0]["code"] == "user_removed"
    assert (batch.output_file_id, batch.error_file_id) == (None, None)  # nobody else may read the answers
    assert recorded_events(user_batches) == [("batch.failed", batch.id)]
