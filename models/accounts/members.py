"""The members of an account, and the account as its members see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.accounts import plans
from models.accounts.accounts import Role
from models.accounts.plans import EFFECTIVE_LIMITS, Limits
from models.accounts.residency import Residency
from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an account since `created_at`."""

    user_id: str
    email: str
    name: str
    role: Role
    created_at: datetime


PAGE = """
SELECT user_id, email, name, role, memberships.created_at
FROM memberships JOIN users ON users.id = user_id
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR user_id > %(after)s)
ORDER BY user_id LIMIT %(limit)s
"""


def page(connection: Connection, account_id: str, *, after: str | None, limit: int) -> list[Member]:
    """Return at most `limit` members, ordered by user id, after the member `after`."""
    parameters = {"account_id": account_id, "after": after, "limit": limit}
    return [_member(row) for row in fetch_all(connection, PAGE, parameters)]


READ = """
SELECT user_id, email, name, role, memberships.created_at
FROM memberships JOIN users ON users.id = user_id
WHERE account_id = %(account_id)s AND user_id = %(user_id)s
"""


def read(connection: Connection, account_id: str, user_id: str) -> Member | None:
    """Return the user's membership, if there is one."""
    row = fetch_one(connection, READ, {"account_id": account_id, "user_id": user_id})
    return _member(row) if row else None


OWNERS = """
SELECT user_id FROM memberships WHERE account_id = %(account_id)s AND role = 'owner' ORDER BY user_id LIMIT 20
"""


def list_owner_ids(connection: Connection, account_id: str) -> list[str]:
    """Return the users who own the account, at most twenty."""
    return [row["user_id"] for row in fetch_all(connection, OWNERS, {"account_id": account_id})]


# Changes of an account's members and roles lock the account, so they are serialised.
LOCK = "SELECT id FROM accounts WHERE id = %(id)s AND erased_at IS NULL FOR NO KEY UPDATE"


def lock_account(connection: Connection, account_id: str) -> bool:
    """Lock the account until the transaction ends. Returns False if it does not exist or is being erased."""
    return fetch_one(connection, LOCK, {"id": account_id}) is not None


ADMINS = """
SELECT user_id FROM memberships WHERE account_id = %(account_id)s AND role IN ('owner', 'admin') ORDER BY user_id
"""


def list_admins(connection: Connection, account_id: str) -> list[str]:
    """Return the ids of the account's owners and admins."""
    return [row["user_id"] for row in fetch_all(connection, ADMINS, {"account_id": account_id})]


OTHER_OWNERS = """
SELECT EXISTS (
    SELECT FROM memberships WHERE account_id = %(account_id)s AND role = 'owner' AND user_id <> %(user_id)s) AS others
"""


def has_other_owners(connection: Connection, account_id: str, user_id: str) -> bool:
    """Return whether another user owns the account. The caller holds the account's lock."""
    row = fetch_one(connection, OTHER_OWNERS, {"account_id": account_id, "user_id": user_id})
    return bool(row and row["others"])


ADD = """
INSERT INTO memberships (account_id, user_id, role) VALUES (%(account_id)s, %(user_id)s, %(role)s)
ON CONFLICT (account_id, user_id) DO NOTHING
"""


def add(connection: Connection, account_id: str, user_id: str, role: Role) -> bool:
    """Add a user to the account. Returns False if the user is a member already; the role is not changed."""
    values = {"account_id": account_id, "user_id": user_id, "role": role}
    return connection.execute(ADD, values).rowcount > 0


SET_ROLE = "UPDATE memberships SET role = %(role)s WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def set_role(connection: Connection, account_id: str, user_id: str, role: Role) -> None:
    """Change a member's role."""
    connection.execute(SET_ROLE, {"account_id": account_id, "user_id": user_id, "role": role})


REMOVE = "DELETE FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def remove(connection: Connection, account_id: str, user_id: str) -> None:
    """Remove a member, with their API keys of this account. The user is kept."""
    connection.execute(REMOVE, {"account_id": account_id, "user_id": user_id})


@dataclass(frozen=True, slots=True)
class JoinedAccount:
    """An account that a user is a member of."""

    account_id: str
    account_name: str
    role: Role
    created_at: datetime


#: Most accounts that a user may be a member of.
MAX_ACCOUNTS = 100

JOINED_ACCOUNTS = """
SELECT account_id, accounts.name AS account_name, role, memberships.created_at
FROM memberships JOIN accounts ON accounts.id = account_id
WHERE user_id = %(user_id)s ORDER BY memberships.created_at, account_id LIMIT %(limit)s
"""


def joined_accounts(connection: Connection, user_id: str) -> list[JoinedAccount]:
    """Return the accounts of a user, the oldest membership first."""
    rows = fetch_all(connection, JOINED_ACCOUNTS, {"user_id": user_id, "limit": MAX_ACCOUNTS})
    return [JoinedAccount(**row | {"role": Role(row["role"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class Account:
    """An account with its effective limits: those of its plan, replaced by operators' overrides.

    account_residency  whether its turns may leave the operator's network; None: as the settings say
    """

    id: str
    name: str
    plan_id: str
    plan_name: str
    limits: Limits
    created_at: datetime
    account_residency: Residency | None = None


ACCOUNT = f"""
SELECT accounts.id, accounts.name, plans.id AS plan_id, plans.name AS plan_name,
       {EFFECTIVE_LIMITS} AS limits, accounts.created_at, accounts.account_residency
FROM accounts JOIN plans ON plans.id = plan_id
WHERE accounts.id = %(id)s
"""


def read_account(connection: Connection, account_id: str) -> Account | None:
    """Return an account."""
    row = fetch_one(connection, ACCOUNT, {"id": account_id})
    return Account(**row | {"limits": plans.parse_limits(row["limits"])}) if row else None


RENAME = "UPDATE accounts SET name = %(name)s WHERE id = %(id)s AND erased_at IS NULL"


def rename_account(connection: Connection, account_id: str, name: str) -> None:
    """Rename an account."""
    connection.execute(RENAME, {"id": account_id, "name": name})


def _member(row: dict[str, Any]) -> Member:
    return Member(**row | {"role": Role(row["role"])})
