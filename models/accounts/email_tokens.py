"""Tokens that are e-mailed to verify an address or to reset a password, stored as hashes. Each can be used once.

A user may have several valid tokens, since e-mails may arrive out of order. Using one invalidates all of its purpose.
"""

from dataclasses import dataclass
from enum import StrEnum

from models.platform.database import Connection, fetch_one
from models.platform.secrets import hash_secret


class TokenPurpose(StrEnum):
    """The only purpose for which a token is valid."""

    VERIFY = "verify"
    RESET = "reset"


#: Minutes for which a token is valid.
MINUTES = {TokenPurpose.VERIFY: 24 * 60, TokenPurpose.RESET: 60}


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """The user to whom a token was sent, and the address."""

    user_id: str
    email: str


# A repeated e-mail has the same token, which is extended unless it was used.
ISSUE = """
INSERT INTO email_tokens (hash, purpose, user_id, email, expires_at)
VALUES (%(hash)s, %(purpose)s, %(user_id)s, %(email)s, now() + make_interval(mins => %(minutes)s))
ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at WHERE email_tokens.used_at IS NULL
"""


def issue(connection: Connection, purpose: TokenPurpose, secret: str, *, user_id: str, email: str) -> None:
    """Store a token for a purpose."""
    values = {"hash": hash_secret(secret), "purpose": purpose, "user_id": user_id, "email": email}
    connection.execute(ISSUE, values | {"minutes": MINUTES[purpose]})


# The update locks the row: only one of two concurrent requests gets it.
REDEEM = """
WITH redeemed AS (
    UPDATE email_tokens SET used_at = now()
    WHERE hash = %(hash)s AND purpose = %(purpose)s AND used_at IS NULL AND expires_at > now()
    RETURNING hash, user_id, email
), others AS (
    UPDATE email_tokens SET used_at = now() FROM redeemed
    WHERE email_tokens.user_id = redeemed.user_id AND purpose = %(purpose)s AND used_at IS NULL
      AND email_tokens.hash <> redeemed.hash
)
SELECT user_id, email FROM redeemed
"""


def redeem(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """Use a token and invalidate the user's others of this purpose. Returns None if it is not valid."""
    row = fetch_one(connection, REDEEM, {"hash": hash_secret(secret), "purpose": purpose})
    return TokenOwner(row["user_id"], row["email"]) if row else None


FIND = """
SELECT user_id, email FROM email_tokens
WHERE hash = %(hash)s AND purpose = %(purpose)s AND (used_at IS NOT NULL) = %(used)s AND expires_at > now()
"""


def peek(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """Return the owner of a valid token without using it."""
    return _find(connection, purpose, secret, used=False)


def find_used(connection: Connection, purpose: TokenPurpose, secret: str) -> TokenOwner | None:
    """Return the owner of a used token that has not expired."""
    return _find(connection, purpose, secret, used=True)


PRUNE = """
DELETE FROM email_tokens WHERE hash IN (
    SELECT hash FROM email_tokens WHERE expires_at < now() - interval '1 day' LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` tokens that expired at least a day ago. Returns how many."""
    return connection.execute(PRUNE, {"batch": batch}).rowcount


def _find(connection: Connection, purpose: TokenPurpose, secret: str, *, used: bool) -> TokenOwner | None:
    row = fetch_one(connection, FIND, {"hash": hash_secret(secret), "purpose": purpose, "used": used})
    return TokenOwner(row["user_id"], row["email"]) if row else None
