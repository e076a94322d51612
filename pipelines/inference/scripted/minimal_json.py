"""Build the smallest JSON that satisfies a JSON Schema."""

from collections.abc import Mapping
from typing import Any

#: Nested references that are followed; a schema whose smallest value is deeper has no finite one.
MAX_DEPTH = 32

#: Values and characters of texts in the result: an engine with a context of a few thousand tokens could not use more.
MAX_SIZE = 100_000

EMPTY_VALUES: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "null": None}


def minimal_value(schema: Any) -> Any:
    """Build a value by the common keywords: types, properties, items, bounds, enum, const, anyOf, allOf, $ref.

    Patterns and formats are ignored. Raises RecursionError for a schema without a finite value, or with a huge one.
    """
    return _Builder(schema if isinstance(schema, Mapping) else {}).value(schema, 0)


class _Builder:
    """Builds one value and limits its size: a few references that fan out, or one bound, could exhaust the memory."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._remaining = MAX_SIZE

    def value(self, schema: Any, depth: int) -> Any:
        """Build the smallest value of a part of the schema."""
        self._reserve(1)
        if depth > MAX_DEPTH:
            raise RecursionError("The schema has no finite value")
        if not isinstance(schema, Mapping):
            return {}
        schema = _merged(schema, self._root)
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
                self._reserve(int(schema.get("minLength", 0)))
                return "x" * int(schema.get("minLength", 0))
            case "integer" | "number":
                return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
            case other:
                return EMPTY_VALUES.get(other)

    def _reserve(self, size: int) -> None:
        self._remaining -= size
        if self._remaining < 0:
            raise RecursionError("The schema's smallest value is too large")


def _merged(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge the schema with its references and its `allOf`."""
    merged = dict(schema)
    for _ in range(MAX_DEPTH):
        if not isinstance(path := merged.pop("$ref", None), str):
            break
        target: Any = root
        for step in path.removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {})
        merged = {**target, **merged}
    for part in merged.pop("allOf", ()):
        more = _merged(part, root)
        properties = {**merged.get("properties", {}), **more.get("properties", {})}
        required = [*merged.get("required", ()), *more.get("required", ())]
        merged = {**more, **merged, "properties": properties, "required": list(dict.fromkeys(required))}
    return merged
