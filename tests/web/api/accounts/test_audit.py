"""Given what happened in an account, when an admin reads the audit log, then it tells who did what and from where."""

import time

import pytest

from models.accounts import audit
from models.accounts.audit import Trail
from tests.web.api_client import assert_error


@pytest.fixture
def happened(user, database):
    """`happened(action, …)`: something that matters for security."""

    def happened(action: str, **given):
        trail = Trail("192.0.2.1", "curl", "req_1")
        belongs = {"account_id": user.caller.account_id, "user_id": user.caller.user_id}
        with database.connection() as connection:
            audit.record(connection, action, trail, **{**belongs, **given})

    return happened


def listed(user, **query):
    answer = user.request("GET", "/v1/audit_events", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_event_tells_who_did_what_to_what_from_where_and_when(user):
    headers = {"user-agent": "a test", "x-request-id": "req-of-mine"}
    made = user.request("POST", "/v1/api_keys", json={"name": "my app"}, headers=headers).json()

    (event,) = listed(user, action="key.created")["data"]

    assert event.pop("id").startswith("audit_")
    assert event.pop("email").endswith("@example.com")
    assert event.pop("created_at") == pytest.approx(time.time(), abs=60)
    assert event == {
        "object": "audit_event",
        "action": "key.created",
        "user_id": user.caller.user_id,
        "target": made["id"],
        "details": {"name": "my app", "scopes": ["read", "write", "inference"]},
        "ip": "127.0.0.1",
        "user_agent": "a test",
        "request_id": "req-of-mine",
    }
    assert made["key"][7:-4] not in str(event)


def test_pages_are_newest_first_and_filtered(user, happened, database):
    for number in range(3):
        happened("test.happened", target=str(number))
    happened("test.other", user_id="user_gone")

    first = listed(user, action="test.happened", limit=2)
    second = listed(user, action="test.happened", limit=2, after=first["last_id"])

    assert [event["target"] for page in (first, second) for event in page["data"]] == ["2", "1", "0"]
    (other,) = listed(user, user_id="user_gone")["data"]
    assert (other["action"], other["email"]) == ("test.other", None)


def test_times_bound_it(user, happened):
    happened("test.happened")
    now = int(time.time())

    def times(**query):
        return len(listed(user, action="test.happened", **query)["data"])

    assert (times(created_after=now - 60), times(created_before=now + 60)) == (1, 1)
    assert (times(created_after=now + 60), times(created_before=now - 60)) == (0, 0)
    assert_error(user.request("GET", "/v1/audit_events?created_after=10e99"), 400, param="created_after")


def test_others_see_nothing_of_it(other_user, happened):
    happened("test.happened")

    assert listed(other_user, action="test.happened")["data"] == []
