"""Walk the schemas inside a JSON Schema, without the values of `const`, `enum`, `default` and `examples`."""

from collections.abc import Iterator, Mapping
from typing import Any

#: Keywords with a schema, with a list of schemas, and with an object of schemas by name.
ONE = ("items", "additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties", "contains",
       "propertyNames", "not", "if", "then", "else")  # fmt: skip
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def subschemas(schema: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all schemas in a schema, itself first, each with the last name on the path to it: `''` at the root."""
    pending = [("", schema)]
    while pending:
        name, entry = pending.pop()
        if isinstance(entry, Mapping):
            yield name, entry
            pending += _children(name, entry)


def _children(name: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for keyword in ONE:
        yield name, schema.get(keyword)
    for keyword in LISTS:
        if isinstance(elements := schema.get(keyword), list):
            yield from ((name, element) for element in elements)
    for keyword in NAMED:
        if isinstance(entries := schema.get(keyword), Mapping):
            yield from entries.items()


def without_patterns(schema: Any, patterns: frozenset[str]) -> Any:
    """Return a copy of a schema without these regular expressions."""
    if not isinstance(schema, Mapping):
        return schema
    copy = dict(schema)
    if copy.get("pattern") in patterns:
        del copy["pattern"]
    for keyword in ONE:
        if isinstance(copy.get(keyword), Mapping):
            copy[keyword] = without_patterns(copy[keyword], patterns)
    for keyword in LISTS:
        if isinstance(copy.get(keyword), list):
            copy[keyword] = [without_patterns(element, patterns) for element in copy[keyword]]
    for keyword in NAMED:
        if isinstance(copy.get(keyword), Mapping):
            copy[keyword] = _named_without(keyword, copy[keyword], patterns)
    return copy


def _named_without(keyword: str, entries: Mapping[str, Any], patterns: frozenset[str]) -> dict[str, Any]:
    dropped = patterns if keyword == "patternProperties" else frozenset[str]()
    return {name: without_patterns(entry, patterns) for name, entry in entries.items() if name not in dropped}
