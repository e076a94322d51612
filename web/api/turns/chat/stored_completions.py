"""`/v1/chat/completions`: list, read, change and delete the chat completions that were created with `store`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from starlette.datastructures import QueryParams
from starlette.responses import Response as HttpResponse
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.platform.errors import NotFound
from models.platform.texts import truncate
from models.turns import stored_completions
from models.turns.responses import Response
from models.turns.stored_completions import CompletionFilter
from pipelines.chat.deletion import delete_response
from pipelines.chat.response_objects import response_object
from pipelines.requests.chat.completion_object import (
    TOOL_CALLS,
    ChatCompletion,
    CustomToolCallObject,
    ToolCallObject,
    completion_id,
    completion_object,
    tool_call_object,
)
from pipelines.requests.turn_request import Metadata
from pipelines.requests.validation import RequestBody
from web.api.request import Request
from web.api.turns.request_body import parse_body
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response, page_object

#: A query parameter that names a pair of metadata: `metadata[key]`.
METADATA_PARAMETER = re.compile(r"metadata\[(.*)\]", re.DOTALL)

Order = Annotated[Literal["asc", "desc"], Field(description="By the time of creation.")]


class ListCompletions(Listing):
    """The query of `GET /v1/chat/completions`. A pair of metadata is given as `metadata[key]=value`."""

    model: str | None = Field(None, max_length=256)
    metadata: Metadata | None = None
    order: Order = "asc"


class ListMessages(Listing):
    """The query of `GET /v1/chat/completions/{id}/messages`."""

    order: Order = "asc"


class UpdateCompletion(RequestBody):
    """The body of `POST /v1/chat/completions/{id}`."""

    metadata: Metadata | None


class CompletionDeleted(TypedDict):
    """A deleted chat completion."""

    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]


class StoredMessage(TypedDict):
    """A message of the request of a stored completion."""

    id: str
    role: str
    content: str | None
    content_parts: None
    refusal: None
    tool_calls: NotRequired[list[ToolCallObject | CustomToolCallObject]]
    tool_call_id: NotRequired[str]


def list_completions(request: Request) -> HttpResponse:
    """`GET /v1/chat/completions`: list the stored chat completions."""
    query = _parse_list(request.query)
    filter_ = CompletionFilter(
        query.order, None if query.after is None else _response_id(query.after), query.model, query.metadata or {}
    )
    with request.platform.database.connection() as connection:
        completions = stored_completions.list_completions(
            connection, Access.own(request.caller), filter_, query.fetch_limit
        )
    return page_response(completions, query.limit, lambda response: _object(request, response))


def retrieve(request: Request) -> HttpResponse:
    """`GET /v1/chat/completions/{id}`: read a stored chat completion."""
    return json_response(_object(request, _read(request)))


def update(request: Request) -> HttpResponse:
    """`POST /v1/chat/completions/{id}`: replace the metadata of a stored chat completion."""
    body = parse_body(request, UpdateCompletion)
    response, access = _read(request), Access.own(request.caller)
    with request.platform.database.connection() as connection:
        stored_completions.update_metadata(connection, response, access, body.metadata or {})
    return json_response(_object(request, _read(request)))


def delete(request: Request) -> HttpResponse:
    """`DELETE /v1/chat/completions/{id}`: delete a stored chat completion with its journal and its memories."""
    response = _read(request)
    delete_response(request.platform.database, response)
    request.platform.queue.forget_journal(response.job_id)
    deleted: CompletionDeleted = {
        "id": completion_id(response.id), "object": "chat.completion.deleted", "deleted": True
    }  # fmt: skip
    return json_response(deleted)


def list_messages(request: Request) -> HttpResponse:
    """`GET /v1/chat/completions/{id}/messages`: list the messages of the request of a stored chat completion."""
    query = parse_query(request.query, ListMessages)
    response = _read(request)
    messages = _messages(completion_id(response.id), response.input)
    ordered = messages if query.order == "asc" else messages[::-1]
    ids = [message["id"] for message in ordered]
    if query.after is not None and query.after not in ids:
        raise NotFound(f"Message with id '{truncate(query.after)}' not found.", param="after")
    rest = ordered if query.after is None else ordered[ids.index(query.after) + 1 :]
    return json_response(page_object(rest[: query.limit], has_more=len(rest) > query.limit))


def _parse_list(query: QueryParams) -> ListCompletions:
    """Parse the query of the list. Raises InvalidRequest."""
    pairs = [(METADATA_PARAMETER.fullmatch(name), name, value) for name, value in query.multi_items()]
    others = parse_query(QueryParams([(name, value) for match, name, value in pairs if not match]), ListCompletions)
    metadata = {match[1]: value for match, _, value in pairs if match}
    return others.model_copy(update={"metadata": metadata})


def _object(request: Request, response: Response) -> ChatCompletion:
    return completion_object([response_object(response)], request.platform.serving.latest().models)


def _read(request: Request) -> Response:
    """Read the completion that the path names. Raises NotFound."""
    name = request.path_params["completion_id"]
    with request.platform.database.connection() as connection:
        response = stored_completions.read(connection, _response_id(name), Access.own(request.caller))
    if response is None:
        raise NotFound(f"Chat completion with id '{truncate(name)}' not found.", param="completion_id")
    return response


def _response_id(name: str) -> str:
    """Convert the id of a completion to the id of its response; any other text to an empty id, which does not exist."""
    return "resp_" + name.removeprefix("chatcmpl-") if name.startswith("chatcmpl-") else ""


def _messages(completion: str, items: Sequence[Mapping[str, Any]]) -> list[StoredMessage]:
    """Convert the input items of a turn to messages. Calls belong to the message of the assistant before them."""
    messages: list[StoredMessage] = []
    for item in items:
        if item["type"] in TOOL_CALLS and messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(tool_call_object(item))
        else:
            messages.append(_message(f"{completion}-{len(messages)}", item))
    return messages


def _message(message_id: str, item: Mapping[str, Any]) -> StoredMessage:
    message: StoredMessage = {
        "id": message_id, "role": item.get("role", "tool"), "content": None, "content_parts": None, "refusal": None
    }  # fmt: skip
    if item["type"] == "message":
        message["content"] = "".join(_texts(item["content"]))
    elif item["type"] in TOOL_CALLS:
        message["role"] = "assistant"
        message["tool_calls"] = [tool_call_object(item)]
    else:
        message["content"] = "".join(_texts(item.get("output", "")))
        message["tool_call_id"] = item.get("call_id", "")
    return message


def _texts(content: str | Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the texts of a content: a text, or a list of parts."""
    if isinstance(content, str):
        yield content
        return
    for part in content:
        yield part.get("text") or part.get("refusal") or ""
