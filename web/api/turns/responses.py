"""`/v1/responses`: create, read, stream, cancel and delete responses, in the format of OpenAI's API."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field
from starlette.background import BackgroundTask
from starlette.responses import Response as HttpResponse
from typing_extensions import TypedDict

from models.accounts.ownership import Access
from models.jobs import jobs
from models.jobs.jobs import Job
from models.platform.errors import InvalidRequest, NotFound
from models.platform.texts import truncate
from models.turns.responses import Response
from pipelines.chat.deletion import delete_response
from pipelines.chat.response_objects import public_item, response_object
from pipelines.chat.response_types import ResponseObject
from pipelines.requests.turn_request import CreateResponse, IncludeValue, new_turn
from web.api.job_events import StreamCursor, requested_position, resume_position, tree_frames
from web.api.job_results import cancel_job
from web.api.request import Request
from web.api.turns.conversion import convert
from web.api.turns.disconnects import keep_turn
from web.api.turns.request_body import read_body
from web.api.turns.response_stream import response_frames, standard_events, wants_all_events
from web.api.turns.started_turn import on_delivered, read_complete, read_response, start, wait_for_end
from web.api.turns.waiting import with_waiting
from web.http.disconnects import DeferredResponse
from web.http.queries import RequestQuery, as_list, parse_query
from web.http.responses import json_response, page_object
from web.http.threads import run_in_thread
from web.streams.sse import EventStream
from web.streams.waiting import Wait, as_comment, as_event, as_tree_event

#: Values of OpenAI's `include`, accepted without effect.
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
    """A deleted response."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


async def create(request: Request) -> HttpResponse | EventStream | DeferredResponse:
    """`POST /v1/responses`: create a response.

    With `stream` its events are streamed, with `background` the queued response is returned at once. Otherwise the
    request waits for the end of the response, at most 540 seconds.
    """
    body = await read_body(request, CreateResponse, requires_model=True)
    all_events = wants_all_events(request)
    turn = await convert(request, new_turn, body)
    started = await start(request, turn, stream=bool(body.stream))
    response = started.response
    if body.stream:
        is_new = bool(started.accepted.opening_events)  # otherwise an earlier request has created it
        standard = None if all_events else await standard_events(request, response, may_have_restarted=not is_new)
        frames = response_frames(started.event_batches, standard, on_delivered(request, response))
        wait = Wait(response.job_id, as_event if all_events else as_comment)
        return EventStream(
            frames, request.platform.streams, started.headers, on_disconnect=started.on_disconnect, wait=wait
        )
    if body.background:
        queued = await run_in_thread(with_waiting, request, response, response_object(response))
        return json_response(queued, headers=started.headers)

    async def respond_at_end() -> HttpResponse:
        at_end = await wait_for_end(request, started)
        return _respond(request, response, orjson.Fragment(at_end.json), started.headers, ended=at_end.ended)

    return DeferredResponse(respond_at_end, started.on_disconnect)


async def retrieve(request: Request) -> HttpResponse | EventStream:
    """`GET /v1/responses/{id}`: read a response, or with `stream` stream its events from any point on."""
    query = parse_query(request.query, RetrieveResponse)
    read = _read if query.stream else _read_complete
    response = await run_in_thread(read, request)
    on_disconnect = await run_in_thread(keep_turn, request, response) if response.expires_at else None
    if not query.stream:
        complete = await run_in_thread(with_waiting, request, response, response_object(response))
        return _respond(request, response, complete, ended=response.ended)
    if query.tree:
        job = await run_in_thread(_read_job, request, response)
        wait = Wait(job.id, as_tree_event)
        return EventStream(await tree_frames(request, job, query), request.platform.streams, wait=wait)
    after = await resume_position(request, response.job_id, query)
    # After a rewind the client is sent back: what it has received is beyond `after`.
    received = requested_position(request, query)
    standard, all_events = None, wants_all_events(request)
    if not all_events:  # only a later attempt restarts an answer
        standard = await standard_events(request, response, received, may_have_restarted=response.job_attempt > 1)
    batches = request.platform.tail.follow(response.job_id, after, owner=request.caller.account_id)
    frames = response_frames(batches, standard, on_delivered(request, response))
    wait = Wait(response.job_id, as_event if all_events else as_comment)
    return EventStream(frames, request.platform.streams, on_disconnect=on_disconnect, wait=wait)


def _read_job(request: Request, response: Response) -> Job:
    with request.platform.database.connection() as connection:
        job = jobs.read(connection, response.job_id, Access.own(request.caller))
    if job is None:
        raise NotFound(f"Response with id '{response.id}' not found.")
    return job


def cancel(request: Request) -> HttpResponse:
    """`POST /v1/responses/{id}/cancel`: cancel a response; an ended response stays unchanged."""
    response = _read_complete(request)
    cancel_job(request, response.job_id)
    with suppress(NotFound):  # a stream has delivered the end of an unstored turn, and deleted it
        response = _read_complete(request)
    # The worker stops within milliseconds, so that the requested state is already returned here.
    return json_response(response_object(response, None if response.ended else "cancelled"))


def delete(request: Request) -> HttpResponse:
    """`DELETE /v1/responses/{id}`: delete an ended response with its journal and its memories."""
    response = _read(request)
    delete_response(request.platform.database, response)
    request.platform.queue.forget_journal(response.job_id)
    deleted: ResponseDeleted = {"id": response.id, "object": "response", "deleted": True}
    return json_response(deleted)


def list_input_items(request: Request) -> HttpResponse:
    """`GET /v1/responses/{id}/input_items`: list the input items of a response."""
    query = parse_query(request.query, ListInputItems)
    items = [public_item(item) for item in _read(request).input]
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ordered = ordered[_cursor_index(ordered, query.after, "after") + 1 :]
    if query.before is not None:
        ordered = ordered[: _cursor_index(ordered, query.before, "before")]
        return json_response(page_object(ordered[-query.limit :], has_more=len(ordered) > query.limit))
    return json_response(page_object(ordered[: query.limit], has_more=len(ordered) > query.limit))


def _cursor_index(items: Sequence[Mapping[str, Any]], item_id: str, cursor: str) -> int:
    """Return the index of the item that a cursor names. Raises InvalidRequest."""
    for index, item in enumerate(items):
        if item["id"] == item_id:
            return index
    raise InvalidRequest(
        f"Invalid value for '{cursor}': item with id '{truncate(item_id)}' not found.",
        param=cursor,
        code="item_not_found",
    )


def _respond(
    request: Request,
    response: Response,
    response_body: ResponseObject | orjson.Fragment,
    headers: Mapping[str, str] | None = None,
    *,
    ended: bool,
) -> HttpResponse:
    """Respond with a response object; an unstored response that has ended is deleted afterwards."""
    http_response = json_response(response_body, headers=headers)
    delete_unstored = on_delivered(request, response)
    if delete_unstored is not None and ended:
        http_response.background = BackgroundTask(delete_unstored)
    return http_response


def _read_complete(request: Request) -> Response:
    """Read the response that the path names, with the texts of recalled memories."""
    return read_complete(request, request.path_params["response_id"])


def _read(request: Request) -> Response:
    """Read the response that the path names."""
    return read_response(request, request.path_params["response_id"])
