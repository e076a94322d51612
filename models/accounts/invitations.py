"""Invitations: an account asks whoever reads mail at an address to become a member.

The secret of its link is made when its letter is sent; until then its hash is one that nobody knows the secret of.
"""

import os
from dataclasses import dataclass
from datetime import datetime

from models.accounts.accounts import Role
from models.platform.database import Connection, fetch_all, fetch_one
from models.platform.secrets import hash_secret

#: Days that an invitation is good for.
DAYS = 7


@dataclass(frozen=True, slots=True)
class Invitation:
    """A row of `invitations`, without its hash. `account_name` is the name of the account that invites."""

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


# Inviting again takes the earlier invitation back: the newest letter is the one that holds.
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
    """A new invitation, or the one with this id; an earlier one of the account to the same address holds no more."""
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
    made = read(connection, invitation_id, account_id)
    assert made is not None, f"the id {invitation_id} is another account's"
    return made


READ = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE invitations.id = %(id)s AND account_id = %(account_id)s
"""


def read(connection: Connection, invitation_id: str, account_id: str) -> Invitation | None:
    """The invitation, if it is the account's."""
    return _invitation(fetch_one(connection, READ, {"id": invitation_id, "account_id": account_id}))


# An account's invitations that can still be accepted, newest first.
PENDING = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE account_id = %(account_id)s AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
  AND (%(after)s::text IS NULL OR invitations.id < %(after)s)
ORDER BY invitations.id DESC LIMIT %(limit)s
"""


def list_pending(connection: Connection, account_id: str, *, after: str | None = None, limit: int) -> list[Invitation]:
    """At most `limit` invitations that can be accepted, born before the invitation `after`."""
    rows = fetch_all(connection, PENDING, {"account_id": account_id, "after": after, "limit": limit})
    return [Invitation(**row | {"role": Role(row["role"])}) for row in rows]


RECENT = """
SELECT count(*)::int AS recent FROM invitations
WHERE account_id = %(account_id)s AND created_at > now() - interval '1 day'
"""


def count_recent(connection: Connection, account_id: str) -> int:
    """How many an account has made within a day."""
    row = fetch_one(connection, RECENT, {"account_id": account_id})
    return row["recent"] if row else 0


SEAL = """
UPDATE invitations SET hash = %(hash)s
WHERE id = %(id)s AND account_id = %(account_id)s
  AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now()
"""


def set_secret(connection: Connection, invitation_id: str, account_id: str, secret: str) -> bool:
    """Let an invitation be accepted with this secret. Returns whether it can still be."""
    values = {"id": invitation_id, "account_id": account_id, "hash": hash_secret(secret)}
    return connection.execute(SEAL, values).rowcount > 0


BY_HASH = """
SELECT invitations.id, account_id, accounts.name AS account_name, email, role, invited_by, invitations.created_at,
       expires_at, accepted_at, revoked_at
FROM invitations JOIN accounts ON accounts.id = account_id
WHERE hash = %(hash)s AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > now() AND erased_at IS NULL
"""


def find_by_secret(connection: Connection, secret: str) -> Invitation | None:
    """The invitation of a secret, or None when it is not good."""
    return _invitation(fetch_one(connection, BY_HASH, {"hash": hash_secret(secret)}))


def mark_accepted(connection: Connection, invitation_id: str) -> None:
    """Use an invitation up, while holding its account: of two who come with one link, one finds it used."""
    connection.execute("UPDATE invitations SET accepted_at = now() WHERE id = %(id)s", {"id": invitation_id})


REVOKE = """
UPDATE invitations SET revoked_at = now()
WHERE id = %(id)s AND account_id = %(account_id)s AND accepted_at IS NULL AND revoked_at IS NULL
"""


def revoke(connection: Connection, invitation_id: str, account_id: str) -> bool:
    """Take an invitation back. Returns whether there was one to take back."""
    return connection.execute(REVOKE, {"id": invitation_id, "account_id": account_id}).rowcount > 0


REVOKE_OF = """
UPDATE invitations SET revoked_at = now()
WHERE account_id = %(account_id)s AND invited_by = %(user_id)s AND accepted_at IS NULL AND revoked_at IS NULL
"""


def revoke_all_by(connection: Connection, account_id: str, user_id: str) -> None:
    """Take back what a member has offered to others: whoever loses a role must not come in again through it."""
    connection.execute(REVOKE_OF, {"account_id": account_id, "user_id": user_id})


#: Days that invitations are kept when they can't be accepted any more: the audit log knows them longer.
KEPT_DAYS = 30

PRUNE = """
DELETE FROM invitations WHERE id IN (
    SELECT id FROM invitations
    WHERE least(accepted_at, revoked_at, expires_at) < now() - make_interval(days => %(days)s)
    LIMIT %(batch)s)
"""


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` invitations that ended long ago; returns how many."""
    return connection.execute(PRUNE, {"batch": batch, "days": KEPT_DAYS}).rowcount


def _invitation(row: dict[str, object] | None) -> Invitation | None:
    return Invitation(**row | {"role": Role(str(row["role"]))}) if row else None  # type: ignore[arg-type]
