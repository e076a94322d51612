-- roll: expand
-- When background turns are to be complete. A row is deleted once its job has left the queue of background work.
CREATE TABLE completion_windows (
    job_id       text        PRIMARY KEY REFERENCES jobs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    promote_at   timestamptz NOT NULL,  -- then it leaves that queue, if it still waits
    complete_by  timestamptz NOT NULL
);

CREATE INDEX completion_windows_promote_at ON completion_windows (promote_at);
