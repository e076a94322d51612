"""All accounts of the installation. For operators only: not scoped by account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from models.accounts import plans
from models.accounts.plans import EFFECTIVE_LIMITS, Limits
from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account with its effective limits: those of its plan, replaced by the operators' `overrides`."""

    id: str
    name: str
    plan_id: str
    overrides: Mapping[str, int]
    limits: Limits
    members: int
    created_at: datetime
    erased_at: datetime | None


# Accounts with this id, or with this text in their name or a member's e-mail address.
LIST = f"""
SELECT accounts.id, accounts.name, plan_id, accounts.limits AS overrides, {EFFECTIVE_LIMITS} AS limits,
       accounts.created_at, erased_at,
       (SELECT count(*)::int FROM memberships WHERE account_id = accounts.id) AS members
FROM accounts JOIN plans ON plans.id = plan_id
WHERE (%(after)s::text IS NULL OR accounts.id < %(after)s)
  AND (%(search)s::text IS NULL
       OR accounts.id = %(search)s
       OR strpos(lower(accounts.name), lower(%(search)s)) > 0
       OR accounts.id IN (SELECT account_id FROM memberships JOIN users ON users.id = user_id
                          WHERE strpos(lower(email), lower(%(search)s)) > 0))
ORDER BY accounts.id DESC LIMIT %(limit)s
"""


def list_accounts(
    connection: Connection, *, search: str | None = None, after: str | None = None, limit: int = 20
) -> list[AccountState]:
    """Return at most `limit` accounts, newest first, older than the account `after`."""
    rows = fetch_all(connection, LIST, {"search": search, "after": after, "limit": limit})
    return [_account(row) for row in rows]


READ = f"""
SELECT accounts.id, accounts.name, plan_id, accounts.limits AS overrides, {EFFECTIVE_LIMITS} AS limits,
       accounts.created_at, erased_at,
       (SELECT count(*)::int FROM memberships WHERE account_id = accounts.id) AS members
FROM accounts JOIN plans ON plans.id = plan_id
WHERE accounts.id = %(id)s
"""


def read_account(connection: Connection, account_id: str) -> AccountState | None:
    """Return an account."""
    row = fetch_one(connection, READ, {"id": account_id})
    return _account(row) if row else None


# Effective from the account's next request on.
CHANGE = """
UPDATE accounts SET plan_id = coalesce(%(plan_id)s, plan_id), limits = (limits || %(overrides)s) - %(removed)s::text[]
WHERE id = %(id)s
"""


def change_account(
    connection: Connection,
    account_id: str,
    *,
    plan_id: str | None,
    overrides: Mapping[str, int],
    removed: Sequence[str],
) -> None:
    """Change an account's plan, if one is given, and set and remove overrides."""
    values = {"plan_id": plan_id, "overrides": Jsonb(dict(overrides)), "removed": list(removed)}
    connection.execute(CHANGE, {"id": account_id, **values})


def has_plan(connection: Connection, plan_id: str) -> bool:
    """Return whether the plan exists. Plans are never deleted."""
    return fetch_one(connection, "SELECT 1 FROM plans WHERE id = %(id)s", {"id": plan_id}) is not None


def _account(row: Mapping[str, Any]) -> AccountState:
    return AccountState(**{**row, "limits": plans.parse_limits(row["limits"])})
