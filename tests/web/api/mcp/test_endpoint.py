"""`POST /mcp` without a worker: credentials, origins, limits and errors; tests/journeys has the tools themselves."""

import re

import orjson
import pytest

from tests.web.api_client import assert_error
from web.api.mcp import ask, operations
from web.api.mcp.endpoint import MAX_BODY
from web.routes import ROUTES

HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}

SCOPES = {"ask": "inference", "memory_search": "read", "memory_write": "write", "jobs": "read"}


@pytest.fixture
def send(user):
    """`send(message, …)` → the response to a message of revision 2025-11-25, by the user or with another key."""

    def send(message, *, key=None, by=user, **headers):
        token = {} if key is None else {"authorization": f"Bearer {key}"}
        return by.request("POST", "/mcp", json=message, headers={**HEADERS, **token, **headers})

    return send


@pytest.fixture
def create_key(user):
    """`create_key(scope, …)` → the secret of a new API key."""

    def create_key(*scopes):
        body = {"name": "mcp", "scopes": scopes, "memory": "owner"}
        return user.request("POST", "/v1/api_keys", json=body).json()["key"]

    return create_key


def request(method, **params):
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def call(name, **arguments):
    return request("tools/call", name=name, arguments=arguments)


def result_of(response):
    """Return the last message of an event stream."""
    assert response.status_code == 200, response.text
    return orjson.loads(re.findall(r"^data: (.*)$", response.text.replace("\r", ""), re.MULTILINE)[-1])


def test_the_operations_of_the_tools_are_rows_of_the_route_table():
    rows = {(route.method, route.path): route for route in ROUTES}

    for operation in (*operations.OPERATIONS, ask.CREATE_RESPONSE):
        row = rows[operation.method, operation.path]
        assert (operation.rights, operation.creates) == (row.rights, row.creates)
        assert (operation.restores, operation.handles_repeats) == (row.restores, row.handles_repeats)
        assert operation is ask.CREATE_RESPONSE or operation.endpoint is row.endpoint


@pytest.mark.parametrize("credential", [None, "Bearer sk-nonsense", "Bearer x.y.z"])
def test_a_request_without_valid_credentials_names_the_metadata_of_the_resource(api, credential):
    headers = HEADERS if credential is None else {**HEADERS, "authorization": credential}

    refused = api.post("/mcp", json=request("tools/list"), headers=headers)

    assert_error(refused, 401, code="invalid_api_key")
    url = re.fullmatch(r'Bearer resource_metadata="(.*)"', refused.headers["www-authenticate"])[1]
    metadata = api.get(url).json()
    assert metadata["resource"] == str(api.base_url.join("/mcp"))
    assert (metadata["authorization_servers"], metadata["bearer_methods_supported"]) == ([], ["header"])
    assert api.get("/.well-known/oauth-protected-resource").json() == metadata


def test_a_key_sees_the_tools_that_its_scopes_allow_and_calls_no_others(send, create_key):
    for scope in ("inference", "read", "write"):
        key = create_key(scope)

        listed = result_of(send(request("tools/list"), key=key))["result"]["tools"]

        assert [tool["name"] for tool in listed] == [name for name, needed in SCOPES.items() if needed == scope]
        for name, arguments in {
            "ask": {"text": "hello"}, "memory_search": {"query": "x"}, "memory_write": {"text": "x"}, "jobs": {},
        }.items():  # fmt: skip
            if SCOPES[name] != scope:
                result = result_of(send(call(name, **arguments), key=key))["result"]
                assert result["isError"]
                assert result["_meta"]["sangha/error"]["code"] == "insufficient_scope"


def test_a_key_without_the_scope_to_write_cancels_no_job(user, send, create_key):
    job_id = user.create_response()["job_id"]

    refused = result_of(send(call("jobs", action="cancel", id=job_id), key=create_key("read")))["result"]
    cancelled = result_of(send(call("jobs", action="cancel", id=job_id), key=create_key("read", "write")))["result"]

    assert (refused["isError"], refused["_meta"]["sangha/error"]["status"]) == (True, 403)
    assert cancelled["structuredContent"]["jobs"][0]["cancel_requested"] is True


@pytest.mark.parametrize("action", ["read", "cancel"])
def test_jobs_and_responses_of_another_account_are_not_found(user, other_user, send, action):
    response = other_user.create_response()

    for object_id in (response["job_id"], response["id"]):
        result = result_of(send(call("jobs", action=action, id=object_id)))["result"]
        assert (result["isError"], result["_meta"]["sangha/error"]["code"]) == (True, "not_found")
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        assert result_of(send(request(method, taskId=response["id"])))["error"]["code"] == -32602
    assert result_of(send(call("jobs")))["result"]["structuredContent"] == {"jobs": [], "has_more": False}
    assert other_user.request("GET", f"/v1/jobs/{response['job_id']}").json()["cancel_requested"] is False


