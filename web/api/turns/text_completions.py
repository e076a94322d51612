"""`POST /v1/completions`: the older API for completions of a text. Each prompt is the user's message of a turn.

Engines complete chats, so the model answers a prompt and does not continue it as raw text.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response as HttpResponse
from typing_extensions import TypedDict

from models.journal.events import REWOUND, Event
from models.platform.errors import InvalidRequest, JobFailed, RequestError
from models.platform.settings import Settings
from pipelines.chat.start_turn import NewTurn
from pipelines.chat.transcript import ANSWER_RESTARTED
from web.api.request import Request
from web.api.turns.chat.chunks import TEXT_INDEX, AnswerDiverged, DeliveredAnswer, data_frame, error_frame
from web.api.turns.chat.completion_object import CompletionUsage, sum_usage, system_fingerprint, turn_error
from web.api.turns.chat.completion_request import (
    ENGINE_SEEDS,
    ChatStreamOptions,
    check_choices,
    turns_of_choices,
)
from web.api.turns.choices import MAX_CHOICES, cancel_all, delete_unstored, headers_of, interleave, wait_for_all
from web.api.turns.request_body import read_body
from web.api.turns.sampling_parameters import SamplingParameters
from web.api.turns.started_turn import StartedTurn, start_all
from web.api.turns.turn_request import ClientLabel, CreateResponse, StopSequences, new_turn
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.validation import Unsupported, validate
from web.streams.sse import DONE, EventStream, Frame

#: Most prompts of a request.
MAX_PROMPTS = 16

#: Tokens of a completion without `max_tokens`, as in OpenAI's API.
DEFAULT_TOKENS = 16


def _reject_token_ids(value: Any) -> Any:
    """Reject token ids, which belong to the vocabulary of another model."""
    inner = value[0] if isinstance(value, list) and value else value
    if isinstance(inner, int | list):
        raise PydanticCustomError(
            "invalid_value", "should be a string or a list of strings; token ids are not supported"
        )
    return [value] if isinstance(value, str) else value


class CreateCompletion(SamplingParameters):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_PROMPTS),
        BeforeValidator(_reject_token_ids, json_schema_input_type=str | list[str]),
    ]
    model: Annotated[str, Field(max_length=256)] | None = None
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    stop: StopSequences | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    best_of: int | None = Field(None, description="As many as `n`, or 1: the best of more choices is not selected.")
    echo: bool | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    user: ClientLabel | None = None
    # Parameters that are not supported.
    logprobs: Unsupported = None
    suffix: Unsupported = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk that has the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class TextChoice(TypedDict):
    """A completion of a prompt."""

    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class TextCompletion(TypedDict):
    """The completions of the prompts, those of the first prompt first. `created` is in Unix seconds."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage


async def create(request: Request) -> EventStream | DeferredResponse:
    """`POST /v1/completions`: complete one or more prompts, streamed as chunks with `stream`."""
    body = await read_body(request, CreateCompletion)
    turns = text_turns(body, request.platform.settings)
    choices = await start_all(request, turns, stream=bool(body.stream))
    each = len(turns) // len(body.prompt)
    prompts = [prompt if body.echo else "" for prompt in body.prompt for _ in range(each)]
    if not body.stream:
        return DeferredResponse(partial(_completion, request, choices, prompts), choices[0].on_disconnect)
    streams = TextStreams(_head(choices, request.platform.settings), prompts, include_usage=body.include_usage)
    return EventStream(
        _frames(request, choices, streams),
        request.platform.streams,
        headers_of(choices),
        on_disconnect=choices[0].on_disconnect,
        final_frame=error_frame(JobFailed("The stream was interrupted. Send the request again.", code="interrupted")),
    )


def text_turns(body: CreateCompletion, settings: Settings) -> list[NewTurn]:
    """Convert the body to the turns of its choices, those of the first prompt first. Raises InvalidRequest."""
    count = check_choices(body.n, body.best_of)
    if (total := count * len(body.prompt)) > MAX_PROMPTS:
        message = f"The request has {total} choices in all ('n' of each prompt). The maximum is {MAX_PROMPTS}."
        raise InvalidRequest(message, param="n", code="invalid_value")
    return [turn for prompt in body.prompt for turn in turns_of_choices(_turn(body, prompt, settings), count)]


def _turn(body: CreateCompletion, prompt: str, settings: Settings) -> NewTurn:
    parameters = {
        "input": prompt,
        "max_output_tokens": body.max_tokens or DEFAULT_TOKENS,
        "seed": None if body.seed is None else body.seed % ENGINE_SEEDS,
        "store": False,
        "memory": {"recall": False, "remember": False},  # nothing is added to the prompt
        **{name: getattr(body, name) for name in ("model", "stop", "stream", "user", *SamplingParameters.model_fields)},
    }
    return new_turn(validate(CreateResponse, parameters), settings)


