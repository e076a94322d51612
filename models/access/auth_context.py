"""Resolve an API key or an access token's session to its caller, in one statement per request.

Nothing is cached, so a revoked key, a removed member or a changed role takes effect with the next request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.accounts import plans
from models.accounts.accounts import Caller, Role, Scope
from models.accounts.plans import EFFECTIVE_LIMITS, Limits
from models.accounts.residency import strictest
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.secrets import hash_secret


@dataclass(frozen=True, slots=True)
class AuthContext:
    """The caller of a request, the limits of its account, and whether the account's usage is billed."""

    caller: Caller
    limits: Limits
    billed: bool = False


# An active session of a member of the account.
SESSION = f"""
SELECT memberships.role, users.operator, {EFFECTIVE_LIMITS} AS limits,
       accounts.billed_since IS NOT NULL AS billed, accounts.account_residency AS residency
FROM sessions
JOIN users ON users.id = sessions.user_id
JOIN memberships ON memberships.user_id = users.id AND memberships.account_id = %(account_id)s
JOIN accounts ON accounts.id = memberships.account_id
JOIN plans ON plans.id = accounts.plan_id
WHERE sessions.id = %(session_id)s AND sessions.user_id = %(user_id)s
  AND sessions.revoked_at IS NULL AND sessions.expires_at > now()
"""


def for_session(connection: Connection, *, session_id: str, user_id: str, account_id: str) -> AuthContext | None:
    """Return the caller of an access token; None if its session has ended or its user has left the account."""
    parameters = {"session_id": session_id, "user_id": user_id, "account_id": account_id}
    row = fetch_one(connection, SESSION, parameters)
    if row is None:
        return None
    caller = Caller(
        user_id,
        account_id,
        Role(row["role"]),
        session_id=session_id,
        operator=row["operator"],
        residency=row["residency"],
    )
    return AuthContext(caller, plans.parse_limits(row["limits"]), row["billed"])


# A valid key of a member. Its use is recorded once a minute.
KEY = f"""
WITH valid_key AS (
    SELECT id, user_id, account_id, scopes, memory, key_residency, key_models, last_used_at FROM api_keys
    WHERE hash = %(hash)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
), used AS (
    UPDATE api_keys SET last_used_at = now() FROM valid_key
    WHERE api_keys.id = valid_key.id
      AND (valid_key.last_used_at IS NULL OR valid_key.last_used_at < now() - interval '1 minute')
)
SELECT valid_key.id, valid_key.user_id, valid_key.account_id, valid_key.scopes, valid_key.memory, memberships.role,
       {EFFECTIVE_LIMITS} AS limits, accounts.billed_since IS NOT NULL AS billed, valid_key.key_residency,
       valid_key.key_models, accounts.account_residency
FROM valid_key
JOIN memberships USING (account_id, user_id)
JOIN accounts ON accounts.id = valid_key.account_id
JOIN plans ON plans.id = accounts.plan_id
"""


# Credentials without a valid session or key, or whose user has no membership.
ENDED = """
SELECT credential_id, user_id, account_id
FROM unnest(%(credential_ids)s::text[], %(user_ids)s::text[], %(account_ids)s::text[])
     AS caller (credential_id, user_id, account_id)
WHERE NOT EXISTS (
    SELECT FROM memberships
    WHERE memberships.account_id = caller.account_id AND memberships.user_id = caller.user_id
) OR NOT EXISTS (
    SELECT FROM sessions
    WHERE sessions.id = caller.credential_id AND sessions.user_id = caller.user_id
      AND sessions.revoked_at IS NULL AND sessions.expires_at > now()
) AND NOT EXISTS (
    SELECT FROM api_keys
    WHERE api_keys.id = caller.credential_id AND api_keys.account_id = caller.account_id
      AND api_keys.user_id = caller.user_id
      AND api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
)
"""


class Credential(NamedTuple):
    """A session or an API key, with its user and account."""

    id: str
    user_id: str
    account_id: str

    @classmethod
    def of(cls, caller: Caller) -> "Credential":
        """Return the caller's credential."""
        return cls(caller.key_id or caller.session_id or "", caller.user_id, caller.account_id)


def find_ended(connection: Connection, credentials: Sequence[Credential]) -> set[Credential]:
    """Return the credentials that are no longer valid, or whose user has left the account."""
    ids, user_ids, account_ids = (list(column) for column in zip(*credentials, strict=True))
    parameters = {"credential_ids": ids, "user_ids": user_ids, "account_ids": account_ids}
    rows = fetch_all(connection, ENDED, parameters)
    return {Credential(row["credential_id"], row["user_id"], row["account_id"]) for row in rows}


def for_api_key(connection: Connection, secret: str) -> AuthContext | None:
    """Return the caller of an API key; None if it is not valid, or its creator has left the account."""
    row = fetch_one(connection, KEY, {"hash": hash_secret(secret)})
    if row is None:
        return None
    scopes = frozenset(Scope(scope) for scope in row["scopes"])
    caller = Caller(
        row["user_id"],
        row["account_id"],
        Role(row["role"]),
        key_id=row["id"],
        scopes=scopes,
        memory=row["memory"],
        residency=strictest(row["key_residency"], row["account_residency"]),
    )
    return AuthContext(caller, plans.parse_limits(row["limits"]).within(row["key_models"]), row["billed"])
