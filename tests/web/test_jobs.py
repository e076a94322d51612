"""Given jobs, when their account reads, lists and cancels them, then it sees its own and nothing of our insides."""

import pytest

from models.ids import new_id
from models.jobs import NewJob, enqueue
from tests.web.telling import Telling
from tests.web.visiting import refused


def test_a_job_shows_nothing_of_our_insides(visitor):
    turn = visitor.ask()

    job = visitor.request("GET", f"/v1/jobs/{turn['job_id']}").json()

    assert set(job) == {
        "id", "object", "kind", "state", "cancel_requested", "attempt", "progress", "result", "error", "parent_id",
        "created_at", "started_at", "finished_at",
    }  # fmt: skip
    assert (job["id"], job["kind"], job["state"], job["attempt"]) == (turn["job_id"], "turn.run", "queued", 0)


def test_jobs_are_listed_in_pages_newest_first(visitor, stranger):
    asked = [visitor.ask()["job_id"] for _ in range(5)]
    stranger.ask()

    first = visitor.request("GET", "/v1/jobs?limit=3").json()
    second = visitor.request("GET", f"/v1/jobs?limit=3&after={first['last_id']}").json()

    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [job["id"] for job in first["data"] + second["data"]] == asked[::-1]
    assert visitor.request("GET", "/v1/jobs?state=completed").json()["data"] == []
    assert len(visitor.request("GET", "/v1/jobs?kind=turn.run&state=queued").json()["data"]) == 5


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=1000", "limit"), ("state=odd", "state"), ("what=1", "what")]
)
def test_a_list_that_can_not_be_is_refused(visitor, query, param):
    refused(visitor.request("GET", f"/v1/jobs?{query}"), 400, param=param)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
def test_a_strangers_job_looks_like_one_that_does_not_exist(visitor, stranger, method, path):
    theirs, nobodys = visitor.ask()["job_id"], new_id("job")

    foreign = stranger.request(method, f"/v1/jobs/{theirs}{path}")
    unknown = stranger.request(method, f"/v1/jobs/{nobodys}{path}")

    assert refused(foreign, 404, param="job_id") == refused(unknown, 404).replace(nobodys, theirs)
    assert visitor.request("GET", f"/v1/jobs/{theirs}").json()["state"] == "queued"


def test_a_queued_job_is_cancelled_on_the_spot_and_its_stream_ends(visitor):
    turn = visitor.ask()

    job = visitor.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    again = visitor.request("POST", f"/v1/jobs/{turn['job_id']}/cancel").json()
    stream = visitor.request("GET", f"/v1/jobs/{turn['job_id']}/events").text

    assert (job["state"], job["cancel_requested"], again) == ("cancelled", True, job)
    events = [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]
    assert events == ["response.created", "response.queued", "sangha.job.cancelled"]


def test_a_running_job_is_asked_to_stop_over_redis(visitor, database, redis_client):
    told = Telling(database, redis_client, visitor.caller.account_id)
    with redis_client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("sangha:cancel")
        channel.get_message(timeout=5)

        job = visitor.request("POST", f"/v1/jobs/{told.id}/cancel").json()

        heard = channel.get_message(timeout=5)
    assert (job["state"], job["cancel_requested"]) == ("running", True)
    assert heard["data"].decode() == told.id


@pytest.mark.parametrize("kind", ["memory.insight", "memory.fact", "memory.search"])
def test_words_that_wait_in_a_result_are_not_for_the_rest_of_the_account(visitor, database, kind):
    job = NewJob(kind, visitor.caller.account_id)
    with database.transaction() as connection:
        enqueue(connection, job)
        connection.execute('UPDATE jobs SET result = \'{"insights": ["a secret"]}\' WHERE id = %s', (job.id,))

    assert visitor.request("GET", f"/v1/jobs/{job.id}").json()["result"] is None
    assert "secret" not in visitor.request("GET", "/v1/jobs").text
