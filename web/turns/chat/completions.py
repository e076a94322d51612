"""`POST /v1/chat/completions`: a turn like any other, asked for and told in the older form."""

from collections.abc import AsyncIterator
from functools import partial

from starlette.responses import Response as Answer

from models.platform.errors import Unavailable
from models.turns.responses import Response
from web.http import bodies
from web.http.afterwards import afterwards
from web.http.answers import json_answer
from web.http.pending import Pending
from web.routing import Call
from web.streams.sse import EventStream, Frame
from web.turns.chat.chunks import Chunks
from web.turns.chat.objects import completion_object
from web.turns.chat.request import CreateChatCompletion, chat_turn
from web.turns.running import Begun, begin, final, when_read


async def create(call: Call) -> EventStream | Pending:
    """`POST /v1/chat/completions`: accept a turn; answer with its chunks, or with its end."""
    body = bodies.parse(call.body, CreateChatCompletion)
    settings = call.platform.settings
    begun = await begin(call, chat_turn(body, settings), stream=bool(body.stream))
    if not body.stream:
        return Pending(partial(_ended, call, begun), begun.leave)
    chunks = Chunks(begun.response, settings, include_usage=body.include_usage)
    return EventStream(
        _frames(call, begun, chunks),
        call.platform.streams,
        begun.headers,
        on_departure=begun.leave,
        farewell=chunks.cut(),
    )


async def _frames(call: Call, begun: Begun, chunks: Chunks) -> AsyncIterator[Frame]:
    """The chunks of a turn as it goes on; what came together goes together."""
    yield chunks.opening()
    async for events in begun.told:
        if frames := b"".join([frame for event in events for frame in chunks.frames(event)]):
            yield frames
        if chunks.ended:
            if not chunks.diverged:
                _forget(call, begun.response)
            return
    yield chunks.cut()


async def _ended(call: Call, begun: Begun) -> Answer:
    """The completion. Raises what became of a turn that has none."""
    shown = await final(call, begun)
    if shown["status"] in ("queued", "in_progress") and call.platform.streams.closing:
        raise Unavailable(f"This server is leaving; the turn goes on: GET /v1/responses/{shown['id']}.")
    if shown["status"] not in ("queued", "in_progress"):
        _forget(call, begun.response)
    return json_answer(completion_object(shown, call.platform.settings), headers=begun.headers)


def _forget(call: Call, response: Response) -> None:
    forget = when_read(call, response)
    if forget is not None:
        afterwards(forget)
