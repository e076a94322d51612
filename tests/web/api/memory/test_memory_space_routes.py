"""The routes of memories, meditations and schedules work on the memories of one end user."""

import json

import pytest

from bench.harness.waiting import wait_until
from models.memory import spaces
from models.memory.spaces import SpaceKey
from tests.web.api.memory.people import BOTH_WAYS, FOODS, by_response, ok, texts, wait_until_remembered, write
from tests.web.api_client import assert_error


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
