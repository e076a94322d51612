"""Given conversations, when they are made, read and deleted, then each account has its own."""

import pytest

from models.ids import new_id
from tests.web.visiting import refused


def made(visitor, **body):
    answer = visitor.request("POST", "/v1/conversations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_conversation_without_a_body_is_empty(visitor):
    answer = visitor.request("POST", "/v1/conversations")

    assert answer.status_code == 200
    items = visitor.request("GET", f"/v1/conversations/{answer.json()['id']}/items").json()
    assert (items["data"], items["has_more"], items["first_id"]) == ([], False, None)


def test_items_come_in_pages_both_ways(visitor):
    conversation = made(visitor, items=[{"role": "user", "content": str(number)} for number in range(5)])["id"]

    for order, expected in (("asc", "01234"), ("desc", "43210")):
        path = f"/v1/conversations/{conversation}/items?order={order}&limit=3"
        first = visitor.request("GET", path).json()
        second = visitor.request("GET", f"{path}&after={first['last_id']}").json()
        assert (first["has_more"], second["has_more"]) == (True, False)
        assert "".join(item["content"][0]["text"] for item in first["data"] + second["data"]) == expected


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/items")])
def test_a_strangers_conversation_looks_like_one_that_does_not_exist(visitor, stranger, method, path):
    theirs, nobodys = made(visitor)["id"], new_id("conv")

    foreign = stranger.request(method, f"/v1/conversations/{theirs}{path}")
    unknown = stranger.request(method, f"/v1/conversations/{nobodys}{path}")

    assert refused(foreign, 404, param="conversation_id") == refused(unknown, 404).replace(nobodys, theirs)
    assert visitor.request("GET", f"/v1/conversations/{theirs}").status_code == 200


def test_a_strangers_conversation_can_not_be_gone_on_with(visitor, stranger):
    theirs = made(visitor)["id"]

    refused(stranger.request("POST", "/v1/responses", json={"input": "x", "conversation": theirs}), 404)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [{"role": "user", "content": "x"}] * 21}, "items"),
        ({"items": [{"role": "user"}]}, "items[0].content"),
        ({"metadata": {"a": None}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata"),
        ({"name": "x"}, "name"),
    ],
)
def test_what_is_wrong_is_named(visitor, body, param):
    message = refused(visitor.request("POST", "/v1/conversations", json=body), 400)

    assert param in message


def test_a_deleted_conversation_is_gone_and_its_turns_stay(visitor):
    conversation = made(visitor)["id"]
    turn = visitor.ask(conversation=conversation)["id"]

    deleted = visitor.request("DELETE", f"/v1/conversations/{conversation}").json()

    assert deleted == {"id": conversation, "object": "conversation.deleted", "deleted": True}
    refused(visitor.request("GET", f"/v1/conversations/{conversation}"), 404)
    assert visitor.request("GET", f"/v1/responses/{turn}").json()["conversation"] is None
