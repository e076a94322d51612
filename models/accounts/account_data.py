"""The data of an account, table by table: what an erasure deletes.

A test compares the names below with the schema: every table with an `account_id` is in one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from models.accounts.files import OF_FILES, OF_UPLOADS, FileKeys
from models.platform.database import Connection, fetch_all, fetch_one

#: Rows that are deleted at a time.
BATCH = 500

# A batch of an account's rows, for tables with an id.
DELETE_BY_ID = sql.SQL("""
DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE account_id = %(account_id)s LIMIT %(batch)s) RETURNING id
""")


def _by_id(table: str) -> sql.Composed:
    return DELETE_BY_ID.format(table=sql.Identifier(table))


#: What an erasure deletes, in this order; each statement is repeated until it deletes nothing. Deleting a job deletes
#: its response, its events and its budget. Jobs move from `jobs` to `ended_jobs` meanwhile, and not back. Open effects
#: hold no data: they stay for the operator who resolves them.
ERASED: Mapping[str, sql.Composed | LiteralString] = {
    "batch_lines": """
        DELETE FROM batch_lines WHERE (batch_id, position) IN (
            SELECT batch_id, position FROM batch_lines WHERE account_id = %(account_id)s LIMIT %(batch)s)
        RETURNING batch_id AS id""",
    "batches": _by_id("batches"),
    "firings": _by_id("firings"),
    "schedules": _by_id("schedules"),
    "reports": _by_id("reports"),
    "jobs": _by_id("jobs"),
    "ended_jobs": _by_id("ended_jobs"),
    "budgets": "DELETE FROM budgets WHERE account_id = %(account_id)s RETURNING root_id AS id",
    "effects": """
        DELETE FROM effects WHERE (job_id, step) IN (
            SELECT job_id, step FROM effects
            WHERE account_id = %(account_id)s AND state IN ('done', 'failed') LIMIT %(batch)s)
        RETURNING job_id AS id""",
    "responses": _by_id("responses"),
    "conversation_items": _by_id("conversation_items"),
    "conversations": _by_id("conversations"),
    "meditation_changes": """
        DELETE FROM meditation_changes WHERE (meditation_id, position) IN (
            SELECT meditation_id, position FROM meditation_changes JOIN meditations ON meditations.id = meditation_id
            WHERE account_id = %(account_id)s LIMIT %(batch)s) RETURNING memory_id AS id""",
    "meditations": _by_id("meditations"),
    "memories": _by_id("memories"),
    "memory_spaces": "DELETE FROM memory_spaces WHERE account_id = %(account_id)s RETURNING id::text",
    "api_keys": _by_id("api_keys"),
    "invitations": _by_id("invitations"),
    "idempotency_keys": "DELETE FROM idempotency_keys WHERE account_id = %(account_id)s RETURNING key AS id",
    "memberships": "DELETE FROM memberships WHERE account_id = %(account_id)s RETURNING user_id AS id",
    "audit_events": _by_id("audit_events"),
    "approvals": _by_id("approvals"),
    "agents": _by_id("agents"),
    "mcp_servers": _by_id("mcp_servers"),
    "mcp_tool_lists": "DELETE FROM mcp_tool_lists WHERE account_id = %(account_id)s RETURNING server_key AS id",
    "mcp_tool_pins": "DELETE FROM mcp_tool_pins WHERE account_id = %(account_id)s RETURNING server_key AS id",
    "payment_methods": _by_id("payment_methods"),
    "billing_details": "DELETE FROM billing_details WHERE account_id = %(account_id)s RETURNING account_id AS id",
    "spending_limits": "DELETE FROM spending_limits WHERE account_id = %(account_id)s RETURNING scope AS id",
    "webhook_deliveries": _by_id("webhook_deliveries"),
    "webhook_endpoints": _by_id("webhook_endpoints"),
    "account_events": _by_id("account_events"),
}

#: Tables with an `account_id` that an erasure keeps, and why.
KEPT: Mapping[str, str] = {
    "usage_records": "billing: numbers of tokens and names of models",
    "usage_segments": "billing: numbers of tokens and names of models",
    "replaced_usage": "earlier numbers of usage records, for a minute",
    "quota_usage": "billing",
    **dict.fromkeys(
        ("usage_quarters", "error_counts", "memory_counts"),
        "sums by quarter of an hour: numbers, ids and names of models and agents",
    ),
    **dict.fromkeys(
        ("subscriptions", "invoices", "credit_notes", "payments", "refunds", "credit_grants", "postings", "spending"),
        "billing: the law requires that invoices and what led to them are kept",
    ),
    "spending_reservations": "deleted with their jobs",
    **dict.fromkeys(("files", "uploads", "upload_parts", "file_objects"), "deleted one by one, after their content"),
    "sessions": "deleted with their users",
}


def erase_batch(connection: Connection, table: str, account_id: str) -> list[str]:
    """Delete a batch of an account's rows. Returns their ids."""
    parameters = {"account_id": account_id, "batch": BATCH}
    return [row["id"] for row in connection.execute(ERASED[table], parameters)]


