"""`POST /v1/completions`: the older API for completions of a text. Each prompt is the user's message of a turn.

Engines complete chats, so the model answers a prompt and does not continue it as raw text.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response as HttpResponse
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest, JobFailed, RequestError
from models.serving.state import ServingCache
from models.turns.responses import Response
from pipelines.agents.agent_turns import is_agent
from pipelines.chat.new_turn import NewTurn
from web.api.request import Request
from web.api.turns.chat.completion_object import (
    CompletionUsage,
    finish_reason,
    sum_usage,
    system_fingerprint,
    text_of,
    turn_error,
)
from web.api.turns.chat.completion_request import (
    ENGINE_SEEDS,
    ChatStreamOptions,
    check_choices,
    turns_of_choices,
)
from web.api.turns.choice_chunks import ChoiceChunks, CompletionStream
from web.api.turns.choices import MAX_CHOICES, headers_of, stream_choices, wait_for_all
from web.api.turns.request_body import read_body
from web.api.turns.sampling_parameters import SamplingParameters
from web.api.turns.serving import Serving, serving_for
from web.api.turns.started_turn import StartedTurn, start_all
from web.api.turns.turn_request import ClientLabel, CreateResponse, StopSequences, new_turn
from web.http.disconnects import DeferredResponse
from web.http.responses import json_response
from web.http.validation import Unsupported, validate
from web.streams.sse import EventStream, Frame

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
    turns = text_turns(body, await serving_for(request, body.model))
    choices = await start_all(request, turns, stream=bool(body.stream))
    each = len(turns) // len(body.prompt)
    prompts = [prompt if body.echo else "" for prompt in body.prompt for _ in range(each)]
    if not body.stream:
        return DeferredResponse(partial(_completion, request, choices, prompts), choices[0].on_disconnect)
    head = _head(choices, request.platform.serving)
    stream = CompletionStream(head, len(choices), include_usage=body.include_usage)
    chunks = [TextChunks(choice.response, stream, index, prompts[index]) for index, choice in enumerate(choices)]
    return stream_choices(request, choices, chunks)


def text_turns(body: CreateCompletion, serving: Serving) -> list[NewTurn]:
    """Convert the body to the turns of its choices, those of the first prompt first. Raises InvalidRequest."""
    if is_agent(body.model):
        message = (
            f"Unsupported value for 'model': '{body.model}'. Agents answer /v1/responses and /v1/chat/completions."
        )
        raise InvalidRequest(message, param="model", code="unsupported_value")
    count = check_choices(body.n, body.best_of)
    if (total := count * len(body.prompt)) > MAX_PROMPTS:
        message = f"The request has {total} choices in all ('n' of each prompt). The maximum is {MAX_PROMPTS}."
        raise InvalidRequest(message, param="n", code="invalid_value")
    return [turn for prompt in body.prompt for turn in turns_of_choices(_turn(body, prompt, serving), count)]


def _turn(body: CreateCompletion, prompt: str, serving: Serving) -> NewTurn:
    parameters = {
        "input": prompt,
        "max_output_tokens": body.max_tokens or DEFAULT_TOKENS,
        "seed": None if body.seed is None else body.seed % ENGINE_SEEDS,
        "store": False,
        "memory": {"recall": False, "remember": False},  # nothing is added to the prompt
        **{name: getattr(body, name) for name in ("model", "stop", "stream", "user", *SamplingParameters.model_fields)},
    }
    return new_turn(validate(CreateResponse, parameters), serving)


def _head(choices: Sequence[StartedTurn], serving: ServingCache) -> dict[str, Any]:
    first = choices[0].response
    return {
        "id": "cmpl-" + first.id.removeprefix("resp_"),
        "object": "text_completion",
        "created": int(first.created_at.timestamp()),
        "model": first.request["model"],
        "system_fingerprint": system_fingerprint(serving, first.request["model"]),
    }


async def _completion(request: Request, choices: Sequence[StartedTurn], prompts: Sequence[str]) -> HttpResponse:
    """Wait for the ends of the turns and return the completion. Raises an error for a turn without an answer."""
    responses = await wait_for_all(request, choices, text_error)
    texts = [
        _choice(index, prompt + text_of(response), finish_reason(response))
        for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    usage = sum_usage([response["usage"] or {} for response in responses])
    completion = {**_head(choices, request.platform.serving), "choices": texts, "usage": usage}
    return json_response(completion, headers=headers_of(choices))


def text_error(response: Mapping[str, Any]) -> RequestError | JobFailed | None:
    """Return the error of a response that has no answer, or None."""
    error = turn_error(response)
    if isinstance(error, InvalidRequest):
        return InvalidRequest(error.message, param="prompt", code=error.code)
    return error


def _choice(index: int, text: str, finish_reason: Any = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


class TextChunks(ChoiceChunks):
    """The chunks of one choice. The first one has the prompt, if it is echoed."""

    def __init__(self, response: Response, stream: CompletionStream, index: int, prompt: str) -> None:
        super().__init__(response, stream, index)
        self._prompt = prompt

    def first_chunk(self) -> Frame:
        """Return the chunk with the prompt, if it is echoed."""
        return self._stream.chunk(_choice(self._index, self._prompt)) if self._prompt else b""

    def _text_chunk(self, text: str, event: Mapping[str, Any]) -> Frame:
        return self._stream.chunk(_choice(self._index, text))

    def _end_chunk(self, response: Mapping[str, Any]) -> Frame:
        return self._stream.chunk(_choice(self._index, "", finish_reason(response)))

    def _error_of(self, response: Mapping[str, Any]) -> RequestError | JobFailed | None:
        return text_error(response)
