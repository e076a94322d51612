"""`/v1/responses`: turns, as OpenAI's clients ask for them and follow them."""

import asyncio
from typing import Any, Literal

import orjson
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response as Answer

from models import responses
from models.errors import Conflict, NotFound
from models.responses import Response
from pipelines.chat.objects import response_object
from pipelines.chat.start import Started, new_turn_ids, start
from web import bodies
from web.answers import json_answer, page
from web.departures import cancel_job, job_headers, on_departure
from web.following import Cursor, follow_frames, position
from web.pending import Pending
from web.routing import Call
from web.sse import EventStream
from web.turns import CreateResponse, new_turn
from web.validation import Query, parse_query

#: Seconds that a plain create waits for its answer. Then it says how far it is; the turn goes on.
#: OpenAI's client gives up after 600 and posts the same again: a second turn.
LONGEST_WAIT = 540.0


class Retrieve(Cursor):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = False
    include: list[str] | str | None = None
    include_obfuscation: bool | None = None


class InputItems(Query):
    """The query of `GET /v1/responses/{id}/input_items`."""

    after: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: list[str] | str | None = None


async def create(call: Call) -> Answer | EventStream | Pending:
    """`POST /v1/responses`: accept a turn; answer with its stream, its present state, or its end."""
    body = bodies.parse(call.body, CreateResponse)
    turn = new_turn(body, call.platform.settings)
    response_id, job_id = new_turn_ids()
    leave = on_departure(call, job_id)

    def accept() -> Started:
        started = start(call.platform.database, call.caller, turn, response_id, job_id)
        call.platform.queue.enqueued(job_id, started.opening)
        return started

    started = await run_in_threadpool(accept)
    headers = job_headers(job_id, response_id)
    if body.stream:
        return EventStream(follow_frames(call, job_id), call.platform.streams, headers, on_departure=leave)
    if body.background:
        return json_answer(response_object(started.response), headers=headers)

    async def ended() -> Answer:
        return json_answer(await _final(call, started.response), headers=headers)

    return Pending(ended, leave)


async def retrieve(call: Call) -> Answer | EventStream:
    """`GET /v1/responses/{id}`: the response as it is, or with `stream` its events from any point on."""
    query = parse_query(call.query, Retrieve)
    response = await run_in_threadpool(_read, call)
    if not query.stream:
        return json_answer(response_object(response))
    after = await position(call, response.job_id, query)
    return EventStream(follow_frames(call, response.job_id, after), call.platform.streams)


def cancel(call: Call) -> Answer:
    """`POST /v1/responses/{id}/cancel`: stop a turn; one that has ended stays as it is."""
    response = _read(call)
    cancel_job(call, response.job_id)
    now = _read(call)
    # What a worker has still to settle is a matter of milliseconds: the answer is what was asked for.
    return json_answer(response_object(now, None if now.ended else "cancelled"))


def delete(call: Call) -> Answer:
    """`DELETE /v1/responses/{id}`: forget an ended turn and its journal."""
    response = _read(call)
    with call.platform.database.connection() as connection:
        if not responses.delete(connection, response.id, call.caller.account_id):
            raise Conflict("The response is still in progress; cancel it first.", code="response_in_progress")
    call.platform.queue.forget(response.job_id)
    return json_answer({"id": response.id, "object": "response", "deleted": True})


def input_items(call: Call) -> Answer:
    """`GET /v1/responses/{id}/input_items`."""
    query = parse_query(call.query, InputItems)
    items = _read(call).input
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == query.after]
        ordered = ordered[places[0] + 1 :] if places else []
    return json_answer(page(ordered[: query.limit], has_more=len(ordered) > query.limit))


def _read(call: Call) -> Response:
    """The response that the path names."""
    return _read_named(call, call.path["response_id"])


def _read_named(call: Call, response_id: str) -> Response:
    with call.platform.database.connection() as connection:
        response = responses.read(connection, response_id, call.caller.account_id)
    if response is None:
        raise NotFound(f"Response with id '{response_id}' not found.", param="response_id")
    return response


async def _final(call: Call, response: Response) -> dict[str, Any]:
    """The response once it has ended, told by its journal; no connection is held meanwhile."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            shown = await _told_by_journal(call, response.job_id)
    except TimeoutError:
        shown = None
    if shown is not None:
        return shown
    return response_object(await run_in_threadpool(_read_named, call, response.id))


async def _told_by_journal(call: Call, job_id: str) -> dict[str, Any] | None:
    async for events in call.platform.tail.follow(job_id):
        if events[-1].ends:
            shown: dict[str, Any] | None = orjson.loads(events[-1].data).get("response")
            return shown
    return None
