"""E-mail addresses: each belongs to the one user who has proved it, or to nobody; until then anyone may claim it."""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_one
from models.platform.ids import new_id


@dataclass(frozen=True, slots=True)
class UserProfile:
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


def read_user(connection: Connection, user_id: str) -> UserProfile | None:
    """A user."""
    row = fetch_one(connection, READ, {"id": user_id})
    return UserProfile(**row) if row else None


# The user who has proved the address.
HOLDER = """
SELECT id, email, name, email_verified_at, operator FROM users
WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def find_owner(connection: Connection, email: str) -> UserProfile | None:
    """Whose address it is, if anybody has proved it."""
    row = fetch_one(connection, HOLDER, {"email": email})
    return UserProfile(**row) if row else None


# One after the other for each address, so that two claimants don't meet in the unique index.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('address ' || lower(%(email)s), 0))"


def lock(connection: Connection, email: str) -> None:
    """Let nobody else claim or prove the address until the end of the transaction."""
    connection.execute(LOCK, {"email": email})


PROVE = """
UPDATE users SET email_verified_at = now()
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NULL
  AND NOT EXISTS (SELECT FROM users WHERE lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL)
"""

OWNS = """
SELECT FROM users
WHERE id = %(user_id)s AND lower(email) = lower(%(email)s) AND email_verified_at IS NOT NULL
"""


def verify(connection: Connection, user_id: str, email: str) -> bool:
    """Give the address to a user who claims it. Returns whether it is theirs now; proving it twice is harmless.

    Those who claimed it too keep their users, but can't log in with it from now on.
    """
    names = {"user_id": user_id, "email": email}
    lock(connection, email)
    connection.execute(PROVE, names)
    return owns(connection, user_id, email)


def owns(connection: Connection, user_id: str, email: str) -> bool:
    """Whether the user has proved the address, and still has it."""
    return fetch_one(connection, OWNS, {"user_id": user_id, "email": email}) is not None


CREATE = """
INSERT INTO users (id, email, name, password_hash, email_verified_at)
VALUES (%(id)s, %(email)s, %(name)s, %(password_hash)s, now())
"""


def create_verified_user(connection: Connection, email: str, *, name: str, password_hash: str) -> UserProfile | None:
    """A new user whose address is proved already; None when it has become somebody else's meanwhile."""
    user_id = new_id("user")
    lock(connection, email)
    if find_owner(connection, email) is not None:
        return None
    connection.execute(CREATE, {"id": user_id, "email": email, "name": name, "password_hash": password_hash})
    return read_user(connection, user_id)


# What somebody who claimed the address may have left behind to come in by, before it was proved.
SHUT_OUT = (
    "UPDATE api_keys SET revoked_at = now() WHERE user_id = %(user_id)s AND revoked_at IS NULL",
    "DELETE FROM identities WHERE user_id = %(user_id)s",
)


def revoke_other_credentials(connection: Connection, user_id: str) -> None:
    """End a user's API keys and their ties to OIDC providers."""
    for statement in SHUT_OUT:
        connection.execute(statement, {"user_id": user_id})


RENAME = "UPDATE users SET name = %(name)s WHERE id = %(id)s"


def rename(connection: Connection, user_id: str, name: str) -> None:
    """Give a user another name."""
    connection.execute(RENAME, {"id": user_id, "name": name})
