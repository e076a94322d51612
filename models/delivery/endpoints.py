"""The record of a webhook endpoint: a URL of an account that events are sent to.

enabled ──► disabled   by an admin (`requested`), by its answer 410 (`gone`), or after days of failures (`failing`)
        ◄──            by an admin: what waits is delivered
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

EndpointStatus = Literal["enabled", "disabled"]
DisabledReason = Literal["requested", "gone", "failing"]

#: Endpoints that an account may have.
MAX_ENDPOINTS = 20

#: Hours for which the previous secret signs, too, after a rotation.
ROTATION_HOURS = 24

#: Days of failures after which an endpoint is disabled.
FAILING_DAYS = 5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of `webhook_endpoints`.

    event_types    types, prefixes such as `response.*`, or `*`
    secret         encrypted; the previous one signs, too, until `previous_secret_until`
    secret_hint    the last characters of the secret
    failing_since  the first failure after the last success
    """

    id: str
    account_id: str
    url: str
    event_types: list[str]
    name: str
    description: str
    metadata: dict[str, str]
    endpoint_status: EndpointStatus
    disabled_reason: DisabledReason | None
    secret: str = field(repr=False)
    secret_hint: str
    previous_secret: str | None = field(repr=False)
    previous_secret_until: datetime | None
    failing_since: datetime | None
    created_by: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def enabled(self) -> bool:
        """Whether events are sent to it."""
        return self.endpoint_status == "enabled"


COLUMNS = columns(Endpoint, "webhook_endpoints")

COUNT = """
SELECT count(*)::int AS count FROM webhook_endpoints WHERE account_id = %(account_id)s AND id <> %(besides)s
"""
LOCK_ACCOUNT = "SELECT FROM accounts WHERE id = %(account_id)s FOR NO KEY UPDATE"


def lock_and_count(connection: Connection, account_id: str, *, besides: str) -> int:
    """Return the number of the account's endpoints besides one. Others that count wait until the transaction ends."""
    connection.execute(LOCK_ACCOUNT, {"account_id": account_id})
    row = fetch_one(connection, COUNT, {"account_id": account_id, "besides": besides})
    return int(row["count"]) if row else 0


# A repeated request inserts the same row.
INSERT = f"""
INSERT INTO webhook_endpoints (id, account_id, url, event_types, name, description, metadata, secret, secret_hint,
                               created_by)
VALUES (%(id)s, %(account_id)s, %(url)s, %(event_types)s, %(name)s, %(description)s, %(metadata)s, %(secret)s,
        %(secret_hint)s, %(created_by)s)
ON CONFLICT (id) DO UPDATE SET secret = webhook_endpoints.secret
RETURNING {COLUMNS}
"""


def insert(
    connection: Connection,
    endpoint_id: str,
    account_id: str,
    *,
    url: str,
    event_types: Sequence[str],
    name: str,
    description: str,
    metadata: Mapping[str, str],
    secret: str,
    secret_hint: str,
    created_by: str | None,
) -> Endpoint:
    """Insert an enabled endpoint, unless its id exists. Returns the row."""
    row = fetch_one(
        connection,
        INSERT,
        {
            "id": endpoint_id,
            "account_id": account_id,
            "url": url,
            "event_types": list(event_types),
            "name": name,
            "description": description,
            "metadata": Jsonb(metadata),
            "secret": secret,
            "secret_hint": secret_hint,
            "created_by": created_by,
        },
    )
    assert row is not None
    return Endpoint(**row)


READ = f"SELECT {COLUMNS} FROM webhook_endpoints WHERE id = %(id)s AND account_id = %(account_id)s"


def read(connection: Connection, endpoint_id: str, account_id: str, *, lock: bool = False) -> Endpoint | None:
    """Return an endpoint of the account; with `lock` it does not change until the transaction ends."""
    statement = f"{READ} FOR NO KEY UPDATE" if lock else READ
    row = fetch_one(connection, statement, {"id": endpoint_id, "account_id": account_id})
    return Endpoint(**row) if row else None


PAGE = f"""
SELECT {COLUMNS} FROM webhook_endpoints
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def page(connection: Connection, account_id: str, *, after: str | None = None, limit: int = 20) -> list[Endpoint]:
    """Return at most `limit` endpoints of the account, newest first, older than the endpoint `after`."""
    parameters = {"account_id": account_id, "after": after, "limit": limit}
    return [Endpoint(**row) for row in fetch_all(connection, PAGE, parameters)]


CHANGE = f"""
UPDATE webhook_endpoints SET
    url = coalesce(%(url)s, url), event_types = coalesce(%(event_types)s, event_types),
    name = coalesce(%(name)s, name), description = coalesce(%(description)s, description),
    metadata = coalesce(%(metadata)s, metadata), updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
