"""`GET /v1/audit_events`: the audit log of security-relevant events in an account."""

from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response
from typing_extensions import TypedDict

from models.accounts import audit
from models.accounts.audit import AuditEvent
from web.api.request import Request
from web.http.paging import Listing, page_response
from web.http.queries import parse_query
from web.http.timestamps import UnixTime, from_unix


class ListAuditEvents(Listing):
    """The query of `GET /v1/audit_events`. Times are in Unix seconds; `created_before` is exclusive."""

    action: str | None = Field(None, max_length=100)
    user_id: str | None = Field(None, max_length=100)
    created_after: UnixTime | None = None
    created_before: UnixTime | None = None


class AuditEventObject(TypedDict):
    """An audit event: the user `user_id` performed `action` on `target` from `ip` in the request `request_id`."""

    id: str
    object: Literal["audit_event"]
    action: str
    user_id: str | None
    email: str | None
    target: str
    details: dict[str, Any]
    ip: str
    user_agent: str
    request_id: str
    created_at: int


def list_events(request: Request) -> Response:
    """`GET /v1/audit_events`: list the account's audit events, newest first."""
    query = parse_query(request.query, ListAuditEvents)
    with request.platform.database.connection() as connection:
        records = audit.list_events(
            connection,
            request.caller.account_id,
            action=query.action,
            user_id=query.user_id,
            since=from_unix(query.created_after),
            until=from_unix(query.created_before),
            after=query.after,
            limit=query.fetch_limit,
        )
    return page_response(records, query.limit, event_object)


def event_object(event: AuditEvent) -> AuditEventObject:
    """Convert an audit event to its API object."""
    return {
        "id": event.id,
        "object": "audit_event",
        "action": event.action,
        "user_id": event.user_id,
        "email": event.email,
        "target": event.target,
        "details": dict(event.details),
        "ip": event.ip,
        "user_agent": event.user_agent,
        "request_id": event.request_id,
        "created_at": int(event.created_at.timestamp()),
    }
