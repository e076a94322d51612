"""`POST /v1/chat/completions`: create a turn and return it in the format of OpenAI's Chat Completions."""

from collections.abc import AsyncIterator
from functools import partial

import orjson
from starlette.responses import Response as HttpResponse

from models.platform.errors import Unavailable
from models.turns.responses import Response
from pipelines.chat.response_objects import ResponseObject
from web.api.request import Request
from web.api.turns.chat.chunks import CompletionChunks
from web.api.turns.chat.completion_object import completion_object
from web.api.turns.chat.completion_request import CreateChatCompletion, chat_turn
from web.api.turns.conversion import convert
from web.api.turns.request_body import read_body
from web.api.turns.started_turn import StartedTurn, on_delivered, start, wait_for_end
from web.http.disconnects import DeferredResponse, run_in_background
from web.http.responses import json_response
from web.streams.sse import EventStream, Frame


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/chat/completions`: create a chat completion, streamed as chunks with `stream`."""
    body = await read_body(request, CreateChatCompletion)
    settings = request.platform.settings
    started = await start(request, await convert(request, chat_turn, body), stream=bool(body.stream))
    if not body.stream:
        respond = partial(_completion, request, started, calls_functions=body.calls_functions)
        return DeferredResponse(respond, started.on_disconnect)
    chunks = CompletionChunks(
        started.response, settings, include_usage=body.include_usage, calls_functions=body.calls_functions
    )
    return EventStream(
        _frames(request, started, chunks),
        request.platform.streams,
        started.headers,
        on_disconnect=started.on_disconnect,
        final_frame=chunks.interrupted(),
    )


async def _frames(request: Request, started: StartedTurn, chunks: CompletionChunks) -> AsyncIterator[Frame]:
    """Yield the chunks of a turn; events that arrive together become one frame."""
    yield chunks.first_chunk()
    async for events in started.event_batches:
        if frames := b"".join([frame for event in events for frame in chunks.frames(event)]):
            yield frames
        if chunks.ended:
            if not chunks.diverged:
                _delete_unstored(request, started.response)
            return
    yield chunks.interrupted()


async def _completion(request: Request, started: StartedTurn, *, calls_functions: bool) -> HttpResponse:
    """Wait for the turn's end and return the completion. Raises an error for a turn without an answer."""
    at_end = await wait_for_end(request, started)
    if not at_end.ended and request.platform.streams.closing:
        response_id = started.response.id
        raise Unavailable(
            f"The server is shutting down; the turn continues. Read it at GET /v1/responses/{response_id}."
        )
    if at_end.ended:
        _delete_unstored(request, started.response)
    response: ResponseObject = orjson.loads(at_end.json)
    completion = completion_object(response, request.platform.settings, calls_functions=calls_functions)
    return json_response(completion, headers=started.headers)


def _delete_unstored(request: Request, response: Response) -> None:
    delete = on_delivered(request, response)
    if delete is not None:
        run_in_background(delete)
