"""`/v1/events` and `/v1/webhook_deliveries`: an account reads its own, page by page."""

import pytest

from models.delivery import events
from tests.web.api_client import assert_error


@pytest.fixture
def record(user, database):
    """`record(type, id)` records an event of the user's account."""

    def record(type, id):
        with database.transaction() as connection:
            events.record(connection, user.caller.account_id, type, {"id": id})

    return record


@pytest.fixture
def endpoint(user):
    """An endpoint of the user's account for all events."""
    body = {"url": "https://example.com/", "event_types": ["*"]}
    return user.request("POST", "/v1/webhook_endpoints", json=body).json()


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [event["data"]["id"] for event in answer.json()["data"]]


def test_an_event_is_read_as_its_webhook_has_it(user, record):
    record("response.completed", "resp_1")

    (event,) = user.request("GET", "/v1/events").json()["data"]

    assert (event["object"], event["type"], event["data"]) == ("event", "response.completed", {"id": "resp_1"})
    assert event["id"].startswith("evt_")
    assert user.request("GET", f"/v1/events/{event['id']}").json() == event


def test_a_poller_reads_each_event_once_in_order(user, record):
    # Given a poller that has read two events
    for number in range(3):
        record("response.completed", f"resp_{number}")
    page = user.request("GET", "/v1/events?order=asc&limit=2")
    assert (ids(page), page.json()["has_more"]) == (["resp_0", "resp_1"], True)
    # When more happen
    record("response.failed", "resp_3")
    # Then it reads those that follow its last one
    last = page.json()["last_id"]
    assert ids(user.request("GET", f"/v1/events?order=asc&after={last}")) == ["resp_2", "resp_3"]


def test_events_are_listed_newest_first_and_by_type(user, record):
    for number, type in enumerate(("response.completed", "job.dead", "response.failed")):
        record(type, str(number))

    assert ids(user.request("GET", "/v1/events")) == ["2", "1", "0"]
    assert ids(user.request("GET", "/v1/events?type=response.*")) == ["2", "0"]
    assert ids(user.request("GET", "/v1/events?type=job.dead&type=response.failed")) == ["2", "1"]


def test_a_type_that_does_not_exist_is_refused(user):
    assert_error(user.request("GET", "/v1/events?type=nothing.*"), 400)


def test_a_cursor_that_is_gone_is_an_error_instead_of_an_empty_list(user, record):
    record("response.completed", "resp_1")

    assert_error(user.request("GET", "/v1/events?order=asc&after=evt_0"), 400, param="after", code="event_not_found")


def test_events_and_deliveries_of_another_account_are_not_found(user, other_user, record, endpoint):
    record("response.completed", "resp_1")
    (event,) = user.request("GET", "/v1/events").json()["data"]
    (delivery,) = user.request("GET", "/v1/webhook_deliveries").json()["data"]

    for path in ("/v1/events", "/v1/webhook_deliveries", f"/v1/webhook_deliveries?event_id={event['id']}"):
        assert other_user.request("GET", path).json()["data"] == []
    assert_error(other_user.request("GET", f"/v1/events/{event['id']}"), 404, param="event_id")
    assert_error(other_user.request("GET", f"/v1/events?after={event['id']}"), 400, code="event_not_found")
    path = f"/v1/webhook_deliveries/{delivery['id']}"
    assert_error(other_user.request("GET", path), 404, param="delivery_id")
    assert_error(other_user.request("POST", f"{path}/replay"), 404, param="delivery_id")


def test_deliveries_are_listed_by_endpoint_event_and_status(user, record, endpoint):
    record("response.completed", "resp_1")
    (event,) = user.request("GET", "/v1/events").json()["data"]

    def listed(**query):
        return user.request("GET", "/v1/webhook_deliveries", params=query).json()["data"]

    (delivery,) = listed(endpoint_id=endpoint["id"], event_id=event["id"], status="pending")
    assert (delivery["webhook_endpoint_id"], delivery["event_id"]) == (endpoint["id"], event["id"])
    assert (delivery["event_type"], delivery["status"], delivery["tries"], delivery["attempts"]) == (
        "response.completed", "pending", 0, [],
    )  # fmt: skip
    assert user.request("GET", f"/v1/webhook_deliveries/{delivery['id']}").json() == delivery
    assert listed(status="delivered") == listed(event_id="evt_0") == listed(endpoint_id="we_0") == []


def test_a_delivery_is_replayed_unless_its_endpoint_is_disabled(user, record, endpoint, database):
    # Given a delivery that has failed
    record("response.completed", "resp_1")
    (delivery,) = user.request("GET", "/v1/webhook_deliveries").json()["data"]
    with database.connection() as connection:
        connection.execute("UPDATE webhook_deliveries SET delivery_state = 'failed' WHERE id = %s", (delivery["id"],))
    path = f"/v1/webhook_deliveries/{delivery['id']}/replay"
    # When it is replayed
    replayed = user.request("POST", path).json()
    # Then it is pending again
    assert (replayed["id"], replayed["status"]) == (delivery["id"], "pending")
    # And not while its endpoint is disabled
    user.request("POST", f"/v1/webhook_endpoints/{endpoint['id']}/disable")
    assert_error(user.request("POST", path), 409, code="endpoint_disabled")
