-- Jobs: the outbox, the delay queue, the retry schedule, the fairness window and the dead-letter list in one table.
-- The row is the truth; a message carries only its id.

-- The platform's own jobs belong to an account too, so that every query is scoped by account.
INSERT INTO accounts (id, name) VALUES ('platform', 'Sangha itself');

CREATE TABLE jobs (
    id                   text        PRIMARY KEY,
    account_id           text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    kind                 text        NOT NULL,
    queue                text        NOT NULL,
    arguments            jsonb       NOT NULL DEFAULT '{}',
    state                text        NOT NULL DEFAULT 'queued' CHECK (state IN
                                     ('queued', 'running', 'waiting', 'completed', 'failed', 'cancelled', 'dead')),

    run_at               timestamptz NOT NULL DEFAULT now(),  -- earliest time of the next attempt: delays and retries
    published_at         timestamptz,                         -- null: to be published by the relay
    serial_key           text,                                -- jobs with the same key run one at a time, in order
    unique_key           text,                                -- a second job with the same key is not inserted

    parent_id            text        REFERENCES jobs ON DELETE CASCADE,
    pending_children     integer     NOT NULL DEFAULT 0 CHECK (pending_children >= 0),

    attempt              integer     NOT NULL DEFAULT 0,      -- the fencing token, only incremented
    failures             integer     NOT NULL DEFAULT 0,      -- attempts that count against the kind's limit
    crashes              integer     NOT NULL DEFAULT 0,      -- failures by the death of the worker
    message_id           text,                                -- of the message that the running attempt was claimed for
    worker               text,
    lease_until          timestamptz,
    cancel_requested_at  timestamptz,

    rewound_at           integer,                             -- events from this sequence number on may have been lost
    progress             jsonb,
    result               jsonb,
    error                jsonb,                               -- {"code", "message"}, for the caller
    traceback            text,                                -- for operators only

    created_at           timestamptz NOT NULL DEFAULT now(),
    started_at           timestamptz,
    finished_at          timestamptz
);

-- Jobs are listed by account, newest first.
CREATE INDEX jobs_account ON jobs (account_id, id DESC);

-- The relay visits the (account, kind) pairs with unpublished jobs,
CREATE INDEX jobs_unpublished ON jobs (account_id, kind, run_at, id) WHERE state = 'queued' AND published_at IS NULL;

-- and counts the jobs in flight of each.
CREATE INDEX jobs_in_flight ON jobs (account_id, kind)
    WHERE state = 'running' OR (state = 'queued' AND published_at IS NOT NULL);

CREATE INDEX jobs_lease ON jobs (lease_until) WHERE state = 'running';
CREATE INDEX jobs_worker ON jobs (worker) WHERE state = 'running';
CREATE INDEX jobs_suspect ON jobs (queue) WHERE crashes >= 2 AND state IN ('queued', 'running');
CREATE INDEX jobs_dead ON jobs (id) WHERE state = 'dead';
CREATE INDEX jobs_parent ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX jobs_unique_key ON jobs (unique_key) WHERE unique_key IS NOT NULL;

-- At most one running or waiting job per serial key.
CREATE UNIQUE INDEX jobs_serial_running ON jobs (serial_key) WHERE state IN ('running', 'waiting');
CREATE INDEX jobs_serial ON jobs (serial_key, id) WHERE serial_key IS NOT NULL AND state IN ('queued', 'running', 'waiting');

-- The archive of the journal: events of the enqueueing, of checkpoints and of the end.
CREATE TABLE job_events (
    job_id          text    NOT NULL REFERENCES jobs ON DELETE CASCADE,
    first_sequence  integer NOT NULL,
    last_sequence   integer NOT NULL,
    tokens          integer NOT NULL DEFAULT 0,   -- generated tokens that these events carry
    events          text    NOT NULL,             -- one JSON object per line
    PRIMARY KEY (job_id, first_sequence)
);

-- Registered workers: for the size of the fairness window, for operators, and to release the jobs of dead ones.
CREATE TABLE workers (
    name        text        PRIMARY KEY,
    host        text        NOT NULL,
    pid         integer     NOT NULL,
    pools       text[]      NOT NULL,
    queues      text[]      NOT NULL,
    threads     integer     NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
);
