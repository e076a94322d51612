"""The data of an account, table by table: what an export writes and an erasure deletes.

A test compares the names below with the schema: every table with an `account_id` is in one of them.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from models.journal.archive import unpack
from models.journal.events import to_lines
from models.platform.database import Connection, fetch_all, fetch_one

#: Rows that are fetched or deleted at a time.
BATCH = 500

#: Name in the export → the account's rows. Hashes of secrets are not exported.
EXPORTS: Mapping[str, LiteralString] = {
    "account": "SELECT id, name, plan_id, limits, created_at FROM accounts WHERE id = %(account_id)s",
    "members": """
        SELECT users.id, users.email, users.name, users.email_verified_at, memberships.role, memberships.created_at
        FROM memberships JOIN users ON users.id = memberships.user_id WHERE account_id = %(account_id)s""",
    "invitations": """
        SELECT id, email, role, invited_by, created_at, expires_at, accepted_at, revoked_at
        FROM invitations WHERE account_id = %(account_id)s""",
    "api_keys": """
        SELECT id, user_id, name, hint, scopes, memory, created_at, expires_at, last_used_at, revoked_at
        FROM api_keys WHERE account_id = %(account_id)s""",
    "conversations": "SELECT id, owner_id, metadata, created_at FROM conversations WHERE account_id = %(account_id)s",
    "conversation_items": """
        SELECT conversation_id, response_id, item, created_at
        FROM conversation_items WHERE account_id = %(account_id)s ORDER BY conversation_id, position""",
    "responses": """
        SELECT id, user_id, space, job_id, conversation_id, previous_id, request, input, output, usage,
               incomplete_details, recalled, created_at
        FROM responses WHERE account_id = %(account_id)s""",
    "jobs": """
        SELECT id, owner_id, kind, state, arguments, parent_id, progress, result, error, created_at, started_at,
               finished_at
        FROM all_jobs WHERE account_id = %(account_id)s""",
    "job_events": """
        SELECT job_id, first_sequence, last_sequence, tokens, events, NULL AS packed
        FROM job_events JOIN jobs ON jobs.id = job_events.job_id
        WHERE jobs.account_id = %(account_id)s
        UNION ALL
        SELECT id, 0, last_sequence, tokens, NULL, encode(events, 'base64') FROM ended_jobs
        WHERE account_id = %(account_id)s AND events IS NOT NULL""",
    "budgets": """
        SELECT root_id, max_tokens, tokens, max_money::text, money::text, max_calls, calls, max_depth, created_at
        FROM budgets WHERE account_id = %(account_id)s""",
    "effects": """
        SELECT job_id, step, state, result, error, created_at, updated_at
        FROM effects WHERE account_id = %(account_id)s""",
    "usage": """
        SELECT job_id, model, input_tokens, cached_tokens, output_tokens, billed_amount::text, billed_currency,
               billed_user_id, billed_key_id, billed_agent, billed_on, created_at
        FROM usage_records WHERE account_id = %(account_id)s""",
    "usage_by_month": """
        SELECT month, sum(tokens)::bigint AS tokens FROM quota_usage
        WHERE account_id = %(account_id)s GROUP BY month""",
    "billing_details": """
        SELECT currency, name, address, country, email, tax_id, tax_name, tax_rate::text, tax_note, auto_top_up,
               created_at
        FROM billing_details WHERE account_id = %(account_id)s""",
    "subscriptions": """
        SELECT id, plan_id, plan_version, state, period_start, period_end, trial_end, cancel_at_period_end,
               next_plan_id, created_at, ended_at, end_reason
        FROM subscriptions WHERE account_id = %(account_id)s""",
    "invoices": """
        SELECT id, number, state, reason, currency, period_start, period_end, subtotal::text, tax::text, total::text,
               paid::text, credited::text, parties, created_at, finalised_at, due_at, paid_at, voided_at
        FROM invoices WHERE account_id = %(account_id)s""",
    "invoice_lines": """
        SELECT invoice_id, position, invoice_lines.kind, description, quantity::text, details, exact::text,
               amount::text
        FROM invoice_lines JOIN invoices ON invoices.id = invoice_id WHERE account_id = %(account_id)s""",
    "credit_notes": """
        SELECT id, invoice_id, number, currency, amount::text, tax::text, reason, job_id, parties, created_at
        FROM credit_notes WHERE account_id = %(account_id)s""",
    "payments": """
        SELECT id, invoice_id, job_id, payment_method_id, gateway, currency, amount::text, refunded::text, state,
               error, created_at, ended_at
        FROM payments WHERE account_id = %(account_id)s""",
    "refunds": """
        SELECT id, payment_id, credit_note_id, currency, amount::text, state, reason, error, created_at, ended_at
        FROM refunds WHERE account_id = %(account_id)s""",
    "payment_methods": """
        SELECT id, gateway, label, is_default, created_at, detached_at
        FROM payment_methods WHERE account_id = %(account_id)s""",
    "credit_grants": """
        SELECT id, invoice_id, currency, amount::text, drawn::text, priority, reason, expires_at, created_at, expired_at
        FROM credit_grants WHERE account_id = %(account_id)s""",
    "postings": """
        SELECT id, kind, reference, leg, debit, credit, currency, amount::text, posted_at
        FROM postings WHERE account_id = %(account_id)s""",
    "spending": """
        SELECT scope, month, sum(amount)::text AS amount FROM spending
        WHERE account_id = %(account_id)s GROUP BY scope, month""",
    "spending_limits": """
        SELECT scope, amount::text, created_at FROM spending_limits WHERE account_id = %(account_id)s""",
    "audit_events": """
        SELECT id, user_id, action, target, ip, user_agent, request_id, details, created_at
        FROM audit_events WHERE account_id = %(account_id)s""",
    "memories": """
        SELECT memories.id, memories.user_id, end_user AS space, kind, text, speaker, occurred_at, conversation_id,
               response_id, metadata, importance, recalled, recalled_at, valid_from, closed_at, closed_by,
               memories.created_at, updated_at
        FROM memories JOIN memory_spaces ON memory_spaces.id = space_id WHERE memories.account_id = %(account_id)s""",
    "memory_sources": """
        SELECT memory_id, source_id FROM memory_sources JOIN memories ON memories.id = memory_id
        WHERE account_id = %(account_id)s""",
    "meditations": """
        SELECT id, user_id, space, job_id, outcome, report, created_at, applied_at, reverted_at
        FROM meditations WHERE account_id = %(account_id)s""",
    "meditation_changes": """
        SELECT meditation_id, position, memory_id, action, reason, before, after, reverted
        FROM meditation_changes JOIN meditations ON meditations.id = meditation_id WHERE account_id = %(account_id)s""",
    "schedules": """
        SELECT id, user_id, name, kind, asked, trigger, if_missed, grace_seconds, paused_at, next_fire_at, created_at
        FROM schedules WHERE account_id = %(account_id)s""",
    "firings": """
        SELECT id, schedule_id, fire_time, fired_at, missed_since, status, job_id, error
        FROM firings WHERE account_id = %(account_id)s""",
    "files": """
        SELECT id, user_id, job_id, filename, purpose, content_type, bytes, created_at, expires_at
        FROM files WHERE account_id = %(account_id)s""",
}

#: Tables with an `account_id` that are not exported, and why.
NOT_EXPORTED: Mapping[str, str] = {
    "memberships": "exported as members",
    "usage_records": "exported as usage",
    "quota_usage": "exported as usage_by_month",
    "idempotency_keys": "copies of responses, kept for a day",
    "sessions": "belong to users, who may have several accounts",
    "memory_spaces": "names and counts of exported memories",
    "ended_jobs": "exported as jobs and job_events",
    "spending_reservations": "the most that unfinished jobs may cost",
}

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
    "firings": _by_id("firings"),
    "schedules": _by_id("schedules"),
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
    "payment_methods": _by_id("payment_methods"),
    "billing_details": "DELETE FROM billing_details WHERE account_id = %(account_id)s RETURNING account_id AS id",
    "spending_limits": "DELETE FROM spending_limits WHERE account_id = %(account_id)s RETURNING scope AS id",
}

#: Tables with an `account_id` that an erasure keeps, and why.
KEPT: Mapping[str, str] = {
    "usage_records": "billing: numbers of tokens and names of models",
    "quota_usage": "billing",
    **dict.fromkeys(
        ("subscriptions", "invoices", "credit_notes", "payments", "refunds", "credit_grants", "postings", "spending"),
        "billing: the law requires that invoices and what led to them are kept",
    ),
    "spending_reservations": "deleted with their jobs",
    "files": "deleted one by one, after their content",
    "sessions": "deleted with their users",
}


def export_rows(connection: Connection, name: str, account_id: str) -> Iterator[list[dict[str, Any]]]:
    """Return the rows of an export in batches, through a server-side cursor. Needs a transaction."""
    with connection.cursor(name="export") as cursor:
        cursor.execute(EXPORTS[name], {"account_id": account_id})
        while batch := cursor.fetchmany(BATCH):
            yield [_unpacked(row) for row in batch]


def _unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the export with its packed events, if it has such, as the lines that `job_events` has."""
    packed = row.pop("packed", None)
    return row if packed is None else {**row, "events": to_lines(unpack(b64decode(packed))).decode()}


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


