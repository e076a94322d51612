"""The unmodified official client continues conversations and chains of responses."""

import time

import openai
import pytest
from openai import OpenAI
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList, Message

from tests.journeys.openai_types import assert_valid, assert_valid_model
from tests.journeys.responses import ITEMS, TEXT, wait_for_end
from tests.journeys.stack import ON_REDIS

pytestmark = ON_REDIS


def test_conversation(client: OpenAI):
    conversation = client.conversations.create(metadata={"about": "words"}, items=ITEMS[:2])
    first = client.responses.create(model="default", input="three", conversation=conversation.id)
    second = client.responses.create(model="default", input="four", conversation={"id": conversation.id})

    assert_valid_model(conversation)
    assert client.conversations.retrieve(conversation.id) == conversation
    assert isinstance(conversation, Conversation)
    assert first.conversation.id == conversation.id
    assert (first.usage.input_tokens, second.usage.input_tokens) == (2 + 2 + 1, 2 + 2 + 1 + 20 + 1)
    newest = client.conversations.items.list(conversation.id, limit=3)
    items = list(newest)
    for item in items:
        assert isinstance(item, Message)
        assert_valid_model(item)
    assert len(newest.data) == 3
    assert [item.role for item in reversed(items)] == ["developer", *["user", "user", "assistant"], "user", "assistant"]
    assert items == list(reversed(list(client.conversations.items.list(conversation.id, order="asc"))))
    deleted = client.conversations.delete(conversation.id)
    assert isinstance(deleted, ConversationDeletedResource)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    assert client.responses.retrieve(second.id).output_text == TEXT


def test_chain_of_previous_responses(client: OpenAI):
    first = client.responses.create(model="default", input="one")
    second = client.responses.create(model="default", input="two", previous_response_id=first.id)
    third = client.responses.create(model="default", input="three", previous_response_id=second.id)

    assert third.previous_response_id == second.id
    assert [turn.usage.input_tokens for turn in (first, second, third)] == [1, 1 + 20 + 1, 1 + 20 + 1 + 20 + 1]


def test_conversation_items(client: OpenAI):
    conversation = client.conversations.create()
    items = [
        *ITEMS[:2],
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "three"},
    ]

    added = client.conversations.items.create(conversation.id, items=items)

    assert_valid_model(added)
    assert isinstance(added, ConversationItemList)
    for item in added.data:
        read = client.conversations.items.retrieve(item.id, conversation_id=conversation.id)
        assert_valid_model(read)
        assert read == item
    page = client.conversations.items.with_raw_response.list(conversation.id, limit=2).http_response.json()
    assert_valid(ConversationItemList, page)
    changed = client.conversations.update(conversation.id, metadata={"topic": "sums"})
    assert_valid_model(changed)
    assert changed.metadata == {"topic": "sums"}
    after_deletion = client.conversations.items.delete(added.last_id, conversation_id=conversation.id)
    assert_valid_model(after_deletion)
    assert after_deletion == changed
    assert len(list(client.conversations.items.list(conversation.id, limit=2))) == 3
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(added.last_id, conversation_id=conversation.id)
    with pytest.raises(openai.BadRequestError) as unknown:
        client.conversations.items.list(conversation.id, after=added.last_id)
    assert unknown.value.param == "after"


def test_busy_conversation_rejects_or_interrupts(client: OpenAI):
    conversation = client.conversations.create().id
    parameters = {"model": "default", "conversation": conversation}
    with client.responses.create(**parameters, input="slowly", stream=True) as running:
        text = ""
        for event in running:
            text += event.delta if event.type == "response.output_text.delta" else ""
            if text.endswith("w4 "):
                break
        waiting = client.responses.create(**parameters, input="two", background=True)
        start = time.monotonic()
        with pytest.raises(openai.ConflictError) as busy:
            client.responses.create(**parameters, input="three", extra_body={"if_busy": "reject"})
        assert time.monotonic() - start < 2, "the client does not retry a permanent conflict"
        assert (busy.value.code, busy.value.param) == ("conversation_busy", "if_busy")

        answer = client.responses.create(**parameters, input="four", extra_body={"if_busy": "interrupt"})

    assert answer.output_text == TEXT
    assert client.responses.retrieve(waiting.id).status == "cancelled"
    items = list(client.conversations.items.list(conversation, order="asc"))
    assert [item.content[0].text for item in items] == ["slowly", "w0 w1 w2 w3 w4 ", "four", TEXT]
    assert items[1].status == "incomplete"
    assert answer.usage.input_tokens == 1 + 5 + 1


def test_response_outlives_its_conversation(client: OpenAI):
    conversation = client.conversations.create().id
    running = client.responses.create(model="default", input="slowly", conversation=conversation, background=True)

    client.conversations.delete(conversation)
    client.responses.cancel(running.id)

    response = wait_for_end(client, running.id)
    assert_valid_model(response)
    assert (response.status, response.conversation) == ("cancelled", None)
