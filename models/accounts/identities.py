"""Identities: who a user is at the OIDC providers that they log in with."""

from dataclasses import dataclass

from models.platform.database import Connection, fetch_one


@dataclass(frozen=True, slots=True)
class Identity:
    """What a provider calls somebody, for ever: an e-mail address may change hands, a subject does not."""

    provider: str
    subject: str


# One after the other for each identity, so that two who come at once make one user.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('identity ' || %(provider)s || ' ' || %(subject)s, 0))"


def lock(connection: Connection, identity: Identity) -> None:
    """Let nobody else tie this identity to a user until the end of the transaction."""
    connection.execute(LOCK, {"provider": identity.provider, "subject": identity.subject})


FIND = "SELECT user_id FROM identities WHERE provider = %(provider)s AND subject = %(subject)s"


def find_user(connection: Connection, identity: Identity) -> str | None:
    """The id of the user who it is, if anybody."""
    row = fetch_one(connection, FIND, {"provider": identity.provider, "subject": identity.subject})
    return row["user_id"] if row else None


ADD = """
INSERT INTO identities (provider, subject, user_id, email)
VALUES (%(provider)s, %(subject)s, %(user_id)s, %(email)s)
"""


def link(connection: Connection, identity: Identity, user_id: str, email: str) -> None:
    """Tie it to a user. `email` is what the provider said then, for people who look."""
    values = {"provider": identity.provider, "subject": identity.subject, "user_id": user_id, "email": email}
    connection.execute(ADD, values)
