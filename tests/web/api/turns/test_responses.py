"""`/v1/responses`: invalid input, other accounts, methods, pages, cancellation and deletion."""

import time
from dataclasses import replace

import pytest

from models.platform.ids import new_id
from pipelines.accounts.access_tokens import LEEWAY, LIFETIME
from tests.web.api_client import assert_error


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b'{"input": "a" "b"}', b'{"input": NaN}', b"[]", b'"hello"', b"\xff"]
)
def test_malformed_json_is_rejected(user, body):
    answer = user.request("POST", "/v1/responses", content=body)

    assert_error(answer, 400, code="invalid_json")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "x", "stream": "yes"}, "stream"),
        ({"input": "x", "temperature": "hot"}, "temperature"),
        ({"input": "x", "temperature": 2.5}, "temperature"),
        ({"input": "x", "top_p": -0.1}, "top_p"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "max_output_tokens": 1.5}, "max_output_tokens"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "x", "metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "computer_call_output"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
        ({"input": [{"type": "item_reference", "id": "msg_none"}]}, "input[0].id"),
        ({"input": "x", "store": False, "background": True}, "store"),
        ({"input": "x", "include": [5]}, "include[0]"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": "x", "top_logprobs": 21}, "top_logprobs"),
        ({"input": "x", "reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"input": "x", "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"input": "x", "if_busy": "panic"}, "if_busy"),
        ({"input": "x", "tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name"),
        ({"input": "x", "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice.server_label"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": "x", "conversation": "conv_none", "previous_response_id": "resp_none"}, "previous_response_id"),
        ({"input": "x", "previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, body, param):
    answer = user.request("POST", "/v1/responses", json=body)

    assert_error(answer, 400, param=param)


def test_an_unknown_model_is_not_found(user):
    for path in ("/v1/responses", "/v1/responses/input_tokens"):
        answer = user.request("POST", path, json={"input": "x", "model": "gpt-4o"})

        assert_error(answer, 404, param="model", code="model_not_found")


def test_a_conversation_that_does_not_exist_is_not_found(user):
    answer = user.request("POST", "/v1/responses", json={"input": "x", "conversation": new_id("conv")})

    assert_error(answer, 404, param="conversation")


def test_a_body_of_fifty_megabytes_is_rejected(user):
    answer = user.request("POST", "/v1/responses", content=b'{"input": "' + b"x" * 50_000_000 + b'"}')

    assert_error(answer, 413, code="request_too_large")


def test_a_nul_character_is_rejected(user):
    assert_error(user.request("POST", "/v1/responses", json={"input": "a\0b"}), 400, code="invalid_character")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "?stream=true"),
        ("GET", "?stream=true&starting_after=1"),
        ("POST", "/cancel"),
        ("DELETE", ""),
        ("GET", "/input_items"),
    ],
)
def test_a_response_of_another_account_is_not_found(user, other_user, method, path):
    foreign_id, unknown_id = user.create_response()["id"], new_id("resp")

    foreign = other_user.request(method, f"/v1/responses/{foreign_id}{path}")
    unknown = other_user.request(method, f"/v1/responses/{unknown_id}{path}")

    assert assert_error(foreign, 404, param="response_id") == assert_error(unknown, 404).replace(unknown_id, foreign_id)
    assert user.request("GET", f"/v1/responses/{foreign_id}").json()["status"] == "queued"


def test_a_response_of_another_account_cannot_be_continued(user, other_user):
    foreign_id = user.create_response()["id"]

    answer = other_user.request("POST", "/v1/responses", json={"input": "x", "previous_response_id": foreign_id})

    assert_error(answer, 400, param="previous_response_id", code="previous_response_not_found")


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "a b"])
def test_an_invalid_token_is_rejected(user, token):
    user.token = token

    assert_error(user.request("POST", "/v1/responses", json={"input": "x"}), 401, code="invalid_api_key")


def test_an_expired_token_is_rejected(user):
    tokens = user.client.app.state.platform.tokens
    tokens._clock = lambda: time.time() - LIFETIME - 2 * LEEWAY
    user.token = tokens.issue(user.caller)
    tokens._clock = time.time

    assert "expired" in assert_error(user.request("POST", "/v1/responses", json={"input": "x"}), 401)


def test_a_token_of_another_account_does_not_find_the_response(user, other_user):
    foreign_id = user.create_response()["id"]

    assert_error(other_user.request("GET", f"/v1/responses/{foreign_id}"), 404)


def test_a_token_for_an_account_without_membership_is_rejected(user, other_user):
    tokens = user.client.app.state.platform.tokens
    other_user.token = tokens.issue(replace(other_user.caller, account_id=user.caller.account_id))

    assert_error(other_user.request("GET", "/v1/responses/resp_any"), 401)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/responses", "POST"),
        ("PUT", "/v1/responses", "POST"),
        ("PATCH", "/v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("GET", "/v1/responses/resp_1/cancel", "POST"),
        ("DELETE", "/v1/responses/resp_1/input_items", "GET, HEAD"),
    ],
)
def test_an_unsupported_method_is_a_405_with_the_allowed_methods(user, method, path, allowed):
    answer = user.request(method, path)

    assert_error(answer, 405)
    assert answer.headers["allow"] == allowed


