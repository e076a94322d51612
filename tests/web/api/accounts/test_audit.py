"""`/v1/audit_events`: the fields, pages and filters of an account's audit log."""

import time

import pytest

from models.accounts import audit
from models.accounts.audit import RequestOrigin
from tests.web.api_client import assert_error


@pytest.fixture
def record_event(user, database):
    """`record_event(action, …)` writes an audit event of the user's account."""

    def record_event(action: str, **fields):
        origin = RequestOrigin("192.0.2.1", "curl", "req_1")
        defaults = {"account_id": user.caller.account_id, "user_id": user.caller.user_id}
        with database.connection() as connection:
            audit.record(connection, action, origin, **{**defaults, **fields})

    return record_event


def list_events(user, **query):
    answer = user.request("GET", "/v1/audit_events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_event_has_actor_action_target_origin_and_time(user):
    headers = {"user-agent": "a test", "x-request-id": "req-of-mine"}
    created = user.request("POST", "/v1/api_keys", json={"name": "my app"}, headers=headers).json()

    (event,) = list_events(user, action="key.created")["data"]

    assert event.pop("id").startswith("audit_")
    assert event.pop("email").endswith("@example.com")
    assert event.pop("created_at") == pytest.approx(time.time(), abs=60)
    assert event == {
        "object": "audit_event",
        "action": "key.created",
        "user_id": user.caller.user_id,
        "target": created["id"],
        "details": {"name": "my app", "memory": "named", "scopes": ["read", "write", "inference"]},
        "ip": "127.0.0.1",
        "user_agent": "a test",
        "request_id": "req-of-mine",
    }
    assert created["key"][7:-4] not in str(event)


def test_events_are_listed_newest_first_and_filtered(user, record_event, database):
    for number in range(3):
        record_event("test.happened", target=str(number))
    record_event("test.other", user_id="user_gone")

    first = list_events(user, action="test.happened", limit=2)
    second = list_events(user, action="test.happened", limit=2, after=first["last_id"])

    assert [event["target"] for page in (first, second) for event in page["data"]] == ["2", "1", "0"]
    (other,) = list_events(user, user_id="user_gone")["data"]
    assert (other["action"], other["email"]) == ("test.other", None)


def test_events_are_filtered_by_time(user, record_event):
    record_event("test.happened")
    now = int(time.time())

    def count(**query):
        return len(list_events(user, action="test.happened", **query)["data"])

    assert (count(created_after=now - 60), count(created_before=now + 60)) == (1, 1)
    assert (count(created_after=now + 60), count(created_before=now - 60)) == (0, 0)
    assert_error(user.request("GET", "/v1/audit_events?created_after=10e99"), 400, param="created_after")


def test_events_of_another_account_are_not_listed(other_user, record_event):
    record_event("test.happened")

    assert list_events(other_user, action="test.happened")["data"] == []