RETURNING {COLUMNS}
"""


def change(
    connection: Connection,
    endpoint_id: str,
    account_id: str,
    *,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    name: str | None = None,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Endpoint | None:
    """Change what is not None of an endpoint of the account. Returns the new row, or None if there is none."""
    parameters: dict[str, Any] = {
        "id": endpoint_id,
        "account_id": account_id,
        "url": url,
        "event_types": None if event_types is None else list(event_types),
        "name": name,
        "description": description,
        "metadata": None if metadata is None else Jsonb(metadata),
    }
    row = fetch_one(connection, CHANGE, parameters)
    return Endpoint(**row) if row else None


DELETE = "DELETE FROM webhook_endpoints WHERE id = %(id)s AND account_id = %(account_id)s RETURNING id"


def delete(connection: Connection, endpoint_id: str, account_id: str) -> bool:
    """Delete an endpoint of the account with its deliveries. Returns whether it existed."""
    return fetch_one(connection, DELETE, {"id": endpoint_id, "account_id": account_id}) is not None


ROTATE = f"""
UPDATE webhook_endpoints SET
    secret = %(secret)s, secret_hint = %(secret_hint)s, previous_secret = CASE WHEN %(hours)s > 0 THEN secret END,
    previous_secret_until = CASE WHEN %(hours)s > 0 THEN now() + make_interval(hours => %(hours)s) END,
    updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
RETURNING {COLUMNS}
"""


def rotate(
    connection: Connection, endpoint_id: str, account_id: str, *, secret: str, secret_hint: str, keep: bool
) -> Endpoint | None:
    """Replace the secret; with `keep` the present one signs, too, for ROTATION_HOURS. Returns the new row."""
    parameters = {
        "id": endpoint_id,
        "account_id": account_id,
        "secret": secret,
        "secret_hint": secret_hint,
        "hours": ROTATION_HOURS if keep else 0,
    }
    row = fetch_one(connection, ROTATE, parameters)
    return Endpoint(**row) if row else None


ENABLE = f"""
UPDATE webhook_endpoints SET
    endpoint_status = 'enabled', disabled_reason = NULL, failing_since = NULL, updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s
RETURNING {COLUMNS}
"""


def enable(connection: Connection, endpoint_id: str, account_id: str) -> Endpoint | None:
    """Enable an endpoint of the account. Returns the new row."""
    row = fetch_one(connection, ENABLE, {"id": endpoint_id, "account_id": account_id})
    return Endpoint(**row) if row else None


DISABLE = f"""
UPDATE webhook_endpoints SET endpoint_status = 'disabled', disabled_reason = %(reason)s, updated_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND endpoint_status = 'enabled'
RETURNING {COLUMNS}
"""


def disable(connection: Connection, endpoint_id: str, account_id: str, reason: DisabledReason) -> Endpoint | None:
    """Disable an enabled endpoint of the account. Returns the new row, or None if nothing was changed."""
    row = fetch_one(connection, DISABLE, {"id": endpoint_id, "account_id": account_id, "reason": reason})
    return Endpoint(**row) if row else None


LOCK = "SELECT FROM webhook_endpoints WHERE id = %(id)s AND account_id = %(account_id)s FOR NO KEY UPDATE"


def lock(connection: Connection, endpoint_id: str, account_id: str) -> None:
    """Lock an endpoint, so that it is neither enabled nor disabled until the transaction ends."""
    connection.execute(LOCK, {"id": endpoint_id, "account_id": account_id})


# Most deliveries change nothing, and lock nothing.
SUCCEEDED = "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = %(id)s AND failing_since IS NOT NULL"
FAILED = "UPDATE webhook_endpoints SET failing_since = now() WHERE id = %(id)s AND failing_since IS NULL"


def note_success(connection: Connection, endpoint_id: str) -> None:
    """Store that the endpoint does not fail, or no more."""
    connection.execute(SUCCEEDED, {"id": endpoint_id})


def note_failure(connection: Connection, endpoint_id: str) -> None:
    """Store since when the endpoint fails."""
    connection.execute(FAILED, {"id": endpoint_id})


COUNT_BY_STATE = """
SELECT CASE WHEN endpoint_status = 'enabled' AND failing_since IS NOT NULL THEN 'failing' ELSE endpoint_status END
           AS state, count(*) AS count
FROM webhook_endpoints GROUP BY 1
"""


def count_by_state(connection: Connection) -> dict[str, int]:
    """Count the endpoints of all accounts that are enabled, failing or disabled."""
    return {row["state"]: row["count"] for row in fetch_all(connection, COUNT_BY_STATE)}
