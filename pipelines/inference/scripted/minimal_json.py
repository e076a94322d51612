"""The smallest JSON that satisfies a JSON Schema, for an engine that understands nothing."""

from collections.abc import Mapping
from typing import Any

#: References followed into each other; a schema whose smallest value is deeper has none that ends.
MAX_DEPTH = 32

#: Values, and characters of texts, that it may have: an engine of a few thousand tokens would not say more.
MAX_SIZE = 100_000

EMPTY_VALUES: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "null": None}


def minimal_value(schema: Any) -> Any:
    """A value by the common keywords: types, properties, items, bounds, enum, const, anyOf, allOf, $ref.

    Patterns and formats are not honoured. Raises RecursionError for a schema that has no finite value, or a huge one.
    """
    return _Smallest(schema if isinstance(schema, Mapping) else {}).value(schema, 0)


class _Smallest:
    """Makes one value. A few references that fan out, or one bound, can ask for more than fits into memory."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_SIZE

    def value(self, schema: Any, depth: int) -> Any:
        """The smallest value of a part of the schema."""
        self._take(1)
        if depth > MAX_DEPTH:
            raise RecursionError("the schema's smallest value has no end")
        if not isinstance(schema, Mapping):
            return {}
        schema = _resolved(schema, self._root)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return self.value(choices[0], depth + 1)
        return self._of_type(schema, depth)

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        types = schema.get("type", "object")
        match types if isinstance(types, str) else types[0]:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.value(properties.get(name), depth + 1) for name in schema.get("required", ())}
            case "array":
                return [self.value(schema.get("items"), depth + 1) for _ in range(schema.get("minItems", 0))]
            case "string":
                self._take(int(schema.get("minLength", 0)))
                return "x" * int(schema.get("minLength", 0))
            case "integer" | "number":
                return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
            case other:
                return EMPTY_VALUES.get(other)

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise RecursionError("the schema's smallest value is too large")


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with what it refers to, and what it must satisfy besides, in one."""
    merged = dict(schema)
    for _ in range(MAX_DEPTH):
        if not isinstance(path := merged.pop("$ref", None), str):
            break
        found: Any = root
        for step in path.removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {})
        merged = {**found, **merged}
    for part in merged.pop("allOf", ()):
        more = _resolved(part, root)
        properties = {**merged.get("properties", {}), **more.get("properties", {})}
        required = [*merged.get("required", ()), *more.get("required", ())]
        merged = {**more, **merged, "properties": properties, "required": list(dict.fromkeys(required))}
    return merged
