"""Request parameters of the older completions of a text, their conversion to turns, and the object that answers them.

Each prompt is the user's message of a turn: engines complete chats, so the model answers a prompt and does not continue
it as raw text.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from models.platform.errors import InvalidRequest, JobFailed, RequestError
from models.serving.served_models import ServedModels
from pipelines.agents.agent_turns import is_agent
from pipelines.chat.new_turn import NewTurn
from pipelines.requests.chat.completion_object import (
    CompletionUsage,
    finish_reason,
    sum_usage,
    system_fingerprint,
    text_of,
    turn_error,
)
from pipelines.requests.chat.completion_request import (
    ENGINE_SEEDS,
    MAX_CHOICES,
    ChatStreamOptions,
    check_choices,
    turns_of_choices,
)
from pipelines.requests.sampling_parameters import SamplingParameters
from pipelines.requests.serving import Serving
from pipelines.requests.turn_request import ClientLabel, CreateResponse, StopSequences, new_turn
from pipelines.requests.validation import Unsupported, validate

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
    def echoes(self) -> list[str]:
        """What each choice begins with: its prompt with `echo`, otherwise nothing."""
        return [prompt if self.echo else "" for prompt in self.prompt for _ in range(self.n or 1)]

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


def text_head(response: Mapping[str, Any], models: ServedModels) -> dict[str, Any]:
    """Return the fields that the completion and all its chunks have, from the response of the first choice."""
    return {
        "id": "cmpl-" + response["id"].removeprefix("resp_"),
        "object": "text_completion",
        "created": response["created_at"],
        "model": response["model"],
        "system_fingerprint": system_fingerprint(models, response["model"]),
    }


def text_completion(
    responses: Sequence[Mapping[str, Any]], prefixes: Sequence[str], models: ServedModels
) -> dict[str, Any]:
    """Convert ended responses with answers to the choices of a completion, each with its prefix before the answer."""
    choices = [
        text_choice(index, prefix + text_of(response), finish_reason(response))
        for index, (prefix, response) in enumerate(zip(prefixes, responses, strict=True))
    ]
    usage = sum_usage([response["usage"] or {} for response in responses])
    return {**text_head(responses[0], models), "choices": choices, "usage": usage}


def text_error(response: Mapping[str, Any]) -> RequestError | JobFailed | None:
    """Return the error of a response that has no answer, or None."""
    error = turn_error(response)
    if isinstance(error, InvalidRequest):
        return InvalidRequest(error.message, param="prompt", code=error.code)
    return error


def text_choice(index: int, text: str, finish_reason: Any = None) -> dict[str, Any]:
    """Return a choice, or a part of one."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
