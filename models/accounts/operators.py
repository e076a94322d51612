"""Operators: people of the staff that runs the installation. They are users like others, with a mark."""

from dataclasses import dataclass
from datetime import datetime

from models.accounts.accounts import Membership, Role
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id


@dataclass(frozen=True, slots=True)
class Operator:
    """One of the staff."""

    id: str
    email: str
    created_at: datetime


# Only who has proved the address: anyone may claim one, and would wait for the mark.
FIND = """
SELECT id, operator FROM users WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def find(connection: Connection, email: str) -> tuple[str, bool] | None:
    """The id of the user whose address this is, whatever its case, and whether they are an operator."""
    row = fetch_one(connection, FIND, {"email": email})
    return (row["id"], row["operator"]) if row else None


# An operator who owns the address, with an account; nothing when somebody has just become its owner.
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
    """A new user whose address counts as proved, who is an operator and owns an account; None if there is one now."""
    ids = {"user_id": new_id("user"), "account_id": new_id("acct")}
    row = fetch_one(connection, CREATE, {**ids, "email": email, "password_hash": password_hash})
    return Membership(row["user_id"], row["account_id"], Role(row["role"])) if row else None


# For who belongs nowhere: nobody can log in without an account.
HOUSE = """
WITH homeless AS (
    SELECT id, email FROM users
    WHERE id = %(user_id)s AND NOT EXISTS (SELECT 1 FROM memberships WHERE user_id = %(user_id)s)
), account AS (
    INSERT INTO accounts (id, name) SELECT %(account_id)s, email FROM homeless
    RETURNING id
)
INSERT INTO memberships (account_id, user_id, role)
SELECT account.id, homeless.id, 'owner' FROM account, homeless
"""

MARK = "UPDATE users SET operator = %(operator)s WHERE id = %(user_id)s AND operator <> %(operator)s RETURNING id"


def grant(connection: Connection, user_id: str) -> bool:
    """Make a user an operator, with an account if they have none. Whether they were not one before."""
    connection.execute(HOUSE, {"user_id": user_id, "account_id": new_id("acct")})
    return fetch_one(connection, MARK, {"user_id": user_id, "operator": True}) is not None


def revoke(connection: Connection, user_id: str) -> bool:
    """Make an operator a user like others. Whether they were one before."""
    return fetch_one(connection, MARK, {"user_id": user_id, "operator": False}) is not None


LIST = "SELECT id, email, created_at FROM users WHERE operator ORDER BY lower(email)"


def list_operators(connection: Connection) -> list[Operator]:
    """All of the staff."""
    return [Operator(**row) for row in fetch_all(connection, LIST)]
