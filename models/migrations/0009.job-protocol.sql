-- roll: expand
-- Columns for order, fencing, trees, deadlines and lanes. They are nullable or have a constant default, and constraints
-- are validated later: no row is read or rewritten while the table is locked, and code that does not know them continues
-- to work.

CREATE SEQUENCE jobs_sequence;

ALTER TABLE jobs
    ADD COLUMN sequence     bigint,                            -- order of insertion; null: inserted before this migration
    ADD COLUMN claim_id     uuid,                              -- of the running attempt; with `attempt` the fencing token
    ADD COLUMN root_id      text,                              -- the job at the top of the tree; null: this one
    ADD COLUMN depth        integer     NOT NULL DEFAULT 0,    -- number of ancestors
    ADD COLUMN join_rule    text        NOT NULL DEFAULT 'all', -- which children a waiting job waits for
    ADD COLUMN wait_until   timestamptz,                       -- a waiting job continues at this time at the latest
    ADD COLUMN deadline_at  timestamptz,                       -- the job ends as failed at this time at the latest
    ADD COLUMN priority     smallint    NOT NULL DEFAULT 0,    -- within a lane, lower runs first
    ADD COLUMN lane         text,                              -- fairness window; null: the account's
    ADD COLUMN blocked      boolean     NOT NULL DEFAULT false, -- an earlier job with the same serial key is unfinished
    ADD COLUMN sends        integer     NOT NULL DEFAULT 0;    -- messages published since the last claim

ALTER TABLE jobs ALTER COLUMN sequence SET DEFAULT nextval('jobs_sequence');

-- Rows change several times within seconds, beside millions that have ended.
ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.005, autovacuum_vacuum_threshold = 10000,
                      autovacuum_analyze_scale_factor = 0.01, autovacuum_analyze_threshold = 5000);

-- `scheduled`: due later.
ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check CHECK (state IN
    ('scheduled', 'queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'dead')) NOT VALID;
ALTER TABLE jobs ADD CONSTRAINT jobs_join_rule_check CHECK (join_rule IN ('all', 'any', 'fail_fast')) NOT VALID;

-- Threads that serve each queue of a worker: {"memory": 2}. Null: each queue is served by all threads.
ALTER TABLE workers ADD COLUMN queue_threads jsonb;

-- The limits of a tree of jobs, and what it has drawn: used, or reserved for jobs that run. A null limit is no limit.
-- Money is not rounded: a token may cost less than a millionth.
CREATE TABLE budgets (
    root_id      text         PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    account_id   text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    max_tokens   bigint,
    tokens       bigint       NOT NULL DEFAULT 0,
    max_money    numeric,
    money        numeric      NOT NULL DEFAULT 0,
    max_calls    integer,
    calls        integer      NOT NULL DEFAULT 0,
    max_depth    integer,
    created_at   timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX budgets_account ON budgets (account_id);

-- Calls to the outside that must not happen twice. An effect outlives its job.
CREATE TABLE effects (
    job_id           text         NOT NULL,
    step             text         NOT NULL,                    -- which call of the job
    account_id       text         NOT NULL REFERENCES accounts ON DELETE CASCADE,
    idempotency_key  text         NOT NULL UNIQUE,
    request_hash     text         NOT NULL,                    -- of the request: a second call must be the same
    state            text         NOT NULL DEFAULT 'intent' CHECK (state IN ('intent', 'done', 'failed', 'unknown')),
    result           jsonb,
    error            jsonb,
    created_at       timestamptz  NOT NULL DEFAULT now(),
    updated_at       timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, step)
);

CREATE INDEX effects_account ON effects (account_id);
CREATE INDEX effects_open ON effects (job_id, step) WHERE state IN ('intent', 'unknown');
CREATE INDEX effects_ended ON effects (updated_at) WHERE state IN ('done', 'failed');
