"""Given jobs, when their account reads, lists and cancels them, then it sees its own and nothing of our insides."""

import pytest

from models.jobs.jobs import NewJob, enqueue
from models.platform.ids import new_id
from tests.web.api_client import assert_error
from tests.web.scripted_job import ScriptedJob


def test_a_job_shows_nothing_of_our_insides(user):
    turn = user.create_response()

    job = user.request("GET", f"/v1/jobs/{turn['job_id']}").json()

    assert set(job) == {
        "id", "object", "kind", "state", "cancel_requested", "attempt", "progress", "result", "error", "parent_id",
        "created_at", "started_at", "finished_at",
    }  # fmt: skip
    assert (job["id"], job["kind"], job["state"], job["attempt"]) == (turn["job_id"], "turn.run", "queued", 0)


def test_jobs_are_listed_in_pages_newest_first(user, other_user):
    asked = [user.create_response()["job_id"] for _ in range(5)]
    other_user.create_response()

    first = user.request("GET", "/v1/jobs?limit=3").json()
    second = user.request("GET", f"/v1/jobs?limit=3&after={first['last_id']}").json()

    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [job["id"] for job in first["data"] + second["data"]] == asked[::-1]
    assert user.request("GET", "/v1/jobs?state=completed").json()["data"] == []
    assert len(user.request("GET", "/v1/jobs?kind=turn.run&state=queued").json()["data"]) == 5


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=1000", "limit"), ("state=odd", "state"), ("what=1", "what")]
)
def test_a_list_that_can_not_be_is_refused(user, query, param):
    assert_error(user.request("GET", f"/v1/jobs?{query}"), 400, param=param)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
def test_a_strangers_job_looks_like_one_that_does_not_exist(user, other_user, method, path):
    theirs, nobodys = user.create_response()["job_id"], new_id("job")

    foreign = other_user.request(method, f"/v1/jobs/{theirs}{path}")
    unknown = other_user.request(method, f"/v1/jobs/{nobodys}{path}")

    assert assert_error(foreign, 404, param="job_id") == assert_error(unknown, 404).replace(nobodys, theirs)
    assert user.request("GET", f"/v1/jobs/{theirs}").json()["state"] == "queued"


def test_a_queued_job_is_cancelled_on_the_spot_and_its_stream_ends(user):
    turn = user.create_response()

    job = user.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    again = user.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    stream = user.request("GET", f"/v1/jobs/{turn['job_id']}/events").text

    assert (job["state"], job["cancel_requested"], again) == ("cancelled", True, job)
    events = [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]
    assert events == ["response.created", "response.queued", "sangha.job.cancelled"]


def test_a_running_job_is_asked_to_stop_over_redis(user, database, redis_client):
    scripted = ScriptedJob(database, redis_client, user.caller.account_id)
    with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("sangha:cancel")
        channel.get_message(timeout=5)

        job = user.request("POST", f"/v1/jobs/{scripted.id}/cancel").json()

        heard = channel.get_message(timeout=5)
    assert (job["state"], job["cancel_requested"]) == ("running", True)
    assert heard["data"].decode() == scripted.id


@pytest.mark.parametrize("kind", ["memory.insight", "memory.fact", "memory.search"])
def test_words_that_wait_in_a_result_are_not_for_the_rest_of_the_account(user, database, kind):
    job = NewJob(kind, user.caller.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute('UPDATE jobs SET result = \'{"insights": ["a secret"]}\' WHERE id = %s', (job.id,))

    assert user.request("GET", f"/v1/jobs/{job.id}").json()["result"] is None
    assert "secret" not in user.request("GET", "/v1/jobs").text
