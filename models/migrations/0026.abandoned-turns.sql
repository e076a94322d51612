-- roll: expand
-- Turns whose client has left and that nobody can read again, and when they are cancelled. A row lives for seconds.
CREATE TABLE abandoned_turns (
    job_id    text        PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    cancel_at timestamptz NOT NULL
);