UNFINISHED = """
SELECT id FROM jobs
WHERE account_id = %(account_id)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
  AND (cancel_requested_at IS NULL OR NOT %(uncancelled)s)
LIMIT %(batch)s
"""


def unfinished_jobs(connection: Connection, account_id: str, *, uncancelled: bool = False) -> list[str]:
    """Return at most BATCH unfinished jobs of the account; with `uncancelled` only those without a cancel request."""
    parameters = {"account_id": account_id, "uncancelled": uncancelled, "batch": BATCH}
    return [row["id"] for row in fetch_all(connection, UNFINISHED, parameters)]


RECENTLY_ENDED = """
SELECT id FROM jobs WHERE account_id = %(account_id)s AND finished_at > now() - make_interval(secs => %(seconds)s)
"""


def recently_ended_jobs(connection: Connection, account_id: str, *, seconds: float) -> list[str]:
    """Return the ids of all jobs of the account that ended within the last seconds."""
    parameters = {"account_id": account_id, "seconds": seconds}
    return [row["id"] for row in fetch_all(connection, RECENTLY_ENDED, parameters)]


# The platform keeps its ended jobs for a week, as long as a folder keeps the e-mails that they sent.
EMAIL_JOBS = """
SELECT id FROM all_jobs
WHERE account_id = 'platform' AND kind = 'email.send' AND arguments ->> 'user_id' = %(user_id)s
"""


def email_jobs_of(connection: Connection, user_id: str) -> list[str]:
    """Return the ids of the jobs that sent e-mails to a user, which name the files of the e-mails."""
    return [row["id"] for row in fetch_all(connection, EMAIL_JOBS, {"user_id": user_id})]


FILES = f"SELECT {OF_FILES} FROM files WHERE account_id = %(account_id)s LIMIT %(batch)s"
UPLOADS = f"SELECT {OF_UPLOADS} FROM uploads WHERE account_id = %(account_id)s LIMIT %(batch)s"


@dataclass(frozen=True, slots=True)
class AccountData:
    """The data of all users of an account, which an erasure deletes."""

    account_id: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables to erase, in their order."""
        return tuple(ERASED)

    def erase_batch(self, connection: Connection, table: str, after: str = "") -> list[str]:
        """Delete a batch of rows. Returns their ids. `after` has no effect: all rows are deleted, from the first."""
        return erase_batch(connection, table, self.account_id)

    def unfinished_jobs(self, connection: Connection, *, uncancelled: bool = False) -> list[str]:
        """Return at most BATCH unfinished jobs."""
        return unfinished_jobs(connection, self.account_id, uncancelled=uncancelled)

    def recently_ended_jobs(self, connection: Connection, *, seconds: float) -> list[str]:
        """Return the ids of all jobs that ended within the last seconds."""
        return recently_ended_jobs(connection, self.account_id, seconds=seconds)

    def list_files(self, connection: Connection) -> list[FileKeys]:
        """Return at most BATCH files, expired ones included, or else uploads."""
        parameters = {"account_id": self.account_id, "batch": BATCH}
        rows = fetch_all(connection, FILES, parameters) or fetch_all(connection, UPLOADS, parameters)
        return [FileKeys(**row) for row in rows]


# In the order of `models.billing.billing_details`: a renewal has locked them before it locks the account.
LOCK_MONEY = "SELECT FROM billing_details WHERE account_id = %(account_id)s FOR UPDATE"

# Without a membership all requests are rejected.
CLOSE = """
WITH account AS (
    UPDATE accounts SET erased_at = now(), name = 'erased', limits = '{}', plan_limits = NULL
    WHERE id = %(account_id)s RETURNING id
)
DELETE FROM memberships USING account WHERE memberships.account_id = account.id RETURNING user_id
"""

# A statement of its own, so that it sees a subscription that began while the account was waited for.
END_SUBSCRIPTIONS = """
UPDATE subscriptions SET state = 'ended', ended_at = now(), end_reason = 'account_erased'
WHERE account_id = %(account_id)s AND state <> 'ended'
"""


def close_account(connection: Connection, account_id: str) -> list[str]:
    """Remove all members of an account, end its subscription and mark it as erased. Returns the ids of its members."""
    parameters = {"account_id": account_id}
    connection.execute(LOCK_MONEY, parameters)
    user_ids = [row["user_id"] for row in fetch_all(connection, CLOSE, parameters)]
    connection.execute(END_SUBSCRIPTIONS, parameters)
    return user_ids


# A user without memberships. Sessions, keys and tokens are deleted by cascade. The audit log of accounts keeps the
# events with the user's id only.
ERASE_USER = """
WITH deleted AS (
    DELETE FROM users
    WHERE id = %(user_id)s AND NOT EXISTS (SELECT 1 FROM memberships WHERE memberships.user_id = users.id)
    RETURNING id
), own_events AS (
    DELETE FROM audit_events USING deleted WHERE audit_events.user_id = deleted.id AND account_id IS NULL
), anonymised AS (
    UPDATE audit_events SET ip = '', user_agent = '', details = '{}'
    FROM deleted WHERE audit_events.user_id = deleted.id AND account_id IS NOT NULL
)
SELECT id FROM deleted
"""


def erase_user(connection: Connection, user_id: str) -> bool:
    """Delete a user without memberships. Returns whether there was one."""
    return fetch_one(connection, ERASE_USER, {"user_id": user_id}) is not None


@dataclass(frozen=True, slots=True)
class UserAccount:
    """An account of a user: the number of its other members, and whether the user is its only owner."""

    id: str
    others: int
    sole_owner: bool


# Locked, so that of two owners who leave at the same time the second one sees that the first has left.
LOCK_ACCOUNTS = """
SELECT accounts.id FROM accounts JOIN memberships ON memberships.account_id = accounts.id
WHERE memberships.user_id = %(user_id)s ORDER BY accounts.id FOR NO KEY UPDATE OF accounts
"""

# Those that the deletion may close are closed in the same transaction.
LOCK_MONEY_OF_USER = """
SELECT details.account_id FROM billing_details AS details JOIN memberships USING (account_id)
WHERE memberships.user_id = %(user_id)s ORDER BY details.account_id FOR UPDATE OF details
"""

USER_ACCOUNTS = """
SELECT own.account_id AS id,
       count(*) FILTER (WHERE member.user_id <> own.user_id) AS others,
       own.role = 'owner' AND count(*) FILTER (
           WHERE member.user_id <> own.user_id AND member.role = 'owner') = 0 AS sole_owner
