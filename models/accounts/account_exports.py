"""The data of an account, table by table: what an export writes.

A test compares the names below with the schema: every table with an `account_id` is in one of them.
"""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, LiteralString

from models.journal.archive import unpack
from models.journal.events import to_lines
from models.platform.database import Connection

#: Rows that are fetched at a time.
BATCH = 500

#: Name in the export → the account's rows. Neither hashes of secrets nor encrypted credentials are exported.
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
        SELECT id, user_id, space, job_id, conversation_id, previous_id,
               request::jsonb - 'mcp_credentials' AS request, input, output, usage, incomplete_details, recalled,
               created_at
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
    "usage_segments": """
        SELECT job_id, position, segment_model, segment_endpoint, segment_input, segment_cached, segment_output,
               segment_amount::text
        FROM usage_segments WHERE account_id = %(account_id)s""",
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
    "agents": """
        SELECT id, name, version, metadata, created_by, created_at, updated_at, deleted_at
        FROM agents WHERE account_id = %(account_id)s""",
    "agent_versions": """
        SELECT agent_id, agent_versions.version, definition - 'mcp_credentials' AS definition,
               agent_versions.created_by, agent_versions.created_at
        FROM agent_versions JOIN agents ON agents.id = agent_id WHERE account_id = %(account_id)s""",
    "mcp_servers": """
        SELECT id, label, url, description, allowed_tools, require_approval, trusts_annotations, created_by,
               created_at, updated_at
        FROM mcp_servers WHERE account_id = %(account_id)s""",
    "approvals": """
        SELECT id, user_id, response_id, reason, server_label, tool_name, arguments, agent_name, status, decided_by,
               decision_text, created_at, decided_at, expires_at
        FROM approvals WHERE account_id = %(account_id)s""",
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
    "batches": """
        SELECT id, user_id, job_id, endpoint, input_file_id, completion_window, metadata, status, errors,
               output_file_id, error_file_id, total_lines, completed_lines, failed_lines, input_tokens, output_tokens,
               created_at, expires_at, in_progress_at, ended_at
        FROM batches WHERE account_id = %(account_id)s""",
    "batch_lines": """
        SELECT batch_id, position, line, custom_id, line_state, body, job_ids, answer
        FROM batch_lines WHERE account_id = %(account_id)s""",
    "firings": """
        SELECT id, schedule_id, fire_time, fired_at, missed_since, status, job_id, error
        FROM firings WHERE account_id = %(account_id)s""",
    "webhook_endpoints": """
        SELECT id, url, event_types, name, description, metadata, endpoint_status, disabled_reason, failing_since,
               created_by, created_at, updated_at
        FROM webhook_endpoints WHERE account_id = %(account_id)s""",
    "account_events": "SELECT id, event_type, data, created_at FROM account_events WHERE account_id = %(account_id)s",
    "webhook_deliveries": """
        SELECT id, endpoint_id, event_id, delivery_state, attempts, next_attempt_at, created_at
        FROM webhook_deliveries WHERE account_id = %(account_id)s""",
    "reports": """
        SELECT id, user_id, scope, job_id, schedule_id, asked, format, deliver_to, file_id, outcome, created_at,
               completed_at, expires_at
        FROM reports WHERE account_id = %(account_id)s""",
    "files": """
        SELECT id, user_id, job_id, filename, purpose, content_type, audience, bytes, created_at, expires_at
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
    "mcp_tool_lists": "copies of what the MCP servers publish, kept for a day at most",
    **dict.fromkeys(("uploads", "upload_parts", "file_objects"), "files that are not complete, and their places"),
    **dict.fromkeys(
        ("usage_quarters", "replaced_usage", "error_counts", "memory_counts"), "sums of what is exported, for reports"
    ),
    "mcp_tool_pins": "digests of what the MCP servers publish",
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
