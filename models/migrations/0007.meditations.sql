-- Meditation: what was changed, so that it can be told and undone whole.

CREATE TABLE meditations (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text        NOT NULL REFERENCES users ON DELETE CASCADE,
    job_id        text        NOT NULL,               -- no reference: the changes outlive the job
    outcome       text        CHECK (outcome IN ('applied', 'nothing_to_do', 'would_harm', 'failed', 'cancelled')),
    report        jsonb       NOT NULL DEFAULT '{}',  -- counts, recall before and after, budget spent
    created_at    timestamptz NOT NULL DEFAULT now(),
    applied_at    timestamptz,
    reverted_at   timestamptz
);

CREATE INDEX meditations_user ON meditations (account_id, user_id, id DESC);
CREATE UNIQUE INDEX meditations_job ON meditations (job_id);
-- One at a time: a second start finds the first.
CREATE UNIQUE INDEX meditations_unfinished ON meditations (account_id, user_id) WHERE outcome IS NULL;

-- One row a changed memory: the columns that were changed, before and after, and nobody's words: a memory that is deleted
-- must not live on here. Written in the transaction that changes.
CREATE TABLE meditation_changes (
    meditation_id  text    NOT NULL REFERENCES meditations ON DELETE CASCADE,
    position       integer NOT NULL,
    memory_id      text    NOT NULL,
    action         text    NOT NULL CHECK (action IN ('created', 'closed', 'weighed')),
    reason         text    NOT NULL DEFAULT '',
    before         jsonb,
    after          jsonb,
    reverted       boolean,                           -- false: somebody had changed it again, and it was left to them
    PRIMARY KEY (meditation_id, position)
);

CREATE INDEX meditation_changes_memory ON meditation_changes (memory_id);

-- Who forgets a memory forgets what was closed for repeating it.
CREATE INDEX memories_substitutes ON memories (closed_by) WHERE closed_by IS NOT NULL;
