"""JSON Schemas of the route table's types, each named type once, below `#/components/schemas`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from typing_extensions import TypedDict

from web.api.routing import Route

#: What one of a route's types is for; a number is a status among the route's `other_responses`.
Use = Literal["body", "query", "response"] | int
Key = tuple[str, str, Use]


class StreamEvent(TypedDict):
    """One server-sent event. `data` is JSON that begins with its type; `id` is its sequence number, to resume from."""

    id: NotRequired[str]
    event: NotRequired[str]
    data: str


class Schemas:
    """Schemas of all types of a route table. References in them point to the schemas that `shared` returns."""

    def __init__(self, routes: Sequence[Route], also: Sequence[type] = ()) -> None:
        inputs: list[tuple[Key, JsonSchemaMode, TypeAdapter[Any]]] = []
        for route in routes:
            inputs += [
                ((route.method, route.path, use), mode, TypeAdapter(type_)) for use, mode, type_ in _types(route)
            ]
        inputs += [(("", type_.__name__, "response"), "serialization", TypeAdapter(type_)) for type_ in also]
        schemas, shared = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
        self._routes = routes
        self._schemas = {key: schema for (key, _), schema in schemas.items()}
        self._shared: dict[str, Any] = shared.get("$defs", {})
        self._open(
            [self._schemas[route.method, route.path, "body"] for route in routes if ignores_unknown_fields(route)]
        )

    def _open(self, schemas: Iterable[Any]) -> None:
        """Permit unknown fields in these schemas, and in those that they refer to."""
        pending, seen = [*schemas], set[str]()
        while pending:
            match pending.pop():
                case {"$ref": str(reference)}:
                    name = reference.rpartition("/")[2]
                    pending += [self._shared[name]] if name not in seen else []
                    seen.add(name)
                case dict() as schema:
                    if schema.get("additionalProperties") is False:
                        del schema["additionalProperties"]
                    pending += schema.values()
                case list() as parts:
                    pending += parts

    def of(self, route: Route, use: Use) -> dict[str, Any] | None:
        """Return the schema of one of a route's types, or None where it has none."""
        return self._schemas.get((route.method, route.path, use))

    def resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema that a reference points to, or the schema itself if it is not a reference."""
        reference = schema.get("$ref", "")
        resolved: dict[str, Any] = self._shared[reference.rpartition("/")[2]] if reference else schema
        return resolved

    def query_parameters(self, route: Route) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """Yield name, schema and whether it is required for each parameter of a route's query."""
        schema = self.resolve(self.of(route, "query") or {})
        for name, member in schema.get("properties", {}).items():
            yield name, _without_null(member), name in schema.get("required", [])

    def shared(self) -> dict[str, Any]:
        """Return the named schemas, without those of queries, which are described as parameters."""
        queries = {(self.of(route, "query") or {}).get("$ref", "").rpartition("/")[2] for route in self._routes}
        return {name: schema for name, schema in self._shared.items() if name not in queries}


#: The beginnings of the paths of OpenAI's API on which unknown fields are ignored.
TOLERANT_PATHS = ("/v1/responses", "/v1/conversations", "/v1/chat/", "/v1/completions", "/v1/embeddings")


def ignores_unknown_fields(route: Route) -> bool:
    """Return whether the route ignores unknown fields of its body."""
    return route.body is not None and route.path.startswith(TOLERANT_PATHS)


def _types(route: Route) -> Iterator[tuple[Use, JsonSchemaMode, Any]]:
    if route.body is not None:
        yield "body", "validation", route.body
    if route.query is not None:
        yield "query", "validation", route.query
    if route.response is not None:
        yield "response", "serialization", route.response
    for status, type_ in route.other_responses.items():
        if type_ is not None:
            yield status, "serialization", type_


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove null from a query parameter's schema: a query cannot contain null, only omit the parameter."""
    kept: dict[str, Any] = {name: value for name, value in schema.items() if not (name == "default" and value is None)}
    branches = [branch for branch in kept.pop("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        return {**kept, **branches[0]}
    return kept | ({"anyOf": branches} if branches else {})
