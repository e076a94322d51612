"""Delete unverified users whose accounts are unused."""

from models.accounts import account_data
from models.platform.database import Connection, fetch_all

#: Days since the signup, and without an active session, after which such a user is deleted.
KEPT_DAYS = 30

# The only member of an account without data and without changes by an operator, who can log in by password only.
# Checking top-level records suffices: a response has its job, an item its conversation, a firing its schedule,
# and what has to do with money its billing details. The example agent is as old as its account until it is changed.
UNUSED = """
FROM users
JOIN memberships AS own ON own.user_id = users.id
JOIN accounts ON accounts.id = own.account_id
WHERE users.email_verified_at IS NULL AND NOT users.operator
  AND users.created_at < now() - make_interval(days => %(days)s)
  AND accounts.plan_id IN ('default', 'unverified') AND accounts.limits = '{}' AND accounts.erased_at IS NULL
  AND NOT EXISTS (SELECT FROM sessions
                  WHERE sessions.user_id = users.id AND revoked_at IS NULL AND expires_at > now())
  AND NOT EXISTS (SELECT FROM identities WHERE identities.user_id = users.id)
  AND NOT EXISTS (SELECT FROM memberships AS membership
                  WHERE membership.user_id = users.id AND membership.account_id <> accounts.id)
  AND NOT EXISTS (SELECT FROM memberships AS other
                  WHERE other.account_id = accounts.id AND other.user_id <> users.id)
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM ended_jobs WHERE ended_jobs.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM effects WHERE effects.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM conversations WHERE conversations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM memories WHERE memories.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM meditations WHERE meditations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM schedules WHERE schedules.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM batches WHERE batches.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM files WHERE files.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM uploads WHERE uploads.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM file_objects WHERE file_objects.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM api_keys WHERE api_keys.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM invitations WHERE invitations.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM usage_records WHERE usage_records.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM quota_usage WHERE quota_usage.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM billing_details WHERE billing_details.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM spending_limits WHERE spending_limits.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM agents WHERE agents.account_id = accounts.id
                  AND agents.updated_at > accounts.created_at)
  AND NOT EXISTS (SELECT FROM mcp_servers WHERE mcp_servers.account_id = accounts.id)
  AND NOT EXISTS (SELECT FROM webhook_endpoints WHERE webhook_endpoints.account_id = accounts.id)
"""

# The lock prevents new sessions and jobs.
LOCK = "SELECT users.id" + UNUSED + "LIMIT %(batch)s FOR UPDATE OF users, accounts SKIP LOCKED"

# A new statement sees what was committed before the lock was granted.
STILL_UNUSED = "SELECT users.id, accounts.id AS account_id" + UNUSED + "AND users.id = ANY(%(user_ids)s)"

DELETE = "DELETE FROM accounts WHERE id = ANY(%(account_ids)s)"


def prune(connection: Connection, batch: int) -> int:
    """Delete at most `batch` unverified users with their accounts, in the caller's transaction. Returns how many."""
    user_ids = [row["id"] for row in fetch_all(connection, LOCK, {"days": KEPT_DAYS, "batch": batch})]
    unused = fetch_all(connection, STILL_UNUSED, {"days": KEPT_DAYS, "user_ids": user_ids})
    connection.execute(DELETE, {"account_ids": [row["account_id"] for row in unused]})
    return sum(account_data.erase_user(connection, row["id"]) for row in unused)