FILES = "SELECT id, object_key FROM files WHERE account_id = %(account_id)s LIMIT %(batch)s"


def list_files(connection: Connection, account_id: str) -> list[tuple[str, str]]:
    """Return (id, object key) of at most BATCH files, expired ones included."""
    rows = fetch_all(connection, FILES, {"account_id": account_id, "batch": BATCH})
    return [(row["id"], row["object_key"]) for row in rows]


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

    def list_files(self, connection: Connection) -> list[tuple[str, str]]:
        """Return (id, object key) of at most BATCH files."""
        return list_files(connection, self.account_id)


# Without a membership all requests are rejected.
CLOSE = """
WITH account AS (
    UPDATE accounts SET erased_at = now(), name = 'erased', limits = '{}', plan_limits = NULL
    WHERE id = %(account_id)s RETURNING id
), ended AS (
    UPDATE subscriptions SET state = 'ended', ended_at = now(), end_reason = 'account_erased'
    WHERE account_id = %(account_id)s AND state <> 'ended'
)
DELETE FROM memberships USING account WHERE memberships.account_id = account.id RETURNING user_id
"""


def close_account(connection: Connection, account_id: str) -> list[str]:
    """Remove all members of an account and mark it as erased. Returns the ids of its members."""
    return [row["user_id"] for row in fetch_all(connection, CLOSE, {"account_id": account_id})]


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
    connection.execute(LOCK_ACCOUNTS, {"user_id": user_id})
    return [UserAccount(**row) for row in fetch_all(connection, USER_ACCOUNTS, {"user_id": user_id})]


