"""`/v1/webhook_endpoints`: the URLs that an account's events are sent to. In OpenAI's shapes, with fields of ours."""

from functools import partial
from typing import Any

from starlette.responses import Response

from models.accounts.ownership import Access
from models.delivery import endpoints
from models.delivery.endpoints import Endpoint
from models.delivery.event_types import EVENT_TYPES
from models.jobs import jobs
from models.platform.errors import InvalidRequest, JobFailed, Unavailable
from pipelines.delivery import webhook_endpoints
from pipelines.delivery.webhook_endpoints import EndpointValues
from web.api.job_object import job_object
from web.api.job_results import job_headers, last_event
from web.api.request import Request
from web.api.webhooks.schemas import (
    CreateWebhookEndpoint,
    EventTypeList,
    ReplayEvents,
    RotateSecret,
    TestWebhookEndpoint,
    UpdateWebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointTest,
    WebhookEndpointWithSecret,
    endpoint_object,
)
from web.http import bodies
from web.http.disconnects import DeferredResponse
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.responses import json_response
from web.http.threads import run_in_thread
from web.http.timestamps import from_unix

#: Seconds that a test waits for its job, which waits for the endpoint's answer for at most 15.
TIMEOUT = 25.0


def list_event_types(request: Request) -> Response:
    """`GET /v1/webhook_event_types`: list the types of events."""
    types: EventTypeList = {
        "object": "list",
        "data": list(EVENT_TYPES),
        "descriptions": {name: each.description for name, each in EVENT_TYPES.items()},
    }
    return json_response(types)


def create(request: Request) -> Response:
    """`POST /v1/webhook_endpoints`: create an endpoint; only this response has its secret."""
    body = bodies.parse(request.body, CreateWebhookEndpoint)
    platform = request.platform
    created = webhook_endpoints.create(
        platform.database,
        platform.settings,
        request.caller,
        EndpointValues(body.url, body.event_types, body.name, body.description, body.metadata or {}),
        request.new_id("we"),
        request.origin,
    )
    return _with_secret(*created)


def list_endpoints(request: Request) -> Response:
    """`GET /v1/webhook_endpoints`: list the account's endpoints, newest first."""
    query = parse_query(request.query, Listing)
    with request.platform.database.connection() as connection:
        found = endpoints.page(connection, request.caller.account_id, after=query.after, limit=query.fetch_limit)
    return page_response(found, query.limit, endpoint_object)


def read(request: Request) -> Response:
    """`GET /v1/webhook_endpoints/{id}`: read an endpoint."""
    with request.platform.database.connection() as connection:
        return json_response(endpoint_object(webhook_endpoints.find(connection, request.caller, _id(request))))


def update(request: Request) -> Response:
    """`POST /v1/webhook_endpoints/{id}`: change an endpoint. What is pending is sent to the new URL."""
    body = bodies.parse(request.body, UpdateWebhookEndpoint)
    platform, caller = request.platform, request.caller
    values = EndpointValues(body.url, body.event_types, body.name, body.description, body.metadata)
    changed = webhook_endpoints.change(
        platform.database, platform.settings, caller, _id(request), values, request.origin
    )
    return json_response(endpoint_object(changed))


def delete(request: Request) -> Response:
    """`DELETE /v1/webhook_endpoints/{id}`: delete an endpoint with its deliveries."""
    webhook_endpoints.delete(request.platform.database, request.caller, _id(request), request.origin)
    deleted: WebhookEndpointDeleted = {"id": _id(request), "object": "webhook_endpoint.deleted", "deleted": True}
    return json_response(deleted)


def rotate_secret(request: Request) -> Response:
    """`POST /v1/webhook_endpoints/{id}/rotate_secret`: replace the secret; only this response has the new one."""
    body = bodies.parse(request.body or b"{}", RotateSecret)
    platform, keep = request.platform, body.keep_old_secret_active_for_24_hours
    rotated = webhook_endpoints.rotate_secret(
        platform.database, platform.settings, request.caller, _id(request), request.origin, keep=keep
    )
    return _with_secret(*rotated)


def enable(request: Request) -> Response:
    """`POST /v1/webhook_endpoints/{id}/enable`: send events again, and those that were held meanwhile."""
    enabled = webhook_endpoints.enable(request.platform.database, request.caller, _id(request), request.origin)
    request.platform.queue.nudge(enabled.id)
    return json_response(endpoint_object(enabled))


def disable(request: Request) -> Response:
    """`POST /v1/webhook_endpoints/{id}/disable`: send no events, and hold those that are pending."""
    disabled = webhook_endpoints.disable(request.platform.database, request.caller, _id(request), request.origin)
    return json_response(endpoint_object(disabled))


def replay(request: Request) -> Response:
    """`POST /v1/webhook_endpoints/{id}/replay`: send the events since a time again, in a job."""
    body = bodies.parse(request.body, ReplayEvents)
    since = from_unix(body.since)
    assert since is not None
    platform, caller = request.platform, request.caller
    job_id = webhook_endpoints.replay_since(
        platform.database,
        caller,
        _id(request),
        since,
        request.new_id("job"),
        undelivered_only=body.undelivered_only,
    )
    platform.queue.nudge(_id(request))
    with platform.database.connection() as connection:
        job = jobs.read(connection, job_id, Access.managed(caller))
    assert job is not None
    return json_response(job_object(job), 202, job_headers(job_id))


async def test(request: Request) -> DeferredResponse:
    """`POST /v1/webhook_endpoints/{id}/test`: send a sample event once, and return the status of the answer."""
    event_type = bodies.parse(request.body, TestWebhookEndpoint).event_type
    platform, sample = request.platform, EVENT_TYPES[event_type].sample
    job_id = await run_in_thread(
        webhook_endpoints.send_test, platform.database, request.caller, _id(request), event_type, sample
    )
    platform.queue.nudge(_id(request))
    return DeferredResponse(partial(_tested, request, job_id, event_type), _leave)


async def _leave() -> None:
    """Leave the job of a test whose client has disconnected: it sends one request."""


async def _tested(request: Request, job_id: str, event_type: str) -> Response:
    last = await last_event(request, job_id, TIMEOUT)
    if not last:
        raise Unavailable(f"No worker has sent the event within {TIMEOUT:g} seconds.", retry_after=5)
    result: dict[str, Any] | None = last.get("result")
    if result is None:
        raise JobFailed("The test failed because of an internal error, which was recorded for the operators.")
    if result.get("status_code") is None:
        message = f"The endpoint has not answered. {result.get('error') or 'It was deleted.'}"
        raise InvalidRequest(message, code="webhook_not_answered")
    tested: WebhookEndpointTest = {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": _id(request),
        "event_type": event_type,
        "status_code": result["status_code"],
        "seconds": result["seconds"],
        "success": True,
    }
    return json_response(tested)


def _with_secret(endpoint: Endpoint, secret: str) -> Response:
    shown: WebhookEndpointWithSecret = {**endpoint_object(endpoint), "signing_secret": secret}
    return json_response(shown, 200, {"cache-control": "no-store"})


def _id(request: Request) -> str:
    return request.path_params["endpoint_id"]
