"""Decide whether any finite JSON satisfies a schema: a required property that requires itself never ends.

llguidance accepts such a schema. Its grammar forces tokens without end, llama.cpp gives up at 50,000, and the answer is
no longer constrained.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.inference.grammars.subschemas import subschemas


def has_finite_value(root: Mapping[str, Any]) -> bool:
    """Return False if every value that satisfies the schema contains itself.

    Computes the least fixed point: a schema is finite once everything that it requires is. Takes time that is
    quadratic in the number of schemas at worst, in the child process.
    """
    schemas = [schema for _, schema in subschemas(root)]
    finite: set[int] = set()
    pending = schemas
    while True:
        found = {id(schema) for schema in pending if _is_finite(schema, root, finite)}
        if not found:
            return id(root) in finite
        finite |= found
        pending = [schema for schema in pending if id(schema) not in found]


def _is_finite(schema: Mapping[str, Any], root: Mapping[str, Any], finite: set[int]) -> bool:
    """Return whether all that a value must contain is known to be finite."""
    if "const" in schema or "enum" in schema:
        return True
    needed = [*_list(schema.get("allOf")), *_required_values(schema)]
    if isinstance(reference := schema.get("$ref"), str):
        needed.append(_resolve(reference, root))
    choices = [_list(schema.get(keyword)) for keyword in ("anyOf", "oneOf") if _list(schema.get(keyword))]
    return _all_known(needed, finite) and all(any(_known(each, finite) for each in choice) for choice in choices)


def _required_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return the schemas of the properties or items that a value cannot lack."""
    if schema.get("type") == "object" and isinstance(properties := schema.get("properties"), Mapping):
        return [properties[name] for name in _list(schema.get("required")) if _is_name(name) and name in properties]
    least = schema.get("minItems")
    if schema.get("type") == "array" and isinstance(least, int) and least > 0:
        first = [*_list(schema.get("prefixItems")), *_list(schema.get("items"))][:least]
        return first if len(first) == least else [*first, schema.get("items")]
    return []


def _is_name(value: object) -> bool:
    return isinstance(value, str)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _known(schema: object, finite: set[int]) -> bool:
    return not isinstance(schema, Mapping) or id(schema) in finite


def _all_known(schemas: Iterable[object], finite: set[int]) -> bool:
    return all(_known(schema, finite) for schema in schemas)


def _resolve(reference: str, root: Mapping[str, Any]) -> object:
    """Return the target of a local reference, or None: the compiler reports those that do not exist (RFC 6901)."""
    if not reference.startswith("#"):
        return None
    target: object = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, Mapping):
            target = target.get(name)
        else:
            return None
    return target
