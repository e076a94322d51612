"""Given turns with `store: false`, when their end has been read or its time is over, then nothing of them is left."""

import threading

import pytest

from models.jobs.attempts import Ending, claim, end
from models.journal import journal
from models.journal.events import event
from models.turns import responses
from tests.waiting import eventually
from tests.web.api_client import assert_error


@pytest.fixture
def answered(user, database, redis_client):
    """`answered(job_id)` ends a turn in the place of a worker."""

    def answer(job_id, state="completed"):
        with database.connection() as connection:
            job = claim(connection, job_id, message_id="a message", worker=f"worker of {job_id}")
        last = event(2, "response.completed", {"response": {"id": job.arguments["response_id"], "status": "completed"}})
        with database.transaction() as connection:
            end(connection, job, Ending(state, [last]), [last])
        journal.append(redis_client, job_id, 1, [last])

    return answer


@pytest.fixture
def unread(database):
    """Sweeps as the scheduler does, and says whether a job is still there."""

    def sweep(job_id):
        with database.transaction() as connection:
            responses.delete_unread(connection)
            return connection.execute("SELECT FROM jobs WHERE id = %s", (job_id,)).fetchone() is not None

    return sweep


class Asking(threading.Thread):
    """Somebody who asks and waits; `job_id` is what became of it so far."""

    def __init__(self, user, **body):
        super().__init__()
        self.user, self.body = user, {"input": "hello", "store": False, **body}
        self.start()

    def run(self):
        self.answer = self.user.request("POST", "/v1/responses", json=self.body)

    @property
    def job_id(self):
        jobs = eventually(self.user.jobs)
        return jobs[0]["id"]

    def heard(self):
        self.join(20)
        assert self.answer.status_code == 200, self.answer.text
        return self.answer


def turn_of(user, job_id):
    with user.database.connection() as connection:
        row = connection.execute("SELECT id FROM responses WHERE job_id = %s", (job_id,)).fetchone()
    return row and row["id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_goes_once_its_end_was_read(user, answered, stream, redis_client):
    asking = Asking(user, stream=stream)
    job_id = asking.job_id
    turn = turn_of(user, job_id)

    answered(job_id)
    asking.heard()

    eventually(lambda: turn_of(user, job_id) is None)
    assert_error(user.request("GET", f"/v1/responses/{turn}"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{job_id}/events"), 404)
    eventually(lambda: not redis_client.exists(journal.stream_key(job_id)))


def test_to_look_at_a_turn_that_runs_takes_nothing_away(user, answered):
    asking = Asking(user, stream=True)
    job_id = asking.job_id
    turn = turn_of(user, job_id)

    seen = [user.request("GET", f"/v1/responses/{turn}").json() for _ in range(2)]

    assert [look["store"] for look in seen] == [False, False]
    answered(job_id)
    assert "response.completed" in asking.heard().text


def test_an_end_that_nobody_reads_waits_its_time_and_goes(user, answered, unread, database):
    turn = user.request("POST", "/v1/responses", json={"input": "x", "background": True}).json()
    job_id = turn["job_id"]
    make_unstored = "UPDATE responses SET expires_at = now() - interval '1 day' WHERE job_id = %s"
    with database.connection() as connection:
        connection.execute(make_unstored, (job_id,))
    assert unread(job_id), "it has not even run"

    answered(job_id)
    assert unread(job_id), "its time begins with its end"

    with database.connection() as connection:
        connection.execute("UPDATE jobs SET finished_at = now() - interval '301 seconds' WHERE id = %s", (job_id,))
    assert not unread(job_id)


def test_a_stored_turn_stays(user, answered, unread, database):
    turn = user.create_response()
    answered(turn["job_id"])
    with database.connection() as connection:
        aged = "UPDATE jobs SET finished_at = now() - interval '1 year' WHERE id = %s"
        connection.execute(aged, (turn["job_id"],))

    assert user.request("GET", f"/v1/responses/{turn['id']}").status_code == 200
    assert unread(turn["job_id"])


def test_nothing_goes_on_from_a_turn_that_is_not_stored(user):
    asking = Asking(user)
    job_id = asking.job_id
    turn = turn_of(user, job_id)

    assert_error(
        user.request("POST", "/v1/responses", json={"input": "x", "previous_response_id": turn}),
        400,
        code="previous_response_not_found",
    )
    item = f"msg_{turn.removeprefix('resp_')}i0"
    assert_error(
        user.request("POST", "/v1/responses", json={"input": [{"type": "item_reference", "id": item}]}),
        400,
        code="item_not_found",
    )
    user.request("POST", f"/v1/jobs/{job_id}/cancel")
    asking.heard()
