"""Turns recall and are remembered for the end user whom their request names."""

import json

import pytest

from bench.harness.waiting import wait_until
from tests.web.api.memory.people import BOTH_WAYS, QUESTION, STATEMENT, by_response, ok, texts, wait_until_remembered
from tests.web.api_client import assert_error

#: How a request names the end user.
NAMINGS = {
    "user": lambda name: {"user": name},
    "safety_identifier": lambda name: {"safety_identifier": name},
    "memory.space": lambda name: {"memory": {"space": name}},
}


def by_stream(app, text, **body):
    answer = app.request("POST", "/v1/responses", json={"input": text, "stream": True, **body})
    assert "response.completed" in answer.text
    return answer.headers["x-sangha-response-id"]


def by_conversation(app, text, **body):
    conversation = ok(app.request("POST", "/v1/conversations", json={}))["id"]
    return by_response(app, text, conversation=conversation, **body)


def by_chain(app, text, **body):
    """Continue a response of nobody."""
    return by_response(app, text, previous_response_id=by_response(app, "Hello!"), **body)


def by_chat(app, text, **body):
    completion = {"messages": [{"role": "user", "content": text}], "store": True, **body}
    answer = app.request("POST", "/v1/chat/completions", json=completion)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-sangha-response-id"]


def by_chat_stream(app, text, **body):
    return by_chat(app, text, stream=True, **body)


ROUTES = [by_response, by_stream, by_conversation, by_chain, by_chat, by_chat_stream]


def recalled(app, response_id):
    """Return the texts of the memories in a turn's prompt, once it has ended."""
    path = f"/v1/responses/{response_id}"
    response = wait_until(lambda: (read := ok(app.request("GET", path)))["status"] == "completed" and read)
    return [memory["text"] for memory in response["recalled"]]


@BOTH_WAYS
@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("send", ROUTES)
def test_a_turn_recalls_the_memories_of_its_own_person(app, person_memories, send, naming, person, other):
    name, statements = NAMINGS[naming], {each: memory["text"] for each, memory in person_memories.items()}

    # The first recall loads the embedder, which may take longer than its time limit.
    wait_until(lambda: recalled(app, send(app, QUESTION, **name(person))) == [statements[person]])

    assert recalled(app, send(app, QUESTION, **name(other))) == [statements[other]]
    assert recalled(app, send(app, QUESTION, **name("carol"))) == []
    assert recalled(app, send(app, QUESTION)) == []


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("send", ROUTES)
def test_a_turn_is_remembered_for_its_own_person(app, workers, send, naming):
    name = NAMINGS[naming]
    send(app, STATEMENT.format("nothing"))
    send(app, STATEMENT.format("peanuts"), **name("alice"))
    send(app, STATEMENT.format("celery"), **name("bob"))

    wait_until_remembered(app)

    assert STATEMENT.format("peanuts") in texts(app, "alice")
    assert STATEMENT.format("celery") in texts(app, "bob")
    listed = ok(app.request("GET", "/v1/memory_spaces"))["data"]
    assert [(space["id"], space["memories"]) for space in listed] == [("alice", 2), ("bob", 2)]


def test_a_chain_of_several_people_is_remembered_turn_by_turn(app, workers):
    first = by_response(app, STATEMENT.format("peanuts"), user="alice")
    by_response(app, STATEMENT.format("celery"), user="bob", previous_response_id=first)

    wait_until_remembered(app)

    assert "peanuts" not in str(texts(app, "bob"))
    assert "celery" not in str(texts(app, "alice"))


def test_memory_space_wins_over_safety_identifier_and_that_over_user(app, workers):
    names = {"user": "u", "safety_identifier": "s"}
    by_response(app, "one", **names, memory={"space": "m"})
    by_response(app, "two", **names)
    by_response(app, "three", user="u", safety_identifier="")

    wait_until_remembered(app)

    assert [texts(app, name)[-1] for name in "msu"] == ["one", "two", "three"]


@BOTH_WAYS
def test_recalled_texts_are_those_of_the_turns_own_space(app, person_memories, database, person, other):
    # Given a response that names a memory of another space
    response_id = by_response(app, QUESTION, user=person, memory={"recall": False})
    reference = json.dumps([{"id": person_memories[other]["id"], "kind": "episode", "score": 1.0}])
    with database.connection() as connection:
        connection.execute("UPDATE responses SET recalled = %s WHERE id = %s", (reference, response_id))
    # Then its text is not shown
    assert [memory["text"] for memory in ok(app.request("GET", f"/v1/responses/{response_id}"))["recalled"]] == [None]


def test_turns_of_further_people_are_not_remembered_beyond_the_accounts_limit(app, person_memories, database):
    with database.connection() as connection:
        limits = '{"memory_spaces": 2}'
        connection.execute("UPDATE accounts SET limits = %s WHERE id = %s", (limits, app.caller.account_id))

    answer = app.request("POST", "/v1/memories", json={"space": "carol", "text": "hello"})
    assert_error(answer, 429, code="memory_spaces_exceeded")
    by_response(app, "I am Carol", user="carol")
    by_response(app, "I have a dog", user="alice")

    wait_until_remembered(app)
    assert "I have a dog" in texts(app, "alice")
    assert [space["id"] for space in ok(app.request("GET", "/v1/memory_spaces"))["data"]] == ["alice", "bob"]
    assert ok(app.request("GET", "/v1/account"))["limits"]["memory_spaces"] == 2
