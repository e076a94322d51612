"""`/v1/responses`: turns, as OpenAI's clients ask for them and follow them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response as Answer

from models.platform.errors import InvalidRequest
from models.turns.responses import Response
from pipelines.chat.forget import forget_response
from pipelines.chat.objects import response_object
from web.http import bodies
from web.http.answers import json_answer, page
from web.http.departures import cancel_job
from web.http.pending import Pending
from web.http.validation import Query, cut, listed, parse_query
from web.routing import Call
from web.streams.following import Cursor, follow_frames, frames, position
from web.streams.sse import EventStream
from web.turns.requests import CreateResponse, Includable, new_turn
from web.turns.running import begin, final, read_named, when_read

#: Known, and about what no answer here has.
Included = Annotated[list[Includable], listed, Field(max_length=16)]


class Retrieve(Cursor):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = False
    include: Included | None = None
    include_obfuscation: bool | None = None


class InputItems(Query):
    """The query of `GET /v1/responses/{id}/input_items`."""

    after: str | None = None
    before: str | None = None
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    include: Included | None = None


async def create(call: Call) -> Answer | EventStream | Pending:
    """`POST /v1/responses`: accept a turn; answer with its stream, its present state, or its end."""
    body = bodies.parse(call.body, CreateResponse)
    turn = new_turn(body, call.platform.settings)
    begun = await begin(call, turn, stream=bool(body.stream))
    response = begun.response
    if body.stream:
        told = frames(begun.told, when_read=when_read(call, response))
        return EventStream(told, call.platform.streams, begun.headers, on_departure=begun.leave)
    if body.background:
        return json_answer(response_object(response), headers=begun.headers)

    async def ended() -> Answer:
        return _shown(call, response, await final(call, begun), begun.headers)

    return Pending(ended, begun.leave)


async def retrieve(call: Call) -> Answer | EventStream:
    """`GET /v1/responses/{id}`: the response as it is, or with `stream` its events from any point on."""
    query = parse_query(call.query, Retrieve)
    response = await run_in_threadpool(_read, call)
    if not query.stream:
        return _shown(call, response, response_object(response))
    after = await position(call, response.job_id, query)
    told = follow_frames(call, response.job_id, after, when_read=when_read(call, response))
    return EventStream(told, call.platform.streams)


def cancel(call: Call) -> Answer:
    """`POST /v1/responses/{id}/cancel`: stop a turn; one that has ended stays as it is."""
    response = _read(call)
    cancel_job(call, response.job_id)
    now = _read(call)
    # What a worker has still to settle is a matter of milliseconds: the answer is what was asked for.
    return json_answer(response_object(now, None if now.ended else "cancelled"))


def delete(call: Call) -> Answer:
    """`DELETE /v1/responses/{id}`: forget an ended turn, its journal and what is remembered of it."""
    response = _read(call)
    forget_response(call.platform.database, response)
    call.platform.queue.forget_journal(response.job_id)
    return json_answer({"id": response.id, "object": "response", "deleted": True})


def input_items(call: Call) -> Answer:
    """`GET /v1/responses/{id}/input_items`."""
    query = parse_query(call.query, InputItems)
    items = _read(call).input
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ordered = ordered[_place(ordered, query.after, "after") + 1 :]
    if query.before is not None:
        ordered = ordered[: _place(ordered, query.before, "before")]
        return json_answer(page(ordered[-query.limit :], has_more=len(ordered) > query.limit))
    return json_answer(page(ordered[: query.limit], has_more=len(ordered) > query.limit))


def _place(items: Sequence[Mapping[str, Any]], item_id: str, cursor: str) -> int:
    """Where a cursor points. Raises InvalidRequest."""
    for place, item in enumerate(items):
        if item["id"] == item_id:
            return place
    raise InvalidRequest(f"Item with id '{cut(item_id)}' not found.", param=cursor, code="item_not_found")


def _shown(call: Call, response: Response, shown: dict[str, Any], headers: Mapping[str, str] | None = None) -> Answer:
    """The answer with a response; one that is not stored and has ended goes once it is sent."""
    answer = json_answer(shown, headers=headers)
    forget = when_read(call, response)
    if forget is not None and shown["status"] not in ("queued", "in_progress"):
        answer.background = BackgroundTask(forget)
    return answer


def _read(call: Call) -> Response:
    """The response that the path names."""
    return read_named(call, call.path["response_id"])
