"""Unknown fields are ignored on OpenAI's routes, and named in a header of the response."""

import pytest

from tests.web.api_client import assert_error

MESSAGE = {"role": "user", "content": [{"type": "input_text", "text": "hi", "role": "user"}], "x": 1}
CHAT_MESSAGE = {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}


@pytest.mark.parametrize(
    ("path", "body", "ignored"),
    [
        (
            "/v1/responses",
            {"input": [MESSAGE], "client_metadata": {"a": "b"}, "background": True},
            "client_metadata, input[0].x, input[0].content[0].role",
        ),
        ("/v1/conversations", {"items": [MESSAGE], "name": "n"}, "name, items[0].x, items[0].content[0].role"),
    ],
)
def test_unknown_fields_are_ignored_and_named(user, path, body, ignored):
    answer = user.request("POST", path, json=body)

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-sangha-ignored"] == ignored


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/responses", {"input": [MESSAGE]}, "input[0].content[0].role"),
        ("/v1/responses/input_tokens", {"input": "x", "session": 1}, "session"),
        ("/v1/conversations", {"name": "n"}, "name"),
        ("/v1/chat/completions", {"messages": [CHAT_MESSAGE]}, "messages[0].content[0].cache_control"),
        ("/v1/embeddings", {"input": "x", "truncate": True}, "truncate"),
    ],
)
def test_a_strict_request_with_an_unknown_field_is_rejected(user, path, body, param):
    answer = user.request("POST", path, json=body, headers={"x-sangha-strict": "1"})

    assert_error(answer, 400, param=param, code="unknown_parameter")


@pytest.mark.parametrize(
    ("path", "body", "ignored"),
    [
        ("/v1/responses", {"input": "hi", "background": True, "reasoning": {"effort": "low"}}, "reasoning.effort"),
        ("/v1/responses", {"input": "hi", "background": True, "reasoning": {"effort": "none"}}, None),
        (
            "/v1/chat/completions",
            {"messages": [CHAT_MESSAGE], "reasoning_effort": "high", "model": "gpt-99"},
            "messages[0].content[0].cache_control, reasoning_effort",
        ),
    ],
)
def test_an_effort_is_named_where_the_model_does_not_reason(user, path, body, ignored):
    answer = user.request("POST", path, json=body)

    assert answer.headers.get("x-sangha-ignored") == ignored


def test_an_error_also_names_what_was_ignored(user):
    answer = user.request("POST", "/v1/responses", json={"input": "x", "model": "gpt-99", "session": 1})

    assert answer.status_code in (400, 404)
    assert answer.headers["x-sangha-ignored"] == "session"


def test_a_request_without_unknown_fields_has_no_such_header(user):
    assert "x-sangha-ignored" not in user.request("POST", "/v1/conversations", json={}).headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/embeddings", {"input": "hi"}),
    ],
)
def test_a_strict_request_names_its_model(user, path, body):
    answer = user.request("POST", path, json=body, headers={"x-sangha-strict": "1"})

    message = assert_error(answer, 400, param="model", code="missing_required_parameter")
    assert message == "Missing required parameter: 'model'."


def test_another_value_of_the_strict_header_is_rejected(user):
    answer = user.request("POST", "/v1/conversations", json={}, headers={"x-sangha-strict": "yes"})

    assert_error(answer, 400, param="X-Sangha-Strict")


def test_an_unknown_parameter_of_a_query_is_rejected_as_it_could_select_other_objects(user):
    assert_error(user.request("GET", f"/v1/responses/{user.create_response()['id']}?offset=1"), 400, param="offset")


def test_the_openapi_document_permits_unknown_fields_only_on_openais_routes(user):
    schemas = user.request("GET", "/openapi.json").json()["components"]["schemas"]

    assert "additionalProperties" not in schemas["CreateResponse"]
    assert "additionalProperties" not in schemas["InputMessage"]
    assert schemas["CreateMemories"]["additionalProperties"] is False


def test_routes_of_our_own_stay_strict(user):
    answer = user.request("POST", "/v1/memories/search", json={"query": "x", "surprise": 1})

    assert_error(answer, 400, param="surprise", code="unknown_parameter")
