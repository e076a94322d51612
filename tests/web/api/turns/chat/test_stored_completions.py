"""Stored chat completions with OpenAI's client: list, read, change and delete them; nobody else has access."""

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import TypeAdapter

from tests.web.api_client import assert_error

POOL = "inference"

HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
TEXT = "".join(f"w{index} " for index in range(20))


@pytest.fixture
def create(client):
    """`create(…)` creates a stored completion."""

    def create(**options):
        return client.chat.completions.create(model="default", messages=HELLO, store=True, **options)

    return create


def test_a_stored_completion_is_read_as_it_was_returned(client, create, user):
    created = create(metadata={"topic": "greetings"})

    TypeAdapter(ChatCompletion).validate_python(
        user.request("GET", f"/v1/chat/completions/{created.id}").json(), strict=True
    )
    assert client.chat.completions.retrieve(created.id) == created


def test_a_streamed_completion_can_be_stored(client, create):
    chunks = list(create(stream=True))

    assert client.chat.completions.retrieve(chunks[0].id).choices[0].message.content == TEXT


def test_a_completion_that_is_not_stored_cannot_be_read(client):
    created = client.chat.completions.create(
        model="default", messages=HELLO, extra_headers={"Idempotency-Key": "kept-for-a-repeat"}
    )

    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(created.id)
    assert client.chat.completions.list().data == []


def test_a_response_is_no_completion(client):
    response = client.responses.create(model="default", input="hello")

    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(response.id.replace("resp_", "chatcmpl-"))
    assert client.chat.completions.list().data == []


def test_completions_are_listed_by_page_in_both_orders(client, create):
    created = [create().id for _ in range(3)]

    assert [completion.id for completion in client.chat.completions.list(limit=2)] == created
    page = client.chat.completions.list(limit=2, order="desc")
    assert ([completion.id for completion in page.data], page.has_more) == (created[:0:-1], True)
    assert [completion.id for completion in client.chat.completions.list(after=created[1]).data] == created[2:]


def test_completions_are_selected_by_model_and_metadata(client, create):
    red, blue = (create(metadata={"color": color, "kind": "test"}).id for color in ("red", "blue"))

    def ids(**query):
        return [completion.id for completion in client.chat.completions.list(**query).data]

    assert ids(metadata={"color": "red"}) == [red]
    assert ids(metadata={"kind": "test", "color": "blue"}) == [blue]
    assert ids(metadata={"color": "green"}) == []
    assert ids(model="scripted") == [red, blue]
    assert ids(model="another") == []


def test_the_metadata_can_be_replaced(client, create):
    created = create(metadata={"color": "red"})

    updated = client.chat.completions.update(created.id, metadata={"size": "small"})

    assert updated.metadata == {"size": "small"}
    assert client.chat.completions.retrieve(created.id).metadata == {"size": "small"}


def test_a_deleted_completion_is_gone(client, create, user):
    created = create()

    deleted = client.chat.completions.delete(created.id)

    assert (deleted.id, deleted.deleted, deleted.object) == (created.id, True, "chat.completion.deleted")
    assert_error(user.request("GET", f"/v1/chat/completions/{created.id}"), 404, param="completion_id")
    assert_error(user.request("GET", f"/v1/responses/{created.id.replace('chatcmpl-', 'resp_')}"), 404)


def test_the_messages_are_those_of_the_request(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": "One moment.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "nothing"},
    ]
    created = client.chat.completions.create(model="default", messages=messages, store=True)

    stored = client.chat.completions.messages.list(created.id).data

    assert [(message.role, message.content) for message in stored] == [
        ("system", "Be brief."), ("user", "hello"), ("assistant", "One moment."), ("tool", "nothing"),
    ]  # fmt: skip
    assert stored[2].tool_calls[0].function.name == "look"
    assert len({message.id for message in stored}) == 4
    # And they are listed by page
    assert [message.id for message in client.chat.completions.messages.list(created.id, limit=1)] == [
        message.id for message in stored
    ]
    last_first = client.chat.completions.messages.list(created.id, order="desc", limit=1)
    assert last_first.data[0].role == "tool"


def test_other_people_have_no_access(client, create, other_user):
    created = create()
    other = OpenAI(base_url=client.base_url, api_key=other_user.token, max_retries=0)

    for attempt in (
        lambda: other.chat.completions.retrieve(created.id),
        lambda: other.chat.completions.update(created.id, metadata={"a": "b"}),
        lambda: other.chat.completions.delete(created.id),
        lambda: other.chat.completions.messages.list(created.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert other.chat.completions.list().data == []
    assert client.chat.completions.retrieve(created.id) == created
