"""JSON Schemas of callers: bounded, valid, and such that a grammar can hold an answer to them.

Checked at the door, so that a schema that the engine can't follow is refused by name and not found out in mid-answer.
A keyword that the engine would pass over is refused where the caller asks for `strict`; otherwise it is a wish.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidRequest

#: Schemas and members that one schema may have, and steps that its references may take without naming a type.
MOST_PARTS = 5_000

TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})

#: Keywords whose value is a schema, a non-empty list of schemas, or an object of schemas.
ONE = ("items", "additionalProperties")
SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
NAMED = ("properties", "$defs", "definitions")

#: Keywords that constrain an answer, and that no engine here turns into a grammar.
PASSED_OVER = frozenset(
    """not if then else patternProperties propertyNames contains minContains maxContains uniqueItems multipleOf
    minProperties maxProperties dependentRequired dependentSchemas dependencies unevaluatedItems
    unevaluatedProperties $dynamicRef $recursiveRef additionalItems""".split()
)

COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

#: What regular expressions have and regular languages don't: looking around, and back.
IRREGULAR = re.compile(r"\(\?(?!:)|\\[1-9]")


def check_schema(schema: Mapping[str, Any], param: str, *, strict: bool = False) -> None:
    """Raises InvalidRequest that names the place in the schema."""
    _Check(schema, strict).run(param)


class _Check:
    """One schema under check. It counts what it looks at, so that no schema costs much."""

    def __init__(self, root: Mapping[str, Any], strict: bool) -> None:
        self.root = root
        self.strict = strict
        self.parts = 0

    def run(self, param: str) -> None:
        """Look at every schema in it, in any order: no recursion, however deep it is."""
        stack: list[tuple[str, Any]] = [(param, self.root)]
        while stack:
            place, schema = stack.pop()
            self._count(place)
            if not isinstance(schema, Mapping):
                raise _wrong(place, "should be an object: a schema")
            self._keywords(place, schema)
            self._goes_on(place, schema)
            stack.extend(self._inner(place, schema))

    def _count(self, place: str) -> None:
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise _wrong(place, f"is too large or refers to itself: a schema may have {MOST_PARTS} parts")

    def _inner(self, place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for keyword in ONE:
            if keyword in schema and not _is_plain(keyword, schema[keyword]):
                yield f"{place}.{keyword}", schema[keyword]
        for keyword in SEVERAL:
            for position, inner in enumerate(_list(place, schema, keyword)):
                yield f"{place}.{keyword}[{position}]", inner
        for keyword in NAMED:
            for name, inner in _object(place, schema, keyword).items():
                yield f"{place}.{keyword}.{name}", inner

    def _keywords(self, place: str, schema: Mapping[str, Any]) -> None:
        if self.strict and (unknown := PASSED_OVER & schema.keys()):
            raise _wrong(f"{place}.{min(unknown)}", "can't be enforced: leave it out, or set 'strict' to false")
        _check_type(place, schema)
        _check_numbers(place, schema)
        _check_pattern(place, schema)
        if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
            raise _wrong(f"{place}.enum", "should be a list of at least one value")
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise _wrong(f"{place}.required", "should be a list of names")

    def _goes_on(self, place: str, schema: Mapping[str, Any]) -> None:
        """References are followed as far as an engine follows them before it meets something to write."""
        stack = [(place, schema)]
        while stack:
            here, inner = stack.pop()
            for target_place, target in self._same_value(here, inner):
                self._count(place)
                stack.append((target_place, target))

    def _same_value(self, place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The schemas that must hold for the very value that this one is about."""
        if "$ref" in schema:
            yield f"{place}.$ref", self._target(f"{place}.$ref", schema["$ref"])
        for keyword in ("anyOf", "oneOf", "allOf"):
            for inner in _list(place, schema, keyword):
                if isinstance(inner, Mapping):
                    yield place, inner

    def _target(self, place: str, reference: Any) -> Mapping[str, Any]:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _wrong(place, "should begin with '#/': only references into the same schema are followed")
        found: Any = self.root
        for step in reference[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            raise _wrong(place, "leads to no schema")
        return found


def _is_plain(keyword: str, value: Any) -> bool:
    """`additionalProperties` may be a boolean, and `items` a list, which drafts before 2020-12 take for a tuple."""
    return isinstance(value, bool) if keyword == "additionalProperties" else isinstance(value, list)


def _check_type(place: str, schema: Mapping[str, Any]) -> None:
    given = schema.get("type", "object")
    types = given if isinstance(given, list) and given else [given]
    if not all(isinstance(name, str) and name in TYPES for name in types):
        raise _wrong(f"{place}.type", f"should be one of {', '.join(sorted(TYPES))}, or a list of them")


def _check_numbers(place: str, schema: Mapping[str, Any]) -> None:
    for keyword in (*COUNTS, *NUMBERS):
        value = schema.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int if keyword in COUNTS else int | float):
            raise _wrong(f"{place}.{keyword}", "should be a number")
        if keyword in COUNTS and not 0 <= value <= 2**31:
            raise _wrong(f"{place}.{keyword}", "should be a natural number")


def _check_pattern(place: str, schema: Mapping[str, Any]) -> None:
    pattern = schema.get("pattern", "")
    try:
        re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError):
        raise _wrong(f"{place}.pattern", "should be a regular expression") from None
    if IRREGULAR.search(pattern):
        raise _wrong(f"{place}.pattern", "can't be enforced: it looks around, or back")


def _list(place: str, schema: Mapping[str, Any], keyword: str) -> list[Any]:
    found = schema.get(keyword)
    if keyword in schema and not (isinstance(found, list) and found):
        raise _wrong(f"{place}.{keyword}", "should be a list of at least one schema")
    return found or []


def _object(place: str, schema: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    found = schema.get(keyword, {})
    if not isinstance(found, Mapping):
        raise _wrong(f"{place}.{keyword}", "should be an object of schemas")
    return found


def _wrong(place: str, reason: str) -> InvalidRequest:
    # A place in a schema may be as long as the body; the name of a parameter is for reading.
    name = place if len(place) <= 200 else f"{place[:100]}…{place[-99:]}"
    return InvalidRequest(f"Invalid schema: '{name}' {reason}.", param=name, code="invalid_json_schema")
