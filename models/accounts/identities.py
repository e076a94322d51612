"""The identities of users at OIDC providers."""

from dataclasses import dataclass

from models.platform.database import Connection, fetch_one


@dataclass(frozen=True, slots=True)
class Identity:
    """A user's identity at a provider. Unlike an e-mail address, a subject is never reassigned."""

    provider: str
    subject: str


# Serialises logins with one identity, so that two concurrent ones create one user.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('identity ' || %(provider)s || ' ' || %(subject)s, 0))"


def lock(connection: Connection, identity: Identity) -> None:
    """Lock the identity until the transaction ends, so that no concurrent login links it to a user."""
    connection.execute(LOCK, {"provider": identity.provider, "subject": identity.subject})


FIND = "SELECT user_id FROM identities WHERE provider = %(provider)s AND subject = %(subject)s"


def find_user(connection: Connection, identity: Identity) -> str | None:
    """Return the id of the user with this identity."""
    row = fetch_one(connection, FIND, {"provider": identity.provider, "subject": identity.subject})
    return row["user_id"] if row else None


ADD = """
INSERT INTO identities (provider, subject, user_id, email)
VALUES (%(provider)s, %(subject)s, %(user_id)s, %(email)s)
"""


def link(connection: Connection, identity: Identity, user_id: str, email: str) -> None:
    """Link the identity to a user. `email` is the address that the provider returned, for information only."""
    values = {"provider": identity.provider, "subject": identity.subject, "user_id": user_id, "email": email}
    connection.execute(ADD, values)
