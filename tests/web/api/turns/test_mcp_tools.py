"""Tools of MCP servers in requests over HTTP: their items, their credentials, and registered servers."""

from openai.types.responses import ResponseItemList
from pydantic import TypeAdapter

from tests.pipelines.requests.mcp_items import ITEMS
from tests.web.api_client import assert_error

URL = "https://mcp.example.com/mcp?team=1"
DOCS = {"type": "mcp", "server_label": "docs", "server_url": URL}
REGISTERED = {"type": "mcp", "server_label": "crm"}
PLATFORM = {"type": "mcp", "server_label": "sangha", "allowed_tools": ["memory_search"], "require_approval": "never"}


def test_items_of_earlier_outputs_are_items_of_a_conversation(user):
    conversation = user.request("POST", "/v1/conversations", json={"items": ITEMS}).json()["id"]

    items = user.request("GET", f"/v1/conversations/{conversation}/items?order=asc").json()

    assert [item["type"] for item in items["data"]] == [item["type"] for item in ITEMS]
    TypeAdapter(ResponseItemList).validate_python(items)


def test_no_credential_is_returned_or_stored_in_plain(user):
    tool = {**DOCS, "headers": {"X-Team": "secret-team"}, "authorization": "secret-token"}

    response = user.create_response(tools=[tool])
    counted = user.request("POST", "/v1/responses/input_tokens", json={"input": "x", "tools": [tool], "model": "no"})

    with user.database.connection() as connection:
        rows = connection.execute("""
            SELECT row_to_json(responses)::text FROM responses WHERE account_id = %(account_id)s
            UNION ALL SELECT row_to_json(jobs)::text FROM jobs WHERE account_id = %(account_id)s
            UNION ALL SELECT row_to_json(job_events)::text FROM job_events JOIN responses USING (job_id)
            WHERE account_id = %(account_id)s""", {"account_id": user.caller.account_id}).fetchall()  # fmt: skip
    assert response["tools"] == [DOCS]
    assert counted.status_code == 404
    assert rows
    assert "secret-t" not in str(rows)


def test_a_schedule_stores_no_credentials(user):
    tool = {**DOCS, "authorization": "secret-token"}
    body = {
        "name": "daily",
        "trigger": {"type": "interval", "seconds": 3600},
        "work": {"kind": "turn", "request": {"input": "x", "tools": [tool]}},
    }

    answer = user.request("POST", "/v1/schedules", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "work.request.tools"


def test_chat_completions_ignore_servers(user):
    body = {"model": "default", "messages": [{"role": "user", "content": "x"}], "tools": [DOCS], "stream": True}

    with user.client.stream(
        "POST", "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {user.token}"}
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["x-sangha-ignored"] == "tools[0] (mcp)"


def test_a_label_without_a_url_is_that_of_a_registered_server(user):
    body = {"input": "x", "background": True, "tools": [{**PLATFORM}, REGISTERED]}

    refused = user.request("POST", "/v1/responses", json=body)
    user.request("POST", "/v1/mcp_servers", json={"label": "crm", "url": "https://crm.example.com/"})
    accepted = user.request("POST", "/v1/responses", json=body)

    assert refused.json()["error"]["param"] == "tools"
    assert "'crm'" in assert_error(refused, 400, code="mcp_server_not_found")
    assert accepted.status_code == 200, accepted.text