FROM memberships AS own JOIN memberships AS member USING (account_id)
WHERE own.user_id = %(user_id)s
GROUP BY own.account_id, own.user_id, own.role
ORDER BY own.account_id
"""


def lock_accounts_of(connection: Connection, user_id: str) -> list[UserAccount]:
    """Return the accounts of a user, and lock them against changes of members until the transaction ends."""
    connection.execute(LOCK_MONEY_OF_USER, {"user_id": user_id})
    connection.execute(LOCK_ACCOUNTS, {"user_id": user_id})
    return [UserAccount(**row) for row in fetch_all(connection, USER_ACCOUNTS, {"user_id": user_id})]


OWN_ACCOUNTS = "(SELECT account_id FROM memberships WHERE user_id = %(user_id)s)"

# All credentials are deleted at once, and the address becomes free.
CLOSE_USER = (
    "DELETE FROM sessions WHERE user_id = %(user_id)s",
    "DELETE FROM api_keys WHERE user_id = %(user_id)s",
    "DELETE FROM identities WHERE user_id = %(user_id)s",
    # What the user has created for an account stays with it.
    *(f"UPDATE {table} SET created_by = NULL WHERE created_by = %(user_id)s AND account_id IN {OWN_ACCOUNTS}"
      for table in ("agents", "mcp_servers", "webhook_endpoints")),
    "UPDATE agent_versions SET created_by = NULL FROM agents WHERE agents.id = agent_id"
    f" AND agent_versions.created_by = %(user_id)s AND account_id IN {OWN_ACCOUNTS}",
    "DELETE FROM memberships WHERE user_id = %(user_id)s",
    # The user's pending invitations could be used to return.
    "UPDATE invitations SET revoked_at = now()"
    " WHERE invited_by = %(user_id)s AND accepted_at IS NULL AND revoked_at IS NULL",
    # Only of a verified address: invitations to an unverified one may be for somebody else.
    "DELETE FROM invitations WHERE lower(email) IN ("
    "SELECT lower(email) FROM users WHERE id = %(user_id)s AND email_verified_at IS NOT NULL)",
    "UPDATE users SET email = id || '@erased.invalid', email_verified_at = NULL, password_hash = NULL, name = '',"
    " operator = false WHERE id = %(user_id)s",
)  # fmt: skip


def close_user(connection: Connection, user_id: str) -> None:
    """Delete a user's credentials and memberships, and anonymise the user."""
    for statement in CLOSE_USER:
        connection.execute(statement, {"user_id": user_id})


def email_of(connection: Connection, user_id: str) -> str:
    """Return a user's e-mail address."""
    row = fetch_one(connection, "SELECT email FROM users WHERE id = %(user_id)s", {"user_id": user_id})
    return row["email"] if row else ""
