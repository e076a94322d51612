"""Create, change, test and delete the webhook endpoints of an account, and replay events. Admins do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from models.accounts import audit
from models.accounts.accounts import Caller
from models.accounts.audit import RequestOrigin
from models.delivery import deliveries, endpoints, events
from models.delivery.deliveries import Delivery
from models.delivery.endpoints import MAX_ENDPOINTS, Endpoint
from models.delivery.event_types import EventType
from models.jobs.jobs import NewJob, enqueue
from models.platform.database import Connection, Database, fetch_one
from models.platform.errors import Conflict, LimitExceeded, NotFound
from models.platform.settings import Settings
from pipelines.delivery import webhook_secrets
from pipelines.delivery.webhook_replay import KIND as REPLAY
from pipelines.delivery.webhook_urls import check_url


@dataclass(frozen=True, slots=True)
class EndpointValues:
    """What a request says of an endpoint; None keeps a value, and is an empty one for a new endpoint."""

    url: str | None = None
    event_types: Sequence[str] | None = None
    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] | None = None


def create(
    database: Database,
    settings: Settings,
    caller: Caller,
    values: EndpointValues,
    endpoint_id: str,
    origin: RequestOrigin,
) -> tuple[Endpoint, str]:
    """Create an endpoint. Returns it with its secret, the same for a repeated request.

    Raises InvalidRequest for a URL that no request may be sent to, and LimitExceeded.
    """
    url = values.url or ""
    check_url(settings, url)
    secret = webhook_secrets.new_secret()
    sealed = webhook_secrets.seal(settings, endpoint_id, secret)
    with database.transaction() as connection:
        if endpoints.lock_and_count(connection, caller.account_id, besides=endpoint_id) >= MAX_ENDPOINTS:
            message = f"The account has {MAX_ENDPOINTS} webhook endpoints, the most. Delete one."
            raise LimitExceeded(message, code="too_many_webhook_endpoints")
        endpoint = endpoints.insert(
            connection,
            endpoint_id,
            caller.account_id,
            url=url,
            event_types=values.event_types or ("*",),
            name=values.name or "",
            description=values.description or "",
            metadata=values.metadata or {},
            secret=sealed,
            secret_hint=webhook_secrets.hint_of(secret),
            created_by=caller.user_id,
        )
        _record(connection, "webhook_endpoint.created", caller, endpoint, origin)
    return endpoint, webhook_secrets.unseal(settings, endpoint.id, endpoint.secret)


def change(
    database: Database,
    settings: Settings,
    caller: Caller,
    endpoint_id: str,
    values: EndpointValues,
    origin: RequestOrigin,
) -> Endpoint:
    """Change what is given. What is pending goes to the new URL. Raises NotFound and InvalidRequest."""
    if values.url is not None:
        check_url(settings, values.url)
    with database.transaction() as connection:
        changed = endpoints.change(
            connection,
            endpoint_id,
            caller.account_id,
            url=values.url,
            event_types=values.event_types,
            name=values.name,
            description=values.description,
            metadata=values.metadata,
        )
        endpoint = _required(changed, endpoint_id)
        _record(connection, "webhook_endpoint.changed", caller, endpoint, origin)
    return endpoint


def delete(database: Database, caller: Caller, endpoint_id: str, origin: RequestOrigin) -> None:
    """Delete an endpoint with its deliveries. Raises NotFound."""
    with database.transaction() as connection:
        endpoint = find(connection, caller, endpoint_id, lock=True)
        endpoints.delete(connection, endpoint.id, caller.account_id)
        _record(connection, "webhook_endpoint.deleted", caller, endpoint, origin)


def find(connection: Connection, caller: Caller, endpoint_id: str, *, lock: bool = False) -> Endpoint:
    """Return an endpoint of the caller's account. Raises NotFound."""
    return _required(endpoints.read(connection, endpoint_id, caller.account_id, lock=lock), endpoint_id)


def rotate_secret(
    database: Database,
    settings: Settings,
    caller: Caller,
    endpoint_id: str,
    origin: RequestOrigin,
    *,
    keep: bool = True,
) -> tuple[Endpoint, str]:
    """Replace the secret; with `keep` the present one signs, too, for a day. Returns the endpoint and the new secret.

    Raises NotFound.
    """
    secret = webhook_secrets.new_secret()
    sealed = webhook_secrets.seal(settings, endpoint_id, secret)
    with database.transaction() as connection:
        rotated = endpoints.rotate(
            connection,
            endpoint_id,
            caller.account_id,
            secret=sealed,
            secret_hint=webhook_secrets.hint_of(secret),
            keep=keep,
        )
        endpoint = _required(rotated, endpoint_id)
        _record(connection, "webhook_endpoint.secret_rotated", caller, endpoint, origin)
    return endpoint, secret


