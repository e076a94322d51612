"""`/v1/jobs`: reading, listing and cancelling the jobs of an account."""

from datetime import UTC, datetime, timedelta

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id
from tests.web.api_client import assert_error
from tests.web.scripted_job import ScriptedJob


def test_a_job_object_has_no_internal_fields(user):
    turn = user.create_response()

    job = user.request("GET", f"/v1/jobs/{turn['job_id']}").json()

    assert set(job) == {
        "id", "object", "kind", "state", "cancel_requested", "attempt", "progress", "result", "error", "parent_id",
        "route", "created_at", "started_at", "finished_at",
    }  # fmt: skip
    assert (job["id"], job["kind"], job["state"], job["attempt"]) == (turn["job_id"], "turn.run", "queued", 0)


def test_jobs_are_listed_in_pages_newest_first(user, other_user):
    job_ids = [user.create_response()["job_id"] for _ in range(5)]
    other_user.create_response()

    first = user.request("GET", "/v1/jobs?limit=3").json()
    second = user.request("GET", f"/v1/jobs?limit=3&after={first['last_id']}").json()

    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [job["id"] for job in first["data"] + second["data"]] == job_ids[::-1]
    assert user.request("GET", "/v1/jobs?state=completed").json()["data"] == []
    assert len(user.request("GET", "/v1/jobs?kind=turn.run&state=queued").json()["data"]) == 5


def test_a_job_that_is_due_later_is_listed_as_scheduled(user, database):
    with database.transaction() as connection:
        later = NewJob("account.export", user.caller.account_id, run_at=datetime.now(UTC) + timedelta(hours=1))
        enqueue(connection, later)

    (job,) = user.request("GET", "/v1/jobs?state=scheduled").json()["data"]

    assert (job["id"], job["state"]) == (later.id, "scheduled")
    schema = user.request("GET", "/openapi.json").json()["components"]["schemas"]["JobObject"]
    assert "scheduled" in schema["properties"]["state"]["enum"]


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=1000", "limit"), ("state=odd", "state"), ("what=1", "what")]
)
def test_an_invalid_list_query_is_rejected_by_parameter(user, query, param):
    assert_error(user.request("GET", f"/v1/jobs?{query}"), 400, param=param)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
def test_a_job_of_another_account_is_not_found(user, other_user, method, path):
    foreign_id, unknown_id = user.create_response()["job_id"], new_id("job")

    foreign = other_user.request(method, f"/v1/jobs/{foreign_id}{path}")
    unknown = other_user.request(method, f"/v1/jobs/{unknown_id}{path}")

    assert assert_error(foreign, 404, param="job_id") == assert_error(unknown, 404).replace(unknown_id, foreign_id)
    assert user.request("GET", f"/v1/jobs/{foreign_id}").json()["state"] == "queued"


def test_cancelling_a_queued_job_is_immediate_and_ends_its_stream(user):
    turn = user.create_response()

    job = user.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    repeated = user.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    stream = user.request("GET", f"/v1/jobs/{turn['job_id']}/events").text

    assert (job["state"], job["cancel_requested"], repeated) == ("cancelled", True, job)
    events = [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]
    assert events == ["response.created", "response.queued", "sangha:job.cancelled"]


def test_cancelling_a_running_job_is_announced_over_redis(user, database, redis_client):
    scripted = ScriptedJob(database, redis_client, user.caller.account_id)
    with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("sangha:cancel")
        channel.get_message(timeout=5)

        job = user.request("POST", f"/v1/jobs/{scripted.id}/cancel").json()

        message = channel.get_message(timeout=5)
    assert (job["state"], job["cancel_requested"]) == ("running", True)
    assert message["data"].decode() == scripted.id


@pytest.mark.parametrize("kind", ["memory.insight", "memory.fact", "memory.search"])
def test_results_with_memory_texts_are_hidden_from_the_job_api(user, database, kind):
    job = NewJob(kind, user.caller.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute('UPDATE jobs SET result = \'{"insights": ["a secret"]}\' WHERE id = %s', (job.id,))

    assert user.request("GET", f"/v1/jobs/{job.id}").json()["result"] is None
    assert "secret" not in user.request("GET", "/v1/jobs").text
