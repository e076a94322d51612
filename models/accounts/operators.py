"""Operators: users with the right to administer the installation."""

from dataclasses import dataclass
from datetime import datetime

from models.accounts.accounts import Membership, Role
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator."""

    id: str
    email: str
    created_at: datetime


# Only a verified address: anybody can sign up with an unverified one.
FIND = """
SELECT id, operator FROM users WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def find(connection: Connection, email: str) -> tuple[str, bool] | None:
    """Return the id of the user who verified the address, and whether it is an operator. The case is ignored."""
    row = fetch_one(connection, FIND, {"email": email})
    return (row["id"], row["operator"]) if row else None


# Inserts nothing if another user has verified the address meanwhile.
CREATE = """
WITH person AS (
    INSERT INTO users (id, email, password_hash, email_verified_at, operator)
    VALUES (%(user_id)s, %(email)s, %(password_hash)s, now(), true)
    ON CONFLICT DO NOTHING
    RETURNING id
), account AS (
    INSERT INTO accounts (id, name) SELECT %(account_id)s, %(email)s FROM person
    RETURNING id
)
INSERT INTO memberships (account_id, user_id, role)
SELECT account.id, person.id, 'owner' FROM account, person
RETURNING account_id, user_id, role
"""


def create(connection: Connection, *, email: str, password_hash: str) -> Membership | None:
    """Create an operator with a verified address and an account; None if another user has verified the address."""
    ids = {"user_id": new_id("user"), "account_id": new_id("acct")}
    row = fetch_one(connection, CREATE, {**ids, "email": email, "password_hash": password_hash})
    return Membership(row["user_id"], row["account_id"], Role(row["role"])) if row else None


# A user without an account cannot log in.
CREATE_ACCOUNT = """
WITH without_account AS (
    SELECT id, email FROM users
    WHERE id = %(user_id)s AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = %(user_id)s)
), account AS (
    INSERT INTO accounts (id, name) SELECT %(account_id)s, email FROM without_account
    RETURNING id
)
INSERT INTO memberships (account_id, user_id, role)
SELECT account.id, without_account.id, 'owner' FROM account, without_account
"""

SET_OPERATOR = (
    "UPDATE users SET operator = %(operator)s WHERE id = %(user_id)s AND operator <> %(operator)s RETURNING id"
)


def grant(connection: Connection, user_id: str) -> bool:
    """Make a user an operator, and create an account for one without. Returns False if the user was an operator."""
    connection.execute(CREATE_ACCOUNT, {"user_id": user_id, "account_id": new_id("acct")})
    return fetch_one(connection, SET_OPERATOR, {"user_id": user_id, "operator": True}) is not None


def revoke(connection: Connection, user_id: str) -> bool:
    """Make an operator an ordinary user. Returns False if the user was none."""
    return fetch_one(connection, SET_OPERATOR, {"user_id": user_id, "operator": False}) is not None


LIST = "SELECT id, email, created_at FROM users WHERE operator ORDER BY lower(email)"


def list_operators(connection: Connection) -> list[Operator]:
    """Return all operators."""
    return [Operator(**row) for row in fetch_all(connection, LIST)]
