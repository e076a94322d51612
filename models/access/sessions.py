"""Sessions: logins of people, each with a family of refresh tokens.

Of a family the token that was given out last is good. Showing an older one means that two hold tokens of one login, and
one of them stole it: the session ends.
"""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id
from models.platform.secrets import hash_secret

#: Days after which somebody who never came back must log in again; each refresh begins them anew.
IDLE_DAYS = 30

#: Days for which ended sessions, and spent tokens of living ones, are kept: a token shown later is merely unknown.
KEPT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Session:
    """A row of `sessions`. `account_id` is the account that its last token was for."""

    id: str
    user_id: str
    account_id: str | None
    user_agent: str
    ip: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


INSERT = """
INSERT INTO sessions (id, user_id, account_id, user_agent, ip, expires_at)
VALUES (%(id)s, %(user_id)s, %(account_id)s, %(user_agent)s, %(ip)s, now() + make_interval(days => %(days)s))
"""


def create(
    connection: Connection, user_id: str, *, account_id: str | None = None, user_agent: str = "", ip: str = ""
) -> str:
    """A new session; returns its id."""
    session_id = new_id("sess")
    values = {"id": session_id, "user_id": user_id, "account_id": account_id, "user_agent": user_agent, "ip": ip}
    connection.execute(INSERT, values | {"days": IDLE_DAYS})
    return session_id


# A page of a user's living sessions, newest first. An id tells when it was born, so that it is a cursor too.
LIST = """
SELECT * FROM sessions
WHERE user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now()
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_active(connection: Connection, user_id: str, *, after: str | None = None, limit: int = 20) -> list[Session]:
    """At most `limit` sessions of a user that have not ended, born before the session `after`."""
    parameters = {"user_id": user_id, "after": after, "limit": limit}
    return [Session(**row) for row in fetch_all(connection, LIST, parameters)]


REVOKE = """
UPDATE sessions SET revoked_at = now()
WHERE id = %(id)s AND user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now()
"""


def revoke(connection: Connection, session_id: str, user_id: str) -> bool:
    """End a session of a user's at once, tokens and all. Returns whether there was one to end."""
    return connection.execute(REVOKE, {"id": session_id, "user_id": user_id}).rowcount > 0


# In the order of their ids, so that two orders at once don't wait for each other crosswise.
REVOKE_ALL = """
WITH doomed AS (
    SELECT id FROM sessions
    WHERE user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now() AND id IS DISTINCT FROM %(but)s::text
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE sessions SET revoked_at = now() FROM doomed WHERE sessions.id = doomed.id
"""


def revoke_all(connection: Connection, user_id: str, *, but: str | None = None) -> int:
    """End all sessions of a user except one; returns how many."""
    return connection.execute(REVOKE_ALL, {"user_id": user_id, "but": but}).rowcount


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a refresh token says of itself. `account_id` is where its session was last."""

    session_id: str
    user_id: str
    account_id: str | None
    email: str
    used: bool
    session_active: bool


ADD = "INSERT INTO refresh_tokens (hash, session_id) VALUES (%(hash)s, %(session_id)s)"


def add_token(connection: Connection, session_id: str, secret: str) -> None:
    """Make a secret the good token of a session."""
    connection.execute(ADD, {"hash": hash_secret(secret), "session_id": session_id})


SHOWN = """
SELECT session_id, user_id, account_id, email, used_at IS NOT NULL AS used,
       revoked_at IS NULL AND expires_at > now() AS session_active
FROM refresh_tokens
JOIN sessions ON sessions.id = refresh_tokens.session_id
JOIN users ON users.id = sessions.user_id
WHERE hash = %(hash)s
"""


def read_token(connection: Connection, secret: str) -> RefreshToken | None:
    """The token as it is now, or None when nobody knows it."""
    row = fetch_one(connection, SHOWN, {"hash": hash_secret(secret)})
    return RefreshToken(**row) if row else None


# Two who spend a token at once meet at its row, and the second one finds it spent.
SPEND = "UPDATE refresh_tokens SET used_at = now() WHERE hash = %(hash)s AND used_at IS NULL"


def use_token(connection: Connection, secret: str) -> bool:
    """Use a token up. Returns whether it was still good."""
    return connection.execute(SPEND, {"hash": hash_secret(secret)}).rowcount > 0


PROLONG = """
UPDATE sessions
SET last_used_at = now(), expires_at = now() + make_interval(days => %(days)s), account_id = %(account_id)s, ip = %(ip)s
WHERE id = %(id)s AND revoked_at IS NULL AND expires_at > now()
"""


def extend(connection: Connection, session_id: str, *, account_id: str, ip: str) -> bool:
    """Begin a session's days anew. Returns False when it has ended."""
    values = {"id": session_id, "account_id": account_id, "ip": ip, "days": IDLE_DAYS}
    return connection.execute(PROLONG, values).rowcount > 0


# A batch of sessions that nobody will ask for; their tokens go along.
PRUNE = """
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions
    WHERE least(revoked_at, expires_at) < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""

PRUNE_TOKENS = """
DELETE FROM refresh_tokens WHERE hash IN (
    SELECT hash FROM refresh_tokens WHERE used_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Forget a batch of what ended long ago; returns how much."""
    values = {"days": KEPT_DAYS, "batch": batch}
    return connection.execute(PRUNE, values).rowcount + connection.execute(PRUNE_TOKENS, values).rowcount
