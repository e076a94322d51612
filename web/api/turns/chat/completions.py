"""`POST /v1/chat/completions`: a turn like any other, asked for and told in the older form."""

from collections.abc import AsyncIterator
from functools import partial

from starlette.responses import Response as Answer

from models.platform.errors import Unavailable
from models.turns.responses import Response
from web.api.request import Request
from web.api.turns.chat.chunks import CompletionChunks
from web.api.turns.chat.objects import completion_object
from web.api.turns.chat.request import CreateChatCompletion, chat_turn
from web.api.turns.running import StartedTurn, start, wait_for_end, on_delivered
from web.http import bodies
from web.http.disconnects import DeferredResponse, run_in_background
from web.http.responses import json_response
from web.streams.sse import EventStream, Frame


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/chat/completions`: accept a turn; answer with its chunks, or with its end."""
    body = bodies.parse(request.body, CreateChatCompletion)
    settings = request.platform.settings
    begun = await start(request, chat_turn(body, settings), stream=bool(body.stream))
    if not body.stream:
        return DeferredResponse(partial(_completion, request, begun), begun.on_disconnect)
    chunks = CompletionChunks(begun.response, settings, include_usage=body.include_usage)
    return EventStream(
        _frames(request, begun, chunks),
        request.platform.streams,
        begun.headers,
        on_disconnect=begun.on_disconnect,
        final_frame=chunks.cut(),
    )


async def _frames(request: Request, begun: StartedTurn, chunks: CompletionChunks) -> AsyncIterator[Frame]:
    """The chunks of a turn as it goes on; what came together goes together."""
    yield chunks.opening()
    async for events in begun.event_batches:
        if frames := b"".join([frame for event in events for frame in chunks.frames(event)]):
            yield frames
        if chunks.ended:
            if not chunks.diverged:
                _delete_unstored(request, begun.response)
            return
    yield chunks.cut()


async def _completion(request: Request, begun: StartedTurn) -> Answer:
    """The completion. Raises what became of a turn that has none."""
    shown = await wait_for_end(request, begun)
    if shown["status"] in ("queued", "in_progress") and request.platform.streams.closing:
        raise Unavailable(f"This server is leaving; the turn goes on: GET /v1/responses/{shown['id']}.")
    if shown["status"] not in ("queued", "in_progress"):
        _delete_unstored(request, begun.response)
    return json_response(completion_object(shown, request.platform.settings), headers=begun.headers)


def _delete_unstored(request: Request, response: Response) -> None:
    forget = on_delivered(request, response)
    if forget is not None:
        run_in_background(forget)
