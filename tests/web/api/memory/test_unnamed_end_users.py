"""Where an API key serves several people, a request that uses memory must name one."""

import pytest

from tests.web.api.memory.people import by_response, ok, texts, wait_until_remembered
from tests.web.api_client import assert_error

#: Requests on memories that name nobody.
UNNAMED = [
    ("GET", "/v1/memories", None),
    ("POST", "/v1/memories", {"text": "x"}),
    ("POST", "/v1/memories/search", {"query": "x"}),
    ("DELETE", "/v1/memories?all=true", None),
    ("GET", "/v1/memories/mem_1", None),
    ("PATCH", "/v1/memories/mem_1", {"text": "x"}),
    ("DELETE", "/v1/memories/mem_1", None),
    ("POST", "/v1/meditations", None),
    ("GET", "/v1/meditations", None),
    ("GET", "/v1/meditations/med_1", None),
    ("GET", "/v1/meditations/med_1/changes", None),
    ("GET", "/v1/meditations/med_1/events", None),
    ("POST", "/v1/meditations/med_1/revert", None),
]


@pytest.mark.parametrize(("method", "path", "body"), UNNAMED)
def test_a_key_that_serves_several_people_must_name_one(app, method, path, body):
    answer = app.request(method, path, **({"json": body} if body else {}))

    assert_error(answer, 400, param="space", code="space_required")


def test_an_import_must_name_the_person(app):
    answer = app.request("POST", "/v1/memories/import", content='{"text": "x"}')

    assert_error(answer, 400, param="space", code="space_required")


@pytest.mark.parametrize("option", ["recall", "remember"])
@pytest.mark.parametrize("route", ["/v1/responses", "/v1/chat/completions"])
def test_a_turn_that_asks_for_memory_must_name_the_person(app, option, route):
    body = {"store": True, "memory": {option: True}}
    content = {"input": "hi"} if route == "/v1/responses" else {"messages": [{"role": "user", "content": "hi"}]}

    assert_error(
        app.request("POST", route, json={**content, **body}), 400, param=f"memory.{option}", code="space_required"
    )
    assert app.request("POST", route, json={**content, **body, "user": " "}).status_code == 400


def test_a_conversation_keeps_its_history_without_a_name(app, workers):
    first = by_response(app, "My cat is Tom")
    second = ok(app.request("POST", "/v1/responses", json={"input": "and you?", "previous_response_id": first}))

    assert second["usage"]["input_tokens"] > len(["and", "you?"]) + 3
    assert ok(app.request("GET", "/v1/memory_spaces"))["data"] == []


def test_a_key_with_its_owners_memory_shares_it_with_the_session_and_no_other_key(user, app, create_key, workers):
    owners = create_key(memory="owner")
    ok(owners.request("POST", "/v1/memories", json={"text": "I have a dog"}))
    by_response(user, "I have a cat")
    by_response(owners, "I have a cow")
    by_response(owners, "Bob has a pig", user="bob")
    by_response(app, "I have a hen")

    def own(caller):
        return [memory["text"] for memory in ok(caller.request("GET", "/v1/memories?speaker=user"))["data"]]

    wait_until_remembered(app)
    assert own(user) == own(owners) == ["I have a cow", "I have a cat"]
    assert "I have a dog" in str(ok(user.request("GET", "/v1/memories"))["data"])
    assert texts(user, "bob")[-1] == "Bob has a pig"
    assert "hen" not in str(ok(user.request("GET", "/v1/memories"))["data"])


@pytest.mark.parametrize("name", ["", "x" * 513])
def test_a_name_has_up_to_512_characters(app, name):
    assert_error(app.request("GET", "/v1/memories", params={"space": name}), 400, param="space")
    assert_error(app.request("POST", "/v1/memories", json={"text": "x", "space": name}), 400, param="space")
    memory = {"space": name}
    assert_error(app.request("POST", "/v1/responses", json={"input": "x", "memory": memory}), 400, param="memory.space")
