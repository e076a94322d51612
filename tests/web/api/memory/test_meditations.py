"""Given a person's memories and workers, when they meditate, then they follow it, read it, and can take it back."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bench.harness.waiting import wait_until
from pipelines.memory.meditation import meditation_jobs
from pipelines.schedules.firing import fire_due
from tests.web.api_client import ApiUser, assert_error
from tests.web.worker_process import run_worker

TOLD = [
    "My sister Clara teaches chemistry at a school in Graz.",
    "My sister Clara really teaches chemistry at a school in Graz!",
    "The tram to the office leaves at ten past eight.",
]


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """The pools that meditate, in one process."""
    with run_worker(settings, ["memory", "maintenance"], tmp_path_factory.mktemp("meditation")):
        yield


@pytest.fixture
def told(user, workers):
    """A visitor of whom something is remembered."""
    answer = user.request("POST", "/v1/memories", json={"memories": [{"text": text} for text in TOLD]})
    assert answer.status_code == 201, answer.text
    return user


@pytest.fixture
def operator(api, database):
    operator = ApiUser(api, database)
    with database.connection() as connection:
        connection.execute("UPDATE users SET operator = true WHERE id = %s", (operator.caller.user_id,))
    yield operator
    operator.delete_account()


def texts(user):
    return {memory["text"] for memory in user.request("GET", "/v1/memories").json()["data"]}


def ended(user, meditation_id):
    """The meditation as it has ended."""

    def look():
        found = user.request("GET", f"/v1/meditations/{meditation_id}").json()
        return found if found["status"] not in ("queued", "in_progress") else None

    return wait_until(look)


def test_a_meditation_is_followed_read_and_reverted(told, other_user):
    begun = told.request("POST", "/v1/meditations")
    assert begun.status_code == 202, begun.text
    path = f"/v1/meditations/{begun.json()['id']}"

    stream = told.request("GET", f"{path}/events").text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    done = told.request("GET", path).json()
    changes = told.request("GET", f"{path}/changes").json()["data"]

    assert events[-1]["type"] == "sangha:job.completed"
    assert [event["progress"]["done"] for event in events if event["type"] == "sangha:job.progress"] == [1, 3]
    assert (done["status"], done["outcome"], done["report"]["merged"]) == ("completed", "applied", 1)
    assert done["report"]["recall"]["after"] >= done["report"]["recall"]["before"]
    assert [(change["action"], change["reason"]) for change in changes] == [("closed", "repeats")]
    assert len(texts(told)) == 2
    assert_error(other_user.request("GET", path), 404, param="meditation_id")
    assert_error(other_user.request("POST", f"{path}/revert"), 404, param="meditation_id")

    reverted = told.request("POST", f"{path}/revert").json()
    again = told.request("POST", f"{path}/revert").json()

    assert reverted["report"]["reverted"] == {"undone": 1, "left": 0}
    assert again == reverted
    assert texts(told) == set(TOLD)
    assert [item["id"] for item in told.request("GET", "/v1/meditations").json()["data"]] == [done["id"]]


def test_changes_come_page_by_page(told):
    meditation_id = told.request("POST", "/v1/meditations").json()["id"]
    ended(told, meditation_id)

    first = told.request("GET", f"/v1/meditations/{meditation_id}/changes", params={"limit": 1}).json()
    rest = told.request("GET", f"/v1/meditations/{meditation_id}/changes", params={"after": first["last_id"]}).json()

    assert (len(first["data"]), first["has_more"]) == (1, False)
    assert rest["data"] == []


def test_one_that_waits_for_the_night_begins_when_it_is_asked_for(told):
    at_night, who = datetime.now(UTC) + timedelta(hours=9), told.caller
    with told.database.transaction() as connection:
        assert meditation_jobs.insert_meditation(
            connection, who.account_id, who.user_id, run_at=at_night, lane="meditation lane 0"
        )
    (waiting,) = told.request("GET", "/v1/meditations").json()["data"]

    asked_for = told.request("POST", "/v1/meditations").json()

    assert asked_for["id"] == waiting["id"]
    assert ended(told, waiting["id"])["outcome"] == "applied"


def test_what_has_changed_nothing_is_not_reverted(user, workers):
    meditation_id = user.request("POST", "/v1/meditations").json()["id"]
    assert ended(user, meditation_id)["outcome"] == "nothing_to_do"

    assert_error(user.request("POST", f"/v1/meditations/{meditation_id}/revert"), 409, code="not_applied")


def test_an_operator_starts_those_of_others(told, operator):
    answer = operator.request("POST", "/admin/meditations", json={"user_ids": [told.caller.user_id]})
    assert answer.status_code == 202, answer.text

    def started():
        return operator.request("GET", f"/v1/jobs/{answer.json()['id']}").json()["result"]

    assert wait_until(started) == {"started": 1}
    (begun,) = told.request("GET", "/v1/meditations").json()["data"]
    assert begun["status"] in ("queued", "in_progress", "completed")
    deeds = operator.request("GET", "/v1/audit_events").json()["data"]
    assert "meditations.started" in {event["action"] for event in deeds}


@pytest.mark.parametrize("body", [{}, {"all": True, "user_ids": ["user_x"]}, {"user_ids": []}])
def test_an_operator_says_whom(operator, body):
    assert_error(operator.request("POST", "/admin/meditations", json=body), 400, param="user_ids")


def test_a_schedule_starts_one(told, settings):
    asked = {"name": "mornings", "trigger": {"type": "interval", "seconds": 3600}, "work": {"kind": "meditation"}}
    made = told.request("POST", "/v1/schedules", json=asked)
    assert made.status_code == 201, made.text
    with told.database.connection() as connection:
        connection.execute("UPDATE schedules SET next_fire_at = now() WHERE id = %s", (made.json()["id"],))

    (due,) = [fired for fired in fire_due(told.database, settings, ["meditation"]) if fired.started]

    (begun,) = told.request("GET", "/v1/meditations").json()["data"]
    assert due.started.job_id == begun["job_id"]
