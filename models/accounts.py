"""Accounts, the users who belong to them, and with what role. Accounts own everything else."""

from dataclasses import dataclass
from enum import StrEnum

from models.database import Connection, all_of, one
from models.errors import Conflict
from models.ids import new_id


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
    """A person. `password_hash` is None for those who come by OIDC only."""

    id: str
    email: str
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in an account."""

    user_id: str
    account_id: str
    role: Role


#: A user, an account and the ownership that ties them, or nothing at all when the address is taken.
CREATE = """
    WITH person AS (
        INSERT INTO users (id, email, password_hash)
        SELECT %(user_id)s, %(email)s, %(password_hash)s
        WHERE NOT EXISTS (SELECT 1 FROM users WHERE lower(email) = lower(%(email)s))
        RETURNING id
    ), account AS (
        INSERT INTO accounts (id, name)
        SELECT %(account_id)s, %(email)s FROM person
        RETURNING id
    )
    INSERT INTO memberships (account_id, user_id, role)
    SELECT account.id, person.id, 'owner' FROM account, person
    RETURNING user_id, account_id, role
"""

FIND = "SELECT id, email, password_hash FROM users WHERE lower(email) = lower(%(email)s)"

#: The oldest membership first: the account that came with the signup, unless the user has left it.
MEMBERSHIPS = """
    SELECT user_id, account_id, role FROM memberships
    WHERE user_id = %(user_id)s
    ORDER BY created_at, account_id
"""

REPLACE_HASH = "UPDATE users SET password_hash = %(password_hash)s WHERE id = %(user_id)s"


def create(connection: Connection, *, email: str, password_hash: str | None) -> Membership:
    """A new user who owns a new account. Raises Conflict `email_taken`."""
    parameters = {
        "user_id": new_id("user"),
        "account_id": new_id("acct"),
        "email": email,
        "password_hash": password_hash,
    }
    row = one(connection, CREATE, parameters)
    if row is None:
        raise Conflict("This e-mail address has an account already.", param="email", code="email_taken")
    return _membership(row)


def find_by_email(connection: Connection, email: str) -> User | None:
    """The user with this address, whatever its case."""
    row = one(connection, FIND, {"email": email})
    return User(row["id"], row["email"], row["password_hash"]) if row else None


def memberships(connection: Connection, user_id: str) -> list[Membership]:
    """Where a user belongs, the oldest membership first."""
    return [_membership(row) for row in all_of(connection, MEMBERSHIPS, {"user_id": user_id})]


def set_password(connection: Connection, user_id: str, password_hash: str) -> None:
    """Replace the stored hash."""
    connection.execute(REPLACE_HASH, {"user_id": user_id, "password_hash": password_hash})


def _membership(row: dict[str, str]) -> Membership:
    return Membership(row["user_id"], row["account_id"], Role(row["role"]))
