"""`POST /v1/responses/input_tokens`: counts, errors and timeouts; the job is deleted in each case."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.jobs.attempts import Ending, claim, end
from models.journal import journal
from models.journal.events import event
from models.journal.journal import Claim
from models.platform.ids import new_id
from tests.web.api_client import assert_error
from web.api.turns import prompt_jobs

PATH = "/v1/responses/input_tokens"


def count_jobs(user):
    with user.database.connection() as connection:
        statement = "SELECT id FROM jobs WHERE kind = 'tokens.count' AND account_id = %s"
        return connection.execute(statement, (user.caller.account_id,)).fetchall()


@pytest.fixture
def count_with(user, database, redis_client):
    """`count_with(state, …)` requests a count and ends its job as a worker would."""

    def count(state, **payload):
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(user.request, "POST", PATH, json={"input": "how many"})
            job_id = wait_until(lambda: count_jobs(user))[0]["id"]
            with database.connection() as connection:
                job = claim(connection, job_id, message_id="a message", worker=f"worker of {job_id}")
            last = event(0, f"sangha:job.{state}", {"job_id": job_id, **payload})
            with database.transaction() as connection:
                end(connection, job, Ending(state, [last]), [last])
            journal.append(redis_client, Claim(job_id, 1), [last])
            return pending.result(20)

    return count


def test_the_count_of_the_worker_is_returned(user, count_with):
    answer = count_with("completed", result={"input_tokens": 7})

    assert answer.json() == {"object": "response.input_tokens", "input_tokens": 7}
    assert not count_jobs(user)


def test_a_prompt_that_the_engine_rejects_is_a_400(user, count_with):
    answer = count_with("failed", error={"code": "invalid_request", "message": "no such role"})

    assert assert_error(answer, 400, param="input", code="invalid_request") == "no such role"
    assert not count_jobs(user)


def test_without_a_free_worker_the_answer_is_a_503_with_retry_after(user, monkeypatch):
    monkeypatch.setattr(prompt_jobs, "TIMEOUT", 0.05)

    answer = user.request("POST", PATH, json={"input": "how many"})

    assert_error(answer, 503, code="service_unavailable")
    assert answer.headers["retry-after"] == "5"
    assert not count_jobs(user)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": "x", "conversation": new_id("conv")}, 404, "conversation"),
        ({"input": "x", "previous_response_id": new_id("resp")}, 400, "previous_response_id"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, body, status, param):
    assert_error(user.request("POST", PATH, json=body), status, param=param)
    assert not count_jobs(user)
