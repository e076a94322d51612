"""Given a prompt whose tokens are to be counted, when a worker tells or nobody does, then the row goes either way."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempts import Ending, claim, end
from models.journal import journal
from models.journal.events import event
from models.platform.ids import new_id
from tests.web.api_client import assert_error
from web.api.turns import counting

COUNT = "/v1/responses/input_tokens"


def rows(user):
    with user.database.connection() as connection:
        found = "SELECT id FROM jobs WHERE kind = 'tokens.count' AND account_id = %s"
        return connection.execute(found, (user.caller.account_id,)).fetchall()


@pytest.fixture
def told(user, database, redis_client):
    """`told(state, …)` asks for a count, and tells it in the place of a worker."""

    def tell(state, **payload):
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(user.request, "POST", COUNT, json={"input": "how many"})
            job_id = wait_until(lambda: rows(user))[0]["id"]
            with database.connection() as connection:
                job = claim(connection, job_id, message_id="a message", worker=f"worker of {job_id}")
            last = event(0, f"sangha:job.{state}", {"job_id": job_id, **payload})
            with database.transaction() as connection:
                end(connection, job, Ending(state, [last]), [last])
            journal.append(redis_client, job_id, 1, [last])
            return asked.result(20)

    return tell


def test_what_a_worker_has_counted_is_told(user, told):
    answer = told("completed", result={"input_tokens": 7})

    assert answer.json() == {"object": "response.input_tokens", "input_tokens": 7}
    assert not rows(user)


def test_what_the_engine_can_not_read_is_the_callers_fault(user, told):
    answer = told("failed", error={"code": "invalid_request", "message": "no such role"})

    assert assert_error(answer, 400, param="input", code="invalid_request") == "no such role"
    assert not rows(user)


def test_where_no_worker_has_time_another_try_may_help(user, monkeypatch):
    monkeypatch.setattr(counting, "PATIENCE", 0.05)

    answer = user.request("POST", COUNT, json={"input": "how many"})

    assert_error(answer, 503, code="service_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert not rows(user)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": "x", "stream": True}, 400, "stream"),
        ({"input": "x", "personality": "friendly"}, 400, "personality"),
        ({"input": "x", "conversation": new_id("conv")}, 404, "conversation"),
        ({"input": "x", "previous_response_id": new_id("resp")}, 400, "previous_response_id"),
    ],
)
def test_what_is_wrong_is_named(user, body, status, param):
    assert_error(user.request("POST", COUNT, json=body), status, param=param)
    assert not rows(user)