def test_a_turn_of_another_account_cannot_be_continued(other_user, send):
    response = other_user.create_response()

    result = result_of(send(call("ask", text="go on", previous_response_id=response["id"])))["result"]

    assert (result["isError"], result["_meta"]["sangha/error"]["param"]) == (True, "previous_response_id")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://evil.example:8000"])
def test_a_page_of_another_origin_is_refused(send, origin):
    assert_error(send(request("tools/list"), origin=origin), 403, code="origin_refused")


def test_a_page_of_this_server_is_admitted(api, send):
    own = str(api.base_url).rstrip("/")

    assert send(request("tools/list"), origin=own).status_code == 200


def test_a_body_that_is_too_large_is_refused(user):
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"text": "%b"}}'
    headers = {**HEADERS, "content-type": "application/json"}

    for size in (MAX_BODY, 10 * 1024 * 1024):
        assert_error(user.request("POST", "/mcp", content=body % (b"x" * size), headers=headers), 413)


@pytest.mark.parametrize(("content", "code"), [
    (b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', -32600),
    (b"[" * 100_000, -32600),
    (b"{", -32700),
    (b"", -32700),
    (b'{"a": 1, "a": 2}', -32700),
    (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"text": "\\u0000"}}', -32700),
])  # fmt: skip
def test_a_batch_and_invalid_json_are_protocol_errors(user, content, code):
    headers = {**HEADERS, "content-type": "application/json"}

    refused = user.request("POST", "/mcp", content=content, headers=headers)

    assert (refused.status_code, refused.json()["id"], refused.json()["error"]["code"]) == (400, None, code)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_other_methods_are_not_allowed(user, method):
    refused = user.request(method, "/mcp")

    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_an_unknown_tool_is_a_protocol_error_and_wrong_arguments_are_an_error_of_the_tool(send):
    unknown = result_of(send(call("rm")))
    wrong = result_of(send(call("ask", text=5)))["result"]
    surplus = result_of(send(call("memory_search", query="x", sql="x")))["result"]

    assert unknown["error"]["code"] == -32602
    assert (wrong["isError"], wrong["_meta"]["sangha/error"]["param"]) == (True, "text")
    assert (surplus["isError"], surplus["_meta"]["sangha/error"]["param"]) == (True, "sql")


def test_an_unknown_model_and_an_unknown_agent_are_errors_of_the_tool(send):
    result = result_of(send(call("ask", text="hello", model="gpt-9")))["result"]

    assert (result["isError"], result["_meta"]["sangha/error"]["code"]) == (True, "model_not_found")


def test_the_handshake_names_the_session_and_the_capabilities(send):
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}

    response = send(request("initialize", **params))

    capabilities = result_of(response)["result"]["capabilities"]
    assert response.headers["mcp-session-id"].startswith("mcps_")
    assert capabilities["tasks"] == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    assert set(capabilities) == {"tasks", "tools"}


def test_the_list_of_tools_of_revision_2026_07_28_may_be_kept_by_its_caller(user):
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {**HEADERS, "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}

    listed = user.request("POST", "/mcp", json=request("tools/list", _meta=meta), headers=headers).json()["result"]

    assert (listed["ttlMs"], listed["cacheScope"]) == (300_000, "private")
    assert [tool["name"] for tool in listed["tools"]] == list(SCOPES)


def test_only_the_session_and_caller_of_a_request_cancel_it(user, other_user, send):
    # Given a turn that waits for a worker
    mine = {"mcp-session-id": "mcps_mine"}
    asked = {**call("ask", text="hello"), "id": 4}
    asked["params"]["task"] = {}
    task_id = result_of(send(asked, **mine))["result"]["task"]["taskId"]

    def notify(request_id, *, by=user, session="mcps_mine"):
        params = {"requestId": request_id}
        message = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        assert send(message, by=by, **{"mcp-session-id": session}).status_code == 202
        return user.request("GET", f"/v1/responses/{task_id}").json()["status"]

    # When others than its sender name it
    others = [notify(4, by=other_user), notify(4, session="mcps_other"), notify(5), notify("4")]

    # Then it waits, until its sender names it
    assert others == ["queued"] * 4
    assert notify(4) == "cancelled"
