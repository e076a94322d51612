"""`/v1/conversations`: create, read, update and delete conversations and their items."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.platform.database import Connection
from models.platform.errors import InvalidRequest, NotFound
from models.platform.texts import truncate
from models.turns import conversations
from models.turns.conversations import Conversation
from pipelines.chat.deletion import delete_conversation
from pipelines.chat.input_files import find_files, has_files
from pipelines.chat.response_objects import public_item
from pipelines.chat.thread import ITEM_ID_PREFIXES, resolve_references
from pipelines.requests.input_items import Item, stored_items
from pipelines.requests.turn_request import Include, Metadata
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.api.turns.request_body import parse_body
from web.api.turns.responses import IncludeQuery
from web.api.turns.started_turn import require_file_readers
from web.http.queries import RequestQuery, parse_query
from web.http.responses import json_response, page_object

#: Items that one request may add, as in OpenAI's API.
MAX_NEW_ITEMS = 20


class CreateConversation(RequestBody):
    """The body of `POST /v1/conversations`."""

    metadata: Metadata | None = None
    items: Annotated[list[Item], Field(max_length=MAX_NEW_ITEMS)] | None = None


class UpdateConversation(RequestBody):
    """The body of `POST /v1/conversations/{id}`. `metadata: null` removes all metadata."""

    metadata: Metadata | None


class AddItems(RequestBody):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_NEW_ITEMS)]
    include: Include | None = None


class ListItems(RequestQuery):
    """The query of `GET /v1/conversations/{id}/items`."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: IncludeQuery | None = None


class ItemQuery(RequestQuery):
    """The query of requests for one item."""

    include: IncludeQuery | None = None


class ConversationObject(TypedDict):
    """A conversation. `created_at` is in Unix seconds."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(TypedDict):
    """A deleted conversation."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


def create(request: Request) -> Response:
    """`POST /v1/conversations`: create a conversation, optionally with items."""
    body = parse_body(request, CreateConversation, default=b"{}")
    conversation_id, caller, access = request.new_id("conv"), request.caller, Access.own(request.caller)
    with request.platform.database.transaction() as connection:
        if request.repeat != "first" and (conversation := conversations.read(connection, conversation_id, access)):
            return json_response(_conversation_object(conversation))
        conversation = conversations.create(
            connection, conversation_id, caller.account_id, caller.user_id, body.metadata or {}
        )
        conversations.add_items(connection, conversation.id, _new_items(request, connection, body.items or []))
    return json_response(_conversation_object(conversation))


def retrieve(request: Request) -> Response:
    """`GET /v1/conversations/{id}`: read a conversation."""
    return json_response(_conversation_object(_read(request)))


def update(request: Request) -> Response:
    """`POST /v1/conversations/{id}`: replace a conversation's metadata."""
    body = parse_body(request, UpdateConversation)
    with request.platform.database.connection() as connection:
        conversation = conversations.update(
            connection, _conversation_id(request), Access.own(request.caller), body.metadata or {}
        )
    if conversation is None:
        raise _not_found(request)
    return json_response(_conversation_object(conversation))


def delete(request: Request) -> Response:
    """`DELETE /v1/conversations/{id}`: delete a conversation with its items and their memories.

    Its responses are kept, and a running one continues without a conversation.
    """
    if not delete_conversation(request.platform.database, _conversation_id(request), Access.own(request.caller)):
        raise _not_found(request)
    request.platform.queue.nudge(request.caller.account_id)
    deleted: ConversationDeleted = {"id": _conversation_id(request), "object": "conversation.deleted", "deleted": True}
    return json_response(deleted)


def list_items(request: Request) -> Response:
    """`GET /v1/conversations/{id}/items`: list a conversation's items."""
    query = parse_query(request.query, ListItems)
    conversation = _read(request)
    with request.platform.database.connection() as connection:
        items = conversations.page(
            connection,
            conversation.id,
            request.caller.account_id,
            after=query.after,
            limit=query.limit + 1,
            ascending=query.order == "asc",
        )
    if items is None:
        raise InvalidRequest(
            f"Invalid value for 'after': item with id '{truncate(str(query.after))}' not found.",
            param="after",
            code="item_not_found",
        )
    page = [public_item(item) for item in items[: query.limit]]
    return json_response(page_object(page, has_more=len(items) > query.limit))


def add_items(request: Request) -> Response:
    """`POST /v1/conversations/{id}/items`: append items to a conversation."""
    parse_query(request.query, ItemQuery)
    body = parse_body(request, AddItems)
    with request.platform.database.transaction() as connection:
        if not conversations.lock(connection, _conversation_id(request), Access.own(request.caller)):
            raise _not_found(request)
        new_items = _new_items(request, connection, body.items)
        if request.repeat == "answered":
            new_items = _still_existing(request, connection, new_items)
        else:
            conversations.add_items(connection, _conversation_id(request), new_items)
    return json_response(page_object([public_item(item) for item in new_items]))


def retrieve_item(request: Request) -> Response:
    """`GET /v1/conversations/{id}/items/{item_id}`: read an item."""
    parse_query(request.query, ItemQuery)
    conversation, item_id = _read(request), request.path_params["item_id"]
    with request.platform.database.connection() as connection:
        item = conversations.read_item(connection, conversation.id, request.caller.account_id, item_id)
    if item is None:
        raise _item_not_found(item_id)
    return json_response(public_item(item))


def delete_item(request: Request) -> Response:
    """`DELETE /v1/conversations/{id}/items/{item_id}`: delete an item; returns the conversation."""
    conversation, item_id = _read(request), request.path_params["item_id"]
    with request.platform.database.connection() as connection:
        if not conversations.delete_item(connection, conversation.id, request.caller.account_id, item_id):
            raise _item_not_found(item_id)
    return json_response(_conversation_object(conversation))


def _new_items(request: Request, connection: Connection, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Convert new items to stored items with new ids."""
    resolved = resolve_references(connection, Access.own(request.caller), stored_items(items, "items"), "items")
    if has_files(resolved):
        require_file_readers(request)
    found = find_files(connection, request.caller, resolved)
    return [{**item, "id": request.new_id(ITEM_ID_PREFIXES[item["type"]])} for item in found]


def _still_existing(request: Request, connection: Connection, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those items of a repeated request that were not deleted."""
    place = _conversation_id(request), request.caller.account_id
    stored = (conversations.read_item(connection, *place, item["id"]) for item in items)
    return [item for item in stored if item is not None]


def _conversation_id(request: Request) -> str:
    return request.path_params["conversation_id"]


def _read(request: Request) -> Conversation:
    with request.platform.database.connection() as connection:
        conversation = conversations.read(connection, _conversation_id(request), Access.own(request.caller))
    if conversation is None:
        raise _not_found(request)
    return conversation


def _not_found(request: Request) -> NotFound:
    return NotFound(f"Conversation with id '{truncate(_conversation_id(request))}' not found.", param="conversation_id")


def _item_not_found(item_id: str) -> NotFound:
    return NotFound(f"Item with id '{truncate(item_id)}' not found.", param="item_id")


def _conversation_object(conversation: Conversation) -> ConversationObject:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
    }