def _head(choices: Sequence[StartedTurn], settings: Settings) -> dict[str, Any]:
    first = choices[0].response
    return {
        "id": "cmpl-" + first.id.removeprefix("resp_"),
        "object": "text_completion",
        "created": int(first.created_at.timestamp()),
        "model": first.request["model"],
        "system_fingerprint": system_fingerprint(settings),
    }


async def _completion(request: Request, choices: Sequence[StartedTurn], prompts: Sequence[str]) -> HttpResponse:
    """Wait for the ends of the turns and return the completion. Raises an error for a turn without an answer."""
    responses = await wait_for_all(request, choices, text_error)
    texts = [
        _choice(index, prompt + _text(response), _finish_reason(response))
        for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    usage = sum_usage([response["usage"] or {} for response in responses])
    completion = {**_head(choices, request.platform.settings), "choices": texts, "usage": usage}
    return json_response(completion, headers=headers_of(choices))


def text_error(response: Mapping[str, Any]) -> RequestError | JobFailed | None:
    """Return the error of a response that has no answer, or None."""
    error = turn_error(response)
    if isinstance(error, InvalidRequest):
        return InvalidRequest(error.message, param="prompt", code=error.code)
    return error


def _choice(index: int, text: str, finish_reason: Any = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _text(response: Mapping[str, Any]) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


def _finish_reason(response: Mapping[str, Any]) -> str:
    if details := response["incomplete_details"]:
        return "content_filter" if details["reason"] == "content_filter" else "length"
    return "stop"


class TextStreams:
    """The chunks of all choices. `failed` is the index of a choice whose turn ended without an answer, or diverged."""

    def __init__(self, head: Mapping[str, Any], prompts: Sequence[str], *, include_usage: bool) -> None:
        self._head = head
        self._prompts = prompts
        self._include_usage = include_usage
        self._delivered = [DeliveredAnswer() for _ in prompts]
        self._usages: list[Mapping[str, Any]] = []
        self.failed: int | None = None

    @property
    def ended(self) -> bool:
        """Whether all choices have ended."""
        return len(self._usages) == len(self._prompts)

    def first_frames(self) -> Frame:
        """Return the prompts that are echoed."""
        echoed = [self._chunk(index, prompt) for index, prompt in enumerate(self._prompts) if prompt]
        return b"".join(echoed)

    def frames(self, index: int, event: Event) -> Iterator[Frame]:
        """Yield the chunks for an event of a choice. Most types have none, and after a failure there are none."""
        if self.failed is not None:
            return
        try:
            yield from self._frames(index, event)
        except AnswerDiverged:
            self.failed = index
            message = "The answer was restarted and differs from the part that was sent. Send the request again."
            yield error_frame(JobFailed(message, code="answer_restarted"))

    def _frames(self, index: int, event: Event) -> Iterator[Frame]:
        delivered = self._delivered[index]
        if event.type == b"response.output_text.delta":
            if text := delivered.add(event.sequence, TEXT_INDEX, orjson.loads(event.data)["delta"]):
                yield self._chunk(index, text)
        elif event.type == REWOUND:
            delivered.rewind(event.sequence)
        elif event.type == ANSWER_RESTARTED.encode():
            delivered.rewind(0)
        elif event.ends:
            yield from self._end(index, orjson.loads(event.data))

    def _end(self, index: int, event: Mapping[str, Any]) -> Iterator[Frame]:
        response = event.get("response") or {"id": self._head["id"], "status": "cancelled"}
        if (error := text_error(response)) is not None:
            self.failed = index
            yield error_frame(error)
            return
        self._delivered[index].check_complete()
        self._usages.append(response["usage"])
        yield self._chunk(index, "", _finish_reason(response))
        if self.ended and self._include_usage:
            yield data_frame({**self._head, "choices": [], "usage": sum_usage(self._usages)})
        if self.ended:
            yield DONE

    def _chunk(self, index: int, text: str, finish_reason: str | None = None) -> Frame:
        usage = {"usage": None} if self._include_usage else {}
        return data_frame({**self._head, "choices": [_choice(index, text, finish_reason)], **usage})


async def _frames(request: Request, choices: Sequence[StartedTurn], streams: TextStreams) -> AsyncIterator[Frame]:
    """Yield the chunks of all choices; events that arrive together become one frame."""
    if echoed := streams.first_frames():
        yield echoed
    events_of = interleave([choice.event_batches for choice in choices])
    try:
        async for index, events in events_of:
            if frames := b"".join([frame for event in events for frame in streams.frames(index, event)]):
                yield frames
            if streams.failed is not None:
                await cancel_all(request, [choice for number, choice in enumerate(choices) if number != index])
                return
            if streams.ended:
                delete_unstored(request, choices)
                return
    finally:
        await events_of.aclose()
    yield error_frame(JobFailed("The stream was interrupted. Send the request again.", code="interrupted"))
