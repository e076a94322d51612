"""`/v1/meditations` with a real worker: starting, following, reading and reverting meditations."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bench.harness.waiting import wait_until
from models.memory.spaces import SpaceKey
from pipelines.memory.meditation import meditation_jobs
from pipelines.schedules.firing import fire_due
from tests.web.api_client import assert_error
from tests.web.worker_process import run_worker

TEXTS = [
    "My sister Clara teaches chemistry at a school in Graz.",
    "My sister Clara really teaches chemistry at a school in Graz!",
    "The tram to the office leaves at ten past eight.",
]


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """A worker process of the pools memory and maintenance."""
    with run_worker(settings, ["memory", "maintenance"], tmp_path_factory.mktemp("meditation")):
        yield


@pytest.fixture
def user_with_memories(user, workers):
    """A user with memories."""
    answer = user.request("POST", "/v1/memories", json={"memories": [{"text": text} for text in TEXTS]})
    assert answer.status_code == 201, answer.text
    return user


def texts(user):
    return {memory["text"] for memory in user.request("GET", "/v1/memories").json()["data"]}


def wait_for_end(user, meditation_id):
    """Wait for the meditation's end; returns its object."""

    def read():
        meditation = user.request("GET", f"/v1/meditations/{meditation_id}").json()
        return meditation if meditation["status"] not in ("queued", "in_progress") else None

    return wait_until(read)


def test_a_meditation_is_followed_read_and_reverted(user_with_memories, other_user):
    started_meditation = user_with_memories.request("POST", "/v1/meditations")
    assert started_meditation.status_code == 202, started_meditation.text
    path = f"/v1/meditations/{started_meditation.json()['id']}"

    stream = user_with_memories.request("GET", f"{path}/events").text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    meditation = user_with_memories.request("GET", path).json()
    changes = user_with_memories.request("GET", f"{path}/changes").json()["data"]

    assert events[-1]["type"] == "sangha:job.completed"
    assert [event["progress"]["done"] for event in events if event["type"] == "sangha:job.progress"] == [1, 3]
    assert (meditation["status"], meditation["outcome"], meditation["report"]["merged"]) == ("completed", "applied", 1)
    assert meditation["report"]["recall"]["after"] >= meditation["report"]["recall"]["before"]
    assert [(change["action"], change["reason"]) for change in changes] == [("closed", "repeats")]
    assert len(texts(user_with_memories)) == 2
    assert_error(other_user.request("GET", path), 404, param="meditation_id")
    assert_error(other_user.request("POST", f"{path}/revert"), 404, param="meditation_id")

    reverted = user_with_memories.request("POST", f"{path}/revert").json()
    repeated = user_with_memories.request("POST", f"{path}/revert").json()

    assert reverted["report"]["reverted"] == {"undone": 1, "left": 0}
    assert repeated == reverted
    assert texts(user_with_memories) == set(TEXTS)
    assert [item["id"] for item in user_with_memories.request("GET", "/v1/meditations").json()["data"]] == [
        meditation["id"]
    ]


def test_changes_are_listed_in_pages(user_with_memories):
    meditation_id = user_with_memories.request("POST", "/v1/meditations").json()["id"]
    wait_for_end(user_with_memories, meditation_id)

    first = user_with_memories.request("GET", f"/v1/meditations/{meditation_id}/changes", params={"limit": 1}).json()
    rest = user_with_memories.request(
        "GET", f"/v1/meditations/{meditation_id}/changes", params={"after": first["last_id"]}
    ).json()

    assert (len(first["data"]), first["has_more"]) == (1, False)
    assert rest["data"] == []


def test_a_request_starts_a_meditation_that_was_scheduled_for_the_night(user_with_memories):
    at_night, caller = datetime.now(UTC) + timedelta(hours=9), user_with_memories.caller
    with user_with_memories.database.transaction() as connection:
        assert meditation_jobs.insert_meditation(
            connection, SpaceKey(caller.account_id, caller.user_id), run_at=at_night, lane="meditation lane 0"
        )
    (waiting,) = user_with_memories.request("GET", "/v1/meditations").json()["data"]

    requested = user_with_memories.request("POST", "/v1/meditations").json()

    assert requested["id"] == waiting["id"]
    assert wait_for_end(user_with_memories, waiting["id"])["outcome"] == "applied"


def test_a_meditation_without_changes_cannot_be_reverted(user, workers):
    meditation_id = user.request("POST", "/v1/meditations").json()["id"]
    assert wait_for_end(user, meditation_id)["outcome"] == "nothing_to_do"

    assert_error(user.request("POST", f"/v1/meditations/{meditation_id}/revert"), 409, code="not_applied")


def test_an_operator_starts_meditations_of_other_users(user_with_memories, operator):
    answer = operator.request("POST", "/admin/meditations", json={"user_ids": [user_with_memories.caller.user_id]})
    assert answer.status_code == 202, answer.text

    def started():
        return operator.request("GET", f"/v1/jobs/{answer.json()['id']}").json()["result"]

    assert wait_until(started) == {"started": 1}
    (started_meditation,) = user_with_memories.request("GET", "/v1/meditations").json()["data"]
    assert started_meditation["status"] in ("queued", "in_progress", "completed")
    audit_events = operator.request("GET", "/v1/audit_events").json()["data"]
    assert "meditations.started" in {event["action"] for event in audit_events}


@pytest.mark.parametrize("body", [{}, {"all": True, "user_ids": ["user_x"]}, {"user_ids": []}])
def test_an_operator_must_select_users_or_all(operator, body):
    assert_error(operator.request("POST", "/admin/meditations", json=body), 400, param="user_ids")


def test_a_schedule_starts_a_meditation(user_with_memories, settings):
    body = {"name": "mornings", "trigger": {"type": "interval", "seconds": 3600}, "work": {"kind": "meditation"}}
    created = user_with_memories.request("POST", "/v1/schedules", json=body)
    assert created.status_code == 201, created.text
    with user_with_memories.database.connection() as connection:
        connection.execute("UPDATE schedules SET next_fire_at = now() WHERE id = %s", (created.json()["id"],))

    (due,) = [fired for fired in fire_due(user_with_memories.database, settings, ["meditation"]) if fired.started]

    (started_meditation,) = user_with_memories.request("GET", "/v1/meditations").json()["data"]
    assert due.started.job_id == started_meditation["job_id"]
