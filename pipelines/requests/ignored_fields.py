"""Ignore the unknown fields of a body, and return their names.

A strict validation comes first: it is all that a body without unknown fields needs. Where it fails, a second one
accepts unknown fields, which are then collected and removed. So only bodies that need it are validated twice, and the
errors of known fields are those of a strict validation.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from models.platform.texts import truncate
from pipelines.requests.validation import Model, RequestBody, invalid_request

#: Bytes of the list of ignored fields as the value of a header.
MAX_HEADER = 1024

#: Characters that are replaced in names in the header: the separator, and all but visible ASCII characters and spaces.
UNSAFE = re.compile(r"[^ -+\--~]")


@dataclass(slots=True)
class Tolerance:
    """The validation context of a body whose unknown parts are ignored.

    has_ineffective_fields  a known field has no effect in this body
    hints                   the names of fields whose values are unknown, and ignored
    """

    has_ineffective_fields: bool = False
    hints: list[str] = field(default_factory=list)


def is_tolerant(info: ValidationInfo) -> bool:
    """Return whether unknown parts of the body are ignored."""
    return isinstance(info.context, Tolerance)


def mark_without_effect(info: ValidationInfo) -> None:
    """Record that the body has known fields without effect, so that `without_effect` is called after the validation."""
    if isinstance(info.context, Tolerance):
        info.context.has_ineffective_fields = True


def ignore_hint(info: ValidationInfo) -> None:
    """Name a field whose value is unknown."""
    if isinstance(info.context, Tolerance):
        info.context.hints.append(info.field_name or "")


def _ignore_unless_valid(value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return validate(value)
    except ValidationError:
        if not is_tolerant(info):
            raise
        ignore_hint(info)
        return None


#: A field that changes no answer: an unknown value of it is ignored and named.
Hint = WrapValidator(_ignore_unless_valid)


def validate_tolerantly(model: type[Model], value: dict[str, Any]) -> tuple[Model, list[str]]:
    """Validate a value without its unknown fields. Returns the model and the paths of the ignored parts.

    Raises InvalidRequest, with the name of the wrong parameter as `param`.
    """
    tolerance = Tolerance()
    try:
        body = model.model_validate(value, context=tolerance)
    except ValidationError:
        return _without_unknown_fields(model, value)
    return body, [*(_ignored_parts(body, "") if tolerance.has_ineffective_fields else ()), *tolerance.hints]


def header_value(names: Iterable[str]) -> str:
    """Format names for a header of at most `MAX_HEADER` bytes."""
    safe = [UNSAFE.sub("?", name) for name in names]
    length, kept = 0, list[str]()
    for name in safe:
        length += len(name) + len(", ")
        if length > MAX_HEADER - len(", and 100000 more"):
            return ", ".join([*kept, f"and {len(safe) - len(kept)} more"])
        kept.append(name)
    return ", ".join(kept)


def _without_unknown_fields(model: type[Model], value: dict[str, Any]) -> tuple[Model, list[str]]:
    tolerance = Tolerance()
    try:
        body = model.model_validate(value, extra="allow", context=tolerance)
    except ValidationError as error:
        raise invalid_request(error, value) from None
    return body, [*_ignored_parts(body, ""), *tolerance.hints]


def _ignored_parts(model: BaseModel, path: str) -> Iterator[str]:
    """Yield the path of each ignored part of a model, and remove its unknown fields."""
    if unknown := model.__pydantic_extra__:
        if model.model_config.get("extra") != "ignore":
            yield from (_join(path, truncate(name)) for name in unknown)
        unknown.clear()
    if isinstance(model, RequestBody):
        yield from (_join(path, name) for name in model.without_effect())
    for name, definition in type(model).model_fields.items():
        yield from _ignored_in(getattr(model, name), _join(path, definition.alias or name))


def _ignored_in(value: object, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from _ignored_parts(value, path)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _ignored_in(element, f"{path}[{index}]")


def _join(path: str, name: str) -> str:
    """Append a field's name, or a remark in parentheses."""
    separator = " " if name.startswith("(") else "."
    return f"{path}{separator}{name}" if path else name
