"""Run the operations of the REST API that the tools consist of, with their rights, idempotency and errors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response

from web.access import idempotency
from web.access.rights import Rights
from web.api import jobs
from web.api.memory import memories, search
from web.api.request import Request
from web.api.routing import EndpointResponse, Route, respond
from web.api.turns import responses
from web.http.disconnects import DeferredResponse

#: Rows of the route table, as far as they decide how an operation runs; a test compares them.
SEARCH_MEMORIES = Route("POST", "/v1/memories/search", search.search, Rights.READ)
CREATE_MEMORY = Route("POST", "/v1/memories", memories.create, Rights.WRITE, creates=True, restores=True)
LIST_JOBS = Route("GET", "/v1/jobs", jobs.list_jobs, Rights.READ)
READ_JOB = Route("GET", "/v1/jobs/{job_id}", jobs.read, Rights.READ)
CANCEL_JOB = Route("POST", "/v1/jobs/{job_id}/cancel", jobs.cancel, Rights.WRITE)
READ_RESPONSE = Route("GET", "/v1/responses/{response_id}", responses.retrieve, Rights.READ)
CANCEL_RESPONSE = Route("POST", "/v1/responses/{response_id}/cancel", responses.cancel, Rights.WRITE)
OPERATIONS = (SEARCH_MEMORIES, CREATE_MEMORY, LIST_JOBS, READ_JOB, CANCEL_JOB, READ_RESPONSE, CANCEL_RESPONSE)


async def run(
    request: Request,
    route: Route,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
    key: str | None = None,
    **path_params: str,
) -> dict[str, Any]:
    """Run an operation and return its JSON. Raises as the endpoint does."""
    response = await call(request, route, body, query=query, key=key, **path_params)
    if isinstance(response, DeferredResponse):
        response = await response.compute()
    assert isinstance(response, Response)
    result: dict[str, Any] = orjson.loads(bytes(response.body))
    return result


async def call(
    request: Request,
    route: Route,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
    key: str | None = None,
    **path_params: str,
) -> EndpointResponse:
    """Call the endpoint of an operation. Raises as the endpoint does, and NotAllowed."""
    route.rights.check(request.caller)
    operation = replace(
        request,
        path_params=path_params,
        query=QueryParams({name: str(value) for name, value in (query or {}).items()}),
        body=orjson.dumps(body) if body is not None else b"",
        headers=_headers(request.headers, key),
    )
    return await respond(route, operation)


def _headers(headers: Headers, key: str | None) -> Headers:
    """Return the headers, with the key of the arguments in place of another one."""
    if key is None:
        return headers
    others = [(name, value) for name, value in headers.items() if name != idempotency.HEADER]
    return Headers(
        raw=[(name.encode(), value.encode("latin-1")) for name, value in [*others, (idempotency.HEADER, key)]]
    )
