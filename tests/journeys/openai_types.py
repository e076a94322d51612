"""Validate responses strictly against the types of OpenAI's client, which itself accepts anything.

Every field has to be present and of its exact type, at every depth, and extra fields have to be known extensions.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import openai
import orjson
from openai.types import Model
from openai.types.responses import (
    Response,
    ResponseError,
    ResponseFunctionCallArgumentsDoneEvent,
)
from pydantic import BaseModel, TypeAdapter

#: Fields of ours beside OpenAI's; `name` is in OpenAI's API but not in its client, the penalties are in Open Responses.
EXTENSION_FIELDS: Mapping[type, set[str]] = {
    Model: {"sangha", "status"},
    Response: {"frequency_penalty", "job_id", "presence_penalty", "recalled", "sangha", "seed", "stop", "store"},
    ResponseError: {"reason"},
    ResponseFunctionCallArgumentsDoneEvent: {"name"},
}


def assert_valid_model(response: openai.BaseModel) -> None:
    """Assert that a response is valid for the type that the client has parsed it to."""
    assert_valid(type(response), response.to_dict(mode="json"))


def assert_valid(type_: Any, body: Any) -> Any:
    """Assert that JSON is valid for a type of the client, without missing, coerced or unknown fields. Returns it."""
    parsed = TypeAdapter(type_).validate_json(orjson.dumps(body), strict=True)
    unknown = [f"{type(model).__name__}.{name}" for model in _models(parsed) for name in _unknown_fields(model)]
    assert not unknown, f"{unknown} in {body}"
    return parsed


def _unknown_fields(model: BaseModel) -> set[str]:
    known = EXTENSION_FIELDS.get(type(model), set())
    if type(model).__name__.endswith("Event"):  # each event may have our field
        known = known | {"sangha"}
    return set(model.model_extra or ()) - known


def _models(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _models(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _models(inner)