# All credentials are deleted at once, and the address becomes free.
CLOSE_USER = (
    "DELETE FROM sessions WHERE user_id = %(user_id)s",
    "DELETE FROM api_keys WHERE user_id = %(user_id)s",
    "DELETE FROM identities WHERE user_id = %(user_id)s",
    "DELETE FROM memberships WHERE user_id = %(user_id)s",
    # The user's pending invitations could be used to return.
    "UPDATE invitations SET revoked_at = now()"
    " WHERE invited_by = %(user_id)s AND accepted_at IS NULL AND revoked_at IS NULL",
    # Only of a verified address: invitations to an unverified one may be for somebody else.
    "DELETE FROM invitations WHERE lower(email) IN ("
    "SELECT lower(email) FROM users WHERE id = %(user_id)s AND email_verified_at IS NOT NULL)",
    "UPDATE users SET email = id || '@erased.invalid', email_verified_at = NULL, password_hash = NULL, name = '',"
    " operator = false WHERE id = %(user_id)s",
)


def close_user(connection: Connection, user_id: str) -> None:
    """Delete a user's credentials and memberships, and anonymise the user."""
    for statement in CLOSE_USER:
        connection.execute(statement, {"user_id": user_id})


def email_of(connection: Connection, user_id: str) -> str:
    """Return a user's e-mail address."""
    row = fetch_one(connection, "SELECT email FROM users WHERE id = %(user_id)s", {"user_id": user_id})
    return row["email"] if row else ""
