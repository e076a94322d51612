"""Two people behind one API key: neither recalls, reads or changes the memories of the other, over every route."""

import copy
import json

import pytest

from bench.harness.waiting import wait_until
from models.memory import spaces
from models.memory.spaces import SpaceKey
from tests.web.api_client import assert_error
from tests.web.worker_process import run_worker

STATEMENT, QUESTION = "I am allergic to {}, by the way.", "Which food am I allergic to?"

#: A statement of each person.
FOODS = {"alice": "peanuts", "bob": "celery"}

MAKE_DUE = """
UPDATE jobs SET state = 'queued', run_at = now()
WHERE account_id = %s AND kind = 'memory.remember' AND state = 'scheduled'
"""

RUNNABLE = "SELECT count(*) AS count FROM jobs WHERE account_id = %s AND state IN ('queued', 'running')"

UNREMEMBERED = "SELECT count(*) AS count FROM responses WHERE account_id = %s AND unremembered"

BOTH_WAYS = pytest.mark.parametrize(("person", "other"), [("alice", "bob"), ("bob", "alice")])

#: How a request names the end user.
NAMINGS = {
    "user": lambda name: {"user": name},
    "safety_identifier": lambda name: {"safety_identifier": name},
    "memory.space": lambda name: {"memory": {"space": name}},
}


@pytest.fixture(scope="module")
def workers(settings, tmp_path_factory):
    """A worker process of the pools that answer, search and remember."""
    with run_worker(settings, ["inference", "memory", "recall"], tmp_path_factory.mktemp("spaces"), "tokens=3,rate=0"):
        yield


@pytest.fixture
def create_key(user):
    """`create_key(memory=…)` → the user's application: requests are sent with a new API key."""

    def create_key(**fields):
        created = user.request("POST", "/v1/api_keys", json={"name": "app", **fields})
        assert created.status_code == 201, created.text
        app = copy.copy(user)
        app.token = created.json()["key"]
        return app

    return create_key


@pytest.fixture
def app(create_key, database):
    """An application with an API key that serves several people."""
    app = create_key()
    yield app
    with database.connection() as connection:  # deleting the account must not deadlock with the end of a job
        wait_until(lambda: not connection.execute(RUNNABLE, (app.caller.account_id,)).fetchone()["count"])


def ok(answer):
    assert answer.status_code < 300, answer.text
    return answer.json()


def texts(app, name, **query):
    """List the texts of an end user's memories."""
    return [
        memory["text"] for memory in ok(app.request("GET", "/v1/memories", params={"space": name, **query}))["data"]
    ]


def write(app, name, text, **fields):
    (memory,) = ok(app.request("POST", "/v1/memories", json={"space": name, "text": text, **fields}))["data"]
    return memory


def remember_now(app):
    """Run the jobs that remember turns, which a scheduler would start later. Returns whether any turn is left."""
    with app.database.connection() as connection:
        connection.execute(MAKE_DUE, (app.caller.account_id,))
        left = connection.execute(UNREMEMBERED, (app.caller.account_id,)).fetchone()["count"]
    app.client.app.state.platform.queue.nudge(app.caller.account_id)
    return bool(left)


def wait_until_remembered(app):
    wait_until(lambda: not remember_now(app))


@pytest.fixture
def person_memories(app, workers):
    """A memory of each person, by their name."""
    return {name: write(app, name, STATEMENT.format(food), speaker="user") for name, food in FOODS.items()}


def by_response(app, text, **body):
    return ok(app.request("POST", "/v1/responses", json={"input": text, **body}))["id"]


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


@BOTH_WAYS
def test_lists_and_searches_have_the_memories_of_one_person(app, person_memories, person, other):
    assert texts(app, person) == [person_memories[person]["text"]]
    assert texts(app, person, include_closed=True) == [person_memories[person]["text"]]
    query = {"query": "peanuts celery allergic", "include_neighbours": True}
    hits = ok(app.request("POST", "/v1/memories/search", json={**query, "space": person}))["data"]
    assert [hit["id"] for hit in hits] == [person_memories[person]["id"]]
    assert FOODS[other] not in json.dumps(hits)
    assert ok(app.request("POST", "/v1/memories/search", json={**query, "space": "carol"}))["data"] == []


@BOTH_WAYS
@pytest.mark.parametrize(
    ("method", "body"),
    [("GET", None), ("PATCH", {"importance": 1.0}), ("PATCH", {"text": "overwritten"}), ("DELETE", None)],
)
def test_a_memory_is_not_found_in_the_space_of_another_person(app, person_memories, method, body, person, other):
    path = f"/v1/memories/{person_memories[other]['id']}"
    options = {"json": body} if body else {}

    for name in (person, "carol", other.upper()):
        assert_error(app.request(method, path, params={"space": name}, **options), 404, param="memory_id")
    assert texts(app, other) == [person_memories[other]["text"]]
    assert app.request(method, path, params={"space": other}, **options).status_code == 200


@BOTH_WAYS
def test_deleting_all_of_one_person_deletes_their_space_and_nothing_else(app, person_memories, database, person, other):
    deleted = ok(app.request("DELETE", "/v1/memories", params={"all": True, "space": person}))

    assert deleted["deleted"] == 1
    assert texts(app, other) == [person_memories[other]["text"]]
    assert [space["id"] for space in ok(app.request("GET", "/v1/memory_spaces"))["data"]] == [other]
    with database.connection() as connection:
        assert spaces.find(connection, SpaceKey(app.caller.account_id, app.caller.user_id, person)) is None


