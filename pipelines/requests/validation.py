"""Validate requests with pydantic, with errors in OpenAI's style: `Missing required parameter: 'input'.`"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, ValidationError
from pydantic_core import PydanticCustomError

from models.platform.errors import InvalidRequest
from models.platform.texts import truncate

Model = TypeVar("Model", bound=BaseModel)


class RequestBody(BaseModel):
    """Base class of request bodies: exact JSON types, no unknown field, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def without_effect(self) -> Iterable[str]:
        """Return the known fields that have no effect in this body, for `pipelines.requests.ignored_fields`.

        A class that overrides this calls `mark_without_effect` in a validator.
        """
        return ()


#: Prefixes of pydantic's messages.
PREFIX = re.compile(r"^Value error, |^[A-Z]\w+ (?=should )")

#: Errors from which the one to report is chosen: describing a hundred thousand would block the process for seconds.
MAX_ERRORS = 1000


def _reject_unless_null(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "no model of this server supports it")


#: A parameter of OpenAI's API that is not supported here: only null is accepted.
Unsupported = Annotated[None, BeforeValidator(_reject_unless_null)]


def strict_literal(type_: type) -> BeforeValidator:
    """Validate the type of a Literal of a number or a boolean: 0 equals False in Python, but not in JSON."""

    def check(value: object) -> object:
        if value is not None and type(value) is not type_:
            raise PydanticCustomError("literal_type", f"should be a valid {'boolean' if type_ is bool else 'integer'}")
        return value

    return BeforeValidator(check)


def discriminate_by_type(
    *names: str,
    infer_type: Callable[[Mapping[str, Any]], str | None] = lambda _: None,
    groups: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Discriminator:
    """Select the member of a union whose `Tag` is `branch(name)` by the value's `type`; reject any other type.

    infer_type  returns the type of a value without one
    groups      tags that stand for several types; an error lists only those that are in `names`, too
    """
    tags = {name: branch(name) for name in names}
    tags |= {name: branch(group) for group, members in groups.items() for name in members}

    def discriminate(value: Any) -> str | None:
        type_ = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        if type_ is None and isinstance(value, Mapping):
            type_ = infer_type(value)
        return tags.get(type_) if isinstance(type_, str) else None

    # Without a context: a dict would make the union's type unhashable.
    return Discriminator(
        discriminate, custom_error_type="unsupported_value", custom_error_message=should_be_one_of(names)
    )


def should_be_one_of(names: Sequence[str]) -> str:
    """Return the message of an error that lists what a value may be."""
    supported = ", ".join(repr(name) for name in names)
    return f"should be {supported if len(names) == 1 else f'one of {supported}'}"


def discriminate_text(other: str) -> Discriminator:
    """Select `branch("text")` for a string and `branch("other")` for all else, which messages call `other`."""
    return Discriminator(
        lambda value: branch("text") if isinstance(value, str) else branch("other")
        if isinstance(value, list | Mapping | BaseModel) else None,
        custom_error_type="text_or_type", custom_error_message=f"should be a string or {other}",
    )  # fmt: skip


def branch(name: str) -> str:
    """Return the `Tag` of a union's member. Brackets distinguish it from keys in locations of errors."""
    return f"<{name}>"


def validate(model: type[Model], value: dict[str, Any]) -> Model:
    """Validate a value. Raises InvalidRequest, with the name of the wrong parameter as `param`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_request(error, value) from None


def invalid_request(error: ValidationError, value: object) -> InvalidRequest:
    """Describe the most specific of the errors."""
    if error.error_count() > MAX_ERRORS:
        return InvalidRequest(f"The request has {error.error_count()} errors.", code="invalid_value")
    # A union reports an error for each of its members: report the one that matched the value to the greatest depth.
    details = error.errors(include_url=False)
    paths = [value_path(detail["loc"], value) for detail in details]
    index = max(range(len(details)), key=lambda number: (len(paths[number]), -number))
    return _describe(details[index], paths[index])


def _describe(detail: Mapping[str, Any], path: tuple[int | str, ...]) -> InvalidRequest:
    kind, reason = detail["type"], PREFIX.sub("", detail["msg"]).replace(" after validation", "")
    if kind == "unsupported_value":
        if isinstance(detail["input"], Mapping):
            return _unsupported_type(detail["input"], reason, param_name((*path, "type")))
        kind, reason = "object_type", "should be an object"
    param = param_name(path)
    name = f"'{param}'" if param else "the body"
    if kind == "missing":
        return missing_parameter(param)
    if kind == "extra_forbidden":
        return InvalidRequest(f"Unknown parameter: {name}.", param=param, code="unknown_parameter")
    if kind == "unsupported_parameter":
        return InvalidRequest(f"Unsupported parameter: {name}; {reason}.", param=param, code="unsupported_parameter")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    what = "type" if code == "invalid_type" else "value"
    return InvalidRequest(f"Invalid {what} for {name}: it {reason}.", param=param, code=code)


def missing_parameter(param: str | None) -> InvalidRequest:
    """Return the error of a value without a required parameter; None is the body itself."""
    name = f"'{param}'" if param else "the body"
    return InvalidRequest(f"Missing required parameter: {name}.", param=param, code="missing_required_parameter")


def _unsupported_type(value: Mapping[str, Any], reason: str, param: str | None) -> InvalidRequest:
    """Describe a value whose `type` is missing or not supported, such as an image in a message."""
    if value.get("type") is None:
        return missing_parameter(param)
    message = f"Unsupported value for '{param}': {truncate(repr(value['type']))}; it {reason}."
    return InvalidRequest(message, param=param, code="unsupported_value")


def value_path(location: Sequence[int | str], value: Any) -> tuple[int | str, ...]:
    """Convert pydantic's location of an error to a path into the value, without the tags of unions."""
    path: list[int | str] = []
    for position, step in enumerate(location):
        if _contains(value, step):
            value = value[step]
        elif not (isinstance(value, Mapping) and position == len(location) - 1) or _is_tag(step):
            continue
        path.append(step)
    return tuple(path)


def _is_tag(step: int | str) -> bool:
    return isinstance(step, str) and step[:1] == "<" and step[-1:] == ">"


def _contains(value: Any, step: int | str) -> bool:
    if isinstance(step, int):
        return isinstance(value, list) and step < len(value)
    return isinstance(value, Mapping) and step in value


def param_name(path: Sequence[int | str]) -> str | None:
    """Format a path as OpenAI does: `("input", 0, "content")` → `input[0].content`."""
    name = "".join(f"[{step}]" if isinstance(step, int) else f".{truncate(step)}" for step in path)
    return name.removeprefix(".") or None
