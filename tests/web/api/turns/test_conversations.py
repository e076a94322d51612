"""`/v1/conversations`: creating, reading, updating and deleting conversations and their items."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.harness.waiting import wait_until
from models.platform.ids import new_id
from models.turns import conversations
from tests.web.api_client import assert_error


def create_conversation(user, **body):
    answer = user.request("POST", "/v1/conversations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_conversation_without_a_body_is_empty(user):
    answer = user.request("POST", "/v1/conversations")

    assert answer.status_code == 200
    items = user.request("GET", f"/v1/conversations/{answer.json()['id']}/items").json()
    assert (items["data"], items["has_more"], items["first_id"]) == ([], False, None)


def test_items_are_listed_in_pages_in_both_orders(user):
    conversation = create_conversation(user, items=[{"role": "user", "content": str(number)} for number in range(5)])[
        "id"
    ]

    for order, expected in (("asc", "01234"), ("desc", "43210")):
        path = f"/v1/conversations/{conversation}/items?order={order}&limit=3"
        first = user.request("GET", path).json()
        second = user.request("GET", f"{path}&after={first['last_id']}").json()
        assert (first["has_more"], second["has_more"]) == (True, False)
        assert "".join(item["content"][0]["text"] for item in first["data"] + second["data"]) == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/msg_1"), ("DELETE", "/items/msg_1")],
)
def test_a_conversation_of_another_account_is_not_found(user, other_user, method, path):
    foreign_id, unknown_id = create_conversation(user)["id"], new_id("conv")

    foreign = other_user.request(method, f"/v1/conversations/{foreign_id}{path}")
    unknown = other_user.request(method, f"/v1/conversations/{unknown_id}{path}")

    assert assert_error(foreign, 404, param="conversation_id") == assert_error(unknown, 404).replace(
        unknown_id, foreign_id
    )
    assert user.request("GET", f"/v1/conversations/{foreign_id}").status_code == 200


def test_a_conversation_of_another_account_cannot_be_continued(user, other_user):
    foreign_id = create_conversation(user)["id"]

    assert_error(other_user.request("POST", "/v1/responses", json={"input": "x", "conversation": foreign_id}), 404)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [{"role": "user", "content": "x"}] * 21}, "items"),
        ({"items": [{"role": "user"}]}, "items[0].content"),
        ({"metadata": {"a": None}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata"),
    ],
)
def test_invalid_input_is_rejected_by_parameter(user, body, param):
    message = assert_error(user.request("POST", "/v1/conversations", json=body), 400)

    assert param in message


def test_a_deleted_conversation_is_not_found_and_its_responses_are_kept(user):
    conversation = create_conversation(user)["id"]
    turn = user.create_response(conversation=conversation)["id"]

    deleted = user.request("DELETE", f"/v1/conversations/{conversation}").json()

    assert deleted == {"id": conversation, "object": "conversation.deleted", "deleted": True}
    assert_error(user.request("GET", f"/v1/conversations/{conversation}"), 404)
    assert user.request("GET", f"/v1/responses/{turn}").json()["conversation"] is None


def item_texts(user, conversation):
    items = user.request("GET", f"/v1/conversations/{conversation}/items?order=asc").json()["data"]
    return [item.get("output") or item["content"][0]["text"] for item in items]


def test_metadata_is_replaced(user):
    conversation = create_conversation(user, metadata={"a": "1"})
    path = f"/v1/conversations/{conversation['id']}"

    changed = user.request("POST", path, json={"metadata": {"b": "2"}})

    assert changed.json() == {**conversation, "metadata": {"b": "2"}} == user.request("GET", path).json()
    assert user.request("POST", path, json={"metadata": None}).json()["metadata"] == {}
    assert_error(user.request("POST", path, json={}), 400, param="metadata")


def test_items_are_added_read_and_deleted(user):
    path = f"/v1/conversations/{create_conversation(user)['id']}"
    new_items = [
        {"role": "user", "content": "one"},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "two"},
    ]

    added = user.request("POST", f"{path}/items", json={"items": new_items}).json()

    assert [item["type"] for item in added["data"]] == ["message", "function_call", "function_call_output"]
    assert (added["first_id"], added["last_id"], added["has_more"]) == (
        added["data"][0]["id"], added["data"][2]["id"], False)  # fmt: skip
    for item in added["data"]:
        assert user.request("GET", f"{path}/items/{item['id']}").json() == item
    deleted = user.request("DELETE", f"{path}/items/{added['first_id']}")
    assert deleted.json() == user.request("GET", path).json()
    assert_error(user.request("GET", f"{path}/items/{added['first_id']}"), 404, param="item_id")
    assert_error(user.request("DELETE", f"{path}/items/{added['first_id']}"), 404, param="item_id")


def test_an_item_is_not_found_in_another_conversation(user):
    conversation_id, other_id = (
        create_conversation(user, items=[{"role": "user", "content": "x"}])["id"],
        create_conversation(user)["id"],
    )
    (item,) = user.request("GET", f"/v1/conversations/{conversation_id}/items").json()["data"]

    assert_error(user.request("GET", f"/v1/conversations/{other_id}/items/{item['id']}"), 404, param="item_id")
    assert_error(user.request("DELETE", f"/v1/conversations/{other_id}/items/{item['id']}"), 404, param="item_id")
    after = user.request("GET", f"/v1/conversations/{other_id}/items?after={item['id']}")
    assert item["id"] in assert_error(after, 400, param="after", code="item_not_found")


def test_an_item_reference_copies_the_item(user, other_user):
    conversation_id, other_id = (
        create_conversation(user, items=[{"role": "user", "content": "earlier"}])["id"],
        create_conversation(user)["id"],
    )
    (item,) = user.request("GET", f"/v1/conversations/{conversation_id}/items").json()["data"]
    reference = {"type": "item_reference", "id": item["id"]}

    turn = user.create_response(input=[{"id": item["id"]}, {"role": "user", "content": "new"}])
    (added,) = user.request("POST", f"/v1/conversations/{other_id}/items", json={"items": [reference]}).json()["data"]

    input_items = user.request("GET", f"/v1/responses/{turn['id']}/input_items?order=asc").json()["data"]
    assert [input_item["content"][0]["text"] for input_item in input_items] == ["earlier", "new"]
    assert user.create_response(input=[{"type": "item_reference", "id": input_items[1]["id"]}]), (
        "items of responses can be referenced too"
    )
    assert added["content"] == item["content"]
    assert len({item["id"], added["id"], input_items[0]["id"]}) == 3
    assert item_texts(user, conversation_id) == item_texts(user, other_id) == ["earlier"]
    foreign = other_user.request("POST", "/v1/responses", json={"input": [reference], "background": True})
    assert_error(foreign, 400, param="input[0].id", code="item_not_found")


def test_items_added_while_a_conversation_is_deleted_are_dropped(user, database):
    conversation = create_conversation(user)["id"]
    user.create_response(conversation=conversation)
    item = {"id": new_id("msg"), "type": "message", "role": "user", "content": []}
    with ThreadPoolExecutor(1) as pool, database.connection() as connection:
        with database.transaction() as deletion:
            deletion.execute("DELETE FROM conversations WHERE id = %s", (conversation,))
            added = pool.submit(conversations.add_items, connection, conversation, [item])
            wait_until(lambda: insert_waits_for_lock(database))
        added.result(10)

    assert user.request("GET", f"/v1/conversations/{conversation}").status_code == 404


def insert_waits_for_lock(database):
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%conversation_items%'"
    with database.connection() as connection:
        return connection.execute(waiting).fetchone() is not None
