"""Invitations to become a member of an account, sent to an e-mail address.

The secret of the link is generated when the e-mail is sent. Until then the hash is random.
"""

import os
from dataclasses import dataclass
from datetime import datetime

from models.accounts.accounts import Role
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.secrets import hash_secret

#: Days for which an invitation is valid.
DAYS = 7


@dataclass(frozen=True, slots=True)
class Invitation:
    """A row of `invitations` without its hash, with the name of the inviting account."""

    id: str
    account_id: str
    account_name: str
    email: str
    role: Role
    invited_by: str | None
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None


# A new invitation replaces an earlier one to the same address.
REVOKE_EARLIER = """
UPDATE invitations SET revoked_at = now()
WHERE account_id = %(account_id)s AND lower(email) = lower(%(email)s) AND accepted_at IS NULL AND revoked_at IS NULL
  AND id <> %(id)s
"""

INSERT = """
INSERT INTO invitations (id, account_id, email, role, hash, invited_by, expires_at)
VALUES (%(id)s, %(account_id)s, %(email)s, %(role)s, %(hash)s, %(invited_by)s, now() + make_interval(days => %(days)s))
ON CONFLICT (id) DO NOTHING
"""


def create(
    connection: Connection, invitation_id: str, account_id: str, *, email: str, role: Role, invited_by: str
) -> Invitation:
    """Create an invitation, or return the one with this id. Earlier ones of the account to the address are revoked."""
    values = {
        "id": invitation_id,
        "account_id": account_id,
        "email": email,
        "role": role,
        "hash": os.urandom(32),
        "invited_by": invited_by,
        "days": DAYS,
    }
    connection.execute(REVOKE_EARLIER, values)
    connection.execute(INSERT, values)
    invitation = read(connection, invitation_id, account_id)
    assert invitation is not None, f"The invitation id {invitation_id} belongs to another account."
    return invitation


READ = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE invitations.id = %(id)s AND account_id = %(account_id)s
"""


def read(connection: Connection, invitation_id: str, account_id: str) -> Invitation | None:
    """Return the invitation if it belongs to the account."""
    return _invitation(fetch_one(connection, READ, {"id": invitation_id, "account_id": account_id}))


PENDING = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE account_id = %(account_id)s AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
  AND (%(after)s::text IS NULL OR invitations.id < %(after)s)
ORDER BY invitations.id DESC LIMIT %(limit)s
"""


def list_pending(connection: Connection, account_id: str, *, after: str | None = None, limit: int) -> list[Invitation]:
    """Return at most `limit` invitations that can still be accepted, newest first, older than `after`."""
    rows = fetch_all(connection, PENDING, {"account_id": account_id, "after": after, "limit": limit})
    return [Invitation(**row | {"role": Role(row["role"])}) for row in rows]


RECENT = """
SELECT count(*)::int AS recent FROM invitations
WHERE account_id = %(account_id)s AND created_at > now() - interval '1 day'
"""


def count_recent(connection: Connection, account_id: str) -> int:
    """Count the invitations that an account has created within a day."""
    row = fetch_one(connection, RECENT, {"account_id": account_id})
    return row["recent"] if row else 0


SET_HASH = """
UPDATE invitations SET hash = %(hash)s
WHERE id = %(id)s AND account_id = %(account_id)s
  AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
"""


def set_secret(connection: Connection, invitation_id: str, account_id: str, secret: str) -> bool:
    """Set the secret of an invitation. Returns whether it can still be accepted."""
    values = {"id": invitation_id, "account_id": account_id, "hash": hash_secret(secret)}
    return connection.execute(SET_HASH, values).rowcount > 0


BY_HASH = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE hash = %(hash)s AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now() AND erased_at IS NULL
"""


def find_by_secret(connection: Connection, secret: str) -> Invitation | None:
    """Return the invitation with this secret if it can be accepted."""
    return _invitation(fetch_one(connection, BY_HASH, {"hash": hash_secret(secret)}))


TO_ADDRESS = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE lower(email) = lower(%(email)s) AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
  AND erased_at IS NULL
ORDER BY invitations.id DESC LIMIT 1
"""


def find_by_address(connection: Connection, email: str) -> Invitation | None:
    """Return the newest invitation to the address that can be accepted, of any account."""
    return _invitation(fetch_one(connection, TO_ADDRESS, {"email": email}))


def mark_accepted(connection: Connection, invitation_id: str) -> None:
    """Mark an invitation as accepted. The caller holds the account's lock, so that it is accepted once."""
    connection.execute("UPDATE invitations SET accepted_at = now() WHERE id = %(id)s", {"id": invitation_id})


REVOKE = """
UPDATE invitations SET revoked_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND accepted_at IS NULL AND revoked_at IS NULL
"""


def revoke(connection: Connection, invitation_id: str, account_id: str) -> bool:
    """Revoke an invitation. Returns whether it was pending."""
    return connection.execute(REVOKE, {"id": invitation_id, "account_id": account_id}).rowcount > 0


REVOKE_ALL_BY = """
UPDATE invitations SET revoked_at = now()
WHERE account_id = %(account_id)s AND invited_by = %(user_id)s AND accepted_at IS NULL AND revoked_at IS NULL
"""


def revoke_all_by(connection: Connection, account_id: str, user_id: str) -> None:
    """Revoke a member's pending invitations, so that a member who loses a role cannot regain it through them."""
    connection.execute(REVOKE_ALL_BY, {"account_id": account_id, "user_id": user_id})


#: Days for which ended invitations are kept; the audit log keeps its events longer.
KEPT_DAYS = 30

PRUNE = """
DELETE FROM invitations WHERE id IN (
    SELECT id FROM invitations
    WHERE least(accepted_at, revoked_at, expires_at) < now() - make_interval(days => %(days)s)
    LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` invitations that ended KEPT_DAYS ago. Returns how many."""
    return connection.execute(PRUNE, {"batch": batch, "days": KEPT_DAYS}).rowcount


def _invitation(row: dict[str, object] | None) -> Invitation | None:
    return Invitation(**row | {"role": Role(str(row["role"]))}) if row else None  # type: ignore[arg-type]
