"""`/v1/conversations`: where turns go on."""

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from models import conversations
from models.conversations import Conversation
from models.errors import NotFound
from models.ids import new_id
from web import bodies
from web.answers import json_answer, page
from web.routing import Call
from web.turns import InputMessage, Metadata, input_items
from web.validation import Body, Query, parse_query


class CreateConversation(Body):
    """The body of `POST /v1/conversations`."""

    metadata: Metadata | None = None
    items: Annotated[list[InputMessage], Field(max_length=20)] | None = None


class Items(Query):
    """The query of `GET /v1/conversations/{id}/items`."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: list[str] | str | None = None


def create(call: Call) -> Response:
    """`POST /v1/conversations`."""
    body = bodies.parse(call.body or b"{}", CreateConversation)
    with call.platform.database.transaction() as connection:
        made = conversations.create(connection, new_id("conv"), call.caller.account_id, body.metadata or {})
        conversations.add_items(connection, made.id, input_items(body.items) if body.items else [])
    return json_answer(_object(made))


def retrieve(call: Call) -> Response:
    """`GET /v1/conversations/{id}`."""
    return json_answer(_object(_read(call)))


def delete(call: Call) -> Response:
    """`DELETE /v1/conversations/{id}`: its items go, its responses stay."""
    conversation = _read(call)
    with call.platform.database.connection() as connection:
        conversations.delete(connection, conversation.id, call.caller.account_id)
    return json_answer({"id": conversation.id, "object": "conversation.deleted", "deleted": True})


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
    return json_answer(page(found[: query.limit], has_more=len(found) > query.limit))


def _read(call: Call) -> Conversation:
    conversation_id = call.path["conversation_id"]
    with call.platform.database.connection() as connection:
        found = conversations.read(connection, conversation_id, call.caller.account_id)
    if found is None:
        raise NotFound(f"Conversation with id '{conversation_id}' not found.", param="conversation_id")
    return found


def _object(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
    }
