"""E-mail addresses: each belongs to the one user who has proved it, or to nobody; until then anyone may claim it."""

from dataclasses import dataclass
from datetime import datetime

from models.database import Connection, all_of, one


@dataclass(frozen=True, slots=True)
class Person:
    """A user as letters and pages speak of them."""

    id: str
    email: str
    name: str
    email_verified_at: datetime | None
    operator: bool

    @property
    def verified(self) -> bool:
        """Whether the address is theirs."""
        return self.email_verified_at is not None


READ = "SELECT id, email, name, email_verified_at, operator FROM users WHERE id = %(id)s"


def person(connection: Connection, user_id: str) -> Person | None:
    """A user."""
    row = one(connection, READ, {"id": user_id})
    return Person(**row) if row else None


# The user who has proved the address.
HOLDER = """
SELECT id, email, name, email_verified_at, operator FROM users
WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def holder(connection: Connection, email: str) -> Person | None:
    """Whose address it is, if anybody has proved it."""
    row = one(connection, HOLDER, {"email": email})
    return Person(**row) if row else None


# Those who say that it is theirs, the first one first.
CLAIMANTS = """
SELECT id, email, name, email_verified_at, operator FROM users
WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NULL
ORDER BY created_at, id LIMIT %(limit)s
"""


def claimants(connection: Connection, email: str, *, limit: int) -> list[Person]:
    """Who claims the address and has not proved it."""
    return [Person(**row) for row in all_of(connection, CLAIMANTS, {"email": email, "limit": limit})]


# One after the other for each address, so that two claimants don't meet in the unique index.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('address ' || lower(%(email)s), 0))"

PROVE = """
UPDATE users SET email_verified_at = now()
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NULL
  AND NOT EXISTS (SELECT FROM users WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL)
"""

OWNS = """
SELECT FROM users
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def prove(connection: Connection, user_id: str, email: str) -> bool:
    """Give the address to a user who claims it. Returns whether it is theirs now; proving it twice is harmless.

    Those who claimed it too keep their users, but can't log in with it from now on.
    """
    names = {"user_id": user_id, "email": email}
    connection.execute(LOCK, names)
    connection.execute(PROVE, names)
    return one(connection, OWNS, names) is not None


RENAME = "UPDATE users SET name = %(name)s WHERE id = %(id)s"


def rename(connection: Connection, user_id: str, name: str) -> None:
    """Give a user another name."""
    connection.execute(RENAME, {"id": user_id, "name": name})
