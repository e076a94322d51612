"""Describe one row of the route table as an OpenAPI operation."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from web.api.routing import Route
from web.api.system.openapi_schemas import Schemas, ignores_unknown_fields

#: A path parameter in Starlette's notation, such as `{model:path}`.
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

#: The routes that an endpoint's docstring begins with.
ROUTE = re.compile(r"^(?:`[A-Z]+ /[^`]*`(?:, | and )?)+[:.]?\s*")

#: A docstring's sentence for Python callers.
RAISES = re.compile(r"\s*\bRaises [A-Z][^.]*\.")

HEADERS = {
    "RequestId": {"description": "Identifies the request in logs and reports.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds after which to retry.", "schema": {"type": "string"}},
    "RateLimitLimit": {"description": "The limit per minute.", "schema": {"type": "string"}},
    "RateLimitRemaining": {"description": "What remains of the limit.", "schema": {"type": "string"}},
    "RateLimitReset": {
        "description": "Time until the whole limit is available, as `1.5s`.",
        "schema": {"type": "string"},
    },
    "SanghaIgnored": {
        "description": "The fields of the body that were ignored, such as `client_metadata, messages[1].id`.",
        "schema": {"type": "string"},
    },
    "ETag": {"description": "Changes with the content.", "schema": {"type": "string"}},
}

LIMITS = {
    f"x-ratelimit-{what}-{of}": {"$ref": f"#/components/headers/RateLimit{what.title()}"}
    for what in ("limit", "remaining", "reset")
    for of in ("requests", "tokens")
}

REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
IGNORED = {"x-sangha-ignored": {"$ref": "#/components/headers/SanghaIgnored"}}
RETRY_AFTER = {"retry-after": {"$ref": "#/components/headers/RetryAfter"}}

#: Descriptions of the error responses, by status.
ERRORS = {
    400: "The request is malformed or cannot be fulfilled; `param` names the field.",
    401: "Credentials are missing or invalid.",
    403: "The caller does not have the required rights.",
    404: "The account has no such object.",
    408: "The body took too long to arrive.",
    409: "The object exists already, or its state does not allow this.",
    413: "The body, or a part of it, exceeds its limit.",
    422: "The request contradicts an earlier one, such as another body under the same Idempotency-Key.",
    429: "A limit of the account, the API key or the IP address was reached.",
    503: "A required service is unavailable at the moment.",
}

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeats with the same key and body create one object and get the same response.",
    "schema": {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255},
}

LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The sequence number after which to resume the stream; `starting_after` takes precedence.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}

SANGHA_EVENTS = {
    "name": "X-Sangha-Events",
    "in": "header",
    "description": "`all`: stream every event of the journal, also of types that OpenAI's API does not have.",
    "schema": {"type": "string", "enum": ["all"]},
}

SANGHA_STRICT = {
    "name": "X-Sangha-Strict",
    "in": "header",
    "description": "`1`: unknown fields of the body are errors. Without it they are ignored and named.",
    "schema": {"type": "string", "enum": ["1"]},
}

ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}

#: Routes of a single object that an account may not have.
MAY_BE_MISSING = {"/billing/subscription", "/billing/subscription/resume"}


def _error_response(status: int) -> dict[str, Any]:
    retry = RETRY_AFTER if status in (429, 503) else {}
    return {"description": ERRORS[status], "headers": {**REQUEST_ID, **retry}, "content": ERROR_CONTENT}


def _reference(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


COMPONENTS = {
    "headers": HEADERS,
    "responses": {_reference(status): _error_response(status) for status in ERRORS},
    "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY, "LastEventId": LAST_EVENT_ID, "SanghaEvents": SANGHA_EVENTS,
                   "SanghaStrict": SANGHA_STRICT},
}  # fmt: skip


def template(path: str) -> str:
    """Convert a path to OpenAPI's notation: `/v1/models/{model:path}` → `/v1/models/{model}`."""
    return PARAMETER.sub(r"{\1}", path)


def operation(route: Route, schemas: Schemas, operation_id: str) -> dict[str, Any]:
    """Describe a route."""
    summary, text = _summary(route)
    operation = {
        "operationId": operation_id,
        "tags": [tag(route)],
        "summary": summary,
        "description": f"{text}\n\n{_rights(route)}".strip(),
        "parameters": list(_parameters(route, schemas)),
        "responses": {str(route.status): _success(route, schemas), **_other_responses(route, schemas)},
        "security": _security(route),
        "x-sangha-rights": {"role": route.rights.role, "scope": route.rights.scope, "operator": route.rights.operator},
    }
    return operation | _body(route, schemas)


