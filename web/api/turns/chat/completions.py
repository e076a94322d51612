"""`POST /v1/chat/completions`: create a turn per choice and return them in the format of OpenAI's Chat Completions."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from starlette.responses import Response as HttpResponse

from web.api.request import Request
from web.api.turns.chat.chunks import CompletionChunks, CompletionStream
from web.api.turns.chat.completion_object import completion_object, turn_error
from web.api.turns.chat.completion_request import CreateChatCompletion, chat_turns
from web.api.turns.choices import cancel_all, delete_unstored, headers_of, interleave, wait_for_all
from web.api.turns.conversion import convert
from web.api.turns.request_body import read_body
from web.api.turns.started_turn import StartedTurn, start_all
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.streams.sse import EventStream, Frame


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/chat/completions`: create a chat completion, streamed as chunks with `stream`."""
    body = await read_body(request, CreateChatCompletion, requires_model=True)
    choices = await start_all(request, await convert(request, chat_turns, body), stream=bool(body.stream))
    if not body.stream:
        respond = partial(_completion, request, choices, calls_functions=body.calls_functions)
        return DeferredResponse(respond, choices[0].on_disconnect)
    first, settings = choices[0].response, request.platform.settings
    stream = CompletionStream(first, settings, len(choices), include_usage=body.include_usage)
    chunks = [
        CompletionChunks(choice.response, stream, index, calls_functions=body.calls_functions)
        for index, choice in enumerate(choices)
    ]
    return EventStream(
        _frames(request, choices, chunks),
        request.platform.streams,
        headers_of(choices),
        on_disconnect=choices[0].on_disconnect,
        final_frame=chunks[0].interrupted(),
    )


async def _frames(
    request: Request, choices: Sequence[StartedTurn], chunks: Sequence[CompletionChunks]
) -> AsyncIterator[Frame]:
    """Yield the chunks of all choices; events that arrive together become one frame."""
    yield b"".join([choice.first_chunk() for choice in chunks])
    events_of = interleave([choice.event_batches for choice in choices])
    try:
        async for index, events in events_of:
            if frames := b"".join([frame for event in events for frame in chunks[index].frames(event)]):
                yield frames
            if chunks[index].failed:
                delete_unstored(request, [choices[index]])
            if chunks[index].failed or chunks[index].diverged:
                await cancel_all(request, [choice for choice in choices if choice is not choices[index]])
                return
            if all(choice.ended for choice in chunks):
                delete_unstored(request, choices)
                return
    finally:
        await events_of.aclose()
    yield chunks[0].interrupted()


async def _completion(request: Request, choices: Sequence[StartedTurn], *, calls_functions: bool) -> HttpResponse:
    """Wait for the ends of the turns and return the completion. Raises an error for a turn without an answer."""
    responses = await wait_for_all(request, choices, turn_error)
    completion = completion_object(responses, request.platform.settings, calls_functions=calls_functions)
    return json_response(completion, headers=headers_of(choices))
