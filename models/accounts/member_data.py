"""The data of one user in an account that other members keep using, table by table: what the user's erasure deletes.

A test compares the names below with the schema: every table with an `account_id` is in one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from models.accounts.account_data import BATCH
from models.accounts.files import OF_FILES, OF_UPLOADS, FileKeys
from models.platform.database import Connection, fetch_all, fetch_one

# A batch of the user's rows after the id of the last batch: rows of other members are read once, not once a batch.
DELETE_BY_OWNER = sql.SQL("""
WITH page AS (
    SELECT id FROM {table}
    WHERE account_id = %(account_id)s AND {owner} = %(user_id)s AND id > %(after)s
    ORDER BY id LIMIT %(batch)s
), deleted AS (
    DELETE FROM {table} WHERE account_id = %(account_id)s AND id IN (SELECT id FROM page)
)
SELECT id FROM page ORDER BY id
""")

#: The owner of a job. Jobs of earlier versions name their user in the arguments only.
JOB_OWNER: LiteralString = "coalesce(owner_id, arguments ->> 'user_id')"


def _by_owner(table: str, owner: LiteralString) -> sql.Composed:
    return DELETE_BY_OWNER.format(table=sql.Identifier(table), owner=sql.SQL(owner))


#: What an erasure of the user deletes, in this order; each statement is repeated until it deletes nothing. What names
#: its owner only through another row precedes that row. Deleting a job deletes its response, its events and its budget.
ERASED: Mapping[str, sql.Composed | LiteralString] = {
    "batch_lines": """
        DELETE FROM batch_lines WHERE (batch_id, position) IN (
            SELECT batch_id, position FROM batch_lines JOIN batches ON batches.id = batch_id
            WHERE batches.account_id = %(account_id)s AND user_id = %(user_id)s LIMIT %(batch)s)
        RETURNING batch_id AS id""",
    "batches": _by_owner("batches", "user_id"),
    "firings": """
        DELETE FROM firings WHERE id IN (
            SELECT firings.id FROM firings JOIN schedules ON schedules.id = schedule_id
            WHERE schedules.account_id = %(account_id)s AND user_id = %(user_id)s LIMIT %(batch)s)
        RETURNING id""",
    "schedules": _by_owner("schedules", "user_id"),
    "reports": _by_owner("reports", "user_id"),
    "effects": """
        DELETE FROM effects WHERE (job_id, step) IN (
            SELECT job_id, step FROM effects JOIN all_jobs ON all_jobs.id = job_id
            WHERE effects.account_id = %(account_id)s AND effects.state IN ('done', 'failed')
              AND coalesce(owner_id, arguments ->> 'user_id') = %(user_id)s LIMIT %(batch)s)
        RETURNING job_id AS id""",
    "conversation_items": """
        DELETE FROM conversation_items WHERE id IN (
            SELECT conversation_items.id
            FROM conversation_items JOIN conversations ON conversations.id = conversation_id
            WHERE conversations.account_id = %(account_id)s AND owner_id = %(user_id)s
            UNION ALL
            SELECT conversation_items.id FROM conversation_items JOIN responses ON responses.id = response_id
            WHERE responses.account_id = %(account_id)s AND user_id = %(user_id)s
            LIMIT %(batch)s)
        RETURNING id""",
    "approvals": _by_owner("approvals", "user_id"),
    "responses": _by_owner("responses", "user_id"),
    "jobs": _by_owner("jobs", JOB_OWNER),
    "ended_jobs": _by_owner("ended_jobs", JOB_OWNER),
    "conversations": _by_owner("conversations", "owner_id"),
    "meditation_changes": """
        DELETE FROM meditation_changes WHERE (meditation_id, position) IN (
            SELECT meditation_id, position FROM meditation_changes JOIN meditations ON meditations.id = meditation_id
            WHERE account_id = %(account_id)s AND user_id = %(user_id)s LIMIT %(batch)s) RETURNING memory_id AS id""",
    "meditations": _by_owner("meditations", "user_id"),
    "memories": _by_owner("memories", "user_id"),
    "memory_spaces": """
        DELETE FROM memory_spaces WHERE account_id = %(account_id)s AND user_id = %(user_id)s RETURNING id::text""",
    "idempotency_keys": """
        DELETE FROM idempotency_keys WHERE account_id = %(account_id)s AND requested_by = %(user_id)s
        RETURNING key AS id""",
}

#: Tables with an `account_id` from which an erasure of the user deletes nothing by itself, and why.
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
        (
            "billing_details",
            "subscriptions",
            "invoices",
            "credit_notes",
            "payments",
            "refunds",
            "payment_methods",
            "credit_grants",
            "postings",
            "spending",
            "spending_limits",
        ),
        "billing: of the account",
    ),
    **dict.fromkeys(
        ("agents", "mcp_servers", "mcp_tool_lists", "mcp_tool_pins", "webhook_endpoints"),
        "of the account, whose members share them",
    ),
    "account_events": "ids of the account's objects, kept for 30 days",
    "webhook_deliveries": "ids, and what endpoints have answered, kept for 30 days",
    "spending_reservations": "deleted with their jobs",
    **dict.fromkeys(("files", "uploads", "upload_parts", "file_objects"), "deleted one by one, after their content"),
    "budgets": "deleted with their jobs",
    "sessions": "deleted with the credentials, when the user asks for the erasure",
    "api_keys": "deleted with the credentials",
    "memberships": "deleted with the credentials",
    "invitations": "of the account; those to the user's address are deleted with the credentials",
    "audit_events": "of the account; the user's are anonymised when the user is deleted",
}

# An export of the account contains the user's texts. It belongs to no user.
UNFINISHED = f"""
SELECT id FROM jobs
WHERE account_id = %(account_id)s AND state IN ('scheduled', 'queued', 'running', 'waiting')
  AND ({JOB_OWNER} = %(user_id)s OR kind = 'account.export')
  AND (cancel_requested_at IS NULL OR NOT %(uncancelled)s)
