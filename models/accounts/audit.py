"""The audit log: security events, each written in the transaction of its action.

Actions are `noun.verb` in the past: `session.created`, `key.revoked`, `password.changed`, `member.removed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all
from models.platform.ids import new_id

#: Most characters of a text that callers choose.
MAX_TEXT = 500


@dataclass(frozen=True, slots=True)
class RequestOrigin:
    """The origin of a request."""

    ip: str = ""
    user_agent: str = ""
    request_id: str = ""


INSERT = """
INSERT INTO audit_events (id, account_id, user_id, action, target, ip, user_agent, request_id, details)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(action)s, %(target)s, %(ip)s, %(user_agent)s, %(request_id)s,
        %(details)s)
"""


def record(
    connection: Connection,
    action: str,
    origin: RequestOrigin,
    *,
    account_id: str | None = None,
    user_id: str | None = None,
    target: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an event. `target` is the id of the object acted upon; `details` must not contain secrets."""
    connection.execute(
        INSERT,
        {
            "id": new_id("audit"),
            "account_id": account_id,
            "user_id": user_id,
            "action": action,
            "target": target[:MAX_TEXT],
            "ip": origin.ip,
            "user_agent": origin.user_agent[:MAX_TEXT],
            "request_id": origin.request_id,
            "details": Jsonb(details or {}),
        },
    )


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An event of the audit log. `email` is the user's present address; None if there is no user."""

    id: str
    user_id: str | None
    email: str | None
    action: str
    target: str
    ip: str
    user_agent: str
    request_id: str
    details: Mapping[str, Any]
    created_at: datetime


# Ids sort by time of creation, so an id is the cursor.
LIST = """
SELECT audit_events.id, user_id, users.email, action, target, ip, user_agent, request_id, details,
       audit_events.created_at
FROM audit_events LEFT JOIN users ON users.id = audit_events.user_id
WHERE account_id = %(account_id)s
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(since)s::timestamptz IS NULL OR audit_events.created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR audit_events.created_at < %(until)s)
  AND (%(after)s::text IS NULL OR audit_events.id < %(after)s)
ORDER BY audit_events.id DESC LIMIT %(limit)s
"""


def list_events(
    connection: Connection,
    account_id: str,
    *,
    action: str | None = None,
    user_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: str | None = None,
    limit: int = 20,
) -> list[AuditEvent]:
    """Return at most `limit` events of an account, newest first, older than the event `after`; `until` is exclusive."""
    filters = {"action": action, "user_id": user_id, "since": since, "until": until}
    rows = fetch_all(connection, LIST, {"account_id": account_id, "after": after, "limit": limit, **filters})
    return [AuditEvent(**row) for row in rows]
