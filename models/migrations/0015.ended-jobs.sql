-- roll: expand
-- Jobs that ended days ago, with their events, out of the table that enqueueing, claiming and ending change. A job is
-- in `jobs` or here. models/jobs/ended_jobs.py moves it, once no earlier version runs; all versions read `all_jobs`.
--
-- No foreign key to accounts: dropping a partition would lock `accounts` against all reads.
CREATE TABLE ended_jobs (
    id                   text        NOT NULL,
    delete_after         timestamptz NOT NULL,                 -- infinity: until its owner deletes it
    account_id           text        NOT NULL,
    kind                 text        NOT NULL,
    queue                text        NOT NULL,
    arguments            jsonb       NOT NULL,
    state                text        NOT NULL CHECK (state IN ('completed', 'failed', 'cancelled')),
    run_at               timestamptz NOT NULL,
    parent_id            text,
    root_id              text,
    depth                integer     NOT NULL,
    sequence             bigint,
    attempt              integer     NOT NULL,
    failures             integer     NOT NULL,
    crashes              integer     NOT NULL,
    cancel_requested_at  timestamptz,
    rewound_at           integer,
    progress             jsonb,
    result               jsonb,
    error                jsonb,
    traceback            text,
    created_at           timestamptz NOT NULL,
    started_at           timestamptz,
    finished_at          timestamptz NOT NULL,
    events               bytea,                                -- its journal: see models/journal/archive.py; null: none
    last_sequence        integer     NOT NULL DEFAULT -1,      -- of its last event
    tokens               integer     NOT NULL DEFAULT 0,       -- generated tokens that the events carry
    PRIMARY KEY (id, delete_after)
) PARTITION BY RANGE (delete_after);

-- The events are compressed already.
ALTER TABLE ended_jobs ALTER COLUMN events SET STORAGE EXTERNAL;

CREATE INDEX ended_jobs_account ON ended_jobs (account_id, id DESC);
-- Completed ones are found by the index above.
CREATE INDEX ended_jobs_failed ON ended_jobs (account_id, state, id DESC) WHERE state <> 'completed';
CREATE INDEX ended_jobs_parent ON ended_jobs (parent_id) WHERE parent_id IS NOT NULL;

-- Partitions of a week each are created and dropped by models/jobs/ended_partitions.py.
CREATE TABLE ended_jobs_kept PARTITION OF ended_jobs FOR VALUES FROM ('infinity') TO (MAXVALUE);

-- Deleting a turn's job deletes its response; moving the job does not.
CREATE FUNCTION delete_response_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM responses
    WHERE job_id = old.id AND NOT EXISTS (SELECT FROM jobs WHERE id = old.id)
      AND NOT EXISTS (SELECT FROM ended_jobs WHERE id = old.id);
    RETURN NULL;
END $$;

-- The strongest locks first, in the order in which transactions lock these tables: raising a lock would be a deadlock.
LOCK TABLE jobs, responses IN ACCESS EXCLUSIVE MODE;
CREATE TRIGGER jobs_response AFTER DELETE ON jobs
    FOR EACH ROW WHEN (old.kind = 'turn.run') EXECUTE FUNCTION delete_response_of_job();
CREATE TRIGGER ended_jobs_response AFTER DELETE ON ended_jobs
    FOR EACH ROW WHEN (old.kind = 'turn.run') EXECUTE FUNCTION delete_response_of_job();

ALTER TABLE responses DROP CONSTRAINT responses_job_id_fkey;

-- The columns of the record `Job`, for readers that may meet jobs of any age. It names no column of `jobs` that means
-- nothing after the end and may be dropped.
CREATE VIEW all_jobs AS
SELECT id, account_id, kind, queue, arguments, state, run_at, published_at, serial_key, unique_key, parent_id,
       pending_children, attempt, failures, crashes, message_id, worker, NULL::timestamptz AS lease_until,
       cancel_requested_at, rewound_at, progress, result, error, traceback, created_at, started_at, finished_at,
       reserved_tokens, sequence, claim_id, root_id, depth, join_rule, wait_until, deadline_at, lane, blocked
FROM jobs
UNION ALL
SELECT id, account_id, kind, queue, arguments, state, run_at, NULL::timestamptz, NULL::text, NULL::text, parent_id,
       0, attempt, failures, crashes, NULL::text, NULL::text, NULL::timestamptz,
       cancel_requested_at, rewound_at, progress, result, error, traceback, created_at, started_at, finished_at,
       0::bigint, sequence, NULL::uuid, root_id, depth, 'all'::text, NULL::timestamptz, NULL::timestamptz, NULL::text, false
FROM ended_jobs;
