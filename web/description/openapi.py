"""`GET /openapi.json`: the route table and its types, told as OpenAPI 3.1.

It comes from what the door runs on, so that it can't promise what the door doesn't do. It is made when somebody first
asks for it, and kept: the table does not change while a process lives.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from importlib.metadata import version
from typing import Any

import orjson
from starlette.responses import Response

from web.description import operations
from web.description.schemas import Schemas, StreamEvent
from web.http.errors import ErrorAnswer
from web.routing import Call, Row

ABOUT = """\
A self-hosted backend for AI assistants in which every piece of work, a chat turn included, is a durable job.

The addresses below `/v1` that OpenAI has too speak as OpenAI's do: its official clients work unmodified. A client may
leave an event stream and join it again at any point. Every refusal comes in one envelope, and every answer has an
`x-request-id` to quote.
"""

LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}

SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A person's access token: `POST /signup` and `POST /login` give one.",
    },
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "sk-…",
        "description": "An application's API key, which does what its scopes allow. `POST /v1/api_keys` gives one.",
    },
}


class Description:
    """The table as bytes for the wire, with their tag."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    @cached_property
    def content(self) -> bytes:
        """The document as JSON."""
        return orjson.dumps(document(self._rows))

    @cached_property
    def etag(self) -> str:
        """Changes with the document (RFC 9110, 8.8.3)."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def read(call: Call) -> Response:
    """`GET /openapi.json`: this description of every address."""
    described = _whole_table()
    headers = {"etag": described.etag, "cache-control": "no-cache"}
    if described.etag in call.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(described.content, headers=headers, media_type="application/json")


@cache
def _whole_table() -> Description:
    from web.routes import ROUTES  # here, since the table names this module

    return Description(ROUTES)


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """The OpenAPI document of a route table."""
    schemas = Schemas(rows, also=[ErrorAnswer, StreamEvent])
    names = operations.names(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        methods = paths.setdefault(operations.template(row.path), {})
        methods[row.method.lower()] = operations.describe(row, schemas, names[row.method, row.path])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sangha", "version": version("sangha"), "description": ABOUT, "license": LICENSE},
        "servers": [{"url": "/"}],
        "tags": _tags(paths),
        "paths": paths,
        "components": {**operations.COMPONENTS, "schemas": schemas.shared(), "securitySchemes": SECURITY},
    }


def _tags(paths: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    names = {tag for methods in paths.values() for operation in methods.values() for tag in operation["tags"]}
    return [{"name": name} for name in sorted(names)]