LIMIT %(batch)s
"""

RECENTLY_ENDED = f"""
SELECT id FROM jobs
WHERE account_id = %(account_id)s AND {JOB_OWNER} = %(user_id)s
  AND finished_at > now() - make_interval(secs => %(seconds)s)
"""

# The file of an import belongs to its job, so files are deleted before jobs.
FILES = f"""
SELECT {OF_FILES} FROM files
WHERE account_id = %(account_id)s AND (
    user_id = %(user_id)s OR purpose = 'export'
    OR job_id IN (SELECT id FROM all_jobs WHERE account_id = %(account_id)s AND {JOB_OWNER} = %(user_id)s))
LIMIT %(batch)s
"""

UPLOADS = f"""
SELECT {OF_UPLOADS} FROM uploads WHERE account_id = %(account_id)s AND user_id = %(user_id)s LIMIT %(batch)s
"""


@dataclass(frozen=True, slots=True)
class MemberData:
    """The data of a user in an account, as `account_data.AccountData` is that of all its users."""

    account_id: str
    user_id: str

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables to erase, in their order."""
        return tuple(ERASED)

    def erase_batch(self, connection: Connection, table: str, after: str = "") -> list[str]:
        """Delete a batch of the user's rows, of those with an order the next after the id `after`. Returns the ids."""
        return [row["id"] for row in connection.execute(ERASED[table], self._parameters(after=after))]

    def unfinished_jobs(self, connection: Connection, *, uncancelled: bool = False) -> list[str]:
        """Return at most BATCH unfinished jobs that have the user's texts, exports of the account included."""
        return [row["id"] for row in fetch_all(connection, UNFINISHED, self._parameters(uncancelled=uncancelled))]

    def recently_ended_jobs(self, connection: Connection, *, seconds: float) -> list[str]:
        """Return the ids of all jobs of the user that ended within the last seconds."""
        return [row["id"] for row in fetch_all(connection, RECENTLY_ENDED, self._parameters(seconds=seconds))]

    def list_files(self, connection: Connection) -> list[FileKeys]:
        """Return at most BATCH files that have the user's texts, theirs and all exports, or else uploads."""
        rows = fetch_all(connection, FILES, self._parameters()) or fetch_all(connection, UPLOADS, self._parameters())
        return [FileKeys(**row) for row in rows]

    def _parameters(self, **others: object) -> dict[str, object]:
        return {"account_id": self.account_id, "user_id": self.user_id, "batch": BATCH, **others}


# The accounts that a user has left are known by the user's audit events and turns.
LEFT_ACCOUNTS = """
SELECT account_id FROM audit_events WHERE user_id = %(user_id)s AND account_id IS NOT NULL
UNION
SELECT account_id FROM responses WHERE user_id = %(user_id)s
"""


def left_accounts(connection: Connection, user_id: str) -> list[str]:
    """Return the ids of accounts in which a user without memberships has left data."""
    return [row["account_id"] for row in fetch_all(connection, LEFT_ACCOUNTS, {"user_id": user_id})]


def is_member(connection: Connection, user_id: str) -> bool:
    """Return whether the user is a member of any account."""
    query = "SELECT FROM memberships WHERE user_id = %(user_id)s LIMIT 1"
    return fetch_one(connection, query, {"user_id": user_id}) is not None
