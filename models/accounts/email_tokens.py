"""What was mailed to prove an address or to reset a password: the hash of a secret that is good once, for a while.

Several may be good at the same time, for letters overtake each other; using one uses up all of its kind.
"""

from dataclasses import dataclass
from enum import StrEnum

from models.platform.database import Connection, fetch_one
from models.platform.secrets import hash_secret


class TokenPurpose(StrEnum):
    """What a token is for. It is good for nothing else."""

    VERIFY = "verify"
    RESET = "reset"


#: Minutes that a token is good for.
MINUTES = {TokenPurpose.VERIFY: 24 * 60, TokenPurpose.RESET: 60}


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """What a token proves: this user reads mail at this address."""

    user_id: str
    email: str


# A letter that is sent again has the same token: its time begins anew, unless it has been used.
ISSUE = """
INSERT INTO email_tokens (hash, purpose, user_id, email, expires_at)
VALUES (%(hash)s, %(purpose)s, %(user_id)s, %(email)s, now() + make_interval(mins => %(minutes)s))
ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE email_tokens.used_at IS NULL
"""


def issue(connection: Connection, purpose: TokenPurpose, secret: str, *, user_id: str, email: str) -> None:
    """Make a secret good for a purpose."""
    values = {"hash": hash_secret(secret), "purpose": purpose, "user_id": user_id, "email": email}
    connection.execute(ISSUE, values | {"minutes": MINUTES[purpose]})


# The update locks the row: of two who come with one token, one gets it.
REDEEM = """
WITH shown AS (
    UPDATE email_tokens SET used_at = now()
    WHERE hash = %(hash)s AND purpose = %(purpose)s AND used_at IS NULL AND expires_at > now()
    RETURNING hash, user_id, email
), others AS (
    UPDATE email_tokens SET used_at = now() FROM shown
    WHERE email_tokens.user_id = shown.user_id AND purpose = %(purpose)s AND used_at IS NULL
      AND email_tokens.hash <> shown.hash
)
SELECT user_id, email FROM shown
"""


def redeem(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """Use a token up, and all of its kind that its user has. None when it is not good."""
    row = fetch_one(connection, REDEEM, {"hash": hash_secret(secret), "purpose": purpose})
    return TokenOwner(row["user_id"], row["email"]) if row else None


FIND = """
SELECT user_id, email FROM email_tokens
WHERE hash = %(hash)s AND purpose = %(purpose)s AND (used_at IS NOT NULL) = %(used)s AND expires_at > now()
"""


def peek(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """What a token would prove, without using it up."""
    return _find(connection, purpose, secret, used=False)


def find_used(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """What a token proved that has been used up not long ago."""
    return _find(connection, purpose, secret, used=True)


PRUNE = """
DELETE FROM email_tokens WHERE hash IN (
    SELECT hash FROM email_tokens WHERE expires_at < now() - interval '1 day' LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` tokens whose time is long over; returns how many."""
    return connection.execute(PRUNE, {"batch": batch}).rowcount


def _find(connection: Connection, purpose: TokenPurpose, secret: str, *, used: bool) -> TokenOwner | None:
    row = fetch_one(connection, FIND, {"hash": hash_secret(secret), "purpose": purpose, "used": used})
    return TokenOwner(row["user_id"], row["email"]) if row else None
