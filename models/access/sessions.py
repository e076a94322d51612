"""Login sessions of users, each with a family of refresh tokens.

Only the newest token of a family is valid. The use of an older one means that two parties have tokens of one login, one
of which was stolen: the session ends. In the first seconds after its use it may be a repeated request.
"""

from dataclasses import dataclass
from datetime import datetime

from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.ids import new_id
from models.platform.records import columns
from models.platform.secrets import hash_secret

#: Days after which an unused session expires; each refresh extends it.
IDLE_DAYS = 30

#: Seconds after the use of a token in which its repeated use does not end the session.
GRACE_SECONDS = 10

#: Days for which ended sessions, and used tokens of active ones, are kept. A token used later is unknown.
KEPT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Session:
    """A row of `sessions`. `account_id` is the account of its last token."""

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
    """Create a session. Returns its id."""
    session_id = new_id("sess")
    values = {"id": session_id, "user_id": user_id, "account_id": account_id, "user_agent": user_agent, "ip": ip}
    connection.execute(INSERT, values | {"days": IDLE_DAYS})
    return session_id


# Ids sort by time of creation, so an id is the cursor.
LIST = f"""
SELECT {columns(Session)} FROM sessions
WHERE user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now()
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""


def list_active(connection: Connection, user_id: str, *, after: str | None = None, limit: int = 20) -> list[Session]:
    """Return at most `limit` active sessions of a user, newest first, older than the session `after`."""
    parameters = {"user_id": user_id, "after": after, "limit": limit}
    return [Session(**row) for row in fetch_all(connection, LIST, parameters)]


REVOKE = """
UPDATE sessions SET revoked_at = now()
WHERE id = %(id)s AND user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now()
"""


def revoke(connection: Connection, session_id: str, user_id: str) -> bool:
    """End a user's session with its tokens. Returns whether it was active."""
    return connection.execute(REVOKE, {"id": session_id, "user_id": user_id}).rowcount > 0


# Ordered by id, so that two concurrent calls do not deadlock.
REVOKE_ALL = """
WITH active AS (
    SELECT id FROM sessions
    WHERE user_id = %(user_id)s AND revoked_at IS NULL AND expires_at > now()
      AND id IS DISTINCT FROM %(except_id)s::text
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE sessions SET revoked_at = now() FROM active WHERE sessions.id = active.id
"""


def revoke_all(connection: Connection, user_id: str, *, except_session_id: str | None = None) -> int:
    """End all sessions of a user, except `except_session_id`. Returns how many."""
    return connection.execute(REVOKE_ALL, {"user_id": user_id, "except_id": except_session_id}).rowcount


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, its user and its session. `ip` and `user_agent` are those of the session's last client."""

    session_id: str
    user_id: str
    account_id: str | None
    email: str
    ip: str
    user_agent: str
    used: bool
    recently_used: bool
    session_active: bool


ADD = "INSERT INTO refresh_tokens (hash, session_id) VALUES (%(hash)s, %(session_id)s)"


def add_token(connection: Connection, session_id: str, secret: str) -> None:
    """Add a refresh token to a session."""
    connection.execute(ADD, {"hash": hash_secret(secret), "session_id": session_id})


FIND_BY_HASH = """
SELECT session_id, user_id, account_id, email, ip, user_agent, used_at IS NOT NULL AS used,
       used_at IS NOT NULL AND used_at > clock_timestamp() - make_interval(secs => %(grace)s) AS recently_used,
       revoked_at IS NULL AND expires_at > now() AS session_active
FROM refresh_tokens
JOIN sessions ON sessions.id = refresh_tokens.session_id
JOIN users ON users.id = sessions.user_id
WHERE hash = %(hash)s
"""


def read_token(connection: Connection, secret: str) -> RefreshToken | None:
    """Return the token with this secret, or None if it is unknown."""
    row = fetch_one(connection, FIND_BY_HASH, {"hash": hash_secret(secret), "grace": GRACE_SECONDS})
    return RefreshToken(**row) if row else None


# Concurrent uses are serialised by the row's lock: the second one finds the token used.
MARK_USED = "UPDATE refresh_tokens SET used_at = now() WHERE hash = %(hash)s AND used_at IS NULL"


def use_token(connection: Connection, secret: str) -> bool:
    """Mark a token as used. Returns whether it was unused."""
    return connection.execute(MARK_USED, {"hash": hash_secret(secret)}).rowcount > 0


EXTEND = """
UPDATE sessions
SET last_used_at = now(), expires_at = now() + make_interval(days => %(days)s), account_id = %(account_id)s, ip = %(ip)s
WHERE id = %(id)s AND revoked_at IS NULL AND expires_at > now()
"""


def extend(connection: Connection, session_id: str, *, account_id: str, ip: str) -> bool:
    """Extend a session. Returns False if it has ended."""
    values = {"id": session_id, "account_id": account_id, "ip": ip, "days": IDLE_DAYS}
    return connection.execute(EXTEND, values).rowcount > 0


# Their tokens are deleted by cascade.
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
    """Delete a batch of sessions and tokens that ended KEPT_DAYS ago. Returns how many."""
    values = {"days": KEPT_DAYS, "batch": batch}
    return connection.execute(PRUNE, values).rowcount + connection.execute(PRUNE_TOKENS, values).rowcount
