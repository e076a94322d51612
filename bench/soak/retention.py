"""Check what the nightly pruning leaves: after the load all rows are aged by 400 days, and the pruning runs.

What ended, expired or was revoked must be deleted then. The other tables are kept until their owner deletes them. The
turns move to `ended_jobs` afterwards, as they do hourly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from bench.harness.sse import CheckFailed
from bench.harness.waiting import wait_until
from models.jobs.jobs import PLATFORM_ACCOUNT, NewJob, enqueue
from models.platform.database import Connection, Database, fetch_all, fetch_one

#: Seconds that the pruning may take, and that jobs may take to end before it.
PATIENCE = 120.0

#: Age all rows by 400 days, except those of running processes and schedules.
AGE = """
DO $$
DECLARE aged record;
BEGIN
    FOR aged IN
        SELECT table_name, string_agg(format('%1$I = %1$I - interval ''400 days''', column_name), ', ') AS changes
        FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND data_type = 'timestamp with time zone'
          AND table_name NOT IN ('schedules', 'workers', 'web_processes', 'signing_keys')
          AND table_name NOT LIKE 'ended_jobs%'
        GROUP BY table_name
    LOOP
        EXECUTE format('UPDATE %I SET %s', aged.table_name, aged.changes);
    END LOOP;
END $$
"""

NAMES = r"""
SELECT table_name AS name FROM information_schema.tables
WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name NOT LIKE '%yoyo%'
  AND table_name NOT LIKE 'ended\_jobs\_%'
