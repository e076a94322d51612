"""Admins register MCP servers, whose credentials nobody reads again; every member may use and test them."""

import pytest

from models.agents import mcp_servers
from pipelines.agents import credentials
from tests.pipelines.agents.mcp.raw_server import RawServer, listing, raw_server, tool
from tests.web.api_client import assert_error
from tests.web.worker_process import run_worker

BODY = {"label": "github", "url": "https://mcp.example.com/mcp"}


def create(user, **fields):
    answer = user.request("POST", "/v1/mcp_servers", json={**BODY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def stored(database, user, server):
    with database.connection() as connection:
        return mcp_servers.read(connection, server["id"], user.caller.account_id)


def secrets_of(settings, row):
    return credentials.unseal(settings, row.credentials.decode())


def test_a_server_is_registered_and_read(user):
    # When
    server = create(
        user, description="Issues", allowed_tools=["search"], require_approval={"never": {"read_only": True}}
    )

    # Then
    assert server["object"] == "mcp_server"
    assert server["require_approval"] == {"never": {"read_only": True}}
    assert (server["allowed_tools"], server["trusts_annotations"], server["has_credentials"]) == (
        ["search"],
        False,
        False,
    )
    assert user.request("GET", f"/v1/mcp_servers/{server['id']}").json() == server
    assert user.request("GET", "/v1/mcp_servers").json()["data"] == [server]


def test_credentials_are_encrypted_and_never_returned(user, database, settings):
    # When
    answer = user.request(
        "POST", "/v1/mcp_servers", json={**BODY, "authorization": "hunter2", "headers": {"X-Key": "hunter3"}}
    )

    # Then
    server, row = answer.json(), stored(database, user, answer.json())
    assert server["has_credentials"] is True
    assert "hunter" not in answer.text
    assert b"hunter" not in row.credentials
    assert (secrets_of(settings, row).authorization, secrets_of(settings, row).headers) == (
        "hunter2",
        {"X-Key": "hunter3"},
    )
    for path in (f"/v1/mcp_servers/{server['id']}", "/v1/mcp_servers", "/v1/audit_events"):
        assert "hunter" not in user.request("GET", path).text


def test_fields_that_are_not_given_stay_as_they_are(user, database, settings):
    # Given
    server = create(user, authorization="hunter2", allowed_tools=["search"])

    # When
    changed = user.request("PATCH", f"/v1/mcp_servers/{server['id']}", json={"description": "Issues"}).json()

    # Then
    assert (changed["description"], changed["allowed_tools"], changed["label"]) == ("Issues", ["search"], "github")
    assert secrets_of(settings, stored(database, user, server)).authorization == "hunter2"


def test_a_null_removes_what_may_be_missing(user):
    server = create(user, authorization="hunter2", allowed_tools=["search"])

    changed = user.request(
        "PATCH", f"/v1/mcp_servers/{server['id']}", json={"authorization": None, "allowed_tools": None, "label": None}
    ).json()

    assert (changed["has_credentials"], changed["allowed_tools"], changed["label"]) == (False, None, "github")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://mcp.example.com/other", True),
        ("https://evil.example.com/mcp", False),
        ("http://mcp.example.com/mcp", False),
        ("https://mcp.example.com:8443/mcp", False),
    ],
)
def test_a_url_of_another_origin_does_not_get_the_stored_credentials(user, url, kept):
    server = create(user, authorization="hunter2")

    changed = user.request("PATCH", f"/v1/mcp_servers/{server['id']}", json={"url": url}).json()

    assert changed["has_credentials"] is kept


def test_a_label_is_taken_once_in_an_account(user, other_user):
    # Given
    server = create(user)
    other = create(user, label="other")

    # When / Then
    assert_error(user.request("POST", "/v1/mcp_servers", json=BODY), 409, code="label_taken")
    path = f"/v1/mcp_servers/{other['id']}"
    assert_error(user.request("PATCH", path, json={"label": server["label"]}), 409, code="label_taken")
    create(other_user)


@pytest.mark.parametrize("label", ["sangha", "agents", "a b", "", "1x", "x" * 65])
def test_a_label_that_turns_could_not_name_is_rejected(user, label):
    assert_error(user.request("POST", "/v1/mcp_servers", json={**BODY, "label": label}), 400, param="label")


def test_a_deleted_server_is_gone(user):
    server = create(user)

    assert user.request("DELETE", f"/v1/mcp_servers/{server['id']}").json()["deleted"] is True

    assert_error(user.request("GET", f"/v1/mcp_servers/{server['id']}"), 404)
    create(user)


def test_an_account_has_a_limited_number_of_servers(user, monkeypatch):
    monkeypatch.setattr("pipelines.agents.registered_servers.MAX_SERVERS", 1)
    create(user)

    answer = user.request("POST", "/v1/mcp_servers", json={**BODY, "label": "other"})

    assert_error(answer, 429, code="too_many_servers")


def test_changes_are_in_the_audit_log(user):
    server = create(user, url="https://mcp.example.com/mcp?key=hunter2")
    user.request("PATCH", f"/v1/mcp_servers/{server['id']}", json={"description": "x"})
    user.request("DELETE", f"/v1/mcp_servers/{server['id']}")

    events = user.request("GET", "/v1/audit_events").json()["data"]

    actions = [event["action"] for event in events if event["target"] == server["id"]]
    assert actions == ["mcp_server.deleted", "mcp_server.changed", "mcp_server.created"]
    assert events[0]["details"] == {"label": "github", "url": "https://mcp.example.com/mcp"}


@pytest.fixture
def worker(settings, tmp_path):
    """A worker process of the pool tools, whose calls may go to the loopback address."""
    open_settings = settings.model_copy(update={"egress_allow": ("127.0.0.1",)})
    with run_worker(open_settings, ["tools"], tmp_path):
        yield


def test_a_test_returns_the_tools_or_the_error(user, worker):
    # Given
    server = RawServer(tools__list=listing(tool("search", annotations={"readOnlyHint": True})))
    with raw_server(server) as url:
        good = create(user, url=url, authorization="hunter2", trusts_annotations=True)

        # When
        tested = user.request("POST", f"/v1/mcp_servers/{good['id']}/test").json()

    # Then
    assert server.headers[-1]["authorization"] == "Bearer hunter2"
    assert tested["error"] is None
    assert tested["tools"] == [
        {
            "name": "search",
            "description": "A tool.",
            "input_schema": {"type": "object"},
            "annotations": {"readOnlyHint": True},
            "changed": False,
        }
    ]
    gone = user.request("POST", f"/v1/mcp_servers/{good['id']}/test").json()
    assert gone["tools"] == []
    assert gone["error"]["type"] == "http_error"


def test_a_test_without_a_worker_is_unavailable(user, monkeypatch):
    monkeypatch.setattr("web.api.agents.mcp_servers.TIMEOUT", 0.05)
    server = create(user)

    assert_error(user.request("POST", f"/v1/mcp_servers/{server['id']}/test"), 503)
