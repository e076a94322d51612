"""Types for what comes in, and errors in OpenAI's style when it isn't that: `Missing required parameter: 'input'.`"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import QueryParams

from models.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """The base of every request body: exact JSON types, no unknown field, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """The base of every query: texts are turned into numbers and booleans; no unknown parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def validate(model: type[Model], value: dict[str, Any]) -> Model:
    """The value as a model. Raises InvalidRequest with `param` naming what is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, value) from None


def parse_query(query: QueryParams, model: type[Model]) -> Model:
    """The query string as a model. A parameter given often, or named `name[]`, is a list."""
    given: dict[str, Any] = {}
    for name in query:
        values = query.getlist(name)
        given[name.removesuffix("[]")] = values if name.endswith("[]") or len(values) > 1 else values[0]
    return validate(model, given)


def _refusal(error: ValidationError, value: object) -> InvalidRequest:
    # A union reports an error for each of its branches: the one that got the furthest into the value is meant.
    details = error.errors(include_url=False, include_context=False)
    places = [place(detail["loc"], value) for detail in details]
    index = max(range(len(details)), key=lambda position: (len(places[position]), -position))
    return _describe(details[index]["type"], details[index]["msg"], param_name(places[index]))


def _describe(kind: str, message: str, param: str | None) -> InvalidRequest:
    name = f"'{param}'" if param else "the body"
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: {name}.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: {name}.", param=param, code="unknown_parameter")
    reason = message.removeprefix("Value error, ").removeprefix("Input ")
    if kind.endswith("_type"):
        return InvalidRequest(f"Invalid type for {name}: it {reason}.", param=param, code="invalid_type")
    return InvalidRequest(f"Invalid value for {name}: it {reason}.", param=param, code="invalid_value")


def place(location: Sequence[int | str], value: Any) -> tuple[int | str, ...]:
    """The part of pydantic's location that is a way into the value: the names of union branches fall out."""
    way: list[int | str] = []
    for position, step in enumerate(location):
        if _leads_into(value, step):
            value = value[step]
        elif not (isinstance(value, Mapping) and position == len(location) - 1):
            continue
        way.append(step)
    return tuple(way)


def _leads_into(value: Any, step: int | str) -> bool:
    if isinstance(step, int):
        return isinstance(value, list) and step < len(value)
    return isinstance(value, Mapping) and step in value


def param_name(way: Sequence[int | str]) -> str | None:
    """`("input", 0, "content")` → `input[0].content`."""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way)
    return name.removeprefix(".") or None
