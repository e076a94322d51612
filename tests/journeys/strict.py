"""Whether an answer is what OpenAI's client says it is: the client itself takes whatever comes.

Its types are pydantic models that allow anything beside their fields. Here every field has to be there and of its very
type, at every depth, and what is beside them has to be known to be ours.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import openai
import orjson
from openai.types.responses import Response, ResponseError, ResponseFunctionCallArgumentsDoneEvent
from pydantic import BaseModel, TypeAdapter

#: What our objects have beside OpenAI's fields; `name` its API tells too, if not its client.
OURS: Mapping[type, set[str]] = {
    Response: {"job_id", "recalled", "seed", "stop", "store"},
    ResponseError: {"reason"},
    ResponseFunctionCallArgumentsDoneEvent: {"name"},
}


def strictly(answer: openai.BaseModel) -> None:
    """What came fits the type that the client gives it."""
    strictly_as(type(answer), answer.to_dict(mode="json"))


def strictly_as(kind: Any, sent: Any) -> Any:
    """JSON fits a type of the client's, with nothing missing, nothing coerced and nothing unknown. Returns it."""
    read = TypeAdapter(kind).validate_json(orjson.dumps(sent), strict=True)
    unknown = [f"{type(model).__name__}.{name}" for model in _models(read) for name in _beside(model)]
    assert not unknown, f"{unknown} in {sent}"
    return read


def _beside(model: BaseModel) -> set[str]:
    return set(model.model_extra or ()) - OURS.get(type(model), set())


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
