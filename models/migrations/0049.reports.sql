-- roll: expand
-- Reports that were asked for. A job builds the file of each.
CREATE TABLE reports (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,  -- the platform's: of operators
    user_id       text        NOT NULL REFERENCES users ON DELETE CASCADE,     -- who asked for it
    scope         text        NOT NULL CHECK (scope IN ('user', 'account')),   -- whose data it has
    job_id        text        NOT NULL,               -- no reference: kept when the job is deleted
    schedule_id   text,                               -- no reference: kept when the schedule is deleted
    asked         jsonb       NOT NULL,
    query         jsonb       NOT NULL,
    format        text        NOT NULL,
    deliver_to    text[]      NOT NULL DEFAULT '{}',
    file_id       text,                               -- no reference: the file is deleted by itself
    outcome       jsonb       NOT NULL DEFAULT '{}',  -- rows, bytes and the time of the snapshot
    created_at    timestamptz NOT NULL DEFAULT now(),
    completed_at  timestamptz,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX reports_account ON reports (account_id, id DESC);
CREATE INDEX reports_user ON reports (user_id);
CREATE INDEX reports_expires_at ON reports (expires_at);