@BOTH_WAYS
def test_deleting_a_conversation_of_one_person_keeps_that_of_the_other(app, workers, person, other):
    for name in FOODS:
        write(app, name, f"{name} spoke", conversation_id="talk")

    query = {"conversation_id": "talk", "space": person}
    assert ok(app.request("DELETE", "/v1/memories", params=query))["deleted"] == 1

    assert (texts(app, person), texts(app, other)) == ([], [f"{other} spoke"])


def test_deleting_a_response_deletes_its_memories_from_the_space_of_its_person(app, person_memories):
    response_id = by_response(app, "I moved to Porto", user="alice")
    wait_until_remembered(app)
    assert "I moved to Porto" in texts(app, "alice")

    ok(app.request("DELETE", f"/v1/responses/{response_id}"))

    assert texts(app, "alice") == [person_memories["alice"]["text"]]


def test_deleting_a_conversation_object_deletes_the_memories_of_everyone_in_it(app, workers):
    conversation = ok(app.request("POST", "/v1/conversations", json={}))["id"]
    for name in FOODS:
        by_response(app, f"{name} spoke", user=name, conversation=conversation)
    wait_until_remembered(app)
    assert all(texts(app, name) for name in FOODS)

    ok(app.request("DELETE", f"/v1/conversations/{conversation}"))

    wait_until(lambda: not any(texts(app, name) for name in FOODS))


def test_an_import_goes_into_the_named_space(app, person_memories):
    lines = "\n".join(json.dumps({"text": f"fact {number}"}) for number in range(3))
    job = ok(app.request("POST", "/v1/memories/import", params={"space": "alice"}, content=lines))
    wait_until(lambda: ok(app.request("GET", f"/v1/jobs/{job['id']}"))["state"] == "completed")

    assert len(texts(app, "alice")) == 4
    assert texts(app, "bob") == [person_memories["bob"]["text"]]


@BOTH_WAYS
def test_a_meditation_consolidates_the_space_of_one_person(app, workers, person, other):
    for name in FOODS:
        for _ in range(2):
            write(app, name, f"{name} owns a red bicycle with two baskets", speaker="user")

    created = ok(app.request("POST", "/v1/meditations", params={"space": person}))
    path = f"/v1/meditations/{created['id']}"
    ended = wait_until(
        lambda: (read := ok(app.request("GET", path, params={"space": person})))["outcome"] and read, timeout=30
    )

    assert (ended["space"], ended["outcome"], ended["report"]["merged"]) == (person, "applied", 1)
    assert (len(texts(app, person)), len(texts(app, other))) == (1, 2)
    for suffix, method in (("", "GET"), ("/changes", "GET"), ("/events", "GET"), ("/revert", "POST")):
        assert_error(app.request(method, path + suffix, params={"space": other}), 404, param="meditation_id")
    assert ok(app.request("GET", "/v1/meditations", params={"space": other}))["data"] == []
    (listed,) = ok(app.request("GET", "/v1/meditations", params={"space": person}))["data"]
    assert listed["id"] == created["id"]
    assert len(ok(app.request("GET", f"{path}/changes", params={"space": person}))["data"]) == 1
    ok(app.request("POST", f"{path}/revert", params={"space": person}))
    assert len(texts(app, person)) == 2


def test_a_schedule_shows_and_keeps_the_space_of_its_work(app):
    trigger = {"type": "interval", "seconds": 86_400}

    def create(**work):
        body = {"name": "s", "trigger": trigger, "work": work, "paused": True}
        return app.request("POST", "/v1/schedules", json=body)

    assert ok(create(kind="meditation", space="alice"))["work"]["space"] == "alice"
    assert ok(create(kind="turn", request={"input": "hi", "user": "alice"}))["work"]["request"]["user"] == "alice"
    assert_error(create(kind="meditation"), 400, param="work.space", code="space_required")
    assert_error(create(kind="turn", space="alice", request={"input": "hi"}), 400, param="work.space")
    asked = {"input": "hi", "memory": {"recall": True}}
    assert_error(create(kind="turn", request=asked), 400, param="work.request.memory.recall", code="space_required")


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


def test_end_users_of_another_member_or_account_are_not_accessible(person_memories, app, other_user, principals):
    assert texts(other_user, "alice") == []
    assert_error(
        other_user.request("GET", f"/v1/memories/{person_memories['alice']['id']}", params={"space": "alice"}), 404
    )
    for name in ("admin", "member"):
        assert ok(principals.request(name, "GET", "/v1/memory_spaces"))["data"] == []


def test_spaces_are_listed_in_pages_by_name(app, database):
    with database.connection() as connection:
        for name in ("zoe", "Émile", "a" * 512):
            spaces.find_or_create(connection, SpaceKey(app.caller.account_id, app.caller.user_id, name))
        spaces.find_or_create(connection, SpaceKey(app.caller.account_id, app.caller.user_id))

    listed, after = [], ""
    while True:
        page = ok(app.request("GET", "/v1/memory_spaces", params={"limit": 1, "after": after}))
        listed += [space["id"] for space in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]

    assert sorted(listed) == sorted(["zoe", "Émile", "a" * 512])


@pytest.mark.parametrize("name", ["", "x" * 513])
def test_a_name_has_up_to_512_characters(app, name):
    assert_error(app.request("GET", "/v1/memories", params={"space": name}), 400, param="space")
    assert_error(app.request("POST", "/v1/memories", json={"text": "x", "space": name}), 400, param="space")
    memory = {"space": name}
    assert_error(app.request("POST", "/v1/responses", json={"input": "x", "memory": memory}), 400, param="memory.space")


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
