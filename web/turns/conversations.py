"""`/v1/conversations`: where turns go on."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound
from models.turns import conversations
from models.turns.conversations import Conversation
from pipelines.chat.forget import forget_conversation
from pipelines.chat.place import PREFIXES, followed
from web.http import bodies
from web.http.answers import json_answer, page
from web.http.validation import Body, Query, cut, parse_query
from web.routing import Call
from web.turns.items import Item, stored
from web.turns.requests import Include, Metadata
from web.turns.responses import Included

#: Items that one request may add; OpenAI's bound.
MOST_ITEMS = 20


class CreateConversation(Body):
    """The body of `POST /v1/conversations`."""

    metadata: Metadata | None = None
    items: Annotated[list[Item], Field(max_length=MOST_ITEMS)] | None = None


class UpdateConversation(Body):
    """The body of `POST /v1/conversations/{id}`: null takes all metadata away."""

    metadata: Metadata | None


class AddItems(Body):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    include: Include | None = None


class Items(Query):
    """The query of `GET /v1/conversations/{id}/items`."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: Included | None = None


class OneItem(Query):
    """The query of requests about one item."""

    include: Included | None = None


def create(call: Call) -> Response:
    """`POST /v1/conversations`."""
    body = bodies.parse(call.body or b"{}", CreateConversation)
    conversation_id, account_id = call.new_id("conv"), call.caller.account_id
    with call.platform.database.transaction() as connection:
        if call.repeat != "first" and (found := conversations.read(connection, conversation_id, account_id)):
            return json_answer(_object(found))
        made = conversations.create(connection, conversation_id, account_id, body.metadata or {})
        conversations.add_items(connection, made.id, _made(call, connection, body.items or []))
    return json_answer(_object(made))


def retrieve(call: Call) -> Response:
    """`GET /v1/conversations/{id}`."""
    return json_answer(_object(_read(call)))


def update(call: Call) -> Response:
    """`POST /v1/conversations/{id}`: its metadata, replaced."""
    body = bodies.parse(call.body, UpdateConversation)
    with call.platform.database.connection() as connection:
        found = conversations.update(connection, _id(call), call.caller.account_id, body.metadata or {})
    if found is None:
        raise _not_found(call)
    return json_answer(_object(found))


def delete(call: Call) -> Response:
    """`DELETE /v1/conversations/{id}`: its items go, and what is remembered of them; its responses stay.

    A turn that runs in it goes on, outside.
    """
    if not forget_conversation(call.platform.database, _id(call), call.caller.account_id):
        raise _not_found(call)
    call.platform.queue.nudge()
    return json_answer({"id": _id(call), "object": "conversation.deleted", "deleted": True})


def items(call: Call) -> Response:
    """`GET /v1/conversations/{id}/items`."""
    query = parse_query(call.query, Items)
    conversation = _read(call)
    with call.platform.database.connection() as connection:
        found = conversations.page(
            connection,
            conversation.id,
            call.caller.account_id,
            after=query.after,
            limit=query.limit + 1,
            ascending=query.order == "asc",
        )
    if found is None:
        raise InvalidRequest(f"Item with id '{cut(str(query.after))}' not found.", param="after", code="item_not_found")
    return json_answer(page(found[: query.limit], has_more=len(found) > query.limit))


def add_items(call: Call) -> Response:
    """`POST /v1/conversations/{id}/items`: put items at its end."""
    parse_query(call.query, OneItem)
    body = bodies.parse(call.body, AddItems)
    with call.platform.database.transaction() as connection:
        if not conversations.hold(connection, _id(call), call.caller.account_id):
            raise _not_found(call)
        made = _made(call, connection, body.items)
        conversations.add_items(connection, _id(call), made)
    return json_answer(page(made))


def retrieve_item(call: Call) -> Response:
    """`GET /v1/conversations/{id}/items/{item_id}`."""
    parse_query(call.query, OneItem)
    conversation, item_id = _read(call), call.path["item_id"]
    with call.platform.database.connection() as connection:
        item = conversations.read_item(connection, conversation.id, call.caller.account_id, item_id)
    if item is None:
        raise _no_item(item_id)
    return json_answer(item)


def delete_item(call: Call) -> Response:
    """`DELETE /v1/conversations/{id}/items/{item_id}`: take it out; the answer is the conversation."""
    conversation, item_id = _read(call), call.path["item_id"]
    with call.platform.database.connection() as connection:
        if not conversations.delete_item(connection, conversation.id, call.caller.account_id, item_id):
            raise _no_item(item_id)
    return json_answer(_object(conversation))


def _made(call: Call, connection: Connection, given: Sequence[Item]) -> list[dict[str, Any]]:
    """The items as they are stored, with ids of their own."""
    whole = followed(connection, call.caller.account_id, stored(given), "items")
    return [{**item, "id": call.new_id(PREFIXES[item["type"]])} for item in whole]


def _id(call: Call) -> str:
    return call.path["conversation_id"]


def _read(call: Call) -> Conversation:
    with call.platform.database.connection() as connection:
        found = conversations.read(connection, _id(call), call.caller.account_id)
    if found is None:
        raise _not_found(call)
    return found


def _not_found(call: Call) -> NotFound:
    return NotFound(f"Conversation with id '{cut(_id(call))}' not found.", param="conversation_id")


def _no_item(item_id: str) -> NotFound:
    return NotFound(f"Item with id '{cut(item_id)}' not found.", param="item_id")


def _object(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
    }
