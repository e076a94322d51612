"""One row of the route table as an operation of OpenAPI: what goes in, what comes out, who may."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from web.description.schemas import Schemas
from web.routing import Row

#: `{model:path}` in Starlette's words.
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

#: The addresses that a docstring begins with.
ADDRESS = re.compile(r"^(?:`[A-Z]+ /[^`]*`(?:, | and )?)+[:.]?\s*")

#: What a docstring tells its callers in Python.
RAISES = re.compile(r"\s*\bRaises [A-Z][^.]*\.")

HEADERS = {
    "RequestId": {"description": "To quote when something is wrong.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds after which to try again.", "schema": {"type": "string"}},
    "RateLimitLimit": {"description": "What a minute allows.", "schema": {"type": "string"}},
    "RateLimitRemaining": {"description": "What is left of it now.", "schema": {"type": "string"}},
    "RateLimitReset": {"description": "When all of it is back, such as `1.5s`.", "schema": {"type": "string"}},
    "ETag": {"description": "Changes with the content.", "schema": {"type": "string"}},
}

LIMITS = {
    f"x-ratelimit-{what}-{of}": {"$ref": f"#/components/headers/RateLimit{what.title()}"}
    for what in ("limit", "remaining", "reset")
    for of in ("requests", "tokens")
}

REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
RETRY_AFTER = {"retry-after": {"$ref": "#/components/headers/RetryAfter"}}

#: The refusals, by status.
REFUSALS = {
    400: "The request is malformed, or asks for what can't be done; `param` names what is wrong.",
    401: "No credentials, or none that hold.",
    403: "Known, but without the right.",
    404: "No such thing in the account.",
    408: "The body took too long to arrive.",
    409: "It exists already, or its state forbids this now.",
    413: "The body, or a part of it, is larger than its bound.",
    422: "It contradicts what was said before, such as another body under the same Idempotency-Key.",
    429: "More than the account, the key or the address may have.",
    503: "A part that this needs is down for now.",
}

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body gives the same answer, and makes one thing only.",
    "schema": {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 255},
}

LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The sequence number behind which a stream goes on; `starting_after` goes before it.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}

ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}


def _refusal(status: int) -> dict[str, Any]:
    waiting = RETRY_AFTER if status in (429, 503) else {}
    return {"description": REFUSALS[status], "headers": {**REQUEST_ID, **waiting}, "content": ERROR}


def _reference(status: int) -> str:
    return HTTPStatus(status).phrase.title().replace(" ", "")


COMPONENTS = {
    "headers": HEADERS,
    "responses": {_reference(status): _refusal(status) for status in REFUSALS},
    "parameters": {"IdempotencyKey": IDEMPOTENCY_KEY, "LastEventId": LAST_EVENT_ID},
}


def template(path: str) -> str:
    """`/v1/models/{model:path}` → `/v1/models/{model}`."""
    return PARAMETER.sub(r"{\1}", path)


def describe(row: Row, schemas: Schemas, name: str) -> dict[str, Any]:
    """The operation of a row."""
    summary, text = _told(row)
    operation = {
        "operationId": name,
        "tags": [tag(row)],
        "summary": summary,
        "description": f"{text}\n\n{_who(row)}".strip(),
        "parameters": list(_parameters(row, schemas)),
        "responses": {str(row.status): _success(row, schemas), **_others(row, schemas)},
        "security": _security(row),
        "x-sangha-rights": {"role": row.rights.role, "scope": row.rights.scope, "operator": row.rights.operator},
    }
    return operation | _body(row, schemas)


def names(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """The name of each operation: `responses_create` is the endpoint after its module, and where several rows share
    an endpoint, the end of the path after that."""
    uses = Counter(row.endpoint for row in rows)

    def name(row: Row) -> str:
        own = f"{_module(row)}_{row.endpoint.__name__}"
        return f"{own}_{row.path.rpartition('/')[2]}" if uses[row.endpoint] > 1 else own

    return {(row.method, row.path): name(row) for row in rows}


def tag(row: Row) -> str:
    """What the operation stands with: the first name of its path, or its module where the path is but one name."""
    parts = row.path.removeprefix("/v1").strip("/").split("/")
    return parts[0].strip(".") if len(parts) > 1 or row.path.startswith("/v1/") else _module(row)


def refusals(row: Row) -> Iterator[int]:
    """The statuses of the refusals that an operation can give."""
    named, known = "{" in row.path, not row.rights.public
    has_body = row.body is not None or bool(row.uploads)
    changes = row.method != "GET"
    may = {
        400: True,  # an address with a NUL is refused everywhere
        401: known or changes,
        403: known or changes,
        404: named or row.body is not None,
        408: has_body,
        409: changes,
        413: has_body,
        422: row.creates,
        429: True,
        503: True,
    }
    return (status for status, possible in may.items() if possible)


def _module(row: Row) -> str:
    return row.endpoint.__module__.rpartition(".")[2]


def _told(row: Row) -> tuple[str, str]:
    """The docstring as a title and a text, without the address that it begins with."""
    text = RAISES.sub("", ADDRESS.sub("", getdoc(row.endpoint) or "")).strip()
    first, _, rest = text.partition("\n\n")
    title = " ".join(first.split()).removesuffix(".") or row.endpoint.__name__.replace("_", " ")
    return title[0].upper() + title[1:], rest


def _who(row: Row) -> str:
    rights = row.rights
    if rights.public:
        return "Anyone may."
    by = (
        f"API keys need the scope `{rights.scope}`."
        if rights.scope
        else "It takes a person's token: no API key will do."
    )
    role = "This is for operators of the installation." if rights.operator else f"Takes the role `{rights.role}`."
    return f"{role} {by}"


def _security(row: Row) -> list[dict[str, list[str]]]:
    if row.rights.public:
        return []
    return [{"token": []}, *([{"key": [str(row.rights.scope)]}] if row.rights.scope else [])]


def _parameters(row: Row, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for place in PARAMETER.findall(row.path):
        yield {"name": place, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for member, schema, required in schemas.members(row):
        yield {"name": member, "in": "query", "required": required, "schema": schema}
    if row.creates:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}
    if row.streams and row.method == "GET":
        yield {"$ref": "#/components/parameters/LastEventId"}


def _body(row: Row, schemas: Schemas) -> dict[str, Any]:
    if row.uploads:
        return {"requestBody": {"required": True, "content": {row.uploads: {"schema": {"type": "string"}}}}}
    schema = schemas.of(row, "body")
    if schema is None:
        return {}
    required = bool(schemas.resolved(schema).get("required"))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def _success(row: Row, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if (schema := schemas.of(row, "answer")) is not None:
        content["application/json"] = {"schema": schema}
    if row.streams:
        content["text/event-stream"] = {"schema": {"$ref": "#/components/schemas/StreamEvent"}}
    headers = REQUEST_ID if row.rights.public else {**REQUEST_ID, **LIMITS}
    described: dict[str, Any] = {"description": HTTPStatus(row.status).phrase, "headers": headers}
    return described | ({"content": content} if content else {})


def _others(row: Row, schemas: Schemas) -> dict[str, Any]:
    """Refusals, and what else the row says it answers."""
    told: dict[str, Any] = {
        str(status): {"$ref": f"#/components/responses/{_reference(status)}"} for status in refusals(row)
    }
    for status in row.also:
        schema = schemas.of(row, status)
        content = {"content": {"application/json": {"schema": schema}}} if schema is not None else {}
        told[str(status)] = {"description": HTTPStatus(status).phrase, "headers": REQUEST_ID, **content}
    return told
