"""The audit log: what happened that matters for security, written in the transaction of what it tells of.

Actions are `noun.verb` in the past: `session.created`, `key.revoked`, `password.changed`, `member.removed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from models.database import Connection
from models.ids import new_id

#: Characters that are kept of what a caller may write into the log at will.
LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a request came from."""

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
    trail: Trail,
    *,
    account_id: str | None = None,
    user_id: str | None = None,
    target: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an event. `target` is the id of what was acted upon; `details` must hold no secret."""
    connection.execute(
        INSERT,
        {
            "id": new_id("audit"),
            "account_id": account_id,
            "user_id": user_id,
            "action": action,
            "target": target[:LONGEST_TEXT],
            "ip": trail.ip,
            "user_agent": trail.user_agent[:LONGEST_TEXT],
            "request_id": trail.request_id,
            "details": Jsonb(details or {}),
        },
    )