def operation_ids(routes: Sequence[Route]) -> dict[tuple[str, str], str]:
    """Name each operation after its module and endpoint, such as `responses_create`; where several routes share an
    endpoint, the last part of the path is appended.
    """
    uses = Counter(route.endpoint for route in routes)

    def operation_id(route: Route) -> str:
        name = f"{_module(route)}_{route.endpoint.__name__}"
        return f"{name}_{route.path.rpartition('/')[2]}" if uses[route.endpoint] > 1 else name

    return {(route.method, route.path): operation_id(route) for route in routes}


def tag(route: Route) -> str:
    """Return the group of an operation: the first part of its path, or its module for a path with one part."""
    parts = route.path.removeprefix("/v1").strip("/").split("/")
    return parts[0].strip(".") if len(parts) > 1 or route.path.startswith("/v1/") else _module(route)


def error_statuses(route: Route) -> Iterator[int]:
    """Yield the statuses of the errors that a route can respond with."""
    authenticated, changes = not route.rights.public, route.method != "GET"
    has_body = route.body is not None or bool(route.upload_type) or route.form is not None
    possible = {
        400: True,  # a URL with a NUL character is rejected everywhere
        401: authenticated or changes,
        403: authenticated or changes,
        404: "{" in route.path or route.body is not None or route.path in MAY_BE_MISSING,
        408: has_body,
        409: changes,
        413: has_body,
        422: route.creates,
        429: True,
        503: True,
    }
    return (status for status, is_possible in possible.items() if is_possible)


def _module(route: Route) -> str:
    return route.endpoint.__module__.rpartition(".")[2]


def _summary(route: Route) -> tuple[str, str]:
    """Split an endpoint's docstring into a title and a text, without the route that it begins with."""
    text = RAISES.sub("", ROUTE.sub("", getdoc(route.endpoint) or "")).strip()
    first, _, rest = text.partition("\n\n")
    title = " ".join(first.split()).removesuffix(".") or route.endpoint.__name__.replace("_", " ")
    return title[0].upper() + title[1:], rest


def _rights(route: Route) -> str:
    rights = route.rights
    if rights.public:
        return "Public: no authentication is required."
    credential = (
        f"API keys need the scope `{rights.scope}`."
        if rights.scope
        else "Requires a user's access token; API keys are rejected."
    )
    role = "Only for operators of the installation." if rights.operator else f"Requires the role `{rights.role}`."
    return f"{role} {credential}"


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.rights.public:
        return []
    return [{"token": []}, *([{"key": [str(route.rights.scope)]}] if route.rights.scope else [])]


def _parameters(route: Route, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for name in PARAMETER.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for name, schema, required in schemas.query_parameters(route):
        yield {"name": name, "in": "query", "required": required, "schema": schema}
    if route.creates:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}
    if route.streams and route.method == "GET":
        yield {"$ref": "#/components/parameters/LastEventId"}
    if route.streams and route.path.startswith("/v1/responses"):
        yield {"$ref": "#/components/parameters/SanghaEvents"}
    if ignores_unknown_fields(route):
        yield {"$ref": "#/components/parameters/SanghaStrict"}


def _body(route: Route, schemas: Schemas) -> dict[str, Any]:
    if route.upload_type:
        return {"requestBody": {"required": False, "content": {route.upload_type: {"schema": {"type": "string"}}}}}
    schema = schemas.of(route, "body")
    if route.form:
        fields = schemas.resolve(schema) if schema else None
        return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form(route, fields)}}}}
    if schema is None:
        return {}
    required = bool(schemas.resolve(schema).get("required"))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def _form(route: Route, fields: dict[str, Any] | None) -> dict[str, Any]:
    """Return the schema of a form: a file, and the fields of the body."""
    assert route.form is not None
    name = route.form.file_field
    properties = {name: {"type": "string", "format": "binary"}, **(fields or {}).get("properties", {})}
    return {"type": "object", "required": [name, *(fields or {}).get("required", [])], "properties": properties}


def _success(route: Route, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if (schema := schemas.of(route, "response")) is not None:
        content["application/json"] = {"schema": schema}
    if route.streams:
        content["text/event-stream"] = {"schema": {"$ref": "#/components/schemas/StreamEvent"}}
    headers = {
        **REQUEST_ID,
        **({} if route.rights.public else LIMITS),
        **(IGNORED if ignores_unknown_fields(route) else {}),
    }
    response: dict[str, Any] = {"description": HTTPStatus(route.status).phrase, "headers": headers}
    return response | ({"content": content} if content else {})


def _other_responses(route: Route, schemas: Schemas) -> dict[str, Any]:
    """Describe errors, and the other statuses that the route declares."""
    responses: dict[str, Any] = {
        str(status): {"$ref": f"#/components/responses/{_reference(status)}"} for status in error_statuses(route)
    }
    for status in route.other_responses:
        schema = schemas.of(route, status)
        content = {"content": {"application/json": {"schema": schema}}} if schema is not None else {}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "headers": REQUEST_ID, **content}
    return responses
