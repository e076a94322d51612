"""`POST /v1/completions`: the older API for completions of a text."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.responses import Response as HttpResponse

from models.platform.errors import JobFailed, RequestError
from models.turns.responses import Response
from pipelines.chat.response_objects import response_object
from pipelines.requests.chat.completion_object import finish_reason
from pipelines.requests.text_completions import (
    CreateCompletion,
    text_choice,
    text_completion,
    text_error,
    text_head,
    text_turns,
)
from web.api.request import Request
from web.api.turns.choice_chunks import ChoiceChunks, CompletionStream
from web.api.turns.choices import headers_of, stream_choices, wait_for_all
from web.api.turns.request_body import read_body
from web.api.turns.serving import serving_for
from web.api.turns.started_turn import StartedTurn, start_all
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.streams.sse import EventStream, Frame


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/completions`: complete one or more prompts, streamed as chunks with `stream`."""
    body = await read_body(request, CreateCompletion)
    turns = text_turns(body, await serving_for(request, body.model))
    choices = await start_all(request, turns, stream=bool(body.stream))
    if not body.stream:
        return DeferredResponse(partial(_completion, request, choices, body.echoes), choices[0].on_disconnect)
    head = text_head(response_object(choices[0].response), request.platform.serving.latest().models)
    stream = CompletionStream(head, len(choices), include_usage=body.include_usage)
    chunks = [
        TextChunks(choice.response, stream, index, prefix)
        for index, (choice, prefix) in enumerate(zip(choices, body.echoes, strict=True))
    ]
    return stream_choices(request, choices, chunks)


async def _completion(request: Request, choices: Sequence[StartedTurn], prefixes: Sequence[str]) -> HttpResponse:
    """Wait for the ends of the turns and return the completion. Raises an error for a turn without an answer."""
    responses = await wait_for_all(request, choices, text_error)
    completion = text_completion(responses, prefixes, request.platform.serving.latest().models)
    return json_response(completion, headers=headers_of(choices))


class TextChunks(ChoiceChunks):
    """The chunks of one choice. The first one has the prompt, if it is echoed."""

    def __init__(self, response: Response, stream: CompletionStream, index: int, prompt: str) -> None:
        super().__init__(response, stream, index)
        self._prompt = prompt

    def first_chunk(self) -> Frame:
        """Return the chunk with the prompt, if it is echoed."""
        return self._stream.chunk(text_choice(self._index, self._prompt)) if self._prompt else b""

    def _text_chunk(self, text: str, event: Mapping[str, Any]) -> Frame:
        return self._stream.chunk(text_choice(self._index, text))

    def _end_chunk(self, response: Mapping[str, Any]) -> Frame:
        return self._stream.chunk(text_choice(self._index, "", finish_reason(response)))

    def _error_of(self, response: Mapping[str, Any]) -> RequestError | JobFailed | None:
        return text_error(response)
