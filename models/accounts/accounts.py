"""Accounts, the users who belong to them, and with what role. Accounts own everything else."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id


class Role(StrEnum):
    """What a member may do in an account, the most first."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"

    def covers(self, least: "Role") -> bool:
        """Whether this role may do what `least` may."""
        order = list(Role)
        return order.index(self) <= order.index(least)


class Scope(StrEnum):
    """What an API key may be used for. None of them contains another."""

    READ = "read"
    WRITE = "write"
    INFERENCE = "inference"
    BILLING = "billing"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for which account, in which role. Every query is scoped by `account_id`.

    session_id  of a person, who has logged in
    key_id      of an application, which shows an API key; it may do what its maker may, within the key's `scopes`
    operator    whether a person is of the staff that runs the installation
    """

    user_id: str
    account_id: str
    role: Role
    session_id: str | None = None
    key_id: str | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    operator: bool = False


@dataclass(frozen=True, slots=True)
class User:
    """A person. `password_hash` is None for those who come by OIDC only; `verified`: the address is proved theirs."""

    id: str
    email: str
    password_hash: str | None
    verified: bool = False


#: Whom a login may mean at most: see `candidates`.
MAX_LOGIN_CANDIDATES = 3


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in an account."""

    user_id: str
    account_id: str
    role: Role


# A user, an account and the ownership that ties them.
CREATE = """
    WITH person AS (
        INSERT INTO users (id, email, password_hash) VALUES (%(user_id)s, %(email)s, %(password_hash)s)
        RETURNING id
    ), account AS (
        INSERT INTO accounts (id, name) VALUES (%(account_id)s, %(email)s)
        RETURNING id
    )
    INSERT INTO memberships (account_id, user_id, role)
    SELECT account.id, person.id, 'owner' FROM account, person
    RETURNING user_id, account_id, role
"""

# Whoever has proved the address; of those who claimed it since then the first and the last one. In this order.
CANDIDATES = """
    WITH known AS (SELECT * FROM users WHERE lower(email) = lower(%(email)s)),
    owner AS (SELECT * FROM known WHERE email_verified_at IS NOT NULL),
    claimants AS (
        SELECT * FROM known
        WHERE email_verified_at IS NULL
          AND NOT EXISTS (SELECT 1 FROM owner WHERE owner.email_verified_at >= known.created_at)
    ),
    chosen AS (
        SELECT 1 AS place, * FROM owner
        UNION ALL (SELECT 2, * FROM claimants ORDER BY created_at, id LIMIT 1)
        UNION ALL (SELECT 3, * FROM claimants ORDER BY created_at DESC, id DESC LIMIT 1)
    )
    SELECT DISTINCT ON (id) place, id, email, password_hash, email_verified_at IS NOT NULL AS verified
    FROM chosen ORDER BY id, place
"""

# Holds the password as it is until the end of the transaction: a change of it waits, and then finds what came of it.
STILL_HAS = "SELECT 1 FROM users WHERE id = %(user_id)s AND password_hash = %(password_hash)s FOR SHARE"

FIND = "SELECT id, email, password_hash, email_verified_at IS NOT NULL AS verified FROM users WHERE id = %(user_id)s"

# The oldest membership first: the account that came with the signup, unless the user has left it.
MEMBERSHIPS = """
    SELECT user_id, account_id, role FROM memberships
    WHERE user_id = %(user_id)s
    ORDER BY created_at, account_id
"""

REPLACE_HASH = "UPDATE users SET password_hash = %(password_hash)s WHERE id = %(user_id)s"

CHANGE_HASH = "UPDATE users SET password_hash = %(new)s WHERE id = %(user_id)s AND password_hash = %(old)s"


def create(connection: Connection, *, email: str, password_hash: str | None) -> Membership:
    """A new user, who claims an address, and owns a new account."""
    parameters = {
        "user_id": new_id("user"),
        "account_id": new_id("acct"),
        "email": email,
        "password_hash": password_hash,
    }
    row = fetch_one(connection, CREATE, parameters)
    assert row is not None
    return _membership(row)


def login_candidates(connection: Connection, email: str) -> list[User]:
    """Whom a login by this address, whatever its case, may mean: at most CANDIDATES_MOST, the owner of it first."""
    rows = sorted(fetch_all(connection, CANDIDATES, {"email": email}), key=lambda row: row["place"])
    return [_user(row) for row in rows]


def find(connection: Connection, user_id: str) -> User | None:
    """A user, by id."""
    row = fetch_one(connection, FIND, {"user_id": user_id})
    return _user(row) if row else None


def has_password(connection: Connection, user_id: str, password_hash: str) -> bool:
    """Whether this is still the user's hash; then it stays so until the end of the transaction."""
    parameters = {"user_id": user_id, "password_hash": password_hash}
    return fetch_one(connection, STILL_HAS, parameters) is not None


def memberships(connection: Connection, user_id: str) -> list[Membership]:
    """Where a user belongs, the oldest membership first."""
    return [_membership(row) for row in fetch_all(connection, MEMBERSHIPS, {"user_id": user_id})]


def change_password(connection: Connection, user_id: str, old: str | None, new: str) -> bool:
    """Replace the stored hash if it is still the old one. Returns whether it was."""
    return connection.execute(CHANGE_HASH, {"user_id": user_id, "old": old, "new": new}).rowcount > 0


def set_password(connection: Connection, user_id: str, password_hash: str) -> None:
    """Replace the stored hash."""
    connection.execute(REPLACE_HASH, {"user_id": user_id, "password_hash": password_hash})


def _user(row: dict[str, Any]) -> User:
    return User(row["id"], row["email"], row["password_hash"], row["verified"])


def _membership(row: dict[str, str]) -> Membership:
    return Membership(row["user_id"], row["account_id"], Role(row["role"]))
