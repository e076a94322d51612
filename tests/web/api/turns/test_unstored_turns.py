"""Turns with `store: false` are deleted once their end was delivered, or five minutes after it."""

import threading

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempts import Ending, claim, end
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim
from models.journal.keys import stream_key
from models.turns import response_deletion
from tests.web.api_client import assert_error
from web.api.turns import responses as module


@pytest.fixture
def complete_turn(user, database, redis_client):
    """`complete_turn(job_id)` ends a turn as a worker would."""

    def complete(job_id, state="completed"):
        with database.connection() as connection:
            job = claim(connection, job_id, message_id="a message", worker=f"worker of {job_id}")
        last = event(2, "response.completed", {"response": {"id": job.arguments["response_id"], "status": "completed"}})
        with database.transaction() as connection:
            end(connection, job, Ending(state, [last]), [last])
        journal.append(redis_client, Claim(job_id, 1), [last])

    return complete


@pytest.fixture
def sweep(database):
    """`sweep(job_id)` deletes expired unread turns as the scheduler does; returns whether the job still exists."""

    def sweep(job_id):
        with database.transaction() as connection:
            response_deletion.delete_expired(connection)
            return connection.execute("SELECT FROM jobs WHERE id = %s", (job_id,)).fetchone() is not None

    return sweep


class PendingRequest(threading.Thread):
    """A `POST /v1/responses` in a thread of its own; `job_id` is the id of its job."""

    def __init__(self, user, **body):
        super().__init__()
        self.user, self.body = user, {"input": "hello", "store": False, **body}
        self.start()

    def run(self):
        self.answer = self.user.request("POST", "/v1/responses", json=self.body)

    @property
    def job_id(self):
        jobs = wait_until(self.user.jobs)
        return jobs[0]["id"]

    def wait(self):
        self.join(20)
        assert self.answer.status_code == 200, self.answer.text
        return self.answer


def response_id_of(user, job_id):
    with user.database.connection() as connection:
        row = connection.execute("SELECT id FROM responses WHERE job_id = %s", (job_id,)).fetchone()
    return row and row["id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_is_deleted_once_its_end_was_delivered(user, complete_turn, stream, redis_client):
    request = PendingRequest(user, stream=stream)
    job_id = request.job_id
    response_id = response_id_of(user, job_id)

    complete_turn(job_id)
    request.wait()

    wait_until(lambda: response_id_of(user, job_id) is None)
    assert_error(user.request("GET", f"/v1/responses/{response_id}"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{job_id}/events"), 404)
    wait_until(lambda: not redis_client.exists(stream_key(job_id)))


def test_reading_an_unfinished_turn_does_not_delete_it(user, complete_turn):
    request = PendingRequest(user, stream=True)
    job_id = request.job_id
    response_id = response_id_of(user, job_id)

    responses_read = [user.request("GET", f"/v1/responses/{response_id}").json() for _ in range(2)]

    assert [response["store"] for response in responses_read] == [False, False]
    complete_turn(job_id)
    assert "response.completed" in request.wait().text


def test_an_undelivered_end_is_deleted_five_minutes_after_it(user, complete_turn, sweep, database):
    turn = user.request("POST", "/v1/responses", json={"input": "x", "background": True}).json()
    job_id = turn["job_id"]
    make_unstored = "UPDATE responses SET expires_at = now() - interval '1 day' WHERE job_id = %s"
    with database.connection() as connection:
        connection.execute(make_unstored, (job_id,))
    assert sweep(job_id), "the turn has not run yet"

    complete_turn(job_id)
    assert sweep(job_id), "the five minutes begin when the turn ends"

    with database.connection() as connection:
        connection.execute("UPDATE jobs SET finished_at = now() - interval '301 seconds' WHERE id = %s", (job_id,))
    assert not sweep(job_id)


def test_a_stored_turn_is_not_deleted(user, complete_turn, sweep, database):
    turn = user.create_response()
    complete_turn(turn["job_id"])
    with database.connection() as connection:
        aged = "UPDATE jobs SET finished_at = now() - interval '1 year' WHERE id = %s"
        connection.execute(aged, (turn["job_id"],))

    assert user.request("GET", f"/v1/responses/{turn['id']}").status_code == 200
    assert sweep(turn["job_id"])


def test_an_unstored_turn_cannot_be_continued_or_referenced(user):
    request = PendingRequest(user)
    job_id = request.job_id
    response_id = response_id_of(user, job_id)

    assert_error(
        user.request("POST", "/v1/responses", json={"input": "x", "previous_response_id": response_id}),
        400,
        code="previous_response_not_found",
    )
    item = f"msg_{response_id.removeprefix('resp_')}i0"
    assert_error(
        user.request("POST", "/v1/responses", json={"input": [{"type": "item_reference", "id": item}]}),
        400,
        code="item_not_found",
    )
    user.request("POST", f"/v1/jobs/{job_id}/cancel")
    request.wait()


def test_cancelling_a_turn_that_its_stream_deletes_meanwhile_succeeds(user, monkeypatch):
    # Given a stream that deletes the turn as soon as it has delivered the cancellation
    turn = user.create_response(background=True)
    cancel_job = module.cancel_job

    def cancel_and_delete(request, job_id):
        cancel_job(request, job_id)
        with user.database.connection() as connection:
            connection.execute("DELETE FROM jobs WHERE id = %s", (job_id,))

    monkeypatch.setattr(module, "cancel_job", cancel_and_delete)
    # When it is cancelled
    response = user.request("POST", f"/v1/responses/{turn['id']}/cancel")
    # Then the cancellation is confirmed
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