ORDER BY table_name
"""

#: Rows that must not exist after the pruning.
LEFT_OVER: Mapping[str, str] = {
    "events": "SELECT count(*) AS count FROM account_events WHERE created_at < now() - interval '40 days'",
    "deliveries without an event": """
        SELECT count(*) AS count FROM webhook_deliveries WHERE event_id NOT IN (SELECT id FROM account_events)""",
    "batches": "SELECT count(*) AS count FROM batches WHERE ended_at < now() - interval '2 years'",
    "lines of batches that have ended": """
        SELECT count(*) AS count FROM batch_lines JOIN batches ON batches.id = batch_id
        WHERE ended_at < now() - interval '2 days'""",
    "idempotency keys": "SELECT count(*) AS count FROM idempotency_keys",
    "counts of e-mails": "SELECT count(*) AS count FROM sent_emails WHERE sent_at < now() - interval '1 day'",
    "ended sessions": "SELECT count(*) AS count FROM sessions WHERE least(revoked_at, expires_at) < now()",
    "used refresh tokens": "SELECT count(*) AS count FROM refresh_tokens WHERE used_at IS NOT NULL",
    "email tokens": "SELECT count(*) AS count FROM email_tokens WHERE least(used_at, expires_at) < now()",
    "revoked or expired API keys": "SELECT count(*) AS count FROM api_keys WHERE least(revoked_at, expires_at) < now()",
    "invitations": "SELECT count(*) AS count FROM invitations WHERE least(accepted_at, revoked_at, expires_at) < now()",
    "expired files": "SELECT count(*) AS count FROM files WHERE expires_at < now()",
    "objects of uploads that expired": "SELECT count(*) AS count FROM file_objects WHERE file_id IS NULL",
    "parts of uploads": "SELECT count(*) AS count FROM upload_parts",
    "uploads": "SELECT count(*) AS count FROM uploads",
    "reports": "SELECT count(*) AS count FROM reports WHERE expires_at < now()",
    "firings": "SELECT count(*) AS count FROM firings WHERE fired_at < now() - interval '1 day'",
    "changes of meditations": """
        SELECT count(*) AS count FROM meditation_changes JOIN meditations ON meditations.id = meditation_id
        WHERE created_at < now() - interval '1 day'""",
    "ended jobs without a response": """
        SELECT count(*) AS count FROM jobs
        WHERE state IN ('completed', 'failed', 'cancelled') AND finished_at < now() - interval '1 day'
          AND NOT EXISTS (SELECT FROM responses WHERE job_id = jobs.id)""",
    "ended jobs that were not moved": """
        SELECT count(*) AS count FROM jobs
        WHERE parent_id IS NULL AND state IN ('completed', 'failed', 'cancelled')
          AND finished_at < now() - interval '3 days'
          AND NOT EXISTS (SELECT FROM responses WHERE job_id = jobs.id AND unremembered)""",
    "responses without a job": """
        SELECT count(*) AS count FROM responses WHERE NOT EXISTS (SELECT FROM all_jobs WHERE id = job_id)""",
    "budgets without a job": "SELECT count(*) AS count FROM budgets WHERE root_id NOT IN (SELECT id FROM jobs)",
    "ended effects": """
        SELECT count(*) AS count FROM effects
        WHERE state IN ('done', 'failed') AND updated_at < now() - interval '1 day'
          AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = effects.job_id
                          AND jobs.state NOT IN ('completed', 'failed', 'cancelled'))""",
    "abandoned turns": "SELECT count(*) AS count FROM abandoned_turns",
    "deleted agents": "SELECT count(*) AS count FROM agents WHERE deleted_at < now() - interval '40 days'",
    "expired lists of tools": """
        SELECT count(*) AS count FROM mcp_tool_lists WHERE expires_at < now() - interval '8 days'""",
    "undecided approvals": "SELECT count(*) AS count FROM approvals WHERE status = 'pending' AND expires_at < now()",
    "web processes": "SELECT count(*) AS count FROM web_processes WHERE seen_at < now() - interval '1 minute'",
    "responses that were not stored": "SELECT count(*) AS count FROM responses WHERE expires_at < now()",
    "events without a job": "SELECT count(*) AS count FROM job_events WHERE job_id NOT IN (SELECT id FROM jobs)",
    "postings without a memory": """
        SELECT count(*) AS count FROM memory_postings
        WHERE space_id NOT IN (SELECT space_id FROM memories)""",
}

COUNT = sql.SQL("SELECT count(*) AS count FROM {}")

#: Tables whose rows are kept until their owner deletes them; all others are checked above.
KEPT = frozenset({
    "accounts", "agent_versions", "audit_events", "billing_details", "circuit_breakers", "completion_windows",
    "conversation_items", "conversations", "credit_draws", "credit_grants", "credit_notes", "ended_jobs",
    "endpoint_failures", "gateway_events", "identities", "invoice_lines", "invoices", "mcp_servers",
    "mcp_tool_pins", "meditations",
    "memberships", "memory_passages", "memory_sources", "memory_spaces", "memory_speakers", "memory_vector_codes",
    "memory_vectors", "payment_methods", "payments", "plan_versions", "plans", "postings", "prices", "promise_checks",
    "quota_usage",
    "refunds", "replaced_usage", "route_moves", "schedules", "schema_compatibility", "sellers", "served_models",
    "signing_keys", "simulated_objects", "spending", "spending_limits", "spending_reservations", "spill_days",
    "subscriptions", "turn_counts", "error_counts", "memory_counts", "usage_quarters", "usage_quarters_state",
    "usage_records", "usage_segments", "users", "webhook_endpoints", "workers",
})  # fmt: skip

UNFINISHED = "SELECT count(*) AS count FROM jobs WHERE state IN ('scheduled', 'queued', 'running', 'waiting')"

STATE = "SELECT state FROM jobs WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class Retention:
    """The result of the pruning.

    unfinished  jobs that did not end although no request followed
    pruned      rows deleted, by table
    left        rows that should have been deleted, without zeros
    """

    unfinished: int
    pruned: Mapping[str, int]
    left: Mapping[str, int]


def check_retention(database: Database) -> Retention:
    """Wait for the last job, age all rows, prune, and count. Raises TimeoutError or CheckFailed when pruning fails."""
    unfinished = wait_for_jobs(database)
    with database.connection() as connection:
        before = _rows(connection)
        connection.execute(AGE)
    for kind in ("maintenance.prune", "maintenance.archive_jobs"):
        _run(database, kind)
    with database.connection() as connection:
        after = _rows(connection)
        left = {name: _count(connection, statement) for name, statement in LEFT_OVER.items()}
    pruned = {name: before[name] - after[name] for name in before if before[name] > after[name]}
    return Retention(unfinished, pruned, {name: count for name, count in left.items() if count})


def wait_for_jobs(database: Database) -> int:
    """Wait until all jobs have ended; returns how many have not after PATIENCE."""
    try:
        wait_until(lambda: not _unfinished(database), PATIENCE, interval=0.2)
    except TimeoutError:
        return _unfinished(database)
    return 0


def _unfinished(database: Database) -> int:
    with database.connection() as connection:
        return _count(connection, UNFINISHED)


def _run(database: Database, kind: str) -> None:
    """Run a periodic job on the platform's worker."""
    job = NewJob(kind, PLATFORM_ACCOUNT)
    with database.transaction() as connection:
        enqueue(connection, job)
    final = ("completed", "dead", "failed", "cancelled")
    wait_until(lambda: _state(database, job.id) in final, PATIENCE, interval=0.1, what=f"the end of {kind}")
    if (state := _state(database, job.id)) != "completed":
        raise CheckFailed(f"{kind} has the state {state}")


def _state(database: Database, job_id: str) -> str:
    with database.connection() as connection:
        row = fetch_one(connection, STATE, {"id": job_id})
    return row["state"] if row else "deleted"


def _rows(connection: Connection) -> dict[str, int]:
    """Count the rows of each table."""
    names = [row["name"] for row in fetch_all(connection, NAMES)]
    return {name: _count(connection, COUNT.format(sql.Identifier(name)).as_string(connection)) for name in names}


def _count(connection: Connection, statement: str) -> int:
    row = fetch_one(connection, statement)
    assert row is not None
    return int(row["count"])
