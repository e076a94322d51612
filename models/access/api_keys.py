"""API keys: credentials of applications. A secret is shown once and stored as its hash."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from models.accounts.accounts import KeyMemory, Role, Scope
from models.accounts.residency import Residency
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.records import columns

KeyStatus = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `hint` is the secret's beginning and end; `user_id` is its creator.

    memory         what requests that name no end user recall and remember
    key_models     the models that its requests may use; None: those that the account may
    key_residency  `local`: no turn of its requests leaves the operator's network; None: as the account says
    """

    id: str
    account_id: str
    user_id: str
    name: str
    hint: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    memory: KeyMemory
    key_residency: Residency | None = None
    key_models: list[str] | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def status(self) -> KeyStatus:
        """Whether the key is valid, and if not, why."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= datetime.now(UTC) else "active"


COLUMNS = columns(ApiKey)


# Locks the creator's membership: meanwhile it is not removed or changed, and the creator gets no other key.
LOCK_CREATOR = """
SELECT role FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s FOR UPDATE
"""


def lock_creator_role(connection: Connection, account_id: str, user_id: str) -> Role | None:
    """Return the creator's role and lock it until the transaction ends; None if the user has left the account."""
    row = fetch_one(connection, LOCK_CREATOR, {"account_id": account_id, "user_id": user_id})
    return Role(row["role"]) if row else None


COUNT_ACTIVE = """
SELECT count(*)::int AS live FROM api_keys
WHERE account_id = %(account_id)s AND user_id = %(user_id)s AND id <> %(id)s
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""


def count_active(connection: Connection, account_id: str, user_id: str, *, except_key_id: str) -> int:
    """Count a member's valid keys, except `except_key_id`."""
    row = fetch_one(connection, COUNT_ACTIVE, {"account_id": account_id, "user_id": user_id, "id": except_key_id})
    return int(row["live"]) if row else 0


# A repeated request has the same id. Its first response was never received, so the first secret is replaced.
INSERT = f"""
INSERT INTO api_keys (id, account_id, user_id, name, hint, hash, scopes, expires_at, memory,
                      key_residency, key_models)
VALUES (%(id)s, %(account_id)s, %(user_id)s, %(name)s, %(hint)s, %(hash)s, %(scopes)s, %(expires_at)s, %(memory)s,
        %(residency)s, %(models)s)
ON CONFLICT (id) DO UPDATE SET hint = excluded.hint, hash = excluded.hash
    WHERE api_keys.account_id = excluded.account_id AND api_keys.user_id = excluded.user_id
RETURNING {COLUMNS}
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
    memory: KeyMemory = "named",
    residency: Residency | None = None,
    models: Sequence[str] | None = None,
) -> ApiKey:
    """Store a key."""
    owner = {"id": key_id, "account_id": account_id, "user_id": user_id}
    grant = {"hash": secret_hash, "scopes": list(scopes), "expires_at": expires_at, "memory": memory}
    row = fetch_one(
        connection,
        INSERT,
        {**owner, **grant, "residency": residency, "models": _array(models), "name": name, "hint": hint},
    )
    assert row is not None, f"The key id {key_id} belongs to another member."
    return _key(row)


def _array(models: Sequence[str] | None) -> list[str] | None:
    return None if models is None else list(models)


MODELS_OF = "SELECT key_models FROM api_keys WHERE id = %(id)s AND account_id = %(account_id)s"


def models_of(connection: Connection, key_id: str, account_id: str) -> list[str] | None:
    """Return the models that a key may use; None for all of the account's."""
    row = fetch_one(connection, MODELS_OF, {"id": key_id, "account_id": account_id})
    return row["key_models"] if row else None


READ = f"""
SELECT {COLUMNS} FROM api_keys
WHERE id = %(id)s AND account_id = %(account_id)s AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
"""


def read(connection: Connection, key_id: str, account_id: str, *, user_id: str | None = None) -> ApiKey | None:
    """Return the key if it belongs to the account, and to the user if one is given."""
    row = fetch_one(connection, READ, {"id": key_id, "account_id": account_id, "user_id": user_id})
    return _key(row) if row else None


