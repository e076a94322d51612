"""`POST /v1/chat/completions`: create a turn per choice and return them in the format of OpenAI's Chat Completions."""

from collections.abc import Sequence
from functools import partial

from starlette.responses import Response as HttpResponse

from pipelines.requests.chat.completion_object import completion_object, turn_error
from pipelines.requests.chat.completion_request import CreateChatCompletion, chat_turns
from web.api.request import Request
from web.api.turns.chat.chunks import ChatChunks, chunk_head
from web.api.turns.choice_chunks import CompletionStream
from web.api.turns.choices import headers_of, stream_choices, wait_for_all
from web.api.turns.conversion import convert
from web.api.turns.request_body import read_body
from web.api.turns.started_turn import StartedTurn, start_all
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.streams.sse import EventStream


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/chat/completions`: create a chat completion, streamed as chunks with `stream`."""
    body = await read_body(request, CreateChatCompletion, requires_model=True)
    choices = await start_all(request, await convert(request, chat_turns, body), stream=bool(body.stream))
    if body.stream:
        return stream_choices(request, choices, _chunks(request, choices, body))
    respond = partial(_completion, request, choices, calls_functions=body.calls_functions)
    return DeferredResponse(respond, choices[0].on_disconnect)


def _chunks(request: Request, choices: Sequence[StartedTurn], body: CreateChatCompletion) -> list[ChatChunks]:
    head = chunk_head(choices[0].response, request.platform.serving.latest().models)
    stream = CompletionStream(head, len(choices), include_usage=body.include_usage)
    return [
        ChatChunks(choice.response, stream, index, calls_functions=body.calls_functions)
        for index, choice in enumerate(choices)
    ]


async def _completion(request: Request, choices: Sequence[StartedTurn], *, calls_functions: bool) -> HttpResponse:
    """Wait for the ends of the turns and return the completion. Raises an error for a turn without an answer."""
    responses = await wait_for_all(request, choices, turn_error)
    completion = completion_object(responses, request.platform.serving.latest().models, calls_functions=calls_functions)
    return json_response(completion, headers=headers_of(choices))
