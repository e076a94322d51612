"""The types of the route table as JSON Schemas, each named type once, below `#/components/schemas`."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from web.routing import Row

#: A row's types by what they are for: `also` is another status than the row's own.
Use = Literal["body", "query", "answer"] | int
Key = tuple[str, str, Use]


class StreamEvent(TypedDict):
    """One server-sent event. `data` is JSON that begins with its type; `id` is its sequence number, to go on from."""

    id: NotRequired[str]
    event: NotRequired[str]
    data: str


class Schemas:
    """`of(row, use)` is a schema whose references lead into what `shared` gives."""

    def __init__(self, rows: Sequence[Row], also: Sequence[type] = ()) -> None:
        inputs: list[tuple[Key, JsonSchemaMode, TypeAdapter[Any]]] = []
        for row in rows:
            inputs += [((row.method, row.path, use), mode, TypeAdapter(kind)) for use, mode, kind in _types(row)]
        inputs += [(("", kind.__name__, "answer"), "serialization", TypeAdapter(kind)) for kind in also]
        made, shared = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
        self._rows = rows
        self._made = {key: schema for (key, _), schema in made.items()}
        self._components: dict[str, Any] = shared.get("$defs", {})

    def of(self, row: Row, use: Use) -> dict[str, Any] | None:
        """The schema of one of a row's types, or None where it has none."""
        return self._made.get((row.method, row.path, use))

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema itself where this is but a reference to it."""
        reference = schema.get("$ref", "")
        found: dict[str, Any] = self._components[reference.rpartition("/")[2]] if reference else schema
        return found

    def members(self, row: Row) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """The name, schema and necessity of each parameter of a row's query."""
        schema = self.resolved(self.of(row, "query") or {})
        for name, member in schema.get("properties", {}).items():
            yield name, _without_null(member), name in schema.get("required", [])

    def shared(self) -> dict[str, Any]:
        """The named schemas, without those of queries, which are told as parameters."""
        queries = {(self.of(row, "query") or {}).get("$ref", "").rpartition("/")[2] for row in self._rows}
        return {name: schema for name, schema in self._components.items() if name not in queries}


def _types(row: Row) -> Iterator[tuple[Use, JsonSchemaMode, Any]]:
    if row.body is not None:
        yield "body", "validation", row.body
    if row.query is not None:
        yield "query", "validation", row.query
    if row.answer is not None:
        yield "answer", "serialization", row.answer
    for status, kind in row.also.items():
        if kind is not None:
            yield status, "serialization", kind


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What a query can say: a parameter that is null is one that is not given."""
    kept: dict[str, Any] = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    branches = [branch for branch in kept.pop("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        return {**kept, **branches[0]}
    return kept | ({"anyOf": branches} if branches else {})