def disable(database: Database, caller: Caller, endpoint_id: str, origin: RequestOrigin) -> Endpoint:
    """Disable an endpoint: its events are not recorded for it, and what is pending is held. Raises NotFound."""
    with database.transaction() as connection:
        endpoint = find(connection, caller, endpoint_id, lock=True)
        disabled = endpoints.disable(connection, endpoint_id, caller.account_id, "requested")
        if disabled is None:
            return endpoint
        _record(connection, "webhook_endpoint.disabled", caller, disabled, origin)
    return disabled


def enable(database: Database, caller: Caller, endpoint_id: str, origin: RequestOrigin) -> Endpoint:
    """Enable an endpoint, and continue what was held. Raises NotFound. The caller nudges the lane `endpoint_id`."""
    with database.transaction() as connection:
        if find(connection, caller, endpoint_id, lock=True).enabled:
            return find(connection, caller, endpoint_id)
        endpoint = _required(endpoints.enable(connection, endpoint_id, caller.account_id), endpoint_id)
        enqueue(connection, _replay_job(caller, endpoint_id, {}))
        _record(connection, "webhook_endpoint.enabled", caller, endpoint, origin)
    return endpoint


def send_test(
    database: Database, caller: Caller, endpoint_id: str, event_type: EventType, data: Mapping[str, Any]
) -> str:
    """Send a sample event once to this endpoint only, also where it is disabled. Raises NotFound.

    Returns the id of the job; its result is `{"sent", "status_code", "seconds", "error"}`. The caller nudges the lane
    `endpoint_id`.
    """
    with database.transaction() as connection:
        find(connection, caller, endpoint_id)
        job_id = events.record_sample(connection, caller.account_id, endpoint_id, event_type, data)
    if job_id is None:
        raise _not_found(endpoint_id)
    return job_id


def find_delivery(connection: Connection, caller: Caller, delivery_id: str) -> Delivery:
    """Return a delivery of the caller's account. Raises NotFound."""
    delivery = deliveries.read(connection, delivery_id, caller.account_id)
    if delivery is None:
        raise NotFound(f"Webhook delivery with id '{delivery_id}' not found.", param="delivery_id")
    return delivery


def replay_one(database: Database, caller: Caller, delivery_id: str) -> Delivery:
    """Deliver an event once more; a pending delivery is left as it is. Raises NotFound and Conflict."""
    with database.transaction() as connection:
        delivery = find_delivery(connection, caller, delivery_id)
        _require_enabled(find(connection, caller, delivery.endpoint_id))
        deliveries.replay(connection, delivery.endpoint_id, caller.account_id, [delivery.event_id], background=False)
        return find_delivery(connection, caller, delivery_id)


def replay_since(
    database: Database,
    caller: Caller,
    endpoint_id: str,
    since: datetime,
    job_id: str,
    *,
    undelivered_only: bool = False,
) -> str:
    """Enqueue the job that delivers all events since a time again that the endpoint asks for. Returns the job's id.

    The caller nudges the lane `endpoint_id`. Raises NotFound, and Conflict if the endpoint is disabled or another
    replay of it is unfinished.
    """
    arguments = {"since": since.isoformat(), "undelivered_only": undelivered_only}
    job = _replay_job(caller, endpoint_id, arguments, job_id)
    with database.transaction() as connection:
        _require_enabled(find(connection, caller, endpoint_id, lock=True))
        running = fetch_one(connection, UNFINISHED_REPLAY, {"serial_key": job.serial_key})
        if running is not None and running["id"] != job_id:
            message = f"The job {running['id']} replays events to this endpoint. Retry when it has ended, or cancel it."
            raise Conflict(message, code="replay_in_progress")
        if running is None:
            enqueue(connection, job)
    return job_id


UNFINISHED_REPLAY = """
SELECT id FROM jobs
WHERE serial_key = %(serial_key)s AND state IN ('scheduled', 'queued', 'running', 'waiting') LIMIT 1
"""


def _replay_job(caller: Caller, endpoint_id: str, arguments: Mapping[str, object], job_id: str | None = None) -> NewJob:
    job = NewJob(
        REPLAY,
        caller.account_id,
        {"endpoint_id": endpoint_id, "account_id": caller.account_id, **arguments},
        serial_key=f"webhook replay {endpoint_id}",
        lane=endpoint_id,
        owner_id=caller.user_id,
    )
    return job if job_id is None else replace(job, id=job_id)


def _required(endpoint: Endpoint | None, endpoint_id: str) -> Endpoint:
    if endpoint is None:
        raise _not_found(endpoint_id)
    return endpoint


def _not_found(endpoint_id: str) -> NotFound:
    return NotFound(f"Webhook endpoint with id '{endpoint_id}' not found.", param="endpoint_id")


def _require_enabled(endpoint: Endpoint) -> None:
    if not endpoint.enabled:
        raise Conflict("The webhook endpoint is disabled. Enable it first.", code="endpoint_disabled")


def _record(connection: Connection, action: str, caller: Caller, endpoint: Endpoint, origin: RequestOrigin) -> None:
    audit.record(
        connection,
        action,
        origin,
        account_id=caller.account_id,
        user_id=caller.user_id,
        target=endpoint.id,
        details={"url": endpoint.url.partition("?")[0]},
    )
