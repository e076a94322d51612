"""API keys: what an application shows in place of a person's token. A secret is told once and stored as its hash."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from models.accounts.accounts import Role, Scope
from models.platform.database import Connection, fetch_all, fetch_one

KeyStatus = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be shown. `hint` is its beginning and its end; `user_id` is who made it and whom it acts for."""

    id: str
    account_id: str
    user_id: str
    name: str
    hint: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def status(self) -> KeyStatus:
        """Whether it opens anything, and why not."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= datetime.now(UTC) else "active"


# The maker's place, held to the end of the transaction: meanwhile nobody is removed, demoted or given another key.
HOLD_MAKER = """
SELECT role FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s FOR UPDATE
"""


def lock_creator_role(connection: Connection, account_id: str, user_id: str) -> Role | None:
    """The role that a maker of keys has now, and keeps for this transaction; None for who has left."""
    row = fetch_one(connection, HOLD_MAKER, {"account_id": account_id, "user_id": user_id})
    return Role(row["role"]) if row else None


# A maker's other keys that still open something.
COUNT_LIVE = """
SELECT count(*)::int AS live FROM api_keys
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND id <> %(id)s
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""


def count_active(connection: Connection, account_id: str, user_id: str, *, beside: str) -> int:
    """How many keys a member has, beside this one, that are neither revoked nor expired."""
    row = fetch_one(connection, COUNT_LIVE, {"account_id": account_id, "user_id": user_id, "id": beside})
    return int(row["live"]) if row else 0


# A request that is repeated brings the same id: its first answer was never seen, and the secret in it holds no more.
INSERT = """
INSERT INTO api_keys (id, account_id, user_id, name, hint, hash, scopes, expires_at)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(name)s, %(hint)s, %(hash)s, %(scopes)s, %(expires_at)s)
ON CONFLICT (id) DO UPDATE SET hint = excluded.hint, hash = excluded.hash
    WHERE api_keys.account_id = excluded.account_id AND api_keys.user_id = excluded.user_id
RETURNING *
"""


def insert(
    connection: Connection,
    *,
    key_id: str,
    account_id: str,
    user_id: str,
    name: str,
    hint: str,
    secret_hash: bytes,
    scopes: tuple[Scope, ...],
    expires_at: datetime | None,
) -> ApiKey:
    """Store a key."""
    belongs = {"id": key_id, "account_id": account_id, "user_id": user_id}
    opens = {"hash": secret_hash, "scopes": list(scopes), "expires_at": expires_at}
    row = fetch_one(connection, INSERT, {**belongs, **opens, "name": name, "hint": hint})
    assert row is not None, f"the id {key_id} is another member's"
    return _key(row)


# An account's key; of one member only where they may see no other's.
READ = """
SELECT * FROM api_keys
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
"""


def read(connection: Connection, key_id: str, account_id: str, *, user_id: str | None = None) -> ApiKey | None:
    """The key, if the account has it, and the user if one is given."""
    row = fetch_one(connection, READ, {"id": key_id, "account_id": account_id, "user_id": user_id})
    return _key(row) if row else None


# A page of them, newest first.
LIST = """
SELECT * FROM api_keys
WHERE account_id = %(account_id)s
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_keys(
    connection: Connection, account_id: str, *, user_id: str | None = None, after: str | None = None, limit: int = 20
) -> list[ApiKey]:
    """At most `limit` keys of an account, or of one of its users, that were made before the key `after`."""
    parameters = {"account_id": account_id, "user_id": user_id, "after": after, "limit": limit}
    return [_key(row) for row in fetch_all(connection, LIST, parameters)]


# What has ended stays so: a new time would bring it back to life.
CHANGE = """
UPDATE api_keys SET name = coalesce(%(name)s, name),
                    expires_at = CASE WHEN %(retime)s THEN %(expires_at)s ELSE expires_at END
WHERE id = %(id)s AND account_id = %(account_id)s
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING *
"""


def update(
    connection: Connection,
    key_id: str,
    account_id: str,
    *,
    name: str | None,
    retime: bool,
    expires_at: datetime | None,
) -> ApiKey | None:
    """A living key with another name, and with another end if `retime`; None when it has ended."""
    values = {"name": name, "retime": retime, "expires_at": expires_at}
    row = fetch_one(connection, CHANGE, {"id": key_id, "account_id": account_id, **values})
    return _key(row) if row else None


REVOKE = """
UPDATE api_keys SET revoked_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND revoked_at IS NULL
RETURNING id
"""


def revoke(connection: Connection, key_id: str, account_id: str) -> bool:
    """End a key at once. Whether it had not been revoked before."""
    return fetch_one(connection, REVOKE, {"id": key_id, "account_id": account_id}) is not None


# Whose a secret was, whether it still holds or not.
BY_HASH = "SELECT * FROM api_keys WHERE hash = %(hash)s"


def find_by_hash(connection: Connection, secret_hash: bytes) -> ApiKey | None:
    """The key of a secret, also one that has ended; None for what never was one."""
    row = fetch_one(connection, BY_HASH, {"hash": secret_hash})
    return _key(row) if row else None


#: Days for which a key that opens nothing any more is shown, and known by its secret where somebody still shows it.
KEPT_DAYS = 90

# A batch of keys that ended long ago. What was done about them stands in the audit log.
PRUNE = """
DELETE FROM api_keys WHERE id IN (
    SELECT id FROM api_keys
    WHERE least(revoked_at, expires_at) < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Forget a batch of what ended long ago; returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


def _key(row: Mapping[str, Any]) -> ApiKey:
    values = {field.name: row[field.name] for field in fields(ApiKey)}
    return ApiKey(**{**values, "scopes": tuple(Scope(scope) for scope in row["scopes"])})
