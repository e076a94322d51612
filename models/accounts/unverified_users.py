"""Users who claimed an address, never proved it, and left nothing behind: after a while they are forgotten."""

from models.accounts import account_data
from models.platform.database import Connection, fetch_all

#: Days after signing up, and of no living session, for which a claimant without belongings is kept.
KEPT_DAYS = 30

# Somebody alone in an account in which nothing is, to which no operator has given anything, and with no way in but the
# password. A response has its job, an item its conversation, a firing its schedule, and so on: roots are looked for.
LAPSED = """
FROM users
JOIN memberships AS mine ON mine.user_id = users.id
JOIN accounts ON accounts.id = mine.account_id
WHERE users.email_verified_at IS NULL AND NOT users.operator
  AND users.created_at < now() - make_interval(days => %(days)s)
  AND accounts.plan_id = 'default' AND accounts.limits = '{}' AND accounts.erased_at IS NULL
  AND NOT EXISTS (SELECT FROM sessions
                  WHERE sessions.user_id = users.id AND revoked_at IS NULL AND expires_at > now())
  AND NOT EXISTS (SELECT FROM identities WHERE identities.user_id = users.id)
  AND NOT EXISTS (SELECT FROM memberships AS place
                  WHERE place.user_id = users.id AND place.account_id <> accounts.id)
  AND NOT EXISTS (SELECT FROM memberships AS other
                  WHERE other.account_id = accounts.id AND other.user_id <> users.id)
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM conversations WHERE conversations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM memories WHERE memories.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM meditations WHERE meditations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM schedules WHERE schedules.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM files WHERE files.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM api_keys WHERE api_keys.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM invitations WHERE invitations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM usage_records WHERE usage_records.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM quota_usage WHERE quota_usage.account_id = accounts.id)
"""

# Locked: nobody begins a session or a job of theirs from here on.
LOCK = "SELECT users.id" + LAPSED + "LIMIT %(batch)s FOR UPDATE OF users, accounts SKIP LOCKED"

# What had begun before the lock is seen by a statement after it.
STILL = "SELECT users.id, accounts.id AS account_id" + LAPSED + "AND users.id = ANY(%(user_ids)s)"

DELETE = "DELETE FROM accounts WHERE id = ANY(%(account_ids)s)"


def prune(connection: Connection, batch: int) -> int:
    """Forget at most `batch` of them, accounts and all; returns how many. To be called in a transaction."""
    user_ids = [row["id"] for row in fetch_all(connection, LOCK, {"days": KEPT_DAYS, "batch": batch})]
    lapsed = fetch_all(connection, STILL, {"days": KEPT_DAYS, "user_ids": user_ids})
    connection.execute(DELETE, {"account_ids": [row["account_id"] for row in lapsed]})
    return sum(account_data.erase_user(connection, row["id"]) for row in lapsed)
