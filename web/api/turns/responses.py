"""`/v1/responses`: turns, as OpenAI's clients ask for them and follow them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response as Answer
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest
from models.turns.responses import Response
from pipelines.chat.deletion import delete_response
from pipelines.chat.response_objects import ResponseObject, response_object
from web.api.job_events import StreamCursor, event_frames, job_frames, resume_position
from web.api.job_results import cancel_job
from web.api.request import Request
from web.api.turns.requests import CreateResponse, IncludeValue, new_turn
from web.api.turns.running import start, wait_for_end, read_response, on_delivered
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response, page_object
from web.http.validation import RequestQuery, as_list, parse_query, truncate
from web.streams.sse import EventStream

#: Known, and about what no answer here has.
IncludeQuery = Annotated[list[IncludeValue], as_list, Field(max_length=16)]


class RetrieveResponse(StreamCursor):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = False
    include: IncludeQuery | None = None
    include_obfuscation: bool | None = None


class ListInputItems(RequestQuery):
    """The query of `GET /v1/responses/{id}/input_items`."""

    after: str | None = None
    before: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: IncludeQuery | None = None


class ResponseDeleted(TypedDict):
    """A turn is forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


async def create(request: Request) -> Answer | EventStream | DeferredResponse:
    """`POST /v1/responses`: accept a turn; answer with its stream, its present state, or its end."""
    body = bodies.parse(request.body, CreateResponse)
    turn = new_turn(body, request.platform.settings)
    begun = await start(request, turn, stream=bool(body.stream))
    response = begun.response
    if body.stream:
        told = event_frames(begun.event_batches, on_delivered=on_delivered(request, response))
        return EventStream(told, request.platform.streams, begun.headers, on_disconnect=begun.on_disconnect)
    if body.background:
        return json_response(response_object(response), headers=begun.headers)

    async def ended() -> Answer:
        return _respond(request, response, await wait_for_end(request, begun), begun.headers)

    return DeferredResponse(ended, begun.on_disconnect)


async def retrieve(request: Request) -> Answer | EventStream:
    """`GET /v1/responses/{id}`: the response as it is, or with `stream` its events from any point on."""
    query = parse_query(request.query, RetrieveResponse)
    response = await run_in_threadpool(_read, request)
    if not query.stream:
        return _respond(request, response, response_object(response))
    after = await resume_position(request, response.job_id, query)
    told = job_frames(request, response.job_id, after, on_delivered=on_delivered(request, response))
    return EventStream(told, request.platform.streams)


def cancel(request: Request) -> Answer:
    """`POST /v1/responses/{id}/cancel`: stop a turn; one that has ended stays as it is."""
    response = _read(request)
    cancel_job(request, response.job_id)
    now = _read(request)
    # What a worker has still to settle is a matter of milliseconds: the answer is what was asked for.
    return json_response(response_object(now, None if now.ended else "cancelled"))


def delete(request: Request) -> Answer:
    """`DELETE /v1/responses/{id}`: forget an ended turn, its journal and what is remembered of it."""
    response = _read(request)
    delete_response(request.platform.database, response)
    request.platform.queue.forget_journal(response.job_id)
    deleted: ResponseDeleted = {"id": response.id, "object": "response", "deleted": True}
    return json_response(deleted)


def list_input_items(request: Request) -> Answer:
    """`GET /v1/responses/{id}/input_items`."""
    query = parse_query(request.query, ListInputItems)
    items = _read(request).input
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ordered = ordered[_cursor_index(ordered, query.after, "after") + 1 :]
    if query.before is not None:
        ordered = ordered[: _cursor_index(ordered, query.before, "before")]
        return json_response(page_object(ordered[-query.limit :], has_more=len(ordered) > query.limit))
    return json_response(page_object(ordered[: query.limit], has_more=len(ordered) > query.limit))


def _cursor_index(items: Sequence[Mapping[str, Any]], item_id: str, cursor: str) -> int:
    """Where a cursor points. Raises InvalidRequest."""
    for place, item in enumerate(items):
        if item["id"] == item_id:
            return place
    raise InvalidRequest(f"Item with id '{truncate(item_id)}' not found.", param=cursor, code="item_not_found")


def _respond(
    request: Request, response: Response, shown: ResponseObject, headers: Mapping[str, str] | None = None
) -> Answer:
    """The answer with a response; one that is not stored and has ended goes once it is sent."""
    answer = json_response(shown, headers=headers)
    forget = on_delivered(request, response)
    if forget is not None and shown["status"] not in ("queued", "in_progress"):
        answer.background = BackgroundTask(forget)
    return answer


def _read(request: Request) -> Response:
    """The response that the path names."""
    return read_response(request, request.path_params["response_id"])
