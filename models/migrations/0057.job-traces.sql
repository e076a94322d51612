-- roll: expand
-- The W3C trace context that a job was enqueued in; null: none, or from an earlier version. Traces end with their jobs,
-- so `ended_jobs` has none.
ALTER TABLE jobs ADD COLUMN traceparent text;

-- The columns of the record `Job`, as before, and the new one.
CREATE OR REPLACE VIEW all_jobs AS
SELECT id, account_id, kind, queue, arguments, state, run_at, published_at, serial_key, unique_key, parent_id,
       pending_children, attempt, failures, crashes, message_id, worker, NULL::timestamptz AS lease_until,
       cancel_requested_at, rewound_at, progress, result, error, traceback, created_at, started_at, finished_at,
       reserved_tokens, sequence, claim_id, root_id, depth, join_rule, wait_until, deadline_at, lane, blocked, owner_id,
       traceparent
FROM jobs
UNION ALL
SELECT id, account_id, kind, queue, arguments, state, run_at, NULL::timestamptz, NULL::text, NULL::text, parent_id,
       0, attempt, failures, crashes, NULL::text, NULL::text, NULL::timestamptz,
       cancel_requested_at, rewound_at, progress, result, error, traceback, created_at, started_at, finished_at,
       0::bigint, sequence, NULL::uuid, root_id, depth, 'all'::text, NULL::timestamptz, NULL::timestamptz, NULL::text, false,
       owner_id, NULL::text
FROM ended_jobs;
