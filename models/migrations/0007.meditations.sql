-- Meditations and their changes, so that they can be listed and reverted.

CREATE TABLE meditations (
    id            text        PRIMARY KEY,
    account_id    text        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id       text        NOT NULL REFERENCES users ON DELETE CASCADE,
    job_id        text        NOT NULL,               -- no reference: kept when the job is deleted
    outcome       text        CHECK (outcome IN ('applied', 'nothing_to_do', 'would_harm', 'failed', 'cancelled')),
    report        jsonb       NOT NULL DEFAULT '{}',  -- counts, recall before and after, tokens used
    created_at    timestamptz NOT NULL DEFAULT now(),
    applied_at    timestamptz,
    reverted_at   timestamptz
);

CREATE INDEX meditations_user ON meditations (account_id, user_id, id DESC);
CREATE UNIQUE INDEX meditations_job ON meditations (job_id);
-- One unfinished meditation per user.
CREATE UNIQUE INDEX meditations_unfinished ON meditations (account_id, user_id) WHERE outcome IS NULL;

-- One row per changed memory: the changed columns before and after, but no text, since a deleted memory must not be kept
-- here. Written in the transaction of the change.
CREATE TABLE meditation_changes (
    meditation_id  text    NOT NULL REFERENCES meditations ON DELETE CASCADE,
    position       integer NOT NULL,
    memory_id      text    NOT NULL,
    action         text    NOT NULL CHECK (action IN ('created', 'closed', 'weighed')),
    reason         text    NOT NULL DEFAULT '',
    before         jsonb,
    after          jsonb,
    reverted       boolean,                           -- false: not reverted, since it was changed again
    PRIMARY KEY (meditation_id, position)
);

CREATE INDEX meditation_changes_memory ON meditation_changes (memory_id);

-- Forgetting a memory forgets its closed duplicates.
CREATE INDEX memories_substitutes ON memories (closed_by) WHERE closed_by IS NOT NULL;