LIST = f"""
SELECT {COLUMNS} FROM api_keys
WHERE account_id = %(account_id)s
  AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_keys(
    connection: Connection, account_id: str, *, user_id: str | None = None, after: str | None = None, limit: int = 20
) -> list[ApiKey]:
    """Return at most `limit` keys of an account, or of one of its users, newest first, older than the key `after`."""
    parameters = {"account_id": account_id, "user_id": user_id, "after": after, "limit": limit}
    return [_key(row) for row in fetch_all(connection, LIST, parameters)]


#: Keys that an e-mail lists at most.
MAX_LISTED = 50

ACTIVE_OF = f"""
SELECT {COLUMNS} FROM api_keys
WHERE user_id = %(user_id)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
ORDER BY id DESC LIMIT %(limit)s
"""


def list_active_of(connection: Connection, user_id: str) -> list[ApiKey]:
    """Return at most MAX_LISTED valid keys of a user in all accounts, newest first."""
    return [_key(row) for row in fetch_all(connection, ACTIVE_OF, {"user_id": user_id, "limit": MAX_LISTED})]


REVOKE_ALL_OF = "UPDATE api_keys SET revoked_at = now() WHERE user_id = %(user_id)s AND revoked_at IS NULL"


def revoke_all_of(connection: Connection, user_id: str) -> int:
    """Revoke all keys of a user in all accounts. Returns how many."""
    return connection.execute(REVOKE_ALL_OF, {"user_id": user_id}).rowcount


# Ended keys are not changed: a new expiry time would make them valid again.
UPDATE = f"""
UPDATE api_keys SET name = coalesce(%(name)s, name), memory = coalesce(%(memory)s, memory),
                    key_residency = coalesce(%(residency)s, key_residency),
                    key_models = CASE WHEN %(set_models)s THEN %(models)s::text[] ELSE key_models END,
                    expires_at = CASE WHEN %(set_expiry)s THEN %(expires_at)s ELSE expires_at END
WHERE id = %(id)s AND account_id = %(account_id)s
  AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING {COLUMNS}
"""


def update(
    connection: Connection,
    key_id: str,
    account_id: str,
    *,
    name: str | None,
    memory: KeyMemory | None,
    residency: Residency | None,
    set_expiry: bool,
    expires_at: datetime | None,
    set_models: bool = False,
    models: Sequence[str] | None = None,
) -> ApiKey | None:
    """Change the name, the memory and the residency of a valid key, its expiry time if `set_expiry`, and its
    models if `set_models`.

    None leaves a field as it is. Returns None if the key is no longer valid.
    """
    values = {
        "set_models": set_models,
        "models": _array(models),
        "name": name,
        "memory": memory,
        "residency": residency,
        "set_expiry": set_expiry,
        "expires_at": expires_at,
    }
    row = fetch_one(connection, UPDATE, {"id": key_id, "account_id": account_id, **values})
    return _key(row) if row else None


REVOKE = """
UPDATE api_keys SET revoked_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND revoked_at IS NULL
RETURNING id
"""


def revoke(connection: Connection, key_id: str, account_id: str) -> bool:
    """Revoke a key. Returns False if it was revoked before."""
    return fetch_one(connection, REVOKE, {"id": key_id, "account_id": account_id}) is not None


BY_HASH = f"SELECT {COLUMNS} FROM api_keys WHERE hash = %(hash)s"


def find_by_hash(connection: Connection, secret_hash: bytes) -> ApiKey | None:
    """Return the key with this hash, valid or not."""
    row = fetch_one(connection, BY_HASH, {"hash": secret_hash})
    return _key(row) if row else None


#: Days for which an ended key is listed, and reported as ended when it is used.
KEPT_DAYS = 90

PRUNE = """
DELETE FROM api_keys WHERE id IN (
    SELECT id FROM api_keys
    WHERE least(revoked_at, expires_at) < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete a batch of keys that ended KEPT_DAYS ago. Returns how many."""
    return connection.execute(PRUNE, {"days": KEPT_DAYS, "batch": batch}).rowcount


def _key(row: Mapping[str, Any]) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(Scope(scope) for scope in row["scopes"])})
