"""Types for what comes in, and errors in OpenAI's style when it isn't that: `Missing required parameter: 'input'.`"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, ValidationError
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams

from models.platform.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


class Body(BaseModel):
    """The base of every request body: exact JSON types, no unknown field, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """The base of every query: texts are turned into numbers and booleans; no unknown parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


#: What pydantic's reasons begin with.
PREFACE = re.compile(r"^Value error, |^[A-Z]\w+ (?=should )")

#: Mistakes among which the one to name is looked for: listing a hundred thousand would hold everybody up for seconds.
MOST_MISTAKES = 1000

#: Characters of the caller's own words that an error says again.
LONGEST_ECHO = 100


def _refuse_unless_null(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "no model here can honour it")


#: A parameter of OpenAI's that nothing here can honour: null, or refused by its name.
Unsupported = Annotated[None, BeforeValidator(_refuse_unless_null)]


def exactly(kind: type) -> BeforeValidator:
    """For a Literal of a number or a boolean: in Python 0 is False and 1 is True; in JSON they are not."""

    def check(value: object) -> object:
        if value is not None and type(value) is not kind:
            raise PydanticCustomError("literal_type", f"should be a valid {'boolean' if kind is bool else 'integer'}")
        return value

    return BeforeValidator(check)


#: In a query, one value where several could stand.
listed = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)


def by_type(*names: str, unsaid: Callable[[Mapping[str, Any]], str | None] = lambda _: None) -> Discriminator:
    """Picks the branch of a union whose `Tag` is `tag(name)` by the value's `type`; anything else is refused by it.

    `unsaid` tells the type of a value that doesn't. Tags are no way into a value: no caller has such keys.
    """

    def find(value: Any) -> str | None:
        given = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        if given is None and isinstance(value, Mapping):
            given = unsaid(value)
        return tag(given) if isinstance(given, str) and given in names else None

    supported = ", ".join(repr(name) for name in names)
    message = f"should be {supported if len(names) == 1 else f'one of {supported}'}"
    # Without a context: a dict would make the union's type unhashable.
    return Discriminator(find, custom_error_type="unsupported_value", custom_error_message=message)


def text_or(other: str) -> Discriminator:
    """Picks between `tag("text")` for a string and `tag("other")` for the rest, which should be `other`."""
    return Discriminator(
        lambda value: tag("text") if isinstance(value, str) else tag("other")
        if isinstance(value, list | Mapping | BaseModel) else None,
        custom_error_type="text_or_type", custom_error_message=f"should be a string or {other}",
    )  # fmt: skip


def tag(name: str) -> str:
    """The name of a union's branch, as no key of a caller's is named."""
    return f"<{name}>"


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
    if error.error_count() > MOST_MISTAKES:
        return InvalidRequest(f"The request is wrong in {error.error_count()} places.", code="invalid_value")
    # A union reports an error for each of its branches: the one that got the furthest into the value is meant.
    details = error.errors(include_url=False)
    places = [place(detail["loc"], value) for detail in details]
    index = max(range(len(details)), key=lambda position: (len(places[position]), -position))
    return _describe(details[index], places[index])


def _describe(detail: Mapping[str, Any], way: tuple[int | str, ...]) -> InvalidRequest:
    kind, reason = detail["type"], PREFACE.sub("", detail["msg"]).replace(" after validation", "")
    if kind == "unsupported_value":
        if isinstance(detail["input"], Mapping):
            return _unsupported_type(detail["input"], reason, param_name((*way, "type")))
        kind, reason = "object_type", "should be an object"
    param = param_name(way)
    name = f"'{param}'" if param else "the body"
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: {name}.", param=param, code="missing_required_parameter")
    if kind == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: {name}.", param=param, code="unknown_parameter")
    if kind == "unsupported_parameter":
        return InvalidRequest(f"Unsupported parameter: {name}; {reason}.", param=param, code="unsupported_parameter")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    what = "type" if code == "invalid_type" else "value"
    return InvalidRequest(f"Invalid {what} for {name}: it {reason}.", param=param, code=code)


def _unsupported_type(given: Mapping[str, Any], reason: str, param: str | None) -> InvalidRequest:
    """A member of a union that has no branch here, such as a picture in a message."""
    if given.get("type") is None:
        return InvalidRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    message = f"Unsupported value for '{param}': {cut(repr(given['type']))}; it {reason}."
    return InvalidRequest(message, param=param, code="unsupported_value")


def cut(text: str) -> str:
    """A text of the caller's, no longer than an error should be."""
    return text if len(text) <= LONGEST_ECHO else f"{text[:LONGEST_ECHO]}…"


def place(location: Sequence[int | str], value: Any) -> tuple[int | str, ...]:
    """The part of pydantic's location that is a way into the value: the names of union branches fall out."""
    way: list[int | str] = []
    for position, step in enumerate(location):
        if _leads_into(value, step):
            value = value[step]
        elif not (isinstance(value, Mapping) and position == len(location) - 1) or _is_tag(step):
            continue
        way.append(step)
    return tuple(way)


def _is_tag(step: int | str) -> bool:
    return isinstance(step, str) and step[:1] == "<" and step[-1:] == ">"


def _leads_into(value: Any, step: int | str) -> bool:
    if isinstance(step, int):
        return isinstance(value, list) and step < len(value)
    return isinstance(value, Mapping) and step in value


def param_name(way: Sequence[int | str]) -> str | None:
    """`("input", 0, "content")` → `input[0].content`."""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{cut(step)}" for step in way)
    return name.removeprefix(".") or None