def test_head_has_the_status_and_headers_of_get(user):
    turn = user.create_response()["id"]

    plain = user.request("HEAD", f"/v1/responses/{turn}")
    stream = user.request("HEAD", f"/v1/responses/{turn}?stream=true")

    assert (plain.status_code, plain.content, stream.status_code, stream.content) == (200, b"", 200, b"")
    assert stream.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("offset=1", "offset")],
)
def test_an_invalid_list_query_is_rejected_by_parameter(user, query, param):
    turn = user.create_response()["id"]

    assert_error(user.request("GET", f"/v1/responses/{turn}/input_items?{query}"), 400, param=param)


def test_a_response_is_deleted_only_after_its_end(user):
    turn = user.create_response()

    conflict = user.request("DELETE", f"/v1/responses/{turn['id']}")
    cancelled = user.request("POST", f"/v1/responses/{turn['id']}/cancel")
    repeated = user.request("POST", f"/v1/responses/{turn['id']}/cancel")
    deleted = user.request("DELETE", f"/v1/responses/{turn['id']}")

    assert_error(conflict, 409, code="response_in_progress")
    assert conflict.headers["x-should-retry"] == "false"
    assert cancelled.json()["status"] == repeated.json()["status"] == "cancelled"
    assert deleted.json() == {"id": turn["id"], "object": "response", "deleted": True}
    assert_error(user.request("GET", f"/v1/responses/{turn['id']}"), 404)
    assert_error(user.request("GET", f"/v1/jobs/{turn['job_id']}/events"), 404)


def test_input_items_are_listed_as_they_were_sent(user):
    items = [
        {"role": "user", "content": "one"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "three \U0001f3d4"}]},
    ]
    turn = user.create_response(input=items)["id"]

    first = user.request("GET", f"/v1/responses/{turn}/input_items?order=asc&limit=2").json()
    second = user.request("GET", f"/v1/responses/{turn}/input_items?order=asc&after={first['last_id']}").json()

    assert (first["has_more"], second["has_more"]) == (True, False)
    texts = [item["content"][0]["text"] for item in first["data"] + second["data"]]
    assert texts == ["one", "two", "three \U0001f3d4"]


def test_names_are_kept_but_not_shown_as_openais_items_have_none(user):
    message = {"role": "user", "name": "Ann", "content": "hi"}
    response = user.create_response(input=[message])["id"]
    conversation = user.request("POST", "/v1/conversations", json={"items": [message]}).json()["id"]

    for path in (f"/v1/responses/{response}/input_items", f"/v1/conversations/{conversation}/items"):
        (item,) = user.request("GET", path).json()["data"]
        assert "name" not in item
    with user.database.connection() as connection:
        row = connection.execute("SELECT input FROM responses WHERE id = %s", (response,)).fetchone()
    assert row["input"][0]["name"] == "Ann"
