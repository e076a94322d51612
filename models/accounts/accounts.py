"""Accounts, users and memberships. An account owns all other records."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from models.accounts.residency import Residency
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id


class Role(StrEnum):
    """The role of a member in an account, from most rights to fewest."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"

    def covers(self, least: "Role") -> bool:
        """Return whether this role has at least the rights of `least`."""
        order = list(Role)
        return order.index(self) <= order.index(least)


class Scope(StrEnum):
    """What an API key may be used for. No scope includes another."""

    READ = "read"
    WRITE = "write"
    INFERENCE = "inference"
    BILLING = "billing"
    ADMIN = "admin"


#: What requests of an API key that name no end user recall and remember: the memories of its user, or nothing.
KeyMemory = Literal["owner", "named"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The user or application that makes a request, its account and role. Every query is scoped by `account_id`.

    session_id  set for a user who logged in
    key_id      set for an application with an API key, which has its creator's rights within the key's `scopes`
    operator    whether the user is an operator of the installation
    memory      `owner`: requests that name no end user have the user's own memories; `named`: they have none
    residency   `local`: neither the key nor the account lets turns leave the operator's network; None: neither says
    """

    user_id: str
    account_id: str
    role: Role
    session_id: str | None = None
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    operator: bool = False
    memory: KeyMemory = "owner"
    residency: Residency | None = None


@dataclass(frozen=True, slots=True)
class User:
    """A user. `password_hash` is None without a password; `verified` is whether the e-mail address is verified."""

    id: str
    email: str
    password_hash: str | None
    verified: bool = False


#: The plan of accounts, and the smaller one until the address of their owner is verified.
DEFAULT_PLAN, UNVERIFIED_PLAN = "default", "unverified"

#: Most users that a login is checked against; see `login_candidates`.
MAX_LOGIN_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's role in an account."""

    user_id: str
    account_id: str
    role: Role


# A user, an account and the owner's membership.
CREATE = """
    WITH person AS (
        INSERT INTO users (id, email, password_hash) VALUES (%(user_id)s, %(email)s, %(password_hash)s)
        RETURNING id
    ), account AS (
        INSERT INTO accounts (id, name, plan_id) VALUES (%(account_id)s, %(email)s, %(plan_id)s)
        RETURNING id
    )
    INSERT INTO memberships (account_id, user_id, role)
    SELECT account.id, person.id, 'owner' FROM account, person
    RETURNING user_id, account_id, role
"""

# The user who verified the address, and the first and the last of those who signed up with it since, in this order.
CANDIDATES = """
    WITH matching AS (
        SELECT id, email, password_hash, email_verified_at, created_at FROM users WHERE lower(email) = lower(%(email)s)
    ),
    owner AS (SELECT id, email, password_hash, email_verified_at FROM matching WHERE email_verified_at IS NOT NULL),
    unverified AS (
        SELECT id, email, password_hash, email_verified_at, created_at FROM matching
        WHERE email_verified_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM owner WHERE owner.email_verified_at >= matching.created_at)
    ),
    chosen AS (
        SELECT 1 AS rank, id, email, password_hash, email_verified_at FROM owner
        UNION ALL (SELECT 2, id, email, password_hash, email_verified_at FROM unverified
                   ORDER BY created_at, id LIMIT 1)
        UNION ALL (SELECT 3, id, email, password_hash, email_verified_at FROM unverified
                   ORDER BY created_at DESC, id DESC LIMIT 1)
    )
    SELECT DISTINCT ON (id) rank, id, email, password_hash, email_verified_at IS NOT NULL AS verified
    FROM chosen ORDER BY id, rank
"""

# Locks the password hash until the transaction ends: a concurrent change waits, and then sees what was committed.
LOCK_HASH = "SELECT 1 FROM users WHERE id = %(user_id)s AND password_hash = %(password_hash)s FOR SHARE"

FIND = "SELECT id, email, password_hash, email_verified_at IS NOT NULL AS verified FROM users WHERE id = %(user_id)s"

# The oldest membership is that of the account created at signup, unless the user has left it.
MEMBERSHIPS = """
    SELECT user_id, account_id, role FROM memberships
    WHERE user_id = %(user_id)s
    ORDER BY created_at, account_id
"""

REPLACE_HASH = "UPDATE users SET password_hash = %(password_hash)s WHERE id = %(user_id)s"

CHANGE_HASH = "UPDATE users SET password_hash = %(new)s WHERE id = %(user_id)s AND password_hash = %(old)s"


def create(connection: Connection, *, email: str, password_hash: str | None, plan_id: str = DEFAULT_PLAN) -> Membership:
    """Create a user with an unverified address, and an account that the user owns."""
    parameters = {
        "user_id": new_id("user"),
        "account_id": new_id("acct"),
        "email": email,
        "password_hash": password_hash,
        "plan_id": plan_id,
    }
    row = fetch_one(connection, CREATE, parameters)
    assert row is not None
    return _membership(row)


def login_candidates(connection: Connection, email: str) -> list[User]:
    """Return the users whom a login with this address may mean, its owner first. The case of the address is ignored."""
    rows = sorted(fetch_all(connection, CANDIDATES, {"email": email}), key=lambda row: row["rank"])
    return [_user(row) for row in rows]


def find(connection: Connection, user_id: str) -> User | None:
    """Return a user by id."""
    row = fetch_one(connection, FIND, {"user_id": user_id})
    return _user(row) if row else None


def has_password(connection: Connection, user_id: str, password_hash: str) -> bool:
    """Return whether this is the user's present password hash, and lock it until the transaction ends."""
    parameters = {"user_id": user_id, "password_hash": password_hash}
    return fetch_one(connection, LOCK_HASH, parameters) is not None


def memberships(connection: Connection, user_id: str) -> list[Membership]:
    """Return a user's memberships, the oldest first."""
    return [_membership(row) for row in fetch_all(connection, MEMBERSHIPS, {"user_id": user_id})]


def change_password(connection: Connection, user_id: str, old: str | None, new: str) -> bool:
    """Replace the password hash if it is still the old one. Returns whether it was."""
    return connection.execute(CHANGE_HASH, {"user_id": user_id, "old": old, "new": new}).rowcount > 0


def set_password(connection: Connection, user_id: str, password_hash: str) -> None:
    """Replace the password hash."""
    connection.execute(REPLACE_HASH, {"user_id": user_id, "password_hash": password_hash})


def _user(row: dict[str, Any]) -> User:
    return User(row["id"], row["email"], row["password_hash"], row["verified"])


def _membership(row: dict[str, str]) -> Membership:
    return Membership(row["user_id"], row["account_id"], Role(row["role"]))
