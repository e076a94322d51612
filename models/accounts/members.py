"""Who belongs to an account, in which role, and the account as its members see it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.accounts import plans
from models.accounts.accounts import Role
from models.accounts.plans import Limits
from models.platform.database import Connection, fetch_all, fetch_one


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an account. `created_at` is since when."""

    user_id: str
    email: str
    name: str
    role: Role
    created_at: datetime


# A page of members, in the order in which their users came to be.
PAGE = """
SELECT user_id, email, name, role, memberships.created_at
FROM memberships JOIN users ON users.id = user_id
WHERE account_id = %(account_id)s AND (%(after)s::text IS NULL OR user_id > %(after)s)
ORDER BY user_id LIMIT %(limit)s
"""


def page(connection: Connection, account_id: str, *, after: str | None, limit: int) -> list[Member]:
    """At most `limit` members behind the member `after`."""
    parameters = {"account_id": account_id, "after": after, "limit": limit}
    return [_member(row) for row in fetch_all(connection, PAGE, parameters)]


READ = """
SELECT user_id, email, name, role, memberships.created_at
FROM memberships JOIN users ON users.id = user_id
WHERE account_id = %(account_id)s AND user_id = %(user_id)s
"""


def read(connection: Connection, account_id: str, user_id: str) -> Member | None:
    """A member, if the user is one."""
    row = fetch_one(connection, READ, {"account_id": account_id, "user_id": user_id})
    return _member(row) if row else None


# Whoever changes who belongs to an account, and as what, holds it: they come one after the other.
HOLD = "SELECT id FROM accounts WHERE id = %(id)s AND erased_at IS NULL FOR NO KEY UPDATE"


def lock_account(connection: Connection, account_id: str) -> bool:
    """Lock the account until the caller's transaction ends. Returns whether it is there, and not being erased."""
    return fetch_one(connection, HOLD, {"id": account_id}) is not None


OTHER_OWNERS = """
SELECT EXISTS (
    SELECT FROM memberships WHERE account_id = %(account_id)s AND role = 'owner' AND user_id <> %(user_id)s) AS others
"""


def has_other_owners(connection: Connection, account_id: str, user_id: str) -> bool:
    """Whether somebody besides the user owns the account. To be asked while holding it."""
    row = fetch_one(connection, OTHER_OWNERS, {"account_id": account_id, "user_id": user_id})
    return bool(row and row["others"])


ADD = """
INSERT INTO memberships (account_id, user_id, role) VALUES (%(account_id)s, %(user_id)s, %(role)s)
ON CONFLICT (account_id, user_id) DO NOTHING
"""


def add(connection: Connection, account_id: str, user_id: str, role: Role) -> bool:
    """Make a user a member. Returns False for who was one already: their role stays."""
    values = {"account_id": account_id, "user_id": user_id, "role": role}
    return connection.execute(ADD, values).rowcount > 0


SET_ROLE = "UPDATE memberships SET role = %(role)s WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def set_role(connection: Connection, account_id: str, user_id: str, role: Role) -> None:
    """Give a member another role."""
    connection.execute(SET_ROLE, {"account_id": account_id, "user_id": user_id, "role": role})


REMOVE = "DELETE FROM memberships WHERE account_id = %(account_id)s AND user_id = %(user_id)s"


def remove(connection: Connection, account_id: str, user_id: str) -> None:
    """Take a member out. Their API keys of this account go along; their user stays."""
    connection.execute(REMOVE, {"account_id": account_id, "user_id": user_id})


@dataclass(frozen=True, slots=True)
class JoinedAccount:
    """An account that a user belongs to."""

    account_id: str
    account_name: str
    role: Role
    created_at: datetime


#: Accounts that a person may belong to.
MAX_ACCOUNTS = 100

PLACES = """
SELECT account_id, accounts.name AS account_name, role, memberships.created_at
FROM memberships JOIN accounts ON accounts.id = account_id
WHERE user_id = %(user_id)s ORDER BY memberships.created_at, account_id LIMIT %(limit)s
"""


def joined_accounts(connection: Connection, user_id: str) -> list[JoinedAccount]:
    """Where a user belongs, the oldest membership first."""
    rows = fetch_all(connection, PLACES, {"user_id": user_id, "limit": MAX_ACCOUNTS})
    return [JoinedAccount(**row | {"role": Role(row["role"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class Account:
    """An account and what it may use: its plan's word, or an operator's above it."""

    id: str
    name: str
    plan_id: str
    plan_name: str
    limits: Limits
    created_at: datetime


ACCOUNT = """
SELECT accounts.id, accounts.name, plans.id AS plan_id, plans.name AS plan_name,
       plans.limits || accounts.limits AS limits, accounts.created_at
FROM accounts JOIN plans ON plans.id = plan_id
WHERE accounts.id = %(id)s
"""


def read_account(connection: Connection, account_id: str) -> Account | None:
    """An account."""
    row = fetch_one(connection, ACCOUNT, {"id": account_id})
    return Account(**row | {"limits": plans.parse_limits(row["limits"])}) if row else None


RENAME = "UPDATE accounts SET name = %(name)s WHERE id = %(id)s AND erased_at IS NULL"


def rename_account(connection: Connection, account_id: str, name: str) -> None:
    """Give an account another name."""
    connection.execute(RENAME, {"id": account_id, "name": name})


def _member(row: dict[str, Any]) -> Member:
    return Member(**row | {"role": Role(row["role"])})
