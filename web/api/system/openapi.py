"""`GET /openapi.json`: the route table and its types as an OpenAPI 3.1 document.

It is generated from the mounted routes, so it cannot differ from what they do.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import orjson
from starlette.responses import Response

from pipelines.requests.errors import ErrorEnvelope
from web.api.request import Request
from web.api.routing import Route
from web.api.system import openapi_operations
from web.api.system.openapi_schemas import Schemas, StreamEvent

ABOUT = """\
A self-hosted backend for AI assistants in which every piece of work, a chat turn included, is a durable job.

The routes below `/v1` that OpenAI's API has too are compatible with it: its official clients work unmodified. A client
may disconnect from an event stream and resume it at any point. Every error has the same envelope, and every response
has an `x-request-id` to quote in reports.
"""

LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}

SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A user's access token, from `POST /signup` or `POST /login`.",
    },
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "sk-…",
        "description": "An application's API key, limited to its scopes, from `POST /v1/api_keys`.",
    },
}


def read(request: Request) -> Response:
    """`GET /openapi.json`: read this OpenAPI document."""
    return request.platform.openapi.response(request.headers)


def render(routes: Sequence[Route]) -> bytes:
    """Render the OpenAPI document of a route table as JSON."""
    return orjson.dumps(document(routes))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Build the OpenAPI document of a route table."""
    schemas = Schemas(routes, also=[ErrorEnvelope, StreamEvent])
    ids = openapi_operations.operation_ids(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not route.in_openapi:
            continue
        operations = paths.setdefault(openapi_operations.template(route.path), {})
        operation_id = ids[route.method, route.path]
        operations[route.method.lower()] = openapi_operations.operation(route, schemas, operation_id)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sangha", "version": version("sangha"), "description": ABOUT, "license": LICENSE},
        "servers": [{"url": "/"}],
        "tags": _tags(paths),
        "paths": paths,
        "components": {**openapi_operations.COMPONENTS, "schemas": schemas.shared(), "securitySchemes": SECURITY},
    }


def _tags(paths: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    names = {tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"]}
    return [{"name": name} for name in sorted(names)]
